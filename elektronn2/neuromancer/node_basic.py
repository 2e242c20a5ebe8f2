"""The node: a symbolic value that knows its shape, field of view, parameters and cost."""
import inspect
import logging
import time

import numpy as np

from elektronn2.config import config
from elektronn2.neuromancer import computations, graph
from elektronn2.neuromancer.dense import predict_dense
from elektronn2.neuromancer.expression import op
from elektronn2.neuromancer.function import Function
from elektronn2.neuromancer.manager import choose_name, model_manager
from elektronn2.neuromancer.registry import NODES
from elektronn2.neuromancer.shape import TaggedShape
from elektronn2.neuromancer.variables import ConstantParam, VariableParam, VariableWeight
from elektronn2.utils.basic import pretty_string_ops
from elektronn2.utils.validate import suggest

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


class NodeType(type):
    """Builds nodes: names and registers them, then calls the three hooks (see :class:`Node`)."""

    _building = None

    def __new__(mcs, name, bases, namespace):
        return NODES(super().__new__(mcs, name, bases, namespace))

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
                    raise TypeError(f"{cls.__name__} {proposal!r}: its parent must be one node, got {arguments[key]!r}.")

        model = _model_for(list(nodes_in(arguments)))
        name = choose_name(proposal, model.nodes)
        mark = len(model.graph)
        node = cls.__new__(cls)
        node.model = model
        NodeType._building = f"{cls.__name__} {name!r}"
        try:
            bound.arguments["name"] = name
            node.__init__(*bound.args[1:], **bound.kwargs)
            node.name = name
            model.register_node(node, arguments)
            node._finalize()
        except Exception:
            model.forget_node(name)
            model.graph.erase_from(mark)
            raise
        finally:
            NodeType._building = None
        level = logging.INFO if node.print_repr else logging.DEBUG
        logger.log(level, "%s\n%r", "-" * 87, node)
        return node


