"""All losses, and the sum that is trained on."""

from numbers import Real

import numpy as np

from elektronn2.neuromancer import loss_functions as L
from elektronn2.neuromancer.affinity_loss import Affinities, AffinityLoss, MalisNLL
from elektronn2.neuromancer.class_loss import (
    BlockedMultinoulliNLL,
    Classification,
    Errors,
    FocalLoss,
    MultinoulliNLL,
    OneHot,
    Softmax,
    _Errors,
)
from elektronn2.neuromancer.distance_loss import BoundaryLoss, SignedDistance
from elektronn2.neuromancer.loss_checks import SCALAR, factors
from elektronn2.neuromancer.node import Node
from elektronn2.neuromancer.number_loss import (
    AbsLoss,
    BetaNLL,
    BinaryNLL,
    EuclideanDistance,
    GaussianNLL,
    RampLoss,
    SobelizedLoss,
    SquaredLoss,
)
from elektronn2.neuromancer.overlap_loss import DiceCELoss, DiceLoss, LovaszSoftmax, TverskyLoss

__all__ = ["AbsLoss", "Affinities", "AffinityLoss", "AggregateLoss", "BetaNLL", "BinaryNLL", "BlockedMultinoulliNLL",
           "BoundaryLoss", "Classification", "DiceCELoss", "DiceLoss", "Errors", "EuclideanDistance", "FocalLoss",
           "GaussianNLL", "LovaszSoftmax", "MalisNLL", "MultinoulliNLL", "OneHot", "RampLoss", "SignedDistance",
           "SobelizedLoss", "Softmax", "SquaredLoss", "TverskyLoss", "_Errors"]


class AggregateLoss(Node):
    """The scalar that is trained on: mean over the losses of weight * mean(loss).

    ``parent_nodes``: one loss node or a list, any shapes; output (1,). ``mixing_weights``: one factor per loss
    (default ones), an untrained parameter. ValueError if their number differs, or for an empty list.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> a, b = (nm.Input((2,), 'b', name=name, print_repr=False) for name in 'ab')
    >>> loss = nm.AggregateLoss([a, b], mixing_weights=[0.5, 2], print_repr=False)
    >>> loss(np.array([1, 3], 'float32'), np.array([1, 1], 'float32'))  # (0.5 * 2 + 2 * 1) / 2
    array([1.5], dtype=float32)
    """

    def __init__(self, parent_nodes, mixing_weights=None, name="total_loss", print_repr=True):
        nodes = list(parent_nodes) if isinstance(parent_nodes, (list, tuple)) else [parent_nodes]
        if not nodes:
            raise ValueError(f"AggregateLoss {name!r}: parent_nodes is empty, at least one loss is needed.")
        super().__init__(nodes, name, print_repr)
        n = len(self.parents)
        given = np.ones(n) if mixing_weights is None else mixing_weights
        constant = isinstance(given, (list, tuple)) and len(given) == 2 and isinstance(given[1], str)
        if isinstance(given, (list, tuple, np.ndarray, Real)) and not constant:
            given = factors(self, "mixing_weights", given, n, "loss")
        self.make_param("mixing_weights", given, (n,), None, apply_train=False, apply_reg=False)

    def _make_output(self):
        self.output = L.aggregate([p.output for p in self.parents], self.mixing_weights)

    def _calc_shape(self):
        self.shape = SCALAR

    def _calc_comp_cost(self):
        self.computational_cost = sum(p.shape.stripnone_prod for p in self.parents)
