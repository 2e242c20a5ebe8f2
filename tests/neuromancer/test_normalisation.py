"""Instance, group and layer normalisation, squeeze and excitation, residual sums and initial values: numbers against slow
numpy and torch, geometry, tiles, files."""
import logging

import numpy as np
import pytest
import reference as R
import torch
import torch.nn.functional as F
from test_nodes import check, layouts, randomise, source

from elektronn2 import neuromancer as nm
from elektronn2.config import config
from elektronn2.neuromancer import init

pytestmark = pytest.mark.usefixtures("float64")
QUIET = dict(print_repr=False)


@layouts
@pytest.mark.parametrize("n_groups", [1, 2, 4])
def test_group_norm(tags, sizes, n_groups, rng):
    """Against loops over images and groups, and against torch; the same in training."""
    node = nm.GroupNorm(source((None, 4, *sizes), tags), n_groups, eps=1e-3, **QUIET)
    p = randomise(node, rng)
    x = rng.normal(2, 3, size=(2, 4, *sizes))
    wanted = R.naive_group_norm(x, n_groups, p["gamma"], p["b"], 1e-3)
    check(node, wanted, x)
    check(node, wanted, x, mode="train", gradients=False)
    theirs = F.group_norm(*map(torch.from_numpy, (x,)), n_groups, *map(torch.from_numpy, (p["gamma"], p["b"])), 1e-3)
    np.testing.assert_allclose(node(x), theirs, atol=1e-10)


def test_group_norm_of_vectors(rng):
    """Without space the statistics are of the features, and of no patch."""
    node = nm.GroupNorm(source((None, 6), "b,f"), 2, **QUIET)
    x = rng.normal(size=(3, 6))
    check(node, R.naive_group_norm(x, 2, np.ones(6), np.zeros(6), 1e-5), x)
    assert not node.patch_statistics


@layouts
def test_instance_norm(tags, sizes, rng):
    """Against loops and against torch, with an activation behind it."""
    node = nm.InstanceNorm(source((None, 3, *sizes), tags), "prelu", **QUIET)
    p = randomise(node, rng)
    x = rng.normal(2, 3, size=(2, 3, *sizes))
    y = R.naive_group_norm(x, 3, p["gamma"], p["b"][:, 0], 1e-5)
    check(node, R.naive_activation(y, "prelu", p["b"][:, 1]), x)
    theirs = F.instance_norm(*map(torch.from_numpy, (x,)), weight=torch.from_numpy(p["gamma"]),
                             bias=torch.from_numpy(p["b"][:, 0].copy()))
    np.testing.assert_allclose(y, theirs, atol=1e-10)


