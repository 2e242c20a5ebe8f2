"""Every node in double precision against slow numpy (``reference.py``), with gradients against finite differences.

``check`` (``helpers.py``) compares value, dtype and declared shape, and runs ``gradcheck`` with respect to inputs and
parameters.
"""
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import reference as R
import torch
from helpers import check, check_gradients, randomise, source

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer import computations
from elektronn2.neuromancer.function import Function, cut
from elektronn2.neuromancer.loss import Classification
from elektronn2.neuromancer.node_basic import Node

pytestmark = pytest.mark.usefixtures("float64")

LAYOUTS = {  # tags -> spatial sizes
    "b,f,x": (8,),
    "b,f,z": (7,),
    "b,f,x,y": (7, 6),
    "b,f,y,x": (6, 7),
    "b,f,z,x": (5, 8),
    "b,f,z,x,y": (4, 5, 4),
    "b,f,z,y,x": (4, 4, 5),
}
layouts = pytest.mark.parametrize(("tags", "sizes"), LAYOUTS.items(), ids=list(LAYOUTS))
ACTIVATIONS = ("tanh", "relu", "prelu", "elu", "selu", "abs", "sig", "logistic", "sigmoid", "soft+", "lin", "linear",
               "concentration", "radius", "leaky_relu", "leaky_relu 0.3", "gelu", "silu", "swish", "maxout 2", "maxout 3")


# -- convolution ----------------------------------------------------------------------------------------
@layouts
@pytest.mark.parametrize("n_in", [1, 2])
@pytest.mark.parametrize("mode", ["valid", "same", "full"])
def test_conv(tags, sizes, n_in, mode, rng):
    """Convolution with bias, all border modes, against loops; one input channel takes another path. Batch None."""
    kernel = (3, 1, 3)[:len(sizes)] if mode == "same" else (2, 3, 1)[:len(sizes)]
    node = nm.Conv(source((None, n_in, *sizes), tags), 2, kernel, conv_mode=mode, activation_func="lin",
                   print_repr=False)
    p = randomise(node, rng)
    x = rng.normal(size=(2, n_in, *sizes))
    check(node, R.naive_conv(x, p["w"], p["b"], mode), x, gradients=n_in == 2)
    if n_in == 1:
        check_gradients(node, [x], inputs=False)


@layouts
def test_conv_pool(tags, sizes, rng):
    """Convolution, max-pooling, bias, activation in this order, against loops."""
    pool = (2, 3, 2)[:len(sizes)]
    kernel = [2 + (n - 1) % p for n, p in zip(sizes, pool)]
    node = nm.Conv(source((2, 2, *sizes), tags), 3, kernel, pool, activation_func="prelu", print_repr=False)
    p = randomise(node, rng)
    x = rng.normal(size=(2, 2, *sizes))
    y = R.naive_pool(R.naive_conv(x, p["w"]), pool) + R.along(p["b"][:, 0], x)
    check(node, R.naive_activation(y, "prelu", p["b"][:, 1]), x)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_conv_activations(name, rng):
    """Every activation behind a convolution, against its formula."""
    node = nm.Conv(source((1, 2, 5, 4), "b,f,x,y"), 6, (2, 3), activation_func=name, print_repr=False)
    p = randomise(node, rng)
    x = rng.normal(size=(1, 2, 5, 4))
    b, slope = p["b"].T if name == "prelu" else (p["b"], None)
    check(node, R.naive_activation(R.naive_conv(x, p["w"], b), name, slope), x)
    assert node.shape["f"] == {"maxout 2": 3, "maxout 3": 2}.get(name, 6)


@layouts
def test_conv_mfp(tags, sizes, rng):
    """Max-fragment pooling: every shift of the pooling grid, in order, against pooling of the moved array."""
    pool = {1: (2,), 2: (2, 3), 3: (1, 2, 2)}[len(sizes)]
    kernel = [1 + (n + 1) % p for n, p in zip(sizes, pool)]
    node = nm.Conv(source((1, 2, *sizes), tags), 2, kernel, pool, mfp=True, activation_func="tanh", print_repr=False)
    p = randomise(node, rng)
    x = rng.normal(size=(1, 2, *sizes))
    check(node, np.tanh(R.naive_fragmentpool(R.naive_conv(x, p["w"], p["b"]), pool)), x)
    np.testing.assert_array_equal(node.shape.mfp_offsets, list(np.ndindex(*pool)))


def test_mfp_twice_and_dense(rng):
    """Fragments of fragments (section 16 of the contract lists their offsets) and their interleaving, against numpy."""
    x = source((1, 1, 15, 20), "b,f,x,y")
    first = nm.Conv(x, 2, (1, 1), (2, 3), mfp=True, activation_func="lin", print_repr=False)
    second = nm.Conv(first, 1, (3, 2), (2, 2), mfp=True, activation_func="lin", print_repr=False)
    dense = nm.FragmentsToDense(second, print_repr=False)
    p, q = randomise(first, rng), randomise(second, rng)
    offsets = [np.multiply(outer, (2, 3)) + inner for outer in np.ndindex(2, 2) for inner in np.ndindex(2, 3)]
    np.testing.assert_array_equal(second.shape.mfp_offsets, offsets)
    assert ["".join(map(str, o)) for o in offsets[:12]] == "00 01 02 10 11 12 03 04 05 13 14 15".split()
    image = rng.normal(size=(1, 1, 15, 20))
    y = R.naive_fragmentpool(R.naive_conv(image, p["w"], p["b"]), (2, 3))
    y = R.naive_fragmentpool(R.naive_conv(y, q["w"], q["b"]), (2, 2))
    check(second, y, image, gradients=False)
    check(dense, R.naive_fragments2dense(y, offsets, (4, 6)), image, gradients=False)
    assert list(second.shape.strides) == [4, 6] and list(dense.shape.strides) == [1, 1]


