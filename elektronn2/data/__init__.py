"""Data: samples from volumes and from memory, and where to get volumes.

Only what is asked for is imported:

>>> from elektronn2.data import MNISTData
"""
import importlib

from elektronn2.utils.validate import suggest

__all__ = ["BatchCreatorImage", "Data", "KnossosArray", "KnossosArrayMulti", "MNISTData", "Volume", "open_volume"]

_MODULES = {"BatchCreatorImage": "cnndata", "Data": "traindata", "MNISTData": "traindata", "Volume": "volumes",
            "open_volume": "volumes", "KnossosArray": "volumes", "KnossosArrayMulti": "volumes"}


LEFT_OUT = {**dict.fromkeys(("AgentData", "GridData"), "they traced neurites with the skeletons of one laboratory"),
            **dict.fromkeys(("PianoData", "PianoData_perc"), "their data are not public. Write a data class of your own, "
                            "with a method getbatch, or a loop as in examples/lstm.py")}


def __getattr__(name):
    if name in LEFT_OUT:
        raise AttributeError(f"elektronn2.data.{name} is left out on purpose: {LEFT_OUT[name]}.")
    if name not in _MODULES:
        raise AttributeError(f"elektronn2.data has no {name!r}.{suggest(name, __all__)}")
    return getattr(importlib.import_module(f"elektronn2.data.{_MODULES[name]}"), name)


def __dir__():
    return sorted([*globals(), *__all__])
