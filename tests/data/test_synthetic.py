"""The synthetic data set: layout, consistency, repeatability, hardness."""
import json

import h5py
import numpy as np
import pytest
from scipy import ndimage

from elektronn2.data import synthetic
from elektronn2.data.synthetic import default_data_path, make_volume, write_neuro_data
from elektronn2.utils.evaluation import roc_auc

SMALL = dict(raw_shape=(12, 56, 60), label_shape=(8, 40, 40), preview_shape=(6, 50, 52), n_cubes=2)


def read(path, name, key):
    with h5py.File(path / name, "r") as f:
        return f[key][()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_neuro_data(tmp_path_factory.mktemp("synthetic") / "set", **SMALL)


@pytest.fixture(scope="module")
def volume():
    return make_volume((40, 150, 150), seed=3)


def test_layout(data):
    files = sorted(p.name for p in data.iterdir())
    assert files == ["barrier_int16_0.h5", "barrier_int16_1.h5", "ids_0.h5", "ids_1.h5", "preview_cubes.h5",
                     "raw_0.h5", "raw_1.h5", "synthetic.json"]
    for i in range(2):
        for name, key, dtype, shape in ((f"raw_{i}.h5", "raw", np.uint8, (12, 56, 60)),
                                        (f"barrier_int16_{i}.h5", "lab", np.int16, (8, 40, 40)),
                                        (f"ids_{i}.h5", "ids", np.int32, (8, 40, 40))):
            a = read(data, name, key)
            assert a.dtype == dtype and a.shape == shape
            with h5py.File(data / name, "r") as f:
                assert list(f) == [key]
    with h5py.File(data / "preview_cubes.h5", "r") as f:
        assert sorted(f) == ["0", "1"]
        assert all(f[k].shape == (6, 50, 52) and f[k].dtype == np.uint8 for k in f)
        assert (f["0"][()] != f["1"][()]).any()
    record = json.loads((data / "synthetic.json").read_text())
    assert record["seed"] == 0 and record["raw_shape"] == [12, 56, 60]


def test_labels_are_centred_and_cubes_differ(data):
    for i in range(2):
        raw, ids, barrier = make_volume((12, 56, 60), seed=(0, 0, i))
        np.testing.assert_array_equal(read(data, f"raw_{i}.h5", "raw"), raw)
        np.testing.assert_array_equal(read(data, f"ids_{i}.h5", "ids"), ids[2:-2, 8:-8, 10:-10])
        np.testing.assert_array_equal(read(data, f"barrier_int16_{i}.h5", "lab"), barrier[2:-2, 8:-8, 10:-10])
    assert (read(data, "raw_0.h5", "raw") != read(data, "raw_1.h5", "raw")).any()


def test_barrier_lies_between_the_cells(volume):
    raw, ids, barrier = volume
    assert raw.dtype == np.uint8 and ids.dtype == np.int32 and barrier.dtype == np.int16
    assert raw.shape == ids.shape == barrier.shape == (40, 150, 150)
    assert set(np.unique(barrier)) == {0, 1}
    assert 0.15 < barrier.mean() < 0.4
    assert ids.min() > 0 and len(np.unique(ids)) > 20
    for axis in range(3):
        i, b = np.moveaxis(ids, axis, 0), np.moveaxis(barrier, axis, 0)
        change = i[1:] != i[:-1]
        assert change.any()
        assert b[1:][change].all() and b[:-1][change].all()
    # Without the barrier, no two cells touch; and the barrier is near a change only.
    parts, n = ndimage.label(barrier == 0)
    low, high = (f(ids, parts, np.arange(1, n + 1)) for f in (ndimage.minimum, ndimage.maximum))
    np.testing.assert_array_equal(low, high)
    box = (3, 5, 5)
    one_cell = ndimage.minimum_filter(ids, box) == ndimage.maximum_filter(ids, box)
    assert not barrier[one_cell].any()


def test_each_cell_is_in_one_piece(volume):
    ids = volume[1]
    assert all(ndimage.label(ids == i)[1] == 1 for i in np.unique(ids)[::4])


def test_seed():
    a, b, c = (make_volume((8, 40, 40), seed=s) for s in (5, 5, 6))
    for x, y, z in zip(a, b, c):
        np.testing.assert_array_equal(x, y)
        assert (x != z).any()
    state = np.random.get_state()[1].copy()
    make_volume((8, 40, 40), seed=5)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("kwargs", [dict(shape=(4, 4, 4)), dict(shape=(5, 9, 70)), dict(shape=(8, 40, 40), aniso=1.0),
                                    dict(shape=(8, 40, 40), noise=0, contrast=0, radius=40)])
def test_small_and_odd_volumes(kwargs):
    raw, ids, barrier = make_volume(**kwargs)
    assert raw.shape == ids.shape == barrier.shape == kwargs["shape"]
    assert ids.min() > 0 and raw.std() > 0


def test_grey_value_is_not_enough(volume):
    """No smoothed grey value tells the barrier, but local contrast tells more."""
    raw, _, barrier = volume
    raw = raw.astype(np.float32)
    crop = (slice(5, -5), slice(15, -15, 2), slice(15, -15, 2))

    def score(img):
        a = roc_auc(barrier[crop], img[crop])
        return max(a, 1 - a)

    sigmas = [0] + [(f * s, s, s) for s in (0.5, 1, 2, 4, 8) for f in (0, 0.5, 1)]
    best = max(score(ndimage.gaussian_filter(raw, s)) for s in sigmas)
    assert 0.65 < best <= 0.80
    local = ndimage.gaussian_filter(raw, (0, 5, 5)) - ndimage.gaussian_filter(raw, (0, 1, 1))
    assert score(local) > best + 0.03


def test_existing_data_set(tmp_path, monkeypatch):
    small = dict(SMALL, n_cubes=1)
    path = write_neuro_data(tmp_path, seed=1, **small)
    first = {p.name: p.read_bytes() for p in path.iterdir()}
    with monkeypatch.context() as m:  # the same again: no work
        m.setattr(synthetic, "make_volume", None)
        assert write_neuro_data(tmp_path, seed=1, **small) == path
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_neuro_data(tmp_path, seed=2, **small)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == first
    write_neuro_data(tmp_path, seed=2, overwrite=True, **dict(small, n_cubes=2))
    second = {p.name: p.read_bytes() for p in path.iterdir()}
    assert second["raw_0.h5"] != first["raw_0.h5"] and "raw_1.h5" in second
    write_neuro_data(tmp_path, seed=1, overwrite=True, **small)  # also drops raw_1.h5
    assert {p.name: p.read_bytes() for p in path.iterdir()} == first
    (path / "ids_0.h5").unlink()  # incomplete: made again
    write_neuro_data(tmp_path, seed=1, **small)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == first


def test_foreign_files_are_kept(tmp_path):
    (tmp_path / "raw_0.h5").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"raw_0\.h5.*overwrite"):
        write_neuro_data(tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["raw_0.h5"]
    assert (tmp_path / "raw_0.h5").read_bytes() == b"mine"


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    done = []

    def fail(shape, seed):
        if done:
            raise KeyboardInterrupt
        done.append(make_volume(shape, seed))
        return done[0]

    monkeypatch.setattr(synthetic, "make_volume", fail)
    with pytest.raises(KeyboardInterrupt):
        write_neuro_data(tmp_path, **SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kwargs, match", [
    (dict(label_shape=(8, 39, 40)), "axis x.*even.*raw_shape"),
    (dict(label_shape=(14, 40, 40)), "axis z.*larger"),
    (dict(raw_shape=(60, 200)), "raw_shape must be three integers"),
    (dict(preview_shape=7), "preview_shape must be three integers"),
    (dict(n_cubes=0), "n_cubes"),
    (dict(seed=-1), "seed"),
    (dict(seed=1.5), "seed"),
])
def test_bad_data_set_arguments(tmp_path, kwargs, match):
    with pytest.raises(ValueError, match=match):
        write_neuro_data(tmp_path / "new", **dict(SMALL, **kwargs))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kwargs, match", [
    (dict(shape=(8, 40, 3)), "shape"), (dict(shape="abc"), "shape"), (dict(seed=None), "seed"),
    (dict(seed=()), "seed"), (dict(seed=(1, -2)), "seed"), (dict(aniso=0), "aniso"), (dict(radius="a"), "radius"),
    (dict(noise=float("nan")), "noise"), (dict(contrast=-1), "contrast"),
])
def test_bad_volume_arguments(kwargs, match):
    with pytest.raises(ValueError, match=f"make_volume: {match} must be"):
        make_volume(**dict(dict(shape=(8, 40, 40)), **kwargs))


def test_path_is_a_file(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(NotADirectoryError, match="folder"):
        write_neuro_data(tmp_path / "f", **SMALL)


def test_default_path(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_data_path() == tmp_path / "elektronn2" / "neuro_data_synthetic_24"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_data_path() == tmp_path / "home" / ".cache" / "elektronn2" / "neuro_data_synthetic_24"


def test_command_line(tmp_path, capsys):
    args = [str(tmp_path / "d"), "--raw-shape", "8,40,40", "--label-shape", "4,20,20", "--preview-shape", "4,30,30",
            "--n-cubes", "1"]
    synthetic.main(args)
    assert "Wrote 1 synthetic cubes" in capsys.readouterr().err
    assert read(tmp_path / "d", "barrier_int16_0.h5", "lab").shape == (4, 20, 20)
    for bad in (args + ["--seed", "1"], args + ["--raw-shape", "8,41,40"], args + ["--raw-shape", "8x40"]):
        with pytest.raises(SystemExit) as e:
            synthetic.main(bad)
        assert e.value.code == 2
    assert "--overwrite" in capsys.readouterr().err
    synthetic.main(args + ["--seed", "1", "--overwrite"])
    assert capsys.readouterr().out == ""