def test_fragments_to_dense_is_every_window(rng):
    """Its voxels are the network on the one window at each voxel."""
    def net(size, mfp):
        x = source((1, 1, size), "b,f,x")
        y = nm.Conv(x, 2, 2, 2, mfp=mfp, w=w[0], print_repr=False)
        return nm.Conv(y, 1, 3, 2, mfp=mfp, w=w[1], b=np.ones(1), activation_func="tanh", print_repr=False)
    w = [rng.normal(size=(2, 1, 2)), rng.normal(size=(1, 2, 3))]
    single = net(9, False)
    image = rng.normal(size=(1, 1, 16))
    dense = nm.FragmentsToDense(net(16, True), print_repr=False)(image)
    assert single.shape.fov == [9] and single.shape.spatial_shape == [1] and dense.shape == (1, 1, 8)
    for i in range(8):
        np.testing.assert_allclose(dense[..., i:i + 1], single(image[..., i:i + 9]), rtol=0, atol=1e-10)


# -- pooling --------------------------------------------------------------------------------------------
@layouts
@pytest.mark.parametrize("mode", ["max", "average", "average_inc_pad", "average_exc_pad", "sum"])
def test_pool(tags, sizes, mode, rng):
    """All modes, with a stride that differs from the window, against loops."""
    pool, stride = (3, 2, 2)[:len(sizes)], (2, 1, 2)[:len(sizes)]
    sizes = [n - (n - p) % t for n, p, t in zip(sizes, pool, stride)]
    node = nm.Pool(source((None, 2, *sizes), tags), pool, stride, mode=mode, print_repr=False)
    x = rng.normal(size=(2, 2, *sizes))
    check(node, R.naive_pool(x, pool, stride, mode), x)


@pytest.mark.parametrize("mode", ["max", "average", "sum"])
@pytest.mark.parametrize("stride", [(2, 3), (2, 1)])
def test_pool_mfp(mode, stride, rng):
    """Pooling of fragments, also with a stride of its own (the original had neither), against the moved array."""
    sizes = [n - (n - p - t + 1) % t for n, p, t in zip((9, 10), (2, 3), stride)]
    node = nm.Pool(source((1, 2, *sizes), "b,f,x,y"), (2, 3), stride, mfp=True, mode=mode, print_repr=False)
    x = rng.normal(size=(1, 2, *sizes))
    check(node, R.naive_fragmentpool(x, (2, 3), stride, mode), x)


