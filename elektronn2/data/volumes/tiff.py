"""TIFF and BigTIFF: stacks in one file, or files of one section each (tifffile)."""
import functools
import glob
import logging
import re
import weakref
import xml.etree.ElementTree as tree
from pathlib import Path

import numpy as np

from elektronn2.data.volumes.extras import need
from elektronn2.data.volumes.volume import NANOMETRES, Stored

logger = logging.getLogger("elektronn2log")

UNITS = {**NANOMETRES, "micron": 1e3, "\\u00B5m": 1e3, "cm": 1e7}


def find(pattern):
    """The files that a pattern with *, ?, [] names, in natural order: 9 before 10."""
    return need("tifffile", "volumes").natural_sorted(glob.glob(pattern)) if glob.has_magic(pattern) else []


def open_stored(path, key=None):
    """The first series of a TIFF file, or the files that a pattern or folder names, one section each, along z.

    OSError for what is no TIFF, ValueError for sections of different sizes.
    """
    tifffile, zarr = need("tifffile", "volumes"), need("zarr", "volumes")
    if key:
        raise KeyError(f"{path} has no data sets by name: leave out ':{key}'.")
    files = find(path)
    if not files and Path(path).is_dir():
        files = find(f"{glob.escape(path)}/*.tif*")
        if not files:
            raise FileNotFoundError(f"There are no TIFF files in {path}.")
    first = files[0] if files else path
    try:
        with tifffile.TiffFile(first) as tif:
            series = tif.series[0]
            axes, shape, voxel_size = letters(series.axes), series.shape, voxel_size_of(tif)
        if not files:
            file = tifffile.TiffFile(path)
            store, close = file.series[0].aszarr(), file.close
        else:
            if len(shape) != 2:
                raise ValueError(f"{first} has shape {shape}, but files of a stack have one section each.")
            _note_gaps(files)
            read = functools.partial(_section, tifffile.imread, shape, series.dtype)
            store, close, axes = tifffile.TiffSequence(files, imread=read).aszarr(), None, "zyx"
    except (tifffile.TiffFileError, IndexError) as error:
        raise OSError(f"{first} cannot be read as TIFF: {error}.") from None
    array = zarr.open_array(store, mode="r")
    if close:
        weakref.finalize(array, close)
    return Stored(array, axes, voxel_size, array.chunks, close=close)


def _section(imread, shape, dtype, file, **options):
    """The image of a file of a stack. OSError naming the file, if it is no TIFF or not like the first one."""
    try:
        image = imread(file, **options)
    except Exception as error:
        raise OSError(f"{Path(file).name}: {error}") from error
    if image.shape != shape or image.dtype != dtype:
        raise OSError(f"{Path(file).name} has {image.dtype} {image.shape}, but the first section {dtype} {shape}")
    return image


def _note_gaps(files):
    """Warn if the last numbers in the names of sections are not equally far apart: one may be missing."""
    numbers = [re.findall(r"\d+", Path(file).stem) for file in files]
    if len(files) < 3 or not all(numbers):
        return
    steps = np.diff([int(found[-1]) for found in numbers])
    odd = np.flatnonzero(steps != np.median(steps))
    if len(odd):
        before, after = (Path(files[odd[0] + k]).name for k in (0, 1))
        logger.warning("NOTE: %s follows %s, unlike the other sections in %s. Is one missing? What follows would be out "
                       "of place along z.", after, before, Path(files[0]).parent)


def letters(axes):
    """Axes of tifffile in ours: 'ZYX' -> 'zyx'. What it cannot name is z, samples are channels."""
    names = {"S": "f", "C": "f", "Q": "z", "I": "z"}
    axes = "".join(names.get(a, a.lower()) for a in axes)
    return axes if len(set(axes)) == len(axes) else None


def voxel_size_of(tif):
    """Voxel size in nm by letter from OME or ImageJ metadata, as far as it is there."""
    if tif.is_ome:
        pixels = _ome_pixels(tif)
        found = {a: pixels.get(f"PhysicalSize{a.upper()}") for a in "xyz"}
        units = {a: UNITS.get(pixels.get(f"PhysicalSize{a.upper()}Unit", "µm")) for a in "xyz"}
        return {a: float(n) * units[a] for a, n in found.items() if n is not None and units[a]}
    ij, tags = tif.imagej_metadata or {}, tif.pages[0].tags
    unit = UNITS.get(ij.get("unit"))
    if not unit or "XResolution" not in tags:
        return None
    found = {a: (lambda n, d: d / n if n else None)(*tags[f"{a.upper()}Resolution"].value) for a in "xy"}
    found["z"] = ij.get("spacing")
    return {a: n * unit for a, n in found.items() if n}


def _ome_pixels(tif):
    """The attributes of the image that OME-XML describes first."""
    return next((e.attrib for e in tree.fromstring(tif.ome_metadata).iter() if e.tag.endswith("Pixels")), {})
