"""The history of a training run: what was measured at every step and at every history step."""
import csv
import zipfile
from pathlib import Path

import numpy as np

from elektronn2.config import config
from elektronn2.utils import plotting
from elektronn2.utils.basic import atomic_write

FORMAT = "elektronn2 history 1"
TIMELINE = np.dtype([(name, "f4") for name in ("time", "loss", "batch_char")])
HISTORY = np.dtype([("steps", "i4"), *((name, "f4") for name in (
    "time", "train_loss", "valid_loss", "loss_gain", "train_err", "valid_err", "lr", "mom", "gradnetrate"))])
REGRESSION = np.dtype([("pred", "f4"), ("target", "f4")])
N_REGRESSION = 100_000


class GrowingArray:
    """An array to whose end rows are added; ``data`` is the part in use. Appending takes constant time on average."""

    def __init__(self, data):
        self._store, self._n = np.array(data), len(data)

    @property
    def data(self):
        return self._store[:self._n]

    def extend(self, rows):
        end = self._n + len(rows)
        if end > len(self._store):
            store = np.zeros((max(2 * end, 100), *self._store.shape[1:]), self._store.dtype)
            store[:self._n] = self.data
            self._store = store
        self._store[self._n:end] = rows
        self._n = end


class HistoryTracker:
    """Losses, errors and settings of a training run, to be saved and drawn.

    Structured arrays, with numbers as float32 and steps as int32; what is not known is nan:

    - ``timeline``, a row per update: ``time`` (training time in s), ``loss``, ``batch_char`` (mean of the batch's target)
    - ``history``, a row per history step, also before the first update: ``steps`` (updates so far), ``time``,
      ``train_loss``, ``valid_loss``, ``loss_gain`` (loss of the last batch after its update minus before),
      ``train_err``, ``valid_err``, ``lr``, ``mom``, ``gradnetrate``
    - ``debug_outputs``, float64 (rows, 2 + number of outputs): step, loss, debug outputs named ``debug_output_names``
    - ``regression_track``: the last 100,000 pairs ``pred``, ``target``

    ``is_regression``: errors have the unit of the target; otherwise they are rates, drawn in percent.

    >>> tracker = HistoryTracker()
    >>> tracker.update_timeline((0.5, 0.693, 0.2))
    >>> tracker.timeline['loss']
    array([0.693], dtype=float32)
    """

    def __init__(self, is_regression=False):
        self.is_regression = bool(is_regression)
        self.debug_output_names = []
        self._timeline, self._history = GrowingArray(np.empty(0, TIMELINE)), GrowingArray(np.empty(0, HISTORY))
        self._debug_outputs = GrowingArray(np.empty((0, 2)))
        self._regression = GrowingArray(np.empty(0, REGRESSION))

    timeline = property(lambda self: self._timeline.data)
    history = property(lambda self: self._history.data)
    debug_outputs = property(lambda self: self._debug_outputs.data)
    regression_track = property(lambda self: self._regression.data[-N_REGRESSION:])

    def update_timeline(self, values):
        """Add a row: time, loss, batch_char. ValueError for another number of values."""
        self._timeline.extend(_row(values, TIMELINE, "timeline"))

    def update_history(self, values):
        """Add a row, in the order of the fields of ``history``. ValueError for another number of values."""
        self._history.extend(_row(values, HISTORY, "history"))

    def register_debug_output_names(self, names):
        """Name the debug outputs, before the first row of them. ValueError if rows of another length exist."""
        names = [str(n) for n in names]
        if len(self.debug_outputs) and len(names) != len(self.debug_output_names):
            raise ValueError(f"{len(names)} names of debug outputs {names}, but {len(self.debug_output_names)} outputs are "
                             f"recorded: {self.debug_output_names}.")
        self.debug_output_names = names
        if not len(self.debug_outputs):
            self._debug_outputs = GrowingArray(np.empty((0, 2 + len(names))))

    def update_debug_outputs(self, values):
        """Add a row: step, loss, and a number per debug output. ValueError for another number of values."""
        expected = 2 + len(self.debug_output_names)
        if len(values) != expected:
            raise ValueError(f"A row of debug outputs has {expected} values (step, loss, *{self.debug_output_names}), got "
                             f"{len(values)}. Name the outputs with register_debug_output_names first.")
        self._debug_outputs.extend(np.array([values], float))

    def update_regression(self, pred, target):
        """Add predicted and true values, two arrays of the same size. ValueError if the sizes differ."""
        if np.size(pred) != np.size(target):
            raise ValueError(f"{np.size(pred)} predicted but {np.size(target)} target values: give as many.")
        rows = np.empty(np.size(pred), REGRESSION)
        with np.errstate(over="ignore"):
            rows["pred"], rows["target"] = np.ravel(pred), np.ravel(target)
        self._regression.extend(rows[-N_REGRESSION:])
        if len(self._regression.data) > 2 * N_REGRESSION:
            self._regression = GrowingArray(self.regression_track)

    # -- files -----------------------------------------------------------------------------------
    def save(self, name):
        """Write ``<name>.history.npz``, which :meth:`load` reads, and ``<name>.history.csv``, the rows of ``history``.

        Unknown values are empty in the CSV. Earlier files of the name are replaced, each at once.
        """
        with atomic_write(f"{name}.history.npz") as temporary, open(temporary, "wb") as f:
            np.savez(f, format=FORMAT, is_regression=self.is_regression, timeline=self.timeline, history=self.history,
                     debug_outputs=self.debug_outputs, regression_track=self.regression_track,
                     debug_output_names=np.array(self.debug_output_names, str))
        with atomic_write(f"{name}.history.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
            writer = csv.writer(f)
            writer.writerow(HISTORY.names)
            writer.writerows(["" if np.isnan(v) else str(v) for v in row] for row in self.history)

    def load(self, file):
        """Replace everything by what :meth:`save` wrote to ``file`` (``<name>.history.npz``).

        Raises FileNotFoundError, or ValueError for a file that is damaged or not of this kind; nothing is changed then.
        """
        path = Path(file).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"There is no history file {path}.")
        if not path.name.endswith(".npz"):
            raise ValueError(f"{path} is no history file: those are named <name>.history.npz. (Pickled histories of the "
                             "first ELEKTRONN2 are not opened, as opening a pickle can execute code.)")
        try:
            saved = _read(path)
        except Exception as error:  # zipfile, zlib and numpy raise their own and plain types
            raise ValueError(f"{path} ({path.stat().st_size} bytes) is no history file that HistoryTracker.save wrote, or "
                             f"it is damaged: {error}. Take an earlier copy, or start without.") from None
        self.is_regression, self.debug_output_names = bool(saved["is_regression"]), saved["debug_output_names"].tolist()
        self._timeline, self._history = GrowingArray(saved["timeline"]), GrowingArray(saved["history"])
        self._debug_outputs = GrowingArray(saved["debug_outputs"])
        self._regression = GrowingArray(saved["regression_track"])

    # -- pictures --------------------------------------------------------------------------------
    def plot(self, save_name, autoscale=True, close=True, loss_smoothing_length=None):
        """Draw ``timeline``, ``history`` and, where there are any, debug outputs and regression.

        The files are ``0-<save_name>.timeline.png``, ``.history.png``, ``.Debug.png``, ``.regression.png`` and
        ``.regression_kde.png``; ``save_name`` may hold a folder, and the ``0-``. ``autoscale`` as in
        :func:`~elektronn2.utils.plotting.plot_hist`; ``loss_smoothing_length``: updates in the moving average (default: the
        setting of that name). With ``close=False`` the figures are returned, to be shown in a notebook.
        """
        path = Path(save_name).expanduser()
        name = str(path if path.name.startswith("0-") else path.with_name(f"0-{path.name}"))
        length = config.loss_smoothing_length if loss_smoothing_length is None else loss_smoothing_length
        figures = plotting.plot_hist(self.timeline, self.history, name, length, autoscale, self.is_regression)
        if len(self.debug_outputs):
            figures.append(plotting.plot_debug(self.debug_outputs, self.debug_output_names, name))
        if len(self.regression_track):
            pairs = self.regression_track["pred"], self.regression_track["target"]
            figures += [plotting.plot_regression(*pairs, name), plotting.plot_kde(*pairs, name)]
        return None if close else figures


