"""Nodes for special purposes: other axes for the same values, random variables, loops, local response normalisation."""
from elektronn2.neuromancer import computations as C
from elektronn2.neuromancer.node import Node
from elektronn2.neuromancer.node_basic import Concat, aligned_outputs, merged_shape
from elektronn2.neuromancer.resampling import spatial_layout
from elektronn2.neuromancer.scan import Scan
from elektronn2.neuromancer.shape import TaggedShape
from elektronn2.utils.validate import as_int, as_rate, as_tuple

__all__ = ["LRN", "FaithlessMerge", "GaussianAEVBPrior", "GaussianRV", "Reshape", "Scan"]


class Reshape(Node):
    """The same values, in order, on other axes. Input (b, f, *L), output ``shape``, of as many elements.

    ``shape``: TaggedShape; or sizes, with ``tags``, ``strides`` and ``fov``. One size may be None: it is what is left, and
    stays open if the parent has an open size. Where all axes from the first spatial one on stay as they are, they keep
    their strides and positions, unless others are given.

    Raises ValueError if tags are missing or the numbers of elements differ.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((None, 6, 4), 'b,f,x', print_repr=False)
    >>> nm.Reshape(x, (None, 2, 3, 4), 'b,s,f,x', print_repr=False).shape
    [(None,b), (2,s), (3,f), (4,x)]
    """

    def __init__(self, parent, shape, tags=None, strides=None, fov=None, name="reshape", print_repr=True):
        super().__init__(parent, name, print_repr)
        before, where = parent.shape, f"Reshape {name!r} of {parent.name!r} {parent.shape}"
        if isinstance(shape, TaggedShape):
            if not (tags is strides is fov is None):
                raise ValueError(f"{where}: tags, strides and fov are those of the TaggedShape {shape}; do not give others.")
            self._declared = _with_size_left(shape, before, where)
        elif tags is None:
            raise ValueError(f"{where}: sizes {shape!r} need tags, like 'b,f,x,y'.")
        else:
            self._declared = _with_size_left(TaggedShape(shape, tags, strides, fov=fov), before, where)
            if strides is None and fov is None:
                self._declared = _with_kept_space(self._declared, before)
        if len(before.mfp_offsets) > 1 and len(self._declared.mfp_offsets) != len(before.mfp_offsets):
            raise ValueError(f"{where}: axis b holds {len(before.mfp_offsets)} MFP fragments; use FragmentsToDense first.")

    def _make_output(self):
        open_axis = None if None in self._declared.shape else "b"  # dense prediction runs with a batch size of its own
        sizes = [-1 if n is None or t == open_axis else n for n, t in zip(self._declared, self._declared.tags)]
        self.output = C.reshape(self.parent.output, sizes)

    def _calc_shape(self):
        self.shape = self._declared

    def _calc_comp_cost(self):
        self.computational_cost = 0

    def _axis_size(self, k, *sizes, mfp=False):
        before, after = self.parent.shape.spatial_shape, self._declared.spatial_shape
        if k < len(before) and sizes[0] != before[k]:
            raise ValueError(f"Reshape {self.name!r}: its sizes {self._declared} are fixed for {self.parent.name!r} "
                             f"{self.parent.shape}, which cannot get length {sizes[0]} on axis "
                             f"{self.parent.shape.spatial_tags[k]!r}.")
        return after[k] if k < len(after) else None


