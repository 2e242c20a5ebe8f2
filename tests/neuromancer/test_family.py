"""What every node class promises, tested on every class of the registry.

A new class of the library needs an entry in SAMPLES, or ``test_every_class_has_samples`` fails. Classes that users,
other tests or doctests define are left alone.
"""
import inspect
import re

import numpy as np
import pytest
import torch

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer import serialize
from elektronn2.neuromancer.loss import Classification
from elektronn2.neuromancer.node import Node, NodeType
from elektronn2.neuromancer.number_loss import _Sobel
from elektronn2.neuromancer.registry import NODES

CLASSES = {k: c for k, c in NODES.items() if c.__module__.startswith("elektronn2.")}
BASES = {"Node", "NeuralLayer", "_Cell", "_ClassLoss", "_Norm"}  # inherited from; compute nothing of their own

QUIET = dict(print_repr=False)
RNG = np.random.default_rng(3)


# -- samples: each a function batch size -> node --------------------------------------------------------
def image(b, n_f=2, sizes=(6, 7), tags="b,f,x,y", **kwargs):
    return nm.Input((b, n_f, *sizes), tags, **QUIET, **kwargs)


def vector(b, n_f=4):
    return nm.Input((b, n_f), "b,f", **QUIET)


def loop(b, n=3, sizes=(), scan=None, **kwargs):
    """The results of a loop over a GRU and a Perceptron with dropout behind it."""
    x = nm.Input((n, b, 4, *sizes), "r,b,f,x"[:5 + 2 * len(sizes)], name="x", **QUIET)
    first = nm.split(x, "r", index=1, strip_singleton_dims=True)[0]
    memory = nm.InitialState_like(first, 3, **QUIET)
    step = nm.GRU(first, memory, 3, **kwargs, **QUIET)
    shown = nm.Perceptron(step, 2, dropout_rate=0.3, **QUIET)
    results = nm.Scan([step, shown], memory, step, x, first, **(scan or {}), **QUIET)
    return results


def counter(b, **kwargs):
    """A loop over a sum that needs no sequence."""
    h = vector(b)
    return nm.Scan(nm.Add(h, h, **QUIET), h, **kwargs, **QUIET)


def one(size):
    return image(1, 1, size)


def probabilities(b, **kwargs):
    return nm.Softmax(image(b, 4, (2, 3)), **QUIET, **kwargs)


def target(like, f, dtype="int16"):
    return nm.Input_like(like, dtype, override_f=f, **QUIET)


def nll(b, n_indep=1, sparse=True, extras=False, cls=nm.MultinoulliNLL, **kwargs):
    p = probabilities(b, n_indep=n_indep)
    t = target(p, n_indep) if sparse else target(p, 4, "float32")
    if extras:
        kwargs.update(class_weights=nm.Input((4,), "f", **QUIET), example_weights=nm.Input((b, 2, 3), "b,x,y", **QUIET),
                      mask_class_labeled=vector(b), mask_class_not_present=vector(b))
    return cls(p, t, target_is_sparse=sparse, **kwargs, **QUIET)


def class_loss(cls, **kwargs):
    """Samples of a loss of class probabilities; ``kwargs``: arguments of its own, for one of them."""
    return [lambda b: nll(b, cls=cls), lambda b: nll(b, 2, extras=True, cls=cls),
            lambda b: nll(b, sparse=False, class_weights=[1, 2, 0.5, 1], cls=cls, **kwargs)]


def pair(cls, *args, n=2, tags="b,f,x,y", **kwargs):
    """Sample of a loss of ``n`` nodes of one shape."""
    return lambda b: cls(*[image(b, 2, tags=tags) for _ in range(n)], *args, **kwargs, **QUIET)


def ids(b, sizes=(3, 4), tags="b,f,x,y"):
    return image(b, 1, sizes, tags, dtype="int16")


def malis(b, sizes=(3, 4), tags="b,f,x,y", nhood=((1, 0), (0, 1)), **kwargs):
    seg = ids(b, sizes, tags)
    p = nm.Softmax(image(b, 2 * len(nhood), sizes, tags), n_indep=len(nhood), **QUIET)
    aff = nm.Input_like(p, "int16", override_f=len(nhood), **QUIET)
    return nm.MalisNLL(p, aff, seg, nhood, **kwargs, **QUIET)


def samples_axis(cls, n):
    """Sample whose predictions have an axis s that its target lacks."""
    return lambda b: cls(*[nm.Input((b, 3, 2, 4), "b,s,f,x", **QUIET) for _ in range(n)], image(b, 2, (4,), "b,f,x"),
                         **QUIET)


def shared(b):
    x = image(b)
    first = nm.Conv(x, 3, 2, name="first", **QUIET)
    return nm.Conv(x, 3, 2, activation_func="tanh", w=first.w, b=first.b, **QUIET)


def fragments(**kwargs):
    return nm.Conv(one((8, 11)), 2, (2, 1), (2, 3), mfp=True, **kwargs, **QUIET)


