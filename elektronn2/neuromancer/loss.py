"""Losses of numbers, distances and affinities, and the sum that is trained on.

Those of class probabilities are in ``class_loss.py``; all are names of this module.
"""

import numpy as np

from elektronn2.config import config
from elektronn2.neuromancer import loss_functions as L
from elektronn2.neuromancer.class_loss import (
    SCALAR,
    BlockedMultinoulliNLL,
    Classification,
    DiceCELoss,
    DiceLoss,
    Errors,
    FocalLoss,
    LovaszSoftmax,
    MultinoulliNLL,
    Softmax,
    TverskyLoss,
    _Errors,
    check_sizes,
    check_target,
    checked_ids,
    expression,
    feature_axis,
    positive,
    softmax_of,
    weight_class,
    weighting_nodes,
    what,
)
from elektronn2.neuromancer.node_basic import Node

__all__ = ["AbsLoss", "Affinities", "AffinityLoss", "AggregateLoss", "BetaNLL", "BinaryNLL", "BlockedMultinoulliNLL",
           "BoundaryLoss", "Classification", "DiceCELoss", "DiceLoss", "Errors", "EuclideanDistance", "FocalLoss",
           "GaussianNLL", "LovaszSoftmax", "MultinoulliNLL", "OneHot", "RampLoss", "SignedDistance", "SobelizedLoss",
           "Softmax", "SquaredLoss", "TverskyLoss", "_Errors"]


class AggregateLoss(Node):
    """The scalar that is trained on: mean over the losses of weight * mean(loss).

    ``parent_nodes``: one loss node or a list, any shapes; output (1,). ``mixing_weights``: one factor per loss
    (default ones), an untrained parameter. ValueError if their number differs, or for an empty list.
    """

    def __init__(self, parent_nodes, mixing_weights=None, name="total_loss", print_repr=True):
        nodes = list(parent_nodes) if isinstance(parent_nodes, (list, tuple)) else [parent_nodes]
        if not nodes:
            raise ValueError(f"AggregateLoss {name!r}: parent_nodes is empty, at least one loss is needed.")
        super().__init__(nodes, name, print_repr)
        n = len(self.parents)
        given = np.ones(n) if mixing_weights is None else mixing_weights
        if isinstance(given, (list, tuple)) and not (len(given) == 2 and isinstance(given[1], str)):
            given = np.asarray(given, float)
        if isinstance(given, np.ndarray) and given.shape != (n,):
            raise ValueError(f"AggregateLoss {name!r}: mixing_weights needs {n} values, one per loss, "
                             f"got {mixing_weights!r}.")
        self.make_param("mixing_weights", given, (n,), None, apply_train=False, apply_reg=False)

    def _make_output(self):
        self.output = L.aggregate([p.output for p in self.parents], self.mixing_weights)

    def _calc_shape(self):
        self.shape = SCALAR

    def _calc_comp_cost(self):
        self.computational_cost = sum(p.shape.stripnone_prod for p in self.parents)


# -- numbers --------------------------------------------------------------------------------------------
def target_of(node, pred, target):
    """Expression of a target that must have the shape of ``pred``; axis s may be missing: then all samples share it."""
    if pred.shape.hastag("s") and not target.shape.hastag("s"):
        i = pred.shape.tag2index("s")
        if pred.shape.delaxis(i).tags != target.shape.tags or any(
                n is not None and m is not None and n != m for n, m in zip(pred.shape.delaxis(i), target.shape)):
            raise ValueError(f"{what(node)}: {target.name!r} has shape {target.shape}, needed is {pred.shape}, with or "
                             f"without axis s, to go with {pred.name!r}.")
        return target.output.unsqueeze(i)
    check_target(node, pred, target)
    return target.output


