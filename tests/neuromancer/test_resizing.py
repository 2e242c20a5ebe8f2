"""Models that take inputs beside the image, in other sizes than they were built in."""
import logging

import numpy as np
import pytest

from elektronn2 import neuromancer as nm

QUIET = dict(print_repr=False)
N, CLASSES = 25, 2


def net(kind, batch=2, ext=False):
    """A model of images (b, 1, 25, 25) whose loss also depends on what ``kind`` says."""
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
    nll = nm.MultinoulliNLL(probs, target, target_is_sparse=True, name="nll", **weighting, **QUIET)
    loss = nm.AggregateLoss([nll, *more], name="loss", **QUIET)
    model.designate_nodes(x, target, loss, probs, [loss, probs] if ext else None, debug_outputs=[nll, probs])
    return model


KINDS = ["plain", "target", "mask", "weights", "value", "image", "head"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [dict(imposed_batch_size=1), dict(imposed_patch_size=(33, 29))], ids=["batch", "patch"])
def test_predictions_in_other_sizes(kind, sizes, rng, tmp_path):
    model = net(kind)
    model.save(tmp_path / "m.mdl")
    loaded = nm.model.modelload(tmp_path / "m.mdl", **sizes)
    image = rng.random(loaded.input_node.shape.shape, np.float32)
    padded = np.zeros((2, 1, N, N), np.float32)  # what both sizes have in common
    padded[:len(image)] = image[:, :, :N, :N]
    n = slice(len(image)), slice(None), slice(9), slice(9)
    assert np.abs(loaded.predict(image)[n] - model.predict(padded)[n]).max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_dense_prediction_by_fragments(kind, rng, tmp_path):
    model = net(kind)
    model.save(tmp_path / "m.mdl")
    raw = rng.random((1, 36, 37), np.float32)
    loaded = nm.model.modelload(tmp_path / "m.mdl", override_mfp_to_active=True, imposed_batch_size=1)
    whole = np.stack([[model["probs"](np.repeat(raw[None, :, i:i + N, j:j + N], 2, 0))[0, :, 0, 0] for j in range(5)]
                      for i in range(5)])
    assert np.abs(loaded.predict_dense(raw).reshape(CLASSES, 28, 29)[:, :5, :5] - whole.transpose(2, 0, 1)).max() < 1e-5
    if kind == "image":  # a source of its own is not pooled in fragments
        assert not loaded["conv1"].mfp


def test_what_is_left_out_is_named(caplog):
    model = net("weights")
    with caplog.at_level(logging.WARNING, "elektronn2log"):
        loaded = nm.model.rebuild_model(model, imposed_batch_size=1)
    text, = [r.getMessage() for r in caplog.records if "Left out" in r.getMessage()]
    assert "nll, loss. (nll: " in text and "'own'" in text
    assert loaded.loss_node is None and loaded.prediction_node is loaded["probs"]
    assert loaded.debug_outputs == [loaded["probs"]]
    assert "nll" not in loaded and "nll" not in loaded["probs"].children
    caplog.clear()
    assert nm.model.rebuild_model(net("plain"), imposed_batch_size=1).loss_node is not None
    assert "Left out" not in caplog.text


def test_what_is_predicted_is_not_left_out():
    kept = nm.model.rebuild_model(net("mask", ext=True), imposed_batch_size=1)  # the mask follows
    assert kept["own"].shape.shape == [1, CLASSES] and kept.loss_node is not None
    with pytest.raises(ValueError, match="at node 'nll'.*own"):
        nm.model.rebuild_model(net("value", ext=True), imposed_batch_size=1)


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