SAMPLES = {
    "Node": [lambda b: Node(image(b))],
    "Input": [
        image, vector, lambda b: image(b, 1, (3,), "b,f,z"), lambda b: image(b, 2, (3, 4, 5), "b,f,z,x,y"),
        lambda b: image(b, dtype="int16", strides=[2, 4], fov=[3, 5], offsets=[1, 2]),
        lambda b: target(nm.Pool(image(b, 2, (6, 6)), 2, **QUIET), 1)],
    "Concat": [
        lambda b: nm.Concat([image(b), image(b, 3)], **QUIET),
        lambda b: nm.Concat([image(b), image(b, sizes=(2, 7))], axis="x", **QUIET),
        lambda b: nm.Concat((image(b), image(b)), axis=3, **QUIET)],
    "Add": [lambda b: nm.Add(image(b), image(b), **QUIET)],
    "FromTensor": [
        lambda b: nm.split(image(b, 5), "f", [1, 3])[1],
        lambda b: nm.split(image(b, 2), n_out=2, strip_singleton_dims=True)[1],
        lambda b: nm.split(image(b), "x", 2, name=["first", "second"])[1]],
    "ValueNode": [
        lambda b: nm.ValueNode((2, 3), "f,x", **QUIET),
        lambda b: nm.ValueNode((2, 3), "f,x", strides=[2], fov=[5], value=RNG.normal(size=(2, 3)), **QUIET),
        lambda b: nm.ValueNode((3,), "f", dtype="int16", value=[1, -2, 3], **QUIET),
        lambda b: nm.ValueNode((1, 4), "b,f", apply_train=True, init_kwargs=dict(mode="fix-uni", scale=0.5), **QUIET),
        lambda b: nm.ValueNode((2,), "f", apply_train=True, value=[[3, 4], "const"], **QUIET),
        lambda b: nm.ValueNode((3,), "f", value=nm.Conv(image(b), 3, 2, **QUIET).b, **QUIET)],
    "InitialState_like": [
        lambda b: nm.InitialState_like(image(b), 3, **QUIET),
        lambda b: nm.InitialState_like(nm.Input((4, b, 2), "r,b,f", **QUIET), 5, init_kwargs=dict(mode="const", scale=2),
                                       **QUIET),
        lambda b: nm.InitialState_like(vector(b), 2, value=[[1, 2], "const"], **QUIET)],
    "MultMerge": [lambda b: nm.MultMerge(image(b), image(b), **QUIET),
                  lambda b: nm.MultMerge(x := image(b), x, **QUIET)],
    "Reshape": [
        lambda b: nm.Reshape(image(b, 6), (None, 2, 3, 6, 7), "b,s,f,x,y", **QUIET),
        lambda b: nm.Reshape(image(b), (None, 84), "b,f", **QUIET),
        lambda b: nm.Reshape(image(b), nm.graphutils.TaggedShape((b, 4, 21), "b,f,x", strides=[3], fov=[7])
                             if b else nm.graphutils.TaggedShape((None, 84), "b,f"), **QUIET)],
    "LRN": [lambda b: nm.LRN(image(b), (3, 1), **QUIET), lambda b: nm.LRN(vector(b), 3, "channel", 1, 2, 1.5, **QUIET),
            lambda b: nm.LRN(nm.Input((b, 4, 3), "b,x,f", **QUIET), 5, "channel", alpha=2, **QUIET)],
    "FaithlessMerge": [lambda b: nm.FaithlessMerge(image(b), image(b, 3), **QUIET),
                       lambda b: nm.FaithlessMerge(image(b), image(b), "x", 0.7, 0.1, **QUIET)],
    "GaussianRV": [lambda b: nm.GaussianRV(image(b), image(b), **QUIET),
                   lambda b: nm.GaussianRV(vector(b), vector(b), 3, **QUIET)],
    "GaussianAEVBPrior": [lambda b: nm.GaussianAEVBPrior(image(b), image(b), **QUIET),
                          lambda b: nm.GaussianAEVBPrior(vector(b), vector(b), 3, **QUIET)],
    "ApplyFunc": [
        lambda b: nm.ApplyFunc(image(b), torch.nn.functional.silu),
        lambda b: nm.ApplyFunc(vector(b), torch.nn.functional.leaky_relu, (0.2,), dict(inplace=False)),
        lambda b: nm.ApplyFunc(image(b), nm.computations.batch_mean, shape=nm.graphutils.TaggedShape((2,), "f"))],
    "TorchModule": [
        lambda b: nm.TorchModule(image(b), torch.nn.Conv2d, (2, 3), dict(kernel_size=(3, 2), stride=(1, 2)), **QUIET),
        lambda b: nm.TorchModule(image(b), torch.nn.BatchNorm2d, (2,), **QUIET),
        lambda b: nm.TorchModule(image(b), torch.nn.Flatten, tags="b,f", **QUIET),
        lambda b: nm.TorchModule(vector(b), torch.nn.Linear, (4, 3), trainable=False, **QUIET),
        lambda b: nm.TorchModule(image(b), torch.nn.Upsample, kwargs=dict(scale_factor=2), fov=[1.5, 1.5],
                                 strides=[0.5, 0.5], offsets=[-0.25, -0.25], **QUIET)],
    "Perceptron": [
        lambda b: nm.Perceptron(vector(b), 3, **QUIET),
        lambda b: nm.Perceptron(image(b), 4, "maxout 2", flatten=True, dropout_rate=0.4, **QUIET),
        lambda b: nm.Perceptron(image(b), 4, "prelu", batch_normalisation="train", **QUIET),
        lambda b: (code := nm.Perceptron(vector(b), 3, **QUIET)).make_dual(code, True, name="dot", **QUIET),
        lambda b: nm.Perceptron(vector(b), 2, "lin", w=[np.ones((4, 2)), "const"], b=np.arange(2), **QUIET)],
    "Conv": [
        lambda b: nm.Conv(image(b), 3, (3, 2), (2, 2), **QUIET),
        lambda b: nm.Conv(image(b, 1, (7,), "b,f,z"), 3, 2, 3, activation_func="prelu", **QUIET),
        lambda b: nm.Conv(image(b, 1, (3, 4, 5), "b,f,z,x,y"), 4, [1, 3, 2], activation_func="maxout 2", **QUIET),
        lambda b: nm.Conv(image(b), 3, (3, 1), conv_mode="same", batch_normalisation="train", dropout_rate=0.5,
                          **QUIET),
        lambda b: nm.Conv(image(b), 3, 2, conv_mode="full", batch_normalisation="predict", mean=np.ones(3), **QUIET),
        lambda b: nm.Conv(image(b), 3, 2, batch_normalisation="fadeout", gradnet_mode=True, **QUIET),
        lambda b: nm.Conv(image(b, 4), 6, (2, 3), stride=(2, 1), dilation=(1, 2), groups=2, **QUIET),
        lambda b: nm.Conv(image(b, 2, (3, 7, 8), "b,f,z,x,y"), 4, 3, (1, 2, 2), conv_mode="same", stride=(1, 2, 1),
                          dilation=(1, 1, 3), groups=2, **QUIET),
        lambda b: nm.Conv(image(b), 3, 2, w=[RNG.normal(size=(3, 2, 2, 2)), "const"], **QUIET),
        shared],
    "GRU": [
        lambda b: nm.GRU(vector(b), vector(b, 3), 3, **QUIET),
        lambda b: nm.GRU(image(b), nm.Input((1, 3, 1, 7), "b,f,x,y", **QUIET), 3, "prelu", **QUIET),
        lambda b: nm.GRU(vector(b), vector(b, 2), 2, "maxout 2", w=[np.ones((6, 8)), "const"], b=np.arange(8), **QUIET)],
    "LSTM": [
        lambda b: nm.LSTM(vector(b), vector(b, 6), 3, **QUIET),
        lambda b: nm.LSTM(image(b), image(b, 4), 2, "prelu", **QUIET),
        lambda b: nm.LSTM(vector(b), nm.LSTM(vector(b), vector(b), 2, name="first", **QUIET), 2, "maxout 2", **QUIET)],
    "Pool": [
        lambda b: nm.Pool(image(b, sizes=(6, 9)), (2, 3), **QUIET),
        lambda b: nm.Pool(image(b, sizes=(7, 9)), 3, stride=(2, 1), mode="average", **QUIET),
        lambda b: nm.Pool(image(b, 1, (4,), "b,f,x"), 2, mode="sum", **QUIET)],
    "UpConv": [
        lambda b: nm.UpConv(image(b), 3, (2, 3), **QUIET),
        lambda b: nm.UpConv(image(b, 2, (2, 3, 2), "b,f,z,x,y"), 2, (1, 2, 2), "prelu", identity_init=False,
                            batch_normalisation="train", **QUIET),
        lambda b: nm.UpConv(image(b), 3, 2, filter_shape=(4, 2), conv_mode="same", **QUIET),
        lambda b: (code := nm.Conv(image(b), 3, 2, **QUIET)).make_dual(code, True, name="upconv", **QUIET),
        lambda b: nm.UpConv(image(b), 3, (1, 2), filter_shape=3, dropout_rate=0.5, **QUIET),
        lambda b: nm.UpConv(image(b, 1, (3,), "b,f,x"), 2, 3, filter_shape=5, conv_mode="full", **QUIET)],
    "Upsample": [
        lambda b: nm.Upsample(image(b), (2, 3), **QUIET), lambda b: nm.Upsample(image(b), (1, 2), "linear", **QUIET),
        lambda b: nm.Upsample(image(b, 1, (2, 3, 2), "b,f,z,x,y"), 2, "linear", **QUIET)],
    "FragmentsToDense": [
        lambda b: nm.FragmentsToDense(fragments(), **QUIET),
        lambda b: nm.FragmentsToDense(nm.Pool(one((5, 7)), (2, 1), mfp=True, **QUIET), **QUIET)],
    "Crop": [lambda b: nm.Crop(image(b), (2, 0), **QUIET), lambda b: nm.Crop(image(b, 1, (4,), "b,f,x"), 1, **QUIET)],
    "Pad": [lambda b: nm.Pad(image(b), (2, 0), 1.5, **QUIET), lambda b: nm.Pad(image(b), 1, **QUIET)],
    "GroupNorm": [lambda b: nm.GroupNorm(image(b, 4), 2, "prelu", **QUIET),
                  lambda b: nm.GroupNorm(vector(b), 1, affine=False, **QUIET),
                  lambda b: nm.GroupNorm(image(b, 2, (3, 2, 3), "b,f,z,x,y"), 1, eps=0.1, b=np.ones(2),
                                         gamma=[np.ones(2), "const"], **QUIET)],
    "InstanceNorm": [lambda b: nm.InstanceNorm(image(b), "relu", **QUIET),
                     lambda b: nm.InstanceNorm(image(b, 1, (4,), "b,f,x"), affine=False, **QUIET)],
    "LayerNorm": [lambda b: nm.LayerNorm(image(b), "elu", **QUIET), lambda b: nm.LayerNorm(vector(b), "maxout 2", **QUIET),
                  lambda b: nm.LayerNorm(nm.Input((b, 3, 4), "b,x,f", **QUIET), affine=False, **QUIET)],
    "Activation": [lambda b: nm.Activation(image(b), **QUIET), lambda b: nm.Activation(vector(b), "prelu", **QUIET),
                   lambda b: nm.Activation(nm.Input((b, 3, 4), "b,x,f", **QUIET), "maxout 2", **QUIET)],
    "SqueezeExcitation": [lambda b: nm.SqueezeExcitation(image(b, 4), 2, **QUIET),
                          lambda b: nm.SqueezeExcitation(image(b), w=[np.ones((2, 1)), "const"], **QUIET)],
    "ScanN": [lambda b: loop(b)[0].parent, lambda b: counter(b, n_steps=11, last_only=True).parent],
    "ScanOut": [lambda b: loop(b)[0], lambda b: loop(b, sizes=(2,), scan=dict(last_only=True), activation_func="prelu")[1],
                lambda b: loop(b, n=10, scan=dict(unroll_scan=False), activation_func="maxout 2")[1],
                lambda b: counter(b, n_steps=1)],
    "Softmax": [probabilities, lambda b: probabilities(b, n_indep=2),
                lambda b: nm.Softmax(nm.Perceptron(vector(b), 3, "lin", **QUIET), n_class=3, **QUIET)],
    "MultinoulliNLL": [nll, lambda b: nll(b, 2), lambda b: nll(b, sparse=False), lambda b: nll(b, extras=True),
                       lambda b: nll(b, class_weights=[1, 2, 0.5, 1], weakness=0.2),
                       lambda b: nll(b, class_weights=np.arange(4.0))],
    **{cls.__name__: class_loss(cls, **kwargs) for cls, kwargs in (
        (nm.BlockedMultinoulliNLL, dict(blocking_factor=0.7)), (nm.FocalLoss, dict(gamma=1.5)),
        (nm.TverskyLoss, dict(alpha=0.2, beta=0.9, gamma=2, smooth=1)), (nm.DiceLoss, dict(smooth=1)),
        (nm.DiceCELoss, dict(ce_weight=0.3, dice_weight=2)), (nm.LovaszSoftmax, {}))},
    "BinaryNLL": [pair(nm.BinaryNLL), pair(nm.BinaryNLL, True), samples_axis(nm.BinaryNLL, 1)],
    "SquaredLoss": [pair(nm.SquaredLoss), pair(nm.SquaredLoss, 0.3, 2), samples_axis(nm.SquaredLoss, 1)],
    "AbsLoss": [pair(nm.AbsLoss), pair(nm.AbsLoss, margin=0.3, scale_correction=2)],
    "GaussianNLL": [pair(nm.GaussianNLL, n=3), pair(nm.GaussianNLL, True, n=3), samples_axis(nm.GaussianNLL, 2)],
    "BetaNLL": [pair(nm.BetaNLL, n=3), samples_axis(nm.BetaNLL, 2)],
    "EuclideanDistance": [pair(nm.EuclideanDistance), pair(nm.EuclideanDistance, tags="b,x,f,y")],
    "RampLoss": [pair(nm.RampLoss), pair(nm.RampLoss, margin=0.2)],
    "OneHot": [lambda b: nm.OneHot(ids(b), 3, **QUIET),
               lambda b: nm.OneHot(nm.Input((b, 1, 3), "b,x,f", dtype="int16", **QUIET), 3, axis="x", **QUIET)],
    "_Sobel": [lambda b: _Sobel(image(b)), lambda b: _Sobel(ids(b, (2, 3, 4), "b,f,z,x,y"))],
    "SignedDistance": [lambda b: nm.SignedDistance(ids(b), 2, **QUIET),
                       lambda b: nm.SignedDistance(ids(b), 3, (2.5, 1), scale=4, **QUIET)],
    "BoundaryLoss": [pair(nm.BoundaryLoss), pair(nm.BoundaryLoss, class_weights=[0, 1]),
                     lambda b: nm.BoundaryLoss(image(b), nm.SignedDistance(ids(b, (6, 7)), 2, **QUIET), nm.Input(
                         (2,), "f", **QUIET), nm.Input((b, 6, 7), "b,x,y", **QUIET), **QUIET)],
    "Affinities": [lambda b: nm.Affinities(ids(b), **QUIET),
                   lambda b: nm.Affinities(ids(b, (2, 3, 4), "b,f,z,x,y"), np.array([[-1, 0, 2], [0, -9, 0]]), **QUIET)],
    "MalisNLL": [
        malis, lambda b: malis(b, unrestrict_neg=False, class_weights=[1, 3], example_weights=nm.Input((b, 3, 4), "b,x,y",
                                                                                                       **QUIET)),
        lambda b: malis(b, (2, 3, 4), "b,f,z,x,y", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 2, 1]], class_weights=np.ones(4))],
    "AffinityLoss": [pair(nm.AffinityLoss), pair(nm.AffinityLoss, False, class_weights=np.array([1, 3])),
                     lambda b: nm.AffinityLoss(probabilities(b, n_indep=2), nm.Affinities(ids(b, (2, 3)), [[1, 0], [0, 2]],
                                                                                          **QUIET), **QUIET)],
    "AggregateLoss": [
        lambda b: nm.AggregateLoss(nll(b), **QUIET),
        lambda b: nm.AggregateLoss([nll(b), vector(b)], [0.3, 0.7], **QUIET),
        lambda b: nm.AggregateLoss([nll(b), vector(b)], np.array([0.3, 0.7]), **QUIET)],
    "Classification": [
        lambda b: Classification(probabilities(b, n_indep=2), **QUIET),
        lambda b: Classification(nm.Conv(image(b), 3, 2, activation_func="sig", **QUIET), **QUIET),
        lambda b: Classification(image(b, 4), n_class=2, n_indep=2, **QUIET)],
    "_Errors": [
        lambda b: nm.Errors(p := probabilities(b), target(p, 1), target_is_sparse=True, **QUIET),
        lambda b: nm.Errors(p := probabilities(b, n_indep=2), target(p, 4, "float32"), **QUIET)],
}
MADE_FIRST = {"_Errors": Classification}  # class -> that of the node which the function that makes both takes back with it
BATCH_OF_ONE = {"FragmentsToDense"}  # max-fragment pooling takes one image at a time
MFP = {"Conv": [lambda b: fragments(), lambda b: nm.Conv(one((11, 7)), 2, 2, (2, 1), stride=2, mfp=True, **QUIET)],
       "Pool": [lambda b: nm.Pool(one((5, 8)), (2, 3), mfp=True, **QUIET)],
       "Add": [lambda b: nm.Add(f := fragments(), f, **QUIET)],
       "MultMerge": [lambda b: nm.MultMerge(f := fragments(), f, **QUIET)],
       "Concat": [lambda b: nm.Concat([f := fragments(), f], **QUIET)]}