class BinaryNLL(Node):
    """Negative log-likelihood of probabilities of yes or no.

    out = (-t * ln(p + 1e-5) - (1 - t) * ln(1 - p + 1e-5)) * size / (n_labelled + 1)

    ``pred`` (b, f, *L): probabilities; ``target``: the same shape, probabilities or 0 and 1; -1 and below, and NaN, are
    unlabelled: 0 there. Output (b, f, *L), whose mean is (nearly) the mean per labelled element. If ``pred`` has an
    axis s that the target lacks, all samples share the target. ``subtract_label_entropy``: minus the entropy of the
    targets, so that the best possible value is 0 (their divergence). ValueError if shapes do not fit.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p, t = (nm.Input((1, 3), 'b,f', name=n, print_repr=False) for n in 'pt')
    >>> loss = nm.BinaryNLL(p, t, print_repr=False)
    >>> loss([[0.5, 0.5, 0.5]], [[1, 0.5, -666]]).round(2)  # ln(2), times 3 / (2 + 1)
    array([[0.69, 0.69, 0.  ]], dtype=float32)
    """

    def __init__(self, pred, target, subtract_label_entropy=False, name="binary_nll", print_repr=True):
        super().__init__([pred, target], name, print_repr)
        self.subtract_label_entropy = bool(subtract_label_entropy)
        self._target = target_of(self, pred, target)

    def _make_output(self):
        self.output = L.binary_nll(self.parents[0].output, self._target, self.subtract_label_entropy)


class SquaredLoss(Node):
    """Half of the squared difference, mean over the features.

    out = mean_f(0.5 * (t - p) ** 2) * size / (n_labelled + 1)

    ``pred``, ``target`` (b, f, *L); target values NaN or -666 are unlabelled: 0 there. Output (b, 1, *L). If ``pred``
    has an axis s that the target lacks, all samples share the target. ``margin``: differences below it do not count.
    ``scale_correction`` c: times c / (abs(t) + c), so that large targets do not dominate. Both are untrained
    parameters if given and not 0. ValueError if they are negative, or shapes do not fit.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p, t = (nm.Input((1, 1, 3), 'b,f,x', name=n, print_repr=False) for n in 'pt')
    >>> loss = nm.SquaredLoss(p, t, margin=0.5, print_repr=False)
    >>> loss(np.zeros((1, 1, 3)), [[[2, 0.25, -666]]])
    array([[[2., 0., 0.]]], dtype=float32)
    """

    _absolute = False

    def __init__(self, pred, target, margin=None, scale_correction=None, name="se", print_repr=True):
        super().__init__([pred, target], name, print_repr)
        self.axis = feature_axis(self, pred)
        self._target = target_of(self, pred, target)
        self.margin = self.scale_correction = None
        for key, given in (("margin", margin), ("scale_correction", scale_correction)):
            if given is None or (np.isscalar(given) and given == 0):
                continue
            param = self.make_param(key, given, (), None, apply_train=False, apply_reg=False)
            positive(self, **{key: float(param.get_value())})

    def _make_output(self):
        self.output = L.difference(self.parents[0].output, self._target, self.margin, self.scale_correction,
                                   self._absolute, self.axis)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", 1)


class AbsLoss(SquaredLoss):
    """Absolute difference, mean over the features: mean_f(abs(t - p)) * size / (n_labelled + 1).

    Inputs (b, f, *L), output (b, 1, *L); as :class:`SquaredLoss`, but ``scale_correction`` c: times c * abs(t) + 1.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p, t = (nm.Input((1, 1, 2), 'b,f,x', name=n, print_repr=False) for n in 'pt')
    >>> nm.AbsLoss(p, t, print_repr=False)(np.zeros((1, 1, 2)), [[[3, -666]]])
    array([[[3., 0.]]], dtype=float32)
    """

    _absolute = True

    def __init__(self, pred, target, margin=None, scale_correction=None, name="absloss", print_repr=True):
        super().__init__(pred, target, margin, scale_correction, name, print_repr)


class GaussianNLL(Node):
    """Negative log-likelihood of normal distributions with predicted mean and deviation.

    out = 0.5 * ln(2 * pi) + ln(sig) + 0.5 * ((t - mu) / sig) ** 2

    ``mu``, ``sig`` (b, f, *L), sig positive, or its logarithm if ``sig_is_log``; ``target`` (b, f, *L), where NaN and
    -666 are unlabelled: 0 there, and the rest scaled so that the mean is that of the labelled elements. Output
    (b, f, *L). If ``mu`` has an axis s that the target lacks, all samples share the target. ValueError if shapes do
    not fit.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> mu, sig, t = (nm.Input((1, 1), 'b,f', name=n, print_repr=False) for n in ('mu', 'sig', 't'))
    >>> nm.GaussianNLL(mu, sig, t, print_repr=False)([[0]], [[1]], [[2]]).round(2)  # ln(2 * pi) / 2 + 2
    array([[2.92]], dtype=float32)
    """

    def __init__(self, mu, sig, target, sig_is_log=False, name="g_nll", print_repr=True):
        super().__init__([mu, sig, target], name, print_repr)
        self.sig_is_log = bool(sig_is_log)
        check_target(self, mu, sig)
        self._target = target_of(self, mu, target)

    def _make_output(self):
        mu, sig, _ = self.parents
        self.output = L.gaussian_nll(mu.output, sig.output, self._target, self.sig_is_log)


