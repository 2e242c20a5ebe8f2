"""Geometric augmentation: homogeneous matrices, and patches pulled through them.

A transformation is a 4x4 matrix M that takes source voxels to patch voxels, as column vectors (z, x, y, 1). To fill a
patch, each of its voxels is taken back by the inverse of M (in float64) and the source is interpolated there, in one
compiled pass that reads only what it needs, in the dtype in which it is stored.
"""
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import numba
import numpy as np

from elektronn2.utils.basic import as_float
from elektronn2.utils.validate import as_tuple

__all__ = ["WarpingOOBError", "chain_matrices", "get_random_flipmat", "get_random_rotmat", "get_random_swapmat",
           "get_random_warpmat", "get_rotmat_from_direc", "get_warped_slice", "identity", "rotate_x", "rotate_y",
           "rotate_z", "scale", "scale_inv", "translate", "warp_slice", "xyz2zxy"]

_SLACK = 1e-6  # voxels by which rounding errors may leave the source


class WarpingOOBError(ValueError):
    """A patch needs voxels from outside of the image, or its target from outside of the labels."""


# -- elementary matrices ---------------------------------------------------------------------------------
def identity():
    """The matrix that changes nothing."""
    return np.eye(4)


def translate(dz, dx, dy):
    """Shift by (dz, dx, dy) voxels.

    >>> translate(1, 2, 3) @ [0, 0, 0, 1]
    array([1., 2., 3., 1.])
    """
    matrix = np.eye(4)
    matrix[:3, 3] = dz, dx, dy
    return matrix


def scale(mz, mx, my):
    """Stretch the axes by these factors."""
    return np.diag([mz, mx, my, 1.0])


def scale_inv(mz, mx, my):
    """Shrink the axes by these factors: the inverse of :func:`scale`."""
    return np.diag([1 / mz, 1 / mx, 1 / my, 1.0])


def _rotate(first, second, angle):
    matrix = np.eye(4)
    c, s = math.cos(angle), math.sin(angle)
    matrix[[first, first, second, second], [first, second, first, second]] = c, -s, s, c
    return matrix


def rotate_z(angle):
    """Turn the x, y plane by ``angle`` (radians) about z.

    >>> np.rint(rotate_z(np.pi / 2) @ [0, 1, 0, 1])
    array([0., 0., 1., 1.])
    """
    return _rotate(1, 2, angle)


def rotate_y(angle):
    """Turn the z, x plane by ``angle`` (radians) about y."""
    return _rotate(0, 1, angle)


def rotate_x(angle):
    """Turn the z, y plane by ``angle`` (radians) about x, from y towards z."""
    return _rotate(2, 0, angle)


def chain_matrices(matrices):
    """The product of a list of matrices; the last one acts first.

    >>> chain_matrices([translate(1, 0, 0), scale(2, 1, 1)]) @ [3, 0, 0, 1]
    array([7., 0., 0., 1.])
    """
    return np.linalg.multi_dot(matrices) if len(matrices) > 1 else np.array(matrices[0], float)


def get_rotmat_from_direc(direc, gamma=0.0):
    """The rotation that turns the direction ``direc`` (z, x, y) onto the z axis, and then by ``gamma`` (radians) about it.

    ValueError unless the length of ``direc`` is 1 (to 1e-3).

    >>> np.rint(get_rotmat_from_direc((0, 1, 0))[:3, :3] @ (0, 1, 0))
    array([1., 0., 0.])
    """
    z, x, y = direc
    if abs(math.hypot(z, x, y) - 1) > 1e-3:
        raise ValueError(f"direc must have length 1, got {direc!r} of length {math.hypot(z, x, y):.4f}. Divide by it.")
    return _turn(math.atan2(y, x), math.acos(min(1, max(-1, z))), gamma)


def _turn(phi, theta, gamma):
    return chain_matrices([rotate_z(gamma), rotate_y(-theta), rotate_z(-phi)])


# -- random matrices -------------------------------------------------------------------------------------
def get_random_rotmat(lock_z=False, amount=1.0, rng=None):
    """A random rotation: about z by up to ``amount`` of a full turn, and unless ``lock_z`` also away from the z axis."""
    rng = rng or np.random.default_rng()
    gamma = rng.random() * 2 * math.pi * amount
    if lock_z:
        return rotate_z(gamma)
    phi = rng.random() * 2 * math.pi * amount
    return _turn(phi, math.asin(rng.random()) * amount, gamma)