ALL = [(name, make, batches) for samples, given in ((SAMPLES, None), (MFP, (1,))) for name, makes in samples.items()
       for make in makes for batches in [(1,) if name in BATCH_OF_ONE else given or (1, 2, 3)]]
samples = pytest.mark.parametrize(("name", "make", "batches"), ALL, ids=[
    f"{name}{sum(n == name for n, _, _ in ALL[:i])}" for i, (name, _, _) in enumerate(ALL)])
classes = pytest.mark.parametrize("name", CLASSES)


def build(make, batch):
    """The sample as the last node of a new model."""
    nm.model_manager.newmodel(None)
    return make(batch)


def arrays_for(node, batch=2, seed=0):
    """Random arrays for the sources of a node."""
    rng = np.random.default_rng(seed)
    arrays = []
    for s in node.input_nodes:
        shape = [batch if n is None else n for n in s.shape]
        dtype = s.output.dtype
        arrays.append(rng.integers(0, 2, shape).astype(dtype) if "int" in dtype else rng.random(shape).astype(dtype))
    return arrays


# -- the list is complete -------------------------------------------------------------------------------
@classes
def test_every_class_has_samples(name):
    """The registry against the list of samples."""
    assert name in SAMPLES or name in BASES, f"add samples of {name} to SAMPLES in {__file__}"


