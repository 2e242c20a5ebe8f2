"""Exported predictions against the models they come from, run by the programs they are meant for.

The reference is always ``model.predict`` (of a model rebuilt for the sizes at hand), which shares only the graph with
what is exported; geometry is compared with numbers worked out by hand.
"""
import builtins
import importlib
import json
import logging
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch

from elektronn2 import neuromancer as nm
from elektronn2.config import config
from elektronn2.neuromancer import export as export_module

QUIET = dict(print_repr=False)


def needs(*names):
    """Skip unless the packages are there; importing them may warn of what is none of our business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            pytest.importorskip(name, reason=f"needs {name}: pip install 'elektronn2[export]'")


# -- networks -------------------------------------------------------------------------------------------
def designated(node):
    node.model.designate_nodes(input_node=node.input_nodes[0], prediction_node=node)
    return node.model


def pooling():
    """Anisotropic, with running averages that have moved, 'prelu', even fields of view."""
    x = nm.Input((1, 1, 8, 26), "b,f,z,x", name="raw", **QUIET)
    y = nm.Conv(x, 4, (1, 3), (1, 2), batch_normalisation="train", dropout_rate=0.3, **QUIET)
    y.mean.set_value(np.array([0.1, -0.2, 0.3, 0.0]))
    y.init_weight.set_value(0.4)
    y = nm.Conv(y, 4, 3, (1, 2), activation_func="prelu", **QUIET)
    return designated(nm.Softmax(nm.Conv(y, 2, 1, activation_func="lin", **QUIET), name="probs", **QUIET))


def volume():
    x = nm.Input((2, 1, 4, 6, 7), "b,f,z,x,y", name="raw", **QUIET)
    return designated(nm.UpConv(nm.Conv(x, 2, 2, activation_func="elu", **QUIET), 2, 2, name="probs", **QUIET))


def unet(mode="valid"):
    x = nm.Input((None, 2, 36, 36), "b,f,x,y", name="raw", **QUIET)
    a = nm.Conv(x, 4, 3, conv_mode=mode, activation_func="maxout 2", **QUIET)
    b = nm.Conv(nm.Pool(a, 2, **QUIET), 4, 3, conv_mode=mode, activation_func="selu", **QUIET)
    return designated(nm.Conv(nm.AutoMerge(b, a, 4, **QUIET), 2, 3, conv_mode=mode, activation_func="sig", name="probs",
                              **QUIET))


def vectors():
    x = nm.Input((5, 2, 3, 3), "b,f,x,y", name="raw", **QUIET)
    y = nm.Perceptron(nm.Perceptron(x, 6, "tanh", flatten=True, **QUIET), 3, "lin", **QUIET)
    return designated(nm.Softmax(y, name="probs", **QUIET))


def two_inputs():
    a = nm.Input((None, 1, 6, 7), "b,f,x,y", name="first", **QUIET)
    b = nm.Input((None, 1, 6, 7), "b,f,x,y", name="second", dtype="int16", **QUIET)
    b = nm.ApplyFunc(b, torch.Tensor.float)
    return designated(nm.Conv(nm.Concat([a, b], **QUIET), 3, 2, name="probs", **QUIET))


def inner_names():
    """Nodes with the names that the exporter gives to values inside."""
    x = nm.Input((None, 4, 5, 5), "b,f,x,y", name="relu", **QUIET)
    return designated(nm.GroupNorm(nm.Conv(x, 4, 3, **QUIET), 2, name="group_norm", **QUIET))


def fragments():
    x = nm.Input((1, 1, 15), "b,f,x", name="raw", **QUIET)
    y = nm.Conv(x, 3, 3, 2, mfp=True, activation_func="abs", **QUIET)
    return designated(nm.FragmentsToDense(nm.Conv(y, 2, 2, 2, mfp=True, **QUIET), name="probs", **QUIET))


def check(model, run, batch=None, patch=None, seed=0):
    """``run`` (arrays -> array) against the model rebuilt for these sizes."""
    if batch is not None or patch is not None:
        model = nm.model.rebuild_model(model, imposed_batch_size=batch, imposed_patch_size=patch)
    rng = np.random.default_rng(seed)
    arrays = [(4 * rng.random([1 if n is None else n for n in s.shape])).astype(s.output.dtype)
              for s in model.prediction_node.input_nodes]
    wanted = model.predict(*arrays)
    got = run(*arrays)
    assert got.dtype == np.float32 and got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * abs(wanted).max())
    return arrays, got


def onnx_runner(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = importlib.import_module("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return session, lambda *arrays: session.run(None, dict(zip(names, arrays)))[0]


def torch_runner(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(path).module()
    return lambda *arrays: module(*map(torch.from_numpy, arrays))[0].detach().numpy()


CASES = [(pooling, (3, 10), (4, 14)), (volume, (2, 2, 2), (3, 5, 3)), (unet, (10, 10), (28, 12)), (vectors, None, None)]


# -- ONNX and torch.export ------------------------------------------------------------------------------
@pytest.mark.parametrize(("make", "smallest", "other"), CASES, ids=lambda c: getattr(c, "__name__", ""))
def test_onnx(make, smallest, other, tmp_path):
    """onnxruntime against the model: its own sizes, other batch sizes, the smallest patch and an oblong one."""
    needs(*export_module.NEEDED["onnx"])
    model = make()
    model.export(tmp_path / "net.onnx")
    session, run = onnx_runner(tmp_path / "net.onnx")
    assert [i.name for i in session.get_inputs()] == ["raw"] and [o.name for o in session.get_outputs()] == ["probs"]
    check(model, run)
    for batch, patch in ((1, smallest), (3, other)):
        check(model, run, batch, patch)


@pytest.mark.parametrize(("make", "smallest", "other"), CASES, ids=lambda c: getattr(c, "__name__", ""))
def test_torch_export(make, smallest, other, tmp_path):
    """The same for a program of torch.export, which may leave out the smallest sizes."""
    model = make()
    model.export(tmp_path / "net.pt2")
    run = torch_runner(tmp_path / "net.pt2")
    check(model, run)
    for batch, patch in ((1, other), (3, other)):
        check(model, run, batch, patch)


def test_names_of_inputs_and_outputs(tmp_path):
    needs(*export_module.NEEDED["onnx"])
    model = inner_names()
    model.export(tmp_path / "net.onnx", dynamic="b")
    session, run = onnx_runner(tmp_path / "net.onnx")
    assert [v.name for v in (*session.get_inputs(), *session.get_outputs())] == ["relu", "group_norm"]
    check(model, run, 2)


def test_two_inputs_and_fragments(tmp_path):
    """Several inputs, of several dtypes, are arguments in the order of the model's; max-fragment pooling is written as
    it is, for batch size 1."""
    model = two_inputs()
    model.export(tmp_path / "two.pt2")
    check(model, torch_runner(tmp_path / "two.pt2"))
    model = fragments()
    model.export(tmp_path / "mfp.pt2")
    run = torch_runner(tmp_path / "mfp.pt2")
    check(model, run)
    check(model, run, patch=(23,))


def test_settings_do_not_matter(tmp_path):
    """What is written computes in single precision, also where the model computes in another one."""
    model = pooling()
    arrays, wanted = check(model, model.predict)
    config.precision = "bfloat16"
    rounded = model.predict(*arrays)
    assert abs(rounded - wanted).max() > 1e-3
    model.export(tmp_path / "net.pt2", dynamic="")
    np.testing.assert_allclose(torch_runner(tmp_path / "net.pt2")(*arrays), wanted, rtol=0, atol=1e-5)


def test_double_precision(float64, tmp_path):
    model = unet()
    model.export(tmp_path / "net.pt2", dynamic="b")
    x = np.random.default_rng(0).random((2, 2, 36, 36))
    got = torch_runner(tmp_path / "net.pt2")(x.astype("float32"))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, model.predict(x), atol=1e-5)


def test_model_is_left_alone(tmp_path):
    """Exporting changes no parameter and no layout of one."""
    model = unet()
    model.predict(np.zeros((1, 2, 36, 36), "float32"))
    params = model.prediction_node.all_params.values()
    before = [(p.tensor.data_ptr(), p.tensor.stride(), p.tensor.requires_grad, p.get_value().tobytes()) for p in params]
    model.export(tmp_path / "net.pt2", dynamic="")
    assert [(p.tensor.data_ptr(), p.tensor.stride(), p.tensor.requires_grad, p.get_value().tobytes())
            for p in params] == before


def test_axes_that_are_asked_for(tmp_path):
    """``dynamic`` fixes all other axes, and refuses those that cannot be open."""
    model = unet()
    model.export(tmp_path / "net.pt2", dynamic="b,y")
    run = torch_runner(tmp_path / "net.pt2")
    check(model, run, 2, (36, 20))
    with pytest.raises(AssertionError, match="Guard failed"):
        run(np.zeros((1, 2, 20, 36), "float32"))
    nm.model_manager.newmodel(None)
    with pytest.raises(ValueError, match=r"axis 'x' of 'probs' has a fixed length; those that can be open: b\."):
        vectors().export(tmp_path / "v.pt2", dynamic="b,x")


def only_one(x):
    """A function that goes another way for another length."""
    return x * 2 if x.shape[2] == 36 else x * 3


def test_network_that_fixes_its_sizes(tmp_path, caplog):
    """Axes that cannot stay open are fixed, and it is said."""
    x = nm.Input((None, 2, 36), "b,f,x", name="raw", **QUIET)
    model = designated(nm.ApplyFunc(x, only_one, name="probs"))
    with caplog.at_level(logging.INFO, "elektronn2log"):
        model.export(tmp_path / "net.pt2")
    assert "cannot be exported with open axes b, x" in caplog.text
    run = torch_runner(tmp_path / "net.pt2")
    check(model, run, 4)
    with pytest.raises(AssertionError):
        run(np.zeros((1, 2, 35), "float32"))


# -- failure --------------------------------------------------------------------------------------------
def test_files_are_not_overwritten(tmp_path):
    path = tmp_path / "net.pt2"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"net\.pt2 exists\. Choose another name, or overwrite=True"):
        vectors().export(path)
    assert path.read_text() == "mine"
    model = vectors()
    model.export(path, overwrite=True)
    check(model, torch_runner(path))
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt2"]


def test_wrong_arguments(tmp_path):
    model = vectors()
    with pytest.raises(ValueError, match=r"suffix of 'net\.h5' says no format; use \.onnx, \.pt2, \.zip, or format="):
        model.export(tmp_path / "net.h5")
    with pytest.raises(ValueError, match=r"format must be one of onnx, torch, bioimageio, got 'onx'\. Did you mean 'onnx'"):
        model.export(tmp_path / "net.h5", format="onx")
    with pytest.raises(TypeError, match="authors can only be said in a bioimage"):
        model.export(tmp_path / "net.pt2", authors=["A"])
    with pytest.raises(TypeError, match=r"unknown option 'licence'\. Did you mean 'license'"):
        model.export(tmp_path / "net.zip", licence="MIT")
    with pytest.raises(ValueError, match="image_dtype must be one of None, 'uint8', 'uint16', got 'int8'"):
        model.export(tmp_path / "net.zip", image_dtype="int8")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        model.export(tmp_path / "nowhere" / "net.pt2")
    nm.model_manager.newmodel(None)
    nm.Input((1, 2), "b,f", **QUIET)
    with pytest.raises(ValueError, match="has no prediction_node"):
        nm.model_manager.current.export(tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_random_predictions_are_not_exported(tmp_path):
    """A file would draw other numbers; that is said before a minute is spent on it."""
    nm.model_manager.newmodel(None)
    mu, log_sig = nm.split(nm.Input((2, 8), "b,f", **QUIET), "f", n_out=2)
    node = nm.Perceptron(nm.GaussianRV(mu, log_sig, name="drawn", **QUIET), 2, **QUIET)
    node.model.designate_nodes(prediction_node=node)
    with pytest.raises(ValueError, match=r"'dot' cannot be exported: 'drawn' draws random numbers.* Predict a node that"):
        node.model.export(tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("missing", "file"), [("onnxruntime", "net.onnx"), ("bioimageio.spec", "net.zip")])
def test_missing_package_is_named(missing, file, tmp_path, monkeypatch):
    original = builtins.__import__, importlib.import_module

    def refuse(name, *args):
        if name == missing:
            raise ImportError(f"No module named {name!r}")
        return original[1](name, *args)
    monkeypatch.setattr(export_module.importlib, "import_module", refuse)
    for name in export_module.NEEDED["bioimageio"]:
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name, sys))
    with pytest.raises(ImportError, match=rf"needs the package {missing} .*pip install 'elektronn2\[export\]'"):
        vectors().export(tmp_path / file)


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda y: y + 2e-4 * y.abs().max(), "differs from the model by"),
    (lambda y: y[:, :2], r"the file gives \(5, 2\) for \(5, 2, 3, 3\), the model \(5, 3\)"),
    (lambda y: y * float("nan"), "differs from the model by nan")])
def test_what_computes_something_else_is_not_written(spoil, message, tmp_path, monkeypatch):
    """Planted faults: values, shape, NaN."""
    original = export_module._write_torch

    def spoilt(program, prediction):
        data, run = original(program, prediction)
        return data, lambda inputs: spoil(run(inputs))
    monkeypatch.setattr(export_module, "_write_torch", spoilt)
    with pytest.raises(ValueError, match=message):
        vectors().export(tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


# -- bioimage.io ----------------------------------------------------------------------------------------
def ignoring_open_files(test):
    """bioimageio.spec leaves the closing of files to the garbage collector."""
    for warning in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{warning}")(test)
    return test


def exported_package(model, path, **about):
    """(description checked by bioimageio.spec with all files read, axes of the input, axes of the output)."""
    needs(*export_module.NEEDED["bioimageio"])
    model.export(path, **about)
    spec = importlib.import_module("bioimageio.spec")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        described = spec.load_description(path, perform_io_checks=True)
    assert type(described).__name__ == "ModelDescr", described.validation_summary.display()
    return described, {a.id: a for a in described.inputs[0].axes}, {a.id: a for a in described.outputs[0].axes}


def stored(path, name):
    with zipfile.ZipFile(path) as z, z.open(name) as f:
        return np.load(f)


def run_by_its_readers(path):
    """All checks of bioimageio.core: it runs the package on its test data, and at several sizes."""
    needs("bioimageio.core")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summary = importlib.import_module("bioimageio.core").test_description(path, expected_type="model")
    assert summary.status == "passed", summary.details


@ignoring_open_files
def test_package_of_a_pooling_network(tmp_path):
    """Geometry against sizes by hand: 26 -> 5 at stride 4 with 10 voxels lost; 2 voxels more make lengths multiples of 4."""
    path = tmp_path / "net.zip"
    model = pooling()
    model.prediction_node.feature_names = ["inside", "membrane"]
    described, inputs, outputs = exported_package(
        model, path, name="Neuron finder", authors=["A. Author", {"name": "B", "affiliation": "MPI"}], license="CC-BY-4.0",
        cite=[{"text": "A paper", "doi": "10.1000/abc"}, {"text": "A page", "url": "https://example.org/x"}], tags=["em"],
        documentation="# Read me\n\n## Validation\n\nnone")
    assert described.name == "Neuron finder" and described.license == "CC-BY-4.0"
    assert [a.name for a in described.authors] == ["A. Author", "B"]
    assert [c.text for c in described.cite] == ["A paper", "A page"]
    assert [(a, inputs[a].size.min, inputs[a].size.step) for a in "zx"] == [("z", 3, 1), ("x", 12, 4)]
    assert [(a, outputs[a].size.offset, outputs[a].scale) for a in "zx"] == [("z", -2, 1), ("x", -2, 4)]
    assert not any(hasattr(outputs[a], "halo") for a in "zx")
    assert outputs["channel"].channel_names == ["inside", "membrane"] and inputs["batch"].size is None
    known = described.config.model_dump()["elektronn2"]
    assert (known["fov"], known["centre"], known["strides"]) == ([3, 10], [1, 5.5], [1, 4])
    image, wanted = stored(path, "test_input.npy"), stored(path, "test_output.npy")
    assert image.shape == (1, 1, 8, 28)
    np.testing.assert_allclose(model.predict(image[..., 1:-1]), wanted, atol=1e-6)
    run_by_its_readers(path)


@ignoring_open_files
def test_package_of_a_padding_network(tmp_path):
    """The halo is what sees zero-padding: output voxels that change when the volume goes on instead."""
    path = tmp_path / "net.zip"
    model = unet("same")
    image = np.random.default_rng(0).integers(0, 256, (1, 2, 40, 40), "uint8")
    _, inputs, outputs = exported_package(model, path, image_dtype="uint8", test_input=image)
    halo = outputs["x"].halo
    assert (outputs["x"].size.offset, outputs["x"].scale, inputs["x"].size.step) == (0, 1, 2)
    assert inputs["x"].size.min - 2 * halo > 0
    large = nm.model.rebuild_model(model, imposed_patch_size=(40, 40), imposed_batch_size=1)
    small = nm.model.rebuild_model(model, imposed_patch_size=(28, 28), imposed_batch_size=1)
    scaled = image.astype("float32") / 255
    changed = abs(large.predict(scaled)[..., 6:-6, 6:-6] - small.predict(scaled[..., 6:-6, 6:-6]))[0].max(0) > 1e-6
    inner = np.zeros((28, 28), bool)
    inner[halo:-halo, halo:-halo] = True
    assert changed.any() and not changed[inner].any()
    np.testing.assert_array_equal(stored(path, "test_input.npy"), image)
    np.testing.assert_allclose(stored(path, "test_output.npy"), large.predict(scaled), atol=1e-6)
    run_by_its_readers(path)


@pytest.mark.slow
@ignoring_open_files
def test_packages_of_other_networks(tmp_path):
    """Finer than the input, without space, and with lengths that are fixed."""
    x = nm.Input((None, 1, 8, 8), "b,f,x,y", name="Raw image", **QUIET)
    model = designated(nm.UpConv(nm.Conv(x, 3, 3, **QUIET), 2, (2, 1), name="up", **QUIET))
    described, _, outputs = exported_package(model, tmp_path / "up.zip")
    assert described.inputs[0].id == "raw_image"
    assert [(outputs[a].scale, outputs[a].size.offset) for a in "xy"] == [(0.5, -4), (1, -2)]
    run_by_its_readers(tmp_path / "up.zip")
    _, _, outputs = exported_package(vectors(), tmp_path / "vectors.zip")
    assert list(outputs) == ["batch", "channel"]
    _, inputs, outputs = exported_package(pooling(), tmp_path / "fixed.zip", dynamic="b,z")
    assert (inputs["x"].size, outputs["x"].size) == (26, 5)
    run_by_its_readers(tmp_path / "fixed.zip")


def test_networks_without_a_description(tmp_path):
    needs(*export_module.NEEDED["bioimageio"])
    with pytest.raises(ValueError, match=r"needs a prediction of one input; 'probs' has \['first', 'second'\]"):
        two_inputs().export(tmp_path / "net.zip")
    nm.model_manager.newmodel(None)
    x = nm.Input((1, 2, 9), "b,f,x", **QUIET)
    with pytest.raises(ValueError, match="ends in 2 MFP fragments; add FragmentsToDense"):
        designated(nm.Pool(x, 2, mfp=True, **QUIET)).export(tmp_path / "net.zip")
    nm.model_manager.newmodel(None)
    x = nm.Input((1, 3, 2, 4), "b,s,f,x", name="series", **QUIET)
    with pytest.raises(ValueError, match="has axes b, f, z, y and x; 'series' is"):
        designated(nm.Perceptron(x, 3, **QUIET)).export(tmp_path / "net.zip")
    with pytest.raises(TypeError, match="test_input must have dtype uint8, got float64"):
        vectors().export(tmp_path / "net.zip", image_dtype="uint8", test_input=np.zeros((1, 2, 3, 3)))
    with pytest.raises(ValueError, match=r"description of the package is not valid: (.|\n)*license"):
        vectors().export(tmp_path / "net.zip", license="mine")
    assert list(tmp_path.iterdir()) == []


def test_geometry_is_in_the_files(tmp_path):
    """ONNX and torch.export files say where the output lies, as JSON."""
    model = pooling()
    wanted = {"inputs": {"raw": "bfzx"}, "output": "bfzx", "fov": [3, 10], "strides": [1, 4], "centre": [1, 4.5]}
    model.export(tmp_path / "net.pt2", dynamic="")
    extra = {"elektronn2.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.load(tmp_path / "net.pt2", extra_files=extra)
    assert json.loads(extra["elektronn2.json"]) == wanted
    needs(*export_module.NEEDED["onnx"])
    model.export(tmp_path / "net.onnx", dynamic="")
    session, _ = onnx_runner(tmp_path / "net.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["elektronn2"]) == wanted
