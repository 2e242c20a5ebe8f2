"""h5 files (h5py)."""
import h5py
import numpy as np

from elektronn2.data.volumes.volume import Stored
from elektronn2.utils.basic import h5open


def open_stored(path, key=None):
    """A data set, open for reading; the only one if ``key`` is None. KeyError listing all data sets, also in groups.

    Its attributes ``axes`` and ``element_size_um``, if there are any, tell axes and voxel size.
    """
    file = h5open(path)
    try:
        dataset = find(file, path, key)
        axes, size = dataset.attrs.get("axes"), dataset.attrs.get("element_size_um")
        mask = file["ll_mask"][()] if "ll_mask" in file else None
    except RuntimeError as error:
        file.close()
        raise OSError(f"{path} is damaged: {error}. Copy or make it again.") from error
    except BaseException:
        file.close()
        raise
    axes = axes if isinstance(axes, str) and len(axes) == dataset.ndim else None
    space = [a for a in axes or "zxy" if a in "zxy"]
    voxel_size = {a: 1000 * s for a, s in zip(space, size)} if size is not None and len(size) == len(space) == 3 else None
    return Stored(dataset, axes, voxel_size, dataset.chunks, mask, file.close)


def find(file, path, key):
    found = file.get(key) if key else None
    if isinstance(found, h5py.Dataset):
        return found
    available = datasets(file)
    if key is None and len(available) == 1:
        return file[available[0]]
    if key is None:
        raise ValueError(f"{path} has the data sets {available}: name one, as in {path}:{(available or ['raw'])[0]}.")
    group = " (it is a group)" if isinstance(found, h5py.Group) else ""
    raise KeyError(f"{path} has no data set {key!r}{group}; available: {available}.")


def datasets(file):
    """Names of all data sets of an open file, also within groups."""
    names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def ll_masks(where, labels):
    """Masks for lazy labels from beside a Volume, int16 (2, n): which classes are labelled, which surely absent; or None."""
    mask = labels.stored.ll_mask
    if mask is None:
        return None
    if mask.ndim != 2 or len(mask) != 2 or mask.dtype.kind not in "biuf":
        raise ValueError(f"{where}: ll_mask beside {labels.name} must have shape (2, n_classes) and numbers, got "
                         f"{mask.dtype} {mask.shape}.")
    return mask.astype(np.int16)
