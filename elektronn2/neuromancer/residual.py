"""What residual networks are made of: activations on their own, sums with a skip connection, squeeze and excitation."""
from fractions import Fraction

from elektronn2.neuromancer import computations as C
from elektronn2.neuromancer.neural import Conv, NeuralLayer
from elektronn2.neuromancer.node import all_or_nothing
from elektronn2.neuromancer.node_basic import Add, Node
from elektronn2.neuromancer.resampling import Crop
from elektronn2.utils.validate import as_int


class Activation(NeuralLayer):
    """An activation function as a node of its own. Input (b, f, *L), output (b, f, *L); f on any axis.

    ``activation_func``: as of the layers. 'prelu' has a parameter b (f, 2), bias (0 at first) and slope (1); 'maxout r'
    divides the number of features by r.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> y = nm.Activation(nm.Input((1, 4), 'b,f', print_repr=False), 'maxout 2', print_repr=False)
    >>> y(np.array([[1, 3, -5, -7]], 'float32'))
    array([[ 3., -5.]], dtype=float32)
    """

    def __init__(self, parent, activation_func="relu", name="activation", print_repr=True, b=None):
        self.axis = parent.shape.tag2index("f")
        self._init_layer(parent, parent.shape[self.axis], activation_func, False, 0, name, print_repr)
        if activation_func == "prelu":
            self.make_param("b", b, (self.n_f, 2), dict(mode="prelu", scale=0.0), apply_reg=False)
        elif b is not None:
            raise ValueError(f"Activation {name!r}: b is for 'prelu' alone, not for {activation_func!r}.")

    def _make_output(self):
        has_bias = self.activation_func == "prelu"
        self.output = self._activate(self.parent.output, bias_added=not has_bias, axis=self.axis)

    def _calc_shape(self):
        self.shape = self.parent.shape.updateshape("f", self.n_f // self._maxout)

    def _repr_details(self):
        return f"act='{self.activation_func}', "


class SqueezeExcitation(Node):
    """Features weighed by gates between 0 and 1 that depend on the mean of all features over space.

    Input (b, f, *L), output (b, f, *L): ``x * sigmoid(relu(mean(x) w + b) w2 + b2)`` with w (f, f / reduction), b, w2
    (f / reduction, f), b2; the hidden width is rounded down, and at least 1. The mean is that of the patch: a prediction
    in tiles differs from one of the whole volume, and ``predict_dense`` warns; with max-fragment pooling it is that of
    each fragment. The field of view stays formally as it was.

    ValueError for other axes than b, f and space.

    Source: Hu et al. 2018, Squeeze-and-excitation networks.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((1, 32, 9, 9), 'b,f,x,y', print_repr=False)
    >>> gated = nm.SqueezeExcitation(x, reduction=8, print_repr=False)
    >>> gated.shape, gated.w.shape
    ([(1,b), (32,f), (9,x), (9,y)], (32, 4))
    """

    patch_statistics = True

    def __init__(self, parent, reduction=16, name="squeeze", print_repr=True, w=None, b=None, w2=None, b2=None):
        super().__init__(parent, name, print_repr)
        s = parent.shape
        if s.tags[:2] != ["b", "f"] or len(s) != s.ndim + 2 or not s.ndim or s["f"] is None:
            raise ValueError(f"SqueezeExcitation {name!r} needs axes b, f (known) and then space; {parent.name!r} is {s}.")
        self.reduction = as_int(reduction, f"reduction of SqueezeExcitation {name!r}")
        n, self.n_hidden = s["f"], max(s["f"] // self.reduction, 1)
        zeros = dict(mode="const", scale=0.0)
        self.make_param("w", w, (n, self.n_hidden), dict(scale="he", mode="normal"))
        self.make_param("b", b, (self.n_hidden,), zeros, apply_reg=False)
        self.make_param("w2", w2, (self.n_hidden, n), dict(scale="glorot", mode="normal"))
        self.make_param("b2", b2, (n,), zeros, apply_reg=False)

    def _make_output(self):
        w, b, w2, b2 = (self.model.graph.param(p) for p in (self.w, self.b, self.w2, self.b2))
        x = self.parent.output
        hidden = C.apply_activation(C.add_bias(C.dot(C.squeeze(x), w), b), "relu")
        self.output = C.excite(x, C.apply_activation(C.add_bias(C.dot(hidden, w2), b2), "sigmoid"))

    def _calc_comp_cost(self):
        s = self.parent.shape
        self.computational_cost = s.stripnone_prod + 2 * s["f"] * self.n_hidden * (s["b"] or 1)

    def _repr_details(self):
        return f"reduction={self.reduction}, n_hidden={self.n_hidden}, "


def ResidualAdd(branch, skip, activation_func="relu", name="residual", print_repr=True):
    """The sum of ``branch`` and ``skip``, a node that ``branch`` was computed from, then the activation.

    ``skip`` is brought to the place and the shape of ``branch`` (b, f, *L): cropped on both ends as far as ``branch`` has
    lost voxels, and, if its features or its resolution differ, projected by a convolution with filters of size 1,
    without activation, strided as ``branch`` is. ``activation_func``: 'lin' for none. Returns the last node.

    ValueError, naming the nodes, if they cannot meet: ``branch`` is finer, or they are half a voxel apart.

    Source: He et al. 2016, Deep residual learning for image recognition.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((1, 8, 20, 20), 'b,f,x,y', print_repr=False)
    >>> y = nm.Conv(nm.Conv(x, 8, 3, print_repr=False), 8, 3, activation_func='lin', print_repr=False)
    >>> nm.ResidualAdd(y, x, print_repr=False).shape
    [(1,b), (8,f), (16,x), (16,y)]
    """
    for given in (branch, skip):
        if not isinstance(given, Node):
            raise TypeError(f"ResidualAdd {name!r}: branch and skip must be nodes, got {given!r}.")
    b, s = branch.shape, skip.shape
    where = f"ResidualAdd of {branch.name!r} {b} and {skip.name!r} {s}"
    if b.tags != s.tags:
        raise ValueError(f"{where}: their axes differ.")
    crops, steps = [], []
    for tag, c_branch, c_skip, t_branch, t_skip in zip(b.spatial_tags, b.centre, s.centre, b.strides, s.strides):
        crop, step = (c_branch - c_skip) / Fraction(t_skip), Fraction(t_branch) / Fraction(t_skip)
        if step.denominator != 1:
            raise ValueError(f"{where}: on axis {tag!r} their strides are {t_branch} and {t_skip} input voxels, so no "
                             "strided projection fits. Pool the branch, or upsample the skip.")
        if crop.denominator != 1 or (crop < 0 and crop % step):
            raise ValueError(f"{where}: on axis {tag!r} they are shifted by {float(crop):g} voxels against each other. "
                             "Change one filter or pooling size by one.")
        crops.append(int(crop))
        steps.append(int(step))
    with all_or_nothing(branch, skip):
        if any(c < 0 for c in crops):
            branch = Crop(branch, [max(-c, 0) // t for c, t in zip(crops, steps)], print_repr=print_repr)
        if any(c > 0 for c in crops):
            skip = Crop(skip, [max(c, 0) for c in crops], print_repr=print_repr)
        if b["f"] != s["f"] or any(t > 1 for t in steps):
            skip = Conv(skip, b["f"], [1] * b.ndim, activation_func="lin", name="projection", print_repr=print_repr,
                        stride=steps)
        if activation_func in ("lin", "linear"):
            return Add(branch, skip, name=name, print_repr=print_repr)
        return Activation(Add(branch, skip, print_repr=print_repr), activation_func, name=name, print_repr=print_repr)
