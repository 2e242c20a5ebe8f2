"""Models that take inputs beside the image, in other sizes than they were built in."""
import logging

import numpy as np
import pytest

from elektronn2 import neuromancer as nm
from elektronn2.scripts import predict
from elektronn2.utils.basic import h5load, h5save

QUIET = dict(print_repr=False)
N, CLASSES = 25, 2


def net(kind, batch=2):
    """A model of images (b, 1, 25, 25) whose loss also depends on what ``kind`` says, with the roles that examples give."""
    model = nm.model_manager.newmodel(None)
    x = nm.Input((batch, 1, N, N), "b,f,x,y", name="image", **QUIET)
    c = nm.Conv(x, 3, 4, 2, name="c", **QUIET)
    probs = nm.Softmax(nm.Conv(c, CLASSES, 3, activation_func="lin", **QUIET), name="probs", **QUIET)
    size = probs.shape.spatial_shape
    target, weighting, more = nm.Input_like(probs, override_f=1, name="target", **QUIET), {}, []
    if kind == "target":
        s = probs.shape
        target = nm.Input(s.updateshape("f", 1).shape, s.tags, strides=list(s.strides), fov=s.fov,
                          offsets=list(s.centre), name="own", **QUIET)
    elif kind == "mask":
        weighting["mask_class_labeled"] = nm.Input((batch, CLASSES), "b,f", name="own", **QUIET)
    elif kind == "weights":
        weighting["example_weights"] = nm.Input((batch, *size), "b,x,y", name="own", **QUIET)
    elif kind == "value":
        weighting["example_weights"] = nm.ValueNode((batch, *size), "b,x,y", value=1.0, name="own", **QUIET)
    elif kind == "image":
        other = nm.Conv(nm.Input((batch, 1, N, N), "b,f,x,y", name="own", **QUIET), 3, 4, 2, w=c.w, b=c.b, **QUIET)
        more = [nm.EuclideanDistance(c, other, **QUIET)]
    elif kind == "head":
        head = nm.Perceptron(c, 3, flatten=True, name="head", **QUIET)
        more = [nm.AbsLoss(head, nm.Input_like(head, name="own", **QUIET), **QUIET)]
    elif kind == "reshape":
        flat = nm.Reshape(probs, (batch * CLASSES, 1, *size), "b,f,x,y", name="flat", **QUIET)
        more = [nm.AbsLoss(flat, nm.Input_like(flat, name="own", **QUIET), **QUIET)]
    elif kind == "split":
        first, *_ = nm.split(probs, "b", n_out=batch)
        more = [nm.AbsLoss(first, nm.Input_like(first, name="own", **QUIET), **QUIET)]
    elif kind == "upsampling":
        up = nm.UpConv(c, 1, 2, name="up", **QUIET)
        more = [nm.AbsLoss(up, nm.Input_like(up, name="own", **QUIET), **QUIET)]
    nll = nm.MultinoulliNLL(probs, target, target_is_sparse=True, name="nll", **weighting, **QUIET)
    loss = nm.AggregateLoss([nll, *more], name="loss", **QUIET)
    errors = nm.Errors(probs, target, target_is_sparse=True, name="errors", **QUIET)
    model.designate_nodes(x, target, loss, probs, [loss, errors, probs], errors, debug_outputs=[nll, probs])
    return model


MISFITS = {  # what is left out for another batch size, for another patch
    "plain": ("", ""), "target": ("", "nll, loss, errors"), "mask": ("", ""), "weights": ("", "nll, loss"),
    "value": ("nll, loss", "nll, loss"), "image": ("", "se, loss"),
    "head": ("", "head, own, absloss, loss"), "reshape": ("flat, own, absloss, loss", "flat, own, absloss, loss"),
    "split": ("split1, split2, own, absloss, loss", ""), "upsampling": ("", "")}


@pytest.mark.parametrize("kind", MISFITS)
@pytest.mark.parametrize("sizes", [dict(imposed_batch_size=1), dict(imposed_patch_size=(33, 29))], ids=["batch", "patch"])
def test_predictions_in_other_sizes(kind, sizes, rng, tmp_path, caplog):
    model = net(kind)
    model.save(tmp_path / "m.mdl", optimiser_state=True)
    loaded = nm.model.modelload(tmp_path / "m.mdl", **sizes)
    misfits = MISFITS[kind]["imposed_patch_size" in sizes]
    assert ", ".join(n for n in model if n not in loaded) == misfits
    texts = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(texts) == bool(misfits) and all(f"need them: {misfits}. " in t for t in texts)
    assert [n.name for n in loaded.prediction_ext] == [n for n in ("loss", "errors", "probs") if n in loaded]
    image = rng.random(loaded.input_node.shape.shape, np.float32)
    padded = np.zeros((2, 1, N, N), np.float32)  # what both sizes have in common
    padded[:len(image)] = image[:, :, :N, :N]
    n = slice(len(image)), slice(None), slice(9), slice(9)
    assert np.abs(loaded.predict(image)[n] - model.predict(padded)[n]).max() < 1e-6


