"""What goes wrong when sections are cut and imaged one by one: some are missing, scratched, blurred or faint.

Functions of an image (f, z, x, y), whose sections are its planes of z, or (f, x, y), which is one section; float with
values in 0..1; and a np.random.Generator. They return a new image. Each section is hit with ``section_probability``, in all
its channels alike, with a strength drawn for it from a range (low, high).

Sections out of place (``misalignment``) are a matter of geometry: see
:func:`elektronn2.data.transformations.get_warped_slice`. Source of the kinds: Lee et al. 2017, Superhuman accuracy on the
SNEMI3D connectomics challenge; Funke et al. 2018, Large scale image segmentation with structured loss based deep learning.
"""
import math

import numpy as np

from elektronn2.data.edits import clip, coarsen, convolve, linear
from elektronn2.data.non_geometric_augmentation import check_counts, check_number, check_range, prepare

__all__ = ["defocus_blur", "low_contrast_sections", "low_resolution_sections", "missing_sections", "motion_blur", "stripes"]


def missing_sections(image, section_probability=0.05, value=(0.0, 0.0), partly=0.0, rng=None):
    """Sections filled with a grey value drawn from ``value``; with probability ``partly`` only beyond a random line.

    >>> image = missing_sections(np.ones((1, 9, 8, 8), np.float32), 0.5, rng=np.random.default_rng(0))
    >>> image[0, :, 0, 0].tolist()
    [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    check_range("value", value)
    check_number("partly", partly, 0, 1)
    image, rng = prepare(image, False, rng)
    for section in _sections(image, section_probability, rng):
        grey, part = np.float32(rng.uniform(*value)), rng.random() < partly
        along, reach = _along(image.shape[-2:], rng)
        keep = (along < rng.uniform(-reach, reach)).astype(np.float32) if part else np.float32(0)
        linear(image, section, keep, (1 - keep) * grey)
    return image


def stripes(image, section_probability=0.1, number=(1, 9), width=(1.0, 3.0), strength=(0.05, 0.3), rng=None):
    """Parallel lines, brighter or darker by ``strength``, as from a nicked knife or from curtaining; clipped to 0..1.

    ``number`` (integers, the last one excluded) and ``width`` (voxels) of the lines in a section; their direction is drawn
    for each section.

    >>> image = stripes(np.full((1, 9, 8, 8), 0.5, np.float32), 1, rng=np.random.default_rng(0))
    >>> bool(np.any(image != 0.5))
    True
    """
    check_range("width", width, 0, 1000)
    check_range("strength", strength, 0, 1)
    check_counts("number", number, 1)
    image, rng = prepare(image, False, rng)
    for section in _sections(image, section_probability, rng):
        along, reach = _along(image.shape[-2:], rng)
        offset = np.zeros(image.shape[-2:], np.float32)
        for _ in range(rng.integers(*number)):
            sign = 1 if rng.random() < 0.5 else -1
            inside = abs(along - rng.uniform(-reach, reach)) <= rng.uniform(*width) / 2
            offset += np.float32(sign * rng.uniform(*strength)) * inside
        linear(image, section, 1, offset)
        clip(image, section)
    return image


def motion_blur(image, section_probability=0.1, length=(3.0, 9.0), rng=None):
    """Sections smeared along a random direction in x, y over ``length`` voxels.

    >>> image = np.random.default_rng(0).random((1, 9, 16, 16), np.float32)
    >>> bool(motion_blur(image, 1, rng=np.random.default_rng(0)).std() < image.std())
    True
    """
    check_range("length", length, 0, 100)
    image, rng = prepare(image, False, rng)
    for section in _sections(image, section_probability, rng):
        convolve(image, section, _line(rng.uniform(*length), rng.uniform(0, math.pi)))
    return image


def defocus_blur(image, section_probability=0.1, radius=(1.0, 3.0), rng=None):
    """Sections out of focus: each point becomes a disk of ``radius`` voxels.

    >>> image = np.random.default_rng(0).random((1, 9, 16, 16), np.float32)
    >>> bool(defocus_blur(image, 1, rng=np.random.default_rng(0)).std() < image.std())
    True
    """
    check_range("radius", radius, 0, 100)
    image, rng = prepare(image, False, rng)
    for section in _sections(image, section_probability, rng):
        convolve(image, section, _disk(rng.uniform(*radius)))
    return image


def low_resolution_sections(image, section_probability=0.1, factor=(2.0, 4.0), rng=None):
    """Sections whose voxels are means over ``factor`` in x and y, interpolated in between.

    >>> image = np.random.default_rng(0).random((1, 9, 16, 16), np.float32)
    >>> bool(low_resolution_sections(image, 1, rng=np.random.default_rng(0)).std() < image.std())
    True
    """
    check_range("factor", factor, 1, 100)
    image, rng = prepare(image, False, rng)
    for section in _sections(image, section_probability, rng):
        coarsen(image, section, float(rng.uniform(*factor)), (1, 2))
    return image


def low_contrast_sections(image, section_probability=0.05, contrast=(0.1, 0.5), brightness=(-0.2, 0.2), rng=None):
    """Sections with contrast about 1/2 multiplied by ``contrast`` and ``brightness`` added; clipped to 0..1.

    >>> image = low_contrast_sections(np.ones((1, 2, 2, 2), np.float32), 1, (0.5, 0.5), (0.1, 0.1))
    >>> float(image.max())
    0.8500000238418579
    """
    check_range("contrast", contrast, 0, 10)
    check_range("brightness", brightness, -1, 1)
    image, rng = prepare(image, False, rng)
    for section in _sections(image, section_probability, rng):
        gain = rng.uniform(*contrast)
        linear(image, section, np.float32(gain), np.float32((1 - gain) / 2 + rng.uniform(*brightness)))
        clip(image, section)
    return image


def _sections(image, probability, rng):
    """Index tuples of the sections that are hit."""
    check_number("section_probability", probability, 0, 1)
    if image.ndim == 3:
        return [(slice(None),)] if rng.random() < probability else []
    return [(slice(None), int(z)) for z in np.flatnonzero(rng.random(image.shape[1]) < probability)]


def _along(shape, rng):
    """(x, y): the distance of each voxel from the middle in a random direction; and the largest one."""
    angle = rng.uniform(0, 2 * math.pi)
    x, y = (np.arange(n) - (n - 1) / 2 for n in shape)
    along = math.cos(angle) * x[:, None] + math.sin(angle) * y
    return along, along.max()


def _normed(kernel):
    return (kernel / kernel.sum()).astype(np.float32)


def _line(length, angle):
    """Kernel of a line through the middle: points on it, shared out among the voxels around them."""
    half = max(1, math.ceil(length / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    for t in np.linspace(-1, 1, 4 * half + 1) * max(0, length - 1) / 2:
        x, y = half + t * math.cos(angle), half + t * math.sin(angle)
        a, b = min(int(x), 2 * half - 1), min(int(y), 2 * half - 1)
        kernel[a:a + 2, b:b + 2] += np.outer((a + 1 - x, x - a), (b + 1 - y, y - b))
    return _normed(kernel)


def _disk(radius):
    """Kernel of a disk with a border that is one voxel soft."""
    half = math.ceil(radius)
    distance = np.hypot(*np.mgrid[-half:half + 1, -half:half + 1])
    return _normed(np.clip(radius + 0.5 - distance, 0, 1))
