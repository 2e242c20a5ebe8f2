"""Layers with weights: perceptron, convolution, upsampling convolution; and the joining of branches.

Order of operations in Perceptron, Conv and UpConv: linear, max-pooling, batch normalisation, bias,
activation, dropout.
"""
import logging
from fractions import Fraction
from math import prod

import numpy as np

from elektronn2.config import config
from elektronn2.neuromancer import computations as C
from elektronn2.neuromancer.init import bias_init, weight_init
from elektronn2.neuromancer.node import all_or_nothing
from elektronn2.neuromancer.node_basic import Add, Concat, Node, check_features
from elektronn2.neuromancer.recurrent import GRU, LSTM
from elektronn2.neuromancer.resampling import (
    UPSAMPLING,
    Crop,
    FragmentsToDense,
    Pad,
    Pool,
    Upsample,
    check_mfp,
    check_no_fragments,
    check_sizes,
    in_fragments,
    spatial_layout,
)
from elektronn2.neuromancer.shape import TaggedShape
from elektronn2.neuromancer.variables import SwitchParam
from elektronn2.neuromancer.various import LRN, FaithlessMerge
from elektronn2.utils.cnncalculator import conv_size, upsampled_size
from elektronn2.utils.validate import as_int, as_rate, as_tuple, short

__all__ = ["GRU", "LRN", "LSTM", "AutoMerge", "Conv", "Crop", "Dot", "FaithlessMerge", "FragmentsToDense", "NeuralLayer",
           "Pad", "Perceptron", "Pool", "UpConv", "UpConvMerge", "Upsample"]

logger = logging.getLogger("elektronn2log")

CONV_MODES = ("valid", "same", "full")


