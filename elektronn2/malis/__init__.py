"""Affinity graphs of segmentations, and MALIS: which edges of a graph decide how voxels are joined.

numba is imported only when a function is asked for:

>>> from elektronn2.malis import malis_weights
"""
import importlib

from elektronn2.utils.validate import suggest

__all__ = ["affgraph_to_seg", "bmap_to_affgraph", "bmappred_to_affgraph", "compute_V_rand_N2", "malis_weights", "mknhood2d",
           "mknhood3d", "mknhood3d_aniso", "nodelist_from_shape", "seg_to_affgraph", "watershed_from_affgraph"]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"elektronn2.malis has no {name!r}.{suggest(name, __all__)}")
    return getattr(importlib.import_module("elektronn2.malis.malis_utils"), name)


def __dir__():
    return sorted([*globals(), *__all__])
