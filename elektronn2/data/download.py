"""Fetch data sets: ``python -m elektronn2.data.download {neuro_data_zxy|mnist} [--path FOLDER] [--url URL]``.

==================  ===================================================================================================
neuro_data_zxy      three cubes of electron microscopy with barrier labels, and two to preview: 98 MiB, into
                    ``~/neuro_data_zxy``
mnist               handwritten digits, 11 MiB, into ``~/.cache/elektronn2/mnist``
==================  ===================================================================================================

A file gets its name only when it is complete and what it should be. Existing files are kept.
"""
import argparse
import contextlib
import hashlib
import http.client
import logging
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import h5py
import numpy as np
from tqdm import tqdm

from elektronn2.data.traindata import default_mnist_path
from elektronn2.utils.basic import atomic_write

logger = logging.getLogger("elektronn2log")

__all__ = ["fetch", "fetch_mnist", "fetch_neuro_data", "verify_neuro_data"]

NEURO_URL = "http://elektronn.org/downloads/neuro_data_zxy.zip"
NEURO_PATH = "~/neuro_data_zxy"
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


def fetch(url, path, md5=None, sha256=None, cure=""):
    """Download ``url`` (http, https, ftp or file) to the file ``path``: whole and with the right checksums, or not at all.

    ``md5``, ``sha256``: checksums in hexadecimal. ``cure``: advice, added to messages. Raises ConnectionError if the server
    cannot be reached, does not have the file, or breaks off; ValueError for another checksum or no URL.

    >>> fetch('https://example.org/a.zip', 'a.zip')  # doctest: +SKIP
    """
    sums = {name: (hashlib.new(name), wanted) for name, wanted in (("md5", md5), ("sha256", sha256)) if wanted}
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "elektronn2"})
    except ValueError:
        raise ValueError(f"{url!r} is no URL: it should begin with http://, https:// or file://.") from None
    with atomic_write(path) as temporary:
        try:
            _copy(request, temporary, [digest for digest, _ in sums.values()])
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # the server's answer
            raise ConnectionError(f"{url} could not be fetched: {error}. {cure}") from None
        for name, (digest, wanted) in sums.items():
            if digest.hexdigest() != wanted.lower():
                raise ValueError(f"{url} has the {name} {digest.hexdigest()}, expected {wanted}: it is damaged or another "
                                 f"file, and was not kept. {cure}")


def _copy(request, file, digests):
    """Write what the server sends to ``file``. ConnectionError if it is less than announced."""
    with urllib.request.urlopen(request, timeout=30) as answer, open(file, "wb") as f:
        size = int(answer.headers.get("Content-Length") or 0)
        with tqdm(desc=PurePosixPath(request.selector).name, total=size or None, unit="B", unit_scale=True) as bar:
            while block := answer.read(1 << 16):
                f.write(block)
                for digest in digests:
                    digest.update(block)
                bar.update(len(block))
        if size and f.tell() != size:
            raise ConnectionError(f"the connection ended after {f.tell()} of {size} bytes")


def fetch_mnist(path=None, url=MNIST_URL, overwrite=False, md5=MNIST_MD5):
    """Fetch the four gzipped idx files of MNIST into a folder. Returns its path.

    ``path``: None: the cache folder, where :class:`~elektronn2.data.MNISTData` looks. ``url``: of the folder that has the
    files. Files that are there already, with the right checksum ``md5`` ({name: hexadecimal}), are kept. Raises
    FileExistsError for another file of that name unless ``overwrite``; and what :func:`fetch` raises.

    >>> fetch_mnist('~/mnist')  # doctest: +SKIP
    """
    path = default_mnist_path() if path is None else Path(path).expanduser()
    wanted = {n: s for n, s in md5.items() if not _has_md5(path / n, s)}
    _refuse_existing(path, wanted, overwrite)
    cure = f"Name another place with --url, or put {', '.join(md5)} into {path} yourself."
    with _folder(path):
        for name, checksum in wanted.items():
            fetch(f"{url.rstrip('/')}/{name}", path / name, md5=checksum, cure=cure)
    logger.info("The MNIST digits are in %s", path)
    return path


