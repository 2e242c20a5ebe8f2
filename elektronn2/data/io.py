"""Volumes in h5 files, read as a whole or in part, with errors that name the file."""
from pathlib import Path

import h5py
import numpy as np

from elektronn2.data.transformations import xyz2zxy
from elektronn2.utils.basic import h5open


class Volume:
    """A data set of an h5 file with axes (f, z, x, y), read where it is indexed with four slices.

    ``zxy``: False if the axes of the file are ([f,] x, y, z). KeyError for an unknown data set, OSError for a broken file,
    and ValueError if it has not 2 to 4 axes.
    """

    def __init__(self, path, key, zxy=True):
        self.path, self.dataset = path, open_dataset(path, key)
        n, shape = self.dataset.ndim, self.dataset.shape
        if n not in (2, 3, 4):
            raise ValueError(f"{path}: {key!r} has shape {shape}, but volumes have axes (z, x, y) or (f, z, x, y).")
        self.transposed = not zxy and n > 2
        shape = (*shape[:-3], shape[-1], *shape[-3:-1]) if self.transposed else shape
        self.shape, self.dtype = (1,) * (4 - n) + shape, self.dataset.dtype

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, box):
        stored = box[4 - self.dataset.ndim:]
        if self.transposed:
            stored = (*stored[:-3], *stored[-2:], stored[-3])
        try:
            array = self.dataset[stored]
        except OSError as error:
            raise OSError(f"{self.path} cannot be read: {error}. Copy or make the file again.") from error
        array = xyz2zxy(array) if self.transposed else array
        return array[(None,) * (4 - array.ndim)]

    def load(self):
        """All of it, contiguous, in native byte order, floats as float32; the file is closed."""
        dtype = {"f": np.float32, "b": np.uint8}.get(self.dtype.kind, self.dtype.newbyteorder("="))
        array = np.ascontiguousarray(self[(slice(None),) * 4], dtype)
        self.dataset.file.close()
        return array


def open_dataset(path, key):
    """A data set, open for reading. OSError naming a broken file, KeyError listing all data sets, also those in groups."""
    file = h5open(path)
    found = file.get(key)
    if isinstance(found, h5py.Dataset):
        return found
    available = []
    file.visititems(lambda name, item: available.append(name) if isinstance(item, h5py.Dataset) else None)
    group = " (it is a group)" if isinstance(found, h5py.Group) else ""
    file.close()
    raise KeyError(f"{path} has no data set {key!r}{group}; available: {available}.")


def read_ll_mask(where, labels):
    """Masks for lazy labels from beside a :class:`Volume`, int16 (2, n): which classes are labelled, which surely absent."""
    file = labels.dataset.file
    if "ll_mask" not in file:
        return np.repeat(np.array([[1], [0]], np.int16), len(labels), 1)
    mask = file["ll_mask"][()]
    if mask.ndim != 2 or len(mask) != 2:
        raise ValueError(f"{where}: ll_mask in {labels.path} must have shape (2, n_classes), got {mask.shape}.")
    return mask.astype(np.int16)


def file_pairs(name, folder, files):
    """[(path, name of the data set)] from a folder and [(file name, name of the data set)].

    ``name``: of the argument 'd_files' or 'l_files'. ValueError or TypeError naming it, or that of the folder.
    """
    try:
        folder = Path(folder).expanduser()
    except TypeError:
        raise TypeError(f"{name[0]}_path must be the path of a folder, got {folder!r}.") from None
    try:
        pairs = [(folder / file, key) for file, key in files]
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a list of (file name, name of the data set), got {files!r}.") from None
    for path, key in pairs:
        if not isinstance(key, str):
            raise TypeError(f"{name}: the name of the data set in {path.name} must be a string, got {key!r}.")
    return pairs


def check_files(paths):
    """Raise FileNotFoundError, listing all that are missing and how to get them."""
    absent = [str(path) for path in paths if not path.is_file()]
    if not absent:
        return
    raise FileNotFoundError("These data files are missing:\n  " + "\n  ".join(absent) + "\n" + how_to_get(absent))


def how_to_get(absent):
    """Where volumes come from, for who lacks those at the paths ``absent``."""
    hint = "Correct the path, or make volumes: python -m elektronn2.data.synthetic PATH"
    if any("neuro_data_zxy" in str(path) for path in absent):
        hint = ("To get the neuro_data_zxy volumes: python -m elektronn2.data.download neuro_data_zxy, or unpack "
                "http://elektronn.org/downloads/neuro_data_zxy.zip into ~/neuro_data_zxy.\n" + hint)
    return hint
