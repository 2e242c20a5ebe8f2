"""Conversion of volumes: every format, scaling, averaging, interruption; nothing is overwritten."""
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from elektronn2.data.volumes import convert, open_volume
from elektronn2.data.volumes.convert import pool
from elektronn2.scripts import convert_data

OUTPUTS = ["em.zarr", "em.h5", "em.npy", "em.tif", "precomputed:em"]


def address(folder, name):
    return f"precomputed:{folder}/em" if name.startswith("pre") else f"{folder}/{name}"


@pytest.fixture
def raw(rng):
    return rng.integers(0, 2 ** 16, (2, 9, 40, 37), np.uint16)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", OUTPUTS)
def test_what_is_written_is_read(name, channels, raw, tmp_path):
    raw = raw[:channels]
    convert(raw, address(tmp_path, name), chunks=(4, 16, 8), voxel_size=(40, 8, 9), memory=0.02)
    volume = open_volume(address(tmp_path, name))
    np.testing.assert_array_equal(volume[:], raw)
    assert volume.dtype == np.uint16
    if name not in ("em.npy", "em.tif"):
        assert volume.voxel_size == pytest.approx((40, 8, 9)) and volume.chunks[1:] == (4, 16, 8)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("source", OUTPUTS)
def test_from_every_format_to_zarr(source, raw, tmp_path):
    convert(raw, address(tmp_path, source))
    convert(address(tmp_path, source), tmp_path / "end.zarr", chunks=8, shards=(8, 16, 16))
    np.testing.assert_array_equal(open_volume(tmp_path / "end.zarr")[:], raw)


def test_layout_of_zarr(raw, tmp_path):
    convert(raw[0], tmp_path / "em.zarr", chunks=(4, 16, 8), shards=(8, 32, 16), voxel_size=(40, 8, 9))
    group = zarr.open_group(tmp_path / "em.zarr", mode="r")
    image = group.attrs["ome"]["multiscales"][0]
    assert group.attrs["ome"]["version"] == "0.5" and [a["name"] for a in image["axes"]] == ["z", "y", "x"]
    assert image["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": [40, 9, 8]}]
    array = group["0"]
    assert array.shape == (9, 37, 40) and array.chunks == (4, 8, 16) and array.shards == (8, 16, 32)
    assert array.metadata.dimension_names == ("z", "y", "x")
    np.testing.assert_array_equal(array[:], raw[0].swapaxes(1, 2))
    assert len(list((tmp_path / "em.zarr/0/c").rglob("*"))) == 2 + 2 * 3 + 2 * 3 * 2


def test_damage_is_noticed(raw, tmp_path):
    """Checksums: in zarr of compressed chunks, in h5 of chunks."""
    flat = np.zeros((1, 64, 64, 64), np.uint8)
    flat[:] = np.arange(64)
    convert(flat, tmp_path / "em.zarr")
    convert(flat, tmp_path / "em.h5")
    for file, name in ((tmp_path / "em.zarr/0/c/0/0/0", "em.zarr"), (tmp_path / "em.h5", "em.h5")):
        good = file.read_bytes()
        found = 0
        for i in range(20, len(good), max(len(good) // 40, 1)):
            data = bytearray(good)
            data[i] ^= 1
            file.write_bytes(data)
            try:
                same = np.array_equal(open_volume(tmp_path / name)[:], flat)
            except (OSError, KeyError, ValueError):
                found += 1
            else:
                assert same, i  # bytes that do not matter
        assert found > 10
        file.write_bytes(good)


def test_data_sets_of_h5(raw, tmp_path):
    convert(raw, f"{tmp_path}/em.h5:volumes/raw", chunks=(3, 8, 8))
    with h5py.File(tmp_path / "em.h5") as f:
        assert f["volumes/raw"].chunks == (1, 3, 8, 8) and f["volumes/raw"].attrs["axes"] == "fzxy"
        np.testing.assert_array_equal(f["volumes/raw"][()], raw)


def test_tiff_for_others(raw, tmp_path):
    convert(raw[0], tmp_path / "em.tif")
    with tifffile.TiffFile(tmp_path / "em.tif") as tif:
        assert tif.is_bigtiff and tif.series[0].axes == "ZYX" and len(tif.pages) == 9
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "em.tif"), raw[0].swapaxes(1, 2))


