"""Tensor functions of the losses: what is unlabelled, how it is weighted, and the formulas.

Each computes at once when called with tensors, and becomes one operation of the graph when called
with expressions. Losses per element are scaled so that their mean over all positions is the mean
over the labelled ones; losses of whole batches have shape (1,).
"""
import math

import torch

from elektronn2.neuromancer.computations import _along, _full, pad
from elektronn2.neuromancer.expression import op

EPS = 1e-5
MISSING = -666.0  # what NaN becomes in targets of numbers


# -- labels -------------------------------------------------------------------------------------------
@op(meta=lambda target, n_class, where: target, check=True)
def checked_ids(target, n_class, where):
    """``target`` as it is, if all its class ids are whole and below ``n_class``. Else ValueError, which begins with
    ``where``. What is negative or NaN is no id."""
    if target.is_floating_point() and (broken := (target > 0) & (target != target.round())).any():
        raise ValueError(f"{where} holds {target[broken][0].item():g}, but class ids are whole numbers. Targets of "
                         "probabilities are no sparse ones.")
    if (target >= n_class).any():
        raise ValueError(f"{where} holds the id {target.max().item():g}, but there are {n_class} classes, 0 to "
                         f"{n_class - 1}. Unlabelled elements have negative ids.")
    return target


def _given(target):
    """Where ids, probabilities and affinities are labelled: not negative, save rounding errors, and not NaN."""
    return target > -0.5


def _known(target):
    """Where numbers are given: neither NaN nor -666."""
    return ~(target.isnan() | ((target - MISSING).abs() < 0.01)) if target.is_floating_point() else target != MISSING


def _class_targets(pred, target, mask_class_labeled, n_class, n_indep, sparse, axis):
    """Probabilities like ``pred``, from ids (b, n_indep, ...) or probabilities; all 0 where unlabelled."""
    if sparse:
        t = (target.unsqueeze(axis + 1) == _along(torch.arange(n_class, device=target.device),
                                                   target.unsqueeze(axis + 1), axis + 1)).flatten(axis, axis + 1)
    else:
        t = torch.where(_given(target), target, 0)
    t = t.to(pred.dtype)
    return t if mask_class_labeled is None else t * _per_example(mask_class_labeled, pred, axis)


def _per_example(mask, pred, axis):
    """A mask (b, f) at every position of ``pred``."""
    mask = mask.to(pred.dtype).reshape(*mask.shape, *(1,) * (pred.ndim - 2))
    return mask.movedim(1, axis).expand_as(pred)


def _example_weights(weights, axis):
    """Weights (b, ...) along the features; 1 if there are none."""
    return 1 if weights is None else weights.unsqueeze(axis)


def _weights(pred, class_weights, example_weights, axis):
    """Product of both, in a form that broadcasts; 1 if there are none."""
    weights = _example_weights(example_weights, axis)
    return weights if class_weights is None else weights * _along(class_weights, pred, axis)


def _count(known, like):
    """Number of known elements in the precision of ``like``: a quotient of integers would be in single precision."""
    return known.sum().to(like.dtype)


def _per_known(loss, known):
    """0 where not known; scaled so that the mean is that of what is known."""
    return torch.where(known, loss, 0) * (loss.numel() / _count(known, loss).clamp_min(1))


# -- class probabilities ------------------------------------------------------------------------------
@op
def classification(pred, n_indep=1, threshold=False, axis=1):
    """Class ids (int64) along ``axis``: argmax per block, or pred > 0.5."""
    if threshold:
        return (pred > 0.5).long()
    return pred.unflatten(axis, (n_indep, -1)).argmax(axis + 1)


@op
def error_rate(cls, target, n_indep=1, sparse=True, axis=1):
    """Share (1,) of labelled elements whose class is wrong; 0 if none is labelled."""
    if sparse:
        gt, labelled = target, _given(target)
    else:
        blocks = torch.where(_given(target), target, 0).unflatten(axis, (n_indep, -1))
        gt, labelled = blocks.argmax(axis + 1), blocks.sum(axis + 1) > 0
    wrong = ((cls != gt) & labelled).sum()
    return (wrong / labelled.sum().clamp_min(1)).float().reshape(1)


@op
def blocked(pred, factor, n_indep=1, axis=1):
    """Every probability but the first of each block raised to at least ``factor`` times the largest of these."""
    first, rest = pred.unflatten(axis, (n_indep, -1)).tensor_split([1], axis + 1)
    rest = torch.maximum(rest, factor * rest.amax(axis + 1, keepdim=True))
    return torch.cat([first, rest], axis + 1).flatten(axis, axis + 1)