@samples
def test_samples_are_of_their_class(name, make, batches):
    """The list of samples against the registry."""
    assert type(build(make, batches[0])) is CLASSES[name]


# -- shapes and costs -----------------------------------------------------------------------------------
@samples
def test_declared_shape_is_real(name, make, batches):
    """Sizes that the node declares against those of its value, for a given batch size and for an open one."""
    nodes = [(build(make, b), b) for b in batches]
    if len(batches) > 1:
        nodes += [(build(make, None), b) for b in batches]
    for node, batch in nodes:
        for mode in ("predict", "train"):
            value = node(*arrays_for(node, batch), mode=mode)
            wanted = [batch if n is None else n for n in node.shape]
            assert list(value.shape) == wanted
            assert str(value.dtype) == node.output.dtype
            if node.shape.hastag("b") and any(n.shape.hastag("b") for n in node.input_nodes[:1]):
                assert value.shape[node.shape.tag2index("b")] == batch * len(node.shape.mfp_offsets)


@samples
def test_cost(name, make, batches):
    """computational_cost is an integer from 0 on, and an open batch size counts as 1."""
    node = build(make, batches[0])
    assert type(node.computational_cost) is int and node.computational_cost >= 0
    assert type(node.all_computational_cost) is int
    assert type(node.param_count) is int and type(node.all_params_count) is int
    if len(batches) > 1:
        assert build(make, None).computational_cost == build(make, 1).computational_cost


@samples
def test_shape_is_shared_with_nobody(name, make, batches):
    """Shapes are values: changed copies of a node's shape leave it as it is."""
    shape = build(make, batches[0]).shape
    before = repr(shape), shape.ext_repr
    shape.mfp_offsets[...] = 7
    shape.strides[...] = 7
    shape.shape.append(7)
    shape.tags.append("z")
    assert (repr(shape), shape.ext_repr) == before and (shape.mfp_offsets != 7).all() and (shape.strides != 7).all()


# -- files ----------------------------------------------------------------------------------------------
def compare_models(old, new, node):
    """Two models with the same nodes: what they print, know and compute."""
    assert new is not old and list(new.nodes) == list(old.nodes)
    for a, b in zip(old.nodes.values(), new.nodes.values()):
        assert type(a) is type(b) and a is not b
        assert repr(a) == repr(b)
        assert a.shape == b.shape and a.shape.ext_repr == b.shape.ext_repr and a.shape.padded == b.shape.padded
        assert [p.name for p in a.parents] == [p.name for p in b.parents]
        assert list(a.children) == list(b.children)
        assert (a.computational_cost, a.output.dtype) == (b.computational_cost, b.output.dtype)
        assert list(a.params) == list(b.params)
        for k, p in a.params.items():
            q = b.params[k]
            assert (p.apply_train, p.apply_reg, p.constant, p.name) == (q.apply_train, q.apply_reg, q.constant, q.name)
            assert p.get_value().dtype == q.get_value().dtype
            np.testing.assert_array_equal(p.get_value(), q.get_value())
    arrays = arrays_for(node)
    for mode in ("predict", "train"):
        torch.manual_seed(5)
        wanted = node(*arrays, mode=mode)
        torch.manual_seed(5)
        np.testing.assert_array_equal(new[node.name](*arrays, mode=mode), wanted)


def settle(model):
    """Other parameters than those of a new model: what a file must keep."""
    rng = np.random.default_rng(4)
    for n in model.nodes.values():
        for k, p in n.params.items():
            if not p.constant and k not in ("dropout_rate", "gradnet_rate", "failing_prob", "hardeasy_ratio"):
                p.set_value(rng.uniform(0.1, 0.9, p.shape) if "float" in p.dtype else rng.integers(0, 9, p.shape))


@samples
@pytest.mark.parametrize("batch", [None, 2])
def test_saved_and_loaded(name, make, batches, batch, tmp_path):
    """A loaded model against the saved one: printed forms, shapes, parameters and bit-equal values; saved again it
    gives the same file."""
    if len(batches) == 1:
        batch = 1
    node = build(make, batch)
    settle(node.model)
    node.model.save(tmp_path / "a.mdl")
    loaded = nm.model.modelload(tmp_path / "a.mdl", allow_functions=True)
    assert nm.model_manager.current is loaded
    compare_models(node.model, loaded, node)
    loaded.save(tmp_path / "b.mdl")
    (first, a), (second, b) = serialize.load(tmp_path / "a.mdl"), serialize.load(tmp_path / "b.mdl")
    assert first["designations"] == second["designations"]
    assert [e["name"] for e in first["nodes"]] == [e["name"] for e in second["nodes"]]
    assert a.keys() == b.keys()


@samples
def test_rebuilt(name, make, batches):
    """A rebuilt model against its original, which stays as it is."""
    node = build(make, batches[-1])
    settle(node.model)
    before = {k: v.tobytes() for k, v in serialize.describe(node.model)[1].items()}
    new = nm.model.rebuild_model(node.model)
    compare_models(node.model, new, node)
    for n in new.nodes.values():
        for p in n.params.values():
            if not p.constant:
                p.set_value(p.get_value() + 1)
    assert {k: v.tobytes() for k, v in serialize.describe(node.model)[1].items()} == before