class NeuralLayer(Node):
    """What layers with weights have in common: bias, batch normalisation, activation, dropout.

    ``n_f``: number of features computed. ``activation_func``: a name, None is not one:

    * 'lin' or 'linear' (none: what Softmax and most losses of numbers need), 'relu', 'tanh', 'sig' (also 'sigmoid',
      'logistic'), 'elu', 'selu', 'gelu', 'silu' (also 'swish'), 'soft+' (ln(1 + exp(x))), 'abs';
    * 'leaky_relu', or with another slope than 0.01 for x < 0: 'leaky_relu 0.2'; 'prelu': a trained slope per feature, in
      b, which is then (n_f, 2): biases and slopes;
    * 'maxout r': the largest of each r consecutive features, so that the output has n_f / r of them;
    * 'concentration' (7 ln(1 + exp(x)) + 2) and 'radius' (3 + 15 exp(0.15 x)), for parameters of distributions.

    ``w``, ``b``, ``gamma`` may be None (initialised), an array or number (initial value, trained on), [value, 'const']
    (never trained), or a parameter of another node of the model (shared: ``w=other.w``, or with swapped axes
    ``other.w.T``). ``w`` may also be the name of an initialisation: 'glorot' (the default), 'ortho', or 'he', with which
    deep networks of relu begin to learn sooner; their biases then start at 0. See
    :func:`elektronn2.neuromancer.init.initweights`.

    ``batch_normalisation``: False, or a mode in which features are normalised to ``gamma * (x - mean) / std + b``:
    'train': by mean and std of the batch in training, and by their running averages, which training steps update, in
    prediction; 'predict': by the stored ``mean`` and ``std`` (n_f,) always, with a fixed gamma; 'fadeout': as 'train', but
    mixed with no normalisation as ``model.gradnet_rates`` go from 1 to 0. ``gamma`` (n_f,), default 1, is the scale;
    ``mean`` and ``std`` may be given in mode 'predict' only.

    ``dropout_rate``: probability, in [0, 1), with which an output is 0 in training (the others are divided by
    1 - rate); predictions drop nothing. ``model.dropout_rates`` changes it later.
    ``gradnet_mode``: anything true gives the layer its parameter ``gradnet_rate`` (1), which only the mode 'fadeout' uses,
    and makes by itself.
    """

    _growth = 1  # outputs per input: of the weights of an upsampling layer, each output sees a part only

    def _init_layer(self, parent, n_f, activation_func, batch_normalisation, dropout_rate, name, print_repr):
        Node.__init__(self, parent, name, print_repr)
        what = f"{type(self).__name__} {name!r}"
        check_features(self, parent, config.floatX)
        self.activation_func, self._maxout = C.check_activation(activation_func)
        self.n_f = as_int(n_f, f"n_f of {what}")
        if self.n_f % self._maxout:
            raise ValueError(f"{what}: n_f must be a multiple of {self._maxout} for {activation_func!r}, got {n_f!r}.")
        if batch_normalisation not in (False, None, "train", "predict", "fadeout"):
            raise ValueError(f"{what}: batch_normalisation must be False, 'train', 'predict' or 'fadeout', got "
                             f"{batch_normalisation!r}.")
        self.batch_normalisation = batch_normalisation or False
        self._initial_dropout = as_rate(dropout_rate, f"dropout_rate of {what}", one=False)

    def _make_params(self, w_shape, kernel_volume, w, b, gamma, mean, std, gradnet_mode=None, pool=None, groups=1):
        """w, b and what batch normalisation, dropout and gradnet need."""
        spatial = tuple(range(2, len(w_shape))) or None
        init = dict(scale="glorot", mode="ortho" if config.use_ortho_init else "normal")
        start = 1.0 / kernel_volume
        if isinstance(w, str):
            start = 0.0 if w == "he" else start
            init = weight_init(w, C.he_gain(self.activation_func) * self._growth, f"{type(self).__name__} {self.name!r}")
            w = None
        self.make_param("w", w, w_shape, dict(init, pool=pool, spatial_axes=spatial, groups=groups))
        shape = (self.n_f, 2) if self.activation_func == "prelu" else (self.n_f,)
        self.make_param("b", b, shape, bias_init(self.activation_func, start), apply_reg=False)
        self._make_bn_params(gamma, mean, std)
        self.dropout_rate = SwitchParam(self._initial_dropout, f"{self.name}_dropout_rate")
        if self._initial_dropout:
            self.params["dropout_rate"] = self.dropout_rate
        if gradnet_mode:
            self._untrained("gradnet_rate", 1.0, ())

    def set_dropout_rate(self, rate):
        """Set the dropout rate, in [0, 1), of training; also of a layer that was built without dropout, which has the
        parameter ``dropout_rate`` from then on."""
        if not hasattr(self, "dropout_rate"):
            raise ValueError(f"{type(self).__name__} {self.name!r} is a layer that has no dropout.")
        rate = as_rate(rate, f"dropout_rate of {type(self).__name__} {self.name!r}", one=False)
        self.dropout_rate.set_value(rate)
        if rate and "dropout_rate" not in self.params:
            self.params["dropout_rate"] = self.dropout_rate
            self.model.arguments[self.name]["dropout_rate"] = rate

    def _untrained(self, name, given, shape):
        self.make_param(name, given, shape, None, apply_train=False, apply_reg=False)

    def _make_bn_params(self, gamma, mean, std):
        mode, n = self.batch_normalisation, (self.n_f,)
        self._init_weights = {}
        if mode in ("train", "fadeout"):
            if mean is not None or std is not None:
                raise ValueError(f"{type(self).__name__} {self.name!r}: mean and std may not be given with "
                                 f"batch_normalisation={mode!r}, which measures them; use 'predict'.")
            self.make_param("gamma", gamma, n, dict(mode="const", scale=1.0), apply_reg=3.0)
            self._untrained("mean", np.zeros(n), n)
            self._untrained("std", np.ones(n), n)
            # the weight that the initial mean and std still have in the running averages
            self._untrained("init_weight", 1.0, ())
        elif mode == "predict":
            for key, given, default in (("gamma", gamma, 1.0), ("mean", mean, 0.0), ("std", std, 1.0)):
                self._untrained(key, np.full(n, default) if given is None else given, n)
                self._init_weights[key] = _init_weight_of(self, key)
            used = self.std.get_value()
            if not (used > 0).all():
                raise ValueError(f"{type(self).__name__} {self.name!r}: std must be above 0, features are divided by it; "
                                 f"got {short(used.tolist())}. Give features that never change a std of 1.")
            self.std.positive = True
        elif any(v is not None for v in (gamma, mean, std)):
            raise ValueError(f"{type(self).__name__} {self.name!r}: gamma, mean and std need batch_normalisation.")

    def _bias(self):
        b = self.model.graph.param(self.b)
        return C.bias_of(b) if self.activation_func == "prelu" else b

    def _activate(self, x, bias_added=False, axis=1):
        """Batch normalisation, bias, activation and dropout of a linear result."""
        symbolic = self.model.graph.param
        if self.batch_normalisation:
            x = self._normalise(x, axis)
        elif not bias_added:
            x = C.add_bias(x, self._bias(), axis)
        if self.activation_func == "prelu":
            x = C.apply_activation(x, "prelu", C.slope_of(symbolic(self.b)), axis)
        elif self.activation_func not in ("lin", "linear"):
            x = C.apply_activation(x, self.activation_func, None, axis)
        if hasattr(self, "dropout_rate"):
            rate = symbolic(self.dropout_rate)
            x = C.by_mode(C.if_on(rate, C.dropout(x, rate), x), x)
        return x

    def _normalise(self, x, axis):
        symbolic = self.model.graph.param
        gamma, mean, std = symbolic(self.gamma), symbolic(self.mean), symbolic(self.std)
        if self.batch_normalisation in ("train", "fadeout"):
            batch_mean, batch_std = C.batch_mean(x, axis), C.batch_std(x, axis)
            self.mean.updates = C.running_average(mean, batch_mean)
            self.std.updates = C.running_average(std, batch_std)
            weight = symbolic(self.init_weight)
            self.init_weight.updates = C.decayed(weight)
            mean = C.by_mode(batch_mean, C.debias(mean, 0.0, weight))
            std = C.by_mode(batch_std, C.debias_std(std, weight))
        else:
            if self._init_weights["mean"] is not None:
                mean = C.debias(mean, 0.0, symbolic(self._init_weights["mean"]))
            if self._init_weights["std"] is not None:
                std = C.debias_std(std, symbolic(self._init_weights["std"]))
        if self.batch_normalisation == "fadeout":
            if "gradnet_rate" not in self.params:
                self._untrained("gradnet_rate", 1.0, ())
            r = symbolic(self.gradnet_rate)
            logger.warning("%s: batch normalisation is faded out; below a rate of 0.5 this is unreliable.", self.name)
            mean, std, gamma = mean * r, r * std + (1 - r), r * gamma + (1 - r)
        return C.normalise(x, gamma, mean, std, self._bias(), axis)

    def _notes(self, dropout="Dropout rate="):
        notes = ""
        if "dropout_rate" in self.params:
            notes += f"{dropout}{float(self.dropout_rate.get_value()):.1f}, "
        if self.batch_normalisation:
            notes += f"BN in '{self.batch_normalisation}' mode "
        return notes


