"""Model files of the first ELEKTRONN2: pickles of ``(descriptors, designations)``, read without executing them.

``descriptors``: ordered name -> [NodeDescriptor, {param: array}], or SplitDescriptor. The nodes are made again one by
one, with the classes of this library, in a model that is then described as for a file of our own. What differs:

* its convolution was a true one: kernels of Conv (not of UpConv) are flipped on all spatial axes;
* axes b,z,f,x,y become b,f,z,x,y, also in kernels;
* a target held a copy of the geometry of the prediction (unknown after upsampling): it is linked to that node again;
* running averages of batch normalisation are taken as they are.
"""
import inspect
import logging
from functools import partial

import numpy as np

from elektronn2.errors import ModelFileError
from elektronn2.neuromancer import serialize
from elektronn2.neuromancer.manager import model_manager
from elektronn2.neuromancer.node_basic import FromTensor, Input, arguments_like, split
from elektronn2.neuromancer.registry import NODES
from elektronn2.neuromancer.scan import Scan, ScanN
from elektronn2.neuromancer.shape import TaggedShape, parse_tags
from elektronn2.utils.unpickle import Record, Reference, read_pickle

logger = logging.getLogger("elektronn2log")

PACKAGE = "elektronn2.neuromancer"
RECORDS = [(f"{PACKAGE}.graphmanager", c) for c in ("NodeDescriptor", "NodePointer", "ParamPointer", "SplitDescriptor")]
RECORDS += [(f"{PACKAGE}.graphutils", "TaggedShape")]
MOST_VALUES = 100_000  # arguments in one file: lists that hold each other would never end
DEEPEST = 20


def load(path, allow_functions=False):
    """(description, tensors) of a model file of the first ELEKTRONN2, as ``serialize.load`` gives them for ours.

    ``allow_functions``: import the functions that ApplyFunc nodes name.

    Raises FileNotFoundError; ModelFileError for a file that is damaged, no model, or holds a node that this library does not
    have; ValueError if the model breaks a rule that was not checked at the time. The errors name the node.
    """
    content = read_pickle(path, RECORDS)
    if not (isinstance(content, (tuple, list)) and len(content) == 2 and all(isinstance(c, dict) for c in content)):
        raise ModelFileError(f"{path} is a pickle, but no model of ELEKTRONN2, which is a pair of dicts (nodes and roles).")
    descriptors, designations = content
    where = "its designations"
    try:
        with model_manager.trial() as model:
            model.designations = _designations(model.designations, designations, descriptors)
            importer = _Importer(model, allow_functions)
            for name, entry in descriptors.items():
                where = f"node {name!r}"
                importer.add(name, entry)
            return serialize.describe(model)
    except Exception as error:  # whatever a damaged file leads to
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        kind = ValueError if type(error) in (ValueError, NotImplementedError) else ModelFileError
        raise kind(f"{path} cannot be read at {where}: {text}") from error


def _designations(roles, given, descriptors):
    """Role -> name, list of names, or None, checked."""
    for role, value in given.items():
        names = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
        if role not in roles or not all(isinstance(n, str) for n in names):
            raise ModelFileError(f"{role!r} is no role of a node, or its value is no name")
    return {**roles, **{k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}}


def _is(value, name):
    return isinstance(value, Record) and value.cls.name == name


