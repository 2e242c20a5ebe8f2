"""Model files: weights in safetensors, the graph as JSON in its metadata. Nothing in them is executed.

A file holds one JSON object under the metadata key ``elektronn2``: ``format``, ``nodes`` (in building order: name,
class, arguments), ``designations``, and ``splits`` if there are any (name -> names of the pieces); and one tensor
``<node>/<param>`` for each parameter. Arguments that JSON does not know are objects with one key: ``node``, ``param``
([node, param], shared), ``transposed`` (the same with swapped axes), ``weights`` ('trainable' or 'const', the value is
the node's tensor), ``array`` (a tensor of the file), ``tuple``, ``fraction``, ``shape`` (a TaggedShape) and
``function`` ('module:name'). A model that is to be trained further also has ``training`` and tensors whose
names begin with that, see ``checkpoint.py``.
"""
import importlib
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch

from elektronn2.errors import ModelFileError
from elektronn2.neuromancer.expression import Expression
from elektronn2.neuromancer.registry import NODES
from elektronn2.neuromancer.shape import TaggedShape
from elektronn2.neuromancer.variables import TransposedParam, VariableParam
from elektronn2.utils.basic import atomic_write
from elektronn2.utils.unpickle import is_pickle
from elektronn2.utils.validate import dtype_name, short, suggest_file

FORMAT = 1
KEY = "elektronn2"
TRAINING = "training:"  # how the names of tensors of training begin
KNOWN = {b"\x89HDF": "an h5 file", b"PK": "a zip file, such as PyTorch writes"}  # by first bytes
WEIGHTS = ("w", "b", "w2", "b2", "gamma", "mean", "std", "value")  # arguments whose values are the node's tensors


# -- writing ------------------------------------------------------------------------------------------
def describe(model):
    """(description, tensors) of a model: what a file holds."""
    tensors = {}
    nodes = []
    for node in model.nodes.values():
        encode = _Encoder(model, node, tensors)
        entry = {"name": node.name, "class": type(node).__name__,
                 "arguments": {k: encode(v, k) for k, v in model.arguments[node.name].items()}}
        if node.like is not None:
            entry["like"] = node.like
        if not node.print_repr:
            entry["print_repr"] = False
        if node.feature_names:
            entry["feature_names"] = node.feature_names
        constants = [k for k, p in node.params.items() if p.constant]
        if constants:
            entry["constants"] = constants
        nodes.append(entry)
        tensors.update({f"{node.name}/{k}": p.get_value() for k, p in node.params.items()})
    description = {"format": FORMAT, "nodes": nodes, "designations": model.designations}
    if model.splits:
        description["splits"] = model.splits
    return description, tensors


class _Encoder:
    def __init__(self, model, node, tensors):
        self.model, self.node, self.tensors = model, node, tensors
        self.count = 0

    def __call__(self, value, name=None):
        if name in WEIGHTS and name in self.node.params and not isinstance(value, VariableParam):
            return {"weights": "const" if self.node.params[name].constant else "trainable"}
        value = dtype_name(value)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, NODES["Node"]):
            return {"node": value.name}
        if isinstance(value, VariableParam):
            return {"param": self._owner(value)}
        if isinstance(value, TransposedParam):
            return {"transposed": self._owner(value.param)}
        if isinstance(value, (np.integer, np.floating, np.bool_)):
            return value.item()
        if isinstance(value, np.ndarray):
            self.count += 1
            key = f"{self.node.name}/argument-{self.count}"
            self.tensors[key] = np.asarray(value, order="C")
            return {"array": key}
        if isinstance(value, Fraction):
            return {"fraction": [value.numerator, value.denominator]}
        if isinstance(value, tuple):
            return {"tuple": [self(v) for v in value]}
        if isinstance(value, list):
            return [self(v) for v in value]
        if isinstance(value, dict):
            return {"dict": [[k, self(v)] for k, v in value.items()]}
        if isinstance(value, TaggedShape):
            return {"shape": [value.shape, value.tags, [self(v) for v in value._strides], value.mfp_offsets.tolist(),
                              [self(v) for v in value._fov], [self(v) for v in value.centre], list(value.padded)]}
        if isinstance(value, Expression):
            raise ModelFileError(f"Node {self.node.name!r} cannot be saved: it wraps an expression, which has no form in a "
                                 "file. Make the node by split, or by ApplyFunc with a function at the top of a module.")
        if isinstance(value, torch.nn.Module):
            raise ModelFileError(f"Node {self.node.name!r} cannot be saved: its {type(value).__name__} cannot be written. "
                                 "Give from_torch what makes it instead, a class or function at the top of a file, and its "
                                 "args and kwargs.")
        if callable(value):
            return {"function": self._function(value)}
        raise ModelFileError(f"Node {self.node.name!r} cannot be saved: its argument {name or ''} has the value "
                             f"{value!r} of {type(value).__name__}.")

    def _owner(self, param):
        for node in self.model.nodes.values():
            for name, own in node.params.items():
                if own is param:
                    return [node.name, name]
        raise ModelFileError(f"Node {self.node.name!r} cannot be saved: it shares a parameter ({param!r}) that belongs "
                             f"to no node of model {self.model.name!r}.")

    def _function(self, function):
        name = getattr(function, "__name__", "")
        own = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', '')}"
        for address in (own, f"torch:{name}", f"torch:Tensor.{name}", f"torch.nn.functional:{name}"):
            try:
                found = _find_function(address)
            except (ImportError, AttributeError, ValueError):
                continue
            if found is function:
                break
        else:
            raise ModelFileError(f"Node {self.node.name!r} cannot be saved: its function {function!r} cannot be imported "
                                 "again. Define it at the top of a module (not as a lambda or inside a function).")
        return address