@op
def multinoulli_nll(pred, target, class_weights=None, example_weights=None, mask_class_labeled=None,
                    mask_class_not_present=None, n_class=2, n_indep=1, sparse=False, axis=1, weakness=0, gamma=0):
    """Negative log-likelihood (b, 1, ...), scaled so that its mean is the mean per labelled element.

    ``pred`` probabilities (b, n_indep * n_class, ...); ``target`` ids (b, n_indep, ...) if ``sparse``,
    else probabilities like ``pred``. ``gamma``: exponent of the focal loss.
    """
    pred = _full(pred)
    t = _class_targets(pred, target, mask_class_labeled, n_class, n_indep, sparse, axis)
    if weakness:
        labelled = (t.sum(axis, keepdim=True) > 0).to(pred.dtype)
        t = ((1 - weakness) * t + weakness * pred.detach()) * labelled
    weights = _weights(pred, class_weights, example_weights, axis)
    nll = -t * weights * torch.log(pred + EPS) * _power(1 - pred, gamma)
    total = t.sum()
    if mask_class_not_present is not None:
        m = _per_example(mask_class_not_present, pred, axis)
        nll = nll - m * weights * torch.log(1 - pred + EPS) * _power(pred, gamma)
        total = total + m.sum()
    return nll.sum(axis, keepdim=True) * (pred.numel() / n_indep / n_class) / (total + EPS)


def _power(x, gamma):
    """``x ** gamma`` for x from 0 on, with a finite gradient at 0."""
    return torch.where(x > 0, x.clamp_min(1e-12) ** gamma, 0) if gamma else 1


def _regions(pred, target, example_weights, mask_class_labeled, mask_class_not_present, n_class, n_indep, sparse, axis):
    """(p, t, w), each (f, n): probabilities, targets and weights of all elements, w = 0 where t is not known."""
    t = _class_targets(pred, target, mask_class_labeled, n_class, n_indep, sparse, axis)
    blocks = t.unflatten(axis, (n_indep, n_class))
    w = (blocks.sum(axis + 1, keepdim=True) > 0).expand_as(blocks).flatten(axis, axis + 1).to(pred.dtype)
    if mask_class_not_present is not None:
        w = torch.maximum(w, _per_example(mask_class_not_present, pred, axis))
    w = w * _example_weights(example_weights, axis)
    return [v.movedim(axis, 0).flatten(1) for v in (pred, t, w)]


def _mean_of_classes(values, weights):
    """Weighted mean (1,) of one value per class."""
    return ((values * weights).sum() / weights.sum().clamp_min(EPS)).reshape(1)


@op
def tversky(pred, target, class_weights=None, example_weights=None, mask_class_labeled=None,
            mask_class_not_present=None, n_class=2, n_indep=1, sparse=False, axis=1, alpha=0.5, beta=0.5, gamma=1,
            smooth=EPS):
    """Mean over classes of (1 - T) ** gamma, T = (tp + smooth) / (tp + alpha * fp + beta * fn + smooth); (1,)."""
    pred = _full(pred)
    p, t, w = _regions(pred, target, example_weights, mask_class_labeled, mask_class_not_present, n_class, n_indep,
                       sparse, axis)
    tp, fp, fn = ((w * v).sum(1) for v in (p * t, p * (1 - t), (1 - p) * t))
    index = (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)
    weights = torch.ones_like(index) if class_weights is None else class_weights
    return _mean_of_classes(_power(1 - index, gamma), weights)


@op
def lovasz_softmax(pred, target, class_weights=None, example_weights=None, mask_class_labeled=None,
                   mask_class_not_present=None, n_class=2, n_indep=1, sparse=False, axis=1):
    """Mean (1,) over the classes that occur of the Lovász extension of 1 - Jaccard index at the errors |t - p|."""
    pred = _full(pred)
    p, t, w = _regions(pred, target, example_weights, mask_class_labeled, mask_class_not_present, n_class, n_indep,
                       sparse, axis)
    errors, order = ((t - p).abs() * (w > 0)).sort(1, descending=True)
    inside, outside = (torch.gather(w * v, 1, order) for v in (t, 1 - t))
    total = inside.sum(1, keepdim=True)
    # loss of Jaccard index if the elements with the largest errors, up to each in turn, are wrong
    jaccard = 1 - (total - inside.cumsum(1)) / (total + outside.cumsum(1)).clamp_min(1e-12)
    steps = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], 1)
    weights = (total[:, 0] > 0).to(pred.dtype)
    if mask_class_not_present is not None:  # a class that certainly does not occur counts, too
        weights = torch.maximum(weights, (mask_class_not_present > 0).any(0).to(pred.dtype))
    if class_weights is not None:
        weights = weights * class_weights
    return _mean_of_classes((errors * steps).sum(1), weights)


