"""Networks from the literature, each in one call: from the input node to the class scores.

Every function takes the node of the raw image (b, f, *L) and returns the last node before the softmax, (b, n_class, *out);
:func:`classifier` makes a model of it that can be trained::

    raw = nm.Input((1, 1, 100, 100, 100), "b,f,z,x,y", name="raw")
    model = nm.networks.classifier(nm.networks.unet(raw, n_class=2))

All work in one, two or three dimensions: as many as ``raw`` has. Patches that do not fit are refused with the nearest one
that does. Common arguments:

``n_class``: number of classes. ``n_f``: features, one number per level (from fine to coarse). ``filter_shape``,
``pool_shape``: one number, one per spatial axis, or a list of such, one per level. ``conv_mode``: 'valid', or 'same' for
an output as large as the input, which sees zeros at its border. ``activation_func``: as of the layers. ``norm``: None,
'batch', 'instance', 'group' (of 8 features, or of what divides their number) or 'layer', before each activation.

>>> from elektronn2 import neuromancer as nm
>>> m = nm.model_manager.newmodel(None)
>>> raw = nm.Input((1, 1, 70, 70), 'b,f,x,y', name='raw', print_repr=False)
>>> nm.networks.unet(raw, n_f=(8, 16, 32), print_repr=False)
Traceback (most recent call last):
...
ValueError: unet: the patch [70, 70] of 'raw' does not fit the layers. The nearest that fits is [68, 68].
"""
from dataclasses import dataclass, replace
from math import gcd

import numpy as np

from elektronn2.neuromancer import init
from elektronn2.neuromancer.loss import AggregateLoss, Errors, MultinoulliNLL, Softmax
from elektronn2.neuromancer.manager import model_manager
from elektronn2.neuromancer.neural import Conv, UpConvMerge
from elektronn2.neuromancer.node import all_or_nothing
from elektronn2.neuromancer.node_basic import Input, Input_like
from elektronn2.neuromancer.normalisation import GroupNorm, InstanceNorm, LayerNorm
from elektronn2.neuromancer.resampling import FragmentsToDense, Pool
from elektronn2.neuromancer.residual import ResidualAdd
from elektronn2.utils.cnncalculator import cnncalculator, nearest_size
from elektronn2.utils.validate import as_tuple, suggest

MAX_SEARCH = 1000  # voxels above the wanted patch, where one that fits is searched
NORMS = (None, "batch", "instance", "group", "layer")


def classifier(logits, loss=MultinoulliNLL, **loss_arguments):
    """The model around class scores ``logits`` (b, n_class, *L): softmax, target, loss, errors, all designated.

    ``loss``: a loss of class probabilities, with arguments of its own, like ``class_weights=[1, 3]``. The target
    (b, 1, *L) holds class ids. Nodes are named 'probs', 'target', 'nll', 'loss', 'errors'; training steps take
    (raw, target). Returns the model.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> raw = nm.Input((1, 1, 15, 15), 'b,f,x,y', name='raw', print_repr=False)
    >>> model = nm.networks.classifier(nm.Conv(raw, 2, 3, activation_func='lin', print_repr=False))
    >>> model.prediction_node.shape, model.target_node.shape
    ([(1,b), (2,f), (13,x), (13,y)], [(1,b), (1,f), (13,x), (13,y)])
    """
    with all_or_nothing(logits):
        probs = Softmax(logits, name="probs")
        target = Input_like(probs, override_f=1, name="target")
        pixel_loss = loss(probs, target, target_is_sparse=True, name="nll", **loss_arguments)
        total = AggregateLoss(pixel_loss, name="loss")
        errors = Errors(probs, target, target_is_sparse=True)
        logits.model.designate_nodes(input_node=logits.input_nodes[0], target_node=target, loss_node=total,
                                     prediction_node=probs, prediction_ext=[total, errors, probs], error_node=errors)
        return logits.model


