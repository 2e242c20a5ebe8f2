"""Displacements of the points of a patch: elastic ones, and sections out of place."""
import math
from typing import NamedTuple

import numpy as np

FOLDING = 2.48  # spacing over amplitude, below which a cubic B-spline in 3-D may fold: Choi and Lee 2000


class Deformation(NamedTuple):
    """A displacement (z, x, y), in voxels of the patch, of each of its points p before it is taken back to the source.

    ``coefficients`` (3, gz, gx, gy): of a cubic B-spline over t = (p - start) / spacing, from t = 0 on; of shape (3, 0, 0,
    0) if there is none. ``drift`` (2, n, 2): what is added in x and y to sections from ``first`` on: [0] of the image, [1]
    of the target.
    """

    coefficients: np.ndarray
    start: np.ndarray
    spacing: np.ndarray
    drift: np.ndarray
    first: int

    def reach(self):
        """How far at most a point is moved along each axis: what lies between coefficients, a B-spline does not exceed."""
        elastic = np.abs(self.coefficients).max((1, 2, 3), initial=0)
        return elastic + [0, *np.abs(self.drift).max((0, 1), initial=0)]

    def along(self, axis, points):
        """t at these patch voxels of one axis."""
        return (points - self.start[axis]) / self.spacing[axis]

    def shifts(self, sections, of_target):
        """(len(sections), 2): displacement in x, y of these sections."""
        if not self.drift.size:
            return np.zeros((len(sections), 2))
        return self.drift[int(of_target), np.rint(sections).astype(int) - self.first]


def random_deformation(low, high, rng, elastic=None, misalignment=None, aniso_factor=1.0, lock_z=True):
    """A :class:`Deformation` of the patch voxels ``low`` to ``high`` (z, x, y); None if neither kind is asked for.

    Arguments as in :func:`elektronn2.data.transformations.get_warped_slice`, ``aniso_factor`` that of the patch.

    >>> bend = random_deformation((0, 0, 0), (4, 20, 20), np.random.default_rng(0), dict(amplitude=3, spacing=10))
    >>> bend.coefficients.shape, bool(bend.reach()[0] == 0), bool(2 < bend.reach()[1] <= 3)
    ((3, 4, 6, 6), True, True)
    """
    if elastic is None and misalignment is None:
        return None
    low, high = np.array(low), np.array(high)
    length = np.array((1 / aniso_factor, 1, 1))  # of what is one voxel long in x, in voxels of the patch
    start, spacing, coefficients = low - 1.0, np.ones(3), np.zeros((3, 0, 0, 0))
    if elastic is not None:
        spacing = elastic["spacing"] * length
        cells = np.floor((high + 1 - start) / spacing).astype(int) + 4
        amplitude = elastic["amplitude"] * length * [not lock_z, 1, 1]
        coefficients = rng.uniform(-1, 1, (3, *cells)) * amplitude[:, None, None, None]
    n = int(high[0] - low[0]) + 1
    drift = _random_drift(n, rng, **misalignment) if misalignment is not None else np.zeros((2, 0, 2))
    return Deformation(coefficients, start, spacing, drift, int(low[0]))


def _random_drift(n, rng, displacement=8, section_probability=0.05, slip=0.5):
    hit = rng.random(n)
    moves = rng.uniform(-displacement, displacement, (n, 2))
    slips = hit < section_probability * slip
    moved = ~slips & (hit < section_probability)
    moved[0] = False
    whole = np.cumsum(moves * moved[:, None], axis=0)
    whole -= (whole.max(0) + whole.min(0)) / 2  # so that least is needed around the patch
    return np.stack((whole + moves * slips[:, None], whole))


def check_elastic(elastic, misalignment):
    """Raise ValueError for numbers in ``elastic`` and ``misalignment`` that make no sense.

    >>> check_elastic(dict(amplitude=10, spacing=20), None)
    Traceback (most recent call last):
    ValueError: elastic: amplitude 10 folds the image at spacing 20. At most 8.06, the spacing / 2.48.
    """
    elastic = {"amplitude": 0, "spacing": 1, **(elastic or {})}
    misalignment = {"displacement": 0, **(misalignment or {})}
    limits = {"amplitude": (0, 1e4), "spacing": (1, 1e6), "displacement": (0, 1e4), "section_probability": (0, 1),
              "slip": (0, 1)}
    for what, given in (("elastic", elastic), ("misalignment", misalignment)):
        for name, value in given.items():
            low, high = limits[name]
            if not isinstance(value, (int, float, np.number)) or not low <= value <= high:
                raise ValueError(f"{what}: {name} must be a number in {low}..{high:g}, got {value!r}.")
    if elastic["amplitude"] * FOLDING > elastic["spacing"]:
        raise ValueError(f"elastic: amplitude {elastic['amplitude']} folds the image at spacing {elastic['spacing']}. At "
                         f"most {math.floor(100 * elastic['spacing'] / FOLDING) / 100}, the spacing / {FOLDING}.")


def spline_matrix(t, n):
    """(len(t), n): the weights of ``n`` coefficients of a cubic B-spline at ``t``, each with four that are not 0.

    >>> spline_matrix(np.array([0.0]), 4)[0] * 6
    array([1., 4., 1., 0.])
    """
    cell = np.floor(t).astype(int)
    u = t - cell
    weights = np.stack(((1 - u) ** 3, 3 * u ** 3 - 6 * u ** 2 + 4, 3 * (u + u ** 2 - u ** 3) + 1, u ** 3), 1) / 6
    matrix = np.zeros((len(t), n))
    for k in range(4):
        matrix[np.arange(len(t)), cell + k] = weights[:, k]
    return matrix