class _Importer:
    """Makes the nodes of an old file, one after the other, in ``model``."""

    def __init__(self, model, allow_functions):
        self.model, self.allow_functions = model, allow_functions
        self.late_features = set()  # names of nodes that had axes b,z,f,...
        self.values_seen = 0

    def add(self, name, entry):
        if isinstance(entry, (list, tuple)) and len(entry) == 2:
            descriptor, params = entry
        else:
            descriptor, params = entry, {}
        if _is(descriptor, "SplitDescriptor"):
            self.add_split(name, descriptor)
        elif _is(descriptor, "NodeDescriptor"):
            cls = self.node_class(descriptor.attributes["cls"])
            if cls is ScanN:
                self.add_scan(name, descriptor)
            elif cls is not FromTensor:  # its split makes it
                self.add_node(name, cls, descriptor, params)
        else:
            raise ModelFileError("neither a NodeDescriptor with its parameters nor a SplitDescriptor")

    def add_split(self, name, descriptor):
        """Split again, under the same name, what was split: ``node_id`` names it, ``args`` and ``kwargs`` say how."""
        function = descriptor.attributes["func"]
        known = isinstance(function, Reference) and function.module.startswith(f"{PACKAGE}.")
        if known and function.name == "scansplit" and type(self.node(descriptor.attributes["node_id"])) is ScanN:
            return
        if not known or function.name != "split":
            raise ModelFileError("a split by another function than that of ELEKTRONN2")
        args, kwargs = self.value(list(descriptor.attributes["args"])), self.value(dict(descriptor.attributes["kwargs"]))
        if args and isinstance(args[0], NODES["Node"]):
            node, *args = args
        else:
            node = kwargs.pop("node", None) or self.node(descriptor.attributes["node_id"])
        arguments = inspect.signature(split).bind(node, *args, **kwargs).arguments
        if not isinstance(arguments.get("name"), (list, tuple)):
            arguments["name"] = name
        if node.name in self.late_features and isinstance(arguments.get("axis"), int):
            arguments["axis"] = _features_first_axis(arguments["axis"])
        pieces = split(**arguments)
        if node.name in self.late_features:
            self.late_features.update(p.name for p in pieces)

    def add_scan(self, name, descriptor):
        """A loop with the nodes of its results, which another entry splits off it."""
        arguments = self.arguments(Scan, descriptor)
        print_repr, before = bool(arguments.pop("print_repr", True)), set(self.model.nodes)
        Scan(**arguments, name=name, print_repr=False)
        for made in self.model.nodes.keys() - before:
            self.model.nodes[made].print_repr = print_repr

    def add_node(self, name, cls, descriptor, params):
        arguments = self.arguments(partial(cls.__init__, None), descriptor)
        values = self.values(params)
        if "tags" in arguments and "shape" in arguments:
            self.features_first(name, arguments, values)
        elif any(p in self.late_features for p in _parents(arguments)):
            self.late_features.add(name)
            if isinstance(arguments.get("axis"), int):
                arguments["axis"] = _features_first_axis(arguments["axis"])
        if cls.__name__ == "Conv":
            self.flip_kernels(name, arguments, values)
            arguments.pop("invalidate_fov", None)  # the field of view is always known here
        like = self.linked(arguments) if cls is Input else None
        print_repr = arguments.pop("print_repr", True)
        self.check_sharing(cls, arguments)
        self.give_weights(cls, arguments, values)
        node = cls(**arguments, name=name, print_repr=False)
        node.like, node.print_repr = like, bool(print_repr)
        self.set_values(node, arguments, values)

    def node_class(self, cls):
        """The class of this library that has the old one's name."""
        if not isinstance(cls, Reference):
            raise ModelFileError("its class is no class")
        if cls.name not in NODES or not (cls.module.startswith(f"{PACKAGE}.") or cls.module == NODES[cls.name].__module__):
            skeletons = "Skel" in cls.name or cls.name == "GenericInput"
            raise ModelFileError(f"its class {cls} does not exist in this library" + (
                "; networks that trace skeletons cannot be read" if skeletons else ""))
        return NODES[cls.name]

    # -- arguments -----------------------------------------------------------------------------------
    def arguments(self, make, descriptor):
        """Arguments of ``make`` by name; what a descriptor holds of nodes and parameters are pointers."""
        args, kwargs = descriptor.attributes["args"], dict(descriptor.attributes["kwargs"])
        kwargs.pop("name", None)
        functor = kwargs.pop("functor", None)
        if descriptor.attributes["cls"].name == "ApplyFunc" and functor is None and len(args) > 1:
            args, functor = list(args), args[1]
            args[1] = None
        arguments = dict(inspect.signature(make).bind(*map(self.value, args), **self.value(kwargs)).arguments)
        if functor is not None:
            if not isinstance(functor, Reference):
                raise ModelFileError("its functor is no function")
            arguments["functor"] = serialize.decode({"function": f"{functor.module}:{functor.name}"}, {}, {},
                                                    self.allow_functions, "ApplyFunc")
        return arguments

    def value(self, value, depth=0):
        """An argument with nodes and parameters in the place of pointers."""
        self.values_seen += 1
        if self.values_seen > MOST_VALUES or depth > DEEPEST:
            raise ModelFileError("its arguments are nested without end")

        def inner(v):
            return self.value(v, depth + 1)
        if isinstance(value, (list, tuple)):
            return type(value)(inner(v) for v in value)
        if isinstance(value, dict):
            return {k: inner(v) for k, v in value.items()}
        if isinstance(value, np.ndarray):
            return value.tolist() if value.ndim == 1 and value.dtype.kind in "iu" else value
        if isinstance(value, bytes):
            return value.decode("latin1")
        if isinstance(value, Reference):
            raise ModelFileError(f"the name {value} as an argument")
        if _is(value, "NodePointer"):
            return self.node(value)
        if _is(value, "ParamPointer"):
            return self.node(value).params[value.attributes["param_name"]]
        if _is(value, "TaggedShape"):
            a = {k.lstrip("_"): inner(v) for k, v in value.attributes.items()}
            return TaggedShape(a["shape"], a["tags"], a.get("strides"), a.get("mfp_offsets"), _known(a.get("fov")))
        if isinstance(value, Record):
            raise ModelFileError(f"a {value.cls.name} as an argument")
        return value

    def node(self, pointer):
        target = pointer if isinstance(pointer, str) else pointer.attributes["target_id"]
        if not isinstance(target, str) or target not in self.model.nodes:
            raise ModelFileError("it needs a node that is not in the file before it" + (
                f": {target!r}" if isinstance(target, str) else ""))
        return self.model.nodes[target]

    # -- what differs --------------------------------------------------------------------------------
    def features_first(self, name, arguments, values):
        tags = list(parse_tags(arguments["tags"]))
        if tags[:3] != ["b", "z", "f"]:
            return
        logger.warning("Node %s has the axes %s in the file, and b,f,z,... here.", name, ",".join(tags))
        self.late_features.add(name)
        shape = list(arguments["shape"])
        for axes in (tags, shape):
            axes[1:3] = axes[2:0:-1]
        arguments.update(tags=tags, shape=shape)
        if "value" in values:
            values["value"] = values["value"].swapaxes(1, 2)

    def flip_kernels(self, name, arguments, values):
        for holder in (arguments, values):
            w = holder.get("w")
            constant = isinstance(w, (list, tuple)) and len(w) == 2 and isinstance(w[0], np.ndarray)
            array = w[0] if constant else w
            if not isinstance(array, np.ndarray):
                continue
            if name in self.late_features and array.ndim == 5:
                array = array.swapaxes(1, 2)
            array = np.flip(array, range(2, array.ndim))
            holder["w"] = [array, w[1]] if constant else array

    def linked(self, arguments):
        """Make an input that was made like a node be so again; what the file does not say of it is seen from its sizes."""
        if arguments.get("fov") is None or arguments.get("strides") is None:
            return None
        tags, sizes = list(parse_tags(arguments["tags"])), arguments["shape"]
        strides = [float(s) for s in arguments["strides"]]
        found = [n for n in self.model.nodes.values() if n.shape.tags == tags
                 and all(t == "f" or a == b for t, a, b in zip(tags, sizes, n.shape))
                 and np.allclose([float(s) for s in n.shape.strides], strides)]
        if not found:
            arguments["fov"] = _known(arguments["fov"])
            return None
        fov, prediction = list(arguments["fov"]), self.model.designations["prediction_node"]
        node = max(found, key=lambda n: (n.name == prediction, n.shape.fov == fov))
        n_f = sizes[tags.index("f")] if "f" in tags else None
        n_f = None if n_f is None or n_f == node.shape["f"] else n_f
        arguments.update(arguments_like(node.shape, n_f))
        return {"node": node.name, "override_f": n_f}

    def check_sharing(self, cls, arguments):
        for owner in self.model.nodes.values():
            if owner.params.get("w") is not None and owner.params["w"] is arguments.get("w"):
                if (type(owner).__name__ == "Conv") != (cls.__name__ == "Conv"):
                    raise ModelFileError(f"it shares the kernel of {owner.name!r}, which is flipped there and not here")

    # -- parameters ----------------------------------------------------------------------------------
    def values(self, params):
        if not isinstance(params, dict) or not all(isinstance(v, (np.ndarray, int, float)) for v in params.values()):
            raise ModelFileError("its parameters are no arrays")
        return {k: np.asarray(v) for k, v in params.items()}

    def give_weights(self, cls, arguments, values):
        """Weights as arguments, so that a node of another size than that of its weights is refused before it is made."""
        measured = ("mean", "std") if arguments.get("batch_normalisation") in ("train", "fadeout") else ()
        for key in serialize.WEIGHTS:
            if key in values and key in _parameters(cls) and key not in measured and arguments.get(key) is None:
                arguments[key] = values[key]
        if "w" in _parameters(cls) and arguments.get("w") is None:
            raise ModelFileError("the file lacks its parameters ['w']")

    def set_values(self, node, arguments, values):
        unknown = [k for k in values if k not in node.params]
        if unknown:
            raise ModelFileError(f"it has parameters here that are called {list(node.params)}; the file has also {unknown}")
        absent = [k for k in node.params if k in serialize.WEIGHTS and k not in values and arguments.get(k) is None]
        if absent == ["value"] and node.value.constant:
            logger.warning("Node %s: the file does not hold its value, which was 0 or was lost; it is 0.", node.name)
            absent = []
        if absent:
            raise ModelFileError(f"the file lacks its parameters {absent}")
        node.set_param_values({k: v.reshape(node.params[k].shape) if v.size == 1 else v for k, v in values.items()},
                              skip_const=True)


def _known(fov):
    """The field of view, or None where the original did not know it (-1)."""
    return None if fov is None or min(fov, default=1) < 0 else fov


def _features_first_axis(axis):
    """Index of an axis in b,f,z,... that had ``axis`` in b,z,f,..."""
    return {1: 2, 2: 1, -4: -3, -3: -4}.get(axis, axis)


def _parameters(cls):
    return inspect.signature(cls.__init__).parameters


def _parents(arguments):
    """Names of the nodes among arguments."""
    values = [v for a in arguments.values() for v in (a if isinstance(a, (list, tuple)) else [a])]
    return [v.name for v in values if isinstance(v, NODES["Node"])]