def get_random_flipmat(no_x_flip=False, rng=None):
    """A reflection of each axis with probability 1/2; never of the last one with ``no_x_flip``."""
    rng = rng or np.random.default_rng()
    signs = np.where(rng.random(3) < 0.5, -1.0, 1.0)
    if no_x_flip:
        signs[2] = 1
    return np.diag([*signs, 1.0])


def get_random_swapmat(lock_z=False, rng=None):
    """A random permutation of the axes; with ``lock_z`` at most an exchange of x and y."""
    rng = rng or np.random.default_rng()
    orders = [(0, 1, 2), (0, 2, 1)] if lock_z else list(permutations(range(3)))
    return np.eye(4)[[*orders[int(rng.random() * len(orders))], 3]]


def get_random_warpmat(lock_z=False, perspective=False, amount=1.0, rng=None):
    """Shear, stretch and a shift below one voxel, by up to 10 % times ``amount``, and the same of perspective.

    All 16 entries but the last differ from the identity by uniform draws from +-0.1 ``amount``. ``lock_z`` keeps z
    apart from x and y. The last row is 0 without ``perspective``, else scaled by 0.05 and clipped to +-0.003.
    """
    rng = rng or np.random.default_rng()
    change = (rng.random((4, 4)) * 0.2 - 0.1) * amount
    if lock_z:
        change[0] = change[:, 0] = 0
    change[3] = np.clip(change[3] * 0.05, -3e-3, 3e-3) if perspective else 0
    change[3, 3] = 0
    return np.eye(4) + change


# -- patches ---------------------------------------------------------------------------------------------
def get_warped_slice(img, ps, aniso_factor=2, sample_aniso=True, warp_amount=1.0, lock_z=True, no_x_flip=False,
                     perspective=False, target=None, target_ps=None, target_vec_ix=None, target_discrete_ix=None, rng=None,
                     flip=True, target_off=None, target_strides=1, n_threads=1, label_offset=None, facts=None):
    """A patch at a random position, randomly turned, reflected, sheared, stretched, and its target: (image, target).

    M = T(centre) S_dest R W F P S_src T(-position), where S_src stretches z by ``aniso_factor`` (the length of a voxel in z
    over that in x), so that rotations are true, and S_dest shrinks it again (with ``sample_aniso``; else the patch is
    isotropic). R rotates, W shears, stretches and shifts, F reflects axes, P exchanges them: see the ``get_random_...mat``
    functions. All of it is scaled by ``warp_amount``; 0 leaves only F and P, and then every voxel of the patch is
    exactly one of the image. ``lock_z`` keeps z what it is. ``no_x_flip`` forbids the reflection of the last axis and the
    exchange of axes, ``flip=False`` all reflections and exchanges. The position is drawn from those where patch and target
    lie inside, on the grid of the image.

    ``img``, ``target``, ``ps``, ``target_...``, ``label_offset``, ``n_threads`` and the results are as in
    :func:`warp_slice`. ``rng``: np.random.Generator (None: a new one). ``facts``: a dict that gets 'matrix', M as it was
    drawn. Raises WarpingOOBError if the warped patch, or its target, fits nowhere.

    >>> cube = np.random.default_rng(0).integers(0, 255, (1, 20, 60, 60), dtype=np.uint8)
    >>> image, target = get_warped_slice(cube, (5, 21, 21), target=cube, target_ps=(3, 15, 15))
    >>> image.shape, image.dtype, target.shape, target.dtype
    ((1, 5, 21, 21), dtype('float32'), (1, 3, 15, 15), dtype('uint8'))
    """
    rng = rng or np.random.default_rng()
    ps = as_tuple(ps, 3, "ps")
    matrices = [translate(*((n - 1) / 2 for n in ps))]
    if sample_aniso:
        matrices.append(scale_inv(aniso_factor, 1, 1))
    if warp_amount:
        matrices.append(get_random_rotmat(lock_z, warp_amount, rng))
        matrices.append(get_random_warpmat(lock_z, perspective, warp_amount, rng))
    if flip:
        matrices.append(get_random_flipmat(no_x_flip, rng))
        if not no_x_flip:
            matrices.append(get_random_swapmat(lock_z, rng))
    matrices.append(scale(aniso_factor, 1, 1))
    matrix = chain_matrices(matrices)
    grids = [_Grid(img, img, ps, (0, 0, 0), ps, 1)]
    if target is not None:
        grids.append(_Grid(img, target, ps, target_off, target_ps, target_strides, label_offset))
    matrix = matrix @ translate(*-_draw_position(matrix, grids, rng))
    if facts is not None:
        facts["matrix"] = matrix
    return warp_slice(img, ps, matrix, target, target_ps, target_vec_ix, target_discrete_ix, target_off, target_strides,
                      n_threads, label_offset)