# -- networks -------------------------------------------------------------------------------------------
def unet(raw, n_class=2, n_f=(64, 128, 256, 512), filter_shape=3, pool_shape=2, conv_mode="valid", activation_func="relu",
         norm=None, print_repr=True):
    """U-Net: two convolutions per level, max-pooling between levels, and the same way up again by transposed convolutions,
    joined with the features of the way down. Output (b, n_class, *out), in the resolution of the input.

    The first convolution of each level on the way down has half of its ``n_f``. The defaults in three dimensions are the
    published network: field of view 103^3 (offset 44), patches like 116 -> 28. Anisotropic data want a
    ``pool_shape`` such as [(1, 2, 2), (1, 2, 2), (2, 2, 2)] and a ``filter_shape`` likewise, with one more level.

    Source: Çiçek et al. 2016, 3D U-Net: learning dense volumetric segmentation from sparse annotation.
    """
    n_f, style = _features(n_f), _Style(conv_mode, activation_func, norm, print_repr)
    return _built("unet", _unet, raw, n_f, _per_level(filter_shape, len(n_f), raw, "filter_shape"),
                  _per_level(pool_shape, len(n_f) - 1, raw, "pool_shape"), style, n_class)


def residual_unet(raw, n_class=2, n_f=(28, 36, 48, 64, 80), filter_shape=3, pool_shape=None, border_filter_shape=None,
                  conv_mode="same", activation_func="elu", norm=None, print_repr=True):
    """Residual symmetric U-Net: a residual module of three convolutions per level, and joins that add.
    Output (b, n_class, *out), in the resolution of the input.

    Made for thick sections: by default pooling is 2 in the section (x, y) and 1 along z, and the first and the last
    convolution (``border_filter_shape``) 5 and 1. In a module the input of the second convolution is added to the output
    of the third.

    Source: Lee et al. 2017, Superhuman accuracy on the SNEMI3D connectomics challenge.
    """
    n_f, style = _features(n_f), _Style(conv_mode, activation_func, norm, print_repr)
    pools = _per_level(_z_xy(raw, 1, 2) if pool_shape is None else pool_shape, len(n_f) - 1, raw, "pool_shape")
    border = _z_xy(raw, 1, 5) if border_filter_shape is None else border_filter_shape
    filters = _per_level(border, 1, raw, "border_filter_shape") + _per_level(filter_shape, len(n_f), raw, "filter_shape")
    return _built("residual_unet", _residual_unet, raw, n_f, filters, pools, style, n_class)


def vnet(raw, n_class=2, n_f=(16, 32, 64, 128, 256), filter_shape=5, pool_shape=2, conv_mode="same",
         activation_func="prelu", norm=None, print_repr=True):
    """V-Net: residual stages of 1, 2, 3, 3, ... convolutions, strided convolutions down, transposed ones up, joined by
    concatenation. Output (b, n_class, *out), in the resolution of the input.

    The input of each stage is added to its last convolution; on the way up a stage has 2 ``n_f`` features.

    Source: Milletari et al. 2016, V-Net: fully convolutional neural networks for volumetric medical image segmentation.
    """
    n_f, style = _features(n_f), _Style(conv_mode, activation_func, norm, print_repr)
    return _built("vnet", _vnet, raw, n_f, _per_level(filter_shape, len(n_f), raw, "filter_shape"),
                  _per_level(pool_shape, len(n_f) - 1, raw, "pool_shape"), style, n_class)


def n337(raw, n_class=3, n_f=80, mfp=False, print_repr=True):
    """Plain network of field of view 85 per axis: filters 2, 3, 3, 3, 3, 3, 3, each of the first three with pooling by 2.

    A benchmark of dense prediction. ``mfp``: with max-fragment pooling, that is, with an output at every voxel of the input
    (raw of batch size 1); the same can be had after training from ``rebuild_model(..., override_mfp_to_active=True)``.
    Output (b, n_class, *out), out = (L - 85) / 8 + 1, with ``mfp`` L - 84.

    Source: Zlateski et al. 2016, ZNNi: maximizing the inference throughput of 3D convolutional networks.
    """
    return _plain("n337", raw, n_class, n_f, (2, 3, 3, 3, 3, 3, 3), 3, mfp, print_repr)


def n537(raw, n_class=3, n_f=80, mfp=False, print_repr=True):
    """Like :func:`n337`, with filters 4, 5, 5, 5, 5, 5, 5 and field of view 163. Output (b, n_class, *out)."""
    return _plain("n537", raw, n_class, n_f, (4, 5, 5, 5, 5, 5, 5), 3, mfp, print_repr)


