"""Patches pulled out of volumes: each of their points is taken back to the source, which is interpolated there.

One compiled pass, which reads only what it needs, in the dtype in which it is stored.
"""
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from elektronn2.utils.basic import as_float
from elektronn2.utils.compiling import compiled
from elektronn2.utils.validate import as_tuple

_SLACK = 1e-6  # voxels by which rounding errors may leave the source


class WarpingOOBError(ValueError):
    """A patch needs voxels from outside of the image, or its target from outside of the labels. ``axis`` (0..2), or None:
    along which most are missing."""

    def __init__(self, message, axis=None):
        super().__init__(message)
        self.axis = axis


class Grid:
    """Where a patch of the 'image' or its 'target' (``name``) is sampled: ``shape`` points from ``origin`` in steps of
    ``step`` (patch voxels), of a source whose voxel 0 is voxel ``surplus`` of the image. ``bend``: a
    :class:`~elektronn2.data.deformation.Deformation`, or None. ``parts``: each point is the mean of so many, spread over a
    voxel of the patch along each axis."""

    def __init__(self, name, img, source, ps, origin, extent, step, surplus=None, bend=None, parts=(1, 1, 1)):
        self.name = name
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
        self.bend, self.parts = bend, np.array(parts)

    def origins(self):
        """The origins of the grids of which the mean is taken, in patch voxels."""
        return [self.origin + (np.array(k) + 0.5) / self.parts - 0.5 for k in np.ndindex(*self.parts)]

    def bounds(self, inverse):
        """First and last source coordinate that is needed on each axis, in image voxels, as floats.

        The corners bound all: projective maps keep straight lines straight while the divisor is positive.
        """
        reach = (1 - 1 / self.parts) / 2 + (0 if self.bend is None else self.bend.reach())
        ends = np.stack((self.origin - reach, self.origin + self.step * (self.shape - 1) + reach))
        corners = np.array([(z, x, y, 1) for z in ends[:, 0] for x in ends[:, 1] for y in ends[:, 2]]) @ inverse.T
        if np.any(corners[:, 3] <= 1e-3):
            raise WarpingOOBError("The perspective is so strong that a part of the patch has no source.")
        corners = corners[:, :3] / corners[:, 3:]
        return corners.min(0), corners.max(0)


def draw_position(matrix, grids, rng):
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
        k = int(np.argmax(low - high))
        spans = "; ".join(f"its {g.name} spans {np.subtract(*g.bounds(inverse)[::-1])[k] + 1:.1f} of {g.size[k]} voxels"
                          for g in grids)
        raise WarpingOOBError(f"The warped patch fits nowhere on axis {'zxy'[k]}: {spans}.", k)
    return low + np.floor(rng.random(3) * (high - low + 1)) - first


def _shifted(inverse, shift):
    """The map to a source whose voxel 0 is voxel ``shift`` of the image."""
    back = np.eye(4)
    back[:3, 3] = -shift
    return np.ascontiguousarray(back @ inverse)