def _has_md5(file, checksum):
    return file.is_file() and hashlib.md5(file.read_bytes()).hexdigest() == checksum


def _refuse_existing(path, names, overwrite):
    present = [n for n in names if (path / n).exists()]
    if present and not overwrite:
        raise FileExistsError(f"{path} already has {', '.join(present)}, which would be lost. Choose another path or pass "
                              "overwrite=True (shell: --overwrite).")


@contextlib.contextmanager
def _folder(path):
    """Make a folder to work in; if that fails and it is empty, remove it again."""
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made and not any(path.iterdir()):
            path.rmdir()
        raise


def fetch_neuro_data(path=NEURO_PATH, url=NEURO_URL, sha256=None, overwrite=False, **shapes):
    """Fetch the archive of neuro_data_zxy, check it, and unpack it into a folder. Returns its path.

    ``url``: of the zip archive; ``sha256``: its checksum, if known. ``shapes``: see :func:`verify_neuro_data`; nothing is
    unpacked that does not pass. Does nothing if the data are there already. Raises FileExistsError if other files would be
    lost, unless ``overwrite``; ValueError for an archive that is damaged, unsafe or holds other data; and what :func:`fetch`
    raises.

    >>> fetch_neuro_data(url='file:///media/stick/neuro_data_zxy.zip')  # doctest: +SKIP
    """
    path = Path(path).expanduser()
    names = _neuro_files(shapes.get("n_cubes", 3))
    if not overwrite and all((path / n).is_file() for n in names):
        verify_neuro_data(path, **shapes)
        logger.info("The data are already in %s", path)
        return path
    _refuse_existing(path, names, overwrite)
    cure = (f"Name another place with --url, or unpack the archive by hand, so that there is {path / names[0]}; or make "
            "data instead: python -m elektronn2.data.synthetic PATH")
    with _folder(path), tempfile.TemporaryDirectory(prefix=".partial-", dir=path) as folder:
        folder = Path(folder)
        fetch(url, folder / "archive.zip", sha256=sha256, cure=cure)
        _unpack(folder / "archive.zip", folder, names, f"The archive from {url}")
        verify_neuro_data(folder, **shapes)
        for name in names:
            os.replace(folder / name, path / name)
    logger.info("The data are in %s", path)
    return path


def _neuro_files(n_cubes):
    return [f"{kind}_{i}.h5" for i in range(n_cubes) for kind in ("raw", "barrier_int16")] + ["preview_cubes.h5"]


