"""Schedules: rules by which a learning rate or another variable changes while a network is trained."""
import itertools
import math
import operator

import numpy as np

from elektronn2.utils.validate import suggest

PERIOD = 1000  # steps between the changes of 'dec' and 'lindec'
KINDS = ("dec", "lindec", "updates", "warmup", "cosine")


class Schedule:
    """One variable's value as a function of the training step ``i``, the number of updates made so far.

    With v the value when the schedule was bound, it is, by keyword:

    - ``dec=f``: v * f^k, k = floor(i / 1000)
    - ``lindec=[n, d]``: v - k * 1000 * d / n, but no further than 0, and 0 from step n on. ``d`` is not a start value: where
      v = d the line leads straight to 0
    - ``cosine=n``: v * (1 + cos(pi * i / n)) / 2, and 0 from step n on
    - ``updates=[(step, value), ...]``, steps ascending: each value from its step on, v before. Values may be of any type
    - ``warmup=w``: v * i / w until step w, alone or beside ``dec`` or ``cosine``; the cosine then begins at step w:
      v * (1 + cos(pi * (i - w) / (n - w))) / 2

    Numbers may be lists (``dropout_rates``), which change element by element. Source of cosine: Loshchilov and Hutter 2016,
    SGDR, eq. 5 with one period.

    A value that is set by hand in between is taken over: ``updates`` keep it until their next step, ``lindec`` goes on from
    it with the same slope, the others go on from it in proportion, and a warm-up ends with it. After the last step of a
    schedule nothing is written any more.

    >>> from types import SimpleNamespace
    >>> model = SimpleNamespace(lr=0.1)
    >>> schedule = Schedule(dec=0.5)
    >>> schedule.bind_variable(obj=model, prop_name='lr')
    >>> schedule
    <Schedule of lr: dec=0.5 every 1000 steps, next update at 1000>
    >>> schedule.update(2500)
    >>> model.lr
    0.025

    Raises ValueError or TypeError for an unknown kind, a bad number, or kinds that do not go together.
    """

    def __init__(self, **kwargs):
        for name in kwargs:
            if name not in KINDS:
                raise ValueError(f"There is no kind of schedule {name!r}; there are {', '.join(KINDS)}."
                                 f"{suggest(name, KINDS)}")
        mains = [k for k in kwargs if k != "warmup"]
        if not kwargs:
            raise ValueError(f"A schedule needs a kind: {', '.join(KINDS)}.")
        if len(mains) > 1:
            raise ValueError(f"A schedule follows one rule, got {' and '.join(mains)}. Keep one of them.")
        self.kind = mains[0] if mains else None
        if "warmup" in kwargs and self.kind in ("updates", "lindec"):
            raise ValueError(f"'warmup' cannot be used with {self.kind!r}, whose steps are absolute; it goes with 'dec' and "
                             "'cosine'. For a slow start, let the first 'updates' be small.")
        self.kwargs = kwargs
        self.warmup = _steps(kwargs["warmup"], "warmup") if "warmup" in kwargs else 0
        self.end = math.inf  # the step of the last change
        if self.kind == "dec":
            self.factor = _number(kwargs["dec"], "dec", above=0)
        elif self.kind == "lindec":
            n, drop = _pair(kwargs["lindec"], "lindec must be [number of steps, value]")
            self.end = _steps(n, "the number of steps in lindec")
            self.drop = _number(drop, "the value in lindec")
        elif self.kind == "cosine":
            self.end = _steps(kwargs["cosine"], "cosine")
            if self.end <= self.warmup:
                raise ValueError(f"The cosine ends at step {self.end}, before the warm-up of {self.warmup} steps does. Both "
                                 f"are counted from the start of training: let cosine be above {self.warmup}.")
        elif self.kind == "updates":
            self.updates = _updates(kwargs["updates"])
            self.end = self.updates[-1][0]
        else:
            self.end = self.warmup
        self.name = None

    def bind_variable(self, variable_param=None, obj=None, prop_name=None):
        """Let the schedule set ``variable_param`` (a parameter), or else the attribute ``prop_name`` of ``obj``.

        Its value now is that from which the schedule starts. The values of ``updates``, and the 0 that other kinds lead to
        or begin with, are tried, so that one that cannot be set is found before training. Raises AttributeError if there is
        no such attribute, TypeError if it is no number and the schedule computes with it, ValueError if it is empty or
        refuses a value.
        """
        if (variable_param is None) == (obj is None) or (obj is None) != (prop_name is None):
            raise TypeError("bind_variable needs either variable_param, or obj and prop_name.")
        if obj is not None and not hasattr(obj, prop_name):
            raise AttributeError(f"A schedule cannot be bound: {type(obj).__name__} has no attribute {prop_name!r}."
                                 f"{suggest(prop_name, [n for n in dir(obj) if not n.startswith('_')])}")
        self._param, self._obj = variable_param, obj
        self.name = prop_name if variable_param is None else variable_param.name
        start = self._read()
        if not isinstance(start, str) and np.size(start) == 0:
            raise ValueError(f"A schedule for {self.name} changes nothing: the model has no {self.name}.")
        if self.kind != "updates" and np.asarray(start).dtype.kind not in "fiu":
            raise TypeError(f"{self.name} is {start!r}: only 'updates' can schedule a value that is no number.")
        if self.kind == "updates":
            trials = [value for _, value in self.updates]
        else:
            start_value = np.asarray(start, float)
            reaches_zero = self.warmup or self.kind in ("lindec", "cosine")
            trials = [start_value.tolist(), *([(0 * start_value).tolist()] if reaches_zero else ())]
        for value in [*trials, start]:
            try:
                self._write(value)
            except Exception as error:
                raise ValueError(f"The schedule of {self.name} cannot set it to {value!r}: {error}") from error
        self._base, self._last = start, self._read()
        self._step, self._warm = -1, bool(self.warmup)

    def update(self, iteration):
        """Set the variable to its value after ``iteration`` updates.

        To be called before the first step, then after each. Steps may be left out, and a run may go on at any step: the
        value depends on nothing but the step (and what was set by hand).
        """
        if self.name is None:
            raise ValueError(f"{self} has no variable to update: call bind_variable first.")
        if self._step <= iteration and (self.next_update is None or iteration < self.next_update):
            return
        current = self._read()
        if self.kind != "updates" and not np.array_equal(current, self._last):
            self._take_over(current)
        before = self._step
        self._step = iteration
        if self.kind == "updates":
            passed = [value for step, value in self.updates if step <= iteration]
            if passed or before > iteration:
                self._write(passed[-1] if passed else self._base)
        else:
            self._write(self._value(iteration))
        self._last = self._read()

    @property
    def next_update(self):
        """The next step at which the variable changes; None after the last."""
        step = self._step if self.name is not None else -1
        if step >= self.end:
            return None
        if self.kind == "updates":
            return next(s for s, _ in self.updates if s > step)
        if self.warmup and step < self.warmup:
            return step + 1
        step = max(step, 0)
        return step + 1 if self.kind == "cosine" else min((step // PERIOD + 1) * PERIOD, self.end)

    def get_state(self):
        """Dict of plain values, with which :meth:`set_state` lets a schedule go on where this one is."""
        return dict(base=_plain(self._base), last=_plain(self._last), step=self._step, warm=self._warm)

    def set_state(self, state):
        """After :meth:`bind_variable`: go on from the state of another schedule. The variable is not set."""
        self._base, self._last, self._step, self._warm = (state[k] for k in ("base", "last", "step", "warm"))

    def _curve(self, i):
        """What a number is multiplied with at step ``i``, the warm-up apart."""
        if self.kind == "dec":
            return self.factor ** (i // PERIOD)
        if self.kind != "cosine" or i < self.warmup:
            return 1.0
        return (1 + math.cos(math.pi * (i - self.warmup) / (self.end - self.warmup))) / 2 if i < self.end else 0.0

    def _fallen(self, i):
        return self.drop * PERIOD / self.end * (i // PERIOD)

    def _value(self, i):
        base = np.asarray(self._base, float)
        if self.kind == "lindec":
            value = base - self._fallen(i)
            return np.where((i < self.end) & (value * base > 0), value, 0.0).tolist()
        return (base * self._curve(i) * (min(1, i / self.warmup) if self._warm else 1)).tolist()

    def _take_over(self, value):
        """Choose the start value such that the curve passes through ``value`` at the step of the last update."""
        value, i = np.asarray(value, float), max(self._step, 0)
        self._base = value + self._fallen(i) if self.kind == "lindec" else value / (self._curve(i) or 1.0)
        self._warm = self._warm and i >= self.warmup

    def _read(self):
        return self._param.get_value() if self._param is not None else getattr(self._obj, self.name)

    def _write(self, value):
        if self._param is not None:
            self._param.set_value(value)
        else:
            setattr(self._obj, self.name, value)

    def __repr__(self):
        rules = ", ".join(f"{k}={v!r}" for k, v in self.kwargs.items())
        every = f" every {PERIOD} steps" if self.kind in ("dec", "lindec") else ""
        following = "finished" if self.next_update is None else f"next update at {self.next_update}"
        return f"<Schedule{f' of {self.name}' if self.name else ''}: {rules}{every}, {following}>"


def _plain(value):
    return np.asarray(value).tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _steps(value, name):
    try:
        steps = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number of steps, got {value!r}.") from None
    if steps < 1 or isinstance(value, bool):
        raise ValueError(f"{name} must be at least 1 step, got {value!r}.")
    return steps


def _number(value, name, above=-math.inf):
    if isinstance(value, (bool, str)) or not np.isscalar(value):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not (math.isfinite(value) and value > above):
        raise ValueError(f"{name} must be a finite number{f' above {above}' if above > -math.inf else ''}, got {value!r}.")
    return float(value)


def _pair(value, rule):
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"{rule}, got {value!r}.")
    return value


def _updates(value):
    rule = "updates must be a list of pairs (step, value) with ascending steps"
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{rule}, got {value!r}.")
    pairs = [_pair(entry, rule) for entry in value]
    steps = [step for step, _ in pairs]
    if not all(isinstance(s, (int, np.integer)) and not isinstance(s, bool) and s >= 0 for s in steps):
        raise ValueError(f"{rule}; steps are whole numbers of at least 0, got {steps}.")
    if any(b <= a for a, b in itertools.pairwise(steps)):
        raise ValueError(f"{rule}, got the steps {steps}.")
    return pairs