def _init_weight_of(layer, key):
    """The weight that the initial value still has in a ``mean`` or ``std`` that is shared with a layer which measures it;
    else None."""
    owner = layer.shared[key].owner if key in layer.shared else None
    if owner is None or owner.params.get(key) is not layer.shared[key] or "init_weight" not in owner.params:
        return None
    layer.shared[f"{key}_init_weight"] = owner.params["init_weight"]
    return owner.params["init_weight"]


class Perceptron(NeuralLayer):
    """Fully connected layer along the feature axis.

    Input (b, f, *L), w (f, n_f); output (b, n_f, *L). With ``flatten`` all axes but b are joined first:
    w (f * prod(L), n_f), output (b, n_f).

    Raises NotImplementedError if ``flatten`` and f is not axis 1, ValueError for arguments that do not fit.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((None, 4, 5, 5), 'b,f,x,y', print_repr=False)
    >>> hidden = nm.Perceptron(x, 8, 'tanh', flatten=True, dropout_rate=0.5, w='he', print_repr=False)
    >>> nm.Perceptron(hidden, 2, 'lin', b=[0, 'const'], print_repr=False).shape
    [(None,b), (2,f)]
    """

    def __init__(self, parent, n_f, activation_func="relu", flatten=False, batch_normalisation=False, dropout_rate=0,
                 name="dot", print_repr=True, w=None, b=None, gamma=None, mean=None, std=None, gradnet_mode=None):
        self._init_layer(parent, n_f, activation_func, batch_normalisation, dropout_rate, name, print_repr)
        self.flatten = bool(flatten)
        shape = self.parent.shape
        axis = shape.tag2index("f")
        if self.flatten and axis != 1:
            raise NotImplementedError(f"Perceptron {name!r} with flatten needs the features on axis 1; "
                                      f"{parent.name!r} is {shape}.")
        if self.flatten and None in shape.shape[1:]:
            raise ValueError(f"Perceptron {name!r} with flatten needs all sizes but b; {parent.name!r} is {shape}.")
        n_in = shape.stripbatch_prod if self.flatten else shape["f"]
        self.axis = axis
        self._make_params((n_in, self.n_f), 1, w, b, gamma, mean, std, gradnet_mode)

    def _make_output(self):
        x = self.parent.output
        if self.flatten:
            x = x.flatten(1)
        self.output = self._activate(C.dot(x, self.w, self.axis), axis=self.axis)

    def _calc_shape(self):
        n_out = self.n_f // self._maxout
        shape = self.parent.shape
        self.shape = TaggedShape((shape["b"], n_out), "b,f") if self.flatten else shape.updateshape("f", n_out)

    def _calc_comp_cost(self):
        self.computational_cost = self.parent.shape.stripnone_prod * self.n_f

    def _repr_details(self):
        return f"n_f={self.n_f}, act='{self.activation_func}', " + (
            "input was flattened, " if self.flatten else "") + self._notes("dropout rate = ")

    def make_dual(self, parent, share_w=False, **kwargs):
        """A Perceptron on ``parent`` (which has this layer's features) back to as many features as this layer was given.

        ``share_w``: its weights are those of this layer, transposed, and trained together. ``kwargs``: more arguments of the
        Perceptron; its name is that of this layer with '.T' unless given. Raises ValueError if the features do not
        match, NotImplementedError for a layer with ``flatten``.

        >>> from elektronn2 import neuromancer as nm
        >>> m = nm.model_manager.newmodel(None)
        >>> code = nm.Perceptron(nm.Input((1, 8), 'b,f', print_repr=False), 3, print_repr=False)
        >>> code.make_dual(code, share_w=True, print_repr=False).shape
        [(1,b), (8,f)]
        """
        if self.flatten:
            raise NotImplementedError(f"Perceptron {self.name!r} flattens its input, which no Perceptron can undo. Use a "
                                      "Perceptron with n_f = f * prod(L) and Reshape.")
        _check_dual(self, parent, share_w)
        kwargs = dict(name=f"{self.name}.T", w=self.w.T if share_w else None) | kwargs
        return Perceptron(parent, self.parent.shape["f"], **kwargs)


