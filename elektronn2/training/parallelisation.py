"""Background loading: threads that prepare batches while the network computes."""
import itertools
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

import numpy as np

logger = logging.getLogger("elektronn2log")


class BackgroundProc:
    """Calls ``target`` in ``n_proc`` threads ahead of time and hands out the results in the order of the calls.

    Threads, not processes: cutting, warping and numpy let go of the interpreter's lock, nothing is copied, and what
    ``target`` raises arrives at :meth:`get`. ``target_args``, ``target_kwargs``: its arguments; a change of the
    dict holds for all calls from the next :meth:`reset` on. ``first``: if given, each call gets a number as its first
    argument, counted from ``first``: then the results do not depend on the number of threads, if ``target`` is a pure
    function of its arguments. ``dtypes``, ``shapes``: if given, what each result must have. ``profile``: log how long
    :meth:`get` waited, at :meth:`shutdown`.

    >>> import numpy
    >>> squares = BackgroundProc(lambda n: numpy.array([n * n]), n_proc=2, first=3)
    >>> squares.get(), squares.get()
    (array([9]), array([16]))
    >>> squares.shutdown()
    """

    def __init__(self, target, dtypes=None, shapes=None, n_proc=1, target_args=(), target_kwargs=None, profile=False,
                 first=None):
        if n_proc < 1:
            raise ValueError(f"BackgroundProc needs at least one thread, got n_proc={n_proc}.")
        self.target, self.dtypes, self.shapes, self.n_proc = target, dtypes, shapes, n_proc
        self.target_args, self.profile = target_args, profile
        self.target_kwargs = {} if target_kwargs is None else target_kwargs
        self.number = first
        self.waited, self.served = 0.0, 0
        self._pool = ThreadPoolExecutor(n_proc, thread_name_prefix="batch")
        self._start()

    def _start(self):
        self._counter = None if self.number is None else itertools.count(self.number)
        self._queue = deque()
        for _ in range(2 * self.n_proc):
            self._submit()

    def _submit(self):
        numbered = () if self._counter is None else (next(self._counter),)
        self._queue.append(self._pool.submit(self.target, *numbered, *self.target_args, **self.target_kwargs))

    def get(self, timeout=None):
        """The next result. TimeoutError after ``timeout`` seconds without one; whatever ``target`` raises."""
        start = time.perf_counter()
        try:
            result = self._queue[0].result(timeout or None)
        except FutureTimeoutError:
            if self._queue[0].done():  # raised by target itself
                raise
            raise TimeoutError(f"No batch was ready within {timeout} s.") from None
        except Exception as error:
            error.add_note(f"(raised in the background by {getattr(self.target, '__qualname__', self.target)}"
                           + ("" if self.number is None else f", for batch number {self.number}") + ")")
            raise
        self.waited += time.perf_counter() - start
        self.served += 1
        self._queue.popleft()
        if self.number is not None:
            self.number += 1
        self._submit()
        self._check(result)
        return result

    def _check(self, result):
        arrays = result if isinstance(result, (tuple, list)) else (result,)
        for what, wanted in (("dtype", self.dtypes), ("shape", self.shapes)):
            got = [getattr(np.asarray(a), what) for a in arrays]
            if wanted is not None and list(wanted) != got:
                raise ValueError(f"{self.target} returned arrays of {what} {got}, expected {list(wanted)}.")

    def reset(self):
        """Drop what was prepared and prepare it again, with the arguments as they are now."""
        for future in self._queue:
            future.cancel()
        self._start()

    def shutdown(self):
        """End the threads; prepared results are dropped."""
        for future in self._queue:
            future.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self.profile and self.served:
            logger.info("%d batches from %d threads: waited %.1f ms for each", self.served, self.n_proc,
                        1e3 * self.waited / self.served)
