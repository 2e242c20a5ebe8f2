"""New files for volumes, block by block: each may be written in any order, twice, and after an interruption."""
import contextlib
import json
import os
import shutil
from itertools import product
from math import prod
from pathlib import Path

import h5py
import numpy as np

from elektronn2.data.volumes.extras import need
from elektronn2.data.volumes.opening import INSIDE, Address
from elektronn2.utils.basic import atomic_write
from elektronn2.utils.validate import as_tuple

# Each writer: make() begins the file `path`, open() an existing one; write(box, array) puts a block with axes (f, z, x, y)
# at a box, ((first, last + 1) of z, x, y); finish() completes the file. `block` is the shape (z, x, y) of which blocks
# must be multiples, except at the end of an axis.


class _Writer:
    def __init__(self, path, shape, dtype, voxel_size, chunks, shards, key=None):
        self.path, self.shape, self.dtype, self.voxel_size = Path(path), tuple(shape), np.dtype(dtype), voxel_size
        self.key = key
        self.chunks = tuple(min(c, n) for c, n in zip(as_tuple(chunks or 64, 3, "chunks"), shape[1:]))
        self.block, self.shards = self.chunks, shards
        if shards is not None and not isinstance(self, ZarrWriter):
            raise ValueError("Only Zarr has shards: leave them out, or write to a file '*.zarr'.")

    def finish(self):
        """Complete the file and tell where it is."""
        self.array = None  # a mapped file is closed
        return self.path


class ZarrWriter(_Writer):
    """OME-Zarr 0.5: a group with the array '0' of axes (z, y, x) or (c, z, y, x), as viewers like it. Checksums are kept."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.zarr = need("zarr", "zarr")
        if self.key:
            raise ValueError("A Zarr output is a new folder '*.zarr', whose image is called '0': name no array in it.")
        wanted = as_tuple(self.shards, 3, "shards") if self.shards else tuple(max(256 // c, 1) * c for c in self.chunks)
        self.block = tuple(-(-min(s, n) // c) * c for s, n, c in zip(wanted, self.shape[1:], self.chunks))
        if self.shards and (bad := [s for s, c in zip(wanted, self.chunks) if s % c]):
            raise ValueError(f"shards {wanted} must be multiples of chunks {self.chunks}; {bad[0]} is none.")

    def make(self):
        def zyx(values):
            return [values[0], values[2], values[1]]
        names = ["z", "y", "x"]
        more = [self.shape[0]] if self.shape[0] > 1 else []
        names = ["c", *names] if more else names
        axes = [{"name": "c", "type": "channel"}] if more else []
        axes += [{"name": a, "type": "space", **({"unit": "nanometer"} if self.voxel_size else {})} for a in "zyx"]
        scale = [1.0] * len(more) + [float(s) for s in zyx(self.voxel_size or (1, 1, 1))]
        image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]}
        group = self.zarr.create_group(self.path, zarr_format=3, attributes={
            "ome": {"version": "0.5", "multiscales": [image]}})
        zstd = self.zarr.codecs.ZstdCodec(level=3, checksum=True)
        one = [1] * len(more)
        group.create_array("0", shape=more + zyx(self.shape[1:]), dtype=self.dtype, chunks=one + zyx(self.chunks),
                           shards=one + zyx(self.block), compressors=zstd, dimension_names=names)
        self.open()

    def open(self):
        self.array = self.zarr.open_array(self.path / "0", mode="r+")

    def write(self, box, array):
        z, x, y = (slice(*b) for b in box)
        array = array.swapaxes(2, 3)
        self.array[(slice(None), z, y, x) if self.array.ndim == 4 else (z, y, x)] = (
            array if self.array.ndim == 4 else array[0])


class PrecomputedWriter(_Writer):
    """Neuroglancer precomputed, one scale."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ts = need("tensorstore", "volumes")
        if self.key:
            raise ValueError("A precomputed output has one scale: name no other.")
        if self.dtype not in [np.dtype(t) for t in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "f4")]:
            raise ValueError(f"precomputed volumes cannot hold {self.dtype}: give another --dtype, or another format.")

    def make(self):
        _, z, x, y = self.shape
        cz, cx, cy = self.chunks
        sz, sx, sy = self.voxel_size or (1, 1, 1)
        self.array = self._open(create=True, dtype=self.dtype.name, shape=[x, y, z, self.shape[0]],
                                dimension_units=[f"{sx} nm", f"{sy} nm", f"{sz} nm", None],
                                chunk_layout=self.ts.ChunkLayout(read_chunk_shape=[cx, cy, cz, self.shape[0]]))

    def open(self):
        self.array = self._open()

    def _open(self, **options):
        return self.ts.open({"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": str(self.path)},
                             **({"scale_metadata": {"encoding": "raw"}} if options else {})}, **options).result()

    def write(self, box, array):
        z, x, y = (slice(*b) for b in box)
        self.array[x, y, z].write(np.ascontiguousarray(array.transpose(2, 3, 1, 0))).result()


