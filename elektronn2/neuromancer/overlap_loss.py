"""Losses of class probabilities that compare whole regions: Tversky, Dice, Lovász."""

from elektronn2.neuromancer import loss_functions as L
from elektronn2.neuromancer.class_loss import _ClassLoss
from elektronn2.neuromancer.loss_checks import SCALAR, not_negative, positive


class TverskyLoss(_ClassLoss):
    """Overlap of the predicted with the true regions, with separate weights of false positives and false negatives.

    out = mean over classes of (1 - T) ** gamma, T = (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)

    with tp = sum(p * t), fp = sum(p * (1 - t)) and fn = sum((1 - p) * t) over all labelled elements of the batch.
    Inputs (b, n_indep * n_class, *L) and target, output (1,).

    ``pred``, ``target``, ``target_is_sparse``: as in :class:`MultinoulliNLL`. ``alpha``, ``beta``: more beta for fewer
    misses; 0.5 each is the Dice loss, 1 each the Jaccard (IoU) loss. ``gamma``: exponent; below 1 it stresses classes
    that are predicted well, above 1 the others. ``smooth``: what empty classes have as overlap. ``class_weights``:
    list, array or node (f,), weights of the mean over classes; 0 leaves one out. ``example_weights``: node (b, *L),
    weights of the elements in the sums. ``mask_class_labeled``, ``mask_class_not_present``: nodes (b, f); elements of
    a class with 0 in the first are unlabelled, and in the second 1 says that the class is absent also where
    elements are unlabelled. ValueError for negative numbers, shapes that do not fit, and (when computed) an id of
    n_class or above.

    Salehi et al. 2017, https://arxiv.org/abs/1706.05721; gamma: Abraham and Khan 2019, https://arxiv.org/abs/1810.07842

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Softmax(nm.Input((1, 2, 4), 'b,f,x', print_repr=False), print_repr=False)
    >>> t = nm.Input_like(p, 'int16', override_f=1, print_repr=False)
    >>> loss = nm.TverskyLoss(p, t, target_is_sparse=True, alpha=0.3, beta=0.7, print_repr=False)
    >>> loss(np.zeros((1, 2, 4), 'float32'), [[[0, 0, 1, -1]]]).round(2)
    array([0.51], dtype=float32)
    """

    def __init__(self, pred, target, target_is_sparse=False, alpha=0.5, beta=0.5, gamma=1.0, smooth=L.EPS,
                 class_weights=None, example_weights=None, mask_class_labeled=None, mask_class_not_present=None,
                 name="tversky", print_repr=True):
        super().__init__(pred, target, target_is_sparse, class_weights, example_weights, mask_class_labeled,
                         mask_class_not_present, name, print_repr)
        self.alpha, self.beta = not_negative(self, alpha=alpha), not_negative(self, beta=beta)
        self.gamma, self.smooth = positive(self, gamma=gamma), positive(self, smooth=smooth)

    def _make_output(self):
        self.output = L.tversky(**self._terms(), alpha=self.alpha, beta=self.beta, gamma=self.gamma, smooth=self.smooth)

    def _calc_shape(self):
        self.shape = SCALAR


class DiceLoss(_ClassLoss):
    """One minus the Dice overlap of the predicted with the true regions, mean over classes.

    out = mean over classes of 1 - (2 * sum(p * t) + smooth) / (sum(p) + sum(t) + smooth)

    The sums run over all labelled elements of the batch, so that a class need not occur in every example. Inputs
    (b, n_indep * n_class, *L) and target, output (1,). All arguments as in :class:`TverskyLoss`.

    Milletari et al. 2016 (V-Net), https://arxiv.org/abs/1606.04797, there with squares in the denominator; this form:
    Drozdzal et al. 2016, https://arxiv.org/abs/1608.04117

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Softmax(nm.Input((1, 2, 4), 'b,f,x', print_repr=False), print_repr=False)
    >>> t = nm.Input_like(p, 'int16', override_f=1, print_repr=False)
    >>> loss = nm.DiceLoss(p, t, target_is_sparse=True, class_weights=[0, 1], print_repr=False)
    >>> loss(np.zeros((1, 2, 4), 'float32'), [[[0, 0, 1, -1]]]).round(2)  # 1 - 2 * 0.5 / (1.5 + 1)
    array([0.6], dtype=float32)
    """

    def __init__(self, pred, target, target_is_sparse=False, smooth=L.EPS, class_weights=None, example_weights=None,
                 mask_class_labeled=None, mask_class_not_present=None, name="dice", print_repr=True):
        super().__init__(pred, target, target_is_sparse, class_weights, example_weights, mask_class_labeled,
                         mask_class_not_present, name, print_repr)
        self.smooth = positive(self, smooth=smooth)

    def _make_output(self):
        self.output = L.tversky(**self._terms(), smooth=self.smooth / 2)  # both of its terms are half of ours

    def _calc_shape(self):
        self.shape = SCALAR


