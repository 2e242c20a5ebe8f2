"""Tensor functions that the nodes are made of.

Each computes at once when called with tensors, and becomes one operation of the graph when called
with expressions (see ``expression.py``). Feature axis is 1, spatial axes follow, unless said.
Kernels are applied without flipping (cross-correlation).
"""
import math
from itertools import product

import torch
import torch.nn.functional as F

from elektronn2.neuromancer.expression import op
from elektronn2.utils.validate import suggest

RUNNING = 0.9995  # share that a running average keeps at each training step


def _full(x):
    """At least single precision: reduced precision is for convolutions, not for sums and logarithms."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _along(v, x, axis=1):
    """Vector ``v`` shaped so that it broadcasts along ``axis`` of ``x``."""
    return v.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


@op
def by_mode(train, predict):
    """``train`` in functions for training, ``predict`` in others; decided when a function is cut out."""
    return predict


@op
def if_on(switch, on, off):
    """``on`` in functions made while the :class:`SwitchParam` ``switch`` is on, ``off`` in others; see ``function.py``."""
    return on


@op(meta=lambda cost, wrt: torch.empty_like(wrt))
def grad(cost, wrt):
    """Gradient of the sum of ``cost`` with respect to a parameter, source or expression ``wrt``."""
    if not cost.requires_grad:
        return torch.zeros_like(wrt)  # class ids, say, do not depend on anything differentiably
    with torch.enable_grad():
        g, = torch.autograd.grad(cost.sum(), wrt, create_graph=True, allow_unused=True)
    return torch.zeros_like(wrt) if g is None else g


grad.takes_gradients = True  # a function with such an operation keeps track of gradients


@op
def spread(v, x, axis=1):
    """Vector ``v`` along ``axis``, repeated over all other axes of ``x``."""
    return _along(v, x, axis).expand([-1 if i == axis else n for i, n in enumerate(x.shape)])


# -- linear -------------------------------------------------------------------------------------------
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_SLOW = 20480  # elements up to which PyTorch does without oneDNN
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@op
def conv(x, w, b=None, border_mode="valid", stride=None, dilation=None, groups=1):
    """Convolution of ``x`` (b, f, *L) with ``w`` (n_f, f / groups, *k) and bias ``b`` (n_f,), without flipping.

    ``border_mode``: 'valid'; 'same' (zero padding of dilation * k//2, odd kernels); 'full' (dilation * (k-1)).
    ``stride``, ``dilation``: one number per spatial axis, default 1.
    """
    k = w.shape[2:]
    stride, dilation = stride or (1,) * len(k), dilation or (1,) * len(k)
    pad = {"valid": [0] * len(k), "same": [n // 2 * d for n, d in zip(k, dilation)],
           "full": [(n - 1) * d for n, d in zip(k, dilation)]}[border_mode]
    if torch.compiler.is_exporting():  # other programs have fast paths of their own
        return _CONV[len(k)](x, w, b, stride, pad, dilation, groups)
    if x.shape[1] == 1 and k[-1] > 1 and not x.requires_grad and x.device.type == "cpu":
        return _conv_one_channel(x, w, b, pad, stride, dilation)
    return _conv(x, w, b, pad, stride, dilation, groups)


def _conv(x, w, b, pad, stride, dilation, groups=1):
    """PyTorch takes its slow 3-D kernels on the processor where batch, features and the first two spatial axes are small,
    whatever the last one is; with few features it pays to put that one first."""
    if x.ndim == 5 and x.device.type == "cpu" and x.dtype == torch.float32 and x.shape[1] <= 32:
        _, _, z, small, large = x.shape
        few = math.prod(x.shape[:4]) <= _SLOW and min(w.shape[-2:]) <= 3
        if few and math.prod(x.shape[:2]) * small * large > _SLOW and z < large:
            x, w = (a.permute(0, 1, 3, 4, 2).contiguous(memory_format=torch.channels_last_3d) for a in (x, w))
            pad, stride, dilation = ((*a[1:], a[0]) for a in (pad, stride, dilation))
            return F.conv3d(x, w, b, stride, pad, dilation, groups).permute(0, 1, 4, 2, 3)
    return _CONV[w.ndim - 2](x, w, b, stride, pad, dilation, groups)


def _conv_one_channel(x, w, b, pad, stride, dilation):
    """The same with the last kernel axis laid out as channels: vector units idle on a single channel."""
    if pad[-1]:
        x = F.pad(x, (pad[-1], pad[-1]))
    x = x[:, 0].unfold(-1, (w.shape[-1] - 1) * dilation[-1] + 1, stride[-1])[..., ::dilation[-1]]
    x = x.contiguous().movedim(-1, 1)
    w = w[:, 0].movedim(-1, 1).unsqueeze(-1).contiguous()
    return _conv(x, w, b, [*pad[:-1], 0], (*stride[:-1], 1), (*dilation[:-1], 1))


@op
def upconv(x, w, factor=None, crop=0):
    """Transposed convolution of ``x`` (b, f, *L) with ``w`` (n_f, f, *k): y[o, p*i + k] += sum_c x[c, i] w[o, c, k].

    ``factor``: p per spatial axis, default the kernel size. ``crop``: voxels left out at both ends.
    """
    return _CONV_TRANSPOSE[w.ndim - 2](x, w.swapaxes(0, 1), stride=factor or w.shape[2:], padding=crop)


@op
def transpose(w):
    """``w`` with its first two axes swapped."""
    return w.swapaxes(0, 1)


@op
def dot(x, w, axis=1):
    """Contract ``axis`` of ``x`` with the first axis of ``w``; the result's axis stays in place."""
    if axis == 0:
        raise ValueError("dot cannot contract the batch axis (0).")
    return torch.movedim(torch.tensordot(x, w, dims=([axis], [0])), -1, axis)


@op
def add_bias(x, b, axis=1):
    """``x + b`` with ``b`` (n_f,) along ``axis``."""
    return x + _along(b, x, axis)


@op
def bias_of(b):
    """The additive column of a 'prelu' bias (n_f, 2)."""
    return b[:, 0]


@op
def slope_of(b):
    """The slope column of a 'prelu' bias (n_f, 2)."""
    return b[:, 1]


# -- pooling ------------------------------------------------------------------------------------------
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
POOL_MODES = ("max", "average", "average_inc_pad", "average_exc_pad", "sum")


@op
def pooling(x, pool, stride=None, mode="max"):
    """Pool windows of ``pool`` every ``stride`` (default ``pool``); no padding, incomplete windows dropped."""
    stride = pool if stride is None else stride
    if mode == "max":
        return _MAX_POOL[len(pool)](x, tuple(pool), tuple(stride))
    mean = _AVG_POOL[len(pool)](x, tuple(pool), tuple(stride))
    return mean * math.prod(pool) if mode == "sum" else mean


@op
def fragmentpool(x, pool, stride=None, mode="max", dilation=None):
    """Max-fragment pooling: one fragment per shift, stacked along the batch (shift-major).

    ``x`` (b, f, *L) -> (b * prod(stride), f, *(L - pool - stride + 1) // stride + 1). Shifts are in
    row-major order, the last axis fastest; fragment (shift, old batch) is pooling of ``x`` moved by it.
    ``dilation``: distance of the voxels of a window, default 1; for ``mode`` 'max' only.

    Source: Masci et al. 2013, A fast learning algorithm for image segmentation with max-pooling
    convolutional networks.
    """
    stride = pool if stride is None else stride
    dilation = dilation or (1,) * len(pool)
    sizes = [(n - (p - 1) * d - t) // t + 1 for n, p, t, d in zip(x.shape[2:], pool, stride, dilation)]
    if mode == "max":       # maxima at every shift by pairwise maxima, then picked apart
        for axis, (p, d) in enumerate(zip(pool, dilation), start=2):
            x = _sliding_max(x, axis, p, d)
    else:
        x = pooling(x, pool, (1,) * len(pool), mode)
    fragments = [x[(..., *(slice(i, i + (n - 1) * t + 1, t) for i, n, t in zip(shift, sizes, stride)))]
                 for shift in product(*map(range, stride))]
    return torch.cat(fragments)


def _sliding_max(x, axis, p, dilation=1):
    """Maximum over windows of ``p``, ``dilation`` apart, at every position, with log2(p) passes."""
    done = 1
    while done < p:
        step = min(done, p - done)
        n = x.shape[axis] - step * dilation
        x = torch.maximum(x.narrow(axis, 0, n), x.narrow(axis, step * dilation, n))
        done += step
    return x


@op
def fragments2dense(x, offsets, strides):
    """Interleave fragments (n, f, *L), fragment i at ``offsets[i]``, to (1, f, *(L * strides))."""
    dense = x.new_empty((1, x.shape[1], *(n * s for n, s in zip(x.shape[2:], strides))))
    for fragment, offset in zip(x, offsets):
        dense[(0, slice(None), *(slice(o, None, s) for o, s in zip(offset, strides)))] = fragment
    return dense


@op
def reorder_batch(x, index):
    """Rows of the batch in another order (fragments of two branches brought into the same one)."""
    return x[list(index)]


@op
def concatenate(parts, axis=1):
    """Join tensors along ``axis``."""
    return torch.cat(parts, axis)


@op
def piece(x, axis, start, stop, strip=False):
    """Entries ``start`` to ``stop`` of one axis; ``strip``: without that axis, of which there is one entry."""
    return x.select(axis, start) if strip else x.narrow(axis, start, stop - start)


@op
def reshape(x, sizes):
    """The same elements in order; -1 for one size that follows from the others."""
    return x.reshape(sizes)


@op
def repeat(x, n, axis):
    """``n`` copies on a new axis."""
    return x.unsqueeze(axis).repeat_interleave(n, axis)


@op
def upsampling(x, factor, mode="nearest"):
    """Size L*p per axis. ``mode`` 'nearest': each value repeated; 'linear': interpolated between voxel centres, the
    border repeated."""
    if mode == "linear":
        kind = ("linear", "bilinear", "trilinear")[x.ndim - 3]
        return F.interpolate(x, scale_factor=tuple(map(float, factor)), mode=kind, align_corners=False)
    for axis, p in enumerate(factor, start=2):
        x = x.repeat_interleave(p, dim=axis)
    return x


@op
def unpooling(x, factor):
    """Size L*p + p - 1 per axis, value i at (i + 1)*p - 1, zeros elsewhere."""
    y = x.new_zeros((*x.shape[:2], *(n * p + p - 1 for n, p in zip(x.shape[2:], factor))))
    y[(..., *(slice(p - 1, None, p) for p in factor))] = x
    return y


@op
def crop(x, n, axes):
    """Without ``n[k]`` voxels at both ends of ``axes[k]``."""
    for k, axis in zip(n, axes):
        x = x.narrow(axis, k, x.shape[axis] - 2 * k)
    return x


@op
def pad(x, n, axes, value=0.0):
    """With ``n[k]`` voxels of ``value`` at both ends of ``axes[k]``."""
    widths = [0] * (2 * x.ndim)
    for k, axis in zip(n, axes):
        widths[2 * (x.ndim - 1 - axis):2 * (x.ndim - axis)] = [k, k]
    return F.pad(x, widths, value=value)


# -- normalisation, activation, dropout ---------------------------------------------------------------
@op
def batch_mean(x, axis=1):
    """Mean over all axes but ``axis``."""
    return _full(x).mean([i for i in range(x.ndim) if i != axis])


@op
def batch_std(x, axis=1):
    """Population standard deviation over all axes but ``axis``, plus 1e-6."""
    var = _full(x).var([i for i in range(x.ndim) if i != axis], unbiased=False)
    return var.clamp_min(1e-12).sqrt() + 1e-6  # the clamp keeps the gradient finite where a map is constant


@op
def running_average(old, new):
    """The running average after one more step: 0.9995 old + 0.0005 new."""
    return RUNNING * old + (1 - RUNNING) * new.detach()


@op
def decayed(weight):
    """The weight that the initial value of a running average still has after one more step."""
    return RUNNING * weight


@op
def debias(average, start, weight):
    """A running average without the share ``weight`` of its initial value ``start`` (as Adam's m-hat)."""
    known = weight < 1
    return torch.where(known, (average - weight * start) / torch.where(known, 1 - weight, 1), average)


STD_ROUNDING = 5e-7  # how far single precision may be off in running standard deviations, which begin at 1


@op
def debias_std(std, weight):
    """:func:`debias` of a running standard deviation; where nothing but rounding is left of it, as much as that."""
    least = torch.where(weight < 1, STD_ROUNDING / torch.where(weight < 1, 1 - weight, 1), 0)
    return torch.maximum(debias(std, 1.0, weight), least)


@op
def normalise(x, gamma, mean, std, b, axis=1):
    """``(gamma / std) * x + b - gamma * mean / std``, vectors along ``axis``."""
    scale = gamma / std
    return _full(x) * _along(scale, x, axis) + _along(b - scale * mean, x, axis)


@op
def group_normalise(x, n_groups, gamma=None, b=None, eps=1e-5):
    """``x`` (b, f, *L) with mean 0 and variance 1 in each of ``n_groups`` runs of features, times ``gamma`` plus ``b``."""
    return F.group_norm(_full(x), n_groups, gamma, b, eps)


@op
def feature_normalise(x, gamma=None, b=None, eps=1e-5, axis=1):
    """``x`` with mean 0 and variance 1 along the features at each position, times ``gamma`` plus ``b``."""
    x = _full(x).movedim(axis, -1)
    return F.layer_norm(x, x.shape[-1:], gamma, b, eps).movedim(-1, axis)


@op
def squeeze(x):
    """Mean of each feature of ``x`` (b, f, *L) over its positions."""
    return _full(x).flatten(2).mean(2)


@op
def excite(x, gate):
    """``x`` (b, f, *L) times ``gate`` (b, f)."""
    return x * gate.reshape(*gate.shape, *[1] * (x.ndim - 2))


@op
def maxout(x, factor=2, axis=1):
    """Maximum over each run of ``factor`` consecutive features."""
    return x.unflatten(axis, (x.shape[axis] // factor, factor)).amax(axis + 1)


_ACTIVATIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "elu": F.elu,
    "selu": F.selu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "silu": F.silu, "swish": F.silu,
    "abs": torch.abs,
    "sig": torch.sigmoid, "logistic": torch.sigmoid, "sigmoid": torch.sigmoid,
    "soft+": F.softplus,
    "lin": lambda x: x, "linear": lambda x: x,
    "concentration": lambda x: 7 * F.softplus(x) + 2,
    "radius": lambda x: 3 + 15 * torch.exp(0.15 * x),
}
ACTIVATIONS = (*_ACTIVATIONS, "leaky_relu <slope>", "prelu", "maxout <r>")


def check_activation(name):
    """(name, maxout factor). Raises NotImplementedError listing the names for an unknown one."""
    if not isinstance(name, str):
        raise TypeError(f"An activation function is given by its name, like 'relu', got {name!r}.")
    words = name.split()
    if words[:1] == ["maxout"] and len(words) == 2 and words[1].isdigit() and int(words[1]) >= 2:
        return name, int(words[1])
    if name not in _ACTIVATIONS and name != "prelu" and _leak(name) is None:
        raise NotImplementedError(f"Unknown activation function {name!r}.{suggest(name, ACTIVATIONS)} "
                                  f"Permitted: {', '.join(ACTIVATIONS)}.")
    return name, 1


def _leak(name):
    """The slope of 'leaky_relu <slope>' for x < 0, from 0 up to 1; None for all else."""
    word, _, slope = str(name).partition(" ")
    try:
        return float(slope) if word == "leaky_relu" and 0 <= float(slope) <= 1 else None
    except ValueError:
        return None


def he_gain(name):
    """Variance of weights times their number of inputs that keeps the scale of a signal through activation ``name``:
    2 / (1 + slope²) where x < 0 is damped (slope 0 for the smooth relatives of relu), 1 for all others."""
    name = str(name)
    if name.startswith("leaky_relu"):
        slope = _leak(name)
        return 2 / (1 + (0.01 if slope is None else slope) ** 2)
    return 2.0 if name in ("relu", "elu", "gelu", "silu", "swish", "soft+") else 1.0


@op
def apply_activation(x, name, b1=None, axis=1):
    """Elementwise activation; 'prelu' takes slopes ``b1`` for x < 0; 'maxout r' reduces features by r."""
    _, factor = check_activation(name)
    if factor > 1:
        return maxout(x, factor, axis)
    if name == "prelu":
        b1 = torch.as_tensor(b1, dtype=x.dtype)
        return torch.where(x < 0, x * (_along(b1, x, axis) if b1.ndim else b1), x)
    leak = _leak(name)
    return _ACTIVATIONS[name](x) if leak is None else F.leaky_relu(x, leak)


@op
def dropout(x, rate):
    """Zero each element with probability ``rate`` and scale the others by 1 / (1 - rate)."""
    return x * (torch.rand_like(x) >= rate) / (1 - rate)


@op
def happens(p):
    """1 with probability ``p``, else 0, drawn at each call."""
    return (torch.rand_like(p) < p).to(p.dtype)


@op
def gaussian(mu, log_sig):
    """A draw from the normal distribution around ``mu`` with standard deviation exp(``log_sig``)."""
    return mu + torch.exp(log_sig) * torch.randn_like(mu)


@op
def box_mean(x, box):
    """Mean over ``box`` (odd) around each voxel of ``x`` (b, f, *L), with zeros outside."""
    widths = [side for n in reversed(box) for side in (n // 2, n // 2)]
    return _AVG_POOL[len(box)](F.pad(x, widths), tuple(box), (1,) * len(box))


@op
def neighbour_mean(x, n, axis=1):
    """Mean over ``n`` (odd) neighbours along ``axis``, the first and last of which are repeated beyond the ends."""
    length = x.shape[axis]
    index = torch.arange(-(n // 2), length + n // 2, device=x.device).clamp(0, length - 1)
    return x.index_select(axis, index).unfold(axis, n, 1).mean(-1)


@op
def softmax(x, axis=1, n_indep=1):
    """Softmax along ``axis``, separately in ``n_indep`` consecutive blocks."""
    x = _full(x)
    if n_indep == 1:
        return torch.softmax(x, axis)
    return torch.softmax(x.unflatten(axis, (n_indep, -1)), axis + 1).flatten(axis, axis + 1)