@pytest.mark.parametrize("kind", MISFITS)
def test_dense_prediction_by_fragments(kind, rng, tmp_path):
    model = net(kind)
    model.save(tmp_path / "m.mdl")
    raw = rng.random((1, 36, 37), np.float32)
    loaded = nm.model.modelload(tmp_path / "m.mdl", override_mfp_to_active=True, imposed_batch_size=1)
    whole = np.stack([[model["probs"](np.repeat(raw[None, :, i:i + N, j:j + N], 2, 0))[0, :, 0, 0] for j in range(5)]
                      for i in range(5)])
    assert loaded["c"].mfp
    assert np.abs(loaded.predict_dense(raw).reshape(CLASSES, 28, 29)[:, :5, :5] - whole.transpose(2, 0, 1)).max() < 1e-5
    if kind == "image":  # a source of its own is not pooled in fragments
        assert "conv1" not in loaded or not loaded["conv1"].mfp


@pytest.mark.parametrize("kind", ["target", "value", "head", "split"])
@pytest.mark.parametrize("options", [(), ("--no-mfp", "--patch", "33,29")], ids=["fragments", "patch"])
def test_the_command_predicts_in_other_sizes(kind, options, rng, tmp_path):
    model = net(kind)
    model.save(tmp_path / "m.mdl")
    raw = rng.random((2, 36, 37), np.float32)
    h5save(raw, tmp_path / "raw.h5", "raw")
    files = [f"{tmp_path}/{name}" for name in ("m.mdl", "raw.h5:raw", "out.h5:probs")]
    assert predict.main([*files, "--gpu=none", "--no-pad", *options]) == 0
    assert np.abs(h5load(tmp_path / "out.h5", "probs") - model.predict_dense(raw[None])).max() < 1e-5


def test_what_is_left_out_is_told(caplog):
    model = net("weights")
    loaded = nm.model.rebuild_model(model, imposed_patch_size=33)
    text, = [r.getMessage() for r in caplog.records if "Left out" in r.getMessage()]
    assert "nll, loss. So they are missing from loss_node, prediction_ext, debug_outputs. (nll: " in text and "'own'" in text
    assert "loss: " not in text  # which only lacks nll
    assert loaded.loss_node is None and loaded.prediction_node is loaded["probs"]
    assert loaded.error_node is loaded["errors"] and loaded.debug_outputs == [loaded["probs"]]
    assert "nll" not in loaded and "nll" not in loaded["probs"].children


def test_other_inputs_follow_the_batch_size():
    kept = nm.model.rebuild_model(net("mask"), imposed_batch_size=1)
    assert kept["own"].shape.shape == [1, CLASSES] and kept.loss_node is not None


def test_a_prediction_that_does_not_fit_is_an_error():
    x = nm.Input((2, 1, N, N), "b,f,x,y", name="image", **QUIET)
    p = nm.Perceptron(nm.Conv(x, 3, 4, 2, **QUIET), 3, flatten=True, name="flat", **QUIET)
    x.model.designate_nodes(x, prediction_node=p, prediction_ext=[p])
    with pytest.raises(ValueError, match="'flat'"):
        nm.model.rebuild_model(x.model, imposed_patch_size=33)


def test_inputs_of_the_prediction_follow_the_batch_size(rng):
    a, b = (nm.Input((3, n), "b,f", name=f"in{n}", **QUIET) for n in (4, 2))
    joined = nm.Perceptron(nm.Concat([a, b], **QUIET), 2, **QUIET)
    model = nm.model_manager.getmodel()
    model.designate_nodes(a, prediction_node=joined)
    loaded = nm.model.rebuild_model(model, imposed_batch_size=5)
    values = [rng.random((5, n), np.float32) for n in (4, 2)]
    want = np.concatenate([model.prediction_node(*(v[i:i + 3] for v in values)) for i in (0, 2)])[[0, 1, 2, 4, 5]]
    assert np.abs(loaded.prediction_node(*values) - want).max() < 1e-6


def test_weights_of_nodes_that_do_not_fit_are_not_lost():
    """A node that owns the kernel of the prediction is needed, whatever it is for."""
    x = nm.Input((2, 3), "b,f", name="x", **QUIET)
    own = nm.Perceptron(nm.Input((2, 3), "b,f", name="y", **QUIET), 2, name="own", **QUIET)
    p = nm.Perceptron(x, 2, w=own.w, b=own.b, name="p", **QUIET)
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, prediction_node=p)
    loaded = nm.model.rebuild_model(model, imposed_batch_size=4)
    assert loaded["p"].w is loaded["own"].w and loaded["p"].shape["b"] == 4