class NpyWriter(_Writer):
    """A ``.npy`` file, axes (z, x, y) or (f, z, x, y)."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.key:
            raise ValueError("A .npy or .tif file holds one array: name no data set.")

    def make(self):
        shape = self.shape if self.shape[0] > 1 else self.shape[1:]
        self.array = np.lib.format.open_memmap(self.path, "w+", self.dtype, shape)
        self._take_space()

    def _take_space(self):
        """All that the file needs: if there is none when a mapped file is written, the process ends without a word."""
        if hasattr(os, "posix_fallocate"):
            with open(self.path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)

    def open(self):
        self.array = np.load(self.path, mmap_mode="r+")

    def write(self, box, array):
        target = self.array[None] if self.array.ndim == 3 else self.array
        target[(slice(None), *(slice(*b) for b in box))] = array
        self.array.flush()


class TiffWriter(NpyWriter):
    """BigTIFF, not compressed, axes ZYX or CZYX."""

    def make(self):
        tifffile = need("tifffile", "volumes")
        f, z, x, y = self.shape
        tifffile.memmap(self.path, shape=(f, z, y, x) if f > 1 else (z, y, x), dtype=self.dtype, bigtiff=True,
                        photometric="minisblack", metadata={"axes": "CZYX" if f > 1 else "ZYX"}).flush()
        self._take_space()
        self.open()

    def open(self):
        self.array = need("tifffile", "volumes").memmap(self.path, mode="r+")
        f, z, x, y = self.shape  # lengths 1 are lost in the file
        self.array = self.array.reshape((f, z, y, x) if f > 1 else (z, y, x))

    def write(self, box, array):
        z, x, y = box
        super().write((z, y, x), array.swapaxes(2, 3))


class H5Writer(_Writer):
    """h5, axes (z, x, y) or (f, z, x, y), compressed, with checksums.

    An h5 file that is written when the process is killed is lost. So blocks go to files of their own, which are gathered at
    the end, and need as much space again until then.
    """

    def make(self):
        self.path.mkdir()

    def open(self):
        """Nothing is open."""

    def write(self, box, array):
        with atomic_write(self._file(box)) as temporary, open(temporary, "wb") as file:
            np.save(file, array)

    def _file(self, box):
        return self.path / ("_".join(f"{low}-{high}" for low, high in box) + ".npy")

    def finish(self):
        shape, f = (self.shape, [1]) if self.shape[0] > 1 else (self.shape[1:], [])
        gathered = self.path.with_name(self.path.name + ".h5")
        with atomic_write(gathered) as temporary, h5py.File(temporary, "w", libver=("v110", "v110")) as out:  # all checked
            dataset = out.create_dataset(self.key or "data", shape, self.dtype, chunks=(*f, *self.chunks),
                                         compression="lzf", fletcher32=True, track_times=False)
            dataset.attrs["axes"] = "fzxy" if f else "zxy"
            if self.voxel_size:
                dataset.attrs["element_size_um"] = np.array(self.voxel_size) / 1000
            for file in sorted(self.path.glob("*.npy")):
                box = tuple(slice(*map(int, part.split("-"))) for part in file.stem.split("_"))
                array = np.load(file)
                dataset[(slice(None), *box) if f else box] = array if f else array[0]
        return gathered


WRITERS = {"zarr": ZarrWriter, "h5": H5Writer, "npy": NpyWriter, "tiff": TiffWriter, "precomputed": PrecomputedWriter}


class Output:
    """A file in the making: in the folder ``<name>.part`` beside it, with a list of the blocks that are done.

    ``job``: what is to be done, compared with what an earlier run has begun. FileExistsError if the output exists,
    ValueError if an earlier run has begun another job; with ``overwrite`` both are replaced. OSError naming the output, if
    it cannot be written.
    """

    def __init__(self, address, job, overwrite=False, **layout):
        if address.kind not in WRITERS or address.local is None:
            raise ValueError(f"{address} cannot be written. Outputs are files or folders on this machine: *.zarr, *.h5, "
                             "*.npy, *.tif, or precomputed:FOLDER.")
        self.path, self.overwrite = Path(os.path.abspath(address.local)), overwrite
        if not self.path.name:
            raise ValueError(f"{address} cannot be written: name a new file or folder.")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {self.path.parent} for the output.")
        if self.path.exists() and not overwrite:
            raise FileExistsError(f"{self.path} exists. Choose another name, or --overwrite.")
        volume = [name for name, kind in INSIDE.items() if kind == address.kind]  # what such a folder holds
        if self.path.is_dir() and not any((self.path / name).exists() for name in volume):
            raise FileExistsError(f"{self.path} is a folder, but no volume of kind {address.kind}: it is not overwritten. "
                                  "Choose another name.")
        self.part = self.path.with_name(self.path.name + ".part")
        self.writer = WRITERS[address.kind](self.part / "data", key=address.key, **layout)
        self.job = {**job, "format": address.kind, "key": address.key, "block": list(self.writer.block),
                    "chunks": list(self.writer.chunks)}

    def begin(self, box_size):
        """Make or open the file; ``box_size``: shape (z, x, y) of blocks. Returns the set of block numbers already done."""
        self.job["box_size"] = list(box_size)
        note, self.ledger = self.part / "job.json", self.part / "done.txt"
        if note.exists() and self.writer.path.exists():
            begun = json.loads(note.read_text())
            changed = [k for k in self.job if begun.get(k) != self.job[k]]
            if changed and not self.overwrite:
                raise ValueError(f"{self.part} is of a conversion that was interrupted, with another "
                                 f"{', '.join(changed)} ({', '.join(str(begun.get(k)) for k in changed)}). Use the same "
                                 "options to go on with it, or --overwrite, or delete that folder.")
            if not changed:
                self.writer.open()
                return {int(line) for line in self.ledger.read_text().split("\n")[:-1]}
        with self._named():
            self.discard()  # it was interrupted before the first block
            self.part.mkdir()
            self.writer.make()
            self.ledger.touch()
            with atomic_write(note) as temporary:
                Path(temporary).write_text(json.dumps(self.job))
        return set()

    def write(self, number, box, array):
        """A block; when this returns, it is noted as done."""
        with self._named():
            self.writer.write(box, array)
            with open(self.ledger, "a") as file:
                file.write(f"{number}\n")

    def finish(self):
        """Complete the file and put it into its place, instead of what was there."""
        with self._named():
            data = self.writer.finish()
            if self.path.exists():
                self.path.replace(self.part / "old")
            data.replace(self.path)
            shutil.rmtree(self.part)

    def discard(self):
        """Forget what was begun."""
        shutil.rmtree(self.part, ignore_errors=True)

    @contextlib.contextmanager
    def _named(self):
        """What the libraries raise when there is no space, or no permission, as an OSError that names the output."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            raise OSError(f"{self.path} cannot be written: {error}. Is the disk full, or may you not write there? Make room "
                          "and do the same again, which goes on with what is done, or choose another folder.") from error


