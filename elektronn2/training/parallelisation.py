"""Background loading: threads or processes that prepare batches while the network computes."""
import contextlib
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import torch

logger = logging.getLogger("elektronn2log")

KINDS = ("threads", "processes")
_target = None  # in a worker process: what it calls


class BackgroundProc:
    """Calls ``target`` by ``n_proc`` workers ahead of time and hands out the results in the order of the calls.

    ``kind``: 'threads', which share everything and copy nothing; they are as many cores' work as ``target`` lets go of the
    interpreter's lock, as cutting, warping and numpy do. Or 'processes', for a ``target`` in plain Python: it is copied
    into each, so later changes of it are not seen, and must be picklable unless ``start_method`` is 'fork'.
    ``start_method``: of the processes, 'fork' (default on Linux: memory is shared until it is written), 'spawn' (default
    elsewhere) or 'forkserver'.

    ``target_args``, ``target_kwargs``: arguments of the calls; a change of the dict holds for all calls from the next
    :meth:`reset` on. ``first``: if given, each call gets a number as its first argument, counted from ``first``: then the
    results do not depend on the number of workers, if ``target`` is a pure function of its arguments. ``dtypes``,
    ``shapes``: if given, what each result must have. ``profile``: log how long :meth:`get` waited, at :meth:`shutdown`.
    ``finish``: a function that :meth:`get` applies to each result, for what cannot be done in another process.

    >>> import numpy
    >>> squares = BackgroundProc(lambda n: numpy.array([n * n]), n_proc=2, first=3)
    >>> squares.get(), squares.get()
    (array([9]), array([16]))
    >>> squares.shutdown()
    """

    def __init__(self, target, dtypes=None, shapes=None, n_proc=1, target_args=(), target_kwargs=None, profile=False,
                 first=None, kind="threads", start_method=None, finish=None):
        if n_proc < 1:
            raise ValueError(f"BackgroundProc needs at least one worker, got n_proc={n_proc}.")
        if kind not in KINDS:
            raise ValueError(f"kind must be {' or '.join(map(repr, KINDS))}, got {kind!r}.")
        self.target, self.dtypes, self.shapes, self.n_proc, self.kind = target, dtypes, shapes, n_proc, kind
        self.start_method = start_method or ("fork" if sys.platform == "linux" else "spawn")
        self.target_args, self.profile, self.finish = target_args, profile, finish
        self.target_kwargs = {} if target_kwargs is None else target_kwargs
        self.number = first
        self.waited, self.served = 0.0, 0
        self._pool, self._queue = self._new_pool(), deque()
        self._fill()

    def _new_pool(self):
        if self.kind == "threads":
            return ThreadPoolExecutor(self.n_proc, thread_name_prefix="batch")
        context = multiprocessing.get_context(self.start_method)
        return ProcessPoolExecutor(self.n_proc, context, _begin, (self.target,))

    def _fill(self):
        self._counter = None if self.number is None else itertools.count(self.number)
        self._queue = deque()
        for _ in range(2 * self.n_proc):
            self._submit()

    def _submit(self):
        numbered = () if self._counter is None else (next(self._counter),)
        call = self.target if self.kind == "threads" else _call
        with _sigint_waits():  # for a process that this starts, until it ignores it
            self._queue.append(self._pool.submit(call, *numbered, *self.target_args, **self.target_kwargs))

    def get(self, timeout=None):
        """The next result. TimeoutError after ``timeout`` seconds without one; whatever ``target`` raises, with its
        traceback; RuntimeError if a process was killed."""
        start = time.perf_counter()
        try:
            result = self._queue[0].result(timeout or None)
        except FutureTimeoutError:
            if self._queue[0].done():  # raised by target itself
                raise
            raise TimeoutError(f"No batch was ready within {timeout} s.") from None
        except BrokenProcessPool as error:
            raise RuntimeError("A process that prepares batches has ended all of a sudden. Was it killed, because memory "
                               "was used up? Use fewer, or threads.") from error
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
        return self.finish(result) if self.finish else result

    def _check(self, result):
        arrays = result if isinstance(result, (tuple, list)) else (result,)
        for what, wanted in (("dtype", self.dtypes), ("shape", self.shapes)):
            got = [getattr(np.asarray(a), what) for a in arrays]
            if wanted is not None and list(wanted) != got:
                raise ValueError(f"{self.target} returned arrays of {what} {got}, expected {list(wanted)}.")

    def reset(self):
        """Drop what was prepared and prepare it again, with the arguments as they are now; also after an error."""
        for future in self._queue:
            future.cancel()
        try:
            self._fill()
        except BrokenProcessPool:
            self._pool = self._new_pool()
            self._fill()

    def shutdown(self):
        """End the workers; prepared results are dropped."""
        for future in self._queue:
            future.cancel()
        self._pool.shutdown(wait=self.kind == "processes", cancel_futures=True)
        if self.profile and self.served:
            logger.info("%d batches from %d %s: waited %.1f ms for each", self.served, self.n_proc, self.kind,
                        1e3 * self.waited / self.served)


@contextlib.contextmanager
def _sigint_waits():
    """Ctrl+C is delivered after the block, to this thread and to processes that it starts inside."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(target):
    """In a new process: take the target, leave Ctrl+C to the parent, and end when that is gone."""
    global _target
    _target = target
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(*args, **kwargs):
    return _target(*args, **kwargs)


def pinned(arrays):
    """Arrays in page-locked memory, from which a GPU copies while the processor goes on; tensors as they are. Needs CUDA."""
    return tuple(a if isinstance(a, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(a)).pin_memory().numpy()
                 for a in arrays)