def _find_function(address):
    module, _, name = address.partition(":")
    value = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


def write(description, tensors, path):
    """Write what :func:`describe` returns as a model file, atomically: if it fails, an existing file stays as it was."""
    data = safetensors.numpy.save(tensors, metadata={KEY: json.dumps(description)})
    path = Path(path).expanduser()
    with atomic_write(path) as temporary, open(temporary, "wb") as f:
        f.write(data)


# -- reading ------------------------------------------------------------------------------------------
def is_old(path):
    """Whether a model file is one of the first ELEKTRONN2. Raises FileNotFoundError."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}.{suggest_file(path)}")
    with open(path, "rb") as f:
        return is_pickle(f.read(8))


def load(path):
    """(description, tensors) of a model file.

    Raises FileNotFoundError, or ModelFileError for a file that is truncated, damaged or not a model.
    """
    path = Path(path).expanduser()
    if is_old(path):
        raise ModelFileError(f"{path} is a pickle, as the first ELEKTRONN2 wrote its models; modelload reads it.")
    try:
        with safetensors.safe_open(str(path), framework="np") as f:
            metadata = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}
    except Exception as error:  # the library raises its own and plain types
        kind = next((k for magic, k in KNOWN.items() if path.read_bytes()[:8].startswith(magic)), None)
        if kind:
            raise ModelFileError(f"{path} is no model file of this library, but {kind}.") from None
        raise ModelFileError(f"{path} ({path.stat().st_size} bytes) is no model file, or it is truncated or damaged: "
                             f"{error}. Take an earlier one, such as those in the run's folder Backup.") from None
    if KEY not in metadata:
        raise ModelFileError(f"{path} is a safetensors file, but not one that this library wrote: it has no description "
                             "of a graph.")
    try:
        description = json.loads(metadata[KEY])
        version = description["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path}: the description of the graph is damaged ({error!r}).") from None
    if version != FORMAT:
        raise ModelFileError(f"{path} has format {version}, this version of the library reads format {FORMAT}. "
                             "Update the library.")
    check_description(description, f"{path}: the description of the graph")
    return description, tensors


def check_description(description, where):
    """ModelFileError, beginning with ``where``, if parts of a description are missing or of the wrong type."""
    def need(good, what, value):
        if not good:
            raise ModelFileError(f"{where} is damaged: {what}, got {short(value)}.")

    def is_names(value):
        return isinstance(value, list) and all(isinstance(v, str) for v in value)

    need(isinstance(description, dict), "it must be a dict", description)
    nodes, roles, splits = description.get("nodes"), description.get("designations"), description.get("splits", {})
    need(isinstance(nodes, list), "its 'nodes' must be a list", nodes)
    for i, entry in enumerate(nodes):
        need(isinstance(entry, dict), f"node {i} must be a dict", entry)
        for key, kind in (("name", str), ("class", str), ("arguments", dict)):
            need(isinstance(entry.get(key), kind), f"the {key} of node {entry.get('name', i)!r} must be a {kind.__name__}",
                 entry.get(key))
        like = entry.get("like")
        need(like is None or (isinstance(like, dict) and isinstance(like.get("node"), str) and "override_f" in like),
             f"'like' of node {entry['name']!r} must name a node and override_f", like)
        need(is_names(entry.get("constants", [])), f"the constants of node {entry['name']!r} must be names",
             entry.get("constants"))
    need(isinstance(roles, dict), "its 'designations' must be a dict", roles)
    for role, names in roles.items():
        need(names is None or isinstance(names, str) or is_names(names), f"{role!r} must be a name, or names", names)
    need(isinstance(splits, dict) and all(map(is_names, splits.values())), "its 'splits' must be a dict of names", splits)


def decode(value, nodes, tensors, allow_functions=False, where=""):
    """An argument from its JSON form; ``nodes``: name -> node rebuilt so far.

    Raises ModelFileError for an unknown form, and for functions unless they are allowed.
    """
    def inner(v):
        return decode(v, nodes, tensors, allow_functions, where)
    if isinstance(value, list):
        return [inner(v) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ModelFileError(f"{where}: unknown form of an argument: {value!r}.")
    (kind, content), = value.items()
    name = content if kind == "node" else content[0] if kind in ("param", "transposed") and content else None
    if isinstance(name, str) and name not in nodes:
        raise ModelFileError(f"{where}: it refers to node {name!r}, which is not in the file, or later, as in a circle.")
    try:
        if kind == "node":
            return nodes[content]
        if kind == "param":
            return nodes[content[0]].params[content[1]]
        if kind == "transposed":
            return nodes[content[0]].params[content[1]].T
        if kind == "array":
            return tensors[content]
        if kind == "tuple":
            return tuple(inner(v) for v in content)
        if kind == "fraction":
            return Fraction(*content)
        if kind == "dict":
            return {k: inner(v) for k, v in content}
        if kind == "shape":
            shape, tags, strides, mfp_offsets, fov, centre, padded = content
            return TaggedShape(shape, tags, inner(strides), mfp_offsets, inner(fov), inner(centre), padded)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelFileError(f"{where}: damaged argument {value!r} ({error!r}).") from None
    if kind == "function":
        if not allow_functions:
            raise ModelFileError(f"{where}: the model calls the function {content!r}, which loading would import. If you "
                                 "trust the file, load it with allow_functions=True.")
        return _find_function(content)
    raise ModelFileError(f"{where}: unknown form of an argument: {value!r}.")