# -- upsampling, cropping, padding ----------------------------------------------------------------------
@layouts
def test_upconv(tags, sizes, rng):
    """Transposed convolution with kernel = stride, bias and activation, against loops."""
    sizes, factor = [n // 2 for n in sizes], (2, 3, 1)[:len(sizes)]
    node = nm.UpConv(source((None, 2, *sizes), tags), 3, factor, activation_func="prelu", print_repr=False)
    p = randomise(node, rng)
    x = rng.normal(size=(2, 2, *sizes))
    y = R.naive_upconv(x, p["w"], p["b"][:, 0])
    check(node, R.naive_activation(y, "prelu", p["b"][:, 1]), x)


def test_upconv_identity_init():
    """w is 0.1 * default plus 1 from feature i to i, b is 0; given weights and slopes stay as they are."""
    x = source((1, 2, 3, 4), "b,f,x,y")
    node = nm.UpConv(x, 3, 2, print_repr=False)
    w = node.w.get_value()
    np.testing.assert_array_equal(w[[0, 1], [0, 1]], 1)
    rest = w[[0, 1, 2, 2], [1, 0, 0, 1]]
    assert 0 < np.abs(rest).max() < 0.6
    np.testing.assert_array_equal(node.b.get_value(), 0)
    given = np.full((3, 2, 2, 2), 7.0)
    np.testing.assert_array_equal(nm.UpConv(x, 3, 2, w=given, print_repr=False).w.get_value(), given)
    b = nm.UpConv(x, 3, 2, activation_func="prelu", print_repr=False).b.get_value()
    np.testing.assert_array_equal(b, [[0, 1]] * 3)


@pytest.mark.parametrize(("tags", "shape", "crop"), [
    ("b,f,x", (2, 1, 5), (2,)), ("b,f,x,y", (1, 2, 5, 4), (1, 0)), ("b,f,z,x,y", (1, 1, 3, 4, 5), (1, 1, 2)),
    ("b,z,f,x,y", (1, 4, 2, 3, 5), (1, 1, 2)), ("b,x,f", (2, 5, 3), (1,))])
@pytest.mark.parametrize("kind", ["crop", "pad", "pad 1.5"])
def test_crop_and_pad(tags, shape, crop, kind, rng):
    """Crop and Pad of spatial axes at any place, against deletion and concatenation."""
    x, axes = rng.normal(size=shape), [i for i, t in enumerate(tags.split(",")) if t in "zyx"]
    if kind == "crop":
        check(nm.Crop(source(shape, tags), crop, print_repr=False), R.naive_crop(x, crop, axes), x)
    else:
        value = float(kind[4:] or 0)
        node = nm.Pad(source(shape, tags), crop, value, print_repr=False)
        check(node, R.naive_pad(x, crop, value, axes), x)


# -- fully connected ------------------------------------------------------------------------------------
@pytest.mark.parametrize("tags,shape", [
    ("b,f", (3, 4)), ("b,f,x", (2, 3, 4)), ("b,f,x,y", (2, 3, 2, 2)), ("b,f,z,x,y", (1, 3, 2, 2, 2)),
    ("b,x,f", (2, 4, 3)), ("r,b,f", (2, 3, 4))])
def test_perceptron(tags, shape, rng):
    """Contraction over f wherever it is, all other axes kept, against a loop over positions."""
    axis = tags.split(",").index("f")
    node = nm.Perceptron(source(shape, tags), 5, "tanh", print_repr=False)
    p = randomise(node, rng)
    x = rng.normal(size=shape)
    check(node, np.tanh(R.naive_perceptron(x, p["w"], p["b"], axis)), x)
    assert node.shape.tags == tags.split(",")


def test_perceptron_flatten(rng):
    """All axes but b joined, against reshape; the result has no spatial axes."""
    node = nm.Perceptron(source((None, 2, 3, 2), "b,f,x,y"), 4, "lin", flatten=True, print_repr=False)
    p = randomise(node, rng)
    x = rng.normal(size=(3, 2, 3, 2))
    check(node, R.naive_perceptron(x, p["w"], p["b"], flatten=True), x)
    assert node.shape.tags == ["b", "f"]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("tags", ["b,f,x", "b,x,f"])
def test_perceptron_activations(name, tags, rng):
    """Every activation, with the features on either axis, against its formula."""
    axis = tags.split(",").index("f")
    node = nm.Dot(source((2, 3, 3), tags), 6, activation_func=name, print_repr=False)
    p = randomise(node, rng)
    x = rng.normal(size=(2, 3, 3))
    b, slope = p["b"].T if name == "prelu" else (p["b"], None)
    check(node, R.naive_activation(R.naive_perceptron(x, p["w"], b, axis), name, slope, axis), x)


# -- batch normalisation and dropout --------------------------------------------------------------------
def layer(kind, **kwargs):
    """(node with 3 features and tanh, shape of its input, its linear part in numpy)."""
    kwargs = dict(kwargs, activation_func=kwargs.get("activation_func", "tanh"), print_repr=False)
    if kind == "Perceptron":
        return nm.Perceptron(source((5, 2), "b,f"), 3, **kwargs), (5, 2), lambda x, w: R.naive_perceptron(x, w, 0)
    if kind == "Conv":
        return (nm.Conv(source((2, 2, 6, 4), "b,f,x,y"), 3, (3, 2), (2, 1), **kwargs), (2, 2, 6, 4),
                lambda x, w: R.naive_pool(R.naive_conv(x, w), (2, 1)))
    return nm.UpConv(source((2, 2, 2, 2), "b,f,x,y"), 3, (2, 1), **kwargs), (2, 2, 2, 2), R.naive_upconv


KINDS = ("Perceptron", "Conv", "UpConv")


@pytest.mark.parametrize("activation", ["tanh", "prelu"])
@pytest.mark.parametrize("kind", KINDS)
def test_batch_normalisation_train(kind, activation, rng):
    """Training mode: statistics of the batch, gamma, bias, activation, against the definition, with gradients."""
    node, shape, linear = layer(kind, batch_normalisation="train", activation_func=activation)
    p = randomise(node, rng)
    x = rng.normal(size=shape)
    y = linear(x, p["w"])
    b, slope = p["b"].T if activation == "prelu" else (p["b"], None)
    y = R.naive_normalise(y, p["gamma"], *R.naive_batch_statistics(y)) + R.along(b, y)
    check(node, R.naive_activation(y, activation, slope), x, mode="train")


@pytest.mark.parametrize("kind", KINDS)
def test_batch_normalisation_running(kind, rng):
    """Prediction after n steps: the weighted means of what the batches had, 0.9995^age each and of sum 1."""
    node, shape, linear = layer(kind, batch_normalisation="train")
    for name in ("w", "b", "gamma"):
        node.params[name].set_value(rng.normal(size=node.params[name].shape))
    p = node.get_param_values()
    inputs = [n.output for n in node.input_nodes]
    step = Function(inputs, [node.output], node.all_extra_updates, mode="train")
    x = rng.normal(size=shape)
    check(node, np.tanh(R.naive_normalise(y := linear(x, p["w"]), p["gamma"], np.zeros(3), np.ones(3))
                        + R.along(p["b"], y)), x)
    seen = []
    for n in (1, 2, 3):
        batch = rng.normal(size=shape) * n
        step(batch)
        seen.append(R.naive_batch_statistics(linear(batch, p["w"])))
        weights = 0.9995 ** np.arange(n)[::-1]
        mean, std = np.tensordot(weights / weights.sum(), seen, 1)
        check(node, np.tanh(R.naive_normalise(y, p["gamma"], mean, std) + R.along(p["b"], y)), x)
        np.testing.assert_allclose(node.mean.get_value(), 0.0005 * np.tensordot(weights, seen, 1)[0], atol=1e-12)


@pytest.mark.parametrize("mode", ["train", "predict"])
@pytest.mark.parametrize("kind", KINDS)
def test_batch_normalisation_predict(kind, mode, rng):
    """Built with 'predict': stored statistics in either mode, nothing of them trained."""
    statistics = dict(gamma=[1.5, 0.5, 2], mean=[1, 2, 3], std=[0.5, 1, 2])
    node, shape, linear = layer(kind, batch_normalisation="predict", **{k: np.array(v) for k, v in statistics.items()})
    node.w.set_value(rng.normal(size=node.w.shape))
    x = rng.normal(size=shape)
    y = linear(x, node.w.get_value())
    y = R.naive_normalise(y, *statistics.values()) + R.along(node.b.get_value(), y)
    check(node, np.tanh(y), x, mode=mode)
    assert list(node.all_trainable_params) == [f"{node.name}_w", f"{node.name}_b"] and not node.all_extra_updates


@pytest.mark.parametrize("rate", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("kind", KINDS)
def test_batch_normalisation_fadeout(kind, rate, rng):
    """'fadeout': statistics and gamma on their way to 0, 1 and 1, so that rate 0 is no normalisation at all."""
    node, shape, linear = layer(kind, batch_normalisation="fadeout", gradnet_mode=True)
    p = randomise(node, rng)
    node.gradnet_rate.set_value(rate)
    x = rng.normal(size=shape)
    y = linear(x, p["w"])
    mean, std = R.naive_batch_statistics(y)
    y = R.naive_normalise(y, rate * p["gamma"] + 1 - rate, rate * mean, rate * std + 1 - rate) + R.along(p["b"], y)
    check(node, np.tanh(y), x, mode="train")


@pytest.mark.parametrize("kind", KINDS)
def test_dropout(kind, rng):
    """Training: values are 0 or 1/(1-p) times the plain ones, p of them 0 (5 standard errors), every element by itself;
    prediction and rate 0: the plain ones."""
    rate, n = 0.3, 200
    node, shape, _ = layer(kind, dropout_rate=rate)
    randomise(node, rng)
    x = rng.normal(size=shape)
    plain = node(x)
    draws = np.stack([node(x, mode="train") for _ in range(n)])
    dropped = draws == 0
    np.testing.assert_allclose(draws, np.where(dropped, 0, plain / (1 - rate)), rtol=0, atol=1e-10)
    error = np.sqrt(rate * (1 - rate))
    assert abs(dropped.mean() - rate) < 5 * error / np.sqrt(draws.size)
    assert np.abs(dropped.mean(0) - rate).max() < 5 * error / np.sqrt(n)
    flat = dropped.reshape(n, -1)
    correlation = np.corrcoef(flat.T) - np.eye(flat.shape[1])
    assert np.abs(correlation).max() < 6 / np.sqrt(n)
    node.dropout_rate.set_value(0)
    check(node, plain, x, mode="train")


def test_dropout_gradient(rng):
    """The gradient goes through what is kept and is scaled as the value."""
    node, shape, _ = layer("Conv", dropout_rate=0.4, activation_func="lin")
    x = rng.normal(size=shape)
    g = nm.graphutils.grad(node.output, node.b.as_expression_of(node.model.graph))
    value, gradient = Function([n.output for n in node.input_nodes], [node.output, g], mode="train")(x)
    np.testing.assert_allclose(gradient, (value != 0).sum((0, 2, 3)) / 0.6, rtol=0, atol=1e-10)


# -- joining --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tags,shape,axis", [
    ("b,f", (2, 3), "f"), ("b,f,x", (2, 2, 3), "f"), ("b,f,x,y", (1, 2, 3, 2), "f"), ("b,f,x,y", (1, 2, 3, 2), "x"),
    ("b,f,z,x,y", (1, 2, 2, 2, 3), 1), ("b,z,f,x,y", (1, 2, 2, 2, 3), "f")])
