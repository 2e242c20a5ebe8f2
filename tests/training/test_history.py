"""The history: what comes back from a file, what is refused, what is drawn."""
import csv
import zipfile

import numpy as np
import pytest

from elektronn2.training.history import HISTORY, N_REGRESSION, HistoryTracker, loadhistorytracker

ROW = (100, 2.5, 0.5, np.nan, -0.01, 0.1, 0.2, 1e-3, 0.9, 0.0)


def filled(n=1000):
    """A tracker, and what was given to it."""
    rng = np.random.default_rng(1)
    tracker = HistoryTracker(is_regression=True)
    tracker.register_debug_output_names(["first", "zweiter ä"])
    timeline, debug = rng.normal(size=(n, 3)), rng.normal(size=(n, 4))
    history = rng.normal(size=(n // 10 + 1, 10))
    history[:, 0] = np.arange(len(history)) * 10
    history[0, 3:5], timeline[5, 2] = np.nan, np.nan
    for row in timeline:
        tracker.update_timeline(row)
    for row in debug:
        tracker.update_debug_outputs(list(row))
    for row in history:
        tracker.update_history(tuple(row))
    pairs = rng.normal(size=(2, 40, 3))
    for pred, target in zip(*pairs):
        tracker.update_regression(pred, target)
    return tracker, timeline, history, debug, pairs.reshape(2, -1)


def as_array(structured):
    return np.array(structured.tolist()).reshape(len(structured), -1)


def check(tracker, timeline, history, debug, pairs):
    np.testing.assert_array_equal(as_array(tracker.timeline), timeline.astype("f4"))
    np.testing.assert_array_equal(as_array(tracker.history)[:, 1:], history[:, 1:].astype("f4"))
    np.testing.assert_array_equal(tracker.history["steps"], history[:, 0])
    np.testing.assert_array_equal(tracker.debug_outputs, debug)
    np.testing.assert_array_equal(as_array(tracker.regression_track), pairs.T.astype("f4"))
    assert tracker.debug_output_names == ["first", "zweiter ä"] and tracker.is_regression is True


def test_values_come_back(tmp_path):
    given = filled()
    check(*given)
    given[0].save(tmp_path / "run")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.history.csv", "run.history.npz"]
    loaded = loadhistorytracker(str(tmp_path / "run.history.npz"))
    check(loaded, *given[1:])
    with zipfile.ZipFile(tmp_path / "run.history.npz") as file:
        for name in file.namelist():  # without pickled parts
            np.lib.format.read_array(file.open(name), allow_pickle=False)

    loaded.update_timeline((1, 2, 3))  # a run goes on
    loaded.update_history(ROW)
    loaded.update_debug_outputs([1, 2, 3, 4])
    loaded.update_regression([7], [8])
    assert loaded.timeline[-1].tolist() == (1, 2, 3) and loaded.history["steps"][-1] == 100
    assert loaded.debug_outputs[-1].tolist() == [1, 2, 3, 4] and loaded.regression_track[-1].tolist() == (7, 8)
    check(given[0], *given[1:])
    loaded.save(tmp_path / "run")
    assert len(loadhistorytracker(tmp_path / "run.history.npz").timeline) == 1001


def test_an_empty_history_comes_back(tmp_path):
    HistoryTracker().save(tmp_path / "run")
    loaded = loadhistorytracker(tmp_path / "run.history.npz")
    assert loaded.timeline.shape == loaded.history.shape == loaded.regression_track.shape == (0,)
    assert loaded.debug_output_names == [] and loaded.is_regression is False
    loaded.update_debug_outputs([1, 2])
    loaded.update_timeline([0.5, np.inf, np.nan])
    loaded.update_timeline([0.5, 1e300, np.nan])  # more than a float32 holds
    assert loaded.timeline["loss"].tolist() == [np.inf] * 2


def test_csv(tmp_path):
    tracker = HistoryTracker()
    tracker.update_history((0, 0, *[np.nan] * 8))
    tracker.update_history(ROW)
    tracker.save(tmp_path / "run")
    with open(tmp_path / "run.history.csv", newline="") as f:
        header, first, second = csv.reader(f)
    assert tuple(header) == HISTORY.names
    assert first == ["0", "0.0"] + [""] * 8
    assert second == ["100", "2.5", "0.5", "", "-0.01", "0.1", "0.2", "0.001", "0.9", "0.0"]
    table = np.genfromtxt(tmp_path / "run.history.csv", delimiter=",", names=True)
    assert table["lr"][1] == 1e-3 and np.isnan(table["valid_loss"][1])


def test_appending_is_amortised():
    tracker = HistoryTracker()
    stores = set()
    for i in range(5000):
        tracker.update_timeline((i, i, i))
        stores.add(id(tracker.timeline.base))
    assert len(stores) < 10 and np.array_equal(tracker.timeline["loss"], np.arange(5000))


def test_only_the_last_pairs_of_a_regression_are_kept():
    tracker = HistoryTracker()
    values = np.arange(2.9 * N_REGRESSION)
    for part in np.split(values, 29):
        tracker.update_regression(part, -part)
        assert len(tracker._regression.data) <= 2 * N_REGRESSION
    assert np.array_equal(tracker.regression_track["pred"], values[-N_REGRESSION:].astype("f4"))
    assert np.array_equal(tracker.regression_track["target"], -values[-N_REGRESSION:].astype("f4"))
    tracker.update_regression(np.zeros(N_REGRESSION + 5), np.ones(N_REGRESSION + 5))
    assert len(tracker.regression_track) == N_REGRESSION and not tracker.regression_track["pred"].any()


def test_rows_that_do_not_fit():
    tracker = filled(20)[0]
    with pytest.raises(ValueError, match=r"row of the timeline has 3 values \(time, loss, batch_char\), got 2"):
        tracker.update_timeline((1, 2))
    with pytest.raises(ValueError, match="row of the history has 10 values"):
        tracker.update_history(ROW[:-1])
    with pytest.raises(ValueError, match=r"has 4 values \(step, loss, .*'first'.*got 3.*register_debug_output_names"):
        tracker.update_debug_outputs([1, 2, 3])
    with pytest.raises(ValueError, match="1 names of debug outputs .* but 2 outputs"):
        tracker.register_debug_output_names(["x"])
    with pytest.raises(ValueError, match="3 predicted but 2 target values"):
        tracker.update_regression([1, 2, 3], [1, 2])
    tracker.register_debug_output_names(["a", "b"])
    assert tracker.debug_output_names == ["a", "b"] and len(tracker.debug_outputs) == 20


def test_foreign_files_are_refused(tmp_path):
    tracker, *given = filled(30)
    path = tmp_path / "x.history.npz"
    with pytest.raises(FileNotFoundError, match=r"There is no history file .*x\.history\.npz"):
        tracker.load(path)
    (tmp_path / "run.history.pkl").write_bytes(b"\x80\x02]q\x00.")
    with pytest.raises(ValueError, match="named <name>.history.npz.*Pickled histories"):
        tracker.load(tmp_path / "run.history.pkl")
    for content in (b"time,loss\n", b"", b"\x80\x02]q\x00."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.history\.npz \(\d+ bytes\) is no history file"):
            tracker.load(path)
    tracker.save(tmp_path / "good")
    with np.load(tmp_path / "good.history.npz") as file:
        good = dict(file)
    others = [dict(a=np.zeros(3)), {**good, "format": "elektronn2 history 9"}, {**good, "timeline": np.zeros((3, 3))},
              {**good, "debug_output_names": np.array(["a"])}, {**good, "history": np.array([None], object)},
              {**good, "debug_output_names": np.arange(2)},
              *[{k: v for k, v in good.items() if k != left_out} for left_out in good]]
    for arrays in others:
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match="is no history file that HistoryTracker.save wrote, or it is damaged: "):
            tracker.load(path)
    check(tracker, *given)  # a failed load changes nothing


def test_damaged_files_are_noticed(tmp_path, rng):
    tracker, *given = filled(30)
    tracker.save(tmp_path / "run")
    path = tmp_path / "run.history.npz"
    whole = path.read_bytes()
    damaged = [whole[:n] for n in rng.integers(0, len(whole), 40)] + [whole + whole[:100]]
    for at in rng.integers(0, len(whole), 300):
        damaged.append(whole[:at] + bytes([whole[at] ^ (1 << rng.integers(8))]) + whole[at + 1:])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            loaded = loadhistorytracker(path)
        except ValueError as error:
            assert "is no history file" in str(error)
            refused += 1
        else:
            check(loaded, *given)  # what the damage did not touch, such as a date
    assert refused > 0.7 * len(damaged)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    tracker, *given = filled(30)
    tracker.save(tmp_path / "run")

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")
    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError):
        tracker.save(tmp_path / "run")
    check(loadhistorytracker(tmp_path / "run.history.npz"), *given)
    assert len(list(tmp_path.iterdir())) == 2


def test_pictures(tmp_path):
    tracker = filled(50)[0]
    tracker.timeline["loss"] = np.arange(50)
    assert tracker.plot(tmp_path / "run") is None
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"0-run.{kind}.png" for kind in ("Debug", "history", "regression", "regression_kde", "timeline")]
    figures = tracker.plot(str(tmp_path / "0-run"), close=False, loss_smoothing_length=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == names and len(figures) == 5
    mean = next(line for line in figures[0].axes[0].lines if line.get_label() == "mean of 4 updates")
    assert mean.get_ydata()[-1] == 47.5
    assert figures[1].axes[1].get_ylabel() == "error"  # of a regression, not in percent
    assert [t.get_text() for t in figures[2].legends[0].get_texts()] == ["total loss", "first", "zweiter ä"]

    folder = tmp_path / "plain"
    folder.mkdir()
    figures = HistoryTracker().plot(folder / "run", close=False, autoscale=False)
    assert sorted(p.name for p in folder.iterdir()) == ["0-run.history.png", "0-run.timeline.png"]
    assert figures[1].axes[1].get_ylabel() == "error [%]"
