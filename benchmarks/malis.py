"""Voxels per second of one MALIS pass: edges sorted, added, and pairs counted, on one core.

    python benchmarks/malis.py [--repeats 9]

Volumes of 64^3 and 128^3 voxels, next neighbours on three axes, about 500 objects between boundaries; predictions that are
random, and such that are right up to noise. Medians, of wall time and of CPU time, which other programs disturb less.
"""
import argparse
import statistics
import time

import numpy as np
from common import machine
from scipy import ndimage

from elektronn2 import malis

NHOOD = malis.mknhood3d()


def volume(size, rng):
    """Ids (z, x, y) of what is nearest to each of 500 points, with 0 in between, and its affinities."""
    points = np.zeros((size,) * 3, np.int32)
    points.flat[rng.choice(points.size, 500, replace=False)] = np.arange(1, 501)
    seg = points[tuple(ndimage.distance_transform_edt(points == 0, return_distances=False, return_indices=True))]
    seg[ndimage.maximum_filter(seg, 2) != ndimage.minimum_filter(seg, 2)] = 0
    return seg, malis.seg_to_affgraph(seg, NHOOD)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    print(machine())
    for size in (64, 128):
        rng = np.random.default_rng(0)
        seg, true = volume(size, rng)
        noise = rng.random(true.shape, np.float32)
        for what, pred in (("random", noise), ("right up to noise", 0.4 * true.astype(np.float32) + 0.6 * noise)):
            for unrestrict in (False, True):
                wall, cpu = [], []
                for repeat in range(args.repeats + 1):
                    start = time.perf_counter(), time.process_time()
                    malis.malis_weights(pred, true, seg, NHOOD, unrestrict)
                    if repeat:  # the first one compiles
                        wall.append(time.perf_counter() - start[0])
                        cpu.append(time.process_time() - start[1])
                wall, cpu = statistics.median(wall), statistics.median(cpu)
                a, b = (2 * seg.size / seconds / 1e6 for seconds in (wall, cpu))  # a call is two passes
                print(f"  {size}^3, {what}, {'unrestricted' if unrestrict else 'restricted'}: {1e3 * wall:.0f} ms, CPU "
                      f"{1e3 * cpu:.0f} ms; per pass {a:.1f} Mvoxel/s, by CPU time {b:.1f}")


if __name__ == "__main__":
    main()
