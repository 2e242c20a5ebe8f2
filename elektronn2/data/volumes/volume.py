"""What all formats of volumes have in common: axes, reading of boxes, errors that say where."""
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

AXES = "fzxy"
NANOMETRES = {"nm": 1, "um": 1e3, "µm": 1e3, "mm": 1e6, "m": 1e9, "pm": 1e-3}  # in a unit of files


@dataclass(frozen=True)
class Stored:
    """What a format knows of an array: how to read it, and its description as far as the file has one.

    ``array``: has ``shape`` and ``dtype``, and gives an array for a tuple of slices. ``axes``: one letter per axis, f for
    channels. ``voxel_size``: nanometres by axis letter. ``chunks``: what is read at once, in the order of the array.
    ``ll_mask``: masks for lazy labels beside it. ``close``: to be called when it is no longer needed.
    """
    array: Any
    axes: str | None = None
    voxel_size: dict | None = None
    chunks: tuple | None = None
    ll_mask: np.ndarray | None = None
    close: Any = None


class Volume:
    """An array with axes (f, z, x, y), wherever it is stored; only the boxes that are asked for are read.

    ``stored``: a ``Stored``, which reads boxes of one array; ``name``: for messages; ``axes``: those of the stored array in
    its order, such as 'zyx' or 'xyzf'. f, z or both may be absent; axes of other letters must have length 1.

    Attributes: ``shape`` (f, z, x, y), ``dtype`` as stored, ``channels`` = shape[0], ``chunks`` (f, z, x, y) or None for
    what the storage reads at once, ``voxel_size`` (z, x, y) in nanometres or None, ``name``. It may be read in many
    threads at once, and is copied into another process by being ``opened`` there, by a function and its arguments.
    ``bytes_read`` and ``seconds_read`` add up what was read, and the time that it took.
    ValueError for axes that do not fit the array.

    >>> volume = Volume(Stored(np.arange(24).reshape(2, 3, 4)), "an array", "zyx")
    >>> volume.shape, volume.channels
    ((1, 2, 4, 3), 1)
    >>> volume[:, 1:2, 2, 0]  # x = 2, y = 0
    array([[14]])
    """
    ndim = 4

    def __init__(self, stored, name, axes, opened=None):
        shape = tuple(map(int, stored.array.shape))
        if not isinstance(axes, str) or len(axes) != len(shape) or len(set(axes)) != len(axes) or not set(axes) >= set("xy"):
            raise ValueError(f"{name} has shape {shape}, which cannot have the axes {axes!r}. Name each of its axes by one "
                             "letter: z, x, y, and f for channels, as in '?axes=zyx' after its name.")
        if more := {a: n for a, n in zip(axes, shape) if a not in AXES and n != 1}:
            raise ValueError(f"{name} has the axes {axes!r} and shape {shape}: only one of {more} can be taken. Store it "
                             "apart, with axes z, x, y and f for channels.")
        self.stored, self.name, self.axes, self.opened = stored, name, axes, opened
        sizes = dict(zip(axes, shape))
        self.shape, self.dtype = tuple(sizes.get(a, 1) for a in AXES), np.dtype(stored.array.dtype)
        chunks = dict(zip(axes, stored.chunks or ()))
        self.chunks = tuple(int(chunks.get(a, 1)) for a in AXES) if chunks else None
        sizes = stored.voxel_size or {}
        self.voxel_size = tuple(float(sizes[a]) for a in "zxy") if set("zxy") <= set(sizes) else None
        self.bytes_read, self.seconds_read = 0, 0.0
        self._order = [axes.index(a) for a in AXES if a in axes]
        self._order += [i for i, a in enumerate(axes) if a not in AXES]

    def __reduce__(self):
        return self.opened or (Volume, (self.stored, self.name, self.axes))

    @property
    def channels(self):
        return self.shape[0]

    @property
    def nbytes(self):
        """Bytes in memory once loaded."""
        return int(np.prod(self.shape, dtype=np.int64)) * loaded_dtype(self.dtype).itemsize

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        """A numpy array in the stored dtype. Indices are slices and integers, as of a numpy array with four axes."""
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in index:
            i = index.index(Ellipsis)
            index = index[:i] + (slice(None),) * (5 - len(index)) + index[i + 1:]
        if len(index) > 4:
            raise IndexError(f"{self.name} has 4 axes (f, z, x, y), but {len(index)} indices were given.")
        index += (slice(None),) * (4 - len(index))
        box, rest = [], []
        for i, n, axis in zip(index, self.shape, AXES):
            if isinstance(i, slice):
                low, high, step = i.indices(n)
                if step < 1:
                    raise IndexError(f"{self.name}: axis {axis} cannot be read backwards ({i}).")
                box.append((low, max(low, high)))
                rest.append(slice(None, None, step))
            else:
                i = range(n)[i]
                box.append((i, i + 1))
                rest.append(0)
        return self.read(box)[tuple(rest)]

    def read(self, box):
        """A box, (first, last + 1) of each axis (f, z, x, y), as array (f, z, x, y) in the stored dtype.

        IndexError if it reaches out of the volume, OSError naming file and box if it cannot be read.
        """
        if any(not 0 <= low <= high <= n for (low, high), n in zip(box, self.shape)):
            raise IndexError(f"{self.name}: there is no box {box_text(box)} in shape {self.shape}.")
        limits = dict(zip(AXES, box))
        stored = tuple(slice(*limits.get(a, (0, 1))) for a in self.axes)
        start = time.perf_counter()
        try:
            array = np.asarray(self.stored.array[stored])
        except MemoryError:
            raise
        except Exception as error:  # each library has its own
            raise OSError(f"{self.name}: the box {box_text(box)} cannot be read: {str(error).rstrip('.')}. Is the file "
                          "damaged, or the connection lost? Copy or make it again.") from error
        self.bytes_read += array.nbytes
        self.seconds_read += time.perf_counter() - start
        array = array.transpose(self._order)
        return array.reshape(tuple(high - low for low, high in box))

    def load(self):
        """All of it, contiguous, in native byte order, floats as float32; what it was read from is closed."""
        array = np.ascontiguousarray(self[:], loaded_dtype(self.dtype))
        self.close()
        return array

    def close(self):
        """Close the file, if there is one that can be closed."""
        if self.stored.close:
            self.stored.close()

    def __repr__(self):
        return f"<Volume {self.name}: {self.shape} {self.dtype}>"


def letters_of(names):
    """'fzyx' from ['c', 'z', 'y', 'x'] or ['channel', ...]; None if these are no single letters."""
    names = ["f" if n in ("c", "channel") else n for n in names]
    return "".join(names) if all(isinstance(n, str) and len(n) == 1 for n in names) else None


def loaded_dtype(dtype):
    """The dtype of a volume in memory."""
    return np.dtype({"f": np.float32, "b": np.uint8}.get(dtype.kind, dtype.newbyteorder("=")))


def box_text(box, axes=AXES):
    """A box, (first, last + 1) of each axis, for messages.

    >>> box_text([(0, 5), (3, 9), (0, 2)], "zxy")
    'z 0:5, x 3:9, y 0:2'
    """
    return ", ".join(f"{a} {low}:{high}" for a, (low, high) in zip(axes, box))
