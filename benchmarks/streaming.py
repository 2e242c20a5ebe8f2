"""Samples from a Zarr volume of 100 GB on disk against the same from memory: time per sample, peak memory of the process.

    python benchmarks/streaming.py [FOLDER]

The volume has real, compressed shards at all places; to save disk space they are links to one file of 16 MiB. So reading
costs what it costs of files that the system has in its cache; a cold disk or network comes on top.
"""
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine
from scipy.ndimage import gaussian_filter

from elektronn2 import neuromancer as nm
from elektronn2.data.cnndata import BatchCreatorImage
from elektronn2.data.volumes import convert, open_volume

SHARD, SHARDS = 256, (16, 20, 20)  # voxels of an edge; shards along z, y, x: 107 GB
PATCH, N = (23, 185, 185), 100


def write_volume(folder, name, counts, image):
    """A volume ``name`` with ``counts`` shards, all with the same content. Returns its address."""
    import zarr
    one = folder / f"{name}_one.zarr"
    convert(image, one)
    group = zarr.create_group(folder / f"{name}.zarr")
    source = zarr.open_array(one / "0", mode="r")
    group.create_array("0", shape=[SHARD * c for c in counts], dtype=image.dtype, chunks=source.chunks, shards=source.shards,
                       compressors=source.compressors, dimension_names=["z", "y", "x"])
    for place in np.ndindex(*counts):
        target = folder / f"{name}.zarr/0/c" / "/".join(map(str, place))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(one / "0/c/0/0/0", target)
    return f"{folder}/{name}.zarr/0"


def make(folder):
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(size=(SHARD,) * 3).astype(np.float32), 2)
    image = np.clip(noise / noise.std() * 40 + 128, 0, 255).astype(np.uint8)
    for counts, size in ((SHARDS, "large"), ((1, 2, 2), "small")):
        write_volume(folder, f"{size}_raw", counts, image)
        write_volume(folder, f"{size}_lab", counts, (image > 128).astype(np.uint8))


def sample(folder, size, stream, warp):
    """Draw samples; print milliseconds of one and the peak memory of this process in GB."""
    image = nm.Input((1, 1, *PATCH), "b,f,z,x,y")
    target = nm.Input_like(nm.Conv(image, 2, (1, 6, 6), (1, 2, 2)), override_f=1, dtype="int16")
    data = BatchCreatorImage(image, target, d_files=[f"{folder}/{size}_raw.zarr/0"], l_files=[f"{folder}/{size}_lab.zarr/0"],
                             h5stream=stream, seed=0)
    for k in range(5):
        data.sample(k, warp=warp)
    start = time.perf_counter()
    for k in range(N):
        data.sample(k, warp=warp)
    ms = 1000 * (time.perf_counter() - start) / N
    print(f"{ms:.1f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f}")


def main(folder):
    print(f"{machine()}\nsamples of {PATCH} with their labels, {N} of each kind")
    make(folder)
    logical = open_volume(f"{folder}/large_raw.zarr/0").nbytes
    print(f"logical size of the large volume {logical / 1e9:.0f} GB, and as much for its labels")
    for name, size, stream, warp in (
            ("in memory (67 MB)", "small", False, 0), ("the same from Zarr", "small", True, 0),
            ("107 GB from Zarr", "large", True, 0), ("in memory (67 MB), warped", "small", False, 1),
            ("the same from Zarr, warped", "small", True, 1), ("107 GB from Zarr, warped", "large", True, 1)):
        out = subprocess.run([sys.executable, __file__, str(folder), size, str(stream), str(warp)], capture_output=True,
                             text=True, check=True).stdout
        ms, peak = out.split()[-2:]
        print(f"{name:28} {ms:>7} ms per sample, peak memory {peak} GB")


if __name__ == "__main__":
    if len(sys.argv) == 5:
        sample(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True", float(sys.argv[4]))
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