def warp_slice(img, ps, M, target=None, target_ps=None, target_vec_ix=None, target_discrete_ix=None, target_off=None,
               target_strides=1, n_threads=1, label_offset=None):
    """The patch that matrix ``M`` makes of an image, and that of its target: (image, target or None).

    ``img``: (f, z, x, y), an array or an h5 data set, of uint8 or uint16 (then divided by 255 or 65535) or floating point.
    ``ps``: shape (z, x, y) of the patch. ``target``: labels (f, z, x, y), the first of which lies at image voxel
    ``label_offset`` (None: they are centred in the image, with an even difference of shapes); ``target_ps``: shape of their
    patch before striding; ``target_off``: where it begins in the patch (None: it is centred); ``target_strides``: take only
    every so manieth voxel. Channels of the target in ``target_discrete_ix`` (None: all) are taken from the nearest voxel
    (halves to the even one), others are interpolated linearly, as is the image. ``target_vec_ix``: triples of channels that
    are vectors (z, x, y) and turned by M. ``n_threads``: to be used at once.

    Returns the image (f, *ps), float32, and the target in its own dtype if all its channels are discrete, else float32.
    Raises WarpingOOBError if the patch reaches out of the image or the labels, and ValueError for vectors in perspective.

    >>> cube = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    >>> warp_slice(cube, (1, 2, 2), translate(-1, -1, -0.5))[0]
    array([[[[25.5, 26.5],
             [30.5, 31.5]]]], dtype=float32)
    """
    ps = as_tuple(ps, 3, "ps")
    M = np.asarray(M, np.float64)
    if target_vec_ix and np.any(M[3, :3]):
        raise ValueError("Vectors have no single direction under perspective: leave out target_vec_ix or perspective.")
    inverse = np.linalg.inv(M)
    pulls = [_Pull(img, inverse, _Grid(img, img, ps, (0, 0, 0), ps, 1), np.zeros(len(img), bool), np.float32)]
    if target is not None:
        nearest = np.ones(len(target), bool)
        if target_discrete_ix is not None:
            nearest[:] = False
            nearest[list(target_discrete_ix)] = True
        exact = nearest.all() and not target_vec_ix
        grid = _Grid(img, target, ps, target_off, target_ps, target_strides, label_offset)
        pulls.append(_Pull(target, inverse, grid, nearest, _plain(target.dtype) if exact else np.float32))
    _run(pulls, n_threads)
    if target is None:
        return pulls[0].out, None
    result = pulls[1].out
    for triple in target_vec_ix or ():
        result[list(triple)] = np.tensordot(M[:3, :3], result[list(triple)], 1)
    return pulls[0].out, result


class _Grid:
    """Where a patch is sampled: ``shape`` points from ``origin`` in steps of ``step`` (patch voxels), of a source whose
    voxel 0 is voxel ``surplus`` of the image."""

    def __init__(self, img, source, ps, origin, extent, step, surplus=None):
        self.name = "image" if source is img else "target"
        difference = np.subtract(img.shape[1:], source.shape[1:])
        if surplus is None and (np.any(difference % 2) or np.any(difference < 0)):
            raise ValueError(f"Target {tuple(source.shape)} cannot be centred in image {tuple(img.shape)}: on each spatial "
                             "axis the image must be longer by an even number, or 0. Or give label_offset.")
        self.surplus = difference // 2 if surplus is None else np.array(surplus)
        self.size = np.array(source.shape[1:])
        extent = as_tuple(extent, 3, "target_ps")
        self.step = np.array(as_tuple(step, 3, "target_strides"))
        if origin is None:
            if np.any(np.subtract(ps, extent) % 2):
                raise ValueError(f"A target of {extent} cannot be centred in a patch of {ps}: give target_off.")
            origin = np.subtract(ps, extent) // 2
        self.origin = np.array(origin)
        self.shape = (np.array(extent) - 1) // self.step + 1

    def bounds(self, inverse):
        """First and last source coordinate that is needed on each axis, in image voxels, as floats.

        The corners bound all: projective maps keep straight lines straight while the divisor is positive.
        """
        ends = np.stack((self.origin, self.origin + self.step * (self.shape - 1)))
        corners = np.array([(z, x, y, 1) for z in ends[:, 0] for x in ends[:, 1] for y in ends[:, 2]]) @ inverse.T
        if np.any(corners[:, 3] <= 1e-3):
            raise WarpingOOBError("The perspective is so strong that a part of the patch has no source.")
        corners = corners[:, :3] / corners[:, 3:]
        return corners.min(0), corners.max(0)


