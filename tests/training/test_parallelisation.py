"""Background loading: order, errors, settings that change, any number of threads or processes."""
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import numpy as np
import pytest
import torch

from elektronn2.training.parallelisation import BackgroundProc, pinned

fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked here")


def slow_square(number, delay=0.0, add=0):
    time.sleep(delay * (number % 3))
    return np.array([number ** 2 + add])


@pytest.mark.parametrize("kind, n_proc", [("threads", 1), ("threads", 2), ("threads", 5), ("processes", 3)])
def test_results_come_in_order_whatever_the_workers(kind, n_proc):
    batches = BackgroundProc(slow_square, n_proc=n_proc, target_kwargs=dict(delay=0.002), first=4, kind=kind)
    got = [batches.get()[0] for _ in range(15)]
    batches.shutdown()
    assert got == [n ** 2 for n in range(4, 19)]


def test_they_are_made_ahead():
    made = threading.Semaphore(0)

    def target(number):
        made.release()
        return np.array([number])
    batches = BackgroundProc(target, n_proc=2, first=0)
    for _ in range(4):  # without any get
        assert made.acquire(timeout=5)
    batches.shutdown()


def test_an_error_arrives_and_names_the_batch():
    def target(number):
        if number == 2:
            raise ValueError("a bad cube")
        return np.array([number])
    batches = BackgroundProc(target, n_proc=2, first=0)
    assert [int(batches.get()[0]) for _ in range(2)] == [0, 1]
    for _ in range(2):  # it is not lost
        with pytest.raises(ValueError, match="a bad cube") as error:
            batches.get()
    assert any("batch number 2" in note for note in error.value.__notes__)
    batches.shutdown()


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_changed_arguments_hold_after_reset_and_no_batch_is_lost(kind):
    arguments = dict(add=0)
    batches = BackgroundProc(slow_square, n_proc=2, target_kwargs=arguments, first=0, kind=kind)
    assert [int(batches.get()[0]) for _ in range(3)] == [0, 1, 4]
    arguments["add"] = 100
    batches.reset()
    assert [int(batches.get()[0]) for _ in range(3)] == [109, 116, 125]
    batches.shutdown()


def test_timeout():
    release = threading.Event()

    def target():
        release.wait(5)
        return np.array([1])
    batches = BackgroundProc(target)
    with pytest.raises(TimeoutError, match="No batch was ready"):
        batches.get(timeout=0.05)
    release.set()
    assert int(batches.get(timeout=5)[0]) == 1
    batches.shutdown()


def test_promised_shapes_are_checked():
    batches = BackgroundProc(lambda: (np.zeros((2, 3), "float32"),), shapes=[(2, 4)])
    with pytest.raises(ValueError, match=r"shape \[\(2, 3\)\], expected \[\(2, 4\)\]"):
        batches.get()
    batches.shutdown()
    batches = BackgroundProc(lambda: np.zeros(3, "float32"), dtypes=[np.dtype("int16")])
    with pytest.raises(ValueError, match="dtype"):
        batches.get()
    batches.shutdown()
    with pytest.raises(ValueError, match="at least one worker"):
        BackgroundProc(slow_square, n_proc=0)
    with pytest.raises(ValueError, match="'threads' or 'processes', got 'fibres'"):
        BackgroundProc(slow_square, kind="fibres")


# -- processes -------------------------------------------------------------------------------------------
def fail_at_two(number):
    if number == 2:
        raise ValueError("a bad cube")
    return np.array([number])


def die_once(number, die=True):
    if number == 1 and die:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.array([number])


@fork
def test_an_error_of_a_process_arrives_with_its_traceback():
    batches = BackgroundProc(fail_at_two, n_proc=2, first=0, kind="processes")
    assert [int(batches.get()[0]) for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="a bad cube") as error:
        batches.get()
    text = "".join(traceback.format_exception(error.value))
    assert "in fail_at_two" in text and 'raise ValueError("a bad cube")' in text and "batch number 2" in text
    batches.shutdown()


@fork
def test_a_process_that_is_killed_is_told_and_can_be_replaced():
    arguments = dict(die=True)
    batches = BackgroundProc(die_once, n_proc=2, first=0, kind="processes", target_kwargs=arguments)
    with pytest.raises(RuntimeError, match="ended all of a sudden"):
        for _ in range(3):
            batches.get()
    arguments["die"] = False
    batches.reset()
    number = batches.number
    assert [int(batches.get()[0]) for _ in range(3)] == [number, number + 1, number + 2]
    batches.shutdown()


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().split(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_no_process_outlives_the_training(how):
    """Ctrl+C, which goes to all of them, and the sudden death of the parent."""
    script = """
import os, signal, sys, time
from elektronn2.training.parallelisation import BackgroundProc
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background of a shell
batches = BackgroundProc(os.getpid, n_proc=2, kind="processes")
try:
    print(*{batches.get() for _ in range(20)}, flush=True)
    while True:
        time.sleep(0.05)
except KeyboardInterrupt:
    batches.get()  # the workers have not seen it
    batches.shutdown()
    print("clean", flush=True)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert workers and all(map(_alive, workers))
    if how == "SIGINT":
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.communicate(timeout=20)[0] == "clean\n" and parent.returncode == 0
    else:
        parent.kill()
        parent.communicate(timeout=20)
    end = time.monotonic() + 10
    while any(map(_alive, workers)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(_alive, workers))


@pytest.mark.gpu
def test_pinned_arrays_are_the_same_ones():
    arrays = np.arange(6.0).reshape(2, 3), np.arange(3, dtype="int16")[::-1]
    for a, b in zip(arrays, pinned(arrays)):
        assert np.array_equal(a, b) and a.dtype == b.dtype and torch.from_numpy(b).is_pinned()
