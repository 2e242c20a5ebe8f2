"""What samples depend on: random numbers of seed and index alone, the positions that a cube offers, and the options."""
import inspect
import logging
from dataclasses import dataclass, fields

import numpy as np

from elektronn2.data import non_geometric_augmentation as nga
from elektronn2.utils.validate import suggest

logger = logging.getLogger("elektronn2log")

WARP_ARGS = ("aniso_factor", "sample_aniso", "warp_amount", "lock_z", "no_x_flip", "perspective")


def generator(seed, index):
    """The generator of sample ``index``: the same whenever, wherever and in whatever order it is drawn.

    Counter-based (Philox), keyed by seed and index. Source: Salmon et al. 2011, Parallel random numbers: as easy as
    1, 2, 3.

    >>> float(generator(1, 5).random()) == float(generator(1, 5).random())
    True
    """
    return np.random.Generator(np.random.Philox(key=[seed, index]))


def check_fit(where, image_shape, label_shape, patch_size, offsets, target_ps):
    """Raise ValueError, beginning with ``where`` and the axis, unless patches can be cut; note what is never used.

    All are (z, x, y). Labels are centred in the image, the target of a patch begins at voxel ``offsets`` of it and is
    ``target_ps`` long. Returns the number of positions on each axis.

    >>> check_fit("Cube 0", (12, 30, 30), (8, 20, 20), (5, 13, 13), (1, 4, 4), (3, 5, 5))
    [6, 16, 16]
    """
    positions, unused = [], []
    for axis, n, m, patch, offset, target in zip("zxy", image_shape, label_shape, patch_size, offsets, target_ps):
        start, before, after = f"{where}, axis {axis}:", (n - m) // 2, patch - target - offset
        if m > n:
            raise ValueError(f"{start} the labels ({m}) are longer than the image ({n}). Are files or axes mixed up? "
                             "zxy=False is for files with axes x, y, z.")
        if (n - m) % 2:
            raise ValueError(f"{start} the labels ({m}) cannot be centred in the image ({n}), because the difference is "
                             "odd. Cut off one plane of one of them.")
        if patch > n:
            raise ValueError(f"{start} the patch ({patch}) is larger than the image ({n}). Use a smaller input shape or a "
                             "larger cube.")
        low, high = max(0, before - offset), min(n - patch, before + m - target - offset)
        if low > high:
            raise ValueError(f"{start} no patch of {patch} voxels lies in the image ({n}) with its target (voxels {offset} "
                             f"to {offset + target - 1} of the patch) in the labels ({m}, from image voxel {before} on). "
                             "Use a smaller input shape, label more, or leave out the cube.")
        positions.append(high - low + 1)
        lost = max(0, offset - before), max(0, after - before)
        if any(lost):
            unused.append(f"axis {axis}: {lost[0]} + {lost[1]} of {m}")
        if positions[-1] < 10 and n >= 20:
            logger.warning("NOTE: %s there are only %d positions for patches of %d voxels in %d. A smaller input shape "
                           "would give more variety.", start, positions[-1], patch, n)
    if unused:
        logger.info("NOTE: %s: labels that are never used, at the lower + upper end of %s. Around them the field of view "
                    "reaches out of the image.", where, "; ".join(unused))
    return positions


@dataclass(frozen=True)
class BatchOptions:
    """The arguments of :meth:`~elektronn2.data.cnndata.BatchCreatorImage.getbatch` that shape samples, which explains them.

    Raises TypeError for unknown names in the dicts, with a suggestion, and ValueError for impossible values.
    """

    grey_augment_channels: list | None = None
    warp: float = False
    warp_args: dict | None = None
    ignore_thresh: float = False
    force_dense: bool = False
    affinities: str | bool = False
    nhood_targets: bool | list = False
    ret_ll_mask: bool = False
    nga_blur_noise_probability: float = False
    blurry_blobs_probability: float = False
    blurry_blobs_args: dict | None = None
    noisy_random_erasing_probability: float = 0
    noisy_random_erasing_args: dict | None = None
    uniform_random_erasing_probability: float = 0
    uniform_random_erasing_args: dict | None = None
    flip: bool = True
    augment_valid: bool = False

    def __post_init__(self):
        check_names("warp_args", self.warp_args or {}, WARP_ARGS)
        for name in ("blurry_blobs", "noisy_random_erasing", "uniform_random_erasing"):
            known = inspect.signature(getattr(nga, name)).parameters
            check_names(f"{name}_args", getattr(self, f"{name}_args") or {},
                        [k for k in known if k not in ("data", "data_overwrite", "rng")])
        for name in ("warp", "ignore_thresh", *(f.name for f in fields(self) if f.name.endswith("_probability"))):
            value = getattr(self, name)
            if not isinstance(value, (bool, int, float, np.number)) or not 0 <= value <= 1:
                raise ValueError(f"{name} must be True, False or a number in 0..1; got {value!r}.")
        if self.affinities not in (False, None, "malis", "affinity"):
            raise ValueError(f"affinities must be False, 'malis' or 'affinity'; got {self.affinities!r}.")
        if self.affinities and self.shifted:
            raise ValueError("affinities and nhood_targets exclude each other: both are made from channel 0 of the labels.")

    @property
    def shifted(self):
        """Whether targets are shifted copies of the labels."""
        return self.nhood_targets is not None and self.nhood_targets is not False

    @property
    def needs_dense(self):
        """Whether something is computed from the target at every voxel."""
        return self.force_dense or self.shifted or self.ignore_thresh is not False


def check_names(what, given, known):
    """Raise TypeError, with a suggestion, for a name in ``given`` that is not in ``known``."""
    for name in given:
        if name not in known:
            raise TypeError(f"{what} has no argument {name!r}.{suggest(name, known)} Known: {', '.join(known)}.")
