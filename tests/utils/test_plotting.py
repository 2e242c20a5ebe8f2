"""Curves of training: what is drawn, against the data; that nothing in the data breaks them; that no display is needed."""
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.image import imread

from elektronn2.training.history import HISTORY, TIMELINE
from elektronn2.utils import plotting


def make_timeline(loss, time=None, prevalence=0.3):
    rows = np.zeros(len(loss), TIMELINE)
    rows["loss"], rows["batch_char"] = loss, prevalence
    rows["time"] = np.arange(len(loss)) + 1.0 if time is None else time
    return rows


def make_history(loss, **fields):
    rows = np.zeros(len(loss), HISTORY)
    rows["steps"] = rows["time"] = 10 * np.arange(len(loss))
    for name in ("train_loss", "valid_loss", "train_err", "valid_err"):
        rows[name] = loss
    rows["lr"], rows["mom"] = 1e-3, 0.9
    for name, values in fields.items():
        rows[name] = values
    return rows


def decay(n, low=0.05, seed=0):
    return (low + np.exp(-np.arange(n) / (n / 8 + 1))) * np.exp(np.random.default_rng(seed).normal(0, 0.2, n))


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.lines}


def slow_sma(c, n, at=None):
    means = []
    for i in range(len(c)) if at is None else at:
        window = [v for v in c[max(0, i - n + 1):i + 1] if np.isfinite(v)]
        means.append(np.mean(window) if window else np.nan)
    return np.array(means)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9, 30])
def test_moving_average(n, rng):
    c = rng.normal(5, 1, 25)
    np.testing.assert_allclose(plotting.sma(c, n), slow_sma(c, n))
    c[[3, 4, 5, 17]], c[20], c[10] = np.nan, np.inf, 1e30
    c = np.r_[np.nan, c]
    np.testing.assert_allclose(plotting.sma(c, n), slow_sma(c, n))  # the value of 1e30 leaves no trace after it
    assert len(plotting.sma([], n)) == 0


def test_timeline_is_smoothed_before_points_are_left_out(tmp_path):
    n = 30_001
    loss = 1 + (np.arange(n) % 15 == 0)  # of 2000 points, every one lies on a peak
    figure, _ = plotting.plot_hist(make_timeline(loss), make_history([1.0]), tmp_path / "a", 150)
    upper, lower = figure.axes[:2]
    drawn = lines(upper)
    raw, mean = drawn["each update"], drawn["mean of 150 updates"]
    assert 1900 < len(raw) == len(mean) <= 2000 and len(lower.collections[0].get_offsets()) == len(raw)
    at = raw[:, 0].astype(int) - 1
    assert at[0] == 0 and at[-1] == n - 1 and np.array_equal(raw[:, 1], loss[at])
    np.testing.assert_allclose(mean[:, 1], slow_sma(loss, 150, at), rtol=1e-6)
    assert mean[-1, 1] == pytest.approx(16 / 15)
    assert upper.get_legend().get_texts()[-1].get_text() == f"last 200: 1.07 ± {loss[-200:].std():.2g}"


def test_scatter_of_loss_and_prevalence(tmp_path, rng):
    loss, prevalence = decay(500), rng.random(500)
    figure, _ = plotting.plot_hist(make_timeline(loss, prevalence=prevalence), make_history([1.0]), tmp_path / "a")
    points = figure.axes[1].collections[0]
    np.testing.assert_allclose(points.get_offsets(), np.c_[prevalence, loss], rtol=1e-6)
    brightness = points.get_cmap()(points.norm(points.get_array()))[:, :3].mean(axis=1)
    assert np.all(np.diff(brightness) <= 0) and brightness[-1] < 0.2 < 0.8 < brightness[0]  # recent points are darker
    assert figure.axes[1].get_yscale() == figure.axes[0].get_yscale() == "log"


def test_history_curves(rng):
    loss = decay(50)
    gain, err, lr = rng.normal(0, 0.01, 50), rng.random((2, 50)), np.linspace(1e-3, 0, 50)
    gain[0] = np.nan
    rows = make_history(loss, valid_loss=2 * loss, loss_gain=gain, train_err=err[0], valid_err=err[1], lr=lr)
    for is_regression, factor, label in ((False, 100, "error [%]"), (True, 1, "error")):
        figure = plotting._history_figure(rows, True, is_regression)
        losses, errors, gains, rates, right = figure.axes
        steps = rows["steps"]

        def check(ax, label, x, y):
            np.testing.assert_allclose(lines(ax)[label], np.c_[x, y], rtol=1e-4, atol=1e-7)
        check(losses, "training", steps, loss)
        check(losses, "validation", steps, 2 * loss)
        check(errors, "training (mean of 8)", steps[2:], factor * slow_sma(err[0, 2:], 8))
        check(errors, "validation (mean of 8)", steps[2:], factor * slow_sma(err[1, 2:], 8))
        assert sorted(len(line.get_xdata()) for line in errors.lines) == [48] * 4  # the first two are left out
        assert errors.get_ylabel() == label
        check(gains, "loss after - before an update (mean of 8)", steps, slow_sma(gain, 8))
        check(rates, "learning rate", steps, lr)
        check(right, "momentum", steps, 0.9 * np.ones(50))
        assert right.get_visible() and "GradNet rate" not in lines(right)
    rows["mom"], rows["gradnetrate"] = 0, 0.5
    figure = plotting._history_figure(rows, True, False)
    assert list(lines(figure.axes[4])) == ["GradNet rate"]


