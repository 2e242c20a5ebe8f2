"""Initial values of weights."""
from numbers import Real

import numpy as np

from elektronn2.config import config
from elektronn2.utils.validate import as_tuple, suggest

MODES = ("normal", "uni", "ortho", "const", "prelu", "fix-uni")

_rng = None
_rng_seed = None


def generator():
    """The generator of initial weights; starts anew whenever ``config.seed`` is set to a new value."""
    global _rng, _rng_seed
    if _rng is None or config.seed != _rng_seed:
        reseed(config.seed)
    return _rng


def reseed(seed):
    """Start the generator of initial weights again from ``seed`` (None: unpredictable)."""
    global _rng, _rng_seed
    config.seed = _rng_seed = seed
    _rng = np.random.default_rng(seed)


def initweights(shape, dtype=None, scale="glorot", mode="normal", pool=None, spatial_axes=None, rng=None, gain=2.0,
                groups=1):
    """Array of initial weights.

    ``mode`` 'const': all ``scale``; 'prelu': shape (n, 2), ``scale`` and slope 1; 'fix-uni': uniform in (-scale, scale);
    'normal': N(0, W); 'uni': uniform; 'ortho': orthogonal rows of standard deviation W. In the last three ``scale`` is

    * 'glorot': W = sqrt(2/S), 'uni' U(-W, W). S = n_in + n_out for a matrix (n_in, n_out), and
      (n_in + n_out/prod(pool)/groups) * prod(kernel) for a convolution (n_out, n_in, *kernel) with kernel axes
      ``spatial_axes``, n_in of each group;
    * 'he': W = sqrt(gain/N), 'uni' with that standard deviation. N = n_in, or n_in * prod(kernel): the inputs of a sum.
      With ``gain`` 2 signals keep their scale through any number of layers of relu.

    Raises TypeError for a shape that is not made of integers; ValueError for sizes below 1, an unknown mode, a scale that
    does not go with it, and shapes of which the last three modes cannot tell n_in and n_out, like that of a vector.

    Sources: Glorot and Bengio 2010, Understanding the difficulty of training deep feedforward networks; He et al. 2015,
    Delving deep into rectifiers.

    >>> initweights((2, 2), mode='const', scale=0.5)
    array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """
    rng = rng or generator()
    shape = as_tuple(shape, np.size(shape), "shape")
    dtype = dtype or config.floatX
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.{suggest(mode, MODES)}")
    if mode in ("const", "prelu", "fix-uni") and not isinstance(scale, Real):
        raise ValueError(f"scale must be a number for mode {mode!r}, got {scale!r}.")
    if mode == "const":
        return np.full(shape, scale, dtype)
    if mode == "prelu":
        if len(shape) != 2 or shape[1] != 2:
            raise ValueError(f"mode 'prelu' is for shape (n, 2), got {shape}.")
        return np.stack([np.full(shape[0], scale), np.ones(shape[0])], axis=1).astype(dtype)
    if mode == "fix-uni":
        return rng.uniform(-scale, scale, shape).astype(dtype)
    if scale not in ("glorot", "he"):
        raise ValueError(f"scale must be 'glorot' or 'he' for mode {mode!r}, got {scale!r}.")
    spatial = tuple(range(2, len(shape))) if spatial_axes is None else tuple(spatial_axes)
    if len(shape) - len(spatial) != 2:
        raise ValueError(f"mode {mode!r} with scale {scale!r} goes by the numbers of inputs and outputs, which the shape "
                         f"{shape}{f' with the spatial axes {spatial}' * bool(spatial)} does not tell: two axes that are "
                         "not spatial are needed. A vector can have mode 'const' or 'fix-uni' with a number as scale.")
    if len(shape) == 2:
        n_in, n_out = shape
        kernel = pooled = 1
    else:
        n_out, n_in = (n for i, n in enumerate(shape) if i not in spatial)
        kernel = np.prod([shape[i] for i in spatial])
        pooled = groups * np.prod(pool if pool is not None else 1)
    width = np.sqrt(2.0 / ((n_in + n_out / pooled) * kernel) if scale == "glorot" else gain / (n_in * kernel))
    if mode == "normal":
        return rng.normal(0, width, shape).astype(dtype)
    if mode == "uni":
        bound = width if scale == "glorot" else np.sqrt(3) * width
        return rng.uniform(-bound, bound, shape).astype(dtype)
    return _orthogonal(shape, n_out, width, rng).astype(dtype)


def weight_init(name, gain, where):
    """Arguments of :func:`initweights` for the name that a layer was given for its weights ``w``.

    'glorot', 'ortho', or 'he' with ``gain`` as the layer's activation needs it. ValueError, naming ``where``, otherwise.
    """
    known = {"glorot": {}, "ortho": dict(mode="ortho"), "he": dict(scale="he", gain=gain)}
    if name not in known:
        raise ValueError(f"{where}: w must be None, an array, a parameter of another node, [array, 'const'], or one of "
                         f"{', '.join(map(repr, known))}; got {name!r}.{suggest(name, known)}")
    return {"scale": "glorot", "mode": "normal", **known[name]}


def bias_init(activation_func, start=1.0):
    """Arguments of :func:`initweights` for the bias of a layer, by its activation; ``start``: of relu, prelu, maxout.

    >>> bias_init('relu', 0.25)
    {'mode': 'const', 'scale': 0.25}
    """
    if activation_func == "prelu":
        return dict(mode="prelu", scale=start)
    if activation_func == "relu" or activation_func.startswith("maxout"):
        return dict(mode="const", scale=start)
    if activation_func == "sigmoid":
        return dict(mode="const", scale=0.5)
    return dict(mode="fix-uni", scale=1e-6)


def _orthogonal(shape, n_out, width, rng):
    """Right singular vectors of an (n_out, rest) Gaussian, each row scaled to standard deviation ``width``."""
    rest = int(np.prod(shape)) // n_out
    rows = rng.normal(size=(n_out, max(n_out, rest)))
    v = np.linalg.svd(rows, full_matrices=False)[2]
    v = (v / v.std(axis=1, keepdims=True) * width)[:, :rest]
    return v.T.reshape(shape) if len(shape) == 2 else v.reshape(shape)