class Pull:
    """The work to interpolate a source (f, z, x, y) at the points of a grid; ``fill`` does a part of its rows.

    ``copy``: keep no reference to the source, but a copy of what is needed of it.
    """

    def __init__(self, source, inverse, grid, nearest, dtype, copy=False):
        low, high = (bound - grid.surplus for bound in grid.bounds(inverse))
        if np.any(low < -_SLACK) or np.any(high > grid.size - 1 + _SLACK):
            raise WarpingOOBError(f"Out of bounds for {grid.name}: it has voxels 0 to {grid.size - 1}, needed are "
                                  f"{np.round(low, 2)} to {np.round(high, 2)}.")
        self.divisor = np.float32(1)
        if grid.name == "image":
            as_float(np.zeros(1, source.dtype))  # raises TypeError if the scale is unknown
            self.divisor = np.float32(np.iinfo(source.dtype).max if source.dtype.kind == "u" else 1)
        shift, plain = grid.surplus, plain_dtype(source.dtype)
        if copy or not (isinstance(source, np.ndarray) and source.flags.c_contiguous and source.dtype == plain):
            low, high = np.maximum(np.floor(low).astype(int), 0), np.minimum(np.ceil(high).astype(int) + 1, grid.size)
            source = np.array(source[(slice(None), *(slice(a, b) for a, b in zip(low, high)))], plain, order="C")
            shift = shift + low
        self.source, self.grid, self.nearest = source, grid, nearest
        self.shape = (len(source), *map(int, grid.shape))
        self.back = _shifted(inverse, shift)
        self.rows = int(grid.shape[0] * grid.shape[1])
        self.dtype, self.bends = dtype, [self._bend(origin) for origin in grid.origins()]

    def _bend(self, origin):
        """Tables of the displacement on a grid: see _bend_row."""
        grid, bend = self.grid, self.grid.bend
        if bend is None:
            return _STRAIGHT
        points = [start + step * np.arange(n) for start, step, n in zip(origin, grid.step, grid.shape)]
        tz, tx, ty = (bend.along(axis, p) for axis, p in enumerate(points))
        runs = np.array([0, *np.flatnonzero(np.diff(np.floor(ty))) + 1, len(ty)])
        return tz, tx, ty, runs, bend.coefficients, bend.shifts(points[0], grid.name == "target")

    def start(self):
        """Make room for the result, ``out``."""
        self.out = np.empty(self.shape, self.dtype)
        self.part = np.empty_like(self.out) if len(self.bends) > 1 else None

    def fill(self, first, last):
        """Rows ``first`` to ``last`` of the result."""
        grid, rows = self.grid, (slice(None), slice(first, last))
        total, part = (a if a is None else a.reshape(len(a), self.rows, -1)[rows] for a in (self.out, self.part))
        for k, (origin, bend) in enumerate(zip(grid.origins(), self.bends)):
            _fill(self.source, self.back, origin, grid.step, self.nearest, self.divisor, self.part if k else self.out, first,
                  last, bend)
            if k:
                total += part
        if part is not None:
            total /= len(self.bends)


def run(pulls, n_threads):
    """Do the work; if it is worth it, in slabs, one for each thread, of which this one is the first."""
    for pull in pulls:
        pull.start()
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


def plain_dtype(dtype):
    """What the compiled code can read: no bool, no half precision, no foreign byte order."""
    return np.dtype({"bool": np.uint8, "float16": np.float32}.get(dtype.name, dtype)).newbyteorder("=")


_STRAIGHT = (*np.zeros((3, 0)), np.zeros(0, int), np.zeros((3, 0, 0, 0)), np.zeros((0, 2)))


def free_threads():
    """How many threads a patch may take: all cores from the main thread, one from a worker, which has company."""
    if threading.current_thread() is not threading.main_thread() or multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@compiled
def _lerp(a, b, f):
    """From a to b by f; at the ends exactly these, also beside NaN."""
    return a if f == 0 else b if f == 1 else a + f * (b - a)


@compiled
def _spline_weights(t):
    """The cell of a cubic B-spline in which t lies, and the weights of the four coefficients from there on."""
    cell = int(np.floor(t))
    u = t - cell
    return cell, ((1 - u) ** 3 / 6, (3 * u ** 3 - 6 * u ** 2 + 4) / 6, (3 * (u + u ** 2 - u ** 3) + 1) / 6, u ** 3 / 6)


@compiled
def _bend_plane(bend, i, plane):
    """The coefficients of the spline on section i, into ``plane`` (3, gx, gy)."""
    tz, coefficients = bend[0], bend[4]
    plane[:] = 0
    if coefficients.size:
        a, wz = _spline_weights(tz[i])
        for p in range(4):
            plane += wz[p] * coefficients[:, a + p]


