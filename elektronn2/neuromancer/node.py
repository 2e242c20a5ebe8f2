"""The node: a symbolic value that knows its shape, field of view, parameters and cost."""
import inspect
import logging
import time
from contextlib import contextmanager

import numpy as np
import torch

from elektronn2.neuromancer import graph
from elektronn2.neuromancer.dense import predict_dense
from elektronn2.neuromancer.expression import Expression
from elektronn2.neuromancer.function import Function
from elektronn2.neuromancer.manager import choose_name, model_manager
from elektronn2.neuromancer.registry import NODES
from elektronn2.neuromancer.shape import TaggedShape
from elektronn2.neuromancer.variables import ConstantParam, TransposedParam, VariableParam, VariableWeight, debiased
from elektronn2.utils.basic import pretty_string_ops
from elektronn2.utils.validate import as_int, short, suggest

logger = logging.getLogger("elektronn2log")


def nodes_in(value):
    """Nodes among arguments, also within lists and dicts."""
    if isinstance(value, Node):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from nodes_in(v)
    elif isinstance(value, dict):
        yield from nodes_in(list(value.values()))


@contextmanager
def all_or_nothing(*arguments):
    """For functions that make several nodes from ``arguments``: if an error is raised within, those made are taken back."""
    models = {n.model for n in nodes_in(arguments)}
    marks = [(m, len(m), len(m.graph)) for m in models]
    try:
        yield
    except Exception:
        for model, n_nodes, mark in marks:
            model.forget_from(n_nodes, mark)
        raise


class NodeType(type):
    """Builds nodes: names and registers them, then calls the three hooks (see :class:`Node`)."""

    _building = None

    def __new__(mcs, name, bases, namespace):
        cls = super().__new__(mcs, name, bases, namespace)
        signature = inspect.signature(cls.__init__)
        cls.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # for help(), not (*args)
        return NODES(cls)

    def __call__(cls, /, *args, **kwargs):
        if NodeType._building is not None:
            raise RuntimeError(f"{cls.__name__} is created inside the constructor of {NodeType._building}. "
                               "A constructor makes one node: write a function that makes several.")
        signature = inspect.signature(cls.__init__)
        try:
            bound = signature.bind(None, *args, **kwargs)
        except TypeError as mismatch:
            message = f"{mismatch}."
            wrong = [k for k in kwargs if k not in signature.parameters]
            if wrong:
                names = list(signature.parameters)[1:]
                message = f"unknown argument {wrong[0]!r}.{suggest(wrong[0], names)}"
            raise TypeError(f"{cls.__name__}: {message} It takes {signature}.") from None
        arguments = dict(list(bound.arguments.items())[1:])
        default = signature.parameters["name"].default if "name" in signature.parameters else cls.__name__.lower()
        proposal = arguments.pop("name", None) or default or cls.__name__.lower()
        if not isinstance(proposal, str):
            raise TypeError(f"The name of a node is a string, got {proposal!r}.")
        arguments.pop("print_repr", None)
        if cls.__module__.startswith("elektronn2.") and cls is not Node:  # other classes may take what they like
            for key in ("parent", "pred"):
                if key in arguments and not isinstance(arguments[key], Node):
                    raise TypeError(f"{cls.__name__} {proposal!r}: its parent must be one node, got "
                                    f"{short(arguments[key])}.")

        model = _model_for(list(nodes_in(arguments)), f"{cls.__name__} {proposal!r}")
        name = choose_name(proposal, model.taken)
        mark = len(model.graph)
        node = cls.__new__(cls)
        node.model = model
        NodeType._building = f"{cls.__name__} {name!r}"
        try:
            bound.arguments["name"] = name
            node.__init__(*bound.args[1:], **bound.kwargs)
            if not hasattr(node, "parents"):
                raise TypeError(f"{NodeType._building}: its constructor must begin with super().__init__(parent, name, "
                                "print_repr).")
            node.name = name
            model.register_node(node, arguments)
            node._finalize()
            model.graph.made_for(node, mark)
        except Exception as error:
            model.forget_node(name)
            model.graph.erase_from(mark)
            if repr(name) not in str(error):
                error.add_note(f"This was when {NodeType._building} was made{_from_parents(node)}.")
            raise
        finally:
            NodeType._building = None
        level = logging.INFO if node.print_repr else logging.DEBUG
        logger.log(level, "%s\n%r", "-" * 87, node)
        return node


