"""Zarr v2 and v3, with shards, and OME-Zarr 0.4 and 0.5 (zarr)."""
import asyncio
import contextlib
import importlib
import time

from elektronn2.data.volumes.extras import need
from elektronn2.data.volumes.volume import NANOMETRES, Stored, letters_of

UNITS = {"nanometer": 1, "micrometer": 1e3, "millimeter": 1e6, "meter": 1e9, "angstrom": 0.1, "picometer": 1e-3,
         **NANOMETRES}


def open_stored(path, key=None):
    """The array ``key`` of a Zarr folder or URL, or the first, finest one of an OME-Zarr group.

    KeyError listing what there is, if it is neither.
    """
    zarr = need("zarr", "zarr")
    if "://" in path:
        need("s3fs" if path.startswith("s3:") else "aiohttp", "remote")
    key = (key or "").strip("/")
    place = f"{path.rstrip('/')}/{key}" if key else path
    try:
        found = zarr.open(place, mode="r")
        if isinstance(found, zarr.Group):
            image = multiscale(found.attrs)
            if not image or not image.get("datasets"):
                raise _no_array(zarr, path, key)
            name = image["datasets"][0]["path"]
            found = found[name]
        else:
            parent, _, name = key.rpartition("/")
            group = _group(zarr, f"{path}/{parent}" if parent else path) if key else None
            image = multiscale(group.attrs) if group is not None else None
        axes, voxel_size = describe(image, name) if image else (None, None)
    except FileNotFoundError as error:
        raise _no_array(zarr, path, key) or FileNotFoundError(f"{place} cannot be read as Zarr: {error}.") from None
    except (NoArray, MemoryError):
        raise
    except Exception as error:  # of metadata, or of the many libraries for URLs
        raise OSError(f"{place} cannot be read as Zarr: {type(error).__name__}: {error}.") from error
    if axes is None or len(axes) != found.ndim:
        axes, voxel_size = _names(found), None
    return Stored(_Array(_strict(zarr, found) if found.shards else found), axes, voxel_size, found.chunks)


def _strict(zarr, array):
    """The array, read so that a file of no bytes is damage, as a full disk leaves it: zarr takes it for a shard of zeros."""
    class Store(zarr.storage.WrapperStore):
        async def get(self, key, prototype, byte_range=None):
            value = await super().get(key, prototype, byte_range)
            if value is not None and not len(value):
                raise OSError(f"{key} has no bytes")
            return value
    return zarr.open_array(Store(array.store), path=array.path, mode="r", zarr_format=array.metadata.zarr_format)


class _Array:
    """An array that, if it cannot be read, lets the reading of other chunks end.

    Else Python tells of each of these, when the process ends, in many lines below the error.
    """

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, box):
        try:
            return self.array[box]
        except Exception:
            with contextlib.suppress(Exception):  # where it is may change; it is not worth another error
                importlib.import_module("zarr.core.sync").sync(_settle())
            raise


async def _settle():
    deadline = time.monotonic() + 5  # other threads may go on reading for ever
    while (others := asyncio.all_tasks() - {asyncio.current_task()}) and time.monotonic() < deadline:
        await asyncio.wait(others, timeout=1)


class NoArray(KeyError):
    """There is Zarr, but no such array."""


def multiscale(attributes):
    """The first image that OME-Zarr attributes describe (0.5 under 'ome', 0.4 not), or None."""
    images = attributes.get("ome", attributes).get("multiscales")
    return images[0] if images else None


def describe(image, name):
    """(axes, voxel size in nm by letter) of a level of an OME-Zarr image; (None, None) if it is not one of it."""
    levels = [d for d in image.get("datasets", ()) if d.get("path") == name]
    axes = image.get("axes")
    if not levels or not axes:
        return None, None
    letters = letters_of(a["name"] if isinstance(a, dict) else a for a in axes)
    scale = [1.0] * len(axes)
    for t in [*levels[0].get("coordinateTransformations", ()), *image.get("coordinateTransformations", ())]:
        if t.get("type") == "scale":
            scale = [s * float(f) for s, f in zip(scale, t["scale"])]
    units = [UNITS.get(a.get("unit")) if isinstance(a, dict) else None for a in axes]
    return letters, {a: s * u for a, s, u in zip(letters or "", scale, units) if u}


def _names(array):
    """Axes from the names of dimensions (v3) or the attribute of xarray (v2)."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    letters = letters_of(names) if names else None
    return letters if letters and len(letters) == array.ndim and set("xy") <= set(letters) else None


def _group(zarr, path):
    try:
        return zarr.open_group(path, mode="r")
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _no_array(zarr, path, key):
    """The error for a path that names no array; None if there is no Zarr at all."""
    group = _group(zarr, path)
    if group is None:
        return None
    try:
        available = sorted(name for name, member in group.members(max_depth=4) if isinstance(member, zarr.Array))
    except (ValueError, TypeError, OSError):  # stores that cannot be listed, as those of http
        available = "not to be listed"
    what = f"no array {key!r}" if key else "no single array"
    hint = f"; name one, as in {path}/{available[0]}" if available and isinstance(available, list) else ""
    return NoArray(f"{path} has {what}; available: {available}{hint}.")
