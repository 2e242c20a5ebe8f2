"""Choosing a GPU."""
import logging
import shutil
import subprocess
import time

from elektronn2.config import config

logger = logging.getLogger("elektronn2log")


def get_free_gpu(wait=0, nb_gpus=-1):
    """Index of the first GPU on which no process computes, -1 if there is none.

    Asks ``nvidia-smi``. ``wait``: seconds to go on asking, every 2 s. ``nb_gpus``: look at the first so many only.
    """
    end = time.monotonic() + wait
    while True:
        free = [i for i, busy in enumerate(_busy()) if not busy and (nb_gpus < 0 or i < nb_gpus)]
        if free or time.monotonic() >= end:
            return free[0] if free else -1
        time.sleep(min(2, max(end - time.monotonic(), 0)))


def _busy():
    """Whether a process computes on each GPU; empty without ``nvidia-smi``."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []

    def ask(*query):
        answer = subprocess.run([program, *query, "--format=csv,noheader"], capture_output=True, text=True, timeout=30)
        return answer.stdout.split("\n") if answer.returncode == 0 else []
    uuids = [line.strip() for line in ask("--query-gpu=uuid") if line.strip()]
    busy = {line.strip() for line in ask("--query-compute-apps=gpu_uuid")}
    return [u in busy for u in uuids]


def cuda_missing():
    """The reason, for error messages, if PyTorch was installed in a form that can use no GPU; else an empty string."""
    import torch  # not needed by who only imports this
    return ", as it was installed for the CPU only" if torch.version.cuda is None and torch.version.hip is None else ""


def initgpu(gpu):
    """Choose where functions run, by setting ``config.device``, and log the outcome.

    ``gpu``: None or 'none' (the CPU), a number or string of digits (that GPU), 'auto' (the first GPU that no process uses;
    the CPU if there is no GPU). Raises ValueError for anything else, for a GPU that does not exist, and for 'auto' where
    all GPUs are in use.
    """
    import torch  # not needed by who only imports this
    name = str(gpu).lower()
    count = torch.cuda.device_count()
    if name == "none":
        config.device = "cpu"
        logger.info("Computing on the CPU.")
        return
    if name == "auto":
        if not count:
            config.device = "cpu"
            logger.info("No GPU can be used on this machine: computing on the CPU.")
            return
        index = get_free_gpu()
        if index < 0 and _busy():
            raise ValueError(f"--gpu=auto: all {count} GPUs are in use. Wait, or choose one by its number, or 'none'.")
        index = max(index, 0)
    elif name.isdigit():
        index = int(name)
    else:
        raise ValueError(f"gpu must be 'auto', 'none' or a number, got {gpu!r}.")
    if index >= count:
        raise ValueError(f"There is no GPU {index}: PyTorch can use {count} on this machine{cuda_missing()}. Use 'auto' or "
                         "'none'.")
    config.device = f"cuda:{index}"
    logger.info("Computing on GPU %d: %s.", index, torch.cuda.get_device_name(index))