def _open_sizes(node):
    """What to do if two parents have an open size on the same axis, or one has; else ''."""
    parents = getattr(node, "parents", ())
    for p in parents:
        for other in parents:
            for tag in p.shape.tags:
                if tag != "f" and other.shape.hastag(tag) and p.shape[tag] is None and other.shape[tag] is not None:
                    return (f"axis {tag!r} of {p.name!r} {p.shape} has an open size, that of {other.name!r} {other.shape} a "
                            f"known one, and they do not go together. Give both the size {other.shape[tag]}, or leave both "
                            "open.")
    first, *others = [p.shape for p in parents] or [None]
    both = [t for t in first.tags if t not in "bf" and first[t] is None and any(
        s.hastag(t) and s[t] is None for s in others)] if others else []
    if both:
        return (f"the sizes of {', '.join(repr(p.name) for p in parents)} on axes {','.join(both)} are open, so they cannot "
                "be told to go together. Give the input a size; modelload(file, imposed_patch_size=...) changes it later.")
    return ""


def _from_parents(node):
    """`` from 'a' [...], 'b' [...]``: the parents of a node with their shapes, for errors; empty if there are none."""
    parents = ", ".join(f"{p.name!r} {p.shape}" for p in getattr(node, "parents", ()))
    return f" from {parents}" if parents else ""


def _model_for(parents, what):
    models = {id(p.model): p.model for p in parents}
    if len(models) > 1:
        names = ", ".join(f"{p.name!r} of model {p.model.name!r}" for p in parents)
        current = model_manager.current and model_manager.current.name
        raise ValueError(f"{what} cannot have parents from different models: {names}. New sources go to the current model, "
                         f"{current!r}; model_manager.getmodel(name) makes another one current.")
    return next(iter(models.values())) if models else model_manager.getmodel()