class BetaNLL(Node):
    """Negative log-likelihood of beta distributions with predicted mode and concentration, for targets in [0, 1].

    out = -ln(Beta(t; a, b)) + softplus(-c), a = mode * (c - 2) + 1, b = (1 - mode) * (c - 2) + 1

    with ln(t + 1e-5) and ln(1 - t + 1e-5) in it. ``mode`` in [0, 1] and ``concentration`` c above 2, (b, f, *L);
    ``target`` (b, f, *L), where NaN and -666 are unlabelled: 0 there, and the rest scaled so that the mean is that of
    the labelled elements. Output (b, f, *L). If ``mode`` has an axis s that the target lacks, all samples share the
    target. The activation 'concentration' gives suitable c. ValueError if shapes do not fit.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> mode, c, t = (nm.Input((1, 1), 'b,f', name=n, print_repr=False) for n in ('mode', 'c', 't'))
    >>> nm.BetaNLL(mode, c, t, print_repr=False)([[0.5]], [[4]], [[0.5]]).round(2)  # -ln(1.5) + ln(1 + e^-4)
    array([[-0.39]], dtype=float32)
    """

    def __init__(self, mode, concentration, target, name="beta_nll", print_repr=True):
        super().__init__([mode, concentration, target], name, print_repr)
        check_target(self, mode, concentration)
        self._target = target_of(self, mode, target)

    def _make_output(self):
        mode, concentration, _ = self.parents
        self.output = L.beta_nll(mode.output, concentration.output, self._target)


class EuclideanDistance(Node):
    """Distance of two vectors: sqrt(sum_f((t - p) ** 2)), 0 where an entry is NaN or the target is -666.

    ``pred``, ``target`` (b, f, *L), output (b, 1, *L). ValueError if shapes do not fit.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p, t = (nm.Input((1, 2), 'b,f', name=n, print_repr=False) for n in 'pt')
    >>> nm.EuclideanDistance(p, t, print_repr=False)([[0, 0]], [[3, 4]])
    array([[5.]], dtype=float32)
    """

    def __init__(self, pred, target, name="se", print_repr=True):
        super().__init__([pred, target], name, print_repr)
        self.axis = feature_axis(self, pred)
        self._target = target_of(self, pred, target)

    def _make_output(self):
        self.output = L.euclidean(self.parents[0].output, self._target, self.axis)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", 1)


class RampLoss(Node):
    """What a distance that should be small exceeds one that should be big by: mean_f(max(0, low - big + margin)).

    ``d_low``, ``d_big`` (b, f, *L), 0 where one is NaN; output (b, 1, *L). ``margin``: by how much big should at least
    be bigger (default 0), an untrained parameter. ValueError if shapes do not fit.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> low, big = (nm.Input((1, 1, 3), 'b,f,x', name=n, print_repr=False) for n in ('low', 'big'))
    >>> nm.RampLoss(low, big, margin=0.5, print_repr=False)([[[1, 1, 1]]], [[[0, 1, 2]]])
    array([[[1.5, 0.5, 0. ]]], dtype=float32)
    """

    def __init__(self, d_low, d_big, name="se", margin=None, print_repr=True):
        super().__init__([d_low, d_big], name, print_repr)
        self.axis = feature_axis(self, d_low)
        check_target(self, d_low, d_big)
        self.make_param("margin", 0 if margin is None else margin, (), None, apply_train=False, apply_reg=False)

    def _make_output(self):
        low, big = self.parents
        self.output = L.ramp(low.output, big.output, self.margin, self.axis)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", 1)


def check_ids_node(node, target, axis="f"):
    """Index of the axis of a node of ids, which must have size 1."""
    if not target.shape.hastag(axis) or target.shape[axis] != 1:
        raise ValueError(f"{what(node)}: {target.name!r} has shape {target.shape}, but ids are needed: size 1 on axis "
                         f"{axis}.")
    return target.shape.tag2index(axis)


def check_n_class(node, n_class):
    if int(n_class) != n_class or n_class < 1:
        raise ValueError(f"{what(node)}: n_class must be an integer from 1 on, got {n_class!r}.")
    return int(n_class)