def _draw_position(matrix, grids, rng):
    """A point of the image, so that with it as centre all grids lie inside and unwarped voxels fall on voxels."""
    inverse = np.linalg.inv(matrix)
    first = inverse[:3, 3] / inverse[3, 3]  # the source of patch voxel 0, from the centre
    low, high = np.full(3, -np.inf), np.full(3, np.inf)
    for grid in grids:
        a, b = grid.bounds(inverse)
        low = np.maximum(low, grid.surplus - a)
        high = np.minimum(high, grid.surplus + grid.size - 1 - b)
    low, high = np.ceil(low + first - _SLACK), np.floor(high + first + _SLACK)
    if np.any(low > high):
        k = int(np.argmax(low > high))
        spans = "; ".join(f"its {g.name} spans {np.subtract(*g.bounds(inverse)[::-1])[k] + 1:.1f} of {g.size[k]} voxels"
                          for g in grids)
        raise WarpingOOBError(f"The warped patch fits nowhere on axis {'zxy'[k]}: {spans}.")
    return low + np.floor(rng.random(3) * (high - low + 1)) - first


class _Pull:
    """The work to interpolate a source (f, z, x, y) at the points of a grid; ``fill`` does a part of its rows."""

    def __init__(self, source, inverse, grid, nearest, dtype):
        low, high = (bound - grid.surplus for bound in grid.bounds(inverse))
        if np.any(low < -_SLACK) or np.any(high > grid.size - 1 + _SLACK):
            raise WarpingOOBError(f"Out of bounds for {grid.name}: it has voxels 0 to {grid.size - 1}, needed are "
                                  f"{np.round(low, 2)} to {np.round(high, 2)}.")
        self.divisor = np.float32(1)
        if grid.name == "image":
            as_float(np.zeros(1, source.dtype))  # raises TypeError if the scale is unknown
            self.divisor = np.float32(np.iinfo(source.dtype).max if source.dtype.kind == "u" else 1)
        shift, plain = grid.surplus, _plain(source.dtype)
        if not (isinstance(source, np.ndarray) and source.flags.c_contiguous and source.dtype == plain):
            low, high = np.maximum(np.floor(low).astype(int), 0), np.minimum(np.ceil(high).astype(int) + 1, grid.size)
            source = np.ascontiguousarray(source[(slice(None), *(slice(a, b) for a, b in zip(low, high)))], plain)
            shift = shift + low
        self.source, self.grid, self.nearest = source, grid, nearest
        self.back = np.ascontiguousarray(translate(*-shift) @ inverse)
        self.out = np.empty((len(source), *grid.shape), dtype)
        self.rows = int(grid.shape[0] * grid.shape[1])

    def fill(self, first, last):
        _fill(self.source, self.back, self.grid.origin, self.grid.step, self.nearest, self.divisor, self.out, first, last)