def blocks(shape, size):
    """Boxes, ((first, last + 1) of z, x, y), that cover ``shape`` (z, x, y).

    >>> list(blocks((3, 1, 1), (2, 1, 1)))
    [((0, 2), (0, 1), (0, 1)), ((2, 3), (0, 1), (0, 1))]
    """
    starts = [range(0, n, s) for n, s in zip(shape, size)]
    return [tuple((a, min(a + s, n)) for a, s, n in zip(start, size, shape)) for start in product(*starts)]


def block_size(shape, unit, itemsize, memory):
    """The largest multiple of ``unit`` (z, x, y) that has at most ``memory`` bytes, long in y, then x, then z.

    >>> block_size((1, 100, 500, 500), (64, 64, 64), 1, 10_000_000)
    (64, 256, 500)
    """
    size = list(unit)
    for axis in (2, 1, 0):
        room = memory // max(prod(size) // size[axis] * shape[0] * itemsize, 1)
        size[axis] = max(min(room // unit[axis] * unit[axis], shape[axis + 1]), unit[axis])
    return tuple(size)


def output_address(text):
    """The address of an output. A name of no known format is an error here."""
    address = Address.parse(str(text))
    if address.kind == "h5" and address.local.suffix not in (".h5", ".hdf5", ".hdf") and not str(text).startswith("h5:"):
        raise ValueError(f"{text}: to which format? Name it *.zarr, *.h5, *.npy, *.tif, or precomputed:FOLDER.")
    return address
