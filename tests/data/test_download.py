"""Downloads, from a server in this process: whole and checked, or not at all."""
import functools
import hashlib
import http.server
import io
import shutil
import threading
import zipfile

import h5py
import numpy as np
import pytest

from elektronn2.data import download
from elektronn2.data.download import MNIST_MD5, fetch, fetch_mnist, fetch_neuro_data, verify_neuro_data
from elektronn2.data.traindata import MNIST_FILES

SHAPES = dict(raw_shape=(6, 8, 9), label_shape=(4, 4, 5))


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; paths that begin with /short announce more than they send."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/short"):
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"x" * 70000)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """The folder that is served, its URL, and what was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as s:
        s.asked, s.folder, s.url = [], folder, f"http://127.0.0.1:{s.server_address[1]}"
        thread = threading.Thread(target=s.serve_forever, kwargs=dict(poll_interval=0.02))
        thread.start()
        yield s
        s.shutdown()
        thread.join()


def neuro_files(seed=0):
    """{file: {data set: array}} of a small set."""
    rng = np.random.default_rng(seed)
    files = {"preview_cubes.h5": {k: rng.integers(0, 256, (3, 4, 5), np.uint8) for k in "01"}}
    for i in range(3):
        files[f"raw_{i}.h5"] = {"raw": rng.integers(0, 256, (6, 8, 9), np.uint8)}
        files[f"barrier_int16_{i}.h5"] = {"lab": rng.integers(0, 2, (4, 4, 5)).astype(np.int16)}
    return files


def h5(datasets):
    file = io.BytesIO()
    with h5py.File(file, "w") as f:
        for key, array in datasets.items():
            f[key] = array
    return file.getvalue()


def pack(path, files, folder="neuro_data_zxy/", **more):
    with zipfile.ZipFile(path, "w") as z:
        z.writestr(f"{folder}README", "what it is")
        for name, datasets in files.items():
            z.writestr(folder + name, h5(datasets))
        for name, content in more.items():
            z.writestr(name, content)


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# -- one file --------------------------------------------------------------------------------------
def test_fetch(server, tmp_path, capfd):
    data = bytes(range(256)) * 1000
    (server.folder / "a.bin").write_bytes(data)
    (tmp_path / "a").write_bytes(b"old")
    sums = dict(md5=hashlib.md5(data).hexdigest().upper(), sha256=hashlib.sha256(data).hexdigest())
    fetch(f"{server.url}/a.bin", tmp_path / "a", **sums)
    assert (tmp_path / "a").read_bytes() == data
    bar = capfd.readouterr().err
    assert "a.bin" in bar and "100%" in bar and "256k" in bar
    fetch((server.folder / "a.bin").as_uri(), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_wrong_checksum(server, tmp_path, kind):
    (server.folder / "a.bin").write_bytes(b"abc")
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ValueError, match=rf"{kind} {hashlib.new(kind, b'abc').hexdigest()}, expected 0123.*the cure"):
        fetch(f"{server.url}/a.bin", tmp_path / "a", **{kind: "0123"}, cure="the cure")
    assert content(tmp_path / "served") == {"a.bin": b"abc"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "served"] and (tmp_path / "a").read_bytes() == b"old"


def refused_url():
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as s:
        return f"http://127.0.0.1:{s.server_address[1]}/a"  # nobody listens there any more


@pytest.mark.parametrize("url, match", [
    ("/nothing", "404"), ("/short", "ended after 70000 of 100000 bytes"), (refused_url, "refused"),
    ("file:///no/such/file", "could not be fetched"), ("http://", "could not be fetched"),
])
def test_no_network(server, tmp_path, url, match):
    url = url() if callable(url) else url if ":" in url else server.url + url
    with pytest.raises(ConnectionError, match=rf"{url} could not be fetched.*the cure") as e:
        fetch(url, tmp_path / "a", cure="the cure")
    assert match in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["served"]


def test_no_url(tmp_path):
    with pytest.raises(ValueError, match="'neuro_data_zxy.zip' is no URL.*file://"):
        fetch("neuro_data_zxy.zip", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


# -- neuro_data_zxy --------------------------------------------------------------------------------
@pytest.mark.parametrize("folder", ["neuro_data_zxy/", ""])
def test_neuro_data(server, tmp_path, folder):
    files = neuro_files()
    pack(server.folder / "a.zip", files, folder)
    sha256 = hashlib.sha256((server.folder / "a.zip").read_bytes()).hexdigest()
    path = fetch_neuro_data(tmp_path / "new" / "set", f"{server.url}/a.zip", sha256=sha256, **SHAPES)
    assert path == tmp_path / "new" / "set"
    assert sorted(p.name for p in path.iterdir()) == sorted(files)
    for name, datasets in files.items():
        with h5py.File(path / name, "r") as f:
            for key, array in datasets.items():
                np.testing.assert_array_equal(f[key][()], array)


def test_existing_data(server, tmp_path):
    pack(server.folder / "a.zip", neuro_files(0))
    pack(server.folder / "b.zip", neuro_files(1))
    path = tmp_path / "set"
    fetch_neuro_data(path, f"{server.url}/a.zip", **SHAPES)
    (path / "mine.txt").write_text("stays")
    first = content(path)
    fetch_neuro_data(path, f"{server.url}/b.zip", **SHAPES)  # they are there: not asked for
    assert server.asked == ["/a.zip"] and content(path) == first
    (path / "raw_1.h5").unlink()
    with pytest.raises(FileExistsError, match=r"raw_0\.h5.*overwrite=True"):
        fetch_neuro_data(path, f"{server.url}/b.zip", **SHAPES)
    assert server.asked == ["/a.zip"]
    fetch_neuro_data(path, f"{server.url}/b.zip", overwrite=True, **SHAPES)
    second = content(path)
    assert second.keys() == first.keys() and second["raw_0.h5"] != first["raw_0.h5"] and second["mine.txt"] == b"stays"
    with pytest.raises(ValueError, match=r"raw_0\.h5.*\(6, 8, 9\), expected \(250, 350, 350\)"):
        fetch_neuro_data(path)  # other data under the same names are not taken for the real ones


def without(key):
    return {k: v for k, v in neuro_files().items() if k != key}


def test_bad_archives_leave_nothing(server, tmp_path):
    good = neuro_files()
    pack(server.folder / "good.zip", good)
    whole = (server.folder / "good.zip").read_bytes()
    at = whole.index(good["raw_1.h5"]["raw"].tobytes())
    cases = {
        "corrupt": (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:], r"damaged: the checksum of .*raw_1\.h5"),
        "truncated": (whole[:-3000], "no whole zip archive"),
        "page": (b"<html>gone</html>", "no whole zip archive"),
        "empty": (b"", "no whole zip archive"),
    }
    for name, (data, _) in cases.items():
        (server.folder / f"{name}.zip").write_bytes(data)
    packed = {
        "less": (without("raw_2.h5"), {}, r"missing or several: raw_2\.h5"),
        "twice": (good, {"other/raw_0.h5": b""}, r"missing or several: raw_0\.h5"),
        "parent": (good, {"../x": b""}, r"'\.\./x', outside the folder"),
        "deep": (good, {"a/../../x": b""}, "outside the folder"),
        "absolute": (good, {"/tmp/x": b""}, "outside the folder"),
        "windows": (good, {"..\\x": b""}, "outside the folder"),
        "drive": (good, {"C:\\x": b""}, "outside the folder"),
        "shape": ({**good, "raw_1.h5": {"raw": np.zeros((6, 8, 8), np.uint8)}}, {},
                  r"raw_1\.h5: 'raw' has the shape \(6, 8, 8\), expected \(6, 8, 9\)"),
        "foreign": ({**good, "raw_0.h5": {}}, {}, r"raw_0\.h5 has no data set 'raw'"),
    }
    for name, (files, more, match) in packed.items():
        pack(server.folder / f"{name}.zip", files, **more)
        cases[name] = None, match
    for name, (_, match) in cases.items():
        with pytest.raises(ValueError, match=match):
            fetch_neuro_data(tmp_path / "new", f"{server.url}/{name}.zip", **SHAPES)
        assert [p.name for p in tmp_path.iterdir()] == ["served"]
    with pytest.raises(ValueError, match="sha256"):
        fetch_neuro_data(tmp_path / "new", f"{server.url}/good.zip", sha256="0", **SHAPES)
    assert [p.name for p in tmp_path.iterdir()] == ["served"]


def test_an_encrypted_archive(server, tmp_path):
    pack(server.folder / "a.zip", neuro_files())
    data = bytearray((server.folder / "a.zip").read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(mark)
        data[at + flags] |= 1
    (server.folder / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match="no whole zip archive.*encrypted"):
        fetch_neuro_data(tmp_path / "new", f"{server.url}/a.zip", **SHAPES)


def test_a_failure_keeps_what_was_there(server, tmp_path):
    pack(server.folder / "a.zip", {**neuro_files(), "preview_cubes.h5": {}})
    path = tmp_path / "set"
    path.mkdir()
    (path / "raw_0.h5").write_bytes(b"mine")
    with pytest.raises(ValueError, match="preview_cubes"):
        fetch_neuro_data(path, f"{server.url}/a.zip", overwrite=True, **SHAPES)
    with pytest.raises(ConnectionError, match=r"--url.*by hand.*set/raw_0\.h5.*elektronn2\.data\.synthetic"):
        fetch_neuro_data(path, f"{server.url}/short.zip", overwrite=True, **SHAPES)
    assert content(path) == {"raw_0.h5": b"mine"}


@pytest.mark.parametrize("name, datasets, match", [
    ("raw_0.h5", {"raw": np.zeros((6, 8, 9), np.float32)}, "'raw' must be uint8, it is float32"),
    ("raw_2.h5", {"raw": np.zeros((6, 8, 9), np.int8)}, "'raw' must be uint8, it is int8"),
    ("barrier_int16_0.h5", {"lab": np.zeros((4, 4, 5), np.float32)}, "0 or 1; it has float32"),
    ("barrier_int16_1.h5", {"lab": np.full((4, 4, 5), 2, np.int16)}, "0 or 1; it has int16, 2 to 2"),
    ("barrier_int16_1.h5", {"lab": np.full((4, 4, 5), -1, np.int16)}, "it has int16, -1"),
    ("barrier_int16_2.h5", {"lab": np.zeros((5, 4, 4), np.int16)}, r"expected \(4, 4, 5\)"),
    ("barrier_int16_2.h5", {"labels": np.zeros((4, 4, 5), np.int16)}, r"'lab'; available: \['labels'\]"),
    ("preview_cubes.h5", {"0": np.zeros((3, 4, 5))}, "two cubes"),
    ("preview_cubes.h5", {"0": np.zeros((4, 5)), "1": np.zeros((4, 5))}, "two cubes"),
    ("raw_1.h5", None, r"raw_1\.h5 cannot be read as h5"),
])
def test_verification(tmp_path, name, datasets, match):
    for file, arrays in neuro_files().items():
        (tmp_path / file).write_bytes(h5(arrays))
    verify_neuro_data(tmp_path, **SHAPES)
    (tmp_path / name).write_bytes(b"no h5" if datasets is None else h5(datasets))
    with pytest.raises(ValueError, match=match) as e:
        verify_neuro_data(tmp_path, **SHAPES)
    assert name in str(e.value)


# -- MNIST -----------------------------------------------------------------------------------------
def digits(folder):
    """Four made files, and their checksums."""
    for i, name in enumerate(MNIST_MD5):
        (folder / name).write_bytes(bytes([i]) * (i + 5))
    return {n: hashlib.md5((folder / n).read_bytes()).hexdigest() for n in MNIST_MD5}


def test_mnist(server, tmp_path, monkeypatch):
    md5 = digits(server.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = fetch_mnist(url=f"{server.url}/", md5=md5)
    assert path == tmp_path / "cache" / "elektronn2" / "mnist"
    assert content(path) == content(server.folder)
    assert server.asked == [f"/{n}" for n in md5]
    fetch_mnist(url=server.url, md5=md5)  # they are there
    (path / "t10k-labels-idx1-ubyte.gz").unlink()
    fetch_mnist(url=server.url, md5=md5)  # only what is not there
    assert server.asked == [f"/{n}" for n in md5] + ["/t10k-labels-idx1-ubyte.gz"]
    assert content(path) == content(server.folder)


def test_mnist_keeps_other_files(server, tmp_path):
    md5, name = digits(server.folder), "train-labels-idx1-ubyte.gz"
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=rf"{name}, which.*overwrite"):
        fetch_mnist(tmp_path, server.url, md5=md5)
    assert (tmp_path / name).read_bytes() == b"mine" and server.asked == []
    fetch_mnist(tmp_path, server.url, overwrite=True, md5=md5)
    assert (tmp_path / name).read_bytes() == (server.folder / name).read_bytes()


def test_mnist_from_a_wrong_place(server, tmp_path):
    digits(server.folder)
    with pytest.raises(ValueError, match="md5.*--url"):
        fetch_mnist(tmp_path / "new", server.url)
    with pytest.raises(ConnectionError, match=r"404.*--url.*train-images-idx3-ubyte\.gz.*yourself"):
        fetch_mnist(tmp_path / "new", f"{server.url}/elsewhere")
    assert [p.name for p in tmp_path.iterdir()] == ["served"]


def test_the_names_are_those_that_are_read():
    assert sorted(MNIST_MD5) == sorted(f"{n}.gz" for n in MNIST_FILES)


# -- the command -----------------------------------------------------------------------------------
def test_command(server, tmp_path, monkeypatch, capsys):
    pack(server.folder / "a.zip", neuro_files())
    real = download.verify_neuro_data
    monkeypatch.setattr(download, "verify_neuro_data", lambda folder: real(folder, **SHAPES))  # the real ones take 98 MiB
    args = ["neuro_data_zxy", "--path", str(tmp_path / "set"), "--url", f"{server.url}/a.zip"]
    download.main(args)
    captured = capsys.readouterr()
    assert captured.out == "" and f"The data are in {tmp_path / 'set'}" in captured.err
    download.main(args)
    assert "already" in capsys.readouterr().err
    (tmp_path / "set" / "raw_0.h5").unlink()
    with pytest.raises(SystemExit, match="neuro_data_zxy was not fetched.*--overwrite"):
        download.main(args)
    with pytest.raises(SystemExit, match="neuro_data_zxy was not fetched.*sha256"):
        download.main([*args, "--overwrite", "--sha256", "00"])
    download.main([*args, "--overwrite"])
    assert (tmp_path / "set" / "raw_0.h5").is_file()


def test_command_for_digits(server, tmp_path):
    with pytest.raises(SystemExit, match=r"mnist was not fetched: .*404.*--url"):
        download.main(["mnist", "--path", str(tmp_path / "set"), "--url", server.url])
    shutil.rmtree(server.folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [[], ["cifar"], ["mnist", "--sha256", "0"]])
def test_wrong_command(args, capsys):
    with pytest.raises(SystemExit) as e:
        download.main(args)
    assert e.value.code == 2
    assert "neuro_data_zxy" in capsys.readouterr().err
