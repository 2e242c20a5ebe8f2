"""Data sets of KNOSSOS: cubes of 128**3 voxels in files of their own, kept in memory up to a limit."""
import itertools
import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np

from elektronn2.data.volumes.volume import Stored

EDGE = 128  # voxels of a cube
MIB = 2 ** 20


class KnossosArray:
    """A data set of KNOSSOS, sliced as an array (z, y, x) or (f, z, y, x) of float32 from 0 to 1.

    Parameters
    ----------
    path : folder with the folder ``*mag1``, in which ``knossos.conf`` tells name, boundary and scale
    max_ram : MiB of cubes (uint8) to be kept; if there are more, those farthest from the last box go first, where a distance
        along z counts twice
    n_preload : how many cubes around a box are read ahead in background threads; half as many along z. 0: none.
    fixed_mag : magnification: the folder ``*mag<fixed_mag>`` is read

    Attributes: ``shape`` (z, y, x), ``scale`` (z, y, x) in nanometres, ``n_f`` = 1. May be read in many threads at once.

    Raises FileNotFoundError if there is no such data set, and ValueError for a damaged ``knossos.conf``; on reading,
    ValueError for integers, steps, boxes that reach out of the data or do not fit in ``max_ram``, and missing cubes.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / 'em_mag1'
    >>> cube = folder / 'x0000/y0000/z0000/em_mag1_x0000_y0000_z0000.raw'
    >>> cube.parent.mkdir(parents=True)
    >>> _ = cube.write_bytes(bytes(range(128)) * 128 ** 2)
    >>> _ = (folder / 'knossos.conf').write_text('experiment name "em_mag1"; boundary x 100; boundary y 90; '
    ...     'boundary z 80; scale x 9.0; scale y 9.0; scale z 20.0;')
    >>> array = KnossosArray(folder.parent)
    >>> array.shape, array.scale
    ((80, 90, 100), (20.0, 9.0, 9.0))
    >>> (array[0:1, 0:1, 49:52] * 255).round()
    array([[[49., 50., 51.]]], dtype=float32)
    """
    n_f = 1

    def __init__(self, path, max_ram=1000, n_preload=2, fixed_mag=1):
        self.path, self.n_preload, self.mag = Path(path).expanduser(), int(n_preload), int(fixed_mag)
        conf = _only(self.path, "*mag1/knossos.conf")
        self.folder = conf.parent if self.mag == 1 else _only(self.path, f"*mag{self.mag}")
        text = conf.read_text(errors="replace")
        self.name = re.sub(r"_mag\d+$", "", _setting(conf, text, "experiment name", '"([^"]*)"'))
        boundary = [int(_setting(conf, text, f"boundary {a}", r"(\d+)")) for a in "zyx"]
        self.shape = tuple(-(-n // self.mag) for n in boundary)
        self.scale = tuple(float(_setting(conf, text, f"scale {a}", r"(\d+(?:\.\d+)?)(?![\d.])")) * self.mag for a in "zyx")
        self.capacity = int(max_ram * MIB // EDGE ** 3)
        self._cubes, self._lock, self._position, self._ahead = {}, threading.Lock(), np.zeros(3), []
        self._pool = ThreadPoolExecutor(2, "KnossosArray")

    def __getitem__(self, index):
        """Float32 (z, y, x) for three slices, (1, z, y, x) for four, of which the first must be ``:``."""
        box = _slices(index, self.shape)
        return self.bytes(box)[(None,) * (len(index) == 4)] / np.float32(255)

    def cut_slice(self, shape, offset, out=None):
        """The box of ``shape`` from ``offset`` on, both (z, y, x), float32; written to ``out`` if that is given."""
        box = _slices(tuple(slice(o, o + n) for o, n in zip(offset, shape)), self.shape)
        return np.divide(self.bytes(box), np.float32(255), out=out)

    def bytes(self, box):
        """A box, (first, last + 1) of z, y, x, as stored: uint8."""
        needed = self._covering(box)
        if len(needed) > self.capacity:
            raise ValueError(f"{self.path}: the box {box} (z, y, x) touches {len(needed)} cubes, but max_ram holds "
                             f"{self.capacity} ({EDGE ** 3 // MIB} MiB each). Raise max_ram, or read smaller boxes.")
        with self._lock:
            self._position = np.array([(a + b) / (2 * EDGE) - 0.5 for a, b in box])
        if self.n_preload:
            self.preload([(a + b) // 2 for a, b in box])
        out = np.empty([b - a for a, b in box], np.uint8)
        for cube in needed:
            data, first = self._load(cube, needed).result(), [c * EDGE for c in cube]
            common = [(max(a, f), min(b, f + EDGE)) for (a, b), f in zip(box, first)]
            out[tuple(slice(low - a, high - a) for (low, high), (a, _) in zip(common, box))] = (
                data[tuple(slice(low - f, high - f) for (low, high), f in zip(common, first))])
        return out

    def preload(self, position, start_end=None, sync=False):
        """Begin to read the cubes around a voxel (z, y, x) in the background, the nearest first; earlier plans are dropped.

        ``start_end``: a box (first voxel, last voxel + 1), both (z, y, x), to be read instead. ``sync``: wait for them.
        """
        around = np.array([max(self.n_preload // 2, 1), self.n_preload, self.n_preload]) * EDGE * bool(self.n_preload)
        low, high = start_end or (np.subtract(position, around), np.add(position, around + 1))
        box = [(int(np.clip(a, 0, n)), int(np.clip(b, 0, n))) for a, b, n in zip(low, high, self.shape)]
        centre = np.asarray(position) / EDGE - 0.5
        wanted = sorted(self._covering(box), key=lambda cube: _distance(cube, centre))[:self.capacity]
        with self._lock:
            for task in self._ahead:
                task.cancel()
            self._ahead = [self._pool.submit(self._load, c, wanted) for c in wanted if c not in self._cubes]
            tasks = list(self._ahead)
        if sync:
            wait(tasks)

    def close(self):
        """End reading ahead and forget all cubes."""
        self._pool.shutdown(cancel_futures=True)
        self._cubes.clear()

    def _covering(self, box):
        """The cubes that a box touches."""
        if any(a >= b for a, b in box):
            return []
        return list(itertools.product(*(range(a // EDGE, (b - 1) // EDGE + 1) for a, b in box)))

    def _load(self, cube, keep):
        """The future of a cube; whoever asks first reads it. To make room, cubes beside ``keep`` are forgotten."""
        with self._lock:
            future = self._cubes.get(cube)
            if future is not None:
                return future
            future = self._cubes[cube] = Future()
            surplus = len(self._cubes) - self.capacity
            if surplus > 0:
                others = [c for c, f in self._cubes.items() if f.done() and c not in keep]
                others.sort(key=lambda c: _distance(c, self._position), reverse=True)
                for c in others[:surplus]:
                    del self._cubes[c]
        try:
            future.set_result(self._read(cube))
        except BaseException as error:
            with self._lock:
                self._cubes.pop(cube, None)
            future.set_exception(error)
        return future

    def _read(self, cube):
        z, y, x = cube
        name = f"{self.name}_mag{self.mag}_x{x:04d}_y{y:04d}_z{z:04d}.raw"
        file = self.folder / f"x{x:04d}" / f"y{y:04d}" / f"z{z:04d}" / name
        try:
            data = np.fromfile(file, np.uint8)
        except FileNotFoundError:
            raise ValueError(f"{self.path} lacks a cube: there is no file {file}. Copy it, or correct the boundary in "
                             "knossos.conf.") from None
        if data.size != EDGE ** 3:
            raise ValueError(f"{file} has {data.size:,} bytes, but cubes have {EDGE ** 3:,}. Copy it again.")
        return data.reshape(EDGE, EDGE, EDGE)

    def __repr__(self):
        return f"<KnossosArray {self.path}, mag {self.mag}: {self.shape} (z, y, x)>"


class KnossosArrayMulti:
    """Data sets of KNOSSOS of equal size as channels of one array (f, z, y, x).

    ``path_prefix``: folder that holds them; ``feature_paths``: list of their folders; ``max_ram``: MiB for all together;
    others as of :class:`KnossosArray`. Boxes always have the axis f: of three slices, all channels are read.
    """

    def __init__(self, path_prefix, feature_paths, max_ram=3000, n_preload=2, fixed_mag=1):
        if not feature_paths:
            raise ValueError("KnossosArrayMulti needs at least one data set in feature_paths.")
        folder, share = Path(path_prefix).expanduser(), max_ram / len(feature_paths)
        self.arrays = [KnossosArray(folder / path, share, n_preload, fixed_mag) for path in feature_paths]
        self.shape, self.scale, self.n_f = self.arrays[0].shape, self.arrays[0].scale, len(self.arrays)
        for a in self.arrays[1:]:
            if a.shape != self.shape:
                raise ValueError(f"{a.path} has shape {a.shape}, but {self.arrays[0].path} has {self.shape}: channels must "
                                 "be equally large.")

    def __getitem__(self, index):
        box = index[-3:] if isinstance(index, tuple) else index
        _slices(box, self.shape)
        channels = self.arrays
        if len(index) == 4:
            if not isinstance(index[0], slice):
                raise ValueError(f"Boxes of KNOSSOS data are slices, got {index[0]!r} for the channels.")
            channels = channels[index[0]]
        return np.stack([a[box] for a in channels])

    def cut_slice(self, shape, offset, out=None):
        """The box of ``shape`` from ``offset`` on, both (z, y, x), of all channels; written to ``out`` if that is given."""
        out = np.empty((self.n_f, *shape), np.float32) if out is None else out
        for array, channel in zip(self.arrays, out):
            array.cut_slice(shape, offset, channel)
        return out

    def preload(self, position, start_end=None, sync=False):
        """As :meth:`KnossosArray.preload`, for all channels."""
        for array in self.arrays:
            array.preload(position, start_end)
        if sync:
            wait([task for array in self.arrays for task in array._ahead])

    def close(self):
        """End reading ahead and forget all cubes."""
        for array in self.arrays:
            array.close()


class _Bytes:
    """A KnossosArray as it is stored."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, np.dtype(np.uint8)

    def __getitem__(self, box):
        return self.array.bytes([s.indices(n)[:2] for s, n in zip(box, self.shape)])


def open_stored(path, key=None):
    """A data set by its folder or knossos.conf; ``key``: magnification. Nothing is read ahead, as patches are random."""
    if key and not key.isdigit():
        raise KeyError(f"knossos:{path}: {key!r} is no magnification, such as 1.")
    path = Path(path).parents[1] if path.endswith(".conf") else path
    array = KnossosArray(path, n_preload=0, fixed_mag=int(key or 1))
    return Stored(_Bytes(array), "zyx", dict(zip("zyx", array.scale)), (EDGE,) * 3, close=array.close)


def _slices(index, shape):
    """[(first, last + 1)] of z, y, x from three slices, or four with ``:`` in front."""
    if not isinstance(index, tuple) or len(index) not in (3, 4) or not all(isinstance(s, slice) for s in index):
        raise ValueError(f"A box of KNOSSOS data is three slices, as in array[0:10, 5:20, :], got {index!r}.")
    if len(index) == 4 and index[0] not in (slice(None), slice(0, 1)):
        raise ValueError(f"There is one channel, so the first of four slices must be ':', got {index[0]}.")
    box = []
    for s, n, axis in zip(index[-3:], shape, "zyx"):
        first, last = s.start or 0, n if s.stop is None else s.stop
        if s.step not in (None, 1):
            raise ValueError(f"Axis {axis}: KNOSSOS data are read without steps, got {s}.")
        if not 0 <= first <= last <= n:
            raise ValueError(f"Axis {axis}: {first}:{last} is out of bounds; the data set has voxels 0 to {n - 1}.")
        box.append((first, last))
    return box


def _distance(cube, position):
    return float(np.linalg.norm((np.array(cube) - position) * (2, 1, 1)))


def _only(folder, pattern):
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"There is no KNOSSOS data set in {folder}: {folder / pattern} is missing.")
    if len(found) > 1:
        raise ValueError(f"{folder} has several KNOSSOS data sets: {[p.name for p in found]}. Keep them in folders apart.")
    return found[0]


def _setting(conf, text, name, pattern):
    found = re.search(rf"{name}\s+{pattern}", text)
    if not found:
        raise ValueError(f"{conf} does not tell {name!r}, or not in the form of a KNOSSOS data set.")
    return found[1]
