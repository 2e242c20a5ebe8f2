"""The symbolic expression graph: what ``node.output`` is.

An :class:`Expression` stands for a value that does not exist yet. Operators, methods, ``torch``
functions and the functions of ``computations`` called with expressions append to a ``torch.fx``
graph instead of computing; shared parameters (``VariableParam``) take part as they are::

    y = torch.tanh(node.output) * 2 + some_param

Functions are cut out of the graph later (see ``function.py``). While an expression is made, its
operation runs once on ``meta`` tensors, which have shape and dtype but no data: so every
expression knows its shape at once, and an operation that does not fit fails where it is written.
"""
import functools

import numpy as np
import torch
from torch import fx

BATCH, OPEN = 2, 64
"""Stand-ins for sizes that are None, while shapes are worked out: of the batch, and of other axes."""


def op(function=None, *, meta=None, check=False):
    """Make a function of tensors an operation of the graph: one call, one line of its code.

    ``meta``: a function of the same arguments that gives the shape, if running it on tensors without data does not.
    ``check``: it returns its first argument, or raises; what it says of an input is found out before that is moved to
    the device, which would have to be waited for.
    """
    if function is None:
        return functools.partial(op, meta=meta, check=check)

    @functools.wraps(function)
    def call(*args, **kwargs):
        tracer = _find_tracer((args, kwargs))
        if tracer is None:
            return function(*args, **kwargs)
        return tracer.create_proxy("call_function", call, args, kwargs)

    if not getattr(call, "__name__", "").isidentifier():  # a lambda, or a callable object
        call.__name__ = call.__qualname__ = "function"
    call.meta, call.check = meta or function, check
    return call


def _find_tracer(values):
    stack = [values]
    while stack:
        value = stack.pop()
        if isinstance(value, fx.Proxy):
            return value.tracer
        if isinstance(value, (tuple, list)):
            stack.extend(value)
        elif isinstance(value, dict):
            stack.extend(value.values())
    return None


class Expression(fx.Proxy):
    """A symbolic value. ``print(expression.code)`` shows how it is computed (``function.py`` adds that property)."""

    @property
    def meta(self):
        """A tensor without data that has the shape and dtype of the value (None sizes: 2 for b, else 64)."""
        return self.node.meta["val"]

    @property
    def dtype(self):
        """Name of the dtype, like 'float32'."""
        return str(self.meta.dtype).removeprefix("torch.")

    def __repr__(self):
        value = self.node.meta.get("val")
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else value
        return f"Expression({self.node.name}, shape={shape})"


class Graph(fx.proxy.TracerBase):
    """Expressions of one model. Parameters appear once each, under ``<node>_<param>``-like names."""

    def __init__(self):
        super().__init__()
        self.graph = fx.Graph()
        self.params = {}
        self.makers = {}  # node of the fx graph -> the node of the model that it was made for
        self._param_nodes = {}

    def proxy(self, node):
        return Expression(node, self)

    def source(self, name, shape, dtype):
        """A placeholder: an input of functions. ``shape``: a TaggedShape."""
        node = self.graph.placeholder("self_" if name == "self" else name)
        sizes = [(BATCH if t == "b" else OPEN) if n is None else n for n, t in zip(shape, shape.tags)]
        node.meta["val"] = torch.empty(sizes, dtype=getattr(torch, dtype), device="meta")
        return self.proxy(node)

    def create_node(self, kind, target, args, kwargs, name=None, type_expr=None):
        mark = len(self.graph.nodes)
        node = self.graph.create_node(kind, target, args, kwargs, name, type_expr)
        if kind in ("call_function", "call_method"):
            try:
                node.meta["val"] = self.infer(node)
            except Exception:
                self.erase_from(mark)
                raise
        return node

    def infer(self, node, value_of=lambda n: n.meta["val"]):
        """What the call ``node`` makes of values without data, those of its arguments being ``value_of(argument)``."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), value_of)
        with torch.no_grad():
            if node.op == "call_method":
                return getattr(args[0], node.target)(*args[1:], **kwargs)
            return getattr(node.target, "meta", node.target)(*args, **kwargs)

    def create_arg(self, a):
        if isinstance(a, (fx.Node, fx.Proxy)):
            return super().create_arg(a)
        if hasattr(a, "as_expression_of"):
            return a.as_expression_of(self).node
        if isinstance(a, torch.Tensor):
            return self.constant(a)
        if isinstance(a, np.generic):
            return a.item()
        return super().create_arg(a)

    def param(self, param):
        """The expression of a shared parameter."""
        key = id(param)
        if key not in self._param_nodes:
            name = self.graph._graph_namespace.create_name(f"p_{param.name or 'param'}", None)
            node = self.graph.create_node("get_attr", name)
            node.meta["val"], node.meta["param"] = torch.empty_like(param.tensor, device="meta"), param
            self.params[name] = param
            self._param_nodes[key] = node
        return self.proxy(self._param_nodes[key])

    @property
    def switches(self):
        """Parameters that switch parts of functions on; see ``computations.if_on``."""
        return [p for p in self.params.values() if hasattr(p, "on")]

    def constant(self, tensor):
        name = self.graph._graph_namespace.create_name("constant", None)
        node = self.graph.create_node("get_attr", name)
        node.meta["val"] = torch.empty_like(tensor, device="meta")
        self.params[name] = tensor
        return node

    def __len__(self):
        return len(self.graph.nodes)

    def erase_from(self, mark):
        """Take back everything that was appended after the graph had ``mark`` nodes."""
        for node in reversed(list(self.graph.nodes)[mark:]):
            if node.op == "get_attr":
                self.params.pop(node.target, None)
                self._param_nodes = {k: n for k, n in self._param_nodes.items() if n is not node}
            self.makers.pop(node, None)
            self.graph.erase_node(node)

    def made_for(self, maker, mark):
        """Note for which node of the model everything was made that was appended after the graph had ``mark`` nodes."""
        self.makers.update(dict.fromkeys(list(self.graph.nodes)[mark:], maker))

    # an expression has no value, so Python may not decide, count or loop on it
    def to_bool(self, obj):
        raise TypeError(f"{obj!r} has no value while the graph is built, so 'if' and 'while' cannot test it. "
                        "Use torch.where, or put the test into a function for ApplyFunc.")

    def iter(self, obj):
        raise TypeError(f"{obj!r} has no value while the graph is built, so it cannot be looped over. "
                        "Index it, or put the loop into a function for ApplyFunc.")
