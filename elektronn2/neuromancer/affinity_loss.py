"""Affinities: which voxels belong to the same object, and the losses of their predictions."""

import numpy as np

from elektronn2.malis import malisop
from elektronn2.neuromancer import loss_functions as L
from elektronn2.neuromancer.class_loss import softmax_of
from elektronn2.neuromancer.loss_checks import (
    SPARSE,
    check_ids_node,
    check_shape,
    check_target,
    expression,
    feature_axis,
    weight_class,
    weighting_nodes,
    what,
)
from elektronn2.neuromancer.node import Node


def edges_of(node, nhood, parent):
    """``nhood`` as a list of edges: lists of integers, one per spatial axis of ``parent``."""
    edges = np.asarray(nhood)
    if edges.ndim != 2 or edges.shape[1] != parent.shape.ndim or not edges.size or edges.dtype.kind not in "iu" or not (
            edges.any(1).all()):
        raise ValueError(f"{what(node)}: nhood must be a list of edges, each with one integer per spatial axis of "
                         f"{parent.name!r}, {parent.shape}, and none of them all 0; got {nhood!r}.")
    return edges.tolist()


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
        self.nhood = edges_of(self, np.eye(ndim, dtype=int) if nhood is None else nhood, target)

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

    >>> import numpy as np
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
        if softmax is not None and softmax[0] != 2:
            raise ValueError(f"{what(self)}: {pred.name!r} has blocks of {softmax[0]} classes, needed are 2 (not "
                             "connected, connected), one block per edge.")
        n = pred.shape["f"] if softmax is None else softmax[1]
        check_target(self, pred, target, n)
        weight_class(self, class_weights, n, "edge")
        check_shape(self, "example_weights", example_weights, pred.shape.delaxis("f"))
        self.example_weights = example_weights
        self._softmax = softmax

    def _make_output(self):
        pred, target = self.parents[:2]
        connected = pred.output if self._softmax is None else L.every_second(pred.output, self.axis)
        self.output = L.affinity_nll(connected, target.output, expression(self.class_weights),
                                     expression(self.example_weights), self.balance, self.axis)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", 1)


class MalisNLL(Node):
    """Negative log-likelihood of affinities, each edge weighted by the pairs of voxels whose connection depends on it.

    out = w * (-pos * ln(connected + 1e-5) - neg * ln(apart + 1e-5)) * size / (sum(pos + neg) + 1e-5)

    so that the mean is that per pair of voxels. In the maximum spanning tree of the predicted affinities exactly one edge,
    the weakest on the strongest path, decides whether two voxels are connected; ``pos`` and ``neg`` count the pairs of the
    same and of different objects at each edge. So the loss is large where few edges split or merge much.

    ``pred`` (b, 2 * e, *L): a Softmax with ``n_indep=e`` blocks of (not connected, connected), in two or three dimensions.
    ``aff_gt`` (b, e, *L): true affinities 0 or 1 (see :class:`Affinities`), ``seg_gt`` (b, 1, *L): ids of the objects.
    Negative ones count as 0, and voxels of id 0 in no pair. ``nhood``: (e, 2) or (e, 3) integers, the edges. Output
    (b, e, *L). Examples of a batch are separate graphs, and their pairs weigh the same.

    ``unrestrict_neg``: count pairs of different objects in the predicted graph as it is; else all true edges are added
    first. ``class_weights``: list, array or node (e,), ``example_weights``: node (b, *L). ValueError if ``pred`` is no
    Softmax of pairs, or shapes do not fit.

    Start the training with another loss, such as :class:`MultinoulliNLL`: of a graph that is all wrong, few edges get all
    the weight. Expressions for monitoring, also from :meth:`get_debug_outputs`: ``pos_count``, ``neg_count`` (b, e, *L)
    int64, ``false_splits`` and ``false_merges`` (1,) int64, the pairs of the same object that depend on an edge with an
    affinity below 0.5, and those of different objects on one above, and ``rand_index`` (1,), their share of all pairs: 0 is
    best.

    Turaga et al. 2009, Maximin affinity learning of image segmentation, https://arxiv.org/abs/0911.5372

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Softmax(nm.Input((1, 2, 1, 4), 'b,f,x,y', print_repr=False), n_indep=1, print_repr=False)
    >>> seg = nm.Input_like(p, 'int16', override_f=1, print_repr=False)
    >>> loss = nm.MalisNLL(p, nm.Affinities(seg, [[0, 1]], print_repr=False), seg, [[0, 1]], print_repr=False)
    >>> x, ids = np.array([[[[0, 0, 0, 0]], [[3, -1, 2, 0]]]], 'float32'), [[[[1, 1, 2, 2]]]]
    >>> pos, neg, *_ = loss.get_debug_outputs(x, ids)
    >>> pos[0, 0, 0].tolist(), neg[0, 0, 0].tolist()  # the last edge leaves the image
    ([1, 0, 1, 0], [0, 4, 0, 0])
    >>> loss(x, ids).round(2)
    array([[[[0.03, 0.84, 0.08, 0.  ]]]], dtype=float32)
    """

    def __init__(self, pred, aff_gt, seg_gt, nhood, unrestrict_neg=True, class_weights=None, example_weights=None,
                 name="nll", print_repr=True):
        extra = weighting_nodes(f"MalisNLL {name!r}", class_weights=class_weights, example_weights=example_weights)
        super().__init__([pred, aff_gt, seg_gt, *extra], name, print_repr)
        if tuple(pred.shape.tags[:2]) != ("b", "f") or len(pred.shape) != pred.shape.ndim + 2 or pred.shape.ndim < 2:
            raise ValueError(f"{what(self)}: {pred.name!r} has shape {pred.shape}, needed are axes b, f and two or three in "
                             "space.")
        n_class, n = softmax_of(pred) or (None, None)
        if n_class != 2:
            raise ValueError(f"{what(self)}: {pred.name!r} must be a Softmax with blocks of 2 classes (not connected, "
                             "connected), one block per edge: n_indep is the number of edges.")
        self.nhood = edges_of(self, nhood, pred)
        if len(self.nhood) != n:
            raise ValueError(f"{what(self)}: {pred.name!r} has {n} blocks, but nhood has {len(self.nhood)} edges.")
        check_target(self, pred, aff_gt, n)
        check_target(self, pred, seg_gt, 1, SPARSE)
        self.unrestrict_neg = bool(unrestrict_neg)
        weight_class(self, class_weights, n, "edge")
        check_shape(self, "example_weights", example_weights, pred.shape.delaxis("f"))
        self.example_weights = example_weights

    def _make_output(self):
        pred, aff_gt, seg_gt = (p.output for p in self.parents[:3])
        connected = L.every_second(pred)
        counts = malisop.malis_weights(connected, aff_gt.clamp_min(0), seg_gt.clamp_min(0).long()[:, 0], self.nhood,
                                       self.unrestrict_neg)
        pos, neg = counts[0], counts[1]
        splits, merges = L.wrong_pairs(connected < 0.5, pos), L.wrong_pairs(connected > 0.5, neg)
        self.pos_count, self.neg_count, self.false_splits, self.false_merges = pos, neg, splits, merges
        self.rand_index = (splits + merges) / (pos + neg).sum().clamp_min(1)
        self.debug_outputs = {k: getattr(self, k) for k in ("pos_count", "neg_count", "false_splits", "false_merges",
                                                            "rand_index")}
        self.output = L.malis_nll(pred, pos, neg, expression(self.class_weights), expression(self.example_weights))

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", len(self.nhood))
