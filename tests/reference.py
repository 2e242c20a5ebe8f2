"""Slow and obvious numpy versions of what the nodes and optimisers compute, to compare with.

Loops over positions and one line per formula; nothing is shared with the library. Arrays are (b, f, *L).
"""
import numpy as np
from scipy.special import erf

EPS = 1e-5


# -- convolution and pooling ----------------------------------------------------------------------------
def naive_conv(x, w, b=None, mode="valid", stride=None, dilation=None, groups=1):
    """Cross-correlation with ``w`` (n_f, f / groups, *k), at every ``stride``-th position, the taps ``dilation`` apart;
    'same' and 'full' pad with zeros."""
    k, n_in = w.shape[2:], w.shape[1]
    stride, dilation = stride or [1] * len(k), dilation or [1] * len(k)
    extent = [(n - 1) * d for n, d in zip(k, dilation)]
    x = naive_pad(x, {"valid": [0] * len(k), "same": [e // 2 for e in extent], "full": extent}[mode])
    sizes = [(n - e - 1) // t + 1 for n, e, t in zip(x.shape[2:], extent, stride)]
    out = np.zeros((len(x), len(w), *sizes), x.dtype)
    for position in np.ndindex(out.shape[2:]):
        window = tuple(slice(p * t, p * t + e + 1, d) for p, t, e, d in zip(position, stride, extent, dilation))
        for i, o in np.ndindex(out.shape[:2]):
            group = o // (len(w) // groups)
            features = slice(group * n_in, (group + 1) * n_in)
            out[(i, o, *position)] = (x[(i, features, *window)] * w[o]).sum() + (0 if b is None else b[o])
    return out


def naive_pool(x, pool, stride=None, mode="max"):
    """Maximum, mean or sum of windows of ``pool`` every ``stride``; incomplete windows are dropped."""
    stride = pool if stride is None else stride
    reduce = {"max": np.max, "sum": np.sum}.get(mode, np.mean)
    out = np.zeros((*x.shape[:2], *[(n - p) // t + 1 for n, p, t in zip(x.shape[2:], pool, stride)]), x.dtype)
    for position in np.ndindex(out.shape[2:]):
        window = tuple(slice(i * t, i * t + p) for i, t, p in zip(position, stride, pool))
        for i, o in np.ndindex(out.shape[:2]):
            out[(i, o, *position)] = reduce(x[(i, o, *window)])
    return out


def naive_fragmentpool(x, pool, stride=None, mode="max"):
    """Pooling of ``x`` moved by every shift below ``stride`` (last axis fastest), stacked along the batch."""
    stride = pool if stride is None else stride
    fragments = []
    for shift in np.ndindex(*stride):
        window = tuple(slice(i, n - t + 1 + i) for i, n, t in zip(shift, x.shape[2:], stride))
        fragments.append(naive_pool(x[(..., *window)], pool, stride, mode))
    return np.concatenate(fragments)


def naive_fragments2dense(x, offsets, strides):
    """(1, f, *L * strides): voxel v of fragment i goes to v * strides + offsets[i]."""
    dense = np.full((1, x.shape[1], *np.multiply(x.shape[2:], strides)), np.nan)
    for i, offset in enumerate(offsets):
        for position in np.ndindex(x.shape[2:]):
            target = np.multiply(position, strides) + offset
            dense[(0, slice(None), *target)] = x[(i, slice(None), *position)]
    assert not np.isnan(dense).any()
    return dense


def naive_upconv(x, w, b=None, factor=None, crop=None):
    """y[o, p*i + k] = sum over i and c of x[c, i] w[o, c, k], + b[o], for w (n_f, f, *k); p: ``factor``, default the
    kernel size. Without ``crop`` voxels at both ends."""
    k = w.shape[2:]
    p = k if factor is None else factor
    out = np.zeros((len(x), len(w), *[(n - 1) * s + m for n, s, m in zip(x.shape[2:], p, k)]), x.dtype)
    for i in np.ndindex(x.shape[2:]):
        for tap in np.ndindex(k):
            target = np.multiply(i, p) + tap
            for n, o in np.ndindex(out.shape[:2]):
                out[(n, o, *target)] += (x[(n, slice(None), *i)] * w[(o, slice(None), *tap)]).sum()
    out = out if crop is None else naive_crop(out, crop)
    return out if b is None else out + along(b, out)


def naive_upsample(x, factor, mode):
    """Output voxel j sits on input position (j + 1/2) / p - 1/2: the nearest voxel, or the two neighbours weighted by
    their distance; voxels beyond the border are those at the border. One axis after the other."""
    for axis, p in enumerate(factor, start=2):
        n, parts = x.shape[axis], []
        for j in range(n * p):
            position = (j + 0.5) / p - 0.5
            if mode == "nearest":
                parts.append(np.take(x, round(position - 1e-9 * (position % 1 > 0.5)), axis))
            else:
                low = int(np.floor(position))
                a, b = (np.take(x, min(max(i, 0), n - 1), axis) for i in (low, low + 1))
                parts.append(a * (low + 1 - position) + b * (position - low))
        x = np.stack(parts, axis)
    return x


def naive_crop(x, n, axes=None):
    """Without n[k] voxels at both ends of the k-th spatial axis (axes from 2 on)."""
    for k, axis in zip(n, axes or range(2, x.ndim)):
        x = np.delete(x, [*range(k), *range(x.shape[axis] - k, x.shape[axis])], axis)
    return x


def naive_pad(x, n, value=0.0, axes=None):
    """With n[k] voxels of ``value`` at both ends of the k-th spatial axis (axes from 2 on)."""
    for k, axis in zip(n, axes or range(2, x.ndim)):
        border = np.full((*x.shape[:axis], k, *x.shape[axis + 1:]), value, x.dtype)
        x = np.concatenate([border, x, border], axis)
    return x


# -- dense layers, activations, normalisation -----------------------------------------------------------
def along(v, x, axis=1):
    """Vector ``v`` with as many axes as ``x``, its own along ``axis``."""
    return np.reshape(v, [-1 if i == axis else 1 for i in range(x.ndim)])


def naive_perceptron(x, w, b, axis=1, flatten=False):
    """sum_c x[c] w[c, o] + b[o] along ``axis``; ``flatten`` joins all axes but the first before."""
    x = x.reshape(len(x), -1) if flatten else x
    out = np.zeros([w.shape[1] if i == axis else n for i, n in enumerate(x.shape)])
    for position in np.ndindex(*[n for i, n in enumerate(x.shape) if i != axis]):
        vector = (*position[:axis], slice(None), *position[axis:])
        out[vector] = x[vector] @ w + b
    return out


def naive_activation(x, name, slope=None, axis=1):
    """Every activation from its formula."""
    if name.startswith("maxout"):
        r = int(name.split()[1])
        runs = [np.take(x, range(i, i + r), axis).max(axis) for i in range(0, x.shape[axis], r)]
        return np.stack(runs, axis)
    if name == "prelu":
        return np.maximum(x, 0) + along(slope, x, axis) * np.minimum(x, 0)
    if name.startswith("leaky_relu"):
        leak = float(name.split()[1]) if " " in name else 0.01
        return np.where(x > 0, x, leak * x)
    softplus = np.log(1 + np.exp(x))
    sigmoid = 1 / (1 + np.exp(-x))
    elu = np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)
    selu = 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543773 * (np.exp(np.minimum(x, 0)) - 1))
    return {"tanh": np.tanh(x), "relu": np.maximum(x, 0), "elu": elu, "selu": selu, "abs": np.abs(x), "sig": sigmoid,
            "logistic": sigmoid, "sigmoid": sigmoid, "gelu": x / 2 * (1 + erf(x / np.sqrt(2))), "silu": x * sigmoid,
            "swish": x * sigmoid, "soft+": softplus, "lin": x, "linear": x, "concentration": 7 * softplus + 2,
            "radius": 3 + 15 * np.exp(0.15 * x)}[name]


def naive_batch_statistics(x, axis=1):
    """Mean and population standard deviation (plus 1e-6) of every feature."""
    maps = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    return maps.mean(1), np.sqrt(((maps - maps.mean(1, keepdims=True))**2).mean(1)) + 1e-6


def naive_group_norm(x, n_groups, gamma, b, eps):
    """Every image and run of features by itself: mean 0 and variance 1, then scale and shift per feature."""
    y = np.zeros_like(x)
    n = x.shape[1] // n_groups
    for i, first in np.ndindex(len(x), n_groups):
        part = x[i, first * n:(first + 1) * n]
        y[i, first * n:(first + 1) * n] = (part - part.mean()) / np.sqrt(((part - part.mean())**2).mean() + eps)
    return along(gamma, x) * y + along(b, x)


def naive_layer_norm(x, gamma, b, eps, axis=1):
    """Every position by itself: its features with mean 0 and variance 1, then scale and shift per feature."""
    y = np.moveaxis(x, axis, -1).copy()
    for position in np.ndindex(y.shape[:-1]):
        v = y[position]
        y[position] = (v - v.mean()) / np.sqrt(((v - v.mean())**2).mean() + eps) * gamma + b
    return np.moveaxis(y, -1, axis)


def naive_squeeze_excitation(x, w, b, w2, b2):
    """Every image by itself: its features times gates that follow from their means."""
    y = np.zeros_like(x)
    for i, image in enumerate(x):
        hidden = np.maximum(image.reshape(len(image), -1).mean(1) @ w + b, 0)
        y[i] = along(1 / (1 + np.exp(-(hidden @ w2 + b2))), x)[0] * image
    return y


def naive_normalise(x, gamma, mean, std, axis=1):
    """gamma * (x - mean) / std per feature."""
    return along(gamma, x, axis) * (x - along(mean, x, axis)) / along(std, x, axis)


# -- probabilities and losses ---------------------------------------------------------------------------
def naive_softmax(x, n_indep=1, axis=1):
    """exp(x) / sum(exp(x)) in each of ``n_indep`` consecutive blocks along ``axis``."""
    blocks = np.split(np.exp(x), n_indep, axis)
    return np.concatenate([e / e.sum(axis, keepdims=True) for e in blocks], axis)


def naive_multinoulli_nll(p, target, n_class, n_indep=1, sparse=True, class_weights=None, example_weights=None,
                          weakness=0, labeled=None, not_present=None):
    """Voxel by voxel and class by class, as section 7 of the contract says it; p (b, n_indep * n_class, *L)."""
    nll = np.zeros((len(p), 1, *p.shape[2:]))
    total = 0.0
    for i in range(len(p)):
        for position in np.ndindex(p.shape[2:]):
            example = 1 if example_weights is None else example_weights[(i, *position)]
            t = np.zeros(p.shape[1])
            for block in range(n_indep):
                for c in range(n_class):
                    f = block * n_class + c
                    t[f] = target[(i, block, *position)] == c if sparse else target[(i, f, *position)]
                    t[f] *= 1 if labeled is None else labeled[i, f]
            if weakness and t.sum() > 0:
                t = (1 - weakness) * t + weakness * p[(i, slice(None), *position)]
            for f in range(p.shape[1]):
                weight = example * (1 if class_weights is None else class_weights[f])
                q = p[(i, f, *position)]
                nll[(i, 0, *position)] -= t[f] * weight * np.log(q + EPS)
                total += t[f]
                if not_present is not None:
                    nll[(i, 0, *position)] -= not_present[i, f] * weight * np.log(1 - q + EPS)
                    total += not_present[i, f]
    return nll * (p.size / n_indep / n_class) / (total + EPS)


def naive_classes(p, n_indep=1, threshold=False):
    """Largest of each block of features, or p > 0.5."""
    if threshold:
        return (p > 0.5).astype(int)
    return np.stack([block.argmax(1) for block in np.split(p, n_indep, 1)], 1)


def naive_error_rate(classes, target):
    """Share of labelled (>= 0) elements that differ, 0 if none is labelled."""
    wrong = [c != t for c, t in zip(classes.ravel(), target.ravel()) if t >= 0]
    return np.array([np.mean(wrong) if wrong else 0.0])


def naive_aggregate(losses, weights):
    """mean_i(weights_i * mean(loss_i))."""
    return np.array([sum(w * np.mean(v) for w, v in zip(weights, losses)) / len(losses)])


# -- optimisers -----------------------------------------------------------------------------------------
class NaiveOptimiser:
    """Update rules on one array per parameter; ``step(params, grads, reg)`` changes ``params`` in place.

    ``reg``: factor of weight decay per parameter (0, 1, or apply_reg above 1).
    """

    def __init__(self, rule, lr, mom=0.9, wd=0.0, beta2=0.999):
        self.rule, self.lr, self.mom, self.wd, self.beta2 = rule, lr, mom, wd, beta2
        self.t, self.memory = 0, {}

    def step(self, params, grads, reg):
        self.t += 1
        for i, (p, g, c) in enumerate(zip(params, grads, reg)):
            decay = self.wd * c * p
            first, second = self.memory.get(i, (np.zeros_like(p), np.zeros_like(p)))
            p -= getattr(self, self.rule)(i, p, np.asarray(g), decay, first, second)

    def SGD(self, i, p, g, decay, d, _):
        d = g + self.mom * d
        self.memory[i] = d, d
        return self.lr * (d + decay)

    def AdaGrad(self, i, p, g, decay, h, _):
        h = h + g**2 + (g**2 if self.t == 1 else 0)
        self.memory[i] = h, h
        decay = np.where(decay == 0, 0, self.wd * p)  # no multiplier here
        return self.lr * (g + decay) / (np.sqrt(h) + 1e-10)

    def AdaDelta(self, i, p, g, decay, s, d):
        step = g * np.sqrt(d + 1e-5) / np.sqrt(s + 1e-5)
        self.memory[i] = self.mom * s + (1 - self.mom) * g**2, self.mom * d + (1 - self.mom) * step**2
        return self.lr * (step + decay)

    def Adam(self, i, p, g, decay, m, v):
        m, v = self.mom * m + (1 - self.mom) * g, self.beta2 * v + (1 - self.beta2) * g**2
        self.memory[i] = m, v
        step = np.sqrt(1 - self.beta2**self.t) / (1 - self.mom**self.t) * m / np.sqrt(v + 1e-5)
        return self.lr * (step + decay)

    def AdamW(self, i, p, g, decay, m, v):
        m, v = self.mom * m + (1 - self.mom) * g, self.beta2 * v + (1 - self.beta2) * g**2
        self.memory[i] = m, v
        step = m / (1 - self.mom**self.t) / (np.sqrt(v / (1 - self.beta2**self.t)) + 1e-8)
        return self.lr * (step + decay)


# -- recurrent cells ------------------------------------------------------------------------------------
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def naive_gru(x, h, w, b, activation=np.tanh):
    """One step for every batch element and position: ``x`` (b, f, *L), ``h`` (b, n, *L)."""
    n, out = h.shape[1], np.zeros((len(x), h.shape[1], *x.shape[2:]))
    for i in np.ndindex(len(x), *x.shape[2:]):
        at = (i[0], slice(None), *i[1:])
        z, r = np.split(sigmoid(np.concatenate([h[at], x[at]]) @ w[:, :2 * n] + b[:2 * n]), 2)
        new = activation(np.concatenate([r * h[at], x[at]]) @ w[:, 2 * n:] + b[2 * n:])
        out[at] = (1 - z) * h[at] + z * new
    return out


def naive_lstm(x, state, w, b, activation=np.tanh, last=None):
    """One step for every batch element and position: ``x`` (b, f, *L), ``state`` [h | c] (b, 2 n, *L)."""
    n, out = state.shape[1] // 2, np.zeros((len(x), state.shape[1], *x.shape[2:]))
    for i in np.ndindex(len(x), *x.shape[2:]):
        at = (i[0], slice(None), *i[1:])
        h, c = np.split(state[at], 2)
        linear = np.concatenate([h, x[at]]) @ w + b
        f, keep, o = np.split(sigmoid(linear[:3 * n]), 3)
        c = f * c + keep * activation(linear[3 * n:])
        out[at] = np.concatenate([o * (last or activation)(c), c])
    return out
