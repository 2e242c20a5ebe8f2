"""The few things that augmentations do to the grey values of a part of an image.

Each function changes the part ``image[region]``, a view, in place. Given a :class:`Recipe` in place of the image, it is
noted there instead, to be done later and elsewhere: on a GPU, by :mod:`elektronn2.training.gpu_augmentation`.

>>> image = np.zeros((1, 2, 4), np.float32)
>>> linear(image, (0, 1), 1, 0.5)
>>> image[0].tolist()
[[0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]]
"""
import functools

import numpy as np
from scipy.ndimage import correlate, gaussian_filter

EVERYWHERE = (...,)


class Recipe:
    """Stands for an image (f, *spatial) float32 that is not there yet: has its shape, and ``edits`` to be done to it.

    ``source``: what makes the image, an array or a :class:`~elektronn2.data.pullback.Pull`. ``edits``: list of (name of a
    function of this module, region, further arguments).

    >>> recipe = Recipe((1, 2, 4))
    >>> linear(recipe, (0, 1), 1, 0.5)
    >>> recipe.edits
    [('linear', (0, 1), (1, 0.5))]
    """

    dtype, ndim = np.dtype(np.float32), property(lambda self: len(self.shape))

    def __init__(self, shape, source=None):
        self.shape, self.source, self.edits = tuple(shape), source, []

    def __len__(self):
        return self.shape[0]


def _edit(function):
    @functools.wraps(function)
    def edit(image, region, *arguments):
        if isinstance(image, Recipe):
            image.edits.append((function.__name__, region, arguments))
        else:
            function(image, region, *arguments)
    return edit


@_edit
def linear(image, region, gain, offset):
    """d * gain + offset; both are numbers, or arrays that go with the region."""
    part = image[region]
    np.multiply(part, gain, out=part)
    np.add(part, offset, out=part)


@_edit
def fill(image, region, values):
    """A number or an array."""
    image[region] = values


@_edit
def clip(image, region):
    """To 0..1."""
    part = image[region]
    np.clip(part, 0, 1, out=part)


@_edit
def power(image, region, exponent):
    """d ** exponent, of d in 0..1."""
    part = image[region]
    np.power(part, exponent, out=part)


@_edit
def shot(image, region, counts, normal):
    """Noise of counting ``counts`` d events, by an array of normal values: see
    :func:`elektronn2.data.grey_noise.poisson_noise`."""
    root = np.sqrt(np.maximum(image[region] * counts - 0.125, 0)) + 0.5 * normal
    image[region] = (root * root - 0.125) / counts


@_edit
def blur(image, region, sigma):
    """Gaussian of standard deviation ``sigma``, along all axes of the region."""
    image[region] = gaussian_filter(image[region], sigma)


@_edit
def convolve(image, region, kernel):
    """With a point-symmetric kernel (odd, odd) along the last two axes; mirrored at the border."""
    part = image[region]
    image[region] = correlate(part, kernel.reshape((1,) * (part.ndim - 2) + kernel.shape), mode="reflect")


@_edit
def coarsen(image, region, factor, axes):
    """Resolution along ``axes`` reduced by ``factor``: means of blocks, between whose centres it is interpolated."""
    part = image[region]
    for axis in axes:
        part = np.moveaxis(np.tensordot(coarsening(part.shape[axis], factor), part, (1, axis)), 0, axis)
    image[region] = part


@_edit
def mirror(image, region, axis):
    """Reflect the region along an axis."""
    image[region] = np.flip(image[region], axis).copy()


@functools.lru_cache(maxsize=256)
def coarsening(n, factor):
    """The matrix (n, n), float32, of :func:`coarsen` on an axis of length ``n``.

    >>> coarsening(4, 2)[:, 0].tolist()
    [0.5, 0.375, 0.125, 0.0]
    """
    m = max(1, round(n / factor))
    edges = np.linspace(0, n, m + 1)
    inside = np.minimum(np.arange(1, n + 1), edges[1:, None]) - np.maximum(np.arange(n), edges[:-1, None])
    means = np.maximum(inside, 0) * m / n
    centres = (edges[:-1] + edges[1:]) / 2
    back = np.stack([np.interp(np.arange(n) + 0.5, centres, unit) for unit in np.eye(m)], axis=1)
    return (back @ means).astype(np.float32)
