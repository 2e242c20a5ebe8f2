"""Addresses of volumes, and how they are opened: one string for any format."""
import re
from pathlib import Path
from typing import NamedTuple

import h5py

from elektronn2.data.volumes import arrays, h5, knossos, tensorstore, tiff, zarr
from elektronn2.data.volumes.volume import Stored, Volume
from elektronn2.utils.basic import h5open
from elektronn2.utils.validate import suggest_file

KINDS = {"h5": h5.open_stored, "zarr": zarr.open_stored, "n5": tensorstore.open_n5,
         "precomputed": tensorstore.open_precomputed, "tiff": tiff.open_stored, "npy": arrays.open_npy,
         "knossos": knossos.open_stored}
SUFFIXES = {".h5": "h5", ".hdf5": "h5", ".hdf": "h5", ".npy": "npy", ".tif": "tiff", ".tiff": "tiff", ".conf": "knossos"}
INSIDE = {"zarr.json": "zarr", ".zgroup": "zarr", ".zarray": "zarr", "attributes.json": "n5", "info": "precomputed",
          "*mag1/knossos.conf": "knossos"}


class Address(NamedTuple):
    """Where a volume is: ``kind`` of format, path or URL, ``key`` of the data set in it, ``axes``.

    >>> Address.parse('~/raw_0.h5:volumes/raw')
    Address(kind='h5', path='~/raw_0.h5', key='volumes/raw', axes=None)
    >>> Address.parse('s3://bucket/em.zarr/0')
    Address(kind='zarr', path='s3://bucket/em.zarr', key='0', axes=None)
    >>> Address.parse('precomputed://https://host/em:1')
    Address(kind='precomputed', path='https://host/em', key='1', axes=None)
    >>> Address.parse('tiff:stack/*.tif?axes=zyx')
    Address(kind='tiff', path='stack/*.tif', key=None, axes='zyx')
    """
    kind: str
    path: str
    key: str | None = None
    axes: str | None = None

    @classmethod
    def parse(cls, text, folder=None):
        """From a string; a relative path is one in ``folder``, if that is given."""
        given, axes = text, None
        if match := re.fullmatch(r"(.+)\?axes=(\w+)", text, re.DOTALL):
            text, axes = match.groups()
        kind = None
        if match := re.match(rf"({'|'.join(KINDS)}):(?://(?!/))?(?=.)", text):
            kind, text = match[1], text[match.end():]
        text = re.sub("^file://", "", text)
        if not text:
            raise ValueError(f"{given!r} names no file.")
        if folder is not None and "://" not in text:
            text = str(Path(folder) / Path(text).expanduser())
        path, key = _split_key(text, kind)
        return cls(kind or _kind(path), path, key or None, axes)

    @property
    def local(self):
        """The path on this machine, with ``~`` expanded; None for a URL."""
        return None if "://" in self.path else Path(self.path).expanduser()

    @property
    def location(self):
        """The path, ``~`` expanded, or the URL, as string."""
        return self.path if self.local is None else str(self.local)

    @property
    def is_missing(self):
        """Whether there is no such file, folder or, in patterns with *, ? and [], any file; False for URLs."""
        if self.local is None or self.local.exists():
            return False
        return self.kind != "tiff" or not tiff.find(self.location)

    def __str__(self):
        return self.location + (f":{self.key}" if self.key else "")


def _split_key(text, kind):
    """(path, key): after a colon, or what follows a folder '*.zarr' or '*.n5'; a colon within the path is left alone."""
    local = "://" not in text
    if local and Path(text).expanduser().exists() and not re.search(r"\.(zarr|n5)/", text):
        return text, None
    if match := re.fullmatch(r"(.*?\.(?:zarr|n5))(?:[/:](.*))?", text.rstrip("/"), re.DOTALL):
        return match[1], match[2]
    if kind in ("precomputed", "knossos", "n5", "zarr") or not local:
        match = re.fullmatch(r"(.+):([^:/]+)", text, re.DOTALL)
        return (match[1], match[2]) if match else (text, None)
    path, colon, key = text.rpartition(":")
    if not colon or len(path) == 1 or Path(key).suffix in SUFFIXES:
        return text, None
    return path, key