# -- numbers ------------------------------------------------------------------------------------------
def _targets(pred, target):
    """(target like ``pred`` with 0 where it is not known, where it is known)."""
    target = target.expand_as(pred)
    known = _known(target)
    return torch.where(known, target, 0).to(pred.dtype), known


@op
def binary_nll(pred, target, subtract_label_entropy=False):
    """-t ln(p) - (1 - t) ln(1 - p) per element; see :class:`BinaryNLL`."""
    pred, target = _full(pred), target.expand_as(pred)
    known = _given(target)
    t = torch.where(known, target, 0).to(pred.dtype)
    nll = _cross_entropy(pred, t)
    if subtract_label_entropy:
        nll = nll - _cross_entropy(t, t)
    return torch.where(known, nll, 0) * (pred.numel() / (_count(known, pred) + 1))


def _cross_entropy(p, t):
    return -t * torch.log(p + EPS) - (1 - t) * torch.log(1 - p + EPS)


@op
def difference(pred, target, margin=None, scale_correction=None, absolute=False, axis=1):
    """Squared or absolute difference, mean over the features (b, 1, ...); see :class:`SquaredLoss`."""
    pred = _full(pred)
    t, known = _targets(pred, target)
    d = torch.where(known, t - pred, 0)
    loss = d.abs() if absolute else 0.5 * d ** 2
    if margin is not None:
        loss = loss * (d.abs() >= margin)
    if scale_correction is not None:
        loss = loss * (scale_correction * t.abs() + 1 if absolute else scale_correction / (t.abs() + scale_correction))
    return loss.mean(axis, keepdim=True) * (pred.numel() / (_count(known, pred) + 1))


@op
def gaussian_nll(mu, sig, target, sig_is_log=False):
    """Negative log-likelihood of normal distributions per element; see :class:`GaussianNLL`."""
    mu, sig = _full(mu), _full(sig)
    t, known = _targets(mu, target)
    log_sig, sig = (sig, sig.exp()) if sig_is_log else (sig.log(), sig)
    return _per_known(0.5 * math.log(2 * math.pi) + log_sig + 0.5 * ((t - mu) / sig) ** 2, known)


@op
def beta_nll(mode, concentration, target):
    """Negative log-likelihood of beta distributions per element; see :class:`BetaNLL`."""
    mode, c = _full(mode), _full(concentration)
    t, known = _targets(mode, target)
    a, b = mode * (c - 2) + 1, (1 - mode) * (c - 2) + 1
    likelihood = (torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
                  + (a - 1) * torch.log(t + EPS) + (b - 1) * torch.log(1 - t + EPS))
    return _per_known(torch.nn.functional.softplus(-c) - likelihood, known)


@op
def euclidean(pred, target, axis=1):
    """Length (b, 1, ...) of target - pred along ``axis``; 0 where one of its entries is not known."""
    pred = _full(pred)
    t, known = _targets(pred, target)
    known = (known & ~pred.isnan()).all(axis, keepdim=True)
    return torch.linalg.vector_norm(torch.where(known, t - pred, 0), dim=axis, keepdim=True)


@op
def ramp(low, big, margin, axis=1):
    """Mean (b, 1, ...) over the features of max(0, low - big + margin), 0 where one of both is NaN."""
    d = _full(low) - _full(big) + margin
    return torch.where(d.isnan(), 0, d.clamp_min(0)).mean(axis, keepdim=True)


@op
def one_hot(target, n_class, axis=1, dtype="float32"):
    """1 at the place of the id along ``axis``, which has size 1; all 0 for negative ids."""
    return (target == _along(torch.arange(n_class, device=target.device), target, axis)).to(getattr(torch, dtype))


@op
def sobel(x, axes, axis=1, dtype="float32"):
    """Derivatives along each of ``axes``, one after the other along ``axis``; NaN where they touch what is not known."""
    x = torch.where(_known(x), x.to(getattr(torch, dtype)), torch.nan)
    derivatives = []
    for direction in axes:
        y = x
        for a in axes:
            taps = (1, 0, -1) if a == direction else (0.3, 0.4, 0.3)
            padded, n = pad(y, (1,), (a,)), y.shape[a]
            y = sum(weight * padded.narrow(a, i, n) for i, weight in enumerate(taps) if weight)
        derivatives.append(y)
    return torch.cat(derivatives, axis)


