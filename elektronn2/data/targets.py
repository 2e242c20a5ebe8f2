"""What is trained on, made from the ids of objects for each patch: barriers, affinities, shifted copies, distances.

Targets are made after the patch was warped, at every voxel, from ids that reach beyond the target by as much as is looked
at: so a patch has the targets that the whole volume would have, up to its last voxel.
"""
import inspect
from typing import NamedTuple

import numpy as np

from elektronn2.data.distance import signed_distance
from elektronn2.data.image import COPIES, EDGES, affinity_targets, as_nhood, grow_seg, ids2barriers, make_nhood_targets
from elektronn2.data.sampling import check_names
from elektronn2.utils.validate import as_tuple, suggest


class Kind(NamedTuple):
    """``make``: function of ids (z, x, y) and arguments; ``reach``: from its arguments, how far it looks: (3, 2) voxels
    before and after, on each axis; ``n_class``: how many classes it makes, from its arguments; None: it makes none."""
    make: object
    reach: object
    n_class: object = lambda a: None


def _edges(nhood, sign):
    """How far edges reach from a voxel."""
    return np.stack((np.maximum(-sign * nhood, 0).max(0), np.maximum(sign * nhood, 0).max(0)), 1)


def _shift(ids, nhood=None):
    return make_nhood_targets(ids[None], nhood)[0]


KINDS = {
    "barriers": Kind(ids2barriers, lambda a: np.repeat(
        np.add(a["dilute"], a["connectivity"], dtype=int)[:, None] + bool(a["smoothen"]), 2, 1),
        lambda a: 3 if a["ecs_as_barr"] == "new_class" else 2),
    "affinities": Kind(affinity_targets, lambda a: _edges(a["nhood"], 1), lambda a: 2),
    "shifted": Kind(_shift, lambda a: _edges(a["nhood"], -1)),
    "signed_distance": Kind(signed_distance, lambda a: np.repeat(
        np.ceil(a["reach"] / np.broadcast_to(a["voxel_size"], 3)).astype(int)[:, None], 2, 1)),
    "grow": Kind(grow_seg, lambda a: np.repeat(np.array(as_tuple(a["pixel"], 3, "pixel", 0))[:, None], 2, 1)),
}


class TargetMaker:
    """Makes targets of one or several ``steps``, the next from what the last one made.

    ``steps``: a name of ``KINDS``, or (name, dict of arguments), or a list of such:

    - 'barriers': :func:`~elektronn2.data.image.ids2barriers`
    - 'affinities': :func:`~elektronn2.data.image.affinity_targets`; edges are in voxels of the labels: between neighbours
      of a target with strides (1, 2, 2) they are (1, 0, 0), (0, 2, 0) and (0, 0, 2)
    - 'shifted': :func:`~elektronn2.data.image.make_nhood_targets`
    - 'signed_distance': :func:`~elektronn2.data.distance.signed_distance`; ``voxel_size`` is (aniso_factor, 1, 1) by default
    - 'grow': :func:`~elektronn2.data.image.grow_seg`, the one that others may follow

    ``ndim``: 2 for sections that are taken each for itself. Attributes: ``margin``, (3, 2), how many voxels before and after
    the target are needed; ``n_class``, how many classes are made, None for ids and distances; ``makes_ids``. Raises
    TypeError and ValueError, naming the step, for what cannot be made.

    >>> maker = TargetMaker([("grow", {"pixel": (0, 1, 1)}), "barriers"], ndim=3, aniso_factor=2)
    >>> maker.margin.tolist()
    [[2, 2], [3, 3], [3, 3]]
    >>> maker(np.ones((1, 9, 26, 26), np.uint8)).shape
    (1, 5, 20, 20)
    """

    def __init__(self, steps, ndim, aniso_factor):
        self.steps, self.margin = [], np.zeros((3, 2), int)
        for name, given in _pairs(steps):
            if self.steps and self.steps[-1][0] != "grow":
                raise ValueError(f"targets: {name!r} is made from ids, but {self.steps[-1][0]!r} before it leaves none.")
            kind, arguments = KINDS[name], _arguments(name, given, ndim, aniso_factor)
            try:
                if "nhood" in arguments:
                    arguments["nhood"] = as_nhood(arguments["nhood"], ndim)
                reach = kind.reach(arguments)
                kind.make(np.zeros((1, 1, 1), np.int64), **arguments)
            except (TypeError, ValueError, IndexError) as error:
                raise ValueError(f"targets: {name!r} cannot be made with {arguments}: {error}") from None
            if ndim == 2:
                reach[0] = 0
            self.steps.append((name, arguments))
            self.margin += reach
        self.n_class, self.makes_ids = kind.n_class(arguments), name in ("grow", "shifted")

    def __call__(self, labels):
        """Targets (c, z, x, y) from labels (f, z, x, y) with the margin around: made from channel 0, before the others."""
        made = labels[0].astype(np.int64)
        for name, arguments in self.steps:
            made = KINDS[name].make(made, **arguments)
        return np.concatenate([self.inner(a) for a in (made if made.ndim == 4 else made[None], labels[1:])])

    def inner(self, array):
        """An array (..., z, x, y) without the margin."""
        return array[(..., *(slice(a, n - b) for (a, b), n in zip(self.margin, array.shape[-3:])))]


def _arguments(name, given, ndim, aniso_factor):
    """All arguments of a step, the defaults among them."""
    known = {k: p.default for k, p in list(inspect.signature(KINDS[name].make).parameters.items())[1:]}
    check_names(f"targets: {name!r}", given, known)
    if name == "signed_distance":
        known["voxel_size"] = (aniso_factor, 1, 1)
    known |= given or {}
    if "nhood" in known and known["nhood"] is None:
        known["nhood"] = (EDGES if name == "affinities" else COPIES)[ndim]
    return known


def _pairs(steps):
    """[(name, arguments)] from what the user gave."""
    def is_pair(step):
        return isinstance(step, (tuple, list)) and len(step) == 2 and isinstance(step[0], str) and isinstance(step[1], dict)
    steps = [steps] if isinstance(steps, str) or is_pair(steps) else steps
    pairs = [(step, None) if isinstance(step, str) else step for step in steps] if isinstance(steps, (tuple, list)) else []
    if not pairs or not all(isinstance(p, (tuple, list)) and len(p) == 2 and isinstance(p[0], str) for p in pairs):
        raise TypeError(f"targets must be a name, such as 'barriers', (name, dict of arguments), or a list of such; got "
                        f"{steps!r}. Names: {', '.join(KINDS)}.")
    for name, _ in pairs:
        if name not in KINDS:
            raise ValueError(f"targets: there is no {name!r}.{suggest(name, KINDS)} There are: {', '.join(KINDS)}.")
    return pairs
