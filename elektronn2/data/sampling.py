"""What samples depend on: random numbers of seed and index alone, the positions that a cube offers, and the options."""
import logging
import operator
import os
import secrets
from dataclasses import dataclass, fields

import numpy as np

from elektronn2.data import non_geometric_augmentation as nga
from elektronn2.data.augmentations import argument_names, as_augmentations
from elektronn2.data.deformation import check_elastic
from elektronn2.utils.validate import suggest

logger = logging.getLogger("elektronn2log")

WARP_ARGS = ("aniso_factor", "sample_aniso", "warp_amount", "lock_z", "no_x_flip", "perspective", "elastic", "misalignment",
             "antialias")
ELASTIC, MISALIGNMENT = ("amplitude", "spacing"), ("displacement", "section_probability", "slip")
SWITCHES = ("sample_aniso", "lock_z", "no_x_flip", "perspective", "antialias", "force_dense", "ret_ll_mask", "flip",
            "augment_valid")


def generator(seed, index):
    """The generator of sample ``index``: the same whenever, wherever and in whatever order it is drawn.

    Counter-based (Philox), keyed by seed and index. Source: Salmon et al. 2011, Parallel random numbers: as easy as
    1, 2, 3.

    >>> float(generator(1, 5).random()) == float(generator(1, 5).random())
    True
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


def memory_of_machine():
    """Bytes of memory; infinite where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def check_fit(where, image_shape, label_shape, patch_size, offsets, target_ps, label_offset=None, cuts=(range(1),) * 3):
    """Raise ValueError, beginning with ``where`` and the axis, unless patches can be cut; note what is never used.

    All are (z, x, y). Labels begin at voxel ``label_offset`` of the image (None: they are centred), the target of a patch
    begins at voxel ``offsets`` of it and is ``target_ps`` long. ``cuts``: for each axis of the network, by how many voxels
    patch and target could be shorter, ascending, for the advice. Returns the number of positions on each axis.

    >>> check_fit("Cube 0", (12, 30, 30), (8, 20, 20), (5, 13, 13), (1, 4, 4), (3, 5, 5))
    [6, 16, 16]
    """
    positions, few, unused, misfits, fitting = [], [], [], [], []
    begins = [None] * 3 if label_offset is None else label_offset
    axes = zip("zxy", image_shape, label_shape, patch_size, offsets, target_ps, begins, [range(1), *cuts][-3:])
    for axis, n, m, patch, offset, target, before, shorter in axes:
        start, after = f"{where}, axis {axis}:", patch - target - offset
        if before is None and m > n:
            raise ValueError(f"{start} the labels ({m}) are longer than the image ({n}). Are files or axes mixed up? "
                             "zxy=False is for files with axes x, y, z.")
        if before is None and (n - m) % 2:
            raise ValueError(f"{start} the labels ({m}) cannot be centred in the image ({n}), because the difference is "
                             "odd. Cut off one plane of one of them, or say by label_offset where they begin.")
        before = (n - m) // 2 if before is None else before
        low, high = max(0, before - offset), min(n - patch, before + m - target - offset)
        fitting.append(next((patch - k for k in shorter if low <= high + k), None))
        if patch > n:
            misfits.append(f"{start} the patch ({patch}) is larger than the image ({n}).")
        elif low > high:
            misfits.append(f"{start} no patch of {patch} voxels lies in the image ({n}) with its target (voxels {offset} "
                           f"to {offset + target - 1} of the patch) in the labels ({m}, from image voxel {before} on).")
        positions.append(high - low + 1)
        lost = max(0, offset - before), max(0, after - (n - m - before))
        if any(lost):
            unused.append(f"axis {axis}: {lost[0]} + {lost[1]} of {m}")
        if positions[-1] < 10 and n >= 20:
            few.append(f"axis {axis}: {positions[-1]} for {patch} voxels in {n}")
    if misfits:
        cure = "Use a network with a smaller field of view" if None in fitting else (
            f"Use an input shape of at most {tuple(fitting[-len(cuts):])}")
        if all(p <= n for p, n in zip(patch_size, image_shape[::-1])):
            cure = f"If the files have axes (x, y, z), pass zxy=False. {cure}"
        raise ValueError(f"{misfits[0]} {cure}, a larger cube with more labels, or leave it out.")
    if few:
        logger.warning("NOTE: %s: there are few positions for patches, on %s. A smaller input shape would give more "
                       "variety.", where, "; ".join(few))
    if unused:
        logger.info("NOTE: %s: labels that are never used, at the lower + upper end of %s. Around them the field of view "
                    "reaches out of the image.", where, "; ".join(unused))
    return positions


