"""Parsing of arguments at the border of the library."""
import difflib
import numbers
import operator
from pathlib import Path

import numpy as np


def as_int(value, name, minimum=1):
    """An int from an integer of any kind, also of numpy.

    >>> as_int(np.int64(3), 'n_f')
    3

    Raises TypeError (True, 3.0 and '3' are no integers) and ValueError (below ``minimum``), naming ``name``.
    """
    try:
        if isinstance(value, (bool, np.ndarray)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be one integer, got {value!r}.") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}.")
    return number


def as_tuple(value, n, name, minimum=1):
    """``n`` integers from one integer or a sequence of ``n``.

    >>> as_tuple(3, 2, 'filter_shape')
    (3, 3)

    Raises ValueError (wrong count or too small) and TypeError (not integers), naming ``name``.
    """
    many = f" or {n} integers" * (n != 1)
    try:
        values = (operator.index(value),) * n
    except TypeError:
        try:
            values = tuple(operator.index(v) for v in value)
        except TypeError:
            raise TypeError(f"{name} must be one integer{many}, got {value!r}.") from None
    if isinstance(value, bool):
        raise TypeError(f"{name} must be one integer{many}, got {value!r}.")
    if len(values) != n:
        hint = " Use filter size 1 on an axis that is not to be filtered." if "filter" in name else ""
        raise ValueError(f"{name} needs {n} value{'s, one per spatial axis' * (n != 1)}, got {len(values)}: "
                         f"{value!r}.{hint}")
    if any(v < minimum for v in values):
        raise ValueError(f"{name} must be at least {minimum}{' on every axis' * (n != 1)}, got {value!r}.")
    return values


def as_rate(value, name, one=True):
    """A float from 0 to 1 (below 1 unless ``one``).

    >>> as_rate(0.5, 'dropout_rate')
    0.5

    Raises TypeError (not a number) and ValueError (out of range), naming ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not (0 <= value <= 1 if one else 0 <= value < 1):
        raise ValueError(f"{name} must be in [0, 1{']' if one else ')'}, got {value!r}.")
    return float(value)


def dtype_name(value):
    """The name of a dtype of numpy; anything else as it is.

    >>> dtype_name(np.int16), dtype_name(np.dtype('uint8')), dtype_name('float32')
    ('int16', 'uint8', 'float32')
    """
    numpy_type = isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic))
    return np.dtype(value).name if numpy_type else value


def short(value):
    """How an error shows a value that may be large: arrays by their shape, all else in one line of at most 100 letters.

    >>> short(np.ones((2, 3))), short('a')
    ('an array of shape (2, 3)', "'a'")
    """
    if np.ndim(getattr(value, "shape", None)) == 1 and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)}" if tuple(value.shape) else repr(value)
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def suggest_file(path):
    """`` Did you mean 'x'?`` for the file beside ``path`` with the nearest name, or an empty string."""
    path = Path(path).expanduser()
    if path.is_dir():
        return " It is a folder: name a file in it."
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    stems = {p.stem: p.name for p in path.parent.iterdir() if p.is_file() and path.suffix in ("", p.suffix)}
    near = difflib.get_close_matches(path.stem, stems, n=1, cutoff=0.7)
    return f" Did you mean {stems[near[0]]!r}?" if near else ""


def suggest(name, options, cutoff=0.6):
    """`` Did you mean 'x'?`` for the nearest option, or an empty string. ``cutoff``: likeness that is asked for, 0 to 1.

    >>> suggest('adam', ['SGD', 'Adam'])
    " Did you mean 'Adam'?"
    """
    options = [str(o) for o in options]
    by_case = {o.lower(): o for o in options}
    near = difflib.get_close_matches(str(name).lower(), by_case, n=1, cutoff=cutoff)
    return f" Did you mean {by_case[near[0]]!r}?" if near else ""
