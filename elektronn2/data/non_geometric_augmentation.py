"""Augmentation of grey values: contrast, noise, blur, and boxes in which the image is spoiled.

Functions of an image (f, z, x, y) or (f, x, y), float with values in 0..1, and a np.random.Generator. They return a new
image, or with ``data_overwrite`` the given one, changed. Channels are changed independently, unless something else is said.
"""
import operator

import numpy as np

from elektronn2.data.edits import EVERYWHERE, Recipe, blur, clip, coarsen, fill, linear, mirror, power

__all__ = ["InvalidNonGeomAugmentParameters", "blur_augment", "blurry_blobs", "cutblur", "cutout", "grey_augment",
           "mirrored_blobs", "noise_augment", "noisy_random_erasing", "uniform_random_erasing"]


class InvalidNonGeomAugmentParameters(ValueError):
    """Strengths, numbers or sizes that make no sense."""


def grey_augment(image, channels, rng):
    """A new image with contrast, brightness and gamma changed at random, independently in each of ``channels`` (a list).

    d -> clip(d * a + c, 0, 1) ** g with a = 1 + 0.3 (u - 1/2), c = 0.3 (u - 1/2), g = 2 ** (2 u - 1), u uniform in [0, 1).

    >>> image = np.full((1, 2, 2, 2), 0.5, np.float32)
    >>> grey_augment(image, [0], np.random.default_rng(0)).dtype
    dtype('float32')
    """
    try:
        channels = [operator.index(c) for c in channels]
    except TypeError:
        raise InvalidNonGeomAugmentParameters(f"channels must be a list such as [0], got {channels!r}.") from None
    if bad := [c for c in channels if c not in range(len(image))]:
        raise InvalidNonGeomAugmentParameters(f"channels names {bad}, but the image has {len(image)}, numbered from 0.")
    image, rng = prepare(image, False, rng)
    for channel, a, c, g in zip(channels, *rng.random((3, len(channels)))):
        linear(image, (channel,), np.float32(1 + 0.3 * (a - 0.5)), np.float32(0.3 * (c - 0.5)))
        clip(image, (channel,))
        power(image, (channel,), np.float32(2 ** (2 * g - 1)))
    return image


def noise_augment(data, level=0.15, data_overwrite=False, rng=None):
    """Uniform noise of width ``level`` (0..1) added to each voxel; the result is clipped to 0..1.

    >>> image = noise_augment(np.zeros((1, 4, 4, 4), np.float32), 0.2, rng=np.random.default_rng(0))
    >>> bool(0 <= image.min() and image.max() <= 0.1)
    True
    """
    check_number("level", level, 0, 1)
    data, rng = prepare(data, data_overwrite, rng)
    linear(data, EVERYWHERE, 1, np.float32(level) * (rng.random(data.shape, np.float32) - np.float32(0.5)))
    clip(data, EVERYWHERE)
    return data


def blur_augment(data, level=1, data_overwrite=False):
    """Each channel blurred by a Gaussian of standard deviation ``level`` voxels."""
    check_number("level", level, 0, 1000)
    data, _ = prepare(data, data_overwrite)
    for channel in range(len(data)):
        blur(data, (channel,), level)
    return data


def blurry_blobs(data, diffuseness=None, num_blob_range=(5, 15), blob_size_range=(10, 32), data_overwrite=False, rng=None):
    """Boxes in which the image is blurred by a Gaussian of ``diffuseness`` voxels (None: a new one in 1..5 for each box).

    In each channel there are at random between ``num_blob_range`` (the last one excluded) boxes, with edges of a size in
    ``blob_size_range`` (likewise), rounded down to an even number; an edge that is longer than the image is cut to it.
    """
    check_blobs(num_blob_range, blob_size_range, diffuseness=diffuseness)
    data, rng = prepare(data, data_overwrite, rng)
    for box in _boxes(data, num_blob_range, blob_size_range, rng):
        blur(data, box, diffuseness or int(rng.integers(1, 6)))
    return data


def noisy_random_erasing(data, noise_range=(0, 1), num_blob_range=(5, 15), blob_size_range=(10, 32), data_overwrite=False,
                         rng=None):
    """Boxes as in :func:`blurry_blobs`, filled with uniform noise in ``noise_range``.

    Source: Zhong et al. 2017, Random erasing data augmentation.
    """
    check_blobs(num_blob_range, blob_size_range, noise_range=noise_range)
    data, rng = prepare(data, data_overwrite, rng)
    for box in _boxes(data, num_blob_range, blob_size_range, rng):
        fill(data, box, rng.uniform(*noise_range, [side.stop - side.start for side in box[1:]]))
    return data


def uniform_random_erasing(data, value=0, num_blob_range=(5, 15), blob_size_range=(10, 32), data_overwrite=False, rng=None):
    """Boxes as in :func:`blurry_blobs`, filled with ``value``.

    >>> image = uniform_random_erasing(np.ones((1, 8, 40, 40), np.float32), rng=np.random.default_rng(0))
    >>> sorted(set(image.ravel().tolist()))
    [0.0, 1.0]
    """
    check_blobs(num_blob_range, blob_size_range, value=value)
    data, rng = prepare(data, data_overwrite, rng)
    for box in _boxes(data, num_blob_range, blob_size_range, rng):
        fill(data, box, value)
    return data


def cutout(data, value=0, size=(0.1, 0.4), data_overwrite=False, rng=None):
    """One box, the same in all channels, filled with ``value``; its edges are drawn from ``size``, as parts of the image.

    Source: DeVries and Taylor 2017, Improved regularization of convolutional neural networks with cutout.

    >>> float(cutout(np.ones((1, 8, 40, 40), np.float32), 0.5, rng=np.random.default_rng(0)).min())
    0.5
    """
    check_blobs(value=value)
    check_range("size", size, 0, 1)
    data, rng = prepare(data, data_overwrite, rng)
    fill(data, _box(data, size, rng), value)
    return data


