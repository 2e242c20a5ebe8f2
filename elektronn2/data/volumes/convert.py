"""Conversion of volumes from any format to another, in blocks, so that they may be larger than memory."""
import logging
import numbers

import numpy as np
from tqdm import tqdm

from elektronn2.data.image import pool
from elektronn2.data.volumes.opening import open_volume
from elektronn2.data.volumes.volume import box_text
from elektronn2.data.volumes.writing import Output, block_size, blocks, output_address
from elektronn2.utils.validate import as_tuple

logger = logging.getLogger("elektronn2log")


def convert(source, target, chunks=None, shards=None, dtype=None, limits=None, downsample=1, labels=False, axes=None,
            voxel_size=None, memory=256, overwrite=False):
    """Write a volume to a new file of another format, type or resolution.

    Parameters
    ----------
    source : as of :func:`~elektronn2.data.volumes.open_volume`; ``axes`` too
    target : name of the output: ``*.zarr`` (OME-Zarr 0.5, image '0'), ``*.h5[:key]`` (default key 'data'), ``*.npy``,
        ``*.tif``, ``precomputed:FOLDER``
    chunks, shards : shape (z, x, y) of what is read at once from the output, and of its files (Zarr only)
    dtype : of the output. Images keep their meaning: integers stand for 0..1 of their largest value, floats for themselves,
        so that uint16 becomes uint8 by 255 / 65535. Labels keep their numbers, which must fit.
    limits : (low, high): these values of the source become 0 and 1 (or 0 and the largest integer), those beyond are clipped
    downsample : factor, or factors (z, x, y). An output voxel is the mean of that many voxels, or the most frequent label
        (of several the smallest). What is left over at the end of an axis is dropped.
    labels : whether the voxels are labels and not an image
    voxel_size : (z, x, y) in nanometres, if the source does not say; of the source
    memory : MiB that a block may have; the process needs some times as much
    overwrite : replace what exists, also what another conversion has begun

    Until it is complete, all is in the folder ``<target>.part``. If the process is interrupted, the same call goes on.

    Raises what :func:`~elektronn2.data.volumes.open_volume` raises, FileExistsError, OSError if the output cannot be
    written, ValueError for options that do not go together, labels that do not fit and NaN that is to become an integer.

    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> raw = np.arange(4 * 6 * 8, dtype=np.uint16).reshape(4, 6, 8) * 300
    >>> convert(raw, f'{folder}/raw.h5:raw', dtype='uint8', downsample=(1, 2, 2), voxel_size=(40, 9, 9))
    >>> small = open_volume(f'{folder}/raw.h5:raw')
    >>> small.shape, small.dtype, small.voxel_size
    ((1, 4, 3, 4), dtype('uint8'), (40.0, 18.0, 18.0))
    """
    volume, address = open_volume(source, axes), output_address(target)
    factors = as_tuple(downsample, 3, "downsample")
    dtype = _as_dtype(dtype or volume.dtype)
    if labels and limits is not None:
        raise ValueError("Labels have no limits: leave out one of the two.")
    scaling = None if labels else Scaling(volume.dtype, dtype, limits)
    if max(factors) > 1 and not labels and limits is None and not _is_image(volume.dtype):
        raise ValueError(f"{volume.name} is of dtype {volume.dtype}, as labels are, whose means make no sense. Say that it "
                         "holds labels (--labels), or, if it is an image, give limits (low, high) of its values (--range).")
    if isinstance(memory, bool) or not isinstance(memory, numbers.Real) or not 0 < memory < np.inf:
        raise ValueError(f"memory must be a number of MiB above 0, got {memory!r}.")
    shape = (volume.channels, *(n // f for n, f in zip(volume.shape[1:], factors)))
    if 0 in shape:
        raise ValueError(f"{volume.name} has shape {volume.shape}: nothing is left of it with downsample {factors}.")
    size = volume.voxel_size if voxel_size is None else _as_voxel_size(voxel_size)
    size = tuple(s * f for s, f in zip(size, factors)) if size else None
    if address.local is not None and _same(address.local, volume):
        raise ValueError(f"Output and input are the same, {address.location}. Name another output.")
    job = dict(source=volume.name, source_axes=volume.axes, source_shape=list(volume.shape), source_dtype=str(volume.dtype),
               shape=list(shape), dtype=str(dtype), limits=list(limits) if limits else None, downsample=list(factors),
               labels=labels, voxel_size=list(size) if size else None)
    output = Output(address, job, overwrite, shape=shape, dtype=dtype, voxel_size=size, chunks=chunks, shards=shards)
    voxel = volume.dtype.itemsize * int(np.prod(factors)) + 24  # bytes, with those of steps between in float64
    step = block_size(shape, output.writer.block, voxel, int(memory * 2 ** 20))
    boxes, done = blocks(shape[1:], step), output.begin(step)
    if done:
        logger.info("Going on with %s: %d of %d blocks are done.", output.part, len(done), len(boxes))
    total = int(np.prod(shape[1:]))
    with tqdm(total=total, unit="voxel", unit_scale=True, desc=address.location, disable=None) as bar:
        for number, box in enumerate(boxes):
            if number not in done:
                array = volume.read([(0, volume.channels), *((a * f, b * f) for (a, b), f in zip(box, factors))])
                array = pool(array, factors, labels)
                try:
                    array = _as_labels(array, dtype) if labels else scaling(array)
                except ValueError as error:
                    output.discard()
                    raise ValueError(f"{volume.name}, box {box_text(box, 'zxy')} of the output: {error}") from None
                output.write(number, box, array)
            bar.update(int(np.prod([b - a for a, b in box])))
    output.finish()
    volume.close()
    logger.info("Wrote %s: %s %s", address, shape, dtype)


class Scaling:
    """How values of one dtype become those of another: a linear function, rounded and clipped for integers.

    >>> Scaling('uint16', 'uint8')(np.array([0, 65535, 32768], np.uint16))
    array([  0, 255, 128], dtype=uint8)
    >>> Scaling('uint16', 'uint8', (1000, 2000))(np.array([0, 1500, 3000], np.uint16))
    array([  0, 128, 255], dtype=uint8)
    """

    def __init__(self, source, target, limits=None):
        self.source, self.target = np.dtype(source), np.dtype(target)
        self.same = self.source == self.target and limits is None
        kinds = self.target.kind + (self.source.kind if limits is None else "")
        if not self.same and set(kinds) - set("uf"):
            raise ValueError(f"How should {self.source} become {self.target}? Give limits (low, high) of the source and an "
                             "unsigned or floating point dtype, or say that these are labels.")
        self.low, self.high = _as_limits(limits) if limits is not None else (0, 1 if self.same else _one(self.source))
        self.clip = limits is not None or self.target.kind == "u"

    def __call__(self, array):
        """An array in the target dtype; ``array`` may be in float64 after averaging. ValueError for NaN without a place."""
        if not self.same:
            array = (array.astype(np.float64) - self.low) / (self.high - self.low)
            array = (np.clip(array, 0, 1) if self.clip else array) * _one(self.target)
        if array.dtype.kind == "f" and self.target.kind in "iu":
            if np.isnan(array).any():
                raise ValueError(f"{np.count_nonzero(np.isnan(array)):,} voxels are NaN, which {self.target} cannot hold. "
                                 "Replace them, or choose a floating point dtype.")
            array = np.rint(array)
        return array.astype(self.target, copy=False)


def _as_dtype(given):
    try:
        return np.dtype(given).newbyteorder("=")
    except TypeError:
        raise ValueError(f"There is no dtype {given!r}. Outputs may be of uint8, uint16, float32 and so on.") from None


def _is_image(dtype):
    """Whether the library knows the scale of such images."""
    return dtype.kind == "f" or dtype.newbyteorder("=") in (np.uint8, np.uint16)


def _as_voxel_size(given):
    try:
        size = tuple(map(float, given))
        if len(size) == 3 and all(0 < s < np.inf for s in size):
            return size
    except (TypeError, ValueError):
        pass
    raise ValueError(f"voxel_size must be three numbers (z, x, y) above 0, in nanometres, got {given!r}.")


def _as_limits(limits):
    try:
        low, high = map(float, limits)
        if low < high:
            return low, high
    except (TypeError, ValueError):
        pass
    raise ValueError(f"The limits must be (low, high), two numbers, got {limits!r}.")


def _one(dtype):
    """The value that stands for 1."""
    return 1 if dtype.kind == "f" else int(np.iinfo(dtype).max)


def _as_labels(array, dtype):
    """Labels in another dtype. ValueError if they do not fit."""
    with np.errstate(invalid="ignore"):  # NaN does not become the integer that it gives
        result = array.astype(dtype, copy=False)
    if not np.array_equal(result, array, equal_nan=array.dtype.kind == "f"):
        raise ValueError(f"labels of {array.min()} to {array.max()} do not fit into {dtype}. Choose a larger dtype, or "
                         "renumber them.")
    return result


def _same(path, volume):
    """Whether a volume is read from ``path`` or from within it."""
    source = volume.name.split(":")[0] if "://" not in volume.name else ""
    return bool(source) and path.exists() and path.resolve() == type(path)(source).resolve()
