"""``elektronn2-data-bench``: what it tells, and that it leaves nothing behind."""
import re
import time

import pytest
from training.configs import write_config

from elektronn2.scripts import data_bench
from elektronn2.training.feeding import KEEPS_UP, rate, step_rates


def run(path, *arguments):
    return data_bench.main([str(path), "--gpu=none", "--seconds=0.2", *arguments])


@pytest.mark.parametrize("stream, kind", [(False, "threads"), (True, "threads"), (False, "processes")])
def test_speed_and_shares_are_told(stream, kind, tmp_path, capsys):
    path = write_config(tmp_path, change={'"aniso_factor": 1': f'"aniso_factor": 1, "h5stream": {stream}'})
    assert run(path, "--workers=2", f"--kind={kind}") == 0
    text = capsys.readouterr().out
    shares = {m[2]: float(m[1]) for m in re.finditer(r"^ +([\d.]+) % +[\d.]+ ms  (.+)$", text, re.MULTILINE)}
    assert abs(sum(shares.values()) - 100) < 0.3
    parts = {"reading", "warping", "checks"} if stream else {"reading and warping"}
    assert set(shares) == parts | {"grey values", "targets"}
    assert f"read from {'files' if stream else 'memory'}: 0.0" in text and f"samples/s by 2 {kind}, " in text
    alone, fed, ratio = (float(re.search(pattern, text)[1]) for pattern in (
        r"one fixed batch: ([\d.]+) samples", r"these workers: ([\d.]+) samples", r"samples/s, ([\d.]+) of that"))
    assert alone > 0 and fed > 0
    assert ("keeps up" in text) == (ratio >= KEEPS_UP) and ("starves" in text) == (ratio < KEEPS_UP)
    assert not (tmp_path / "runs").exists()


def test_data_of_ones_own_are_measured_as_far_as_possible(tmp_path, capsys):
    (tmp_path / "mydata.py").write_text("""
import numpy as np
class Data:
    def __init__(self, input_node, target_node):
        self.shapes = input_node.shape, target_node.shape
    def getbatch(self, batch_size=1, source="train"):
        return [np.zeros([batch_size, *s.shape[1:]], "float32") for s in self.shapes]
""")
    path = write_config(tmp_path, change={'"BatchCreatorImage"': f'("{tmp_path}/mydata.py", "Data")'},
                        extra="\ndata_init_kwargs = data_batch_args = {}\n")
    assert run(path) == 0
    text = capsys.readouterr().out
    assert text.startswith("loading alone: ") and "these workers" in text and "MB" not in text
    assert run(path, "--kind=processes") == 2
    assert "has no method batch(number, ...)" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, message", [(["--workers=0"], "must be above 0"), (["--seconds=0"], "must be above 0")])
def test_mistakes_end_with_status_2(arguments, message, tmp_path, capsys):
    assert run(write_config(tmp_path), *arguments) == 2 and message in capsys.readouterr().err
    assert run(tmp_path / "none.py") == 2 and "There is no config file" in capsys.readouterr().err


def test_rates_are_those_of_a_clock():
    assert 20 < rate(lambda: time.sleep(0.02), 0.2) <= 50
    alone, fed, ratio = step_rates(lambda x: time.sleep(0.01), lambda: time.sleep(0.03) or [0], [0], 0.4)
    assert fed < alone and 0.1 < ratio < 0.5
