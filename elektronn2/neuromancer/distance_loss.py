"""Distances of voxels from class boundaries, and the loss that is made of them."""

import numpy as np

from elektronn2.config import config
from elektronn2.neuromancer import loss_functions as L
from elektronn2.neuromancer.loss_checks import (
    check_ids_node,
    check_shape,
    check_target,
    checked_ids,
    expression,
    feature_axis,
    positive,
    weight_class,
    weighting_nodes,
    what,
)
from elektronn2.neuromancer.node import Node
from elektronn2.utils.validate import as_int


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
        self.n_class = as_int(n_class, f"n_class of {what(self)}")
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
        check_shape(self, "example_weights", example_weights, pred.shape.delaxis("f"))
        self.example_weights = example_weights

    def _make_output(self):
        pred, target = self.parents[:2]
        self.output = L.boundary(pred.output, target.output, expression(self.class_weights),
                                 expression(self.example_weights), self.axis)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", 1)