class OneHot(Node):
    """Class ids as vectors: 1 at the place of the id, 0 elsewhere; all 0 for negative ids.

    Input (b, 1, *L), output (b, n_class, *L) floating point; ``axis``: the letter of another axis of size 1.
    ValueError if that axis has another size, or (when computed) for ids from n_class on.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> t = nm.Input((3, 1), 'b,f', dtype='int16', print_repr=False)
    >>> nm.OneHot(t, 2, print_repr=False)([[1], [0], [-1]])
    array([[0., 1.],
           [1., 0.],
           [0., 0.]], dtype=float32)
    """

    def __init__(self, target, n_class, axis="f", name="onehot", print_repr=True):
        super().__init__(target, name, print_repr)
        self.n_class = check_n_class(self, n_class)
        self.axis = check_ids_node(self, target, axis)

    def _make_output(self):
        ids = checked_ids(self, self.parents[0], self.n_class)
        self.output = L.one_hot(ids, self.n_class, self.axis, config.floatX)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape(self.axis, self.n_class)


class _Sobel(Node):
    """Derivatives along each spatial axis, smoothed along the others; NaN where they touch NaN or -666.

    Filter [1, 0, -1] along one axis and [0.3, 0.4, 0.3] along the others, with zeros beyond the border. Input
    (b, f, *L), output (b, n * f, *L) for n spatial axes.
    """

    def __init__(self, parent, name="sobel", print_repr=False):
        super().__init__(parent, name, print_repr)
        self.axis = feature_axis(self, parent)
        if not parent.shape.ndim:
            raise ValueError(f"{what(self)}: {parent.name!r} has shape {parent.shape}, a spatial axis is needed.")

    def _make_output(self):
        s = self.parent.shape
        self.output = L.sobel(self.parent.output, s.spatial_axes, self.axis, config.floatX)

    def _calc_shape(self):
        s = self.parent.shape
        self.shape = s.shifted([-1] * s.ndim).convolved([3] * s.ndim).updateshape("f", s.ndim, "mult")

    def _calc_comp_cost(self):
        s = self.parent.shape
        self.computational_cost = s.stripnone_prod * s.ndim * (2 + 3 * (s.ndim - 1))


def SobelizedLoss(pred, target, loss_type="abs", loss_kwargs=None, name="absloss", print_repr=True):
    """:class:`AbsLoss` of the derivatives of prediction and target along all spatial axes: sharp edges in both.

    ``pred``, ``target`` (b, f, *L), output (b, 1, *L). Derivatives: [1, 0, -1] along one axis, smoothed by
    [0.3, 0.4, 0.3] along the others, with zeros beyond the border; where they touch an unlabelled element (NaN or -666)
    they are unlabelled. ``loss_kwargs``: arguments of AbsLoss. Makes two nodes more, 'pred sobel' and 'target sobel'.
    NotImplementedError for another ``loss_type`` than 'abs'.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p, t = (nm.Input((1, 1, 4), 'b,f,x', name=n, print_repr=False) for n in 'pt')
    >>> loss = nm.SobelizedLoss(p, t, print_repr=False)
    >>> loss([[[0, 0, 0, 0]]], [[[0, 0, 2, 2]]]).round(1)  # times 4 / (4 + 1)
    array([[[0. , 1.6, 1.6, 1.6]]], dtype=float32)
    """
    if loss_type != "abs":
        raise NotImplementedError(f"SobelizedLoss {name!r}: loss_type must be 'abs', got {loss_type!r}.")
    derivatives = [_Sobel(node, name=f"{role} sobel") for node, role in ((pred, "pred"), (target, "target"))]
    return AbsLoss(*derivatives, **{"name": name, "print_repr": print_repr, **(loss_kwargs or {})})


