"""Training examples that are held in memory: a base class, and the handwritten digits of MNIST."""
import functools
import gzip
import math
import operator
import secrets
import zipfile
import zlib
from pathlib import Path

import numpy as np

from elektronn2.data.sampling import generator
from elektronn2.data.synthetic import default_data_path
from elektronn2.utils.validate import as_int

__all__ = ["Data", "MNISTData", "default_mnist_path", "read_idx"]

MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CURE = ("Fetch the digits with 'python -m elektronn2.data.download mnist', or put the four files train-images-idx3-ubyte, "
        "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (also with .gz) into one folder.")


class Data:
    """Examples in three splits, served in batches: training examples in a new order every epoch.

    A subclass sets ``train_d``, ``train_l`` (examples (n, ...) and labels (n, ...)) and, if there are any, ``valid_d``,
    ``valid_l``, ``test_d``, ``test_l``. ``n_lab``: number of classes (None: as many as the training labels have).
    ``seed``: of order and augmentation (None: a random one, which the attribute ``seed`` tells).

    >>> data = Data(seed=1)
    >>> data.train_d, data.train_l = np.arange(3.0), np.array([0, 1, 1])
    >>> data.n_lab
    2
    >>> sorted(data.getbatch(3)[0].tolist())
    [0.0, 1.0, 2.0]
    """

    train_d = train_l = valid_d = valid_l = test_d = test_l = None

    def __init__(self, n_lab=None, seed=None):
        self.seed = secrets.randbits(63) if seed is None else operator.index(seed)
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be an integer from 0 to 2**63 - 1, got {seed}.")
        self._n_lab = n_lab
        self._served = 0

    @property
    def n_lab(self):
        """Number of classes."""
        return len(np.unique(self._split("train")[1])) if self._n_lab is None else self._n_lab

    def getbatch(self, batch_size=1, source="train"):
        """The next ``batch_size`` training examples and their labels; of the other splits always the first ones.

        ``source``: 'train', 'valid' or 'test'. No training example comes twice in an epoch, whatever the sizes of the
        batches. Raises ValueError for another source, for a split without examples, or with less than are wanted.
        """
        first, batch_size = self._served, as_int(batch_size, "batch_size")
        if source == "train":
            self._served += batch_size
        return self._serve(first, batch_size, source)

    def batch(self, number, batch_size=1, source="train"):
        """Batch ``number`` of the stream of training examples, as :meth:`getbatch` gives it, from any thread.

        The same seed, number and size give the same batch. 'valid' and 'test' have no stream: it is always their first
        examples, so that what is measured on them can be compared.
        """
        batch_size = as_int(batch_size, "batch_size")
        return self._serve(as_int(number, "number", 0) * batch_size, batch_size, source)

    def augment(self, examples, u):
        """What is done to training examples (b, ...); ``u``: a random number in 0..1 for each. Here: nothing."""
        return examples

    def _serve(self, first, size, source):
        data, labels = self._split(source)
        n = len(data)
        if source != "train":
            if size > n:
                raise ValueError(f"batch_size is {size}, but there are only {n} {source!r} examples.")
            return data[:size].copy(), labels[:size].copy()
        wanted = np.arange(first, first + size)
        parts = [_epoch(self.seed, int(epoch), n) for epoch in range(wanted[0] // n, wanted[-1] // n + 1)]
        index, u = (np.concatenate(p)[wanted - wanted[0] // n * n] for p in zip(*parts))
        return self.augment(data[index], u), labels[index]

    def _split(self, source):
        if source not in ("train", "valid", "test"):
            raise ValueError(f"source must be 'train', 'valid' or 'test', got {source!r}.")
        data, labels = getattr(self, f"{source}_d"), getattr(self, f"{source}_l")
        if data is None or not len(data):
            raise ValueError(f"There are no {source!r} examples: {type(self).__name__} must set {source}_d and {source}_l.")
        if len(data) != len(labels):
            raise ValueError(f"There are {len(data)} {source!r} examples but {len(labels)} labels.")
        return data, labels

    def createCVSplit(self, data, label, n_folds=3, use_fold=2, shuffle=False, random_state=None):
        """Use one of ``n_folds`` parts of ``data`` (n, ...) and ``label`` (n, ...) for validation, the others for training.

        ``use_fold``: number of that part, from 0. Parts are consecutive, or drawn if ``shuffle``, with the seed
        ``random_state``. Returns what the attributes are set to: train_d, train_l, valid_d, valid_l. Raises ValueError for
        folds that cannot be made.

        >>> data = Data()
        >>> _ = data.createCVSplit(np.arange(5), np.zeros(5), n_folds=2, use_fold=1)
        >>> data.train_d, data.valid_d
        (array([0, 1, 2]), array([3, 4]))
        """
        data, label = np.asarray(data), np.asarray(label)
        if len(data) != len(label):
            raise ValueError(f"There are {len(data)} examples but {len(label)} labels.")
        if not 2 <= n_folds <= len(data):
            raise ValueError(f"n_folds must be from 2 to the number of examples ({len(data)}), got {n_folds}.")
        if not 0 <= use_fold < n_folds:
            raise ValueError(f"use_fold must be from 0 to {n_folds - 1} for {n_folds} folds, got {use_fold}.")
        order = np.random.default_rng(random_state).permutation(len(data)) if shuffle else np.arange(len(data))
        folds = np.array_split(order, n_folds)
        valid = np.sort(folds.pop(use_fold))
        train = np.sort(np.concatenate(folds))
        self.train_d, self.train_l = data[train], label[train]
        self.valid_d, self.valid_l = data[valid], label[valid]
        return self.train_d, self.train_l, self.valid_d, self.valid_l


@functools.lru_cache(maxsize=4)
def _epoch(seed, epoch, n):
    """The order of n examples in an epoch (n,), and a random number in 0..1 for each place (n,)."""
    rng = generator(seed, epoch)
    return rng.permutation(n), rng.random(n)


class MNISTData(Data):
    """Handwritten digits: 50,000 to train on, 10,000 for validation (the last of the training files), 10,000 to test.

    ``input_node``, ``target_node``: nodes of the model, against whose shapes the digits are checked. ``path``: a folder with
    the four idx files, also gzipped, or an npz file with the arrays x_train uint8 (n, 28, 28), y_train (n,), x_test,
    y_test; None: the folder where ``python -m elektronn2.data.download mnist`` puts them, :func:`default_mnist_path`.
    ``convert2image``: batches (b, 1, y, x), else flat (b, y * x). ``shift_augment``: images of 26 x 26 pixels, in training
    one of the four corners of 28 x 28 by chance, else the middle. ``center``: subtract the mean of the training images.
    ``warp_on``: digits are not warped, so only False. ``seed``: see :class:`Data`.

    Images are float32, 0..1 before centring; labels int16 (b, 1). Raises ValueError for nodes that do not fit, damaged
    files and pickles; FileNotFoundError, saying how to get the digits.

    >>> data = MNISTData(model.input_node, model.target_node, path='~/mnist')  # doctest: +SKIP
    >>> images, labels = data.getbatch(20)  # doctest: +SKIP

    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition.
    """

    def __init__(self, input_node, target_node, path=None, convert2image=True, warp_on=False, shift_augment=True,
                 center=True, seed=None):
        super().__init__(n_lab=10, seed=seed)
        if warp_on:
            raise ValueError("MNISTData does not warp digits: leave warp_on at False; shift_augment=True shifts them.")
        self.convert2image, self.shift_augment = convert2image, shift_augment
        _check_nodes(input_node, target_node, convert2image, shift_augment)
        x, y, test_x, self.test_l = _read(Path(path).expanduser() if path is not None else default_mnist_path())
        n_valid = len(x) // 6  # 10,000 of 60,000
        x, test_x = x / np.float32(255), test_x / np.float32(255)
        if center:
            # The first ELEKTRONN2 subtracted from each split its own mean, which is not known when single digits are to be
            # predicted. The means differ by less than 0.003, so that predictions stay comparable.
            mean = x[:-n_valid].mean(dtype=np.float64).astype(np.float32)
            x -= mean
            test_x -= mean
        self.train_d, self.train_l = x[:-n_valid, None], y[:-n_valid]
        self.valid_d, self.valid_l = x[-n_valid:, None], y[-n_valid:]
        self.test_d = test_x[:, None]
        if shift_augment:
            self.valid_d, self.test_d = (images[..., 1:-1, 1:-1] for images in (self.valid_d, self.test_d))

    def augment(self, examples, u):
        """One of the four corners, of 26 x 26 pixels, of each image (b, 1, 28, 28), if ``shift_augment``."""
        if not self.shift_augment:
            return examples
        starts = np.stack(np.divmod((4 * u).astype(int), 2), 1) * 2  # (b, 2): row and column, 0 or 2
        return np.stack([image[:, r:r + 26, c:c + 26] for image, (r, c) in zip(examples, starts)])

    def _serve(self, first, size, source):
        images, labels = super()._serve(first, size, source)
        return images if self.convert2image else images.reshape(len(images), -1), labels


def _check_nodes(input_node, target_node, convert2image, shift_augment):
    size = 26 if shift_augment else 28
    examples = (1, size, size) if convert2image else (size * size,)
    for node, wanted, what in ((input_node, examples, "images"), (target_node, (1,), "labels")):
        got = tuple(node.shape)[1:]
        if len(got) != len(wanted) or any(n not in (None, m) for n, m in zip(got, wanted)):
            cure = (" Images have 26 x 26 pixels with shift_augment=True, else 28 x 28; they are flat with "
                    "convert2image=False." if what == "images" else " Make it with Input_like(..., override_f=1).")
            raise ValueError(f"Node {node.name!r} has the shape {node.shape}, but {what} have the shape {(None, *wanted)}."
                             + cure)


def default_mnist_path():
    """``$XDG_CACHE_HOME/elektronn2/mnist`` (default ~/.cache)."""
    return default_data_path().with_name("mnist")


def _read(path):
    """Images uint8 (n, 28, 28) and labels int16 (n, 1) to train on, images and labels to test."""
    if ".pkl" in path.suffixes or ".pickle" in path.suffixes:
        raise ValueError(f"{path} is a pickle, which can run any code when it is read, so it is not read. {CURE}")
    if not path.exists():
        raise FileNotFoundError(f"There are no MNIST digits in {path}. {CURE} Then pass that folder as path.")
    if path.is_dir():
        arrays = [read_idx(file, 3 if "images" in file.name else 1) for file in _idx_files(path)]
    else:
        arrays = _read_npz(path)
    for i, name in enumerate(("training", "test")):
        x, y = arrays[2 * i:2 * i + 2]
        if x.dtype != np.uint8 or x.ndim != 3 or x.shape[1:] != (28, 28):
            raise ValueError(f"{path}: the {name} images must be uint8 (n, 28, 28), they are {x.dtype} {x.shape}. {CURE}")
        if y.dtype.kind not in "iu" or y.shape != (len(x),):
            raise ValueError(f"{path}: the {name} labels must be integers, one for each of the {len(x)} images; they are "
                             f"{y.dtype} {y.shape}. {CURE}")
        if len(x) < 6 or y.min() < 0 or y.max() > 9:
            raise ValueError(f"{path}: the {name} labels must be digits 0 to 9, of at least 6 images. {CURE}")
        arrays[2 * i + 1] = y.astype(np.int16)[:, None]
    return arrays


def _idx_files(folder):
    found = [next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None) for name in MNIST_FILES]
    if None in found:
        missing = [name for name, file in zip(MNIST_FILES, found) if file is None]
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)} (with or without .gz). {CURE}")
    return found


def _read_npz(path):
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as file:
            missing = [k for k in keys if k not in file]
            arrays = [file[k] for k in keys if k in file]
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as npz ({error}). {CURE}") from None
    if missing:
        raise ValueError(f"{path} has no array {', '.join(missing)}; needed are {', '.join(keys)}. {CURE}")
    return arrays


def read_idx(file, ndim):
    """Array of bytes (uint8) with ``ndim`` axes from an idx file, plain or gzipped.

    Raises ValueError for a file that is damaged, cut short, of another kind, or has another number of axes.

    Source: http://yann.lecun.com/exdb/mnist (format of the files): 2 zero bytes, 8 for unsigned bytes, number of axes, their
    lengths as big-endian 32-bit integers, then the values.

    >>> import os, tempfile
    >>> file = os.path.join(tempfile.mkdtemp(), 'labels-idx1-ubyte')
    >>> _ = Path(file).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    >>> read_idx(file, 1)
    array([7, 8, 9], dtype=uint8)
    """
    content = Path(file).read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{file} is damaged or cut short ({error}). Fetch it again.") from None
    start = 4 + 4 * ndim
    if len(content) < start or content[:4] != bytes([0, 0, 8, ndim]):
        raise ValueError(f"{file} is no idx file of bytes with {ndim} axes: it begins with {content[:4].hex() or 'nothing'} "
                         f"instead of 000008{ndim:02x}. Fetch it again, or check that it has the right name.")
    shape = tuple(np.frombuffer(content, ">u4", ndim, offset=4).tolist())
    if len(content) - start != math.prod(shape):
        raise ValueError(f"{file} should hold {math.prod(shape)} values {shape}, but it holds {len(content) - start}. "
                         "Fetch it again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