# -- values ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("source, target, limits, rule", [
    ("uint16", "uint8", None, lambda a: np.rint(a / 65535 * 255)), ("uint8", "uint16", None, lambda a: a * 257),
    ("uint8", "float32", None, lambda a: np.float32(a / 255)),
    ("float32", "uint8", None, lambda a: np.rint(np.clip(a, 0, 1) * 255)),
    ("float64", "float32", None, lambda a: a), ("uint16", "uint8", (1000, 20000),
                                               lambda a: np.rint(np.clip((a - 1000) / 19000, 0, 1) * 255)),
    ("int16", "uint8", (-100, 200), lambda a: np.rint(np.clip((a + 100) / 300, 0, 1) * 255)),
    ("int16", "int16", None, lambda a: a),
    ("uint8", "uint8", (10, 20), lambda a: np.rint(np.clip((a - 10) / 10, 0, 1) * 255)),
    ("int32", "float32", (0, 1000), lambda a: np.clip(a / 1000, 0, 1))])
def test_scaling(source, target, limits, rule, rng, tmp_path):
    source, target = np.dtype(source), np.dtype(target)
    if source.kind == "f":
        a = rng.normal(0.5, 0.5, (4, 5, 6)).astype(source)
    else:
        a = rng.integers(np.iinfo(source).min, np.iinfo(source).max, (4, 5, 6), source, endpoint=True)
        a[0, 0] = np.array([15, 0, 150, 1000, 120, 3]).astype(source)
    convert(a, tmp_path / "a.npy", dtype=target, limits=limits)
    got = np.load(tmp_path / "a.npy")
    assert got.dtype == target
    np.testing.assert_allclose(got, rule(a.astype(np.float64)).astype(target), rtol=1e-6, atol=0)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("factors", [2, (1, 2, 2), (3, 1, 4)])
def test_downsampling(labels, factors, rng, tmp_path):
    raw = rng.integers(0, 5 if labels else 256, (2, 7, 20, 21), np.uint8)
    convert(raw, tmp_path / "a.npy", downsample=factors, labels=labels, memory=0.01, chunks=(1, 4, 4))
    got = np.load(tmp_path / "a.npy")
    f = (factors,) * 3 if factors == 2 else factors
    assert got.shape == (2, 7 // f[0], 20 // f[1], 21 // f[2]) and got.dtype == np.uint8
    for c, z, x, y in np.ndindex(got.shape):
        window = raw[c, z * f[0]:(z + 1) * f[0], x * f[1]:(x + 1) * f[1], y * f[2]:(y + 1) * f[2]].ravel()
        expected = np.bincount(window).argmax() if labels else np.rint(window.mean())
        assert got[c, z, x, y] == expected


def test_labels_keep_their_numbers(tmp_path):
    labels = np.array([[[0, 5, 2 ** 40]]], np.uint64)
    convert(labels, tmp_path / "a.npy", labels=True, dtype="int64")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), labels)
    with pytest.raises(ValueError, match=r"box z 0:1, x 0:1, y 0:3 of the output: labels of 0 to 1099511627776 do not fit "):
        convert(labels, tmp_path / "b.npy", labels=True, dtype="uint16")
    convert(labels, tmp_path / "b.npy", labels=True)  # what failed is not in the way
    with pytest.raises(ValueError, match="labels of nan to nan do not fit into int16"):
        convert(np.full((1, 1, 2), np.nan), tmp_path / "c.npy", labels=True, dtype="int16")
    assert {p.name for p in tmp_path.iterdir()} == {"a.npy", "b.npy"}
    large = np.full((1, 2, 2, 2), 2 ** 63 + 1, np.uint64)
    assert pool(large, (2, 2, 2), labels=True).item() == 2 ** 63 + 1


