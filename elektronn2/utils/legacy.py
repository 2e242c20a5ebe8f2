"""Parameters of the first ELEKTRONN (version 1), and what of it does not exist any more."""
from pathlib import Path

import numpy as np

from elektronn2.errors import ModelFileError
from elektronn2.utils.unpickle import read_pickle


def create_cnn(*args, **kwargs):
    """Always raises RuntimeError: networks of ELEKTRONN 1 are not built from its configuration files."""
    raise RuntimeError("create_cnn built networks of ELEKTRONN 1 and does not exist any more. Build the network with "
                       "elektronn2.neuromancer (Input, Conv, ...) and use load_params_into_model for its parameters.")


def load_params_into_model(param_file, model):
    """Set the weights of ``model`` from a parameter file of ELEKTRONN 1, which is read without executing anything.

    The file is a pickled list (gzip'd or not): an entry, then w and b of one layer after the other, then another entry. They
    go to the nodes of ``model`` that have a trainable w and b, in building order. Kernels of Conv are flipped, as ELEKTRONN
    computed true convolutions: w (n_f, f, *filter), or (n_f, z, f, x, y), becomes (n_f, f, z, x, y).

    Raises FileNotFoundError; ModelFileError for another kind of file; ValueError, with nothing changed, if number or
    shapes of the weights are not those of ``model``.
    """
    path = Path(param_file).expanduser()
    content = read_pickle(path)
    if not isinstance(content, (list, tuple)):
        raise ModelFileError(f"{path} is no parameter file of ELEKTRONN 1: that is a list of arrays.")
    arrays = list(_arrays(content[1:-1], path))
    nodes = [n for n in model.nodes.values() if {"w", "b"} <= n.params.keys() and not n.params["w"].constant]
    if len(arrays) != 2 * len(nodes):
        raise ValueError(f"{path} has {len(arrays)} arrays, but the model has {len(nodes)} nodes with w and b: "
                         f"{[n.name for n in nodes]}.")
    new = []
    for node, w, b in zip(nodes, arrays[::2], arrays[1::2]):
        if type(node).__name__ == "Conv":
            w = np.flip(w.transpose(0, 2, 1, 3, 4) if w.ndim == 5 else w, range(2, w.ndim))
        for key, value in (("w", w), ("b", b)):
            if value.shape != node.params[key].shape:
                raise ValueError(f"{path}: {key} for node {node.name!r} has shape {value.shape}, the model needs "
                                 f"{node.params[key].shape}. Shapes in the file: {[a.shape for a in arrays]}.")
            new.append((node.params[key], value))
    for param, value in new:
        param.set_value(value)


def _arrays(entries, path, depth=0):
    """The arrays of a list, and of lists in it, in order."""
    for entry in entries:
        if isinstance(entry, (list, tuple)) and depth < 3:
            yield from _arrays(entry, path, depth + 1)
        elif isinstance(entry, np.ndarray):
            yield entry
        else:
            raise ModelFileError(f"{path} is no parameter file of ELEKTRONN 1: between the first and the last entry are "
                                 f"arrays (w, b, w, b, ...), but there is a {type(entry).__name__}.")
