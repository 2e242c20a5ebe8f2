"""Voxels per second of cutting a warped (1,23,185,185) patch from a uint8 cube, against scipy's map_coordinates.

    python benchmarks/warping.py [--repeats 21]

Both use all cores and do the same work: coordinates of the patch, trilinear values in 0..1 as float32, and with labels
also the nearest label of every voxel of a (17,97,97) target. scipy works on slabs of the patch, one thread each. Repeats
alternate, each with a new matrix; medians.
"""
import argparse
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from common import machine, median_ratio
from scipy.ndimage import map_coordinates

from elektronn2.data import transformations as tf
from elektronn2.data.pullback import free_threads

PATCH, TARGET, OFFSET, CUBE, LABELS = (23, 185, 185), (17, 97, 97), (3, 44, 44), (61, 421, 421), (41, 301, 301)


def matrix(rng, lock_z):
    """A random warp with perspective, about the middle of the cube."""
    amount = 1.0 if lock_z else 0.1
    return tf.chain_matrices([tf.translate(*(np.array(PATCH) - 1) / 2), tf.scale_inv(2, 1, 1),
                              tf.get_random_rotmat(lock_z, amount, rng),
                              tf.get_random_warpmat(lock_z, True, 0.3, rng), tf.scale(2, 1, 1),
                              tf.translate(*-(np.array(CUBE) - 1) / 2)])


def scipy_slab(source, inverse, origin, shape, order):
    """The obvious way: all coordinates, then their values."""
    points = np.indices(shape, np.float64).reshape(3, -1) + np.array(origin)[:, None]
    points = inverse[:, :3] @ points + inverse[:, 3:]
    return map_coordinates(source, (points[:3] / points[3]).reshape(3, *shape), np.float32 if order else source.dtype, order)


def scipy_warp(image, inverse, labels, pool):
    def slabs(source, inverse, origin, shape, order):
        edges = np.linspace(0, shape[0], (os.cpu_count() or 1) + 1).astype(int)
        parts = pool.map(lambda a, b: scipy_slab(source, inverse, (origin[0] + a, *origin[1:]), (b - a, *shape[1:]), order),
                         edges[:-1], edges[1:])
        return np.concatenate(list(parts))

    patch = slabs(image[0], inverse, (0, 0, 0), PATCH, 1)
    patch /= np.float32(255)
    if labels is None:
        return patch, None
    shift = tf.translate(*-(np.array(CUBE) - LABELS) / 2)
    return patch, slabs(labels[0], shift @ inverse, OFFSET, TARGET, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=21)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, *CUBE), dtype=np.uint8)
    labels = rng.integers(0, 2, (1, *LABELS)).astype(np.int16)
    threads, size = free_threads(), np.prod(PATCH)
    print(machine())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for what, lock_z, target in (("image", True, None), ("image and labels", True, labels),
                                     ("image, tilted", False, None), ("both, tilted", False, labels)):
            ours, theirs, error = [], [], 0
            for repeat in range(args.repeats + 1):
                m = matrix(rng, lock_z)
                start = time.perf_counter()
                a = tf.warp_slice(image, PATCH, m, target, TARGET, target_off=OFFSET, n_threads=threads)
                middle = time.perf_counter()
                b = scipy_warp(image, np.linalg.inv(m), target, pool)
                end = time.perf_counter()
                error = max(error, np.abs(a[0][0] - b[0]).max())
                assert target is None or np.mean(a[1][0] != b[1]) < 1e-4  # where a coordinate is all but a half
                if repeat:  # the first one compiles
                    ours.append(middle - start)
                    theirs.append(end - middle)
            mine, other = statistics.median(ours), statistics.median(theirs)
            print(f"  {what:<17} ours {1e3 * mine:6.1f} ms ({size / mine / 1e6:4.0f} Mvoxel/s), scipy "
                  f"{1e3 * other:6.1f} ms ({size / other / 1e6:3.0f} Mvoxel/s): {median_ratio(theirs, ours):.1f} times as "
                  f"fast, largest difference {error:.0e}")


if __name__ == "__main__":
    main()
