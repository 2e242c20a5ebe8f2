"""Training samples: patches at random positions of image and label volumes."""
import logging
from pathlib import Path

import h5py
import numpy as np

from elektronn2.data.non_geometric_augmentation import grey_augment
from elektronn2.data.sampling import generator
from elektronn2.utils.basic import as_float

logger = logging.getLogger("elektronn2log")


class BatchCreatorImage:
    """Random patches, with their targets, from pairs of image and label cubes in h5 files.

    ``input_node``, ``target_node``: anything with ``shape`` (spatial_shape, strides, offsets, ndim) and
    ``output.dtype``: the nodes of a model. ``d_path``, ``l_path``: folders; ``d_files``, ``l_files``: lists of (file name,
    data set name), images (z, x, y) or (f, z, x, y) and labels with the same axes, centred in the image. ``valid_cubes``:
    indices of pairs kept for validation. ``cube_prios``: weights of the training cubes (default: their number of labels).
    ``seed``: of all draws; sample k of a seed is always the same.

    Integer images are divided by the maximum of their type. Raises FileNotFoundError listing what is missing, and
    ValueError naming cube and axis where labels are not centred or a patch does not fit.
    """

    def __init__(self, input_node, target_node, d_path=None, l_path=None, d_files=None, l_files=None, cube_prios=None,
                 valid_cubes=None, seed=0):
        missing = [k for k, v in dict(d_path=d_path, l_path=l_path, d_files=d_files, l_files=l_files).items() if not v]
        if missing:
            raise ValueError(f"BatchCreatorImage needs {', '.join(missing)}.")
        if len(d_files) != len(l_files):
            raise ValueError(f"{len(d_files)} image files but {len(l_files)} label files: they must form pairs.")
        source, target = input_node.shape, target_node.shape
        if source.ndim != 3 or target.ndim != 3:
            raise ValueError(f"Input and target need three spatial axes, got {source} and {target}.")
        self.patch_size = np.array(source.spatial_shape)
        self.strides = np.array(target.strides, int)
        self.offsets = np.array(target.offsets)
        self.target_shape = np.array(target.spatial_shape)
        self.target_ps = self.strides * (self.target_shape - 1) + 1
        self.t_dtype = np.dtype(target_node.output.dtype)
        self.seed, self.index = seed, 0
        self._read(_paths(d_path, d_files), _paths(l_path, l_files), set(valid_cubes or ()))
        prios = [lab[0].size for _, lab in self.train] if cube_prios is None else list(cube_prios)
        if len(prios) != len(self.train):
            raise ValueError(f"cube_prios needs one value per training cube ({len(self.train)}), got {len(prios)}.")
        self.cube_prios = np.array(prios, float) / np.sum(prios)

    def _read(self, d_files, l_files, valid):
        absent = [str(p) for p, _ in d_files + l_files if not p.is_file()]
        if absent:
            raise FileNotFoundError("These data files are missing:\n  " + "\n  ".join(absent)
                                    + "\nCheck d_path and l_path, or make data: python -m elektronn2.data.synthetic PATH")
        if valid - set(range(len(d_files))):
            raise ValueError(f"valid_cubes {sorted(valid)} are not all among the {len(d_files)} cubes.")
        self.train, self.valid = [], []
        for i, (d, lab) in enumerate(zip(d_files, l_files)):
            image, labels = _load(*d), _load(*lab)
            self._check(i, image, labels)
            (self.valid if i in valid else self.train).append((image, labels.astype(self.t_dtype)))
        if not self.train:
            raise ValueError("All cubes are kept for validation: none is left to train on.")
        logger.info("Data: %d training and %d validation cubes, images %s, labels %s", len(self.train), len(self.valid),
                    [im.shape for im, _ in self.train + self.valid], [lab.shape for _, lab in self.train + self.valid])

    def _check(self, i, image, labels):
        for k, axis in enumerate("zxy"):
            surplus = image.shape[k + 1] - labels.shape[k + 1]
            if surplus % 2 or surplus < 0:
                raise ValueError(f"Cube {i}, axis {axis}: labels ({labels.shape[k + 1]}) must be centred in the image "
                                 f"({image.shape[k + 1]}), so the difference must be even and not negative.")
            low, high = self._range(image.shape[k + 1], labels.shape[k + 1], k)
            if high < low:
                raise ValueError(f"Cube {i}, axis {axis}: no patch of {self.patch_size[k]} voxels whose target of "
                                 f"{self.target_ps[k]} lies in the labels: image {image.shape[k + 1]}, labels "
                                 f"{labels.shape[k + 1]}. Use a smaller patch or larger cubes.")

    def _range(self, n_image, n_label, k):
        """First and last start of a patch on axis k: inside the image, its target inside the labels."""
        before = (n_image - n_label) // 2
        after = int(self.patch_size[k] - self.target_ps[k])  # a flipped target may start at the other border
        low_offset, high_offset = sorted((int(self.offsets[k]), after - int(self.offsets[k])))
        low = max(0, before - low_offset)
        high = min(n_image - self.patch_size[k], before + n_label - self.target_ps[k] - high_offset)
        return low, high

    def sample(self, index, source="train", grey_augment_channels=None):
        """Sample number ``index``: image (f, *patch) float32 and target (f, *target), a pure function of seed and index.

        Training samples are flipped along each axis and x, y exchanged (where the patch is square) with probability 1/2.
        """
        cubes = self._cubes(source)
        rng = generator(self.seed, 2 * index + (source == "valid"))
        cube = rng.choice(len(cubes), p=self.cube_prios) if source == "train" else rng.integers(len(cubes))
        image, labels = cubes[cube]
        start = np.array([rng.integers(a, b + 1) for a, b in (
            self._range(image.shape[k + 1], labels.shape[k + 1], k) for k in range(3))])
        flips, swap = rng.random(3) < 0.5, rng.random() < 0.5
        if source == "valid":
            flips, swap = np.zeros(3, bool), False
        surplus = (np.array(image.shape[1:]) - labels.shape[1:]) // 2
        offsets = np.where(flips, self.patch_size - self.target_ps - self.offsets, self.offsets)
        patch = as_float(image[_box(start, self.patch_size)]).astype(np.float32, copy=False)
        target = labels[_box(start + offsets - surplus, self.target_ps)]
        step = (slice(None), *(slice(None, None, -1 if f else None) for f in flips))
        patch, target = patch[step], target[step]
        if swap and self.patch_size[1] == self.patch_size[2] and self.target_ps[1] == self.target_ps[2]:
            patch, target = patch.swapaxes(2, 3), target.swapaxes(2, 3)
        target = target[(slice(None), *(slice(None, None, s) for s in self.strides))]
        if source == "train" and grey_augment_channels:
            patch = grey_augment(patch, grey_augment_channels, rng)
        return np.ascontiguousarray(patch), np.ascontiguousarray(target)

    def _cubes(self, source):
        if source not in ("train", "valid"):
            raise ValueError(f"source must be 'train' or 'valid', got {source!r}.")
        cubes = self.train if source == "train" else self.valid
        if not cubes:
            raise ValueError("There are no validation cubes: name some in valid_cubes.")
        return cubes

    def getbatch(self, batch_size=1, source="train", grey_augment_channels=None):
        """The next ``batch_size`` samples: images (b, f, *patch) float32, targets (b, f, *target)."""
        samples = [self.sample(self.index + i, source, grey_augment_channels) for i in range(batch_size)]
        self.index += batch_size
        images, targets = zip(*samples)
        return np.stack(images), np.stack(targets)


def _paths(folder, files):
    return [(Path(folder).expanduser() / name, key) for name, key in files]


def _load(path, key):
    with h5py.File(path, "r") as f:
        if key not in f:
            raise KeyError(f"{path} has no data set {key!r}; available: {sorted(f)}.")
        array = f[key][()]
    return array if array.ndim == 4 else array[None]


def _box(start, size):
    return (slice(None), *(slice(int(a), int(a + n)) for a, n in zip(start, size)))