def _model_for(parents):
    models = {id(p.model): p.model for p in parents}
    if len(models) > 1:
        names = ", ".join(f"{p.name!r} of model {p.model.name!r}" for p in parents)
        raise ValueError(f"A node cannot have parents from different models: {names}.")
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
    like = None  # for targets: {"node": name, "override_f": size} of what the shape was copied from

    def __init__(self, parent, name="", print_repr=False):
        self.parent = parent
        self.parents = () if parent is None else tuple(parent) if isinstance(parent, (list, tuple)) else (parent,)
        for p in self.parents:
            if not isinstance(p, Node):
                raise TypeError(f"{type(self).__name__}: a parent must be a node, got {p!r}.")
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
        self._make_output()
        self._calc_shape()
        self._calc_comp_cost()
        meta = self.output.meta
        if len(meta.shape) != len(self.shape) or any(
                n is not None and n != m for n, m in zip(self.shape, meta.shape)):
            raise ValueError(
                f"{type(self).__name__} {self.name!r} declares shape {self.shape}, but its output has "
                f"{tuple(meta.shape)}: the shape rule (_calc_shape) and the computation (_make_output) disagree.")
        for p in self.parents:
            p.children[self.name] = self

    def make_param(self, name, given, shape, init_kwargs, apply_train=True, apply_reg=True):
        """Register a parameter, from what the user passed for it.

        ``given``: None (initialised by ``init_kwargs``); an array or number (initial value); a parameter of
        another node (shared); ``[value, 'const']`` or ``[value, 'trainable']``. Raises ValueError for another
        shape or kind.
        """
        full_name = f"{self.name}_{name}"
        where = f"{type(self).__name__} {self.name!r}: argument {name!r}"
        if isinstance(given, VariableParam):
            if given.shape != tuple(shape):
                raise ValueError(f"{where}: the shared parameter has shape {given.shape}, needed is {tuple(shape)}.")
            setattr(self, name, given)
            self.shared[name] = given
            return given
        constant = False
        if isinstance(given, (list, tuple)) and len(given) == 2 and given[1] in ("const", "trainable"):
            constant = given[1] == "const"
            given = given[0]
        if given is None and constant:
            raise ValueError(f"{where}: [None, 'const'] has no value to hold constant; give an array.")
        if given is None:
            param = VariableWeight(shape, init_kwargs, None, full_name, apply_train, apply_reg)
        else:
            try:
                value = np.asarray(given, dtype=config.floatX)
            except (TypeError, ValueError):
                raise ValueError(f"{where} must be None, an array, a parameter of another node, "
                                 f"or [array, 'const'], got {given!r}.") from None
            if value.shape != tuple(shape) and value.ndim:
                raise ValueError(f"{where} must have shape {tuple(shape)}, the given value has {value.shape}.")
            value = np.full(shape, value) if not value.ndim else value
            param = (ConstantParam(value, full_name) if constant
                     else VariableWeight(shape, None, value, full_name, apply_train, apply_reg))
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
        skipped with a note); ValueError for a constant parameter, unless ``skip_const``.
        """
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
        rng = np.random.default_rng(0)
        return [rng.random([1 if n is None else n for n in s.shape]).astype(s.output.dtype) for s in self.input_nodes]

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


class Input(Node):
    """A source: values that are given when a function is called. Output (b, f, *L), or whatever ``shape`` says.

    ``shape``: sizes, None for any; ``tags``: axis letters, like 'b,f,z,x,y'; ``strides``, ``fov``,
    ``offsets``: per spatial axis, where its voxels sit on another input (for targets); ``dtype``: a name.
    ``hardcoded_shape``: insist that every size is given (ValueError if one is None).
    """

    is_source = True

    def __init__(self, shape, tags, strides=None, fov=None, dtype=None, hardcoded_shape=False, name="input",
                 print_repr=True, offsets=None):
        super().__init__(None, name, print_repr)
        self._declared = TaggedShape(shape, tags, strides, fov=fov, offsets=offsets)
        self._dtype = config.floatX if dtype is None else dtype
        if not isinstance(self._dtype, str):
            raise ValueError(f"dtype must be a string like 'float32', got {dtype!r}.")
        known = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
        if self._dtype not in known:
            raise ValueError(f"Input {name!r}: unknown dtype {dtype!r}.{suggest(dtype, known)} "
                             f"Known: {', '.join(known)}.")
        if hardcoded_shape and None in self._declared.shape:
            raise ValueError(f"Input {name!r} has hardcoded_shape, but its shape {self._declared} leaves a size open.")

    def _make_output(self):
        self.output = self.model.graph.source(self.name, self._declared, self._dtype)

    def _calc_shape(self):
        self.shape = self._declared


def Input_like(ref, dtype=None, name="input", override_f=False, hardcoded_shape=False, print_repr=True):
    """An :class:`Input` with the shape, strides, fov and offsets of ``ref``, a node or a TaggedShape.

    ``dtype``: default that of a node's output; needed for a TaggedShape (ValueError). ``override_f``: another
    size of axis f (1 for sparse targets).
    """
    if isinstance(ref, Node):
        shape = ref.shape
        dtype = dtype or ref.output.dtype
    elif isinstance(ref, TaggedShape):
        shape = ref
        if dtype is None:
            raise ValueError("Input_like: a TaggedShape has no dtype, so dtype must be given.")
    else:
        raise ValueError(f"Input_like: ref must be a node or a TaggedShape, got {ref!r}.")
    node = Input(**arguments_like(shape, override_f), dtype=dtype, hardcoded_shape=hardcoded_shape, name=name,
                 print_repr=print_repr)
    if isinstance(ref, Node) and ref.model is node.model:
        node.like = {"node": ref.name, "override_f": override_f or None}
    return node


def arguments_like(shape, override_f=None):
    """Arguments of an :class:`Input` whose voxels sit where those of a TaggedShape do."""
    if override_f:
        shape = shape.updateshape("f", override_f)
    arguments = dict(shape=shape.shape, tags=shape.tags)
    if shape.ndim:  # without spatial axes there is no geometry to copy
        arguments.update(strides=list(shape.strides), fov=shape.fov, offsets=list(shape.centre))
    return arguments


def merged_shape(node, parents, equal_f=True, axis=None):
    """Shape of a node that joins ``parents`` voxel by voxel: all sizes but ``axis`` must agree, and, where they
    depend on the same source, strides and positions too. ValueError naming nodes, axis and shift."""
    first, shape = parents[0], parents[0].shape
    what = f"{type(node).__name__} {node.name!r}"
    for other in parents[1:]:
        s = other.shape
        if s.tags != shape.tags:
            raise ValueError(f"{what}: {first.name!r} has axes {shape} but {other.name!r} has {s}.")
        for i, (n, m) in enumerate(zip(shape, s)):
            if i != axis and n is not None and m is not None and n != m:
                raise ValueError(f"{what}: sizes on axis {shape.tags[i]!r} differ: {first.name!r} is {shape}, "
                                 f"{other.name!r} is {s}. Crop or pad one of them.")
        if not set(map(id, first.input_nodes)) & set(map(id, other.input_nodes)):
            continue
        for k, tag in enumerate(shape.spatial_tags):
            if shape.strides[k] != s.strides[k]:
                raise ValueError(f"{what}: misaligned on axis {tag!r}: {first.name!r} has stride {shape.strides[k]}, "
                                 f"{other.name!r} has {s.strides[k]} input voxels. Pool or upsample one of them.")
            if shape.centre[k] != s.centre[k]:
                shift = s.centre[k] - shape.centre[k]
                raise ValueError(f"{what}: misaligned on axis {tag!r}: {other.name!r} is shifted by {float(shift):g} "
                                 f"input voxels against {first.name!r} (they start at {float(s.centre[k]):g} and "
                                 f"{float(shape.centre[k]):g}). Crop both ends alike, or change a filter size by one.")
    fov = [max(v) for v in zip(*(p.shape._fov for p in parents))]
    padded = [max(v) for v in zip(*(p.shape.padded for p in parents))]
    return shape._new(fov=fov, padded=padded)


def aligned_outputs(parents):
    """Outputs of ``parents`` with their MFP fragments in the order of the first one's."""
    wanted = [tuple(o) for o in parents[0].shape.mfp_offsets]
    outputs = [parents[0].output]
    for p in parents[1:]:
        have = [tuple(o) for o in p.shape.mfp_offsets]
        if have == wanted:
            outputs.append(p.output)
        elif sorted(have) == sorted(wanted):
            outputs.append(computations.reorder_batch(p.output, [have.index(o) for o in wanted]))
        else:
            raise ValueError(f"{parents[0].name!r} and {p.name!r} have different MFP fragments: "
                             f"{len(wanted)} and {len(have)}. Pool both branches alike.")
    return outputs