# -- what goes wrong -------------------------------------------------------------------------------------
@pytest.mark.parametrize("output, options, message", [
    ("a.npy", dict(dtype="int16"), "How should uint16 become int16"), ("a.npy", dict(limits=(5, 5)), "limits must be"),
    ("a.npy", dict(shards=8), "Only Zarr has shards"), ("a.zarr", dict(chunks=8, shards=12), "must be multiples of chunks"),
    ("a.zarr:x", {}, "name no array in it"), ("a.npy:x", {}, "holds one array"),
    ("a.npy", dict(downsample=100), "nothing is left"), ("a.npy", dict(downsample=(1, 2)), "downsample needs 3 values"),
    ("a.npy", dict(limits=(0, 1), labels=True), "Labels have no limits"), ("a.jpg", {}, "to which format"),
    ("s3://b/a.zarr", {}, "cannot be written"), ("no/a.npy", {}, "There is no folder"),
    ("precomputed:a", dict(dtype="float64"), "cannot hold float64"),
    ("a.npy", dict(dtype="unit8"), "There is no dtype 'unit8'"), ("a.npy", dict(limits=(5,)), "limits must be .low, high."),
    ("a.npy", dict(limits=5), "limits must be .low, high."), ("a.npy", dict(limits=("a", "b")), "limits must be"),
    *(("a.npy", dict(memory=m), "memory must be a number of MiB above 0") for m in (0, -1, np.nan, np.inf, "8", True)),
    *(("a.npy", dict(voxel_size=v), "voxel_size must be three numbers") for v in (9, (40, 9), (40, 0, 9), "40,9,9"))])
def test_mistakes(output, options, message, raw, tmp_path):
    if "://" not in output:
        _, colon, name = output.rpartition("precomputed:")
        output = f"{colon}{tmp_path}/{name}"
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        convert(raw, output, **options)
    assert not list(tmp_path.iterdir())


def test_int_images_keep_their_dtype_only(tmp_path):
    with pytest.raises(ValueError, match="How should int32 become uint8"):
        convert(np.zeros((2, 3, 4), np.int32), tmp_path / "a.npy", dtype="uint8")


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "uint32", "int64", "uint64"])
def test_ids_are_not_averaged(dtype, tmp_path):
    ids = np.ones((2, 4, 6), dtype)
    with pytest.raises(ValueError, match=rf"of dtype {dtype}, as labels are, whose means .*--labels.*--range"):
        convert(ids, tmp_path / "a.npy", downsample=2)
    convert(ids, tmp_path / "a.npy", downsample=2, labels=True)
    convert(ids, tmp_path / "b.npy")
    convert(ids, tmp_path / "c.npy", downsample=2, limits=(0, 1), dtype="float32")
    assert [np.load(tmp_path / f"{n}.npy").dtype for n in "abc"] == [dtype, dtype, "float32"]


def test_nan_does_not_become_an_integer(tmp_path):
    image = np.zeros((4, 8, 8), np.float32)
    image[3, 5, 6] = np.nan
    for more in (dict(), dict(limits=(0, 2)), dict(downsample=2)):
        with pytest.raises(ValueError, match=r"box z \d:\d, x \d:\d, y 0:\d of the output: 1 voxels are NaN, which uint8"):
            convert(image, tmp_path / "a.npy", dtype="uint8", chunks=2, memory=1e-3, **more)
    convert(image, tmp_path / "a.npy")
    assert np.isnan(np.load(tmp_path / "a.npy")[3, 5, 6])


