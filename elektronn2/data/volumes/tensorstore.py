"""N5 and neuroglancer precomputed volumes (tensorstore), in folders and at URLs."""
import json
import os
from pathlib import Path

import numpy as np

from elektronn2.data.volumes.extras import need
from elektronn2.data.volumes.volume import NANOMETRES, Stored, letters_of

RETRIES = {f"{kind}_request_retries": {"max_retries": 6, "initial_delay": "1s", "max_delay": "10s"}
           for kind in ("http", "gcs", "s3")}  # tensorstore goes on for a quarter of an hour


class _Array:
    """A tensorstore that gives arrays."""

    def __init__(self, store):
        self.store, self.shape, self.dtype = store, tuple(store.shape), store.dtype.numpy_dtype
        self.origin = store.domain.origin  # not 0 in precomputed volumes with an offset

    def __getitem__(self, box):
        ranges = [range(n)[i] for i, n in zip(box, self.shape)]
        index = tuple(slice(r.start + o, r.start + len(r) + o) for r, o in zip(ranges, self.origin))
        return np.asarray(self.store[index].read().result())


def open_precomputed(path, key=None):
    """Scale ``key`` (default '0', the finest) of a precomputed volume."""
    if key and not key.isdigit():
        raise KeyError(f"precomputed://{path}: {key!r} is no number of a scale; 0 is the finest.")
    store = open_store("neuroglancer_precomputed", path, scale_index=int(key or 0))
    return _stored(store, "xyzf")


def open_n5(path, key=None):
    """Data set ``key`` of an N5 container; the axes are x, y, z, and f for a fourth, unless it says otherwise."""
    try:
        store = open_store("n5", f"{path.rstrip('/')}/{key}" if key else path)
    except FileNotFoundError:
        if "://" in path:  # cannot be listed
            raise
        what = f"no data set {key!r}" if key else "no single data set"
        raise KeyError(f"{path} has {what}; available: {_data_sets(path)}.") from None
    letters = letters_of(store.domain.labels)
    known = letters is not None and set("xy") <= set(letters)
    return _stored(store, letters if known else "xyzf"[:store.rank] if 2 <= store.rank <= 4 else None)


def _data_sets(folder):
    """Names of all data sets in an N5 folder."""
    found = []
    for here, folders, files in os.walk(folder):
        if "attributes.json" in files and "dimensions" in json.loads(Path(here, "attributes.json").read_text()):
            found.append(os.path.relpath(here, folder))
            folders.clear()
    return sorted(found)


def open_store(driver, path, **options):
    """An open tensorstore. FileNotFoundError or OSError naming the path."""
    ts = need("tensorstore", "volumes")
    try:
        return ts.open({"driver": driver, "kvstore": kvstore(path), "context": RETRIES, **options}, read=True).result()
    except ValueError as error:
        text = str(error).partition(" [tensorstore_spec")[0].partition(" [source locations")[0]
        kind = FileNotFoundError if "NOT_FOUND" in text else OSError
        raise kind(f"{path} cannot be read as {driver.rpartition('_')[2]}: {text}") from None


def kvstore(path):
    """What tensorstore calls the place of a folder or URL."""
    return path if "://" in path else {"driver": "file", "path": path}


def _stored(store, axes):
    units = zip(axes or "", store.dimension_units)
    voxel_size = {a: u.multiplier * NANOMETRES[u.base_unit] for a, u in units if u and u.base_unit in NANOMETRES}
    return Stored(_Array(store), axes, voxel_size, store.chunk_layout.read_chunk.shape)