def _with_size_left(shape, before, where):
    """``shape`` with the size that is None worked out from those of ``before``, or open if one of those is."""
    wanted, had = shape.stripnone_prod, before.stripnone_prod
    n_open, n_before = shape.shape.count(None), before.shape.count(None)
    if n_open > 1 or (n_before and n_open != n_before):
        raise ValueError(f"{where}: to become {shape}, exactly one size may be None"
                         f"{', as the parent has open sizes' * bool(n_before)}.")
    if had != wanted if n_before == n_open else (not wanted or had % wanted):
        raise ValueError(f"{where}: its {had} elements (open sizes not counted) do not fit {shape}, which has {wanted}. "
                         "Give None for one size, and it is worked out.")
    if n_open and not n_before:
        return shape.updateshape(shape.shape.index(None), had // wanted)
    return shape


def _with_kept_space(shape, before):
    """``shape`` with the geometry of ``before``, if the first axis and all from the first spatial one on are the same."""
    if not shape.ndim or not before.ndim:
        return shape
    new, old = ([(t, n) for t, n in zip(s.tags, s)] for s in (shape, before))
    same = new[0] == old[0] and new[shape.spatial_axes[0]:] == old[before.spatial_axes[0]:]
    return before._new(shape=shape.shape, tags=shape.tags) if same else shape


def _setting(node, name, value):
    """A number that belongs to ``node`` and that can be changed at any time: a parameter that is never trained."""
    node.make_param(name, value, (), None, apply_train=False, apply_reg=False)
    return node.model.graph.param(node.params[name])


class LRN(Node):
    """Local response normalisation: ``x / (k + alpha * m) ** beta`` with m the mean of x squared around each value.

    Input (b, f, *L), output (b, f, *L). ``mode`` 'spatial': m over a box of ``filter_shape`` voxels (odd) of the same
    feature, with zeros outside; 'channel': m over ``filter_shape`` (one odd number) neighbouring features, edge features
    repeated. ``alpha``, ``beta`` and ``k`` are parameters that are not trained.

    Raises ValueError for an even filter or an unknown mode.

    Source: Krizhevsky et al. 2012, ImageNet classification with deep convolutional neural networks (section 3.3, which
    sums over features where this takes the mean).

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> y = nm.LRN(nm.Input((1, 3), 'b,f', print_repr=False), 3, 'channel', alpha=3, beta=1, print_repr=False)
    >>> y(np.array([[0, 1, 1]], 'float32'))
    array([[0.        , 0.33333334, 0.25      ]], dtype=float32)
    """

    def __init__(self, parent, filter_shape, mode="spatial", alpha=0.0001, k=1, beta=0.75, name="LRN", print_repr=True):
        super().__init__(parent, name, print_repr)
        if mode not in ("spatial", "channel"):
            raise ValueError(f"LRN {name!r}: mode must be 'spatial' or 'channel', got {mode!r}.")
        self.mode = mode
        ndim = spatial_layout(self, parent) if mode == "spatial" else 1
        self._axis = parent.shape.tag2index("f")
        self.filter_shape = as_tuple(filter_shape, ndim, f"filter_shape of LRN {name!r}")
        if any(n % 2 == 0 for n in self.filter_shape):
            raise ValueError(f"LRN {name!r}: filter_shape must be odd, to have a middle, got {filter_shape!r}.")
        self._alpha, self._k, self._beta = (_setting(self, n, v) for n, v in (("alpha", alpha), ("k", k), ("beta", beta)))

    def _make_output(self):
        x = self.parent.output
        m = (C.box_mean(x * x, self.filter_shape) if self.mode == "spatial"
             else C.neighbour_mean(x * x, self.filter_shape[0], self._axis))
        self.output = x / (self._k + self._alpha * m) ** self._beta

    def _calc_shape(self):
        self.shape = self.parent.shape
        if self.mode == "spatial":
            self.shape = self.shape.shifted([-(n // 2) for n in self.filter_shape]).convolved(self.filter_shape)

    def _repr_details(self):
        return f"{self.mode}, filter={self.filter_shape}, "


class FaithlessMerge(Concat):
    """Concatenation that fails at times while training, so that both parts learn to do without the other.

    With probability ``failing_prob`` per call, one of the two is replaced by zeros: ``easy_features`` with probability
    ``hardeasy_ratio``, else ``hard_features``. In prediction nothing fails. Both rates are parameters that are not trained.
    Input (b, f_i, *L) twice, output (b, f_1 + f_2, *L), or joined along another ``axis``. ValueError for rates beyond 0..1.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> hard, easy = (nm.Input((1, n, 9), 'b,f,x', name=name, print_repr=False) for name, n in (('hard', 4), ('easy', 2)))
    >>> nm.FaithlessMerge(hard, easy, failing_prob=0.3, print_repr=False).shape
    [(1,b), (6,f), (9,x)]
    """

    def __init__(self, hard_features, easy_features, axis="f", failing_prob=0.5, hardeasy_ratio=0.8, name="faithless_merge",
                 print_repr=True):
        super().__init__([hard_features, easy_features], axis, name, print_repr)
        for key, rate in (("failing_prob", failing_prob), ("hardeasy_ratio", hardeasy_ratio)):
            as_rate(rate, f"{key} of FaithlessMerge {name!r}")
        self._failing = _setting(self, "failing_prob", failing_prob)
        self._ratio = _setting(self, "hardeasy_ratio", hardeasy_ratio)

    def _make_output(self):
        hard, easy = aligned_outputs(self.parents)
        fails, spares_hard = C.happens(self._failing), C.happens(self._ratio)
        train = C.concatenate([hard * (1 - fails * (1 - spares_hard)), easy * (1 - fails * spares_hard)], self.axis)
        self.output = C.by_mode(train, C.concatenate([hard, easy], self.axis))


class GaussianRV(Node):
    """A normally distributed random variable: ``mu + exp(log_sig) * N(0, 1)``, differentiable in both.

    Inputs (b, f, *L) twice, output (b, f, *L), or (b, n_samples, f, *L) with ``n_samples`` independent draws. It
    is random in prediction, too; its expectation is ``mu``. :meth:`make_priorlayer` gives the loss that pulls it towards
    N(0, 1).

    Raises ValueError if shapes differ or, with samples, there is no axis b.

    Source: Kingma and Welling 2014, Auto-encoding variational Bayes.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> mu, log_sig = nm.split(nm.Input((2, 8), 'b,f', print_repr=False), 'f', n_out=2)
    >>> nm.GaussianRV(mu, log_sig, n_samples=10, print_repr=False).shape
    [(2,b), (10,s), (4,f)]
    """

    def __init__(self, mu, log_sig, n_samples=0, name="state", print_repr=True):
        super().__init__([mu, log_sig], name, print_repr)
        self.mu, self.log_sig = mu, log_sig
        self._merged, self.n_samples = _sampled(self, n_samples)

    def _make_output(self):
        mu, log_sig = aligned_outputs(self.parents)
        self.output = C.gaussian(*_repeated(self, mu, log_sig))

    def _calc_shape(self):
        self.shape = self._merged

    def _calc_comp_cost(self):
        self.computational_cost = self.shape.stripnone_prod

    def make_priorlayer(self):
        """A :class:`GaussianAEVBPrior` of the same variable, named after this node."""
        return GaussianAEVBPrior(self.mu, self.log_sig, self.n_samples, name=f"{self.name}_prior",
                                 print_repr=self.print_repr)


class GaussianAEVBPrior(Node):
    """How far a normal distribution is from N(0, 1), per element: ``0.5 * (mu**2 + sig**2 - 1 - 2 * log_sig)``.

    Inputs mu and log_sig (b, f, *L), output (b, f, *L), or (b, n_samples, f, *L) with the same values for every sample.
    The sum over elements is the Kullback-Leibler divergence of independent variables.

    Source: Kingma and Welling 2014, Auto-encoding variational Bayes, appendix B.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> mu = nm.ValueNode((1, 2), 'b,f', value=[[0, 2]], print_repr=False)
    >>> log_sig = nm.ValueNode((1, 2), 'b,f', print_repr=False)
    >>> nm.GaussianRV(mu, log_sig, print_repr=False).make_priorlayer()()
    array([[0., 2.]], dtype=float32)
    """

    def __init__(self, mu, log_sig, n_samples=0, name="prior", print_repr=True):
        super().__init__([mu, log_sig], name, print_repr)
        self._merged, self.n_samples = _sampled(self, n_samples)

    def _make_output(self):
        mu, log_sig = _repeated(self, *aligned_outputs(self.parents))
        self.output = 0.5 * (mu * mu + (2 * log_sig).exp() - 1 - 2 * log_sig)

    def _calc_shape(self):
        self.shape = self._merged

    def _calc_comp_cost(self):
        self.computational_cost = self.shape.stripnone_prod


def _sampled(node, n_samples):
    """(shape of both parents with an axis s right of b, number of samples); without samples there is no axis s."""
    shape = merged_shape(node, node.parents)
    n = as_int(n_samples, f"n_samples of {type(node).__name__} {node.name!r}", minimum=0)
    if n and not shape.hastag("b"):
        raise ValueError(f"{type(node).__name__} {node.name!r}: samples need an axis b to stand beside; "
                         f"{node.parents[0].name!r} is {shape}.")
    return (shape.addaxis("b", n, "s") if n else shape), n


def _repeated(node, *values):
    if not node.n_samples:
        return values
    return [C.repeat(v, node.n_samples, node._merged.tag2index("s")) for v in values]