# -- distances and affinities -------------------------------------------------------------------------
@op
def signed_distances(target, n_class, spacing, axes, scale=None, axis=1, dtype="float32"):
    """Distance from each class along ``axis``, negative within it; see :class:`SignedDistance`."""
    known = _given(target)
    inside = target == _along(torch.arange(n_class, device=target.device), target, axis)
    outside = known & ~inside
    to_class, to_rest = (_distance(mask, axes, spacing, getattr(torch, dtype)) for mask in (inside, outside))
    has_boundary = inside.any(axes, keepdim=True) & outside.any(axes, keepdim=True)
    distance = torch.where(has_boundary, to_class - to_rest, 0)
    if scale is not None:
        distance = torch.tanh(distance / scale)
    return torch.where(known, distance, torch.nan)


def _distance(mask, axes, spacing, dtype):
    """Euclidean distance to the nearest element of ``mask``; inf if it is empty.

    Exact, one axis after the other: d2[i] = min_j(d2[j] + (i - j)^2) (Felzenszwalb and Huttenlocher 2012, Distance
    transforms of sampled functions).
    """
    d2 = torch.where(mask, 0.0, torch.inf).to(dtype)
    for axis, step in zip(axes, spacing):
        n = d2.shape[axis]
        position = step * torch.arange(n, dtype=dtype, device=mask.device)
        cost = (position[:, None] - position) ** 2
        lines = d2.movedim(axis, -1)
        rows = lines.reshape(-1, n)
        at_once = len(rows) if torch.compiler.is_compiling() else max(1, 2 ** 18 // n ** 2)  # what the cache can hold
        rows = torch.cat([(part[:, None] + cost).amin(-1) for part in rows.split(at_once)])
        d2 = rows.reshape(lines.shape).movedim(-1, axis)
    return d2.sqrt()


@op
def boundary(pred, distances, class_weights=None, example_weights=None, axis=1):
    """Probability times distance, summed over the features (b, 1, ...); see :class:`BoundaryLoss`."""
    pred = _full(pred)
    d, known = _targets(pred, distances)
    weights = _weights(pred, class_weights, example_weights, axis)
    return _per_known(weights * pred * d, known).sum(axis, keepdim=True)


@op
def affinities(segmentation, nhood, axes, axis=1):
    """int16, one entry of ``axis`` per edge: 1 same object, 0 not, -1 not known; see :class:`Affinities`."""
    edges = []
    for shift in nhood:
        edge = torch.full_like(segmentation, -1, dtype=torch.int16)
        here, there, inner = segmentation, segmentation, edge
        for a, k in zip(axes, shift):
            n = max(0, segmentation.shape[a] - abs(k))
            here, inner = (v.narrow(a, min(max(0, -k), v.shape[a] - n), n) for v in (here, inner))
            there = there.narrow(a, min(max(0, k), there.shape[a] - n), n)
        known = _given(here) & _given(there)
        inner.copy_(torch.where(known, ((here == there) & (here > 0)).to(torch.int16), -1))
        edges.append(edge)
    return torch.cat(edges, axis)


@op
def affinity_nll(pred, target, class_weights=None, example_weights=None, balance=True, axis=1):
    """Binary cross-entropy, mean over the edges (b, 1, ...); see :class:`AffinityLoss`."""
    pred = _full(pred)
    known = _given(target)
    t = torch.where(known, target, 0).to(pred.dtype)
    nll = _cross_entropy(pred, t) * _weights(pred, class_weights, example_weights, axis)
    if balance:
        other = [i for i in range(pred.ndim) if i != axis]
        share = t.sum(other, keepdim=True) / known.sum(other, keepdim=True).clamp_min(1)
        share = share.clamp(0.05, 0.95)
        nll = nll * (t / (2 * share) + (1 - t) / (2 * (1 - share)))
    return _per_known(nll, known).mean(axis, keepdim=True)


@op
def malis_nll(pred, pos, neg, class_weights=None, example_weights=None):
    """Negative log-likelihood of edges (b, e, ...), times the pairs that depend on them; see :class:`MalisNLL`."""
    pred = _full(pred)
    apart, connected = pred.unflatten(1, (-1, 2)).unbind(2)
    total = (pos + neg).sum().to(pred.dtype)
    nll = -pos.to(pred.dtype) * torch.log(connected + EPS) - neg.to(pred.dtype) * torch.log(apart + EPS)
    return nll * _weights(nll, class_weights, example_weights, 1) * (nll.numel() / (total + EPS))


@op
def wrong_pairs(wrong, counts):
    """Pairs (1,) of voxels that depend on wrong edges."""
    return (wrong * counts).sum().reshape(1)


@op
def every_second(x, axis=1):
    """Entries 1, 3, 5, ... along ``axis``."""
    return x.unflatten(axis, (-1, 2)).select(axis + 1, 1)


@op
def aggregate(losses, weights):
    """mean_i(weights_i * mean(losses_i)), shape (1,)."""
    means = torch.stack([_full(loss).mean() for loss in losses])
    return (means * weights).mean().reshape(1)