def _check_dual(layer, parent, share_w):
    """ValueError unless ``parent`` has as many features as ``layer`` gives (and as its weights have, to share them)."""
    what = f"The dual of {type(layer).__name__} {layer.name!r}"
    if not isinstance(parent, Node) or not parent.shape.hastag("f") or parent.shape["f"] != layer.shape["f"]:
        raise ValueError(f"{what} {layer.shape} needs a parent of {layer.shape['f']} features, got "
                         f"{f'{parent.name!r} {parent.shape}' if isinstance(parent, Node) else repr(parent)}.")
    if share_w and layer.shape["f"] != layer.n_f:
        raise ValueError(f"{what} cannot share its weights: {layer.activation_func!r} leaves fewer features than they have.")


Dot = Perceptron


class Conv(NeuralLayer):
    """Convolution, max-pooling, bias, activation, in 1, 2 or 3 dimensions.

    Input (b, f, *L), w (n_f, f / groups, *filter_shape), applied without flipping; output (b, n_f, *out) with
    out = ((L - (filter - 1) * dilation - 1) / stride + 1) / pool ('valid'). ``filter_shape``, ``pool_shape`` (windows of
    the max-pooling, which do not overlap; None: none), ``stride``, ``dilation``: one number per spatial axis, or one for
    all. ``conv_mode`` 'same' and 'full' pad with
    (filter - 1) * dilation zeros, half of them (odd filters) or all of them at each end, and are 'valid' then.
    ``stride``: distance of the positions of the kernel; ``dilation``: distance of its taps; ``groups``: the features are
    convolved in so many separate groups (f of them: depthwise). ``mfp``: max-fragment pooling: every shift of the grid of
    stride * pool becomes a fragment on the batch axis; L must be a length that :func:`conv_size` accepts with it.
    ``invalidate_fov``: only warns; it is there for old scripts.

    Cost: multiply-adds before pooling, at L + (filter - 1) * dilation positions (over stride) for 'same' and 'full'.
    ValueError if sizes do not fit, naming axis, length, pool and kernel.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((1, 4, 65, 65), 'b,f,x,y', print_repr=False)
    >>> nm.Conv(x, 8, 3, conv_mode='same', stride=2, groups=4, print_repr=False).shape
    [(1,b), (8,f), (33,x), (33,y)]
    """

    def __init__(self, parent, n_f, filter_shape, pool_shape=None, conv_mode="valid", activation_func="relu",
                 mfp=False, batch_normalisation=False, dropout_rate=0, name="conv", print_repr=True, w=None, b=None,
                 gamma=None, mean=None, std=None, gradnet_mode=None, invalidate_fov=False, stride=1, dilation=1, groups=1):
        self._init_layer(parent, n_f, activation_func, batch_normalisation, dropout_rate, name, print_repr)
        ndim = spatial_layout(self, parent)
        self.filter_shape = as_tuple(filter_shape, ndim, f"filter_shape of Conv {name!r}")
        self.pool_shape = as_tuple(1 if pool_shape is None else pool_shape, ndim, f"pool_shape of Conv {name!r}")
        self.stride = as_tuple(stride, ndim, f"stride of Conv {name!r}")
        self.dilation = as_tuple(dilation, ndim, f"dilation of Conv {name!r}")
        self.groups = as_int(groups, f"groups of Conv {name!r}")
        if parent.shape["f"] % self.groups or self.n_f % self.groups:
            raise ValueError(f"Conv {name!r}: groups={groups} must divide the features of {parent.name!r} "
                             f"({parent.shape['f']}) and n_f ({self.n_f}).")
        if conv_mode not in CONV_MODES:
            raise ValueError(f"Conv {name!r}: conv_mode must be 'valid', 'same' or 'full', got {conv_mode!r}.")
        if conv_mode == "same" and any(f % 2 == 0 for f in self.filter_shape):
            raise ValueError(f"Conv {name!r}: conv_mode 'same' needs odd filter sizes, got {self.filter_shape}.")
        self.conv_mode, self.mfp = conv_mode, bool(mfp)
        check_sizes(self, parent)
        if self.mfp:
            check_mfp(self, parent)
        if invalidate_fov:
            logger.warning("Conv %s: invalidate_fov has no use any more: the field of view is known on every graph.", name)
        w_shape = (self.n_f, parent.shape["f"] // self.groups, *self.filter_shape)
        self._make_params(w_shape, prod(self.filter_shape), w, b, gamma, mean, std, gradnet_mode, self._steps, self.groups)

    @property
    def _steps(self):
        """Voxels of the input between voxels of the output."""
        return tuple(t * p for t, p in zip(self.stride, self.pool_shape))

    def _axis_size(self, k, *sizes, mfp=False):
        active = (self.mfp or mfp) and self._steps[k] > 1
        return conv_size(sizes[0], self.filter_shape[k], self.pool_shape[k], self.conv_mode, active,
                         self.parents[0].shape.spatial_tags[k], self.stride[k], self.dilation[k])

    def _make_output(self):
        early_bias = not self.batch_normalisation  # a constant per feature commutes with the maximum
        fragments = self.mfp and prod(self._steps) > 1
        stride = self.stride if prod(self.stride) > 1 and not fragments else None
        dilation = self.dilation if prod(self.dilation) > 1 else None
        x = C.conv(self.parent.output, self.w, self._bias() if early_bias else None,
                   self.conv_mode, stride, dilation, self.groups)
        if fragments:
            x = C.fragmentpool(x, self.pool_shape, self._steps, dilation=self.stride)
        elif prod(self.pool_shape) > 1:
            x = C.pooling(x, self.pool_shape)
        self.output = self._activate(x, early_bias)

    def _calc_shape(self):
        s = self.parent.shape
        sizes = [self._axis_size(k, n) for k, n in enumerate(s.spatial_shape)]
        border = {"valid": 0, "same": 0.5, "full": 1}[self.conv_mode]
        self.shape = s.shifted([-int(border * (f - 1) * d) for f, d in zip(self.filter_shape, self.dilation)])
        self.shape = self.shape.convolved(self.filter_shape, self.stride, self.dilation)
        self.shape = self.shape.pooled(self.pool_shape, self.pool_shape)
        if self.mfp:
            self.shape = in_fragments(self.shape, s, self._steps)
        self.shape = self.shape.with_spatial(sizes).updateshape("f", self.n_f // self._maxout)

    def _calc_comp_cost(self):
        s = self.parent.shape
        steps = (1,) * s.ndim if self.mfp else self.stride  # max-fragment pooling computes every position
        positions = [(n + (f - 1) * d * (-1 if self.conv_mode == "valid" else 1) - 1) // t + 1
                     for n, f, d, t in zip(s.spatial_shape, self.filter_shape, self.dilation, steps) if n is not None]
        self.computational_cost = prod(self.w.shape) * prod(positions) * (s["b"] or 1)

    def _repr_details(self):
        extra = dict(stride=self.stride, dilation=self.dilation, groups=self.groups)
        extra = "".join(f"{k}={v}, " for k, v in extra.items() if v not in (1, (1,) * self.shape.ndim))
        return (f"n_f={self.n_f}, {self.shape.ndim}d conv, kernel={self.filter_shape}, pool={self.pool_shape}, {extra}"
                f"act='{self.activation_func}', " + self._notes() + ("MFP active, " if self.mfp else ""))

    def make_dual(self, parent, share_w=False, mfp=False, **kwargs):
        """An UpConv on ``parent`` (which has this layer's features) that upsamples by what this layer pools (and strides),
        back to as many features as this layer was given.

        ``share_w``: its weights are those of this layer, transposed, and trained together; its filter is then that of this
        layer and its conv_mode 'full', so that for a layer without pooling it is the transposed convolution, and gives back
        the size. ``kwargs``: more arguments of the UpConv; its name is that of this layer with '.T' unless given.
        Raises ValueError if the features do not match, the weights cannot be shared, or for ``mfp``, which no UpConv has.

        >>> from elektronn2 import neuromancer as nm
        >>> m = nm.model_manager.newmodel(None)
        >>> code = nm.Conv(nm.Input((1, 2, 9), 'b,f,x', print_repr=False), 4, 3, print_repr=False)
        >>> code.make_dual(code, share_w=True, print_repr=False).shape
        [(1,b), (2,f), (9,x)]
        """
        _check_dual(self, parent, share_w)
        if mfp:
            raise ValueError(f"The dual of Conv {self.name!r} is an UpConv, which has no fragments; give mfp=False.")
        kwargs.setdefault("name", f"{self.name}.T")
        if share_w:
            if self.groups > 1 or prod(self.dilation) > 1:
                raise ValueError(f"The dual of Conv {self.name!r} cannot share weights of groups or dilation.")
            kwargs = dict(w=self.w.T, filter_shape=self.filter_shape, conv_mode="full") | kwargs
        return UpConv(parent, self.parent.shape["f"], self._steps, **kwargs)


class UpConv(NeuralLayer):
    """Transposed convolution of stride ``pool_shape``: upsampling by that factor.

    Input (b, f, *L), w (n_f, f, *filter_shape), output (b, n_f, *out). Every input voxel adds w, times its value, at
    pool_shape times its position; ``filter_shape`` (default ``pool_shape``) is at least ``pool_shape``, so that no output
    voxel is left out. If it is larger, kernels overlap and ``conv_mode`` says where the output ends: 'valid' (only voxels
    that see as much as those inside: out = (L + 1) * pool - filter), 'same' (out = L * pool, needs filter - pool even) or
    'full' (all: out = (L - 1) * pool + filter).

    ``identity_init``: unless given, w starts near the (for larger filters smoothed) repetition of the input's features:
    0.1 times the default, but where output feature = input feature the kernel of that; and b at 0.
    ValueError if sizes do not fit, or after max-fragment pooling (which pool_shape 1 may follow).

    Source: Zeiler et al. 2010, Deconvolutional networks; Dumoulin and Visin 2016, A guide to convolution arithmetic.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((1, 4, 10, 10), 'b,f,x,y', print_repr=False)
    >>> nm.UpConv(x, 2, 2, filter_shape=4, conv_mode='same', print_repr=False).shape
    [(1,b), (2,f), (20,x), (20,y)]
    """

    def __init__(self, parent, n_f, pool_shape, activation_func="relu", identity_init=True,
                 batch_normalisation=False, dropout_rate=0, name="upconv", print_repr=True, w=None, b=None,
                 gamma=None, mean=None, std=None, gradnet_mode=None, filter_shape=None, conv_mode="valid"):
        self._init_layer(parent, n_f, activation_func, batch_normalisation, dropout_rate, name, print_repr)
        ndim = spatial_layout(self, parent)
        self.pool_shape = as_tuple(pool_shape, ndim, f"pool_shape of UpConv {name!r}")
        self.filter_shape = (self.pool_shape if filter_shape is None
                             else as_tuple(filter_shape, ndim, f"filter_shape of UpConv {name!r}"))
        if any(f < p for f, p in zip(self.filter_shape, self.pool_shape)):
            raise ValueError(f"UpConv {name!r}: filter_shape {self.filter_shape} must be at least pool_shape "
                             f"{self.pool_shape} on every axis, else some voxels see nothing.")
        if conv_mode not in CONV_MODES:
            raise ValueError(f"UpConv {name!r}: conv_mode must be 'valid', 'same' or 'full', got {conv_mode!r}.")
        self.conv_mode = conv_mode
        extra = [f - p for f, p in zip(self.filter_shape, self.pool_shape)]
        if conv_mode == "same" and any(e % 2 for e in extra):
            raise ValueError(f"UpConv {name!r}: conv_mode 'same' needs filter_shape - pool_shape even on every axis, got "
                             f"{self.filter_shape} and {self.pool_shape}.")
        self._cropped = tuple(int(e * {"valid": 1, "same": 0.5, "full": 0}[conv_mode]) for e in extra)
        check_sizes(self, parent)
        self.upsamples = prod(self.pool_shape) > 1
        if self.upsamples:
            check_no_fragments(self, parent)
        self.identity_init = identity_init
        self._growth = prod(self.pool_shape)
        w_shape = (self.n_f, parent.shape["f"], *self.filter_shape)
        self._make_params(w_shape, prod(self.filter_shape), w, b, gamma, mean, std, gradnet_mode, self.pool_shape)
        if identity_init and w is None:
            value = 0.1 * self.w.get_value()
            for i in range(min(w_shape[:2])):
                value[i, i] = _repetition(self.filter_shape, self.pool_shape)
            self.w.set_value(value)
        if identity_init and b is None:
            value = self.b.get_value()
            value[..., 0] = 0 if self.activation_func == "prelu" else value[..., 0]
            self.b.set_value(value if self.activation_func == "prelu" else np.zeros_like(value))

    def _make_output(self):
        x = C.upconv(self.parent.output, self.w, self.pool_shape, self._cropped)
        self.output = self._activate(x)

    def _calc_shape(self):
        s = self.parent.shape
        sizes = [self._axis_size(k, n) for k, n in enumerate(s.spatial_shape)]
        self.shape = s.upsampled(self.pool_shape, self.filter_shape).shifted(self._cropped)
        self.shape = self.shape.with_spatial(sizes).updateshape("f", self.n_f // self._maxout)

    def _axis_size(self, k, *sizes, mfp=False):
        return upsampled_size(sizes[0], self.pool_shape[k], self.filter_shape[k], self.conv_mode,
                              self.parents[0].shape.spatial_tags[k])

    def _calc_comp_cost(self):
        s = self.parent.shape
        positions = [n * p + 1 - p for n, p in zip(s.spatial_shape, self.pool_shape) if n is not None]
        self.computational_cost = prod(self.w.shape) * prod(positions) * (s["b"] or 1)

    def _repr_details(self):
        return (f"n_f={self.n_f}, {self.shape.ndim}d upconv, kernel={self.filter_shape}, pool={self.pool_shape}, "
                f"act='{self.activation_func}', " + self._notes())

    def make_dual(self, parent, share_w=False, **kwargs):
        """Raises NotImplementedError: an upsampling layer has no dual."""
        raise NotImplementedError(f"UpConv {self.name!r} has no dual. Use a Conv with stride={self.pool_shape}, and w=w.T "
                                  "to share the weights.")


for _layer in (Perceptron, Conv, UpConv):
    _layer.__doc__ = f"{_layer.__doc__}\n    {NeuralLayer.__doc__}"


def _repetition(filter_shape, factor):
    """Kernel that repeats every voxel ``factor`` times, smoothed with a box as long as the filter allows."""
    kernel = np.ones(())
    for f, p in zip(filter_shape, factor):
        kernel = np.multiply.outer(kernel, np.convolve(np.ones(p), np.full(f - p + 1, 1 / (f - p + 1))))
    return kernel


def AutoMerge(parent1, parent2, upconv_n_f=None, merge_mode="concat", disable_upconv=False, upconv_kwargs=None,
              name="merge", print_repr=True, upsampling="upconv"):
    """Join two branches of a U-Net: upsample the one of lower resolution, crop the larger one, concatenate or add.

    ``parent1``, ``parent2``: nodes with the same axes, in any order.

    The branch of lower resolution is upsampled to ``upconv_n_f`` features (ValueError if that is None and needed) and
    comes first. ``upsampling``: 'upconv', an UpConv; 'nearest' or 'linear', an Upsample and then a Conv (``filter_shape``
    1 by default). ``upconv_kwargs``: more arguments of the UpConv or Conv. Where sizes differ, the larger one is cropped on
    both ends; an odd difference is a ValueError quoting both shapes. ``merge_mode``: 'concat' or 'add'. Returns the
    joining node. ``disable_upconv``: nothing is upsampled, only cropped: for branches of different inputs, whose
    strides may differ (those of one input are a ValueError then).

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((1, 1, 20, 20), 'b,f,x,y', print_repr=False)
    >>> fine = nm.Conv(x, 4, 3, print_repr=False)
    >>> coarse = nm.Conv(fine, 8, 3, 2, print_repr=False)
    >>> fine.shape, coarse.shape
    ([(1,b), (4,f), (18,x), (18,y)], [(1,b), (8,f), (8,x), (8,y)])
    >>> nm.AutoMerge(coarse, fine, upconv_n_f=4, print_repr=False).shape  # 4 of an UpConv, 4 of the cropped 'fine'
    [(1,b), (8,f), (16,x), (16,y)]
    """
    for p in (parent1, parent2):
        if not isinstance(p, Node):
            raise TypeError(f"AutoMerge {name!r}: its parents must be two nodes, got {p!r}.")
    s1, s2 = parent1.shape, parent2.shape
    if s1.tags != s2.tags:
        raise ValueError(f"AutoMerge: {parent1.name!r} {s1} and {parent2.name!r} {s2} have different axes.")
    if merge_mode not in ("concat", "add"):
        raise ValueError(f"AutoMerge: merge_mode must be 'concat' or 'add', got {merge_mode!r}.")
    if upsampling not in ("upconv", *UPSAMPLING):
        raise ValueError(f"AutoMerge: upsampling must be 'upconv', 'nearest' or 'linear', got {upsampling!r}.")
    low, high = (parent1, parent2) if any(b < a for a, b in zip(s1.strides, s2.strides)) else (parent2, parent1)
    ratios = [Fraction(a) / Fraction(b) for a, b in zip(low.shape.strides, high.shape.strides)]
    with all_or_nothing(low, high):
        if any(r > 1 for r in ratios) and not disable_upconv:
            if any(r.denominator != 1 for r in ratios):
                raise ValueError(f"AutoMerge: strides {low.shape.strides} of {low.name!r} are not multiples of "
                                 f"{high.shape.strides} of {high.name!r}.")
            if upconv_n_f is None:
                raise ValueError(f"AutoMerge: {low.name!r} must be upsampled by {[int(r) for r in ratios]}, so "
                                 "upconv_n_f (the number of features) is needed.")
            logger.debug("%s is upsampled to the resolution of %s.", low.name, high.name)
            factor, kwargs = [int(r) for r in ratios], {"print_repr": print_repr, **(upconv_kwargs or {})}
            if upsampling == "upconv":
                low = UpConv(low, upconv_n_f, factor, **kwargs)
            else:
                low = Upsample(low, factor, upsampling, print_repr=print_repr)
                low = Conv(low, upconv_n_f, **{"filter_shape": 1, **kwargs})
        crop_low, crop_high = [], []
        for tag, n, m in zip(low.shape.spatial_tags, low.shape.spatial_shape, high.shape.spatial_shape):
            if n is None or m is None:
                raise ValueError(f"AutoMerge: sizes on axis {tag!r} are open, so it is not known what to crop: {low.name!r} "
                                 f"is {low.shape}, {high.name!r} is {high.shape}. Give the input a size; modelload(file, "
                                 "imposed_patch_size=...) changes it later.")
            if (n - m) % 2:
                raise ValueError(f"AutoMerge: sizes on axis {tag!r} differ by an odd number, so no symmetric crop fits: "
                                 f"{low.name!r} is {low.shape}, {high.name!r} is {high.shape}. Change the patch size "
                                 "or one filter size by one.")
            crop_low.append(max(n - m, 0) // 2)
            crop_high.append(max(m - n, 0) // 2)
        if any(crop_low):
            low = Crop(low, crop_low, print_repr=print_repr)
        if any(crop_high):
            high = Crop(high, crop_high, print_repr=print_repr)
        if merge_mode == "add":
            return Add(low, high, name=name, print_repr=print_repr)
        return Concat((low, high), axis="f", name=name, print_repr=print_repr)


UpConvMerge = AutoMerge
