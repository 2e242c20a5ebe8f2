"""What the benchmarks share: the example networks, timing, the machine in one line."""
import importlib.util
import os
import platform
import statistics
from pathlib import Path

import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def config_of(name):
    """An example config as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def example(name):
    """A new model of an example network."""
    from elektronn2 import neuromancer as nm
    nm.model_manager.newmodel(None)
    return config_of(name).create_model()


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
               platform.processor()) if os.path.exists("/proc/cpuinfo") else platform.processor()
    return f"{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def median_ratio(ours, theirs):
    """Median of the pairwise ratios ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs))