# -- distances ------------------------------------------------------------------------------------------
class SignedDistance(Node):
    """Distance of every voxel from each class: the map for :class:`BoundaryLoss`, or a target for regression.

    At voxels of another class the Euclidean distance to the nearest voxel of the class; at voxels of the class minus
    the distance to the nearest voxel of another. 0 where an example (of the batch) has no voxel of the class, or no
    other; NaN at unlabelled voxels (negative ids), which are no boundary either.

    Input: ids (b, 1, *L), output (b, n_class, *L) floating point, in units of ``spacing``: the size of a voxel, one
    number or one per spatial axis. ``scale``: tanh(distance / scale), between -1 and 1 (Heinrich et al. 2018, Synaptic
    cleft segmentation, https://arxiv.org/abs/1805.02718). Distances reach no farther than the patch. ValueError
    if there is no spatial axis or (when computed) for ids from n_class on.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> t = nm.Input((1, 1, 5), 'b,f,x', dtype='int16', print_repr=False)
    >>> nm.SignedDistance(t, 2, print_repr=False)([[[0, 0, 0, 1, 1]]])[0]
    array([[-3., -2., -1.,  1.,  2.],
           [ 3.,  2.,  1., -1., -2.]], dtype=float32)
    """

    def __init__(self, target, n_class, spacing=1.0, scale=None, name="distance", print_repr=True):
        super().__init__(target, name, print_repr)
        self.n_class = check_n_class(self, n_class)
        self.axis = check_ids_node(self, target)
        self.spacing = [float(v) for v in np.broadcast_to(spacing, np.shape(spacing) or target.shape.ndim)]
        if not target.shape.ndim or len(self.spacing) != target.shape.ndim or min(self.spacing) <= 0:
            raise ValueError(f"{what(self)}: spacing must have one positive number per spatial axis of {target.name!r}, "
                             f"{target.shape}, got {spacing!r}.")
        self.scale = scale if scale is None else positive(self, scale=scale)

    def _make_output(self):
        target = self.parents[0]
        ids = checked_ids(self, target, self.n_class)
        self.output = L.signed_distances(ids, self.n_class, self.spacing, target.shape.spatial_axes, self.scale,
                                         self.axis, config.floatX)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", self.n_class)

    def _calc_comp_cost(self):
        s = self.parents[0].shape
        self.computational_cost = 2 * self.n_class * s.stripnone_prod * sum(n or 1 for n in s.spatial_shape)


class BoundaryLoss(Node):
    """Mean distance of what is predicted from the true region: out = sum_f(w * p * d) per labelled voxel.

    ``pred`` (b, f, *L): probabilities; ``target`` (b, f, *L): distances from each class, negative within it, like those
    of :class:`SignedDistance`, where NaN and -666 are unlabelled. Output (b, 1, *L): 0 at unlabelled voxels, the rest
    scaled so that the mean is that of the labelled ones; below 0 is good. ``class_weights``: list, array or node (f,);
    ``example_weights``: node (b, *L). Meant to be added to a :class:`DiceLoss` with a small, growing weight, as alone
    it can stall on empty predictions. ValueError if shapes do not fit.

    Kervadec et al. 2019, Boundary loss for highly unbalanced segmentation, https://arxiv.org/abs/1812.07032

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Input((1, 2, 4), 'b,f,x', print_repr=False)
    >>> t = nm.Input_like(p, 'int16', override_f=1, print_repr=False)
    >>> loss = nm.BoundaryLoss(p, nm.SignedDistance(t, 2, print_repr=False), class_weights=[0, 1], print_repr=False)
    >>> loss([[[0, 1, 0, 0], [1, 0, 1, 1]]], [[[0, 0, 1, 1]]])
    array([[[ 2.,  0., -1., -2.]]], dtype=float32)
    """

    def __init__(self, pred, target, class_weights=None, example_weights=None, name="boundary", print_repr=True):
        extra = weighting_nodes(f"BoundaryLoss {name!r}", class_weights=class_weights, example_weights=example_weights)
        super().__init__([pred, target, *extra], name, print_repr)
        self.axis = feature_axis(self, pred)
        check_target(self, pred, target)
        weight_class(self, class_weights, pred.shape["f"], f"feature of {pred.name!r}")
        check_sizes(self, "example_weights", example_weights, pred.shape.delaxis("f"))
        self.example_weights = example_weights

    def _make_output(self):
        pred, target = self.parents[:2]
        self.output = L.boundary(pred.output, target.output, expression(self.class_weights),
                                 expression(self.example_weights), self.axis)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", 1)