def n726(raw, n_class=3, n_f=80, mfp=False, print_repr=True):
    """Like :func:`n337`, with filters 6, 7, 7, 7, 7, 7, two poolings, field of view 117. Output (b, n_class, *out)."""
    return _plain("n726", raw, n_class, n_f, (6, 7, 7, 7, 7, 7), 2, mfp, print_repr)


def n926(raw, n_class=3, n_f=80, mfp=False, print_repr=True):
    """Like :func:`n337`, with filters 8, 9, 9, 9, 9, 9, two poolings, field of view 155. Output (b, n_class, *out)."""
    return _plain("n926", raw, n_class, n_f, (8, 9, 9, 9, 9, 9), 2, mfp, print_repr)


def neuro3d(raw, n_class=2, mfp=False, print_repr=True):
    """The network of the example neuro3d, for anisotropic volumes: field of view 15 along z, 105 along x and y.

    ``mfp``: as of :func:`n337`. Output (b, n_class, *out).
    """
    return _anisotropic("neuro3d", raw, n_class, mfp, print_repr, (
        (20, (1, 6), (1, 2)), (30, (1, 5), (1, 2)), (40, (1, 5), (1, 1)), (80, (4, 4), (2, 1)), (100, (3, 4), (1, 1)),
        (100, (3, 4), (1, 1)), (150, (2, 4), (1, 1)), (200, (1, 4), (1, 1)), (200, (1, 4), (1, 1)), (200, (1, 1), (1, 1))))


def neuro3d_lite(raw, n_class=2, mfp=False, print_repr=True):
    """The network of the example neuro3d_lite: field of view 5 along z, 39 along x and y.

    ``mfp``: as of :func:`n337`. Output (b, n_class, *out).
    """
    return _anisotropic("neuro3d_lite", raw, n_class, mfp, print_repr, (
        (20, (1, 4), (1, 2)), (40, (3, 3), (1, 2)), (150, (2, 4), (2, 1)), (200, (1, 3), (1, 1)), (200, (1, 3), (1, 1)),
        (200, (1, 1), (1, 1))))


def simple_cnn(batch_size, n_ch, n_lab, desired_input, filters, nof_filters, activation_func, pools, mfp=False, tags=None,
               name=None):
    """A new model: a chain of convolutions for classification, with a patch near ``desired_input``.

    ``batch_size`` (None: any; 1 with ``mfp``), ``n_ch`` channels, ``n_lab`` classes. ``desired_input``: length of the patch
    per spatial axis, changed to the nearest one that fits, with a line for each axis that changes. ``filters``,
    ``nof_filters``, ``pools``: kernel (one number, or one per axis), features, and pooling of each layer; a last layer with
    kernel 1 gives the scores. ``tags``: default b, f and x, or x, y, or z, x, y. ``name``: of the model (None: a random
    one). Output of the prediction node (b, n_lab, *out). ValueError for lists of different length.

    >>> from elektronn2 import neuromancer as nm
    >>> model = simple_cnn(1, 1, 2, (30, 30), [5, 3], [8, 10], 'relu', [2, 1])
    >>> model.input_node.shape, model.prediction_node.shape
    ([(1,b), (1,f), (30,x), (30,y)], [(1,b), (2,f), (11,x), (11,y)])
    """
    size = list(desired_input) if isinstance(desired_input, (list, tuple)) else [desired_input]
    n_f, n = _features(nof_filters), len(size)
    for values, what in ((filters, "filters"), (pools, "pools")):
        if not isinstance(values, (list, tuple)) or len(values) != len(n_f):
            raise ValueError(f"simple_cnn: {what} must have one entry per layer ({len(n_f)}), got {values!r}.")
    filters = [as_tuple(f, n, "filters") for f in filters]
    pools = [as_tuple(p, n, "pools") for p in pools]
    patch = np.ravel(cnncalculator(filters, pools, size, mfp=mfp, ndim=n).patch_size).tolist()
    with model_manager.trial(name, keep=True):
        raw = Input((batch_size, n_ch, *patch), tags or ("b,f,x", "b,f,x,y", "b,f,z,x,y")[n - 1], name="raw")
        return classifier(_chain(raw, [*n_f, n_lab], [*filters, (1,) * n], [*pools, (1,) * n],
                                 _Style(activation_func=activation_func, mfp=mfp, w=None)))


