"""What the guide shows as printed is what is printed, up to numbers that a machine decides on."""
import doctest
import logging
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
TIMES = re.compile(r"\d+\.\d+ (?:s|ms|MPix/s)|\[[\d. ]+\]$|(?<=to_dense)\w+")


def lines(text):
    """Without white space at the ends, and without times and the names that are drawn."""
    return [TIMES.sub("#", line.strip()) for line in text.splitlines() if line.strip() not in ("", "...")]


@pytest.mark.parametrize("page", ["first_network.md", "neuro3d.md"])
def test_texts_of_a_page_are_logged(page, monkeypatch):
    monkeypatch.chdir(DOCS.parent)
    logged = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.extend(lines(record.getMessage()))
    logger = logging.getLogger("elektronn2log")
    logger.addHandler(handler)
    text = (DOCS / page).read_text()
    try:
        test = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
        doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None)
    finally:
        logger.removeHandler(handler)
    shown = [line for block in re.findall(r"```text\n(.*?)```", text, re.S) for line in lines(block)]
    assert shown
    assert [line for line in shown if line not in logged] == []