# -- documentation and signature ------------------------------------------------------------------------
@pytest.mark.parametrize("name", [c for c in CLASSES if c not in BASES])
def test_docstring_states_shapes(name):
    """'Input (b, f, ...)' or 'output (...)' in the class's own docstring."""
    doc = CLASSES[name].__dict__.get("__doc__") or ""
    assert re.search(r"(?i)\b(inputs?|output)\b[^.;]*?\([^)]*[,*][^)]*\)", doc), doc


FACTORIES = ["Input_like", "split", "Errors", "SobelizedLoss", "AutoMerge", "UpConvMerge", "ResidualAdd", "Scan",
             "from_torch"]


@pytest.mark.parametrize("name", [*CLASSES, *FACTORIES])
def test_signature(name):
    """Every class and function that makes nodes takes ``name`` (a string) and ``print_repr``."""
    parameters = inspect.signature(CLASSES[name].__init__ if name in CLASSES else getattr(nm, name)).parameters
    assert isinstance(parameters["name"].default, str)
    assert isinstance(parameters["print_repr"].default, bool)
    assert not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values())


def test_public_classes():
    """All public node classes of the core are names of ``nm`` (Classification is not, by the contract)."""
    hidden = {"NeuralLayer", "Classification", "ScanN", "ScanOut"}  # the latter two: Scan
    assert {k for k in CLASSES if not k.startswith("_") and not hasattr(nm, k)} <= hidden


@samples
def test_name_is_chosen(name, make, batches):
    """A second node of the same class in a model gets the next number."""
    node = build(make, batches[0])
    again = make(batches[0])
    assert again.model is node.model and again.name != node.name
    stem = node.name.rstrip("0123456789")
    assert again.name.rstrip("0123456789") == stem
    assert node.model[again.name] is again and node.model[node.name] is node


# -- failure --------------------------------------------------------------------------------------------
class Failure(Exception):
    pass


def state(model):
    """All that building a node may leave behind."""
    return (list(model.nodes), list(model.arguments), len(model.graph), sorted(model.graph.params),
            {k: list(n.children) for k, n in model.nodes.items()})