def _unpack(archive, folder, names, what):
    """Copy the files ``names``, wherever they lie in the zip archive, into ``folder``. ValueError, saying what is wrong."""
    try:
        with zipfile.ZipFile(archive) as z:
            for member in z.namelist():
                place = PurePosixPath(member.replace("\\", "/"))
                if place.is_absolute() or ".." in place.parts or ":" in member.split("/")[0]:
                    raise ValueError(f"{what} would write {member!r}, outside the folder: it is not to be trusted.")
            members = {n: [m for m in z.namelist() if PurePosixPath(m).name == n] for n in names}
            wrong = [n for n, found in members.items() if len(found) != 1]
            if wrong:
                raise ValueError(f"{what} must have the files {', '.join(names)}, each once; missing or several: "
                                 f"{', '.join(wrong)}.")
            damaged = z.testzip()
            if damaged:
                raise ValueError(f"{what} is damaged: the checksum of {damaged} is wrong. Fetch it again.")
            for name, (member,) in members.items():
                with z.open(member) as source, open(folder / name, "wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:  # RuntimeError: encrypted, unknown compression
        raise ValueError(f"{what} is no whole zip archive ({error}). Fetch it again, or from elsewhere.") from None


def verify_neuro_data(folder, raw_shape=(250, 350, 350), label_shape=(150, 150, 150), n_cubes=3):
    """Check that a folder has the data sets of neuro_data_zxy, in the right shapes (z,x,y) and dtypes, else ValueError.

    ``raw_0.h5`` ...: ``raw`` uint8; ``barrier_int16_0.h5`` ...: ``lab`` integers, 0 or 1; ``preview_cubes.h5``: two cubes.

    >>> verify_neuro_data('~/neuro_data_zxy')  # doctest: +SKIP
    """
    folder = Path(folder).expanduser()
    for i in range(n_cubes):
        raw = _cube(folder / f"raw_{i}.h5", "raw", raw_shape)
        if raw.dtype != np.uint8:
            raise ValueError(f"raw_{i}.h5: 'raw' must be uint8, it is {raw.dtype}.")
        lab = _cube(folder / f"barrier_int16_{i}.h5", "lab", label_shape)
        if lab.dtype.kind not in "iu" or lab.min() < 0 or lab.max() > 1:
            raise ValueError(f"barrier_int16_{i}.h5: 'lab' must hold integers, 0 or 1; it has {lab.dtype}, {lab.min()} to "
                             f"{lab.max()}.")
    previews = {key: cube.shape for key, cube in _h5(folder / "preview_cubes.h5").items()}
    if len(previews) != 2 or any(len(shape) != 3 for shape in previews.values()):
        raise ValueError(f"preview_cubes.h5 must have two cubes (z,x,y), it has {previews}.")


def _cube(file, key, shape):
    arrays = _h5(file)
    if key not in arrays:
        raise ValueError(f"{file.name} has no data set {key!r}; available: {sorted(arrays)}.")
    if arrays[key].shape != tuple(shape):
        raise ValueError(f"{file.name}: {key!r} has the shape {arrays[key].shape}, expected {tuple(shape)} (z,x,y).")
    return arrays[key]


def _h5(file):
    """{key: array} of all data sets; ValueError naming the file."""
    try:
        with h5py.File(file, "r") as f:
            return {k: v[()] for k, v in f.items() if isinstance(v, h5py.Dataset)}
    except OSError as error:
        raise ValueError(f"{file.name} cannot be read as h5 ({error}).") from None


def _parser():
    parser = argparse.ArgumentParser(prog="python -m elektronn2.data.download", description="Fetch a data set.")
    sets = parser.add_subparsers(dest="name", required=True, metavar="{neuro_data_zxy,mnist}")
    neuro = sets.add_parser("neuro_data_zxy", help="electron microscopy with barrier labels, 98 MiB")
    neuro.add_argument("--path", default=NEURO_PATH, metavar="FOLDER", help="default: %(default)s")
    neuro.add_argument("--url", default=NEURO_URL, help="of the zip archive, also file:///...; default: %(default)s")
    neuro.add_argument("--sha256", help="checksum of the archive, in hexadecimal, if you know it")
    mnist = sets.add_parser("mnist", help="handwritten digits, 11 MiB")
    mnist.add_argument("--path", metavar="FOLDER", help=f"default: {default_mnist_path()}")
    mnist.add_argument("--url", default=MNIST_URL, help="of the folder with the four files; default: %(default)s")
    for p, get in ((neuro, fetch_neuro_data), (mnist, fetch_mnist)):
        p.add_argument("--overwrite", action="store_true", help="replace files that are there")
        p.set_defaults(get=get)
    return parser


def main(argv=None):
    """The command; ends with exit status 1 and a message if the data cannot be had."""
    args = vars(_parser().parse_args(argv))
    get = args.pop("get")
    name = args.pop("name")
    try:
        get(**args)
    except (ValueError, OSError) as error:
        raise SystemExit(f"{name} was not fetched: {error}") from None


if __name__ == "__main__":
    main()
