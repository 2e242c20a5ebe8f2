"""Augmentation of grey values: contrast, noise, blur, and blobs in which the image is spoiled.

Functions of an image (f, z, x, y) or (f, x, y), float with values in 0..1, and a np.random.Generator. They return a new
image, or with ``data_overwrite`` the given one, changed. Channels are changed independently.
"""
import operator

import numpy as np
from scipy.ndimage import gaussian_filter

__all__ = ["InvalidNonGeomAugmentParameters", "blur_augment", "blurry_blobs", "grey_augment", "noise_augment",
           "noisy_random_erasing", "uniform_random_erasing"]


class InvalidNonGeomAugmentParameters(ValueError):
    """Strengths, numbers or sizes that make no sense."""


def grey_augment(image, channels, rng):
    """A new image with contrast, brightness and gamma changed at random, independently in each of ``channels``.

    d -> clip(d * a + c, 0, 1) ** g with a = 1 + 0.3 (u - 1/2), c = 0.3 (u - 1/2), g = 2 ** (2 u - 1), u uniform in [0, 1).

    >>> image = np.full((1, 2, 2, 2), 0.5, np.float32)
    >>> grey_augment(image, [0], np.random.default_rng(0)).dtype
    dtype('float32')
    """
    image = image.copy()
    for channel, a, c, g in zip(channels, *rng.random((3, len(channels)))):
        grey = np.clip(image[channel] * np.float32(1 + 0.3 * (a - 0.5)) + np.float32(0.3 * (c - 0.5)), 0, 1)
        image[channel] = grey ** np.float32(2 ** (2 * g - 1))
    return image


def noise_augment(data, level=0.15, data_overwrite=False, rng=None):
    """Uniform noise of width ``level`` (0..1) added to each voxel; the result is clipped to 0..1.

    >>> image = noise_augment(np.zeros((1, 4, 4, 4), np.float32), 0.2, rng=np.random.default_rng(0))
    >>> bool(0 <= image.min() and image.max() <= 0.1)
    True
    """
    if not 0 <= level <= 1:
        raise InvalidNonGeomAugmentParameters(f"noise_augment: level must lie in 0..1, got {level!r}.")
    data, rng = _prepare(data, data_overwrite, rng)
    data += np.float32(level) * (rng.random(data.shape, np.float32) - np.float32(0.5))
    return np.clip(data, 0, 1, out=data)


def blur_augment(data, level=1, data_overwrite=False):
    """Each channel blurred by a Gaussian of standard deviation ``level`` voxels."""
    if level < 0:
        raise InvalidNonGeomAugmentParameters(f"blur_augment: level must not be negative, got {level!r}.")
    data, _ = _prepare(data, data_overwrite)
    for channel in data:
        channel[...] = gaussian_filter(channel, level)
    return data


def blurry_blobs(data, diffuseness=None, num_blob_range=(5, 15), blob_size_range=(10, 32), data_overwrite=False, rng=None):
    """Boxes in which the image is blurred by a Gaussian of ``diffuseness`` voxels (None: a new one in 1..5 for each box).

    In each channel there are at random between ``num_blob_range`` (the last one excluded) boxes, with edges of a size in
    ``blob_size_range`` (likewise), rounded down to an even number; an edge that is longer than the image is cut to it.
    """
    check_blobs(num_blob_range, blob_size_range, diffuseness=diffuseness)
    data, rng = _prepare(data, data_overwrite, rng)
    for box in _boxes(data, num_blob_range, blob_size_range, rng):
        data[box] = gaussian_filter(data[box], diffuseness or rng.integers(1, 6))
    return data


def noisy_random_erasing(data, noise_range=(0, 1), num_blob_range=(5, 15), blob_size_range=(10, 32), data_overwrite=False,
                         rng=None):
    """Boxes as in :func:`blurry_blobs`, filled with uniform noise in ``noise_range``.

    Source: Zhong et al. 2017, Random erasing data augmentation.
    """
    check_blobs(num_blob_range, blob_size_range, noise_range=noise_range)
    data, rng = _prepare(data, data_overwrite, rng)
    for box in _boxes(data, num_blob_range, blob_size_range, rng):
        data[box] = rng.uniform(*noise_range, data[box].shape)
    return data


def uniform_random_erasing(data, value=0, num_blob_range=(5, 15), blob_size_range=(10, 32), data_overwrite=False, rng=None):
    """Boxes as in :func:`blurry_blobs`, filled with ``value``.

    >>> image = uniform_random_erasing(np.ones((1, 8, 40, 40), np.float32), rng=np.random.default_rng(0))
    >>> sorted(set(image.ravel().tolist()))
    [0.0, 1.0]
    """
    check_blobs(num_blob_range, blob_size_range, value=value)
    data, rng = _prepare(data, data_overwrite, rng)
    for box in _boxes(data, num_blob_range, blob_size_range, rng):
        data[box] = value
    return data


def check_blobs(num_blob_range=(5, 15), blob_size_range=(10, 32), diffuseness=None, noise_range=(0, 1), value=0):
    """Raise InvalidNonGeomAugmentParameters for arguments of the functions above that make no sense.

    >>> check_blobs(diffuseness=-1)
    Traceback (most recent call last):
    elektronn2...InvalidNonGeomAugmentParameters: diffuseness must be None or a number above 0, got -1.
    """
    for name, given, least in (("num_blob_range", num_blob_range, 0), ("blob_size_range", blob_size_range, 2)):
        try:
            low, high = map(operator.index, given)
        except (TypeError, ValueError):
            low = high = least
        if not least <= low < high:
            raise InvalidNonGeomAugmentParameters(f"{name} must be two integers (first, last + 1) with first at least "
                                                  f"{least}, got {given!r}.")
    if diffuseness is not None and not (_finite(diffuseness) and diffuseness > 0):
        raise InvalidNonGeomAugmentParameters(f"diffuseness must be None or a number above 0, got {diffuseness!r}.")
    try:
        low, high = noise_range
    except (TypeError, ValueError):
        low, high = 1, 0
    if not (_finite(low) and _finite(high) and low <= high):
        raise InvalidNonGeomAugmentParameters(f"noise_range must be (low, high), two numbers, got {noise_range!r}.")
    if not _finite(value):
        raise InvalidNonGeomAugmentParameters(f"value must be a number, got {value!r}.")


def _finite(value):
    return isinstance(value, (int, float, np.number)) and abs(value) < np.inf


def _prepare(data, data_overwrite, rng=None):
    if data.dtype.kind != "f":
        raise InvalidNonGeomAugmentParameters(f"The image must be floating point with values in 0..1, got {data.dtype}.")
    return (data if data_overwrite else data.copy()), rng or np.random.default_rng()


def _boxes(data, num_blob_range, blob_size_range, rng):
    """Index tuples of random boxes, channel by channel."""
    for channel in range(len(data)):
        for _ in range(rng.integers(*num_blob_range)):
            size = rng.integers(*blob_size_range) // 2 * 2
            edges = [min(size, n) for n in data.shape[1:]]
            starts = [rng.integers(n - edge + 1) for n, edge in zip(data.shape[1:], edges)]
            yield (channel, *(slice(a, a + edge) for a, edge in zip(starts, edges)))