@compiled
def _bend_row(bend, plane, back, i, j, lines, moves):
    """What the displacement of row (i, j) adds to the homogeneous source coordinates, into ``moves`` (4, m2).

    ``bend``: where the rows, columns and points lie in cells of the spline, where along a row its cells begin, its
    coefficients, and the displacement of each section; ``plane``: of _bend_plane. ``lines`` (7, gy): room for the
    coefficients of the spline on this row, mapped to the source and as they are; in a cell it is a polynomial.
    """
    _, tx, ty, runs, coefficients, shifts = bend
    for axis in range(4):
        moves[axis] = back[axis, 1] * shifts[i, 0] + back[axis, 2] * shifts[i, 1]
    if coefficients.size == 0:
        return
    b, wx = _spline_weights(tx[j])
    for axis in range(3):
        for c in range(lines.shape[1]):
            lines[4 + axis, c] = (wx[0] * plane[axis, b, c] + wx[1] * plane[axis, b + 1, c] + wx[2] * plane[axis, b + 2, c]
                                  + wx[3] * plane[axis, b + 3, c])
    for axis in range(4):
        for c in range(lines.shape[1]):
            lines[axis, c] = back[axis, 0] * lines[4, c] + back[axis, 1] * lines[5, c] + back[axis, 2] * lines[6, c]
        if not lines[axis].any():
            continue  # no displacement in z, or no perspective
        for n in range(len(runs) - 1):
            c = int(np.floor(ty[runs[n]]))
            c0, c1, c2, c3 = lines[axis, c], lines[axis, c + 1], lines[axis, c + 2], lines[axis, c + 3]
            k0, k1 = (c0 + 4 * c1 + c2) / 6, (c2 - c0) / 2
            k2, k3 = (c0 - 2 * c1 + c2) / 2, (c3 - c0 + 3 * (c1 - c2)) / 6
            row, t = moves[axis, runs[n]:runs[n + 1]], ty[runs[n]:runs[n + 1]]
            for k in range(len(row)):
                u = t[k] - c
                row[k] += k0 + u * (k1 + u * (k2 + u * k3))


@compiled
def _fill(source, back, origin, step, nearest, divisor, out, first, last, bend):
    """Rows ``first`` to ``last`` of the output: the positions of a row, then its 8 corners, then their mean.

    Short loops, of which all but that over the corners run in vector registers, are 3 times as fast as one long loop;
    unsigned indices, which need no test for being negative, are worth another 1.5.
    """
    _, n0, n1, n2 = source.shape
    _, _, m1, m2 = out.shape
    flat, discrete, bent = source.reshape(-1), nearest.any(), bend[0].size > 0
    sz, sx, sy = np.uint64(n1 * n2 * (n0 > 1)), np.uint64(n2 * (n1 > 1)), np.uint64(n2 > 1)
    high_z, high_x, high_y = float(n0 - 1), float(n1 - 1), float(n2 - 1)
    top_z, top_x, top_y = max(n0 - 2, 0), max(n1 - 2, 0), max(n2 - 2, 0)
    zs, xs, ys = np.empty((3, m2))
    moves, lines = np.empty((4, m2)), np.empty((7, bend[4].shape[3]))
    plane = np.empty((3, bend[4].shape[2], bend[4].shape[3]))
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
        if bent:
            if r == first or j == 0:
                _bend_plane(bend, i, plane)
            _bend_row(bend, plane, back, i, j, lines, moves)
            for k in range(m2):
                w = 1 / (w0 + dw * k + moves[3, k])
                zs[k], xs[k] = (z0 + dz * k + moves[0, k]) * w, (x0 + dx * k + moves[1, k]) * w
                ys[k] = (y0 + dy * k + moves[2, k]) * w
        else:
            for k in range(m2):
                w = 1 / (w0 + dw * k)
                zs[k], xs[k], ys[k] = (z0 + dz * k) * w, (x0 + dx * k) * w, (y0 + dy * k) * w
        for k in range(m2):
            z, x, y = min(max(zs[k], 0.0), high_z), min(max(xs[k], 0.0), high_x), min(max(ys[k], 0.0), high_y)
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