# -- how they are built ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Style:
    """What the layers of one network have in common."""
    conv_mode: str = "valid"
    activation_func: str = "relu"
    norm: str | None = None
    print_repr: bool = True
    mfp: bool = False
    w: str | None = "he"

    def __post_init__(self):
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(map(repr, NORMS))}, got {self.norm!r}."
                             f"{suggest(self.norm, NORMS)}")

    def conv(self, parent, n_f, filter_shape, activation_func=None, **arguments):
        """A convolution, or a strided one, with normalisation and activation."""
        act = activation_func or self.activation_func
        arguments = dict(conv_mode=self.conv_mode, w=self.w, print_repr=self.print_repr, **arguments)
        if self.norm in (None, "batch"):
            return Conv(parent, n_f, filter_shape, activation_func=act,
                        batch_normalisation="train" if self.norm else False, **arguments)
        out = Conv(parent, n_f, filter_shape, activation_func="lin", b=[0.0, "const"], **arguments)
        if self.norm == "group":
            return GroupNorm(out, n_f // gcd(n_f, 8), act, print_repr=self.print_repr)
        return {"instance": InstanceNorm, "layer": LayerNorm}[self.norm](out, act, print_repr=self.print_repr)

    def scores(self, parent, n_class, filter_shape=1, name="scores"):
        """The last layer: scores of the classes; where there are fragments, at every voxel."""
        filter_shape = as_tuple(filter_shape, parent.shape.ndim, "filter_shape")
        out = Conv(parent, n_class, filter_shape, activation_func="lin", w=self.w, name=name, print_repr=self.print_repr)
        return FragmentsToDense(out, print_repr=self.print_repr) if self.mfp else out


def _z_xy(raw, z, xy):
    """Sizes per spatial axis of ``raw``: one along z, another along x and y."""
    return tuple(z if tag == "z" else xy for tag in raw.shape.spatial_tags)


def _features(n_f):
    if not isinstance(n_f, (list, tuple)) or not n_f:
        raise ValueError(f"n_f must be a list of numbers of features, one per level, got {n_f!r}.")
    return as_tuple(n_f, len(n_f), "n_f")


def _per_level(value, n, raw, name):
    """``n`` tuples of one number per spatial axis."""
    nested = isinstance(value, (list, tuple)) and any(isinstance(v, (list, tuple)) for v in value)
    values = list(value) if nested else [value] * n
    if len(values) != n:
        raise ValueError(f"{name} is given for {len(values)} levels, {n} are needed: {value!r}.")
    return [as_tuple(v, raw.shape.ndim, name) for v in values]


def _built(name, core, raw, n_f, filters, pools, style, n_class=None):
    """``core(raw, n_f, filters, pools, style)``, once the patch is known to fit, and scores of ``n_class`` classes, unless
    the core makes them. After an error no node stays."""
    patch = raw.shape.spatial_shape
    state = init.generator().bit_generator.state
    nearest = [n if n is None else _nearest(n, lambda inp, k=k: core(
        inp, [2] * len(n_f), [f[k:k + 1] for f in filters], [p[k:k + 1] for p in pools],
        replace(style, norm=None, activation_func="relu", print_repr=False))) for k, n in enumerate(patch)]
    init.generator().bit_generator.state = state
    if nearest != patch:
        raise ValueError(f"{name}: the patch {patch} of {raw.name!r} does not fit the layers. "
                         f"The nearest that fits is {nearest}.")
    with all_or_nothing(raw):
        out = core(raw, n_f, filters, pools, style)
        return out if n_class is None else style.scores(out, n_class)


def _nearest(n, build):
    """The length nearest to ``n`` that a network of one axis accepts. Its rule is asked of a thin copy, which needs a
    length that fits to be built. Raises the ValueError of the copy if none does."""
    error = None
    for size in range(n, n + MAX_SEARCH):
        try:
            with model_manager.trial():
                _, (rule,) = build(Input((1, 2, size), "b,f,x", print_repr=False)).axis_rules()
            return nearest_size(rule, n)
        except ValueError as refused:
            if str(refused) == str(error):  # it says the same of two lengths, so it is not about lengths
                raise
            error = refused
    raise error


def _unet(raw, n_f, filters, pools, style):
    out, skips = raw, []
    for i, (n, filter_shape) in enumerate(zip(n_f, filters)):
        out = style.conv(style.conv(out, max(n // 2, 1), filter_shape), n, filter_shape)
        if i < len(pools):
            skips.append(out)
            out = Pool(out, pools[i], print_repr=style.print_repr)
    for skip, n, coarse, filter_shape in reversed(list(zip(skips, n_f, n_f[1:], filters))):
        out = UpConvMerge(skip, out, coarse, print_repr=style.print_repr)
        out = style.conv(style.conv(out, n, filter_shape), n, filter_shape)
    return out


def _residual_unet(raw, n_f, filters, pools, style):
    (border, *filters), skips = filters, []
    out = style.conv(raw, n_f[0], border)
    for i, (n, filter_shape) in enumerate(zip(n_f, filters)):
        out = _module(out, n, filter_shape, style)
        if i < len(pools):
            skips.append(out)
            out = Pool(out, pools[i], print_repr=style.print_repr)
    for skip, n, filter_shape in reversed(list(zip(skips, n_f, filters))):
        out = UpConvMerge(skip, out, n, merge_mode="add", upconv_kwargs=dict(activation_func=style.activation_func),
                          print_repr=style.print_repr)
        out = _module(out, n, filter_shape, style)
    return style.conv(out, n_f[0], border)


def _module(parent, n_f, filter_shape, style):
    first = style.conv(parent, n_f, filter_shape)
    last = style.conv(style.conv(first, n_f, filter_shape), n_f, filter_shape, "lin")
    return ResidualAdd(last, first, style.activation_func, print_repr=style.print_repr)


def _vnet(raw, n_f, filters, pools, style):
    out, skips = raw, []
    n_convs = [min(i + 1, 3) for i in range(len(n_f))]
    for i, (n, filter_shape) in enumerate(zip(n_f, filters)):
        out = _stage(out, n, filter_shape, n_convs[i], style)
        if i < len(pools):
            skips.append(out)
            out = replace(style, conv_mode="valid").conv(out, n_f[i + 1], pools[i], stride=pools[i])
    for skip, n, filter_shape, k in reversed(list(zip(skips, n_f, filters, n_convs))):
        out = UpConvMerge(skip, out, n, upconv_kwargs=dict(activation_func=style.activation_func),
                          print_repr=style.print_repr)
        out = _stage(out, 2 * n, filter_shape, k, style)
    return out


def _stage(parent, n_f, filter_shape, n_convs, style):
    out = parent
    for _ in range(n_convs - 1):
        out = style.conv(out, n_f, filter_shape)
    out = style.conv(out, n_f, filter_shape, "lin")
    return ResidualAdd(out, parent, style.activation_func, print_repr=style.print_repr)


def _chain(raw, n_f, filters, pools, style):
    *hidden, (n_class, last, _) = zip(n_f, filters, pools)
    out = raw
    for n, filter_shape, pool in hidden:
        out = style.conv(out, n, filter_shape, pool_shape=pool, mfp=style.mfp)
    return style.scores(out, n_class, last)


def _plain(name, raw, n_class, n_f, filters, n_pools, mfp, print_repr):
    """A chain of convolutions with cubic filters, the last of which gives the scores."""
    n, style = len(filters), _Style(mfp=mfp, print_repr=print_repr)
    pools = [2] * n_pools + [1] * (n - n_pools)
    return _built(name, _chain, raw, [n_f] * (n - 1) + [n_class], [_z_xy(raw, f, f) for f in filters],
                  [_z_xy(raw, p, p) for p in pools], style)


def _anisotropic(name, raw, n_class, mfp, print_repr, layers):
    """A chain of layers (features, filter along z and in the section, pooling likewise), then the scores."""
    n_f, filters, pools = zip(*layers, (n_class, (1, 1), (1, 1)))
    return _built(name, _chain, raw, n_f, [_z_xy(raw, *f) for f in filters], [_z_xy(raw, *p) for p in pools],
                  _Style(mfp=mfp, print_repr=print_repr, w=None))
