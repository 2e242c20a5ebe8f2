"""The tutorials run as they stand, from any folder, and reach what their text promises."""
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
WRITTEN = {  # in the folder of a run
    "segmentation": ["data.png", "segmentation.png", "cells_2.h5", "prediction_2.h5", "*/Batch_test_image.png",
                     "*/0-*.history.png"],
    "own_network": ["own_network.png", "own_network.mdl"],
    "numpy_arrays": ["numpy_arrays.png", "half.mdl", "denoise.mdl"],
}
NUMBER = r"\s+(\d+\.\d+)"


def run(folder, name, *options):
    """The finished process."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("ELEKTRONN2")}
    return subprocess.run([sys.executable, str(TUTORIALS / f"{name}.py"), "--out", name, *options], cwd=folder, text=True,
                          capture_output=True, env={**env, "HOME": str(folder), "OMP_NUM_THREADS": "2"})


def numbers(folder, name, *patterns):
    """What it printed, by patterns with groups that are numbers."""
    result = run(folder, name)
    assert result.returncode == 0, result.stdout + result.stderr
    return [[float(n) for n in re.search(p, result.stdout).groups()] for p in patterns]


def test_all_are_tested():
    assert {p.stem for p in TUTORIALS.glob("*.py")} == set(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_quick(tmp_path, name):
    result = run(tmp_path, name, "--quick")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Written to {name}: " in result.stdout
    for pattern in WRITTEN[name]:
        file, = (tmp_path / name).glob(pattern)
        assert file.stat().st_size > 3000, file
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == [name]  # nothing written elsewhere


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_there_stays(tmp_path, name, monkeypatch, capsys):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--out", name])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(TUTORIALS / f"{name}.py"), run_name="__main__")
    assert "Name a new folder with --out." in capsys.readouterr().err
    assert not list((tmp_path / name).iterdir())


@pytest.mark.slow
def test_segmentation(tmp_path):
    """The network comes far closer to the true barriers than grey values do, and neither merges nor splits all."""
    (f, merge, split), (grey, _, _), (true, _, _) = numbers(tmp_path, "segmentation", *(
        rf"\n{name} +\d{3 * NUMBER}" for name in ("network", "grey values alone", "true barriers")))
    assert f > 0.8 and min(merge, split) > 0.7 and grey < 0.3 and true > 0.98


@pytest.mark.slow
def test_local_contrast_copes_with_uneven_sections(tmp_path):
    (_, neither), (_, augmented), (even, contrast) = numbers(tmp_path, "own_network", *(
        rf"\n{name}{2 * NUMBER}" for name in ("neither", "grey augmentation", "local contrast")))
    assert contrast > max(neither, augmented) + 0.01 and even > 0.95


@pytest.mark.slow
def test_the_network_removes_more_noise_than_a_filter(tmp_path):
    (gaussian,), (network,) = numbers(tmp_path, "numpy_arrays", rf"filter of \d\.\d pixels{NUMBER}", rf"network{NUMBER}")
    assert network > gaussian + 0.4
