"""``elektronn2-predict``: the same numbers as ``predict_dense``, and nothing overwritten."""
import subprocess
import sys

import numpy as np
import pytest

from elektronn2 import neuromancer as nm
from elektronn2.data.volumes import convert
from elektronn2.scripts import predict
from elektronn2.utils.basic import h5load, h5save


@pytest.fixture
def files(tmp_path, rng):
    """A model with pooling, and a volume."""
    image = nm.Input((None, 1, 5, 19, 19), "b,f,z,x,y", name="raw")
    probs = nm.Softmax(nm.Conv(nm.Conv(image, 4, (1, 4, 4), (1, 2, 2)), 3, (3, 3, 3), activation_func="lin"))
    model = nm.model_manager.getmodel()
    model.designate_nodes(input_node=image, prediction_node=probs)
    model.save(tmp_path / "net.mdl")
    raw = rng.integers(0, 256, (9, 30, 28), np.uint8)
    h5save([raw, raw[:, :5], raw.astype(np.int32), raw], tmp_path / "volume.h5", ["raw", "small", "ids", "volumes/raw"])
    return tmp_path, model, raw


def run(folder, *arguments):
    return predict.main([str(folder / "net.mdl"), *arguments, "--gpu=none"])


@pytest.mark.parametrize("options, pad", [((), True), (("--no-mfp",), True), (("--no-pad",), False),
                                          (("--patch", "6,22,26"), True), (("--patch", "100,900,900"), True),
                                          (("--patch", "100,900,900", "--no-pad"), False), (("--classes", "2,0"), True)])
def test_same_as_in_python(files, options, pad):
    folder, model, raw = files
    assert run(folder, f"{folder}/volume.h5:raw", f"{folder}/out.h5:probs", *options) == 0
    result = h5load(folder / "out.h5", "probs")
    expected = model.predict_dense(raw[None], pad_raw=pad)
    expected = expected[[2, 0]] if "--classes" in options else expected
    assert result.shape == expected.shape and result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_keys_in_groups(files):
    folder, model, raw = files
    assert run(folder, f"{folder}/volume.h5:volumes/raw", f"{folder}/out.h5:volumes/probs") == 0
    expected = model.predict_dense(raw[None], pad_raw=True)
    np.testing.assert_allclose(h5load(folder / "out.h5", "volumes/probs"), expected, atol=1e-5)


def test_uint8_and_default_key(files):
    folder, model, raw = files
    assert run(folder, f"{folder}/volume.h5:raw", f"{folder}/out.h5", "--uint8") == 0
    result = h5load(folder / "out.h5", "prediction")
    assert result.dtype == np.uint8 and abs(result.astype(int) - model.predict_dense(raw[None], True, True)).max() <= 1


@pytest.mark.parametrize("source, target, options, message", [
    ("volume.h5", "out.h5", (), "name one, as in"), ("volume.h5:rew", "out.h5", (), "no data set 'rew'; available"),
    ("none.h5:raw", "out.h5", (), "none.h5"),
    ("volume.h5:raw", "net.mdl", (), "exists. Choose another file, or --overwrite"),
    ("volume.h5:raw", "volume.h5:probs", ("--overwrite",), "are the same file"), ("volume.h5:raw", ".", (), "is a folder"),
    ("volume.h5:raw", "/proc/out.h5", (), "/proc/out.h5 cannot be written"),
    ("volume.h5:ids", "out.h5", (), "no known scale"),
    ("volume.h5:raw", "no/out.h5", (), "no folder"), ("volume.h5:raw", "out.h5", ("--classes", "3"), "channels 0 to 2"),
    ("volume.h5:raw", "out.h5", ("--patch", "a"), "whole numbers"), ("net.mdl:raw", "out.h5", (), "net.mdl"),
    ("volume.h5:small", "out.h5", ("--no-pad",), "at least")])
def test_mistakes(files, capsys, source, target, options, message):
    folder, *_ = files
    before = (folder / "volume.h5").read_bytes()
    target = target if target.startswith("/") else f"{folder}/{target}"
    assert run(folder, f"{folder}/{source}", target, *options) == 2
    assert message in capsys.readouterr().err
    assert (folder / "volume.h5").read_bytes() == before and not (folder / "out.h5").exists()


@pytest.mark.parametrize("name", ["em.npy", "em.zarr", "em.tif"])
def test_other_formats(files, name):
    folder, model, raw = files
    convert(f"{folder}/volume.h5:raw", folder / name)
    assert run(folder, f"{folder}/{name}", f"{folder}/out.h5") == 0
    expected = model.predict_dense(raw[None], pad_raw=True)
    np.testing.assert_allclose(h5load(folder / "out.h5", "prediction"), expected, atol=1e-5)


def test_node_classes_of_ones_own(tmp_path):
    """They are in a file that is named; without it, the message says so."""
    (tmp_path / "my_nodes.py").write_text("""
from elektronn2 import neuromancer as nm
FACTOR = 2


class Doubled(nm.Node):
    def _make_output(self):
        self.output = FACTOR * self.parent.output
""")
    h5save(np.full((3, 4, 5), 7, np.uint8), tmp_path / "volume.h5", "raw")

    def python(code, *arguments):
        return subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, text=True, capture_output=True)
    python("from my_nodes import *; x = nm.Input((1, 1, 2, 2, 2), 'b,f,z,x,y'); y = Doubled(x)\n"
           "m = nm.model_manager.getmodel(); m.designate_nodes(x, prediction_node=y); m.save('net.mdl')")
    command = ("import sys; from elektronn2.scripts.predict import main; sys.exit(main())", "net.mdl", "volume.h5:raw",
               "out.h5:out", "--gpu=none")
    refused = python(*command)
    assert refused.returncode == 2
    assert "Unknown node class 'Doubled'. If it is a class of your own, import the file that defines it" in refused.stderr
    assert "--nodes FILE.py" in refused.stderr and not (tmp_path / "out.h5").exists()
    assert python(*command, "--nodes", "my_nodes.py").returncode == 0
    np.testing.assert_allclose(h5load(tmp_path / "out.h5", "out"), np.full((1, 3, 4, 5), 14 / 255), rtol=1e-6)