def _run(pulls, n_threads):
    """Do the work; if it is worth it, in slabs, one for each thread, of which this one is the first."""
    if sum(pull.out.size for pull in pulls) < 50_000:
        n_threads = 1

    def slab(i):
        for pull in pulls:
            pull.fill(pull.rows * i // n_threads, pull.rows * (i + 1) // n_threads)

    if n_threads == 1:
        return slab(0)
    with ThreadPoolExecutor(n_threads - 1) as pool:
        others = [pool.submit(slab, i) for i in range(1, n_threads)]
        slab(0)
        for other in others:
            other.result()


def _plain(dtype):
    """What the compiled code can read: no bool, no half precision, no foreign byte order."""
    return np.dtype({"bool": np.uint8, "float16": np.float32}.get(dtype.name, dtype)).newbyteorder("=")


def free_threads():
    """How many threads a patch may take: all cores from the main thread, one from a worker, which has company."""
    if threading.current_thread() is not threading.main_thread():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@numba.njit(nogil=True, error_model="numpy")
def _lerp(a, b, f):
    """From a to b by f; at the ends exactly these, also beside NaN."""
    return a if f == 0 else b if f == 1 else a + f * (b - a)


@numba.njit(nogil=True, error_model="numpy")
def _fill(source, back, origin, step, nearest, divisor, out, first, last):
    """Rows ``first`` to ``last`` of the output: the positions of a row, then its 8 corners, then their mean.

    Three short loops, of which the first and last run in vector registers, are 3 times as fast as one long loop; unsigned
    indices, which need no test for being negative, are worth another 1.5.
    """
    _, n0, n1, n2 = source.shape
    _, _, m1, m2 = out.shape
    flat, discrete = source.reshape(-1), nearest.any()
    sz, sx, sy = np.uint64(n1 * n2 * (n0 > 1)), np.uint64(n2 * (n1 > 1)), np.uint64(n2 > 1)
    high_z, high_x, high_y = float(n0 - 1), float(n1 - 1), float(n2 - 1)
    top_z, top_x, top_y = max(n0 - 2, 0), max(n1 - 2, 0), max(n2 - 2, 0)
    corner, closest = np.empty(m2, np.uint64), np.empty(m2, np.uint64)
    fz, fx, fy = np.empty(m2, np.float32), np.empty(m2, np.float32), np.empty(m2, np.float32)
    v0, v1, v2, v3, v4, v5, v6, v7 = np.empty((8, m2), source.dtype)
    for r in range(first, last):
        i, j = r // m1, r % m1
        pz, px, py = origin[0] + step[0] * i, origin[1] + step[1] * j, origin[2]
        z0 = back[0, 0] * pz + back[0, 1] * px + back[0, 2] * py + back[0, 3]
        x0 = back[1, 0] * pz + back[1, 1] * px + back[1, 2] * py + back[1, 3]
        y0 = back[2, 0] * pz + back[2, 1] * px + back[2, 2] * py + back[2, 3]
        w0 = back[3, 0] * pz + back[3, 1] * px + back[3, 2] * py + back[3, 3]
        dz, dx, dy, dw = back[0, 2] * step[2], back[1, 2] * step[2], back[2, 2] * step[2], back[3, 2] * step[2]
        for k in range(m2):
            w = 1 / (w0 + dw * k)
            z = min(max((z0 + dz * k) * w, 0.0), high_z)
            x = min(max((x0 + dx * k) * w, 0.0), high_x)
            y = min(max((y0 + dy * k) * w, 0.0), high_y)
            a, b, c = min(np.int32(z), top_z), min(np.int32(x), top_x), min(np.int32(y), top_y)
            fz[k], fx[k], fy[k] = np.float32(z - a), np.float32(x - b), np.float32(y - c)
            corner[k] = (a * n1 + b) * n2 + c
            if discrete:
                closest[k] = (np.int32(np.rint(z)) * n1 + np.int32(np.rint(x))) * n2 + np.int32(np.rint(y))
        for channel in range(len(source)):
            row = out[channel, i, j]
            start = np.uint64(channel * n0 * n1 * n2)
            if nearest[channel]:
                for k in range(m2):
                    row[k] = flat[start + closest[k]]
                continue
            for k in range(m2):
                p = start + corner[k]
                v0[k], v1[k], v2[k], v3[k] = flat[p], flat[p + sy], flat[p + sx], flat[p + sx + sy]
                p += sz
                v4[k], v5[k], v6[k], v7[k] = flat[p], flat[p + sy], flat[p + sx], flat[p + sx + sy]
            for k in range(m2):
                near = _lerp(_lerp(np.float32(v0[k]), np.float32(v1[k]), fy[k]),
                             _lerp(np.float32(v2[k]), np.float32(v3[k]), fy[k]), fx[k])
                far = _lerp(_lerp(np.float32(v4[k]), np.float32(v5[k]), fy[k]),
                            _lerp(np.float32(v6[k]), np.float32(v7[k]), fy[k]), fx[k])
                row[k] = _lerp(near, far, fz[k]) / divisor


def xyz2zxy(volume):
    """A view with axes (..., z, x, y) of a volume with axes (..., x, y, z).

    >>> xyz2zxy(np.zeros((1, 2, 3, 4))).shape
    (1, 4, 2, 3)
    """
    return np.moveaxis(volume, -1, -3)
