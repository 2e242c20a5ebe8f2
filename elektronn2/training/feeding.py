"""How fast a data set makes batches, what takes the time, and whether training has to wait for them."""
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

KEEPS_UP = 0.92  # share of the rate with one fixed batch that training with new ones must reach


def stages(data, arguments, seconds):
    """Where the time of a sample goes, in one worker: dict of milliseconds per sample by stage, and ``MB``, read for each.

    ``data``: a :class:`~elektronn2.data.cnndata.BatchCreatorImage`; ``arguments``: of its ``getbatch``. Reading from files
    is a stage of its own; of volumes in memory, MB is the size of the boxes that samples are taken from.
    """
    volumes = _volumes(data)

    def work():
        total, n, size, end = {}, 0, 0, time.perf_counter() + seconds
        while time.perf_counter() < end or n < 2:
            told = data.explain(n + 1, **arguments)
            for stage, s in told.facts.seconds.items():
                total[stage] = total.get(stage, 0) + s
            box = data.patch_size if told.box is None else told.box[:, 1] - told.box[:, 0] + 1
            size += float(np.prod(box)) * data.n_f * data.train_d[0].dtype.itemsize
            n += 1
        return total, n, size

    with ThreadPoolExecutor(1) as pool:  # as in training, where a worker uses one core
        pool.submit(data.explain, 0, **arguments).result()  # compiles
        before = [(v.bytes_read, v.seconds_read) for v in volumes]
        total, n, size = pool.submit(work).result()
    if volumes:
        read = [(v.bytes_read - b, v.seconds_read - s) for v, (b, s) in zip(volumes, before)]
        size, reading = sum(b for b, _ in read), sum(s for _, s in read)
        total = {"reading": reading, "warping": total.pop("reading and warping") - reading, **total}
    return {stage: 1000 * s / n for stage, s in total.items()}, size / n / 1e6


def _volumes(data):
    """What is read from files while training."""
    found = []
    for volume in data.train_d + data.train_l:
        found += [volume.labels, volume.mask] if hasattr(volume, "mask") else [volume]
    return [volume for volume in found if hasattr(volume, "bytes_read")]


def rate(next_batch, seconds):
    """Calls per second of a function."""
    start, n = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or n < 2:
        next_batch()
        n += 1
    return n / passed


def step_rates(step, get, fixed, seconds, rounds=4):
    """(steps per second on ``fixed``, the same on what ``get`` returns, median of the ratios), measured by turns."""
    alone, fed = [], []
    for _ in range(rounds):
        alone.append(rate(lambda: step(*fixed), seconds / rounds))
        fed.append(rate(lambda: step(*get()), seconds / rounds))
    return statistics.median(alone), statistics.median(fed), statistics.median(b / a for a, b in zip(alone, fed))


def measure(trainer, n_workers, kind, seconds=5.0):
    """Text that tells the speed of loading and of training steps, for a :class:`~elektronn2.training.trainer.Trainer`.

    ``n_workers``, ``kind``: as of :class:`~elektronn2.training.parallelisation.BackgroundProc`; each measurement takes about
    ``seconds``. Changes the weights of the model.
    """
    lines, size, optimiser = [], trainer.batch_size, trainer.exp_config.optimiser
    arguments = trainer.exp_config.data_batch_args
    if hasattr(trainer.data, "explain"):
        parts, megabytes = stages(trainer.data, arguments, seconds)
        whole = sum(parts.values())
        where = "files" if _volumes(trainer.data) else "memory"
        lines += [f"one sample: {whole:.1f} ms in one worker, of which",
                  *(f"    {100 * ms / whole:5.1f} %  {ms:8.2f} ms  {stage}" for stage, ms in parts.items()),
                  f"read from {where}: {megabytes:.2f} MB for a sample"]
    workers = trainer.workers(n_workers, kind)
    try:
        fixed = workers.get()
        trainer.model.trainingstep(*fixed, optimiser=optimiser)  # compiles
        for _ in range(2 * n_workers):
            workers.get()  # what was prepared meanwhile
        loaded = rate(workers.get, seconds) * size
        lines.append(f"loading alone: {loaded:.2f} samples/s by {n_workers} {kind}"
                     + (f", {loaded * megabytes:.1f} MB/s" if hasattr(trainer.data, "explain") else ""))
        alone, fed, ratio = step_rates(lambda *batch: trainer.model.trainingstep(*batch, optimiser=optimiser), workers.get,
                                       fixed, 2 * seconds)
    finally:
        workers.shutdown()
    lines += [f"training on one fixed batch: {alone * size:.2f} samples/s",
              f"training with these workers: {fed * size:.2f} samples/s, {ratio:.3f} of that"]
    if ratio >= KEEPS_UP:
        lines.append("Loading keeps up with training.")
    else:
        slow = "Loading" if loaded < alone * size else "Loading would be fast enough, but takes cores from the training: it"
        lines.append(f"{slow} starves the training. Try other --workers, volumes in memory (h5stream=False), smaller "
                     "chunks in the files, or fewer augmentations of the kinds that take long.")
    return "\n".join(lines)