def cutblur(data, factor=(2, 8), size=(0.1, 0.4), data_overwrite=False, rng=None):
    """One box as in :func:`cutout`, in which the resolution in x and y is lower by a factor drawn from ``factor``.

    Source: Yoo et al. 2020, Rethinking data augmentation for image super-resolution.

    >>> image = np.random.default_rng(0).random((1, 8, 40, 40), np.float32)
    >>> bool(cutblur(image, rng=np.random.default_rng(0)).std() < image.std())
    True
    """
    check_range("factor", factor, 1, 100)
    check_range("size", size, 0, 1)
    data, rng = prepare(data, data_overwrite, rng)
    box = _box(data, size, rng)
    coarsen(data, box, float(rng.uniform(*factor)), (data.ndim - 2, data.ndim - 1))
    return data


def mirrored_blobs(data, num_blob_range=(5, 15), blob_size_range=(10, 32), data_overwrite=False, rng=None):
    """Boxes as in :func:`blurry_blobs`, whose content is reflected along one of their axes, drawn for each.

    >>> image = np.random.default_rng(0).random((1, 8, 40, 40), np.float32)
    >>> new = mirrored_blobs(image, rng=np.random.default_rng(1))
    >>> bool(np.any(new != image)), bool(np.all(np.sort(new, axis=None) == np.sort(image, axis=None)))
    (True, True)
    """
    check_blobs(num_blob_range, blob_size_range)
    data, rng = prepare(data, data_overwrite, rng)
    for box in _boxes(data, num_blob_range, blob_size_range, rng):
        mirror(data, box, int(rng.integers(data.ndim - 1)))
    return data


def check_blobs(num_blob_range=(5, 15), blob_size_range=(10, 32), diffuseness=None, noise_range=(0, 1), value=0):
    """Raise InvalidNonGeomAugmentParameters for arguments of the functions above that make no sense.

    >>> check_blobs(diffuseness=-1)
    Traceback (most recent call last):
    elektronn2...InvalidNonGeomAugmentParameters: diffuseness must be None or a number above 0, got -1.
    """
    check_counts("num_blob_range", num_blob_range, 0)
    check_counts("blob_size_range", blob_size_range, 2)
    if diffuseness is not None and not (_finite(diffuseness) and diffuseness > 0):
        raise InvalidNonGeomAugmentParameters(f"diffuseness must be None or a number above 0, got {diffuseness!r}.")
    check_range("noise_range", noise_range)
    check_number("value", value)


def check_counts(name, given, least):
    """Raise InvalidNonGeomAugmentParameters unless ``given`` is (first, last + 1), integers from ``least`` on."""
    try:
        low, high = map(operator.index, given)
    except (TypeError, ValueError):
        low = high = least
    if not least <= low < high:
        raise InvalidNonGeomAugmentParameters(f"{name} must be two integers (first, last + 1) with first at least "
                                              f"{least}, got {given!r}.")


def check_number(name, value, least=-np.inf, most=np.inf):
    """Raise InvalidNonGeomAugmentParameters unless ``value`` is a number within these limits."""
    if not (_finite(value) and least <= value <= most):
        raise InvalidNonGeomAugmentParameters(f"{name} must be a number{_limits(least, most)}, got {value!r}.")


def check_range(name, given, least=-np.inf, most=np.inf):
    """Raise InvalidNonGeomAugmentParameters unless ``given`` is (low, high), numbers of at least and at most so much."""
    try:
        low, high = given
    except (TypeError, ValueError):
        low, high = 1, 0
    if not (_finite(low) and _finite(high) and least <= low <= high <= most):
        raise InvalidNonGeomAugmentParameters(f"{name} must be (low, high), two numbers{_limits(least, most)}, got "
                                              f"{given!r}.")


def _limits(least, most):
    return f" of {least} to {most}" if np.isfinite([least, most]).all() else ""


def _finite(value):
    return isinstance(value, (int, float, np.number)) and abs(value) < np.inf


def prepare(data, data_overwrite, rng=None):
    """What to edit, from the image or a :class:`~elektronn2.data.edits.Recipe` for one, and a generator."""
    if data.dtype.kind != "f":
        raise InvalidNonGeomAugmentParameters(f"The image must be floating point with values in 0..1, got {data.dtype}.")
    return (data if data_overwrite or isinstance(data, Recipe) else data.copy()), rng or np.random.default_rng()


def _boxes(data, num_blob_range, blob_size_range, rng):
    """Index tuples of random boxes, channel by channel."""
    for channel in range(len(data)):
        for _ in range(rng.integers(*num_blob_range)):
            size = rng.integers(*blob_size_range) // 2 * 2
            edges = [min(size, n) for n in data.shape[1:]]
            starts = [rng.integers(n - edge + 1) for n, edge in zip(data.shape[1:], edges)]
            yield (channel, *(slice(a, a + edge) for a, edge in zip(starts, edges)))


def _box(data, size, rng):
    """The index tuple of one random box in all channels, with edges of ``size`` (low, high) as parts of the image."""
    edges = [max(1, round(n * rng.uniform(*size))) for n in data.shape[1:]]
    starts = [int(rng.integers(n - edge + 1)) for n, edge in zip(data.shape[1:], edges)]
    return (slice(None), *(slice(a, a + edge) for a, edge in zip(starts, edges)))