LIMITED = """
import resource, signal, sys
import numpy as np
from elektronn2.scripts import convert_data
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(convert_data.main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize("name", OUTPUTS)
def test_no_space(name, rng, tmp_path):
    """A limit of the size of files stands for a full disk. With room, it goes on."""
    raw, target = rng.integers(0, 256, (32, 64, 64), np.uint8), address(tmp_path / "out", name)
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "raw.npy", raw)
    for limit, status in ((10_000, 2), (10_000_000, 0)):
        done = subprocess.run([sys.executable, "-c", LIMITED, str(limit), str(tmp_path / "raw.npy"), target, "--chunks=32"],
                              capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        if status:
            assert re.search(r"out/em\S* cannot be written: .*Make room and do the same again", done.stderr)
    np.testing.assert_array_equal(open_volume(target)[0], raw)


def test_another_conversion_that_was_begun_is_replaced_on_request(raw, tmp_path):
    class Gone:
        shape, dtype = raw.shape, raw.dtype

        def __getitem__(self, box):
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        convert(Gone(), tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="go on with it, or --overwrite, or delete that folder"):
        convert(raw, tmp_path / "a.zarr", dtype="uint8")
    convert(raw, tmp_path / "a.zarr", dtype="uint8", overwrite=True)
    assert open_volume(tmp_path / "a.zarr").dtype == np.uint8 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", OUTPUTS)
def test_nothing_is_overwritten_unless_asked(name, raw, tmp_path):
    target = address(tmp_path, name)
    convert(raw, target)
    with pytest.raises(FileExistsError, match="exists. Choose another name, or --overwrite"):
        convert(raw // 2, target)
    np.testing.assert_array_equal(open_volume(target)[:], raw)
    with pytest.raises(ValueError, match="Output and input are the same"):
        convert(target, target, overwrite=True)
    convert(raw // 2, target, overwrite=True)
    np.testing.assert_array_equal(open_volume(target)[:], raw // 2)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_folder_of_other_things_is_never_replaced(name, raw, tmp_path):
    folder = Path(address(tmp_path, name).removeprefix("precomputed:"))
    folder.mkdir()
    (folder / "notes.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=f"{folder.name} is a folder, but no volume of kind .*: it is not overwritten"):
        convert(raw, address(tmp_path, name), overwrite=True)
    assert (folder / "notes.txt").exists() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_failed_read_leaves_what_is_done(name, raw, tmp_path):
    class Failing:
        shape, dtype, fails, reads = raw.shape, raw.dtype, True, 0

        def __getitem__(self, box):
            self.reads += 1
            if self.fails and box[1].start >= 4:
                raise OSError("the disk is gone")
            return raw[box]
    source, target = Failing(), address(tmp_path, name)
    options = dict(chunks=4, memory=1e-4, **(dict(shards=4) if "zarr" in name else {}))
    with pytest.raises(OSError, match=r"box f 0:2, z 4:8, x 0:4, y 0:4 cannot be read: the disk is gone"):
        convert(source, target, **options)
    assert not Path(target.removeprefix("precomputed:")).exists()
    reads, source.fails = source.reads, False
    with pytest.raises(ValueError, match="was interrupted, with another dtype .uint16."):
        convert(source, target, dtype="uint8", **options)
    convert(source, target, **options)
    assert source.reads == 3 * 10 * 10 + 1 and reads == 10 * 10 + 1
    np.testing.assert_array_equal(open_volume(target)[:], raw)


SLOW = """
import sys, time
import numpy as np
from elektronn2.data.volumes import convert
class Slow:
    shape, dtype = (40, 32, 32), np.dtype(np.uint8)
    def __getitem__(self, box):
        time.sleep(0.02)
        z, x, y = np.ogrid[box]
        return ((7 * z + 3 * x + y) % 251).astype(np.uint8)