class Node(metaclass=NodeType):
    """Base of all nodes; on its own it passes its parent on.

    A class of your own overrides up to three hooks, called in this order once the constructor is done:

    * ``_make_output``: set ``self.output``, an expression of ``self.parent.output`` and parameters;
    * ``_calc_shape``: set ``self.shape``, a :class:`TaggedShape` (default: that of the first parent);
    * ``_calc_comp_cost``: set ``self.computational_cost``, multiply-adds (default: its number of elements).

    The declared shape is checked against the symbolic one: ValueError if they differ.

    >>> from elektronn2 import neuromancer as nm
    >>> class Square(nm.Node):
    ...     def __init__(self, parent, name='square', print_repr=False):
    ...         super().__init__(parent, name, print_repr)
    ...     def _make_output(self):
    ...         self.output = self.parent.output ** 2
    >>> m = nm.model_manager.newmodel(None)
    >>> y = Square(nm.Input((1, 2), 'b,f', print_repr=False))
    >>> y(np.array([[1, 3]], 'float32'))
    array([[1., 9.]], dtype=float32)

    ``parent``: a node, a list of nodes, or None for a source. ``name``: made unique in the model.
    """

    is_source = False
    upsamples = False  # whether the output has a higher resolution than the input, which rules out max-fragment pooling
    joined = None  # (parents whose sizes must be equal when they are open, an axis on which they need not), if there are any
    like = None  # for targets: {"node": name, "override_f": size} of what the shape was copied from

    def __init__(self, parent, name="", print_repr=False):
        self.parent = parent
        self.parents = () if parent is None else tuple(parent) if isinstance(parent, (list, tuple)) else (parent,)
        for i, p in enumerate(self.parents):
            if not isinstance(p, Node):
                raise TypeError(f"{type(self).__name__} {name!r}: parent {i + 1} of {len(self.parents)} must be a node, got "
                                f"{short(p)}.")
        self.name = name
        self.print_repr = print_repr
        self.children = {}
        self.params = {}
        self.shared = {}
        self.debug_outputs = {}
        self.computational_cost = 0
        self.output = self.shape = None
        self._functions = {}
        self._feature_names = None
        self.local_exec_time = self.total_exec_time = 0.0

    # -- building --------------------------------------------------------------------------------
    def _make_output(self):
        self.output = self.parents[0].output

    def _calc_shape(self):
        self.shape = self.parents[0].shape

    def _calc_comp_cost(self):
        self.computational_cost = self.parents[0].shape.stripnone_prod if self.parents else 0

    def _axis_size(self, k, *sizes, mfp=False):
        """Length of the output on spatial axis k from those of the parents; ValueError if they do not fit."""
        return sizes[0]

    def _finalize(self):
        what = f"{type(self).__name__} {self.name!r}"
        try:
            self._make_output()
        except (RuntimeError, IndexError) as error:  # what torch raises for sizes and axes
            if isinstance(error, NotImplementedError):
                raise
            raise ValueError(f"{what} cannot be computed{_from_parents(self)}: {_open_sizes(self) or error}") from error
        if not isinstance(self.output, Expression) or not isinstance(self.output.meta, torch.Tensor):
            given = repr(self.output) if isinstance(self.output, Expression) else short(self.output)
            raise TypeError(f"{what}: _make_output must set self.output to an expression of one tensor, such as "
                            f"torch.tanh(self.parent.output); it is {given}.")
        self._calc_shape()
        if not isinstance(self.shape, TaggedShape):
            raise TypeError(f"{what}: _calc_shape must set self.shape to a TaggedShape, such as self.parent.shape; it is "
                            f"{short(self.shape)}.")
        self._calc_comp_cost()
        meta = self.output.meta
        if len(meta.shape) != len(self.shape) or any(
                n is not None and n != m for n, m in zip(self.shape, meta.shape)):
            open_sizes = _open_sizes(self)
            if open_sizes:
                raise ValueError(f"{what}: {open_sizes}")
            raise ValueError(f"{what} declares shape {self.shape}, but its output has {tuple(meta.shape)}: the shape rule "
                             f"(_calc_shape) and the computation (_make_output) disagree. It is made{_from_parents(self)}.")
        for p in self.parents:
            p.children[self.name] = self

    def make_param(self, name, given, shape, init_kwargs, apply_train=True, apply_reg=True, dtype=None):
        """Register a parameter, from what the user passed for it.

        ``given``: None (initialised by ``init_kwargs``); an array or number (initial value); a parameter of
        another node (shared; its ``.T``: with swapped axes); ``[value, 'const']`` or ``[value, 'trainable']``. Raises
        ValueError for another shape or kind.
        """
        full_name = f"{self.name}_{name}"
        where = f"{type(self).__name__} {self.name!r}: argument {name!r}"
        if isinstance(given, (VariableParam, TransposedParam)):
            if given.shape != tuple(shape):
                raise ValueError(f"{where}: the shared parameter has shape {given.shape}, needed is {tuple(shape)}.")
            shared = given.param if isinstance(given, TransposedParam) else given
            if shared.owner is not None and shared.owner.model is not self.model:
                raise ValueError(f"{where}: the parameter of {shared.owner.name!r} belongs to model "
                                 f"{shared.owner.model.name!r}, this node to {self.model.name!r}. Pass its value, "
                                 "param.get_value(): models cannot share weights.")
            setattr(self, name, given)
            self.shared[name] = shared
            return given
        constant = False
        if isinstance(given, (list, tuple)) and len(given) == 2 and given[1] in ("const", "trainable"):
            constant = given[1] == "const"
            given = given[0]
        if given is None and constant:
            raise ValueError(f"{where}: [None, 'const'] has no value to hold constant; give an array.")
        if given is None:
            param = VariableWeight(shape, init_kwargs, None, full_name, apply_train, apply_reg, dtype)
        else:
            try:
                value = np.asarray(given)
            except ValueError:  # lists of different lengths
                value = None
            if value is None or value.dtype.kind not in "biuf":
                raise ValueError(f"{where} must be None, an array, a parameter of another node, "
                                 f"or [array, 'const'], got {short(given)}.")
            if value.shape != tuple(shape) and value.ndim:
                raise ValueError(f"{where} must have shape {tuple(shape)}, the given value has {value.shape}.")
            value = np.full(shape, value) if not value.ndim else value
            param = (ConstantParam(value, full_name, dtype) if constant
                     else VariableWeight(shape, None, value, full_name, apply_train, apply_reg, dtype))
        param.owner = self
        self.params[name] = param
        setattr(self, name, param)
        return param

    # -- the graph around ------------------------------------------------------------------------
    @property
    def all_parents(self):
        """Ordered name -> node, ancestors first, this one included."""
        return {n.name: n for n in graph.ancestors(self)}

    @property
    def all_children(self):
        """Ordered name -> node of everything that depends on this node."""
        return {n.name: n for n in graph.descendants(self, self.model.nodes.values())}

    @property
    def input_nodes(self):
        """The sources that this node needs, first seen first: the arguments of a call."""
        return graph.sources(self)

    @property
    def input_tensors(self):
        return [n.output for n in self.input_nodes]

    def axis_rules(self, mfp=False):
        """Shape of this node, and per spatial axis a function: input length -> output length (ValueError if none).

        With ``mfp`` the output length is that of the fragments.
        """
        order = graph.ancestors(self)

        def rule(k):
            def size(n):
                sizes = {}
                for node in order:
                    sizes[id(node)] = n if node.is_source else node._axis_size(
                        k, *(sizes[id(p)] for p in node.parents), mfp=mfp)
                return sizes[id(self)]
            return size
        return self.shape, [rule(k) for k in range(self.shape.ndim)]

    # -- parameters ------------------------------------------------------------------------------
    @property
    def all_params(self):
        """Ordered ``<node>_<param>`` -> parameter of this node and its ancestors, shared ones once."""
        nodes = graph.ancestors(self)
        params = {f"{n.name}_{k}": p for n in nodes for k, p in n.params.items()}
        for n in nodes:
            for k, p in n.shared.items():
                if all(p is not own for own in params.values()):  # its owner is not an ancestor
                    params[f"{n.name}_{k}"] = p
        return params

    @property
    def all_trainable_params(self):
        return {k: p for k, p in self.all_params.items() if p.apply_train}

    @property
    def all_nontrainable_params(self):
        return {k: p for k, p in self.all_params.items() if not p.apply_train}

    @property
    def all_extra_updates(self):
        """Pairs (param, expression) that every optimiser step stores."""
        return [(p, p.updates) for p in self.all_params.values() if p.updates is not None]

    @property
    def param_count(self):
        """Number of trainable scalars of this node."""
        return sum(int(np.prod(p.shape)) for p in self.params.values() if p.apply_train)

    @property
    def all_params_count(self):
        return sum(n.param_count for n in graph.ancestors(self))

    @property
    def all_computational_cost(self):
        return sum(n.computational_cost for n in graph.ancestors(self))

    def get_param_values(self, skip_const=False):
        """Ordered name -> array."""
        return {k: p.get_value() for k, p in self.params.items() if not (skip_const and p.constant)}

    def set_param_values(self, value_dict, skip_const=False):
        """Set parameters from name -> array.

        KeyError for an unknown name (but values of batch normalisation that this node does not have are
        skipped with a note); ValueError for a constant parameter, unless ``skip_const``. A node that does not measure
        statistics takes running averages without the share of their initial value.
        """
        if not isinstance(value_dict, dict):
            raise TypeError(f"Parameters of node {self.name!r} are set from a dict, name -> array, got {short(value_dict)}.")
        if "init_weight" not in self.params:
            value_dict = debiased(value_dict)
        for name, value in value_dict.items():
            if name not in self.params:
                if name in ("gamma", "mean", "std", "init_weight"):
                    logger.info("%s has no parameter %r: its value is skipped.", self.name, name)
                    continue
                raise KeyError(f"Node {self.name!r} has no parameter {name!r}; it has {list(self.params)}."
                               f"{suggest(name, self.params)}")
            param = self.params[name]
            if param.constant:
                if skip_const:
                    continue
                raise ValueError(f"Parameter {name!r} of node {self.name!r} is constant; "
                                 "pass skip_const=True to leave constants as they are.")
            param.set_value(value)
        if "init_weight" in self.params and "init_weight" not in value_dict and {"mean", "std"} & set(value_dict):
            self.params["init_weight"].set_value(0.0)  # statistics from elsewhere are taken as they are

    @property
    def feature_names(self):
        """Names of the entries on the f axis, or None."""
        return self._feature_names

    @feature_names.setter
    def feature_names(self, names):
        if not isinstance(names, (list, tuple)):
            raise TypeError(f"feature_names of node {self.name!r} are a list of names, got {names!r}.")
        if not self.shape.hastag("f") or len(names) != self.shape["f"]:
            raise ValueError(f"Node {self.name!r} with shape {self.shape} cannot have {len(names)} feature names: "
                             "one per entry of axis f is needed.")
        self._feature_names = list(names)

    # -- computing -------------------------------------------------------------------------------
    def function(self, mode="predict"):
        """The function that computes this node from its ``input_nodes``."""
        if mode not in self._functions:
            inputs = self.input_nodes
            self._functions[mode] = Function(
                [n.output for n in inputs], self.output, name=self.name, mode=mode,
                shapes=[n.shape.shape for n in inputs], names=[n.name for n in inputs])
        return self._functions[mode]

    def __call__(self, *arrays, mode="predict"):
        """Values of this node for arrays for its ``input_nodes``; without arguments it only compiles.

        ``mode`` 'train': batch statistics and dropout as in training. Raises TypeError if number, dtype or
        shape of the arrays do not fit.
        """
        return self.function(mode)(*arrays)

    def get_debug_outputs(self, *arrays):
        """Values of the extra expressions that this node declares, in order."""
        if not self.debug_outputs:
            logger.warning("Node %s has no debug outputs.", self.name)
            return []
        inputs = self.input_nodes
        return Function([n.output for n in inputs], list(self.debug_outputs.values()), name=f"{self.name} debug",
                        names=[n.name for n in inputs])(*arrays)

    def predict_dense(self, raw_img, as_uint8=False, pad_raw=False):
        """This node at every voxel of a volume of any size; see :func:`elektronn2.neuromancer.dense.predict_dense`."""
        return predict_dense(self, raw_img, as_uint8=as_uint8, pad_raw=pad_raw)

    @property
    def last_exec_time(self):
        """Seconds of the last call."""
        return self.function().last_exec_time

    def _random_inputs(self):
        """Values in 0..1 for the sources; class 0 where a loss takes them for class ids."""
        rng, arrays = np.random.default_rng(0), []
        for s in self.input_nodes:
            values = rng.random([1 if n is None else n for n in s.shape])
            ids = any(getattr(c, "target_is_sparse", False) and c.parents[1] is s for c in s.children.values())
            arrays.append((np.zeros_like(values) if ids else values).astype(s.output.dtype))
        return arrays

    def test_run(self, on_shape_mismatch="warn", debug_outputs=False):
        """Run once on random input; logs output shape, runtime, speed and whether the declared shape holds."""
        arrays = self._random_inputs()
        if debug_outputs:
            return self.get_debug_outputs(*arrays)
        self()
        result = self(*arrays)
        t = self.last_exec_time
        declared = [1 if n is None else n for n in self.shape]
        agrees = list(result.shape) == declared
        logger.info("%s\n  Outshape=%s\n  Runtime=%.4g s\n  Speed=%.4g MPix/s\n  Shape as declared: %s", self.name,
                    result.shape, t, self.shape.spatial_size / 1e6 / max(t, 1e-9), agrees)
        if not agrees:
            message = f"{self.name} declares {declared} but computes {list(result.shape)}."
            if on_shape_mismatch == "raise":
                raise ValueError(message)
            logger.warning(message)
        return result

    def measure_exectime(self, n_samples=5, n_warmup=4, print_info=True, local=True, nonegative=True):
        """Median execution time in ms.

        ``local``: without the time of the parents; ``nonegative``: at least 0 (measuring noise can make the
        difference negative).
        """
        if not self.input_nodes:
            return 0.0
        samples = self._time(n_samples, n_warmup)
        if local:
            samples = samples - sum(np.median(p._time(n_samples, n_warmup)) for p in self.parents if p.input_nodes)
        median = float(np.median(samples))
        self.local_exec_time = median / 1e3
        if nonegative and median < 0:
            logger.warning("%s: the measured time is below that of its parents; taken as 0.", self.name)
            median = 0.0
        if print_info:
            logger.info("%s samples in ms:", self.name)
            logger.info("%s", np.array2string(samples, precision=3))
            logger.info("%s: median execution time: %.5f ms", self.name, median)
        return median

    def _time(self, n_samples, n_warmup):
        """Times of calls, in ms."""
        n_samples = as_int(n_samples, "n_samples")
        self()
        arrays, samples = self._random_inputs(), []
        for i in range(n_warmup + n_samples):
            start = time.perf_counter()
            self(*arrays)
            if i >= n_warmup:
                samples.append(1e3 * (time.perf_counter() - start))
        self.total_exec_time = float(np.median(samples)) / 1e3
        return np.array(samples)

    # -- printing --------------------------------------------------------------------------------
    def _repr_details(self):
        """More lines of the representation."""
        return ""

    def __repr__(self):
        text = f"<{type(self).__name__}-Node> {self.name!r} \n  "
        if self.param_count:
            text += f"#Params={self.param_count:,} "
        if self.computational_cost:
            text += f"Comp.Cost={pretty_string_ops(self.computational_cost)}, "
        text += f"Out:{self.shape!r}"
        details = self._repr_details()
        text += f"\n  {details}" if details else ""
        if len(self.input_nodes) > 1:
            text += f"\n  Order of sources={[n.name for n in self.input_nodes]}, "
        return text