# -- affinities -----------------------------------------------------------------------------------------
class Affinities(Node):
    """Whether voxels at given offsets belong to the same object: targets for :class:`AffinityLoss`.

    Input: ids of objects (b, 1, *L), 0: no object, negative: unlabelled. ``nhood``: (e, n) integers, the edges, of
    any length (None: to the next voxel along each of the n axes). Output (b, e, *L) int16: edge e of voxel v is 1
    if v and v + nhood[e] have the same id above 0, -1 if one of them is unlabelled or outside, and else 0. (The
    affinities that batches can bring along are 0 outside.) ValueError for edges of another number of axes, or none.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> t = nm.Input((1, 1, 6), 'b,f,x', dtype='int16', print_repr=False)
    >>> nm.Affinities(t, [[1], [-3]], print_repr=False)([[[5, 5, 0, 5, 7, -1]]])[0]
    array([[ 1,  0,  0,  0, -1, -1],
           [-1, -1, -1,  1,  0, -1]], dtype=int16)
    """

    def __init__(self, target, nhood=None, name="affinities", print_repr=True):
        super().__init__(target, name, print_repr)
        self.axis = check_ids_node(self, target)
        ndim = target.shape.ndim
        edges = np.eye(ndim, dtype=int) if nhood is None else np.asarray(nhood)
        if edges.ndim != 2 or edges.shape[1] != ndim or not edges.size or edges.dtype.kind not in "iu" or not (
                edges.any(1).all()):
            raise ValueError(f"{what(self)}: nhood must be a list of edges, each with one integer per spatial axis of "
                             f"{target.name!r}, {target.shape}, and none of them all 0; got {nhood!r}.")
        self.nhood = edges.tolist()

    def _make_output(self):
        target = self.parents[0]
        self.output = L.affinities(target.output, self.nhood, target.shape.spatial_axes, self.axis)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", len(self.nhood))

    def _calc_comp_cost(self):
        self.computational_cost = len(self.nhood) * self.parents[0].shape.stripnone_prod


class AffinityLoss(Node):
    """Binary cross-entropy of affinities, of any neighbourhood, with both answers weighted equally for each edge.

    out = mean_e(w * (-t * ln(p + 1e-5) - (1 - t) * ln(1 - p + 1e-5))) per labelled edge

    ``pred``: probabilities of being connected (b, e, *L), such as sigmoids, or a Softmax (b, 2 * e, *L) with
    ``n_indep=e`` blocks of (not connected, connected). ``target``: affinities (b, e, *L), negative ones and NaN are
    unlabelled; from ids of objects by :class:`Affinities`, also of long range. Output (b, 1, *L), whose mean is the
    mean over the labelled edges.

    ``balance``: times 1 / (2 * share), of the connected and of the others among the labelled edges of each kind in the
    batch, where shares are clipped to [0.05, 0.95]. ``class_weights``: list, array or node (e,), one factor per edge.
    ``example_weights``: node (b, *L). ValueError if shapes do not fit.

    Lee et al. 2017, Superhuman accuracy on the SNEMI3D connectomics challenge, https://arxiv.org/abs/1706.00120

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Input((1, 2, 4), 'b,f,x', print_repr=False)
    >>> t = nm.Input_like(p, 'int16', override_f=1, print_repr=False)
    >>> loss = nm.AffinityLoss(p, nm.Affinities(t, [[1], [2]], print_repr=False), print_repr=False)
    >>> loss(np.full((1, 2, 4), 0.5), [[[3, 3, 4, 3]]]).mean().round(2)  # ln(2), whatever the shares
    np.float32(0.69)
    """

    def __init__(self, pred, target, balance=True, class_weights=None, example_weights=None, name="affinity_nll",
                 print_repr=True):
        extra = weighting_nodes(f"AffinityLoss {name!r}", class_weights=class_weights, example_weights=example_weights)
        super().__init__([pred, target, *extra], name, print_repr)
        self.balance = bool(balance)
        self.axis = feature_axis(self, pred)
        softmax = softmax_of(pred)
        if softmax is not None and softmax.n_class != 2:
            raise ValueError(f"{what(self)}: {pred.name!r} has blocks of {softmax.n_class} classes, needed are 2 (not "
                             "connected, connected), one block per edge.")
        n = pred.shape["f"] if softmax is None else softmax.n_indep
        check_target(self, pred, target, n)
        weight_class(self, class_weights, n, "edge")
        check_sizes(self, "example_weights", example_weights, pred.shape.delaxis("f"))
        self.example_weights = example_weights
        self._softmax = softmax

    def _make_output(self):
        pred, target = self.parents[:2]
        connected = pred.output if self._softmax is None else L.every_second(pred.output, self.axis)
        self.output = L.affinity_nll(connected, target.output, expression(self.class_weights),
                                     expression(self.example_weights), self.balance, self.axis)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", 1)
