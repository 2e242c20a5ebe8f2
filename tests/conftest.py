"""Every test starts with no open model, default settings, and the same seed."""
import logging
import os

import numpy as np
import pytest
import torch

from elektronn2.config import config
from elektronn2.neuromancer import model_manager
from elektronn2.neuromancer.init import reseed

logger = logging.getLogger("elektronn2log")
torch.set_num_threads(1)  # the networks of most tests are too small for two


@pytest.fixture(autouse=True)
def fresh():
    settings = dict(vars(config))
    level = logger.level
    model_manager.models.clear()
    model_manager.current = model_manager.last = None
    reseed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    vars(config).update(settings)
    logger.setLevel(level)


@pytest.fixture
def all_cores():
    """For networks that are large."""
    torch.set_num_threads(os.cpu_count())
    yield
    torch.set_num_threads(1)


@pytest.fixture
def float64():
    """Parameters, inputs and computation in double precision."""
    config.precision = "float64"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