class DiceCELoss(DiceLoss):
    """Cross-entropy plus Dice loss: ce_weight * mean(MultinoulliNLL) + dice_weight * DiceLoss.

    Inputs (b, n_indep * n_class, *L) and target, output (1,). Weights and masks act on both; all other arguments as in
    :class:`DiceLoss`. ValueError for negative weights.

    Isensee et al. 2021 (nnU-Net), https://doi.org/10.1038/s41592-020-01008-z

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Softmax(nm.Input((1, 2, 4), 'b,f,x', print_repr=False), print_repr=False)
    >>> t = nm.Input_like(p, 'int16', override_f=1, print_repr=False)
    >>> loss = nm.DiceCELoss(p, t, target_is_sparse=True, print_repr=False)
    >>> loss(np.zeros((1, 2, 4), 'float32'), [[[0, 0, 1, -1]]]).round(2)  # ln(2) + (3/7 + 0.6) / 2
    array([1.21], dtype=float32)
    """

    def __init__(self, pred, target, target_is_sparse=False, ce_weight=1.0, dice_weight=1.0, smooth=L.EPS,
                 class_weights=None, example_weights=None, mask_class_labeled=None, mask_class_not_present=None,
                 name="dice_ce", print_repr=True):
        super().__init__(pred, target, target_is_sparse, smooth, class_weights, example_weights, mask_class_labeled,
                         mask_class_not_present, name, print_repr)
        self.ce_weight = not_negative(self, ce_weight=ce_weight)
        self.dice_weight = not_negative(self, dice_weight=dice_weight)

    def _make_output(self):
        super()._make_output()
        nll = L.multinoulli_nll(**self._terms())
        self.output = self.ce_weight * nll.mean() + self.dice_weight * self.output


class LovaszSoftmax(_ClassLoss):
    """The Jaccard (IoU) loss, continued to probabilities such that it can be trained on (Lovász extension).

    For each class, the errors m = abs(t - p) of all labelled elements of the batch are sorted from large to small, and
    out = sum_i m_i * (J_i - J_(i-1)), where J_i is one minus the Jaccard index that results if the i elements with the
    largest errors are wrong; then the mean over the classes that occur. Inputs (b, n_indep * n_class, *L) and target,
    output (1,): 0 if nothing is labelled.

    ``pred``, ``target``, ``target_is_sparse``: as in :class:`MultinoulliNLL`. ``class_weights``: list, array or node
    (f,), weights of the mean over classes. ``example_weights``: node (b, *L), weights of the elements in the Jaccard
    index. ``mask_class_labeled``, ``mask_class_not_present``: nodes (b, f); elements of a class with 0 in the first
    are unlabelled, and a class with 1 in the second counts although it does not occur.

    Berman et al. 2018, The Lovász-Softmax loss, https://arxiv.org/abs/1705.08790

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> p = nm.Softmax(nm.Input((1, 2, 3), 'b,f,x', print_repr=False), print_repr=False)
    >>> t = nm.Input_like(p, 'int16', override_f=1, print_repr=False)
    >>> loss = nm.LovaszSoftmax(p, t, target_is_sparse=True, print_repr=False)
    >>> x = np.array([[[9, 9, 0], [-9, -9, 0]]], 'float32')
    >>> loss(x, [[[0, 1, -1]]]).round(2)  # class 0 has IoU 1/2, class 1 has 0
    array([0.75], dtype=float32)
    """

    def __init__(self, pred, target, target_is_sparse=False, class_weights=None, example_weights=None,
                 mask_class_labeled=None, mask_class_not_present=None, name="lovasz", print_repr=True):
        super().__init__(pred, target, target_is_sparse, class_weights, example_weights, mask_class_labeled,
                         mask_class_not_present, name, print_repr)

    def _make_output(self):
        self.output = L.lovasz_softmax(**self._terms())

    def _calc_shape(self):
        self.shape = SCALAR