def test_y_range(rng):
    def upper(loss, autoscale=True):
        return plotting._timeline_figure(make_timeline(loss), 200, autoscale).axes[0]
    assert upper(decay(1000, low=0.01)).get_yscale() == "log"
    assert upper(decay(1000, low=0.01) - 0.5).get_yscale() == "linear"  # not positive
    noisy = rng.normal(1, 0.1, 1000)
    noisy[[300, 301]] = 500, -3
    ax = upper(noisy)
    assert ax.get_yscale() == "linear" and ax.get_ylim()[1] < 5  # the outlier, but not the average, is cut off
    ax = upper(decay(1000, low=0.01), autoscale=False)
    assert ax.get_yscale() == "linear" and ax.get_ylim()[1] > 1
    assert upper(noisy, autoscale=False).get_ylim()[1] > 500
    for loss in (noisy, decay(400), decay(400) * np.exp(np.linspace(0, 9, 400)), np.r_[decay(5), -2]):
        ax = upper(loss)
        mean = next(v for k, v in lines(ax).items() if k.startswith("mean of"))[len(loss) // 50:, 1]
        low, high = ax.get_ylim()
        assert low <= mean.min() and mean.max() <= high


@pytest.mark.parametrize("total, ticks", [
    (100, ["20 s", "40 s", "60 s", "80 s", "100 s"]),
    (1500, ["5 min", "10 min", "15 min", "20 min", "25 min"]),
    (36000, ["2 h", "4 h", "6 h", "8 h", "10 h"]),
    (864000, ["2 days", "4 days", "6 days", "8 days", "10 days"])])
def test_time_axis(total, ticks):
    ax = plotting.Figure().subplots()
    steps = np.arange(1, 1001)
    times = total * np.where(steps < 500, steps / 1000, 0.5 + (steps - 500) / 1000)
    times[100] = np.nan
    times[700:] = 0.7 * total + 0.3 * total * (np.arange(300) / 299) ** 2  # slower, then faster
    plotting.add_timeticks(ax, steps, times)
    top, = ax.child_axes
    labels = [t.get_text() for t in top.get_xticklabels()]
    assert [label for label in labels if label in ticks] == ticks
    units = dict(s=1, min=60, h=3600, days=86400)
    for label, position in zip(labels, top.get_xticks()):
        number, unit = label.split()
        seconds = float(number) * units[unit]
        i = np.nanargmin(np.abs(times - seconds))
        assert abs(steps[i] - position) <= 1.5, label


NASTY = {
    "nothing": [], "one": [0.7], "two": [0.7, 0.6], "nan": [np.nan] * 3, "one nan": [np.nan], "inf": [np.inf, 0.5, -np.inf],
    "constant": [0.5] * 300, "zeros": [0.0] * 300, "negative": -decay(300), "huge": [3e38] * 100 + [-3e38] * 100,
    "spike": np.r_[decay(300), 1e30, decay(300)], "tiny": [1e-40] * 50, "from 0": np.r_[0.0, decay(300)],
    "diverging": np.exp(np.linspace(0, 80, 300)), "late nan": np.r_[decay(300), [np.nan] * 300],
}


@pytest.mark.parametrize("name", NASTY)
def test_no_data_break_the_history(tmp_path, name):
    """Warnings are errors here."""
    loss = np.asarray(NASTY[name], "f4")
    plotting.plot_hist(make_timeline(loss), make_history(loss, loss_gain=loss), tmp_path / "a")
    assert {p.name: imread(p).shape[:2] for p in tmp_path.iterdir()} == {"a.timeline.png": (800, 1000),
                                                                         "a.history.png": (1100, 1000)}


@pytest.mark.parametrize("name", ["nothing", "one", "one nan", "inf", "constant", "huge"])
def test_no_data_break_the_others(tmp_path, name):
    loss = np.asarray(NASTY[name], "f4")
    prevalence = np.resize([0.1, np.nan, 1], len(loss))
    plotting.plot_hist(make_timeline(loss, np.resize([np.nan, 7], len(loss)), prevalence),
                       make_history(loss, time=np.nan, lr=loss, mom=loss), tmp_path / "a", autoscale=False)
    plotting.plot_debug(np.c_[np.arange(len(loss)), loss, loss, -loss], ["x", "y"], tmp_path / "a")
    plotting.plot_regression(loss, loss[::-1], tmp_path / "a")
    plotting.plot_kde(loss, np.ones(len(loss)), tmp_path / "a")
    assert len(list(tmp_path.iterdir())) == 5


def test_no_data_are_said(tmp_path):
    for figure in plotting.plot_hist(make_timeline([]), make_history([]), tmp_path / "a"):
        assert "no data yet" in [t.get_text() for t in figure.axes[0].texts]


def test_debug_outputs(tmp_path, rng):
    rows = np.c_[np.arange(1, 6001), rng.random((6000, 3)) + [3, 2, 1]]
    ax, = plotting.plot_debug(rows, ["first", "second"], tmp_path / "a").axes
    drawn = lines(ax)
    assert list(drawn) == ["total loss", "first", "second"]
    for values, curve in zip(rows[:, 1:].T, drawn.values()):
        at = curve[:, 0].astype(int) - 1
        assert 1900 < len(at) <= 2000
        np.testing.assert_allclose(curve[:, 1], slow_sma(values, 70, at))


def test_regression_and_density(tmp_path, rng):
    target = rng.normal(0, 2, 9000)
    pred = target + rng.normal(0, 0.5, 9000)
    pred[5] = np.nan
    ax = plotting.plot_regression(pred.reshape(90, 100), target.reshape(90, 100), tmp_path / "a").axes[0]
    finite = np.isfinite(pred)
    np.testing.assert_array_equal(ax.lines[-1].get_xydata(), np.c_[target, pred][finite])
    rms = np.sqrt(np.mean((pred - target)[finite] ** 2))
    r = np.corrcoef(pred[finite], target[finite])[0, 1]
    assert ax.get_title() == f"8,999 pairs: rms error {rms:.3g}, correlation {r:.3f}"

    pred, target = pred[-4000:], target[-4000:]
    pred[:1000] += 2
    image = plotting.plot_kde(np.r_[np.full(500, 99), pred], np.r_[np.ones(500), target], tmp_path / "a").axes[0].images[0]
    density, (low, high, *_) = image.get_array(), image.get_extent()
    assert high < 20  # the first 500 are not in it
    centres = low + (np.arange(200) + 0.5) * (high - low) / 200
    assert density.sum() * (centres[1] - centres[0]) ** 2 == pytest.approx(1, abs=0.01)
    widths = pred.std() * 4000 ** (-1 / 6), target.std() * 4000 ** (-1 / 6)
    for i, j in ((60, 60), (130, 110), (100, 90), (170, 30)):  # rows are predictions; against the sum over kernels
        kernel = np.exp(-0.5 * (((centres[i] - pred) / widths[0]) ** 2 + ((centres[j] - target) / widths[1]) ** 2))
        assert density[i, j] == pytest.approx(kernel.mean() / (2 * np.pi * widths[0] * widths[1]), rel=0.05, abs=1e-6)


def test_execution_times(tmp_path):
    times = {f"node{i}": float((7 * i) % 11) for i in range(11)}
    ax, = plotting.plot_exectimes(times, tmp_path / "times.png", max_items=4).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["node1", "node9", "node6", "node3"]
    assert [bar.get_width() for bar in ax.patches] == [7, 8, 9, 10]
    plotting.plot_exectimes({}, tmp_path / "times.png")
    assert [p.name for p in tmp_path.iterdir()] == ["times.png"]


def test_drawing_in_threads_gives_the_same_pictures(tmp_path):
    def draw(i):
        plotting.plot_hist(make_timeline(decay(900, 0.01, seed=i % 2)), make_history(decay(60)),
                           tmp_path / f"{i}")
        return (tmp_path / f"{i}.timeline.png").read_bytes()
    alone = [draw(i) for i in (0, 1)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, range(2, 6))) == alone * 2
    assert alone[0] != alone[1]


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    plotting.plot_exectimes({"a": 1.0}, tmp_path / "t.png")
    before = (tmp_path / "t.png").read_bytes()

    def fail(self, file, **kwargs):
        with open(file, "wb") as f:
            f.write(b"half")
        raise OSError("No space left on device")
    monkeypatch.setattr(plotting.Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space"):
        plotting.plot_exectimes({"b": 1.0}, tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_no_display_library_is_imported():
    code = ("import sys, elektronn2.training.history; print([m for m in sys.modules if m == 'matplotlib.pyplot' "
            "or m.startswith(('tkinter', 'PyQt'))])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