def loadhistorytracker(file):
    """The :class:`HistoryTracker` that was saved to ``file`` (``<name>.history.npz``)."""
    tracker = HistoryTracker()
    tracker.load(file)
    return tracker


def _row(values, dtype, name):
    if len(values) != len(dtype.names):
        raise ValueError(f"A row of the {name} has {len(dtype.names)} values ({', '.join(dtype.names)}), got {len(values)}.")
    with np.errstate(over="ignore"):  # beyond float32 is inf
        return np.array([tuple(values)], dtype)


def _read(path):
    """The arrays of a history file, checked."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
        if damaged:
            raise ValueError(f"the checksum of {damaged} is wrong")
    with np.load(path, allow_pickle=False) as file:
        saved = {name: file[name] for name in file.files}
    if saved.get("format") != FORMAT:
        raise ValueError(f"its format is {saved.get('format')}, not {FORMAT!r}")
    names = saved.get("debug_output_names", np.empty(0, str))
    expected = dict(timeline=(TIMELINE, 1), history=(HISTORY, 1), regression_track=(REGRESSION, 1), is_regression=(bool, 0),
                    debug_outputs=(float, 2), debug_output_names=(names.dtype if names.dtype.kind == "U" else str, 1))
    for name, (dtype, ndim) in expected.items():
        if name not in saved:
            raise ValueError(f"it has no {name}")
        if saved[name].dtype != dtype or saved[name].ndim != ndim:
            raise ValueError(f"{name} has dtype {saved[name].dtype} and {saved[name].ndim} axes")
    if saved["debug_outputs"].shape[1] != 2 + len(saved["debug_output_names"]):
        raise ValueError("names and values of the debug outputs do not fit")
    return saved
