"""KNOSSOS data sets: boxes, memory limit, reading ahead, channels, threads, errors."""
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from elektronn2.data import KnossosArray, KnossosArrayMulti
from elektronn2.data.volumes import open_volume

SHAPE = (150, 260, 300)  # z, y, x: 2 * 3 * 3 cubes


def write(folder, raw, name="em", mag=1):
    """A data set in the way of KNOSSOS, zeros behind the boundary."""
    root = folder / f"{name}_mag{mag}"
    counts = [-(-n // 128) for n in raw.shape]
    padded = np.zeros([128 * c for c in counts], np.uint8)
    padded[tuple(map(slice, raw.shape))] = raw
    for z, y, x in np.ndindex(*counts):
        cube = root / f"x{x:04d}" / f"y{y:04d}" / f"z{z:04d}"
        cube.mkdir(parents=True)
        part = padded[128 * z:128 * z + 128, 128 * y:128 * y + 128, 128 * x:128 * x + 128]
        (cube / f"{name}_mag{mag}_x{x:04d}_y{y:04d}_z{z:04d}.raw").write_bytes(part.tobytes())
    if mag == 1:
        (root / "knossos.conf").write_text(f'experiment name "{name}_mag1";\n' + "".join(
            f"boundary {a} {n};\nscale {a} {s};\n" for a, n, s in zip("zyx", raw.shape, (25.0, 9.5, 9.0))))
    return folder


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture(scope="module")
def folder(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("knossos")
    write(folder, raw[::2, ::2, ::2].copy(), mag=2)
    return write(folder, raw)


@pytest.fixture
def array(folder):
    array = KnossosArray(f"{folder}", max_ram=50)  # no / at the end
    yield array
    array.close()


BOXES = [np.s_[0:150, 0:260, 0:300], np.s_[:10, 120:130, 250:], np.s_[127:129, 127:129, 127:129],
         np.s_[149:150, 259:260, 299:300], np.s_[5:5, 0:3, 0:3], np.s_[:, 100:101, :]]


@pytest.mark.parametrize("box", BOXES)
def test_boxes(array, raw, box):
    assert array.shape == SHAPE and array.scale == (25, 9.5, 9) and array.n_f == 1
    expected = raw[box].astype(np.float32) / 255
    got = array[box]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(array[(slice(None), *box)], expected[None])


def test_cut_slice(array, raw):
    expected = raw[3:13, 120:140, 7:9].astype(np.float32) / 255
    np.testing.assert_array_equal(array.cut_slice((10, 20, 2), (3, 120, 7)), expected)
    out = np.empty((10, 20, 2), np.float32)
    assert array.cut_slice((10, 20, 2), (3, 120, 7), out) is out
    np.testing.assert_array_equal(out, expected)


def test_magnification(folder, raw):
    array = KnossosArray(folder, fixed_mag=2)
    assert array.shape == (75, 130, 150) and array.scale == (50, 19, 18)
    np.testing.assert_array_equal(array[:, 120:, :], raw[::2, 240::2, ::2].astype(np.float32) / 255)


@pytest.mark.parametrize("index, message", [
    (np.s_[1, 0:3, 0:3], "three slices"), (np.s_[0:3], "three slices"), (np.s_[0:3, 0:3], "three slices"),
    (np.s_[0:4:2, 0:3, 0:3], "without steps"), (np.s_[0:151, 0:3, 0:3], "Axis z: 0:151 is out of bounds"),
    (np.s_[0:3, -5:3, 0:3], "Axis y: -5:3 is out of bounds"), (np.s_[0:3, 0:3, 5:2], "out of bounds"),
    (np.s_[1:2, 0:3, 0:3, 0:3], "must be ':'")])
def test_wrong_boxes(array, index, message):
    with pytest.raises(ValueError, match=message):
        array[index]


def test_memory_limit(folder, raw, monkeypatch):
    """Never more cubes than fit; the farthest go first, where z counts twice."""
    array = KnossosArray(folder, max_ram=6, n_preload=0)
    assert array.capacity == 3
    reads = []
    monkeypatch.setattr(array, "_read", lambda cube, read=array._read: reads.append(cube) or read(cube))
    for x in (0, 128, 256):
        array[0:1, 0:1, x:x + 1]
    assert sorted(array._cubes) == [(0, 0, 0), (0, 0, 1), (0, 0, 2)] and len(reads) == 3
    array[0:1, 0:1, 0:1]
    assert len(reads) == 3
    array[0:1, 200:201, 0:1]  # the farthest from (0, 1, 0)
    assert sorted(array._cubes) == [(0, 0, 0), (0, 0, 1), (0, 1, 0)] and reads[3:] == [(0, 1, 0)]
    array[140:141, 0:1, 0:1]  # (0, 1, 0) and (0, 0, 1) are as far; with these, one of z = 0 stays
    assert len(array._cubes) == 3 and (1, 0, 0) in array._cubes and (0, 0, 0) in array._cubes
    with pytest.raises(ValueError, match="touches 4 cubes, but max_ram holds 3"):
        array[0:1, 127:129, 127:129]


def test_z_counts_twice(folder):
    array = KnossosArray(folder, max_ram=4, n_preload=0)
    array[140:141, 0:1, 128:129]  # cube (1, 0, 1), 2 from (0, 0, 1)
    array[0:1, 0:1, 0:1]          # cube (0, 0, 0), 1 from it
    array[0:1, 0:1, 128:129]
    assert sorted(array._cubes) == [(0, 0, 0), (0, 0, 1)]


def test_reading_ahead(folder, raw, monkeypatch):
    array = KnossosArray(folder, max_ram=100, n_preload=1)
    array.preload((64, 64, 64), sync=True)
    assert sorted(array._cubes) == [(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    array.preload((0, 0, 0), ((0, 200, 290), (1, 260, 300)), sync=True)
    assert {(0, 1, 2), (0, 2, 2)} <= set(array._cubes) and len(array._cubes) == 10
    monkeypatch.setattr(array, "_read", lambda cube: pytest.fail("it was read already"))
    np.testing.assert_array_equal(array[100:140, 100:140, 100:140], raw[100:140, 100:140, 100:140].astype(np.float32) / 255)
    array.close()
    small = KnossosArray(folder, max_ram=4, n_preload=2)
    small.preload((64, 64, 64), sync=True)
    assert len(small._cubes) == 2 and (0, 0, 0) in small._cubes  # the nearest
    small.close()


@pytest.mark.parametrize("max_ram, n_preload", [(16, 2), (1000, 1), (16, 0)])
def test_threads(folder, raw, max_ram, n_preload):
    array = KnossosArray(folder, max_ram=max_ram, n_preload=n_preload)

    def check(seed):
        low = np.random.default_rng(seed).integers(0, np.array(SHAPE) - 40)
        box = tuple(slice(a, a + 40) for a in low)
        return np.array_equal(array[box], raw[box].astype(np.float32) / 255)
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(check, range(60)))
    array.close()


def test_channels(folder, raw, tmp_path):
    write(tmp_path / "other", raw[::-1].copy(), "other")
    write(tmp_path / "small", raw[:100], "small")
    multi = KnossosArrayMulti("/", [folder, tmp_path / "other"], max_ram=100)
    assert multi.shape == SHAPE and multi.n_f == 2 and multi.arrays[0].capacity == 25
    expected = np.stack([raw, raw[::-1]])[:, 100:140, 5:9, 120:140].astype(np.float32) / 255
    np.testing.assert_array_equal(multi[100:140, 5:9, 120:140], expected)
    np.testing.assert_array_equal(multi[:, 100:140, 5:9, 120:140], expected)
    np.testing.assert_array_equal(multi[1:, 100:140, 5:9, 120:140], expected[1:])
    np.testing.assert_array_equal(multi.cut_slice((40, 4, 20), (100, 5, 120)), expected)
    multi.preload((0, 0, 0), sync=True)
    assert all((0, 0, 0) in a._cubes for a in multi.arrays)
    with pytest.raises(ValueError, match="slices, got 1 for the channels"):
        multi[1, 0:1, 0:1, 0:1]
    multi.close()
    with pytest.raises(ValueError, match="channels must be equally large"):
        KnossosArrayMulti(tmp_path, ["other", "small"])
    with pytest.raises(ValueError, match="at least one"):
        KnossosArrayMulti(tmp_path, [])


def test_as_volume(folder, raw):
    for address in (f"knossos:{folder}", folder, f"{folder}/em_mag1/knossos.conf"):
        volume = open_volume(address)
        assert volume.shape == (1, 150, 300, 260) and volume.dtype == np.uint8 and volume.voxel_size == (25, 9, 9.5)
        np.testing.assert_array_equal(volume[0, 120:140, 5:9, 100:200], raw[120:140, 100:200, 5:9].swapaxes(1, 2))
    assert open_volume(f"knossos:{folder}:2").shape == (1, 75, 150, 130)
    with pytest.raises(KeyError, match="no magnification"):
        open_volume(f"knossos:{folder}:a")


def test_what_is_missing(raw, tmp_path):
    with pytest.raises(FileNotFoundError, match="no KNOSSOS data set"):
        KnossosArray(tmp_path)
    write(tmp_path, raw[:10, :130, :20])
    cube = tmp_path / "em_mag1/x0000/y0001/z0000/em_mag1_x0000_y0001_z0000.raw"
    array = KnossosArray(tmp_path)
    content = cube.read_bytes()
    cube.write_bytes(content[:1000])
    with pytest.raises(ValueError, match="y0001.* has 1,000 bytes, but cubes have 2,097,152"):
        array[0:1, 125:130, 0:1]
    cube.unlink()
    with pytest.raises(ValueError, match="lacks a cube: there is no file .*y0001"):
        array[0:1, 125:130, 0:1]
    with pytest.raises(OSError, match=r"the box f 0:1, z 0:1, x 0:1, y 128:129 cannot be read: .*lacks a cube"):
        open_volume(tmp_path)[:, 0:1, 0:1, 128:129]
    cube.write_bytes(content)
    np.testing.assert_array_equal(array[0:1, 125:130, 0:1], raw[0:1, 125:130, 0:1].astype(np.float32) / 255)
    with pytest.raises(FileNotFoundError, match=r"\*mag2"):
        KnossosArray(tmp_path, fixed_mag=2)
    conf = tmp_path / "em_mag1/knossos.conf"
    conf.write_text(conf.read_text().replace("boundary x", "bound x"))
    with pytest.raises(ValueError, match="does not tell 'boundary x'"):
        KnossosArray(tmp_path)
    write(tmp_path, raw[:1, :1, :1], "two")
    with pytest.raises(ValueError, match="several KNOSSOS data sets"):
        KnossosArray(tmp_path)
