"""Background loading: order, errors, settings that change, any number of threads."""
import threading
import time

import numpy as np
import pytest

from elektronn2.training.parallelisation import BackgroundProc


def slow_square(number, delay=0.0, add=0):
    time.sleep(delay * (number % 3))
    return np.array([number ** 2 + add])


@pytest.mark.parametrize("n_proc", [1, 2, 5])
def test_results_come_in_order_whatever_the_threads(n_proc):
    batches = BackgroundProc(slow_square, n_proc=n_proc, target_kwargs=dict(delay=0.002), first=4)
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


def test_changed_arguments_hold_after_reset_and_no_batch_is_lost():
    arguments = dict(add=0)
    batches = BackgroundProc(slow_square, n_proc=2, target_kwargs=arguments, first=0)
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
    with pytest.raises(ValueError, match="at least one thread"):
        BackgroundProc(slow_square, n_proc=0)
