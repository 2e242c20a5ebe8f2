"""Pictures of training as curves; those of images are in :mod:`elektronn2.utils.imageplots` and importable from here.

The functions that draw a file need no display and may run in any thread; they return the ``Figure``, in case it is to be
shown or changed.
"""
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from scipy.ndimage import gaussian_filter

from elektronn2.utils.basic import atomic_write
from elektronn2.utils.imageplots import embedfilters, plot_trainingtarget, scroll_plot

__all__ = ["add_timeticks", "embedfilters", "plot_debug", "plot_exectimes", "plot_hist", "plot_kde", "plot_regression",
           "plot_trainingtarget", "scroll_plot", "sma"]

# colours that colour-blind people can tell apart (Okabe and Ito 2008)
BLUE, ORANGE, GREEN, VERMILLION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, "#cc79a7", "#56b4e9")
GREY = "#777777"
N_POINTS = 2000  # a curve is drawn with about as many


# -- training -----------------------------------------------------------------------------------------
def plot_hist(timeline, history, save_name, loss_smoothing_length=200, autoscale=True, is_regression=False):
    """Write ``<save_name>.timeline.png`` and ``<save_name>.history.png``; returns both figures.

    ``timeline``, ``history``: structured arrays with the fields of :class:`~elektronn2.training.history.HistoryTracker`, of
    any length. ``loss_smoothing_length``: updates in the moving average, in short runs no more than a fifth of them.
    ``autoscale``: let single values not hide the course (a logarithmic axis where losses have changed a lot, else a range
    that holds the averages and mean + 2 standard deviations of the later half); without it, everything is shown on linear
    axes. ``is_regression``: errors are drawn as they are, not in percent.

    The timeline is the loss at each update, and against the prevalence (mean of the batch's target). The history is loss
    and error on training and validation examples, the loss gain by single updates, and the settings of the optimiser.
    """
    figures = [_timeline_figure(timeline, loss_smoothing_length, autoscale),
               _history_figure(history, autoscale, is_regression)]
    for figure, name in zip(figures, ("timeline", "history")):
        _write(figure, f"{save_name}.{name}.png")
    return figures


