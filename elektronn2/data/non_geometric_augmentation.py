"""Augmentations of grey values: pure functions of (array, generator), arrays (f, z, x, y)."""
import numpy as np


def grey_augment(image, channels, rng):
    """A new image with contrast, brightness and gamma changed at random, independently in each of ``channels``.

    d -> clip(d * a + c, 0, 1) ** g with a = 1 + 0.3 (u - 1/2), c = 0.3 (u - 1/2), g = 2 ** (2 u - 1), u uniform in [0, 1).
    For images with values in 0..1.

    >>> image = np.full((1, 2, 2, 2), 0.5, np.float32)
    >>> grey_augment(image, [0], np.random.default_rng(0)).dtype
    dtype('float32')
    """
    image = image.copy()
    for channel in channels:
        a, c, g = rng.random(3)
        grey = np.clip(image[channel] * np.float32(1 + 0.3 * (a - 0.5)) + np.float32(0.3 * (c - 0.5)), 0, 1)
        image[channel] = grey ** np.float32(2 ** (2 * g - 1))
    return image
