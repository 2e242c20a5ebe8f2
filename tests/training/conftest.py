"""The log file of a run is closed after each test."""
import logging

import pytest

from elektronn2.utils.log import stop_logging_to_file


@pytest.fixture(autouse=True)
def close_log():
    yield
    stop_logging_to_file(logging.getLogger("elektronn2log"))