@dataclass(frozen=True)
class BatchOptions:
    """The arguments of :meth:`~elektronn2.data.cnndata.BatchCreatorImage.getbatch` that shape samples, which explains them.

    Raises TypeError for unknown names in the dicts, with a suggestion, and ValueError for impossible values. One channel may
    be given as an integer.
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
    augmentations: list | dict | None = None

    def __post_init__(self):
        object.__setattr__(self, "grey_augment_channels", as_channels("grey_augment_channels", self.grey_augment_channels))
        check_switches(vars(self))
        check_warp_args("warp_args", self.warp_args)
        for name in ("blurry_blobs", "noisy_random_erasing", "uniform_random_erasing"):
            arguments = getattr(self, f"{name}_args")
            check_names(f"{name}_args", arguments, argument_names(getattr(nga, name)))
            nga.check_blobs(**(arguments or {}))
        as_augmentations(self.augmentations or ())
        for name in ("warp", "ignore_thresh", *(f.name for f in fields(self) if f.name.endswith("_probability"))):
            value = getattr(self, name)
            if not isinstance(value, (bool, int, float, np.bool_, np.number)) or not 0 <= value <= 1:
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
    """Raise TypeError if ``given`` is neither dict nor None, and, with a suggestion, for a name in it that is not known."""
    if not isinstance(given, (dict, type(None))):
        raise TypeError(f"{what} must be a dict of arguments, got {given!r}. Known: {', '.join(known)}.")
    for name in given or ():
        if name not in known:
            raise TypeError(f"{what} has no argument {name!r}.{suggest(name, known)} Known: {', '.join(known)}.")


def check_warp_args(what, given):
    """Raise TypeError if ``given`` is no dict of :data:`WARP_ARGS` (or None), ValueError for impossible values in it.

    >>> check_warp_args("warp_args", {"warp_amount": 50})
    Traceback (most recent call last):
    ValueError: warp_amount must be a number in 0..2 (1: full warps), got 50.
    """
    check_names(what, given, WARP_ARGS)
    given = {"warp_amount": 1, "aniso_factor": 1, **(given or {})}
    check_switches(given)
    check_aniso_factor(given["aniso_factor"])
    amount = given["warp_amount"]
    if not isinstance(amount, (int, float, np.number)) or not 0 <= amount <= 2:
        raise ValueError(f"warp_amount must be a number in 0..2 (1: full warps), got {amount!r}.")
    elastic, misalignment = given.get("elastic"), given.get("misalignment")
    check_names("elastic", elastic, ELASTIC)
    check_names("misalignment", misalignment, MISALIGNMENT)
    if elastic is not None and len(elastic) < len(ELASTIC):
        raise TypeError(f"elastic needs both of {', '.join(ELASTIC)}, got {elastic!r}.")
    check_elastic(elastic, misalignment)


def check_aniso_factor(value):
    """Raise ValueError unless ``value`` can be the length of a voxel in z over that in x."""
    if not isinstance(value, (int, float, np.number)) or not 0 < value < np.inf:
        raise ValueError(f"aniso_factor must be a number above 0 (1 for isotropic data), got {value!r}.")


def check_switches(given, names=SWITCHES):
    """Raise ValueError for values in the dict ``given``, under ``names``, that are neither True or 1 nor False or 0."""
    for name in names:
        value = given.get(name, False)
        if not isinstance(value, (bool, int, np.bool_, np.integer)) or value not in (0, 1):
            raise ValueError(f"{name} must be True or False, got {value!r}.")


def as_channels(name, value):
    """A list of channels, from one of them or a sequence; None stays None. TypeError for anything else, also True and False.

    >>> as_channels("grey_augment_channels", 0)
    [0]
    """
    if value is None:
        return None
    try:
        channels = list(value) if np.iterable(value) else [value]
        if any(isinstance(c, (bool, np.bool_)) for c in channels):
            raise TypeError
        return [operator.index(c) for c in channels]
    except TypeError:
        raise TypeError(f"{name} must be a list of channels, numbered from 0, such as [0], or [] for none; got "
                        f"{value!r}.") from None


def as_seed(seed):
    """A seed for samples, from an integer or None."""
    try:
        number = secrets.randbits(32) if seed is None else operator.index(seed)
    except TypeError:
        raise TypeError(f"seed must be an integer of at least 0, or None, got {seed!r}.") from None
    if not 0 <= number < 2 ** 64:
        raise ValueError(f"seed must be at least 0, and below 2**64, got {seed}.")
    return number


def as_offsets(label_offset, n):
    """One (z, x, y), or None for centred labels, for each of ``n`` cubes, from one for all or a list of them.

    >>> as_offsets((2, 0, 0), 2), as_offsets([None, (0, 4, 4)], 2)
    ([(2, 0, 0), (2, 0, 0)], [None, (0, 4, 4)])
    """
    try:
        given = None if label_offset is None else list(label_offset)
        same = given is None or not any(v is None or np.iterable(v) for v in given)
        offsets = [given] * n if same else given
        offsets = [None if v is None else tuple(operator.index(i) for i in v) for v in offsets]
        if len(offsets) == n and all(v is None or len(v) == 3 for v in offsets):
            return offsets
    except TypeError:
        pass
    raise ValueError(f"label_offset must be three integers (z, x, y), or a list of such (None: centred), one per cube "
                     f"({n}); got {label_offset!r}.")


def as_triples(target_vec_ix):
    """Lists of three channels each, from a sequence of such or one of them; None stays None."""
    if target_vec_ix is None:
        return None
    try:
        flat = len(target_vec_ix) == 3 and not any(map(np.iterable, target_vec_ix))
        triples = [as_channels("target_vec_ix", triple) for triple in ([target_vec_ix] if flat else target_vec_ix)]
        if all(len(triple) == 3 for triple in triples):
            return triples
    except TypeError:
        pass
    raise ValueError(f"target_vec_ix must be a list of triples of channels, such as [(0, 1, 2)], got {target_vec_ix!r}.")


def as_shares(cube_prios, n):
    """The probabilities of ``n`` training cubes from their weights."""
    try:
        prios = np.array(list(cube_prios), float)
    except (TypeError, ValueError):
        raise ValueError(f"cube_prios must be a list of numbers, one per training cube ({n}), got {cube_prios!r}.") from None
    if prios.shape != (n,):
        raise ValueError(f"cube_prios needs one value per training cube ({n}), got {len(prios)}: {cube_prios!r}.")
    if not (np.isfinite(prios).all() and prios.min() >= 0 and prios.sum() > 0):
        raise ValueError(f"cube_prios must be finite, not be negative, and not all 0; got {cube_prios!r}.")
    return prios / prios.sum()