def _timeline_figure(timeline, length, autoscale):
    figure = Figure((10, 8), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=(3, 2))
    loss, step = timeline["loss"].astype(float), np.arange(1, len(timeline) + 1)
    shown = _sample(len(loss))
    length = min(length, max(len(loss) // 5, 1))
    smooth = sma(loss, length)
    _curve(upper, step[shown], loss[shown], BLUE, "each update", pale=True)
    _curve(upper, step[shown], smooth[shown], BLUE, f"mean of {length} updates")
    last = loss[-200:][np.isfinite(loss[-200:])]
    if len(last):
        mean, std = last.mean(), last.std()
        upper.axhline(mean, color=VERMILLION, ls="--", lw=1, label=f"last {len(last)}: {mean:.4g} ± {std:.2g}")
        for y in (mean - std, mean + std):
            upper.axhline(y, color=VERMILLION, ls=":", lw=1)
    _dress(upper, "update", "loss", step)
    _scale_y(upper, [loss], [smooth], autoscale)
    add_timeticks(upper, step, timeline["time"])
    _legend(upper)

    prevalence = timeline["batch_char"].astype(float)
    points = lower.scatter(prevalence[shown], loss[shown], c=step[shown], s=8, lw=0, cmap=_PALE_TO_DARK)
    _dress(lower, "prevalence (mean of the batch's target)", "loss", prevalence)
    if np.isfinite(prevalence).any() and len(loss) > 1:
        bar = figure.colorbar(points, ax=lower, label="update", pad=0.01)
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_formatter(_PLAIN)
    _scale_y(lower, [loss], [smooth], autoscale)
    return figure


def _history_figure(history, autoscale, is_regression):
    figure = Figure((10, 11), layout="constrained")
    axes = figure.subplots(4, sharex=True, height_ratios=(3, 3, 2, 2))
    step = history["steps"]
    curves = {name: history[name].astype(float) for name in history.dtype.names}

    losses = [curves["train_loss"], curves["valid_loss"]]
    for values, colour, label in zip(losses, (BLUE, ORANGE), ("training", "validation")):
        _curve(axes[0], step, values, colour, label)
    _dress(axes[0], None, "loss", step)
    _scale_y(axes[0], losses, losses, autoscale)
    add_timeticks(axes[0], step, history["time"])

    skip = 2 if len(history) > 3 else 0  # the first errors are far from the rest
    errors = [curves[name][skip:] * (1 if is_regression else 100) for name in ("train_err", "valid_err")]
    means = [sma(e, 8) for e in errors]
    for raw, mean, colour, label in zip(errors, means, (BLUE, ORANGE), ("training", "validation")):
        _curve(axes[1], step[skip:], raw, colour, None, pale=True)
        _curve(axes[1], step[skip:], mean, colour, f"{label} (mean of 8)")
    _dress(axes[1], None, "error" if is_regression else "error [%]", step)
    _scale_y(axes[1], errors, means, autoscale)

    gain = curves["loss_gain"]
    axes[2].axhline(0, color=GREY, lw=1)
    _curve(axes[2], step, gain, GREEN, None, pale=True)
    _curve(axes[2], step, sma(gain, 8), GREEN, "loss after - before an update (mean of 8)")
    _dress(axes[2], None, "loss gain", step)
    _scale_y(axes[2], [gain], [sma(gain, 8)], autoscale, signed=True)

    _curve(axes[3], step, curves["lr"], BLUE, "learning rate")
    _dress(axes[3], "update", "learning rate", step)
    _scale_y(axes[3], [curves["lr"]], [curves["lr"]], autoscale)
    if axes[3].get_yscale() == "linear":
        axes[3].set_ylim(0, 1.05 * (_finite([curves["lr"]]).max(initial=0) or 1))
    right = axes[3].twinx()
    for name, colour, label in (("mom", ORANGE, "momentum"), ("gradnetrate", GREEN, "GradNet rate")):
        if np.any(np.nan_to_num(curves[name])):
            _curve(right, step, curves[name], colour, label)
    _dress(right, None, "momentum, GradNet", step)
    right.grid(False)
    right.set_ylim(0, 1.05)
    right.set_visible(bool(right.lines))
    figure.align_ylabels(axes)
    for ax, others in zip(axes, ((), (), (), right.lines)):
        _legend(ax, others)
    return figure


def plot_debug(debug_outputs, names, save_name):
    """Write ``<save_name>.Debug.png``: each debug output and the loss, as means of 70 updates; returns the figure.

    ``debug_outputs``: (rows, 2 + number of names): step, loss, outputs.
    """
    rows = np.asarray(debug_outputs, float)
    figure = Figure((10, 6), layout="constrained")
    ax = figure.subplots()
    shown = _sample(len(rows))
    smooth = [sma(values, 70) for values in rows[:, 1:].T]
    for i, (values, name) in enumerate(zip(smooth, ("total loss", *names))):
        _curve(ax, rows[shown, 0], values[shown], "black" if i == 0 else COLOURS[(i - 1) % len(COLOURS)], name,
               ls=("-", "--", ":", "-.")[(i - 1) // len(COLOURS) % 4] if i else "-")
    _dress(ax, "update", "mean of 70 updates", rows[:, 0])
    _scale_y(ax, smooth, smooth, True)
    figure.legend(loc="outside right upper", frameon=False)
    _write(figure, f"{save_name}.Debug.png")
    return figure


def plot_regression(pred, target, save_name):
    """Write ``<save_name>.regression.png``, predicted against true values; returns the figure.

    ``pred``, ``target``: arrays of the same size. Of more than 20,000 pairs, that many are drawn.
    """
    pred, target = _pairs(pred, target)
    figure, ax, _ = _regression_axes(pred, target)
    shown = _sample(len(pred), 20_000)
    ax.plot(target[shown], pred[shown], ".", ms=3, mew=0, color=BLUE, alpha=0.4)
    _write(figure, f"{save_name}.regression.png")
    return figure


def plot_kde(pred, target, save_name):
    """Write ``<save_name>.regression_kde.png``, the density of the last 4000 pairs; returns the figure.

    A Gaussian kernel of Scott's width (n^(-1/6) standard deviations), computed on a grid of 200 x 200. Source: Scott 1992,
    Multivariate Density Estimation.
    """
    pred, target = _pairs(pred, target)
    pred, target = pred[-4000:], target[-4000:]
    figure, ax, (low, high) = _regression_axes(pred, target)
    counts, _, _ = np.histogram2d(pred, target, 200, ((low, high),) * 2)
    cell = (high - low) / 200
    width = [max(v.std(), cell) * len(v) ** (-1 / 6) / cell for v in (pred, target)] if len(pred) else 1
    density = gaussian_filter(counts, width, mode="constant") / (max(len(pred), 1) * cell ** 2)
    image = ax.imshow(density, cmap="viridis", origin="lower", extent=(low, high, low, high), zorder=0)
    ax.grid(False)
    bar = figure.colorbar(image, ax=ax, label="density", pad=0.01, shrink=0.85)
    bar.ax.yaxis.set_major_formatter(_PLAIN)
    _write(figure, f"{save_name}.regression_kde.png")
    return figure


def _pairs(pred, target):
    pred, target = np.ravel(pred).astype(float), np.ravel(target).astype(float)
    finite = np.isfinite(pred) & np.isfinite(target)
    return pred[finite], target[finite]


def _regression_axes(pred, target):
    """Figure, axes with the same range on both axes and a diagonal, and that range."""
    both = np.concatenate([pred, target])
    low, high = _widened(both.min(), both.max()) if len(both) else (0, 1)
    figure = Figure((7, 6.5), layout="constrained")
    ax = figure.subplots()
    ax.plot((low, high), (low, high), "--", lw=1, color=VERMILLION)
    if len(pred) > 1:
        rms = np.sqrt(np.mean((pred - target) ** 2))
        r = f", correlation {np.corrcoef(pred, target)[0, 1]:.3f}" if pred.std() > 0 and target.std() > 0 else ""
        ax.set_title(f"{len(pred):,} pairs: rms error {rms:.3g}{r}", fontsize=11)
    _dress(ax, "target", "prediction", both)
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    _plain_ticks(ax)
    return figure, ax, (low, high)


def plot_exectimes(times, save_path="~/exectimes.png", max_items=32):
    """Write a bar chart of the longest ``max_items`` of a dict name -> milliseconds; returns the figure.

    The dict is what ``model.measure_exectimes()`` returns.
    """
    items = sorted(times.items(), key=lambda item: item[1])[-max_items:]
    figure = Figure((8, 1 + 0.25 * max(len(items), 4)), layout="constrained")
    ax = figure.subplots()
    bars = ax.barh([name for name, _ in items], [t for _, t in items], color=BLUE)
    ax.bar_label(bars, [f"{t:.3g}" for _, t in items], padding=3, fontsize=9)
    _dress(ax, "time [ms]", None, list(times.values()))
    ax.set_xlim(0, 1.1 * max((t for _, t in items), default=1) or 1)
    ax.grid(False, axis="y")
    _write(figure, Path(save_path).expanduser())
    return figure


# -- parts --------------------------------------------------------------------------------------------
def sma(c, n):
    """Moving average of the last ``n`` values, of fewer at the start; values that are not finite are left out.

    >>> sma([1, 2, 6, 4], 2)
    array([1. , 1.5, 4. , 5. ])
    """
    c = np.asarray(c, float)
    finite = np.isfinite(c)
    counts = _window_sums(finite, n)
    return np.divide(_window_sums(np.where(finite, c, 0), n), counts, out=np.full(len(c), np.nan), where=counts > 0)


def _window_sums(c, n):
    """Sums over the last ``n`` values, by additions alone: one value that is huge does not spoil the later ones.

    A window is the end of one block of n values and the beginning of the next.
    """
    blocks = np.zeros((-(-len(c) // n) + 1, n))
    blocks.flat[n:n + len(c)] = c
    begins = np.cumsum(blocks[1:], axis=1)
    ends = np.cumsum(blocks[:-1, :0:-1], axis=1)[:, ::-1]  # from each value but the first to the end of the block
    begins[:, :-1] += ends
    return begins.ravel()[:len(c)]


def add_timeticks(ax, steps, times):
    """Put an axis with the training time on top of ``ax``, whose x are steps.

    ``times``: seconds at each of ``steps``; the unit is s, min, h or days, whichever fits.
    """
    times = np.asarray(times, float)
    known = np.isfinite(times)
    steps, times = np.asarray(steps)[known], np.maximum.accumulate(times[known])
    if not len(times) or times[-1] <= times[0]:
        return
    unit, seconds = next((u, s) for u, s, limit in (("s", 1, 180), ("min", 60, 180 * 60), ("h", 3600, 72 * 3600),
                                                    ("days", 86400, np.inf)) if times[-1] <= limit)
    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(times[0] / seconds, times[-1] / seconds)
    ticks = ticks[(ticks * seconds >= times[0]) & (ticks * seconds <= times[-1])]
    top = ax.secondary_xaxis("top")
    top.set_xticks(np.interp(ticks * seconds, times, steps), [f"{t:g} {unit}" for t in ticks])
    top.tick_params(labelsize=9, color=GREY)
    top.spines["top"].set_color(GREY)


# matplotlib's own formatters set exponents with its parser of formulas, which threads may not share
_PLAIN = FuncFormatter(lambda v, _: f"{v + 0:,.0f}" if v == round(v) and abs(v) < 1e9 else f"{v:g}")
_PALE_TO_DARK = LinearSegmentedColormap.from_list("pale_to_dark", ["#cfe3f1", BLUE, "#06233a"])


def _sample(n, most=N_POINTS):
    """Indices of about ``most`` of ``n`` points, the first and last included."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def _curve(ax, x, y, colour, label, pale=False, **style):
    few = np.isfinite(y).sum() <= 40
    ax.plot(x, y, color=colour, label=label, lw=0.8 if pale else 1.8, alpha=0.35 if pale else 1,
            marker="o" if few else None, ms=3, **{"zorder": 2 if pale else 3, **style})


def _dress(ax, xlabel, ylabel, x):
    """Labels, a light grid, plain numbers, and the x range of the data."""
    ax.set_xlabel(xlabel or "", fontsize=10)
    ax.set_ylabel(ylabel or "", fontsize=10)
    ax.grid(True, color="#e5e5e5", lw=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=9, color=GREY)
    for side in ax.spines:
        ax.spines[side].set_visible(side in ("left", "bottom"))
        ax.spines[side].set_color(GREY)
    x = np.asarray(x, float)
    x = x[np.isfinite(x)]
    if len(x):
        ax.set_xlim(*_widened(x.min(), x.max(), 0.01))
    else:
        ax.text(0.5, 0.5, "no data yet", transform=ax.transAxes, ha="center", color=GREY, fontsize=11)


def _scale_y(ax, raw, smooth, autoscale, signed=False):
    """Choose kind and range of the y axis from curves: the single values, and their averages.

    Logarithmic if the averages are positive and vary by more than a factor of 5; else linear, with no more than the averages
    and mean + 2 standard deviations of the later half (``signed``: and mean - 2).
    """
    values, means = _finite(raw), _finite([c[len(c) // 50:] for c in smooth])
    if len(means):
        low, high = values.min(), values.max()
        late = _finite([c[len(c) // 2:] for c in raw])
        if autoscale and not signed and means.min() > 0 and means.max() > 5 * means.min():
            low = np.clip(np.percentile(values[values > 0], 0.5), means.min() / 10, means.min())
            high = min(high, 3 * means.max())
            ax.set_yscale("log")
            ax.set_ylim(low / 1.15, high * 1.15)
            subs = (1, 2, 3, 5, 7) if high < 12 * low else (1, 2, 5) if high < 1000 * low else (1,)
            ax.yaxis.set_major_locator(LogLocator(subs=subs))
        else:
            if autoscale and len(late) > 20:
                high = min(high, max(late.mean() + 2 * late.std(), means.max()))
                low = max(low, min(late.mean() - 2 * late.std(), means.min())) if signed else low
            ax.set_ylim(*_widened(low, high))
    _plain_ticks(ax)


def _finite(curves):
    values = np.concatenate(curves)
    return values[np.isfinite(values)]


def _widened(low, high, margin=0.04):
    """The range with a margin; a range of one value gets some width."""
    if low == high:
        return low - (abs(low) / 2 or 1), high + (abs(low) / 2 or 1)
    return low - margin * (high - low), high + margin * (high - low)


def _plain_ticks(ax):
    ax.xaxis.set_major_formatter(_PLAIN)
    ax.yaxis.set_major_formatter(_PLAIN)
    ax.yaxis.set_minor_formatter(NullFormatter())


def _legend(ax, others=()):
    lines = [line for line in (*ax.lines, *others) if not line.get_label().startswith("_")]
    if lines:
        ax.legend(handles=lines, loc="lower right", bbox_to_anchor=(1, 1.06 if ax.child_axes else 1),
                  fontsize=9, frameon=False, ncols=len(lines))


def _write(figure, path):
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, facecolor="white")