shards = dict(shards=8) if "zarr" in sys.argv[1] else {}
convert(Slow(), sys.argv[1], chunks=8, memory=0.01, **shards)
"""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("em.npy", "em.tif")))
                                  for name in OUTPUTS])
def test_killed_and_run_again(name, tmp_path):
    """Killed twice at any moment; what is there at the end is bit for bit what an uninterrupted run writes."""
    target, counts = address(tmp_path, name), []
    for i in range(2):
        process = subprocess.Popen([sys.executable, "-c", SLOW, target])
        done = Path(target.removeprefix("precomputed:") + ".part") / "done.txt"
        wanted, patience = 12 * (i + 1), time.monotonic() + 60
        while time.monotonic() < patience:
            if done.exists() and done.read_text().count("\n") >= wanted:
                break
            time.sleep(0.01)
        time.sleep(0.005 * i)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        counts.append(done.read_text().count("\n"))
    assert counts == sorted(set(counts)) and counts[-1] < 80
    subprocess.run([sys.executable, "-c", SLOW, target], check=True)
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run([sys.executable, "-c", SLOW, address(other, name)], check=True)
    z, x, y = np.ogrid[:40, :32, :32]
    np.testing.assert_array_equal(open_volume(target)[0], ((7 * z + 3 * x + y) % 251).astype(np.uint8))
    written = Path(target.removeprefix("precomputed:"))
    again = other / written.name
    files = sorted(p.relative_to(written) for p in written.rglob("*") if p.is_file()) if written.is_dir() else [Path()]
    assert files and files == (sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
                               if again.is_dir() else [Path()])
    for file in files:
        assert (written / file).read_bytes() == (again / file).read_bytes(), file


# -- the command -----------------------------------------------------------------------------------------
def test_command(raw, tmp_path, capsys):
    np.save(tmp_path / "raw.npy", raw.transpose(0, 3, 2, 1))  # f, y, x, z
    arguments = [f"{tmp_path}/raw.npy", f"{tmp_path}/em.zarr", "--axes=fyxz", "--chunks=8,8,8", "--shards=8,16,16",
                 "--dtype=uint8", "--range=0,30000", "--downsample=1,2,2", "--voxel-size=40,8,8"]
    assert convert_data.main(arguments) == 0
    volume = open_volume(tmp_path / "em.zarr/0")
    assert volume.shape == (2, 9, 20, 18) and volume.dtype == np.uint8 and volume.voxel_size == (40, 16, 16)
    mean = raw[..., :36].reshape(2, 9, 20, 2, 18, 2).mean((3, 5))
    np.testing.assert_array_equal(volume[:], np.rint(np.clip(mean / 30000, 0, 1) * 255))
    assert convert_data.main(arguments) == 2
    assert "exists. Choose another name, or --overwrite" in capsys.readouterr().err
    assert convert_data.main([*arguments, "--overwrite"]) == 0
    assert convert_data.main([arguments[0], f"{tmp_path}/half.zarr", "--axes=fyxz", "--downsample=2"]) == 0
    assert open_volume(tmp_path / "half.zarr").shape == tuple(n // 2 if i else n for i, n in enumerate(raw.shape))
    assert convert_data.main([f"{tmp_path}/none.h5:raw", f"{tmp_path}/b.zarr"]) == 2
    assert "There is no file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        convert_data.main([*arguments, "--chunks=8,a"])


def test_help_is_quick():
    code = "import sys; from elektronn2.scripts import convert_data; convert_data.parser(); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_memory_is_bounded(tmp_path):
    """A volume of 1 GiB is converted by a process that never has half of it."""
    code = """
import re, sys
from pathlib import Path
import numpy as np
from elektronn2.data.volumes import convert
class Large:
    shape, dtype = (256, 2048, 2048), np.dtype(np.uint8)
    def __getitem__(self, box):
        return np.zeros([s.stop - s.start for s in box], np.uint8)
convert(Large(), sys.argv[1], downsample=(2, 4, 4), memory=16)
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])  # getrusage has the parent's, too
"""
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.npy")], capture_output=True, text=True, check=True)
    assert int(out.stdout) < 256 * 2048 * 2048 / 1024 / 2
    assert np.load(tmp_path / "a.npy").shape == (128, 512, 512)
