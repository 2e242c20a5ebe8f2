"""How many random warps of a patch fit into volumes, and which patch would fit better."""
from typing import NamedTuple

import numpy as np

from elektronn2.data.pullback import WarpingOOBError
from elektronn2.data.transformations import draw_warp

DRAWS = 80
DEFAULTS = dict(sample_aniso=True, warp_amount=1.0, lock_z=True, no_x_flip=False, perspective=False, elastic=None,
                misalignment=None, antialias=False)


class _Shape(NamedTuple):
    shape: tuple


def what_fits(cubes, shares, patch, offsets, strides, target_ps, flip, warp_args, enough=0.5):
    """(share of warped patches that fit, a smaller patch of which ``enough`` do, its share), or (share, None, None).

    ``cubes``: (image, labels, label_offset) of anything with a ``shape`` (f, z, x, y), drawn with probabilities ``shares``.
    The patch gets smaller by steps of the strides, in z if most is missing there, else in x and y, which warps exchange, and
    without ``lock_z`` on all axes; offsets stay, the target shrinks with it.

    >>> volume = np.zeros((1, 30, 100, 100), np.uint8)
    >>> what_fits([(volume, volume, None)], [1], (9, 85, 85), (1, 4, 4), (1, 2, 2), (7, 77, 77), True,
    ...           dict(aniso_factor=2))
    (0.2125, (9, 73, 73), 0.625)
    """
    patch, strides, target_ps = np.array(patch), np.array(strides), np.array(target_ps)
    first, smaller = None, np.zeros(3, int)
    cubes = [(_Shape(image.shape), _Shape(labels.shape), label_offset) for image, labels, label_offset in cubes]
    while True:
        share, axis = _try(cubes, shares, patch - smaller, offsets, strides, target_ps - smaller, flip, warp_args)
        first = share if first is None else first
        if share >= enough:
            return first, tuple(map(int, patch - smaller)), share
        step = strides * np.maximum(1, np.rint(0.08 * patch / strides).astype(int))
        if warp_args.get("lock_z", True):
            step *= [axis == 0, axis > 0, axis > 0]
        if np.any(target_ps - smaller - step < 1):
            return first, None, None
        smaller += step


def _try(cubes, shares, patch, offsets, strides, target_ps, flip, warp_args):
    """The share of warps that fit, and the axis along which others do not, most often."""
    missing = np.zeros(3, int)
    for k in range(DRAWS):
        rng = np.random.default_rng(k)
        image, labels, label_offset = cubes[rng.choice(len(cubes), p=shares)]
        try:
            draw_warp(image, patch, target=labels, target_ps=target_ps, rng=rng, flip=flip, target_off=offsets,
                      target_strides=strides, label_offset=label_offset, **{**DEFAULTS, **warp_args})
        except WarpingOOBError as error:
            missing[error.axis or 0] += 1
    return (DRAWS - int(missing.sum())) / DRAWS, int(np.argmax(missing))
