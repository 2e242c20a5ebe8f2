"""Losses of numbers: differences, distances of vectors, and parameters of distributions."""

import numpy as np

from elektronn2.config import config
from elektronn2.neuromancer import loss_functions as L
from elektronn2.neuromancer.loss_checks import check_target, feature_axis, positive, target_of, what
from elektronn2.neuromancer.node import Node, all_or_nothing


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

    >>> import numpy as np
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

    >>> import numpy as np
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
    if not isinstance(loss_kwargs or {}, dict):
        raise TypeError(f"SobelizedLoss {name!r}: loss_kwargs must be a dict of arguments of AbsLoss, got {loss_kwargs!r}.")
    with all_or_nothing(pred, target):
        derivatives = [_Sobel(node, name=f"{role} sobel") for node, role in ((pred, "pred"), (target, "target"))]
        return AbsLoss(*derivatives, **{"name": name, "print_repr": print_repr, **(loss_kwargs or {})})
