"""Arrays in ``.npy`` files, mapped into memory."""
import numpy as np

from elektronn2.data.volumes.volume import Stored


def open_npy(path, key=None):
    """The array of a ``.npy`` file. OSError for another kind of file, KeyError if a data set in it is named."""
    if key:
        raise KeyError(f"{path} holds one array and no data set {key!r}: leave out ':{key}'.")
    try:
        return Stored(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise OSError(f"{path} cannot be read as a .npy file: {error}.") from None
