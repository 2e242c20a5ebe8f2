"""Loops over voxels in machine code, compiled by numba once for each machine and not once for each process."""
import numba


def compiled(function):
    """``function``, compiled by numba for each combination of argument types that it is called with.

    That takes seconds, so the result is kept: beside the source, as Python keeps its own, or in the user's folder for caches
    (``NUMBA_CACHE_DIR`` names another). Where neither can be written, every process compiles for itself.

    >>> import numpy as np
    >>> @compiled
    ... def total(values):
    ...     result = 0.0
    ...     for value in values:
    ...         result += value
    ...     return result
    >>> total(np.arange(4.0))
    6.0
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no place for the cache
        return numba.njit(**options)(function)