@pytest.mark.parametrize("tags", ["b,f,x", "b,x,f", "b,f"])
def test_layer_norm(tags, rng):
    """Against loops over positions and against torch, with the features on any axis."""
    axis = tags.split(",").index("f")
    node = nm.LayerNorm(source((2, 4, 4)[:len(tags) // 2 + 1], tags), "maxout 2", **QUIET)
    p = randomise(node, rng)
    x = rng.normal(2, 3, size=(2, 4, 4)[:len(tags) // 2 + 1])
    y = R.naive_layer_norm(x, p["gamma"], p["b"], 1e-5, axis)
    check(node, R.naive_activation(y, "maxout 2", axis=axis), x)
    theirs = F.layer_norm(torch.from_numpy(x).movedim(axis, -1), (4,), *map(torch.from_numpy, (p["gamma"], p["b"])))
    np.testing.assert_allclose(y, theirs.movedim(-1, axis), atol=1e-10)


@pytest.mark.parametrize("make", [lambda x: nm.GroupNorm(x, 2, **QUIET), lambda x: nm.InstanceNorm(x, **QUIET),
                                  lambda x: nm.LayerNorm(x, **QUIET)])
def test_norms_begin_without_effect(make, rng):
    """gamma 1 and b 0: what comes out has mean 0 and variance 1, whatever goes in, and gets no weight decay."""
    node = make(source((1, 4, 9, 9), "b,f,x,y"))
    y = node(rng.normal(5, 7, size=(1, 4, 9, 9)))
    assert abs(y.mean()) < 1e-9 and abs(y.var() - 1) < 1e-4
    assert not any(p.apply_reg for p in node.params.values()) and len(node.params) == 2
    plain = nm.InstanceNorm(node, "relu", affine=False, **QUIET)
    assert not plain.params and plain(y).min() == 0


@layouts
def test_squeeze_excitation(tags, sizes, rng):
    """Against loops over images."""
    node = nm.SqueezeExcitation(source((None, 5, *sizes), tags), 2, **QUIET)
    p = randomise(node, rng)
    assert p["w"].shape == (5, 2)
    x = rng.normal(size=(3, 5, *sizes))
    check(node, R.naive_squeeze_excitation(x, p["w"], p["b"], p["w2"], p["b2"]), x)


def test_activation(rng):
    """On its own, against the formula."""
    node = nm.Activation(source((2, 3, 4), "b,x,f"), "prelu", **QUIET)
    p = randomise(node, rng)
    x = rng.normal(size=(2, 3, 4))
    check(node, R.naive_activation(x + p["b"][:, 0], "prelu", p["b"][:, 1], 2), x)
    x = source((2, 4), "b,f")
    assert nm.Activation(x, "maxout 2", **QUIET).shape["f"] == 2 and not nm.Activation(x, **QUIET).params


# -- tiles ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("make", "warns"), [
    (lambda x: nm.InstanceNorm(x, **QUIET), True), (lambda x: nm.GroupNorm(x, 2, **QUIET), True),
    (lambda x: nm.SqueezeExcitation(x, 2, **QUIET), True), (lambda x: nm.LayerNorm(x, **QUIET), False)])
def test_dense_prediction_warns_of_patch_statistics(make, warns, rng, caplog, monkeypatch):
    """A warning exactly where tiles differ from the whole."""
    monkeypatch.setattr(logging.getLogger("elektronn2log"), "propagate", True)
    node = make(nm.Conv(source((1, 1, 6, 6), "b,f,x,y"), 4, 3, **QUIET))
    randomise(node, rng)
    raw = rng.normal(size=(1, 12, 13))
    tiled = node.predict_dense(raw)
    whole = nm.model.rebuild_model(with_input(node), imposed_patch_size=(12, 13))[node.name](raw[None])[0]
    assert ("statistics of the patch" in caplog.text) == warns
    assert (np.abs(tiled - whole).max() > 1e-3) == warns


def with_input(node):
    node.model.designate_nodes(input_node=node.input_nodes[0], prediction_node=node)
    return node.model


def test_constant_weights():
    """make_weights_constant holds every parameter of these nodes, under the names that they have."""
    x = source((1, 4, 5, 5), "b,f,x,y")
    node = nm.SqueezeExcitation(nm.InstanceNorm(nm.GroupNorm(x, 2, **QUIET), "prelu", **QUIET), 2, **QUIET)
    model = nm.model.rebuild_model(with_input(node), make_weights_constant=True)
    params = model.prediction_node.all_params
    assert len(params) == 8 and all(p.constant for p in params.values())
    for name, p in params.items():
        np.testing.assert_array_equal(p.get_value(), node.all_params[name].get_value())


@pytest.mark.parametrize("make", [lambda x: nm.GroupNorm(x, 2, **QUIET), lambda x: nm.LayerNorm(x, **QUIET),
                                  lambda x: nm.SqueezeExcitation(x, 2, **QUIET)])
def test_reduced_precision(make, rng, monkeypatch):
    """In bfloat16 statistics are still computed in single precision: small signals on a large constant survive."""
    monkeypatch.setattr(config, "precision", "float32")
    node = make(nm.Conv(source((1, 1, 9, 9), "b,f,x,y"), 4, 3, **QUIET))
    a = rng.normal(size=(1, 1, 9, 9)).astype("float32")
    exact = node(a)
    monkeypatch.setattr(config, "precision", "bfloat16")
    assert np.abs(node(a) - exact).max() < 0.05 * np.abs(exact).max() and node(a).dtype == np.float32


# -- residual sums --------------------------------------------------------------------------------------
def test_residual_add_is_the_sum(rng):
    """Same shape, no activation: branch + skip; with relu the positive part, and no other nodes."""
    x = source((2, 3, 6, 5), "b,f,x,y")
    y = nm.Conv(x, 3, 3, conv_mode="same", activation_func="lin", **QUIET)
    a = rng.normal(size=(2, 3, 6, 5))
    total = nm.ResidualAdd(y, x, "lin", **QUIET)
    np.testing.assert_allclose(total(a), y(a) + a, atol=1e-12)
    np.testing.assert_allclose(nm.ResidualAdd(y, x, **QUIET)(a), np.maximum(y(a) + a, 0), atol=1e-12)
    assert {type(n).__name__ for n in x.model.nodes.values()} == {"Input", "Conv", "Add", "Activation"}


def test_residual_add_crops_and_projects(rng):
    """A valid branch with more features: the inner part of the skip, through a matrix."""
    x = source((1, 2, 9, 8), "b,f,x,y")
    y = nm.Conv(nm.Conv(x, 3, (3, 1), **QUIET), 4, 3, activation_func="lin", **QUIET)
    node = nm.ResidualAdd(y, x, "lin", name="sum", **QUIET)
    assert node.name == "sum" and node.shape.shape == y.shape.shape and node.shape.fov == [5, 3]
    a = rng.normal(size=(1, 2, 9, 8))
    projection = x.model["projection"]
    b = projection.b.get_value()
    wanted = y(a) + R.naive_conv(a[:, :, 2:-2, 1:-1], projection.w.get_value(), b)
    np.testing.assert_allclose(node(a), wanted, atol=1e-12)


@pytest.mark.parametrize(("mode", "length", "inner"), [("same", 9, slice(None)), ("valid", 11, slice(1, -1))])
def test_residual_add_strides(mode, length, inner, rng):
    """A branch of lower resolution: a strided projection of what lies under its voxels."""
    x = source((1, 2, length), "b,f,x")
    y = nm.Conv(x, 2, 3, conv_mode=mode, activation_func="lin", stride=2, **QUIET)
    node = nm.ResidualAdd(y, x, "lin", **QUIET)
    a = rng.normal(size=(1, 2, length))
    w, b = x.model["projection"].w.get_value(), x.model["projection"].b.get_value()
    np.testing.assert_allclose(node(a), y(a) + R.naive_conv(a[..., inner][..., ::2], w, b), atol=1e-12)
    assert node.shape.strides == [2]


def test_residual_add_crops_the_branch():
    """A branch that is larger than the skip."""
    x = source((1, 2, 9), "b,f,x")
    assert nm.ResidualAdd(nm.Conv(x, 2, 3, conv_mode="full", **QUIET), x, **QUIET).shape.shape == [1, 2, 9]


@pytest.mark.parametrize(("make", "words"), [
    (lambda x: nm.Conv(x, 2, 2, name="even", **QUIET), ("'even'", "'input'", "axis 'x'", "shifted by 0.5")),
    (lambda x: nm.UpConv(x, 2, 2, name="up", **QUIET), ("'up'", "'input'", "strides are 1/2 and 1 input")),
    (lambda x: nm.Perceptron(x, 2, flatten=True, name="flat", **QUIET), ("'flat'", "'input'", "axes differ"))])
def test_residual_add_refuses(make, words):
    """What cannot meet is named."""
    x = source((1, 2, 8), "b,f,x")
    with pytest.raises(ValueError) as error:
        nm.ResidualAdd(make(x), x, **QUIET)
    assert all(w in str(error.value) for w in words), str(error.value)


# -- initial values -------------------------------------------------------------------------------------
def test_he_widths():
    """Standard deviation sqrt(gain / inputs), for matrices and convolutions, normal and uniform."""
    for shape, n in (((300, 200), 300), ((60, 20, 3, 5), 300), ((60, 20, 3, 1), 60)):
        for mode in ("normal", "uni", "ortho"):
            w = init.initweights(shape, scale="he", mode=mode, rng=np.random.default_rng(0), pool=(2, 2), gain=1.5)
            assert abs(w.std() * np.sqrt(n / 1.5) - 1) < 0.02, (shape, mode)
    with pytest.raises(ValueError, match="'glorot' or 'he'"):
        init.initweights((2, 2), scale="the")
    for shape in ((3, 2.5), "ab", None):
        with pytest.raises(TypeError, match="shape must be one integer"):
            init.initweights(shape)
    with pytest.raises(ValueError, match="shape must be at least 1"):
        init.initweights((3, 0))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu 0.5", "silu", "lin", "gelu", "elu"])
def test_he_keeps_the_scale(activation):
    """Through twelve layers: with 'he' the signal keeps its order of magnitude."""
    init.reseed(1)
    x = out = source((1, 40, 40), "b,f,x")
    for _ in range(12):
        out = nm.Conv(out, 60, 3, conv_mode="same", activation_func=activation, w="he", **QUIET)
    size = np.sqrt((out(np.random.default_rng(0).normal(size=(1, 40, 40)))**2).mean())
    # the smooth ones pass less of small signals than relu does
    assert (0.5 if activation in ("relu", "leaky_relu 0.5", "lin") else 0.01) < size < 2
    assert all(np.abs(n.b.get_value()).max() < 1e-5 for n in out.all_parents.values() if n is not x)


def test_weights_by_name(tmp_path):
    """w='he' draws what initweights draws; a name survives neither saving nor loading, its weights do."""
    x = source((1, 4, 6, 6), "b,f,x,y")
    init.reseed(3)
    conv = nm.Conv(x, 5, 3, w="he", **QUIET)
    init.reseed(3)
    np.testing.assert_array_equal(conv.w.get_value(), init.initweights((5, 4, 3, 3), scale="he"))
    up = nm.UpConv(x, 400, 2, w="he", activation_func="lin", **QUIET)
    assert abs(up.w.get_value().std() - 0.5) < 0.02  # each output sees the 4 features of one position
    nm.Perceptron(x, 3, w="ortho", **QUIET)
    x.model.save(tmp_path / "a.mdl")
    loaded = nm.model.modelload(tmp_path / "a.mdl")
    np.testing.assert_array_equal(loaded["conv"].w.get_value(), conv.w.get_value())
    with pytest.raises(ValueError, match="Conv 'conv1': w must be .*Did you mean 'he'"):
        nm.Conv(x, 5, 3, w="hee", **QUIET)
    assert config.use_ortho_init is False


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_features_that_never_change(constant):
    """After a few steps, when rounding hides how little a feature varies, predictions are finite and not large."""
    x = nm.Input((2, 2, 8), "b,f,x", print_repr=False)
    y = nm.Conv(x, 2, 1, activation_func="lin", batch_normalisation="train", w=[np.eye(2)[..., None], "const"],
                print_repr=False)
    target = nm.Input_like(y, name="target", print_repr=False)
    y.model.designate_nodes("input", "target", nm.AggregateLoss(nm.SquaredLoss(y, target, print_repr=False)), y)
    a = np.random.default_rng(0).random((2, 2, 8), "float32")
    a[:, 1] = constant
    for _ in range(4):
        y.model.trainingstep(a, np.zeros_like(a))
        assert abs(y.model.predict(a)).max() < 100
        fixed = nm.model.rebuild_model(y.model, replace_bn="predict")
        np.testing.assert_allclose(fixed.predict(a), y.model.predict(a), rtol=1e-3, atol=1e-3)