class Concat(Node):
    """Join nodes along one axis: sizes on it add up, all others must agree.

    ``parent_nodes``: list of nodes (ValueError otherwise); ``axis``: letter or index.
    Input (b, f_i, *L) each, output (b, sum f_i, *L).
    """

    def __init__(self, parent_nodes, axis="f", name="concat", print_repr=True):
        if not isinstance(parent_nodes, (list, tuple)) or not parent_nodes:
            raise ValueError(f"Concat needs a list of nodes, got {parent_nodes!r}.")
        super().__init__(list(parent_nodes), name, print_repr)
        shape = self.parents[0].shape
        self.axis = shape.tag2index(axis) if isinstance(axis, str) else axis
        self._merged = merged_shape(self, self.parents, axis=self.axis)

    def _make_output(self):
        self.output = computations.concatenate(aligned_outputs(self.parents), self.axis)

    def _calc_shape(self):
        sizes = [p.shape[self.axis] for p in self.parents]
        total = None if None in sizes else sum(sizes)
        self.shape = self._merged.updateshape(self.axis, total)

    def _calc_comp_cost(self):
        self.computational_cost = 0

    def _axis_size(self, k, *sizes, mfp=False):
        return equal_sizes(self, k, sizes)


def equal_sizes(node, k, sizes):
    if len(set(sizes)) > 1:
        raise ValueError(f"{type(node).__name__} {node.name!r}: parents have sizes {sizes} on spatial axis {k}.")
    return sizes[0]


class Add(Node):
    """Elementwise sum of two nodes of the same shape. Input (b, f, *L) twice, output (b, f, *L)."""

    def __init__(self, n1, n2, name="add", print_repr=True):
        super().__init__([n1, n2], name, print_repr)
        self._merged = merged_shape(self, self.parents)

    def _make_output(self):
        a, b = aligned_outputs(self.parents)
        self.output = a + b

    def _calc_shape(self):
        self.shape = self._merged

    def _calc_comp_cost(self):
        self.computational_cost = 0

    def _axis_size(self, k, *sizes, mfp=False):
        return equal_sizes(self, k, sizes)


class ApplyFunc(Node):
    """Any function of tensors as a node: ``functor(tensor, *args, **kwargs)``.

    ``shape``: TaggedShape of the result if the function changes it (default: the shape of the parent,
    for elementwise functions). Input (b, f, *L), output (b, f, *L) or ``shape``. To be saved, the functor
    must be importable (a function at the top of a module).

    >>> import torch
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> y = nm.ApplyFunc(nm.Input((1, 2), 'b,f', print_repr=False), torch.clamp, kwargs=dict(min=0))
    >>> y(np.array([[-1, 3]], 'float32'))
    array([[0., 3.]], dtype=float32)
    """

    def __init__(self, parent, functor, args=(), kwargs=None, name="apply", print_repr=False, shape=None):
        super().__init__(parent, name, print_repr)
        if not callable(functor):
            raise TypeError(f"ApplyFunc {name!r}: functor must be a function of tensors, got {functor!r}.")
        self.functor, self.args, self.kwargs = functor, args, kwargs or {}
        self._declared = shape

    def _make_output(self):
        self.output = op(self.functor)(self.parent.output, *self.args, **self.kwargs)

    def _calc_shape(self):
        self.shape = self._declared or self.parent.shape
        meta = tuple(self.output.meta.shape)
        if self._declared is None and len(meta) != len(self.shape):
            raise ValueError(f"ApplyFunc {self.name!r}: {self.functor!r} turns {self.parent.shape} into {meta}; "
                             "pass shape=TaggedShape(...) for a function that changes the shape.")
