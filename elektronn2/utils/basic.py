"""Small helpers: printing of numbers, a user's Python files, atomic files, h5 in and out."""
import contextlib
import importlib.util
import os
import tempfile
from pathlib import Path

import h5py
import numpy as np

from elektronn2.utils.validate import suggest_file


def pretty_string_ops(n):
    """A number of operations with one decimal and the largest unit that fits.

    >>> pretty_string_ops(25.2e9)
    '25.2 Giga Ops'
    """
    for factor, unit in ((1e12, "Tera"), (1e9, "Giga"), (1e6, "Mega")):
        if n >= factor:
            return f"{n / factor:.1f} {unit} Ops"
    return f"{n / 1e3:.1f} kilo Ops"


def pretty_string_time(t):
    """Seconds as ``t=1.2h`` (above 4000 s), ``t=7m`` (above 300 s) or ``t=42s``.

    >>> pretty_string_time(4320)
    't=1.2h'
    """
    if t > 4000:
        return f"t={t / 3600:.1f}h"
    return f"t={t / 60:.0f}m" if t > 300 else f"t={t:.0f}s"


def import_file(path):
    """The module that a Python file of the user is, executed now. Raises what executing it raises."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def out_of_memory(error):
    """Whether an error says that the memory of the machine, or of its GPU, ran out."""
    return isinstance(error, MemoryError) or any(s in str(error) for s in ("out of memory", "can't allocate memory"))


@contextlib.contextmanager
def atomic_write(path):
    """Context manager: a temporary path in the folder of ``path``, renamed to it on success.

    If the body fails (a full disk, say), the temporary file is removed and an existing file
    at ``path`` stays as it was.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Give the name of a file in it.")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise type(error)(error.errno, f"{path} cannot be written ({error.strerror}). Choose another folder") from None
    os.close(handle)
    try:
        os.chmod(temporary, 0o666 & ~_umask())
        yield temporary
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def h5open(file):
    """An h5 file, open for reading. FileNotFoundError or OSError, naming the file, if that is impossible."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.{suggest_file(path)}")
    try:
        return h5py.File(path, "r")
    except PermissionError:
        raise PermissionError(f"{path} may not be read by you: ask its owner, or copy it.") from None
    except OSError as error:
        if "unable to lock file" in str(error):
            raise OSError(f"{path} is open for writing in another program, such as a notebook. Close it there.") from None
        raise OSError(f"{path} ({path.stat().st_size:,} bytes) cannot be read as an h5 file: it is truncated, damaged or of "
                      f"another kind ({error}). Copy or make it again.") from None


def h5load(file, keys=None):
    """Array of one data set, or list of arrays, from an h5 file.

    ``keys``: a name, a list of names, or None for all (a bare array if there is only one).
    Raises KeyError listing what is available, OSError for a file that is no h5 file.

    >>> import tempfile, os
    >>> name = os.path.join(tempfile.mkdtemp(), 'a.h5')
    >>> h5save(np.arange(3), name)
    >>> h5load(name)
    array([0, 1, 2])
    """
    path = Path(file).expanduser()
    with h5open(path) as f:
        wanted = [keys] if isinstance(keys, str) else list(f) if keys is None else list(keys)
        missing = [k for k in wanted if k not in f]
        if missing:
            raise KeyError(f"{path} has no data set {missing}; available: {sorted(f)}.")
        arrays = [f[k][()] for k in wanted]
    return arrays[0] if len(arrays) == 1 and not isinstance(keys, (list, tuple)) else arrays


def h5save(data, file, keys=None, compress=True):
    """Write one array (key ``data``) or a list of arrays (keys ``0``, ``1``, ...), atomically."""
    single = not isinstance(data, (list, tuple))
    data = [data] if single else data
    if keys is None:
        keys = ["data"] if single else [str(i) for i in range(len(data))]
    keys = [keys] if isinstance(keys, str) else keys
    if len(keys) != len(data):
        raise ValueError(f"h5save: {len(data)} arrays but {len(keys)} keys.")
    with atomic_write(file) as temporary, h5py.File(temporary, "w") as f:
        for key, array in zip(keys, data):
            array = np.asarray(array)
            f.create_dataset(key, data=array,
                             compression="lzf" if compress and array.ndim else None)


def as_float(image):
    """An image in 0..1: uint8 divided by 255, uint16 by 65535, as float32; floating point as it is.

    Raises TypeError for other integers, whose scale cannot be known.

    >>> as_float(np.array([0, 255], np.uint8))
    array([0., 1.], dtype=float32)
    """
    if image.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    if image.dtype.kind == "f":
        return image
    raise TypeError(f"An image of dtype {image.dtype} has no known scale: pass uint8, uint16, or floats scaled as in "
                    "training, for example raw.astype('float32') / raw.max().")
