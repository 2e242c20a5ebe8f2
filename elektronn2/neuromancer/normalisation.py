"""Normalisation by statistics of one image, as layers of their own: instance, group and layer normalisation.

They stand behind a layer without activation, and bring the activation themselves::

    out = nm.Conv(inp, 32, (3, 3, 3), activation_func="lin")
    out = nm.InstanceNorm(out, "relu")

Batches of one are enough, other than for batch normalisation (an option of the layers), and training and prediction
compute the same. But statistics over space are those of the patch: a prediction in tiles then differs from one of the
whole volume, and ``predict_dense`` warns. The field of view stays formally as it was.
"""
from elektronn2.neuromancer import computations as C
from elektronn2.neuromancer.neural import NeuralLayer
from elektronn2.utils.validate import as_int


class _Norm(NeuralLayer):
    """What the normalisations have in common: scale and shift per feature, activation."""

    def _init_norm(self, parent, activation_func, affine, eps, name, print_repr, b, gamma):
        where = f"{type(self).__name__} {name!r}"
        axis = parent.shape.tag2index("f")
        self._init_layer(parent, parent.shape[axis], activation_func, False, 0, name, print_repr)
        if not eps > 0:
            raise ValueError(f"{where}: eps must be positive, got {eps!r}.")
        self.affine, self.eps, self.axis = bool(affine), float(eps), axis
        if not affine and (activation_func == "prelu" or b is not None or gamma is not None):
            raise ValueError(f"{where}: gamma, b and 'prelu' (whose slopes are in b) need affine=True.")
        if affine:
            self.make_param("gamma", gamma, (self.n_f,), dict(mode="const", scale=1.0), apply_reg=False)
            shape, mode = ((self.n_f, 2), "prelu") if activation_func == "prelu" else ((self.n_f,), "const")
            self.make_param("b", b, shape, dict(mode=mode, scale=0.0), apply_reg=False)

    def _make_output(self):
        gamma, b = (self.model.graph.param(self.gamma), self._bias()) if self.affine else (None, None)
        self.output = self._activate(self._normalised(self.parent.output, gamma, b), bias_added=True, axis=self.axis)

    def _calc_shape(self):
        self.shape = self.parent.shape.updateshape("f", self.n_f // self._maxout)

    def _repr_details(self):
        return f"act='{self.activation_func}', "


class GroupNorm(_Norm):
    """Each image and group of features normalised to mean 0 and variance 1, then scaled, shifted, activated.

    Input (b, f, *L), output (b, f, *L): ``act(gamma * (x - mean) / sqrt(var + eps) + b)``, with mean and variance over
    ``n_groups`` runs of f / n_groups consecutive features and all of L, gamma (f,) and b (f,) learnt, without weight
    decay; act is ``activation_func``, as of the layers. ``affine=False``: neither. Statistics are those of the patch (see
    above), also in prediction; with max-fragment pooling, of each fragment.

    ValueError if the groups do not divide the features, or are of a single value, which would always become 0.

    Source: Wu and He 2018, Group normalization.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> y = nm.GroupNorm(nm.Input((1, 4, 1), 'b,f,x', print_repr=False), 2, print_repr=False)
    >>> y(np.array([[[1], [3], [5], [9]]], 'float32')).ravel().round(3)
    array([-1.,  1., -1.,  1.], dtype=float32)
    """

    def __init__(self, parent, n_groups, activation_func="lin", affine=True, eps=1e-5, name="group_norm", print_repr=True,
                 b=None, gamma=None):
        self._init_norm(parent, activation_func, affine, eps, name, print_repr, b, gamma)
        self._init_groups(n_groups)

    def _init_groups(self, n_groups):
        where, s = f"{type(self).__name__} {self.name!r}", self.parent.shape
        if s.tags[:2] != ["b", "f"] or len(s) != s.ndim + 2:
            raise ValueError(f"{where} needs axes b, f and then space; {self.parent.name!r} is {s}.")
        n_groups = as_int(n_groups, f"n_groups of {where}")
        if self.n_f % n_groups:
            divisors = [k for k in range(1, self.n_f + 1) if self.n_f % k == 0]
            raise ValueError(f"{where}: n_groups must divide the {self.n_f} features of {self.parent.name!r} "
                             f"({', '.join(map(str, divisors))}), got {n_groups!r}.")
        if None not in s.spatial_shape and s.spatial_size * self.n_f == n_groups:
            raise ValueError(f"{where}: groups of {self.parent.name!r} {s} have a single value, which is always normalised "
                             "to 0. Use fewer groups or a larger patch.")
        self.n_groups = n_groups
        self.patch_statistics = s.ndim > 0

    def _normalised(self, x, gamma, b):
        return C.group_normalise(x, self.n_groups, gamma, b, self.eps)

    def _repr_details(self):
        return f"n_groups={self.n_groups}, " + super()._repr_details()


class InstanceNorm(GroupNorm):
    """Each image and feature normalised over space to mean 0 and variance 1, then scaled, shifted, activated.

    Input (b, f, *L), output (b, f, *L): :class:`GroupNorm` with one group per feature. ValueError if there is a single
    position, whose value would always become 0.

    ``activation_func``, ``affine``, ``eps``, ``gamma``, ``b``: as of GroupNorm.

    Source: Ulyanov et al. 2016, Instance normalization: the missing ingredient for fast stylization.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> y = nm.InstanceNorm(nm.Input((1, 2, 2), 'b,f,x', print_repr=False), 'relu', print_repr=False)
    >>> y(np.array([[[1, 3], [9, 5]]], 'float32')).round(3)
    array([[[0., 1.],
            [1., 0.]]], dtype=float32)
    """

    def __init__(self, parent, activation_func="lin", affine=True, eps=1e-5, name="instance_norm", print_repr=True, b=None,
                 gamma=None):
        self._init_norm(parent, activation_func, affine, eps, name, print_repr, b, gamma)
        self._init_groups(self.n_f)

    def _repr_details(self):
        return _Norm._repr_details(self)


class LayerNorm(_Norm):
    """The features of each position normalised to mean 0 and variance 1, then scaled, shifted, activated.

    Input (b, f, *L), output (b, f, *L), f on any axis: ``act(gamma * (x - mean) / sqrt(var + eps) + b)``, with mean and
    variance over f at each position, gamma (f,) and b (f,) learnt, without weight decay; act is ``activation_func``.
    ``affine=False``: neither.
    Nothing is shared between positions, so predictions in tiles equal those of the whole.
    (For statistics over f and space use :class:`GroupNorm` with one group.)

    ValueError for a single feature, which would always become 0.

    Source: Ba et al. 2016, Layer normalization.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> y = nm.LayerNorm(nm.Input((1, 2, 2), 'b,f,x', print_repr=False), print_repr=False)
    >>> y(np.array([[[1, 3], [9, 5]]], 'float32')).round(3)
    array([[[-1., -1.],
            [ 1.,  1.]]], dtype=float32)
    """

    def __init__(self, parent, activation_func="lin", affine=True, eps=1e-5, name="layer_norm", print_repr=True, b=None,
                 gamma=None):
        self._init_norm(parent, activation_func, affine, eps, name, print_repr, b, gamma)
        if self.n_f == 1:
            raise ValueError(f"LayerNorm {name!r}: {parent.name!r} {parent.shape} has a single feature, which is always "
                             "normalised to 0. Use InstanceNorm, or more features.")

    def _normalised(self, x, gamma, b):
        return C.feature_normalise(x, gamma, b, self.eps, self.axis)
