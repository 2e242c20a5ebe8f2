"""Importing costs little, creates nothing and touches no GPU."""
import pkgutil
import subprocess
import sys

import pytest


def run(code, **kwargs):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **kwargs).stdout


def test_import_creates_no_file_and_prints_nothing(tmp_path):
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp_path)}
    out = run("import numpy; before = numpy.get_printoptions()\n"
              "import elektronn2; from elektronn2 import neuromancer\n"
              "assert numpy.get_printoptions() == before\n"
              "import torch; assert not torch.cuda.is_initialized()", env=env, cwd=tmp_path)
    assert out == ""
    assert list(tmp_path.rglob("*")) == []


def test_neuromancer_does_not_import_what_it_does_not_need():
    """Import time is measured in benchmarks/import_time.py; here it is what would make it long."""
    out = run("import sys; from elektronn2 import neuromancer\n"
              "print([m for m in ('matplotlib', 'numba', 'IPython', 'torch._dynamo', 'torch._inductor', 'scipy') "
              "if m in sys.modules])")
    assert out.strip() == "[]"


@pytest.mark.parametrize("path", [
    "neuromancer.model.Model", "neuromancer.node.predict_dense", "neuromancer.node_basic", "neuromancer.neural",
    "neuromancer.loss", "training.trainer.Trainer.preview_slice", "training.trainutils.ExperimentConfig",
    "training.trainutils.Schedule", "training.parallelisation.BackgroundProc", "data.cnndata.BatchCreatorImage.getbatch",
    "data.cnndata.BatchCreatorImage.warp_cut", "data.transformations.get_warped_slice", "utils.d3viz.visualise_model",
    "utils.d3viz.visualize_model", "utils.gpu.initgpu", "utils.h5load", "utils.plotting.scroll_plot"])
def test_dotted_paths_that_users_know(path):
    assert pkgutil.resolve_name(f"elektronn2.{path}").__doc__
