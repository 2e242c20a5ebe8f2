"""Affinities: which voxels belong to the same object, and the losses of their predictions."""

import numpy as np

from elektronn2.neuromancer import loss_functions as L
from elektronn2.neuromancer.class_loss import softmax_of
from elektronn2.neuromancer.loss_checks import (
    check_ids_node,
    check_sizes,
    check_target,
    expression,
    feature_axis,
    weight_class,
    weighting_nodes,
    what,
)
from elektronn2.neuromancer.node import Node


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
