"""Noise of the detector, and contrast and brightness that vary over the image.

Functions of an image (f, z, x, y) or (f, x, y), float with values in 0..1, and a np.random.Generator. They return a new
image, clipped to 0..1. Strengths are drawn anew for each image from a range (low, high).
"""
import math

import numpy as np

from elektronn2.data.edits import EVERYWHERE, clip, linear, shot
from elektronn2.data.non_geometric_augmentation import check_range, prepare

__all__ = ["brightness_gradient", "contrast_gradient", "gaussian_noise", "poisson_noise"]


def gaussian_noise(image, sigma=(0.0, 0.1), rng=None):
    """Normally distributed noise of a standard deviation drawn from ``sigma``, added to each voxel.

    >>> image = gaussian_noise(np.full((1, 4, 32, 32), 0.5, np.float32), (0.1, 0.1), np.random.default_rng(0))
    >>> round(float(image.std()), 2)
    0.1
    """
    check_range("sigma", sigma, 0, 10)
    image, rng = prepare(image, False, rng)
    strength = np.float32(rng.uniform(*sigma))
    linear(image, EVERYWHERE, 1, strength * rng.standard_normal(image.shape, np.float32))
    clip(image, EVERYWHERE)
    return image


def poisson_noise(image, counts=(20, 200), rng=None):
    """Noise of a detector that counts electrons, where white is a number of them that is drawn from ``counts``.

    Mean and variance (d / counts, for grey values d) are those of the Poisson distribution; the numbers are continuous:
    ((sqrt(c - 1/8) + n / 2)^2 - 1/8) / counts with c = counts d and n normally distributed. Source: the transform of
    Anscombe 1948, The transformation of Poisson, binomial and negative-binomial data, read backwards.

    >>> image = poisson_noise(np.full((1, 4, 32, 32), 0.5, np.float32), (50, 50), np.random.default_rng(0))
    >>> round(float(image.mean()), 2), round(float(image.std()), 2)
    (0.5, 0.1)
    """
    check_range("counts", counts, 1, 1e9)
    image, rng = prepare(image, False, rng)
    white = np.float32(rng.uniform(*counts))
    shot(image, EVERYWHERE, white, rng.standard_normal(image.shape, np.float32))
    clip(image, EVERYWHERE)
    return image


def brightness_gradient(image, strength=(0.1, 0.4), rng=None):
    """Brightness that rises along a random direction in x, y, from one end of the image to the other by ``strength``.

    >>> image = brightness_gradient(np.full((1, 2, 9, 9), 0.5, np.float32), (0.2, 0.2), np.random.default_rng(0))
    >>> bool(0 < np.ptp(image) <= 0.2001), round(float(image.mean()), 3)
    (True, 0.5)
    """
    check_range("strength", strength, 0, 2)
    image, rng = prepare(image, False, rng)
    linear(image, EVERYWHERE, 1, _ramp(image.shape[-2:], rng.uniform(*strength), rng))
    clip(image, EVERYWHERE)
    return image


def contrast_gradient(image, strength=(0.2, 0.8), rng=None):
    """Contrast about the grey value 1/2 that rises along a random direction in x, y by ``strength``, about 1.

    >>> image = contrast_gradient(np.full((1, 2, 9, 9), 0.6, np.float32), (0.5, 0.5), np.random.default_rng(0))
    >>> bool(0 < np.ptp(image) <= 0.05001), round(float(image.mean()), 3)
    (True, 0.6)
    """
    check_range("strength", strength, 0, 2)
    image, rng = prepare(image, False, rng)
    ramp = _ramp(image.shape[-2:], rng.uniform(*strength), rng)
    linear(image, EVERYWHERE, 1 + ramp, -ramp / 2)
    clip(image, EVERYWHERE)
    return image


def _ramp(shape, strength, rng):
    """(x, y) float32: a plane with mean 0 whose values lie within +-strength / 2."""
    angle = rng.uniform(0, 2 * math.pi)
    x, y = (np.linspace(-0.5, 0.5, n) if n > 1 else np.zeros(1) for n in shape)
    plane = math.cos(angle) * x[:, None] + math.sin(angle) * y
    return (strength * plane / (abs(math.cos(angle)) + abs(math.sin(angle)))).astype(np.float32)