def failing(make, batch, cls, method, monkeypatch):
    """Build the sample with ``method`` of its class failing *after* it has done its work; the model's state before the
    failing node (or what is made with it) and after it."""
    original, states = getattr(cls, method), []
    allow, first = NodeType.__call__, MADE_FIRST.get(cls.__name__, cls)

    def count(self, *args, **kwargs):
        if self is first:
            states.append(state(nm.model_manager.getmodel()))
        return allow(self, *args, **kwargs)

    def fail(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if type(self) is cls:
            raise Failure
    monkeypatch.setattr(NodeType, "__call__", count)
    monkeypatch.setattr(cls, method, fail)
    model = nm.model_manager.newmodel(None)
    with pytest.raises(Failure):
        make(batch)
    monkeypatch.undo()
    return states[-1], state(model), model


@pytest.mark.parametrize("method", ["__init__", "_make_output", "_calc_shape", "_calc_comp_cost"])
@samples
def test_failure_leaves_nothing_behind(name, make, batches, method, monkeypatch):
    """A constructor that fails, at whatever stage: nodes, names, arguments, children, parameters and the size of the
    graph are what they were, and the same sample can be built afterwards under the name that was refused."""
    before, after, model = failing(make, batches[0], CLASSES[name], method, monkeypatch)
    assert after == before
    model.reset()
    node = make(batches[0])
    assert node.model is model
    value = node(*arrays_for(node, batches[0]))
    assert list(value.shape) == node.shape.shape


@samples
def test_wrong_shape_rule_is_found(name, make, batches, monkeypatch):
    """A class that declares another shape than it computes is refused with an error that names the node."""
    cls = CLASSES[name]
    original = cls._calc_shape

    def wrong(self):
        original(self)
        if type(self) is cls:
            last = len(self.shape) - 1
            self.shape = self.shape.updateshape(last, self.shape[last] + 1)
    monkeypatch.setattr(cls, "_calc_shape", wrong)
    with pytest.raises(ValueError, match=r"declares shape .* but its output has"):
        build(make, batches[0])


INVALID = {  # arguments that each class must refuse: (error, what the message names, function of batch)
    "Input": [(ValueError, "dtype", lambda: image(1, dtype="float33")),
              (ValueError, "hardcoded_shape", lambda: image(None, hardcoded_shape=True)),
              (ValueError, "axes", lambda: nm.Input((1, 2, 3), "b,f", **QUIET))],
    "Concat": [(ValueError, "list", lambda: nm.Concat(image(1), **QUIET)),
               (ValueError, "'x'", lambda: nm.Concat([image(1), image(1, sizes=(5, 7))], **QUIET))],
    "Add": [(ValueError, "'f'", lambda: nm.Add(image(1), image(1, 3), **QUIET))],
    "FromTensor": [(TypeError, "TaggedShape", lambda: nm.FromTensor(image(1).output, (1, 2), image(1))),
                   (TypeError, "expression", lambda: nm.FromTensor(np.ones(2), image(1).shape, image(1)))],
    "ValueNode": [(ValueError, "every size", lambda: nm.ValueNode((None, 2), "b,f", **QUIET)),
                  (ValueError, "dtype", lambda: nm.ValueNode((2,), "f", dtype="int", **QUIET)),
                  (ValueError, "floating", lambda: nm.ValueNode((2,), "f", dtype="int16", apply_train=True, value=1,
                                                                   **QUIET)),
                  (ValueError, "init_kwargs", lambda: nm.ValueNode((2,), "f", apply_train=True, **QUIET)),
                  (ValueError, "'value'", lambda: nm.ValueNode((2,), "f", value=[1, 2, 3], **QUIET)),
                  (NotImplementedError, "init_kwargs", lambda: nm.ValueNode((2,), "f", init_kwargs={}, **QUIET))],
    "InitialState_like": [(ValueError, "no axis 'f'", lambda: nm.InitialState_like(nm.Input((2, 3), "b,x", **QUIET), 2,
                                                                                   **QUIET)),
                          (ValueError, "override_f", lambda: nm.InitialState_like(vector(1), 0, **QUIET)),
                          (ValueError, "floating", lambda: nm.InitialState_like(vector(1), 2, "int16", **QUIET))],
    "MultMerge": [(ValueError, "'f'", lambda: nm.MultMerge(image(1), image(1, 3), **QUIET))],
    "Reshape": [(ValueError, "tags", lambda: nm.Reshape(image(1), (1, 84), **QUIET)),
                (ValueError, "84", lambda: nm.Reshape(image(1), (1, 85), "b,f", **QUIET)),
                (ValueError, "84", lambda: nm.Reshape(image(1), (None, 5), "b,f", **QUIET)),
                (ValueError, "one size", lambda: nm.Reshape(image(1), (None, None), "b,f", **QUIET)),
                (ValueError, "one size", lambda: nm.Reshape(image(None), (1, 84), "b,f", **QUIET)),
                (ValueError, "do not give", lambda: nm.Reshape(v := vector(1), v.shape, "b,f", **QUIET)),
                (ValueError, "fragments", lambda: nm.Reshape(fragments(), (None,), "f", **QUIET))],
    "LRN": [(ValueError, "mode", lambda: nm.LRN(image(1), 3, "feature", **QUIET)),
            (ValueError, "odd", lambda: nm.LRN(image(1), 2, **QUIET)),
            (ValueError, "needs 2 values", lambda: nm.LRN(image(1), (3, 3, 3), **QUIET)),
            (NotImplementedError, "b, f and", lambda: nm.LRN(vector(1), 3, **QUIET))],
    "FaithlessMerge": [(ValueError, "failing_prob", lambda: nm.FaithlessMerge(image(1), image(1), failing_prob=2, **QUIET)),
                       (ValueError, "'x'", lambda: nm.FaithlessMerge(image(1), one((5, 7)), **QUIET))],
    "GaussianRV": [(ValueError, "'f'", lambda: nm.GaussianRV(image(1), image(1, 3), **QUIET)),
                   (ValueError, "n_samples", lambda: nm.GaussianRV(image(1), image(1), -1, **QUIET)),
                   (ValueError, "axis b", lambda: nm.GaussianRV(v := nm.Input((2,), "f", **QUIET), v, 2, **QUIET))],
    "GaussianAEVBPrior": [(ValueError, "'f'", lambda: nm.GaussianAEVBPrior(image(1), image(1, 3), **QUIET))],
    "TorchModule": [(TypeError, "must be a torch.nn.Module", lambda: nm.TorchModule(image(1), "Conv2d", **QUIET)),
                    (TypeError, "it made Parameter", lambda: nm.TorchModule(image(1), torch.nn.Parameter, **QUIET)),
                    (TypeError, "is one", lambda: nm.TorchModule(image(1), torch.nn.ReLU(), (True,), **QUIET)),
                    (ValueError, "axis 'z'", lambda: nm.TorchModule(image(1), torch.nn.ReLU, tags="b,f,z,x", **QUIET)),
                    (ValueError, "together with fov", lambda: nm.TorchModule(image(1), torch.nn.ReLU, grid=[1], **QUIET)),
                    (ValueError, "one value for each", lambda: nm.TorchModule(image(1), torch.nn.ReLU, fov=[1], **QUIET)),
                    (ValueError, "be computed", lambda: nm.TorchModule(image(1), torch.nn.Conv2d, (3, 2, 1), **QUIET)),
                    (ValueError, "say tags", lambda: nm.TorchModule(image(1), torch.nn.Flatten, **QUIET)),
                    (ValueError, "Run the module", lambda: nm.TorchModule(vector(1), torch.nn.LazyLinear, (2,), **QUIET)),
                    (ValueError, "max-fragment", lambda: nm.TorchModule(fragments(), torch.nn.MaxPool2d, (2,), **QUIET))],
    "ApplyFunc": [(TypeError, "functor", lambda: nm.ApplyFunc(image(1), "tanh"))],
    "Perceptron": [(ValueError, "n_f", lambda: nm.Perceptron(vector(1), 3, "maxout 2", **QUIET)),
                   (ValueError, "mean", lambda: nm.Perceptron(vector(1), 2, mean=np.ones(2), **QUIET)),
                   (ValueError, "'w'", lambda: nm.Perceptron(vector(1), 2, w=np.ones((2, 4)), **QUIET)),
                   (NotImplementedError, "tanhh", lambda: nm.Perceptron(vector(1), 2, "tanhh", **QUIET))],
    "Conv": [(ValueError, "axis 'x'", lambda: nm.Conv(image(1), 2, 2, 2, **QUIET)),
             (ValueError, "filter", lambda: nm.Conv(image(1), 2, (1, 2, 3), **QUIET)),
             (ValueError, "stride 2: the last window would be incomplete. Nearest length that fits here: 5",
              lambda: nm.Conv(image(1), 2, 3, conv_mode="same", stride=(2, 1), **QUIET)),
             (ValueError, "dilation 3: it needs at least 7", lambda: nm.Conv(image(1), 2, 3, dilation=3, **QUIET)),
             (ValueError, "groups=2", lambda: nm.Conv(image(1), 3, 2, groups=2, **QUIET)),
             (ValueError, "groups", lambda: nm.Conv(image(1), 2, 2, groups=0, **QUIET)),
             (ValueError, "batch size 1", lambda: nm.Conv(image(2), 2, 2, (2, 1), mfp=True, **QUIET)),
             (NotImplementedError, "b, f and", lambda: nm.Conv(vector(1), 2, 1, **QUIET))],
    "GRU": [(ValueError, "memory of 3 features, 'input1'", lambda: nm.GRU(vector(1), vector(1), 3, **QUIET)),
            (ValueError, "with Scan", lambda: nm.GRU(nm.Input((2, 1, 3), "r,b,f", **QUIET), vector(1), 4, **QUIET)),
            (ValueError, "the same axes", lambda: nm.GRU(image(1), vector(1), 4, **QUIET)),
            (ValueError, "cannot be stretched", lambda: nm.GRU(image(1), image(1, 3, (6, 2)), 3, **QUIET)),
            (ValueError, "cannot be stretched", lambda: nm.GRU(vector(1), vector(2), 4, **QUIET)),
            (ValueError, "n_f", lambda: nm.GRU(vector(1), vector(1), 0, **QUIET)),
            (ValueError, "'b'", lambda: nm.GRU(vector(1), vector(1), 4, b=np.ones(4), **QUIET)),
            (TypeError, "must be a node", lambda: nm.GRU(vector(1), None, 4, **QUIET)),
            *[(NotImplementedError, next(iter(k)), lambda k=k: nm.GRU(vector(1), vector(1), 4, **k, **QUIET)) for k in (
                dict(flatten=True), dict(batch_normalisation="train"), dict(dropout_rate=0.5), dict(gamma=np.ones(4)),
                dict(mean=0), dict(std=np.ones(4)), dict(gradnet_mode=True))]],
    "LSTM": [(ValueError, "memory of 8 features, 'input1'", lambda: nm.LSTM(vector(1), vector(1), 4, **QUIET)),
             (NotImplementedError, "dropout_rate", lambda: nm.LSTM(vector(1), vector(1), 2, dropout_rate=0.1, **QUIET))],
    "Pool": [(ValueError, "axis 'y'", lambda: nm.Pool(image(1), 2, **QUIET)),
             (ValueError, "mode", lambda: nm.Pool(image(1), 1, mode="min", **QUIET))],
    "UpConv": [(ValueError, "max-fragment", lambda: nm.UpConv(fragments(), 2, 2, **QUIET)),
               (ValueError, "filter_shape (1, 1) must be", lambda: nm.UpConv(image(1), 2, 2, filter_shape=1, **QUIET)),
               (ValueError, "even on every axis", lambda: nm.UpConv(image(1), 2, 2, filter_shape=3, conv_mode="same",
                                                                    **QUIET)),
               (ValueError, "conv_mode", lambda: nm.UpConv(image(1), 2, 2, conv_mode="sames", **QUIET)),
               (ValueError, "too short for upsampling by 2", lambda: nm.UpConv(image(1), 2, 2, filter_shape=16, **QUIET))],
    "Upsample": [(ValueError, "max-fragment", lambda: nm.Upsample(fragments(), 2, **QUIET)),
                 (ValueError, "mode", lambda: nm.Upsample(image(1), 2, "cubic", **QUIET)),
                 (ValueError, "factor", lambda: nm.Upsample(image(1), 0, **QUIET))],
    "FragmentsToDense": [(ValueError, "fragments", lambda: nm.FragmentsToDense(nm.Pool(one((6, 6)), 2, **QUIET),
                                                                               **QUIET))],
    "Crop": [(ValueError, "'x'", lambda: nm.Crop(image(1), 3, **QUIET))],
    "Pad": [(ValueError, "pad", lambda: nm.Pad(image(1), -1, **QUIET))],
    "GroupNorm": [(ValueError, "1, 2, 4", lambda: nm.GroupNorm(image(1, 4), 3, **QUIET)),
                  (ValueError, "a single value", lambda: nm.GroupNorm(vector(1), 4, **QUIET)),
                  (ValueError, "axes b, f", lambda: nm.GroupNorm(nm.Input((1, 2, 3), "b,x,f", **QUIET), 1, **QUIET)),
                  (ValueError, "eps", lambda: nm.GroupNorm(image(1), 1, eps=0, **QUIET))],
    "InstanceNorm": [(ValueError, "a single value", lambda: nm.InstanceNorm(image(1, 2, (1, 1)), **QUIET)),
                     (ValueError, "affine", lambda: nm.InstanceNorm(image(1), "prelu", affine=False, **QUIET)),
                     (ValueError, "affine", lambda: nm.InstanceNorm(image(1), affine=False, b=np.ones(2), **QUIET))],
    "LayerNorm": [(ValueError, "single feature", lambda: nm.LayerNorm(image(1, 1), **QUIET)),
                  (NotImplementedError, "relu", lambda: nm.LayerNorm(image(1), "rellu", **QUIET))],
    "Activation": [(ValueError, "'prelu' alone", lambda: nm.Activation(image(1), b=np.ones(2), **QUIET)),
                   (NotImplementedError, "leaky_relu", lambda: nm.Activation(image(1), "leaky_relu 2", **QUIET))],
    "SqueezeExcitation": [(ValueError, "axes b, f", lambda: nm.SqueezeExcitation(vector(1), **QUIET)),
                          (TypeError, "reduction", lambda: nm.SqueezeExcitation(image(1), 0.5, **QUIET)),
                          (ValueError, "'w2'", lambda: nm.SqueezeExcitation(image(1), w2=np.ones(2), **QUIET))],
    "ScanN": [
        (ValueError, "n_steps must be given", lambda: counter(1)),
        (ValueError, "n_steps", lambda: counter(1, n_steps=0)),
        (ValueError, "must agree, got n_steps=4", lambda: loop(1, scan=dict(n_steps=4))),
        (ValueError, "at least one", lambda: nm.Scan(vector(1), [], n_steps=2, **QUIET)),
        (ValueError, "as many nodes, got ['input1'] and ['input', 'input']", lambda: nm.Scan(
            [x := vector(1), x], vector(1), n_steps=2, **QUIET)),
        (ValueError, "as many nodes, got [] and ['first']", lambda: nm.Scan(
            nm.Add(x := vector(1), x, **QUIET), x, in_iterate_0=nm.Input((1, 4), "b,f", name="first", **QUIET), n_steps=2,
            **QUIET)),
        (ValueError, "'input' [(2,r), (1,b)] has an axis r already", lambda: nm.Scan(
            x := nm.Input((2, 1), "r,b", **QUIET), x, n_steps=2, **QUIET)),
        (ValueError, "'dot' [(1,b), (3,f)] cannot take the place of the memory 'input' [(1,b), (4,f)]", lambda: nm.Scan(
            nm.Perceptron(x := vector(1), 3, **QUIET), x, n_steps=2, **QUIET)),
        (ValueError, "'sequence' [(1,b), (3,r), (4,f)] must have axis r first", lambda: nm.Scan(
            nm.Add(x := vector(1), y := vector(1), **QUIET), x, None, nm.Input((1, 3, 4), "b,r,f", name="sequence", **QUIET),
            y, **QUIET)),
        (ValueError, "does not depend on 'input1'", lambda: nm.Scan(
            nm.Add(x := vector(1), x, **QUIET), [x, vector(1)], [x, x], n_steps=2, **QUIET)),
        (ValueError, "'node' is the same value as 'input'", lambda: nm.Scan(
            nm.Add(x := vector(1), y := Node(x), **QUIET), [x, y], [x, y], n_steps=2, **QUIET)),
        (ValueError, "cannot be repeated: it turns (2, 4) torch.float32 into (4, 4)", lambda: nm.Scan(
            nm.Concat([x := vector(1), x], axis="b", **QUIET), x, n_steps=2, **QUIET)),
        (TypeError, "must be nodes", lambda: nm.Scan(vector(1), np.zeros((1, 4)), n_steps=2, **QUIET)),
        (TypeError, "must be a node", lambda: nm.Scan(nm.Add(x := vector(1), x, **QUIET), x, [None], n_steps=2, **QUIET))],
    "ScanOut": [(TypeError, "loop of a Scan", lambda: CLASSES["ScanOut"](vector(1), **QUIET)),
                (ValueError, "index 2", lambda: CLASSES["ScanOut"](loop(1)[0].parent, 2, **QUIET))],
    "Softmax": [(ValueError, "activation", lambda: nm.Softmax(nm.Conv(image(1), 2, 2, **QUIET), **QUIET)),
                (ValueError, "n_indep of Softmax 'softmax' must be at least 1", lambda: probabilities(1, n_indep=0)),
                (ValueError, "n_class", lambda: probabilities(1, n_class=3))],
    "MultinoulliNLL": [(ValueError, "Softmax", lambda: nm.MultinoulliNLL(vector(1), vector(1), **QUIET)),
                       (ValueError, "class_weights", lambda: nll(1, class_weights=[1, 2])),
                       (ValueError, "class_weights must be a list of 4 numbers", lambda: nll(1, class_weights="equal")),
                       (ValueError, "class_weights must not be negative", lambda: nll(1, class_weights=[1, 1, -1, 1])),
                       (TypeError, "'nll': parent 2 of 2", lambda: nm.MultinoulliNLL(probabilities(1), None, **QUIET)),
                       (TypeError, "example_weights must be a node", lambda: nll(1, example_weights=np.ones((1, 6, 7)))),
                       (ValueError, "weakness", lambda: nll(1, weakness=1)),
                       (ValueError, "weakness must be a number", lambda: nll(1, weakness="0.1")),
                       (ValueError, "mask_class_labeled", lambda: nll(1, mask_class_labeled=vector(2))),
                       (ValueError, "example_weights", lambda: nll(1, example_weights=vector(2)))],
    "AggregateLoss": [(ValueError, "mixing_weights", lambda: nm.AggregateLoss([nll(1), vector(1)], [1], **QUIET)),
                      (ValueError, "list of 2 numbers", lambda: nm.AggregateLoss([nll(1), vector(1)], [1, np.nan], **QUIET)),
                      (ValueError, "list of 2 numbers", lambda: nm.AggregateLoss([nll(1), vector(1)], 1, **QUIET)),
                      (TypeError, "'total_loss': parent 2 of 2", lambda: nm.AggregateLoss([nll(1), 1], **QUIET)),
                      (ValueError, "empty", lambda: nm.AggregateLoss([], **QUIET))],
    "BlockedMultinoulliNLL": [(ValueError, "blocking_factor", lambda: nll(1, cls=nm.BlockedMultinoulliNLL,
                                                                          blocking_factor=2))],
    "FocalLoss": [(ValueError, "gamma", lambda: nll(1, cls=nm.FocalLoss, gamma=-1))],
    "TverskyLoss": [(ValueError, "alpha", lambda: nll(1, cls=nm.TverskyLoss, alpha=-1)),
                    (ValueError, "gamma", lambda: nll(1, cls=nm.TverskyLoss, gamma=0)),
                    (ValueError, "class_weights", lambda: nll(1, cls=nm.TverskyLoss, class_weights=[1]))],
    "DiceLoss": [(ValueError, "smooth", lambda: nll(1, cls=nm.DiceLoss, smooth=0)),
                 (ValueError, "got Input 'input'", lambda: nm.DiceLoss(vector(1), vector(1), **QUIET)),
                 (TypeError, "example_weights", lambda: nll(1, cls=nm.DiceLoss, example_weights=np.ones((1, 2, 3))))],
    "DiceCELoss": [(ValueError, "ce_weight", lambda: nll(1, cls=nm.DiceCELoss, ce_weight=-1))],
    "LovaszSoftmax": [(ValueError, "override_f=1", lambda: nm.LovaszSoftmax(
        p := probabilities(1), target(p, 2), target_is_sparse=True, **QUIET))],
    "BinaryNLL": [(ValueError, "to go with 'input'", lambda: nm.BinaryNLL(image(1), image(1, 3), **QUIET)),
                  (ValueError, "without axis s", lambda: nm.BinaryNLL(nm.Input((1, 3, 2), "b,s,f", **QUIET), vector(1),
                                                                        **QUIET))],
    "SquaredLoss": [(ValueError, "margin", lambda: pair(nm.SquaredLoss, -1)(1)),
                    (ValueError, "axis f is needed", lambda: nm.SquaredLoss(nm.Input((1, 2), "b,x", **QUIET), vector(1),
                                                                              **QUIET))],
    "AbsLoss": [(ValueError, "'input1'", lambda: nm.AbsLoss(image(1), vector(1), **QUIET))],
    "GaussianNLL": [(ValueError, "'input1'", lambda: nm.GaussianNLL(image(1), image(1, 3), image(1), **QUIET)),
                    (ValueError, "'input2'", lambda: nm.GaussianNLL(image(1), image(1), image(1, 3), **QUIET))],
    "BetaNLL": [(ValueError, "'input1'", lambda: nm.BetaNLL(image(1), image(1, 3), image(1), **QUIET))],
    "EuclideanDistance": [(ValueError, "'input1'", lambda: nm.EuclideanDistance(image(1), image(1, 3), **QUIET))],
    "RampLoss": [(ValueError, "'input1'", lambda: nm.RampLoss(image(1), image(1, 3), **QUIET))],
    "OneHot": [(ValueError, "size 1 on axis f", lambda: nm.OneHot(image(1), 3, **QUIET)),
               (ValueError, "n_class", lambda: nm.OneHot(ids(1), 0, **QUIET)),
               (TypeError, "n_class", lambda: nm.OneHot(ids(1), "3", **QUIET))],
    "_Sobel": [(ValueError, "spatial axis", lambda: _Sobel(vector(1)))],
    "SignedDistance": [(ValueError, "spacing", lambda: nm.SignedDistance(ids(1), 2, [1, 2, 3], **QUIET)),
                       (ValueError, "spacing", lambda: nm.SignedDistance(ids(1), 2, [1, 0], **QUIET)),
                       (ValueError, "size 1", lambda: nm.SignedDistance(image(1), 2, **QUIET)),
                       (ValueError, "scale", lambda: nm.SignedDistance(ids(1), 2, scale=0, **QUIET))],
    "BoundaryLoss": [(ValueError, "class_weights", lambda: pair(nm.BoundaryLoss, class_weights=[1])(1)),
                     (TypeError, "example_weights", lambda: pair(nm.BoundaryLoss, example_weights=[1])(1)),
                     (ValueError, "'input1'", lambda: nm.BoundaryLoss(image(1), image(1, 3), **QUIET))],
    "Affinities": [(ValueError, "nhood", lambda: nm.Affinities(ids(1), [], **QUIET)),
                   (ValueError, "nhood", lambda: nm.Affinities(ids(1), [[1, 0, 0]], **QUIET)),
                   (ValueError, "nhood", lambda: nm.Affinities(ids(1), [[0, 0]], **QUIET)),
                   (ValueError, "nhood", lambda: nm.Affinities(ids(1), [[0.5, 0]], **QUIET)),
                   (ValueError, "size 1", lambda: nm.Affinities(image(1), **QUIET))],
    "AffinityLoss": [(ValueError, "2 (not", lambda: nm.AffinityLoss(probabilities(1), ids(1, (2, 3)), **QUIET)),
                     (ValueError, "'input1'", lambda: nm.AffinityLoss(image(1), ids(1, (6, 7)), **QUIET)),
                     (ValueError, "example_weights", lambda: pair(nm.AffinityLoss, example_weights=vector(1))(1))],
    "MalisNLL": [(ValueError, "must be a Softmax", lambda: nm.MalisNLL(image(1), image(1), ids(1), [[1, 0]], **QUIET)),
                 (ValueError, "must be a Softmax", lambda: nm.MalisNLL(nm.Softmax(image(1, 3), **QUIET), image(1), ids(1),
                                                                       [[1, 0]], **QUIET)),
                 (ValueError, "2 blocks, but nhood has 1 edges", lambda: nm.MalisNLL(
                     nm.Softmax(image(1, 4), n_indep=2, **QUIET), image(1), ids(1), [[1, 0]], **QUIET)),
                 (ValueError, "'input1' has shape", lambda: nm.MalisNLL(nm.Softmax(image(1), **QUIET), image(1), ids(1),
                                                                        [[1, 0]], **QUIET)),
                 (ValueError, "override_f=1", lambda: nm.MalisNLL(nm.Softmax(image(1), **QUIET), image(1, 1), image(1),
                                                                  [[1, 0]], **QUIET)),
                 (ValueError, "nhood must be", lambda: malis(1, nhood=[[1], [2]])),
                 (ValueError, "axes b, f and two or three", lambda: malis(1, (3,), "b,f,x", [[1], [2]])),
                 (ValueError, "class_weights", lambda: malis(1, class_weights=[1, 1, 1])),
                 (TypeError, "example_weights", lambda: malis(1, example_weights=[1]))],
    "Classification": [(ValueError, "n_class and n_indep", lambda: Classification(image(1), **QUIET))],
    "_Errors": [(TypeError, "Errors 'errors': parent 2 of 2", lambda: nm.Errors(probabilities(1), None, True, **QUIET)),
                (ValueError, "override_f=1", lambda: nm.Errors(p := probabilities(1), target(p, 2),
                                                               target_is_sparse=True, **QUIET))],
}


@pytest.mark.parametrize(("name", "error", "message", "make"), [(k, *v) for k, vs in INVALID.items() for v in vs])
def test_invalid_arguments(name, error, message, make, monkeypatch):
    """Wrong arguments raise an error that names them, and leave nothing behind."""
    cls, states = CLASSES[name], []
    allow = NodeType.__call__

    def count(self, *args, **kwargs):
        states.append((self, state(nm.model_manager.getmodel())))
        return allow(self, *args, **kwargs)
    monkeypatch.setattr(NodeType, "__call__", count)
    model = nm.model_manager.newmodel(None)
    with pytest.raises(error, match=re.escape(message)):
        make()
    assert states[-1][0] is cls
    before, = [s for c, s in states if c is MADE_FIRST.get(name, cls)][-1:]
    assert state(model) == before


def test_every_class_refuses_something():
    """The registry against the list of invalid arguments."""
    assert SAMPLES.keys() - INVALID.keys() <= {"Node"}