def test_concat(tags, shape, axis, rng):
    """Three nodes along one axis, by letter or index, against numpy."""
    k = axis if isinstance(axis, int) else tags.split(",").index(axis)
    shapes = [[n + i if j == k else n for j, n in enumerate(shape)] for i in range(3)]
    node = nm.Concat([source(s, tags) for s in shapes], axis, print_repr=False)
    arrays = [rng.normal(size=s) for s in shapes]
    check(node, np.concatenate(arrays, k), *arrays)
    assert node.shape.shape[k] == 3 * shape[k] + 3


@layouts
def test_add(tags, sizes, rng):
    """Elementwise sum, against numpy."""
    shape = (1, 2, *sizes)
    node = nm.Add(source(shape, tags), source(shape, tags), print_repr=False)
    x, y = rng.normal(size=shape), rng.normal(size=shape)
    check(node, x + y, x, y)


def test_fragments_of_branches_are_brought_in_order(rng):
    """Two branches that pool by (2, 1) then (1, 2), and the other way round, have the same fragments in another
    order; their sum is that of the fragments at the same place."""
    x = source((1, 1, 5, 5), "b,f,x,y")
    a = nm.Pool(nm.Pool(x, (2, 1), mfp=True, print_repr=False), (1, 2), mfp=True, print_repr=False)
    b = nm.Pool(nm.Pool(x, (1, 2), mfp=True, print_repr=False), (2, 1), mfp=True, print_repr=False)
    assert a.shape.mfp_offsets.tolist() != b.shape.mfp_offsets.tolist()
    image = rng.normal(size=(1, 1, 5, 5))
    for node, wanted in ((nm.Add(a, b, print_repr=False), lambda y: 2 * y),
                         (nm.Concat([a, b], print_repr=False), lambda y: np.concatenate([y, y], 1))):
        offsets = node.shape.mfp_offsets
        fragments = np.concatenate([R.naive_pool(image[:, :, i:i + 4, j:j + 4], (2, 2)) for i, j in offsets])
        check(node, wanted(fragments), image)


@pytest.mark.parametrize("mode", ["concat", "add"])
def test_automerge(mode, rng):
    """A branch of half the resolution is upsampled and comes first, the other one is cropped, against the parts."""
    x = source((1, 1, 12, 12), "b,f,x,y")
    high = nm.Conv(x, 2, 1, activation_func="lin", print_repr=False)
    low = nm.Conv(nm.Pool(high, 2, print_repr=False), 3, 3, activation_func="lin", print_repr=False)
    node = nm.AutoMerge(high, low, 2, merge_mode=mode, print_repr=False, upconv_kwargs=dict(activation_func="lin"))
    up = node.parents[0]
    p = {n.name: randomise(n, rng) for n in (high, low, up)}
    image = rng.normal(size=(1, 1, 12, 12))
    h = R.naive_conv(image, *p[high.name].values())
    up_value = R.naive_upconv(R.naive_conv(R.naive_pool(h, (2, 2)), *p[low.name].values()), *p[up.name].values())
    parts = [up_value, R.naive_crop(h, (2, 2))]
    check(node, np.concatenate(parts, 1) if mode == "concat" else sum(parts), image)


def test_apply_func(rng):
    """A function of tensors with further arguments, and one that changes the shape."""
    x = source((None, 3, 4), "b,f,x")
    a = rng.normal(size=(2, 3, 4))
    check(nm.ApplyFunc(x, torch.clamp, (-0.5,), dict(max=0.5)), np.clip(a, -0.5, 0.5), a)
    shape = nm.graphutils.TaggedShape((None, 3), "b,f")
    check(nm.ApplyFunc(x, torch.sum, (2,), shape=shape), a.sum(2), a)


def test_input_and_plain_node(rng):
    """A source is its value, and the base class passes its parent on."""
    x = source((None, 3, 4), "b,f,x")
    a = rng.normal(size=(2, 3, 4))
    check(x, a, a)
    check(Node(x, name="same"), a, a)
    t = nm.Input_like(Node(x, name="same"), dtype="int16", override_f=1, print_repr=False)
    assert t.output.dtype == "int16" and t.shape.shape == [None, 1, 4]


# -- probabilities, losses, errors ----------------------------------------------------------------------
@pytest.mark.parametrize("n_indep", [1, 2, 3])
@pytest.mark.parametrize("tags,shape", [
    ("b,f", (3, 6)), ("b,f,x", (2, 6, 3)), ("b,f,x,y", (1, 6, 2, 2)), ("b,f,z,x,y", (1, 6, 1, 2, 2)),
    ("b,x,f", (2, 2, 6))])