def _kind(path):
    """The format, by name, or by what is in the folder. Files of any other name are taken for h5."""
    name = path.rstrip("/")
    for suffix, kind in {**SUFFIXES, ".zarr": "zarr", ".n5": "n5"}.items():
        if name.lower().endswith(suffix):
            return kind
    if "://" in path:
        raise ValueError(f"{path}: what format is this? Say so in front, as in precomputed://{path} or zarr:{path}.")
    folder = Path(path).expanduser()
    if folder.is_dir():
        for pattern, kind in INSIDE.items():
            if any(folder.glob(pattern)):
                return kind
        raise ValueError(f"{folder} is a folder without a volume of a known kind. Formats: {', '.join(KINDS)}; for a stack "
                         f"of images, {folder}/*.tif.")
    return "h5"


def open_volume(source, axes=None, default_axes=("xy", "zxy", "fzxy")):
    """A :class:`Volume`, with axes (f, z, x, y), of what an address, an array or a pair (file, data set) names.

    ``source``: string, such as ``~/raw_0.h5:raw``, ``em.zarr/0``, ``s3://bucket/em.zarr/0``, ``em.n5/raw``,
    ``precomputed://https://host/em``, ``tiff:~/stack/*.tif``, ``raw.npy``, ``knossos:~/dataset``; see docs/volumes.md;
    or an :class:`Address`, a pair (file, data set), an array, or a Volume. ``axes``: a letter for each axis of what is
    stored, such as 'zyx', if the file does not say or says it wrongly; ``?axes=zyx`` in the address is the same.
    ``default_axes``: those of 2-, 3- and 4-D arrays of which nothing is known.

    Raises FileNotFoundError, KeyError for an unknown data set, OSError for a broken file, ValueError for what is no
    volume, and ImportError naming what to install.

    >>> import os, tempfile
    >>> import numpy as np
    >>> name = os.path.join(tempfile.mkdtemp(), 'raw.npy')
    >>> np.save(name, np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    >>> open_volume(name).shape
    (1, 2, 3, 4)
    >>> open_volume(name + '?axes=xyz')[0, :, 1, 2]
    array([20, 21, 22, 23], dtype=uint8)
    """
    if isinstance(source, Volume):
        return source
    stored, name, told = open_stored(source)
    axes = axes or told or stored.axes
    if axes is None:
        n = len(stored.array.shape)
        if not 2 <= n <= 4:
            raise ValueError(f"{name} has shape {tuple(stored.array.shape)}, but volumes have axes (z, x, y) or "
                             "(f, z, x, y).")
        axes = default_axes[n - 2]
    return Volume(stored, name, axes, (open_volume, (source, axes)))


def open_volumes(source):
    """A list of volumes: all data sets of an h5 file of which none is named, else the one of :func:`open_volume`."""
    if not isinstance(source, Volume) and not hasattr(source, "dtype"):
        source = source if isinstance(source, Address) else as_address(source)
        if source.kind == "h5" and source.key is None and not source.is_missing:
            with h5open(source.path) as file:
                return [open_volume(source._replace(key=key)) for key in h5.datasets(file)]
    return [open_volume(source)]


def open_stored(source):
    """(Stored, name, axes of the address) of anything :func:`open_volume` takes, of any number of axes."""
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        return Stored(source), f"The array {source.dtype} {tuple(source.shape)}", None
    if not isinstance(source, Address):
        source = as_address(source)
    if source.is_missing:
        raise FileNotFoundError(f"There is no file {source.location}.{suggest_file(source.location)}")
    if source.kind == "h5" and Path(source.location).suffix not in SUFFIXES and not h5py.is_hdf5(source.location):
        raise OSError(f"{source.location} is of no format that can be read. Formats: {', '.join(KINDS)}. Load it with a "
                      "library of its own and pass the array, or convert it, for example with elektronn2.utils.h5save.")
    return KINDS[source.kind](source.location, source.key), str(source), source.axes


def as_address(source, folder=None):
    """An :class:`Address` from a string, a path, or a pair (file, name of the data set)."""
    if isinstance(source, (str, Path)):
        return Address.parse(str(source), folder)
    try:
        file, key = source
        if not isinstance(file, (str, Path)) or not isinstance(key, str | None):
            raise TypeError
    except (TypeError, ValueError):
        raise TypeError(f"A volume is named by a string, a pair (file, name of the data set), or is an array; got "
                        f"{source!r}.") from None
    address = Address.parse(str(file), folder)
    return address if key is None else address._replace(key=f"{address.key}/{key}" if address.key else key)
