"""Compiled loops are kept for the next process, and computed all the same where nothing can be kept."""
import subprocess
import sys

LOOP = """
import numpy as np
from elektronn2.utils.compiling import compiled


@compiled
def total(values):
    result = 0.0
    for value in values:
        result += value
    return result


print(total(np.arange(4.0)), sum(total.stats.cache_hits.values()), sum(total.stats.cache_misses.values()))
"""


def said(file):
    return subprocess.run([sys.executable, file], capture_output=True, text=True, check=True).stdout.split()


def test_the_second_process_need_not_compile(tmp_path):
    file = tmp_path / "loop.py"
    file.write_text(LOOP)
    assert said(file) == ["6.0", "0", "1"]
    assert said(file) == ["6.0", "1", "0"]
    file.write_text(LOOP.replace("result = 0.0", "result = 1.0"))
    assert said(file) == ["7.0", "0", "1"]  # another source is compiled anew


def test_where_nothing_can_be_kept(tmp_path):
    file = tmp_path / "loop.py"
    file.write_text("from numba.core.caching import FunctionCache\nFunctionCache._impl_class._locator_classes = []\n" + LOOP)
    for _ in range(2):
        assert said(file) == ["6.0", "0", "1"]
    assert not list(tmp_path.rglob("*.nbi"))