def test_softmax(tags, shape, n_indep, rng):
    """In blocks along f wherever it is, against exp / sum."""
    node = nm.Softmax(source(shape, tags), n_indep=n_indep, print_repr=False)
    x = rng.normal(size=shape)
    check(node, R.naive_softmax(x, n_indep, tags.split(",").index("f")), x)
    assert (node.n_class, node.n_indep) == (6 // n_indep, n_indep)


def test_softmax_of_large_values():
    """No overflow where exp alone would."""
    node = nm.Softmax(source((1, 2), "b,f"), print_repr=False)
    np.testing.assert_array_equal(node(np.array([[1000.0, 0]])), [[1, 0]])


def nll_net(sizes, n_indep=1, sparse=True, batch=2, weights=None, extras=(), **kwargs):
    """(NLL node, number of features) for 3 classes; ``extras`` become sources."""
    tags = ",".join(["b", "f", *"zyx"[3 - len(sizes):]])
    f = 3 * n_indep
    p = nm.Softmax(source((batch, f, *sizes), tags), n_indep=n_indep, print_repr=False)
    t = source((batch, n_indep if sparse else f, *sizes), tags, dtype="int16" if sparse else "float64")
    shapes = dict(class_weights=((f,), "f"), mask_class_labeled=((batch, f), "b,f"),
                  mask_class_not_present=((batch, f), "b,f"),
                  example_weights=((batch, *sizes), ",".join(["b", *"zyx"[3 - len(sizes):]])))
    nodes = {k: source(*shapes[k]) for k in extras}
    if weights is not None:
        nodes["class_weights"] = weights
    return nm.MultinoulliNLL(p, t, target_is_sparse=sparse, **nodes, **kwargs, print_repr=False), f


NAMES = dict(class_weights="class_weights", example_weights="example_weights", mask_class_labeled="labeled",
             mask_class_not_present="not_present")
EXTRAS = [(), ("class_weights",), ("example_weights",), ("mask_class_labeled",), ("mask_class_not_present",),
          tuple(NAMES)]


@pytest.mark.parametrize("extras", EXTRAS, ids=lambda e: "+".join(e) or "plain")
@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("n_indep", [1, 2])
@pytest.mark.parametrize("sizes", [(), (3,), (2, 3), (2, 1, 2)], ids=["0d", "1d", "2d", "3d"])
def test_multinoulli_nll(sizes, n_indep, sparse, extras, rng):
    """Against voxel-by-voxel and class-by-class loops, with negative labels that do not count, and all weights and masks
    as sources."""
    node, f = nll_net(sizes, n_indep, sparse, extras=extras)
    x = rng.normal(size=(2, f, *sizes))
    if sparse:
        t = rng.integers(-1, 3, (2, n_indep, *sizes)).astype("int16")
        t.flat[:3] = 0, -1, -666
    else:
        t = R.naive_softmax(rng.normal(size=(2, f, *sizes)), n_indep)
        t[1] = 0
    values = dict(class_weights=rng.uniform(0.5, 2, f), example_weights=rng.uniform(0.5, 2, (2, *sizes)),
                  mask_class_labeled=rng.integers(0, 2, (2, f)) * 1.0,
                  mask_class_not_present=rng.integers(0, 2, (2, f)) * 1.0)
    values["mask_class_labeled"][:, 0] = 1  # else nothing may be labelled
    given = {k: values[k] for k in extras}
    wanted = R.naive_multinoulli_nll(R.naive_softmax(x, n_indep), t, 3, n_indep, sparse,
                                     **{NAMES[k]: v for k, v in given.items()})
    check(node, wanted, x, t, *given.values(), gradients=len(sizes) in (0, 2))


@pytest.mark.parametrize("form", [list, np.array])
def test_class_weights_as_values(form, rng):
    """Given as a list or an array they are an untrained parameter."""
    node, f = nll_net((2, 2), weights=form([1.0, 0.2, 3.0]))
    x, t = rng.normal(size=(2, f, 2, 2)), rng.integers(0, 3, (2, 1, 2, 2)).astype("int16")
    check(node, R.naive_multinoulli_nll(R.naive_softmax(x), t, 3, class_weights=[1, 0.2, 3]), x, t)
    assert not node.class_weights.apply_train


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("n_indep", [1, 2])
def test_weakness(n_indep, sparse, rng):
    """The target softened by the prediction where it is labelled, and only there, against loops (its gradient is
    compared in test_oracle.py)."""
    node, f = nll_net((2, 3), n_indep, sparse, weakness=0.3)
    x = rng.normal(size=(2, f, 2, 3))
    t = rng.integers(0, 3, (2, n_indep, 2, 3)).astype("int16")
    if not sparse:
        t = (t[:, :, None] == np.arange(3).reshape(3, 1, 1)).reshape(2, f, 2, 3) * 1.0
    t[1, :, 0] = -1 if sparse else 0  # all blocks: what happens if some are labelled is not specified
    wanted = R.naive_multinoulli_nll(R.naive_softmax(x, n_indep), t, 3, n_indep, sparse, weakness=0.3)
    check(node, wanted, x, t, gradients=False)


def test_nll_mean_is_per_labelled_element(rng):
    """The mean over all positions is the mean NLL of the labelled ones; nothing labelled gives 0."""
    node, f = nll_net((4, 4))
    x, t = rng.normal(size=(2, f, 4, 4)), rng.integers(-1, 3, (2, 1, 4, 4)).astype("int16")
    p = R.naive_softmax(x)
    nll = [-np.log(p[(i, t[(i, 0, *v)], *v)] + 1e-5) for i in range(2) for v in np.ndindex(4, 4) if t[(i, 0, *v)] >= 0]
    assert 10 < len(nll) < 32
    np.testing.assert_allclose(node(x, t).mean(), np.sum(nll) / (len(nll) + 1e-5), rtol=0, atol=1e-10)
    np.testing.assert_array_equal(node(x, np.full_like(t, -1)), 0)


@pytest.mark.parametrize("n_indep", [1, 2])
@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
def test_errors(n_indep, sparse, rng):
    """Share of wrong classes among the labelled, against a count; argmax per block of both, or sparse ids."""
    f = 3 * n_indep
    p = nm.Softmax(source((2, f, 3, 4), "b,f,x,y"), n_indep=n_indep, print_repr=False)
    t = source((2, n_indep if sparse else f, 3, 4), "b,f,x,y", dtype="int16" if sparse else "float64")
    node = nm.Errors(p, t, target_is_sparse=sparse, print_repr=False)
    cls = node.parents[0]
    x = rng.normal(size=(2, f, 3, 4))
    classes = R.naive_classes(R.naive_softmax(x, n_indep), n_indep)
    check(cls, classes, x, gradients=False)
    target = rng.integers(-1, 3, (2, n_indep, 3, 4)).astype("int16") if sparse else rng.uniform(size=(2, f, 3, 4))
    ids = target if sparse else R.naive_classes(target, n_indep)
    if not sparse:
        for unlabelled, y in ((0, 0), (-1, 1), (np.nan, 2), (-666, 3)):
            target[0, -3:, 1, y], ids[0, -1, 1, y] = unlabelled, -1
    wanted = R.naive_error_rate(classes, ids)
    check(node, wanted.astype("float32"), x, target, gradients=False)
    assert 0 < wanted[0] < 1
    np.testing.assert_array_equal(node(x, np.full_like(target, -1)), 0)


@pytest.mark.parametrize("tags,shape", [("b,f", (5, 3)), ("b,f,x", (2, 3, 4)), ("b,f,z,x,y", (1, 3, 2, 2, 2))])
def test_errors_of_sigmoids(tags, shape, rng):
    """Every feature is a class of its own, present above 0.5; also where the counts are given."""
    x = source(shape, tags)
    sigmoid = nm.Perceptron(x, 3, "sig", print_repr=False)
    p = randomise(sigmoid, rng)
    t = source(shape, tags, dtype="int16")
    a, target = rng.normal(size=shape), rng.integers(-1, 2, shape).astype("int16")
    y = 1 / (1 + np.exp(-R.naive_perceptron(a, p["w"], p["b"])))
    classes = R.naive_classes(y, threshold=True)
    node = nm.Errors(sigmoid, t, target_is_sparse=True, print_repr=False)
    check(node.parents[0], classes, a, gradients=False)
    check(node, R.naive_error_rate(classes, target).astype("float32"), a, target, gradients=False)
    explicit = Classification(x, n_class=2, n_indep=3, print_repr=False)
    check(explicit, R.naive_classes(a, threshold=True), a, gradients=False)


@pytest.mark.parametrize("weights", [None, [2.0, 0.5, 1.0], np.array([1.0, 0, 3])], ids=["ones", "list", "array"])
def test_aggregate_loss(weights, rng):
    """Weighted mean of the means of nodes of any shape, against the formula; weights can be changed."""
    shapes = (((2, 3), "b,f"), ((2, 1, 4), "b,f,x"), ((1, 2, 3, 2), "b,f,x,y"))
    node = nm.AggregateLoss([source(*s) for s in shapes], weights, print_repr=False)
    arrays = [rng.normal(size=s) for s, _ in shapes]
    check(node, R.naive_aggregate(arrays, [1] * 3 if weights is None else weights), *arrays)
    node.mixing_weights.set_value([1, 2, 3])
    check(node, R.naive_aggregate(arrays, [1, 2, 3]), *arrays)


def test_aggregate_loss_of_one_node(rng):
    """A single node need not be in a list; ``parent`` is one all the same."""
    node = nm.AggregateLoss(source((2, 3), "b,f"), print_repr=False)
    x = rng.normal(size=(2, 3))
    check(node, [x.mean()], x)
    assert isinstance(node.parent, list) and len(node.parent) == 1


# -- functions without a node ---------------------------------------------------------------------------
@pytest.mark.parametrize("factor", [(2,), (2, 3), (1, 2, 2)])
def test_upsampling_and_unpooling(factor, rng):
    """Repetition, and values apart from each other with zeros between them, against loops."""
    x = rng.normal(size=(2, 2, *(3, 2, 2)[:len(factor)]))
    up = nm.computations.upsampling(torch.from_numpy(x), factor).numpy()
    un = nm.computations.unpooling(torch.from_numpy(x), factor).numpy()
    wanted_up = np.zeros((2, 2, *np.multiply(x.shape[2:], factor)))
    wanted_un = np.zeros((2, 2, *(n * p + p - 1 for n, p in zip(x.shape[2:], factor))))
    for i in np.ndindex(wanted_up.shape[2:]):
        wanted_up[(..., *i)] = x[(..., *np.floor_divide(i, factor))]
    for i in np.ndindex(x.shape[2:]):
        wanted_un[(..., *(np.add(i, 1) * factor - 1))] = x[(..., *i)]
    np.testing.assert_array_equal(up, wanted_up)
    np.testing.assert_array_equal(un, wanted_un)


@pytest.mark.parametrize("axis", [1, 2])
def test_dot(axis, rng):
    """Contraction of any axis but the batch, against einsum."""
    x, w = torch.from_numpy(rng.normal(size=(2, 3, 3))), torch.from_numpy(rng.normal(size=(3, 4)))
    wanted = np.einsum("bfx,fo->box" if axis == 1 else "bxf,fo->bxo", x, w)
    np.testing.assert_allclose(nm.computations.dot(x, w, axis), wanted, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="batch"):
        nm.computations.dot(x, w, 0)


def test_gradient_of_what_cannot_be_differentiated(rng):
    """Class ids do not depend on anything differentiably: their gradient is 0."""
    x = source((2, 3), "b,f")
    cls = Classification(nm.Softmax(x, print_repr=False), print_repr=False)
    gradient = Function([x.output], nm.graphutils.grad(cls.output, x.output))
    np.testing.assert_array_equal(gradient(rng.normal(size=(2, 3))), np.zeros((2, 3)))


# -- geometry -------------------------------------------------------------------------------------------
def positive(node):
    """``node``, with positive weights everywhere: they let every impulse through."""
    rng = np.random.default_rng(1)
    for n in node.all_parents.values():
        for p in n.params.values():
            p.set_value(rng.uniform(0.1, 1, p.shape))
    return node


def conv(x, kernel, pool=1, **kwargs):
    return nm.Conv(x, 2, kernel, pool, print_repr=False, **kwargs)


def pool(x, size, stride=None, mode="max"):
    return nm.Pool(x, size, stride, mode=mode, print_repr=False)


def crop(x, n):
    return nm.Crop(x, n, print_repr=False)


CHAINS = {  # name: (tags, sizes, function of the source)
    "conv 1d": ("b,f,x", (9,), lambda x: conv(x, 4)),
    "conv pool 1d": ("b,f,z", (20,), lambda x: conv(conv(conv(x, 3, 2), 2, 2), 3)),
    "pool stride 1d": ("b,f,x", (15,), lambda x: pool(pool(x, 3, 2), 4, 1, "average")),
    "conv 2d": ("b,f,x,y", (6, 7), lambda x: conv(x, (2, 5))),
    "conv pool 2d": ("b,f,y,x", (12, 11), lambda x: conv(conv(x, (3, 2), (2, 2)), (2, 3), (2, 1))),
    "pools 2d": ("b,f,x,y", (9, 10), lambda x: pool(pool(x, (3, 2)), (2, 3), (1, 2), "sum")),
    "conv crop 2d": ("b,f,x,z", (12, 9), lambda x: conv(crop(pool(x, (2, 1)), (1, 2)), (1, 3))),
    "conv pool 3d": ("b,f,z,x,y", (4, 7, 6), lambda x: conv(conv(x, (1, 2, 3), (1, 2, 1)), (2, 2, 1))),
    "pool 3d": ("b,f,z,y,x", (4, 5, 6), lambda x: pool(x, (2, 3, 2), (1, 2, 2))),
}


def windows(node, offset=None):
    """Boolean (out voxel..., input voxel...): what fov, centre and strides of the node's shape say it sees."""
    s = node.shape
    axes = []
    for k, (fov, c, stride) in enumerate(zip(s.fov, s.centre, s.strides)):
        c = c + (0 if offset is None else int(offset[k]))
        half = (Fraction(fov) - 1) / 2
        n_in = node.input_nodes[0].shape.spatial_shape[k]
        axes.append([[abs(v - (c + i * Fraction(stride))) <= half for v in range(n_in)]
                     for i in range(s.spatial_shape[k])])
    n = len(axes)
    out, voxel = "abc"[:n], "xyz"[:n]
    return np.einsum(",".join(map("".join, zip(out, voxel))) + "->" + out + voxel, *[np.array(a, bool) for a in axes])


def responses(node):
    """Boolean (batch of the output, out voxel..., input voxel...): which outputs an impulse at a voxel changes."""
    source_shape = node.input_nodes[0].shape
    sizes = source_shape.spatial_shape
    impulses = np.zeros((int(np.prod(sizes)), 1, *sizes))
    for i, v in enumerate(np.ndindex(*sizes)):
        impulses[(i, 0, *v)] = 1e3
    rest = node(np.zeros((1, 1, *sizes)))
    single = source_shape["b"] == 1
    seen = np.stack([node(i[None]) for i in impulses]) if single else node(impulses)[:, None]
    changed = (seen != rest[None]).any(2)  # (impulse, batch, out voxel...)
    return np.moveaxis(changed, 0, -1).reshape(*changed.shape[1:], *sizes)


@pytest.mark.parametrize("name", CHAINS)
def test_windows(name):
    """The set of input voxels that each output voxel depends on, probed with impulses, against the window that fov,
    centre and strides of the declared shape give. Positive weights, no padding: it must be exactly that."""
    tags, sizes, make = CHAINS[name]
    node = positive(make(source((None, 1, *sizes), tags)))
    seen = responses(node)[0]
    expected = windows(node)
    assert expected.any(tuple(range(node.shape.ndim, 2 * node.shape.ndim))).all()
    np.testing.assert_array_equal(seen, expected)
    for k, (offset, fov, stride) in enumerate(zip(node.shape.offsets, node.shape.fov, node.shape.strides)):
        first = seen[(0,) * node.shape.ndim].any(tuple(a for a in range(node.shape.ndim) if a != k))
        assert first.sum() == fov
        assert offset == (np.flatnonzero(first)[0] + np.flatnonzero(first)[-1]) // 2
        assert stride == node.shape.strides[k]


def test_windows_of_gradients():
    """The same of a net that can be differentiated everywhere: non-zero gradients of every output voxel."""
    node = positive(pool(nm.Conv(source((1, 1, 9, 8), "b,f,x,y"), 2, (2, 3), activation_func="soft+",
                                 print_repr=False), (2, 1), (2, 1), "average"))
    module, _, _ = cut([node.output])
    expected = windows(node)
    x = torch.rand(1, 1, 9, 8, dtype=torch.float64, requires_grad=True)
    y = module(x)[0].sum(1)[0]
    for i in np.ndindex(*y.shape):
        g, = torch.autograd.grad(y[i], x, retain_graph=True)
        np.testing.assert_array_equal(g[0, 0] != 0, expected[i])


def test_windows_of_fragments():
    """Fragment j of a max-fragment pooling network sees the window moved by its offset; and, made dense, every voxel
    sees the next window."""
    x = source((1, 1, 8, 9), "b,f,x,y")
    node = nm.Conv(nm.Conv(x, 2, (2, 1), (2, 2), mfp=True, print_repr=False), 2, (1, 2), (1, 2), mfp=True,
                   print_repr=False)
    dense = positive(nm.FragmentsToDense(node, print_repr=False))
    seen = responses(node)
    assert len(seen) == len(node.shape.mfp_offsets) == 8
    for fragment, offset in zip(seen, node.shape.mfp_offsets):
        np.testing.assert_array_equal(fragment, windows(node, offset))
    np.testing.assert_array_equal(responses(dense)[0], windows(dense))


UNETS = {
    "upconv": lambda x: nm.UpConv(x, 2, (2, 3), print_repr=False),
    "pool upconv": lambda x: nm.UpConv(pool(x, (2, 3)), 2, (2, 3), print_repr=False),
    "merge": lambda x: nm.AutoMerge(a := conv(x, (3, 1)), conv(pool(a, 2), (3, 1)), 2, print_repr=False),
    "merge conv": lambda x: conv(nm.AutoMerge(a := conv(x, 3), conv(pool(a, 2), 3), 2, print_repr=False), 3),
    "add": lambda x: nm.AutoMerge(a := conv(x, (3, 1)), conv(pool(a, 2), (3, 1)), 2, merge_mode="add",
                                  print_repr=False),
}


@pytest.mark.parametrize("name", UNETS)
def test_windows_after_upsampling(name):
    """There the window depends on the phase: each must lie in the declared one, and together, each around its own
    position, they must fill it (the smallest one that covers all phases)."""
    node = positive(UNETS[name](source((None, 1, 12, 18), "b,f,x,y")))
    seen, allowed = responses(node)[0], windows(node)
    assert not (seen & ~allowed).any()
    for k in range(2):
        reach = []
        for i, v in product(range(seen.shape[k]), range(seen.shape[2 + k])):
            if np.take(np.take(seen, [v], 2 + k), [i], k).any():
                reach.append(v - node.shape.centre[k] - i * Fraction(node.shape.strides[k]))
        half = (Fraction(node.shape.fov[k]) - 1) / 2
        assert (min(reach), max(reach)) == (-half, half)


@pytest.mark.parametrize("mode", ["same", "full", "pad", "pool"])
def test_windows_with_padding(mode):
    """With padding of the network itself: the part of the window that lies on the image, and ``padded`` outermost
    voxels per side whose window does not."""
    x = source((None, 1, 8, 10), "b,f,x,y")
    if mode == "pad":
        node = conv(nm.Pad(x, (1, 2), print_repr=False), (3, 2))
    elif mode == "pool":
        node = conv(x, (3, 5), 2, conv_mode="same")
    else:
        node = conv(x, (3, 5), conv_mode=mode)
    positive(node)
    seen = responses(node)[0]
    np.testing.assert_array_equal(seen, windows(node))
    full = int(np.prod(node.shape.fov))
    whole = seen.reshape(*node.shape.spatial_shape, -1).sum(-1) == full
    inner = np.zeros_like(whole)
    inner[tuple(slice(p, n - p) for p, n in zip(node.shape.padded, whole.shape))] = True
    np.testing.assert_array_equal(whole, inner)


# -- optimisers -----------------------------------------------------------------------------------------
RULES = {"SGD": dict(lr=0.1, mom=0.8), "AdaGrad": dict(lr=0.05), "AdaDelta": dict(lr=0.5, mom=0.8),
         "Adam": dict(lr=0.02, mom=0.8, beta2=0.95), "AdamW": dict(lr=0.02, mom=0.8, beta2=0.95)}


@pytest.mark.parametrize("wd", [0.0, 0.03])
@pytest.mark.parametrize("rule", RULES)
def test_optimiser(rule, wd, rng):
    """All parameters after each of five steps, against the rule in numpy on the same gradients. gamma (apply_reg 3) and
    biases (never regularised) are among them."""
    x = source((3, 2, 6, 6), "b,f,x,y", name="x")
    y = nm.Conv(x, 3, (3, 3), (2, 2), batch_normalisation="train", print_repr=False)
    p = nm.Softmax(nm.Perceptron(y, 3, "lin", flatten=True, print_repr=False), print_repr=False)
    t = nm.Input_like(p, "int16", name="t", override_f=1, print_repr=False)
    loss = nm.AggregateLoss(nm.MultinoulliNLL(p, t, target_is_sparse=True, print_repr=False), print_repr=False)
    model = loss.model
    model.designate_nodes(x, t, loss, p)
    model.set_opt_meta_params(rule, dict(RULES[rule], wd=wd))
    naive = R.NaiveOptimiser(rule, **RULES[rule], wd=wd)
    params = model.trainable_params
    values = [q.get_value() for q in params]
    factors = [{"w": 1, "b": 0, "gamma": 3}[k.split("_")[-1]] for k in loss.all_trainable_params]
    assert sorted(factors) == [0, 0, 1, 1, 3]
    for _ in range(5):
        batch = rng.normal(size=(3, 2, 6, 6)), rng.integers(0, 3, (3, 1)).astype("int16")
        gradients, before = model.gradients(*batch), model.loss(*batch)
        value, _, _ = model.trainingstep(*batch, optimiser=rule)
        assert abs(value - before) < 1e-12
        naive.step(values, gradients, factors)
        for q, wanted in zip(params, values, strict=True):
            np.testing.assert_allclose(q.get_value(), wanted, rtol=0, atol=1e-10)


def test_optimisers_are_all_tested():
    """A new rule needs an entry in RULES."""
    ours = {k for k, c in nm.optimiser.OPTIMISERS.items() if c.__module__.startswith("elektronn2.")}
    assert ours == RULES.keys()


@pytest.mark.parametrize("kernel, pad", [((3, 3, 3), "valid"), ((1, 3, 5), "same"), ((2, 1, 3), "valid"),
                                         ((1, 4, 4), "valid")])
@pytest.mark.parametrize("n_f", [1, 3])
def test_convolutions_whose_axes_are_reordered(kernel, pad, n_f, rng):
    """Flat volumes with few features, whose axes are exchanged for speed: the same numbers and gradients."""
    x = torch.tensor(rng.standard_normal((1, n_f, 4, 90, 100)), dtype=torch.float32, requires_grad=True)
    w = torch.tensor(rng.standard_normal((5, n_f, *kernel)), dtype=torch.float32, requires_grad=True)
    b = torch.tensor(rng.standard_normal(5), dtype=torch.float32, requires_grad=True)
    y = computations.conv(x, w, b, pad)
    exact = [a.detach().double().requires_grad_() for a in (x, w, b)]
    expected = torch.nn.functional.conv3d(*exact, padding=pad)
    assert y.shape == expected.shape
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    r = torch.tensor(rng.standard_normal(y.shape))
    for got, wanted in zip(torch.autograd.grad((y * r).sum(), (x, w, b)), torch.autograd.grad((expected * r).sum(), exact)):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-3)
