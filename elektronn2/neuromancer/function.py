"""Functions: cut out of the graph by their inputs and outputs, compiled when first called.

The steps from expressions to numbers:

1. *cut*: the nodes of the expression graph that the outputs depend on are copied into a
   ``torch.fx.GraphModule``; where training and prediction differ (``by_mode``), or something can be switched on
   (``if_on``), one side is taken.
2. *place*: parameters go to the device and into the memory format; they stay the same tensors,
   shared by all functions.
3. *compile*: the module is taken as it is ('eager') or given to ``torch.compile`` ('inductor').
4. *call*: inputs are checked, converted and moved; outputs come back as numpy arrays.

Steps 1 to 3 happen at the first call, and again if a setting in ``config`` or a switch has changed since.
"""
import contextlib
import importlib
import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx

from elektronn2.config import config
from elektronn2.neuromancer import computations
from elektronn2.neuromancer.expression import Expression
from elektronn2.neuromancer.variables import VariableParam, lossless
from elektronn2.utils.gpu import cuda_missing

logger = logging.getLogger("elektronn2log")


# -- settings -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Settings:
    """How a function is compiled: what ``config`` asked for, made definite for this machine."""
    device: str
    precision: str
    memory_format: str
    backend: str

    @classmethod
    def current(cls):
        device = resolve_device(config.device)
        if config.precision == "float16" and not device.startswith("cuda"):
            raise ValueError(f"config.precision = 'float16' needs a CUDA device, but functions run on {device!r}. "
                             "Use 'bfloat16', which processors can compute with, or 'float32'.")
        memory_format = "channels_last" if config.memory_format == "auto" else config.memory_format
        backend = config.compile_backend
        if backend == "auto":
            backend = "inductor" if device.startswith("cuda") else "eager"
        return cls(device, config.precision, memory_format, backend)


def resolve_device(device):
    """'cpu' or 'cuda:N' from a setting: None, 'auto', 'cpu', 'none', 'cuda', 'cuda:1', or a GPU number."""
    name = str(device).lower()
    if name in ("none", "cpu"):
        return "cpu"
    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    index = name.removeprefix("cuda").removeprefix(":") or "0"
    if not index.isdigit():
        raise ValueError(f"config.device = {device!r} is not a device. Use 'auto', 'cpu', 'cuda', or a GPU number.")
    if int(index) >= torch.cuda.device_count():
        raise ValueError(f"config.device = {device!r}: PyTorch can use {torch.cuda.device_count()} GPUs on this machine"
                         f"{cuda_missing()}. Use 'auto' or 'cpu'.")
    return f"cuda:{index}"


# -- 1. cut -------------------------------------------------------------------------------------------
def cut(outputs, inputs=None, mode="predict"):
    """GraphModule that computes ``outputs`` (a tuple) from ``inputs``, and the inputs it needs.

    ``inputs``: expressions at which the walk stops (default: the sources that are reached).
    Raises ValueError if an output needs a source that is not among them.
    """
    tracer = outputs[0].tracer
    for o in outputs:
        if o.tracer is not tracer:
            raise ValueError("The outputs of one function must belong to the same model.")
    for i in inputs or ():
        if i.tracer is not tracer:
            raise ValueError(f"Input {i.node.name!r} of the function belongs to another model than its outputs.")
        if sum(i.node is other.node for other in inputs) > 1:
            raise ValueError(f"Input {i.node.name!r} of the function is given twice. Give each input once.")
    chosen = 0 if mode == "train" else 1
    goals = [o.node for o in outputs]
    stops = None if inputs is None else [i.node for i in inputs]
    order = reachable(goals, stops or (), chosen)
    placeholders = [n for n in order if n.op == "placeholder"]
    if stops is None:
        stops = placeholders
    missing = [n.name for n in placeholders if n not in stops]
    if missing:
        raise ValueError(f"The outputs also depend on {missing}, which are not among the inputs "
                         f"{[n.name for n in stops]}.")

    new = fx.Graph()
    copies = {n: new.placeholder(n.name) for n in stops}
    used = {}
    for node in order:
        if node in copies:
            continue
        copies[node] = new.node_copy(node, lambda n: copies[resolve(n, chosen, stops)])
        if node.op == "get_attr":
            used[node.target] = tracer.params[node.target]
    new.output(tuple(copies[resolve(n, chosen, stops)] for n in goals))
    root = torch.nn.Module()
    for name, param in used.items():
        if isinstance(param, VariableParam):
            root.register_parameter(name, param.tensor)
        else:
            root.register_buffer(name, param)
    module = fx.GraphModule(root, new)
    return module, [tracer.proxy(n) for n in stops], [p for p in used.values() if isinstance(p, VariableParam)]


def code_of(expression):
    """The Python code that computes an expression from sources and parameters."""
    return cut([expression])[0].code.strip()


Expression.code = property(code_of)


CHOICES = (computations.by_mode, computations.if_on)


def resolve(node, chosen, stops=()):
    """The node itself or, where it is a choice and not among ``stops``, the side that is taken."""
    while node.target in CHOICES and node not in stops:
        sides = (*node.args, *node.kwargs.values())
        if node.target is computations.by_mode:
            node = sides[chosen]
        else:
            node = sides[1 if sides[0].meta["param"].on else 2]
    return node


def reachable(goals, stops, chosen):
    """Nodes that ``goals`` depend on, choices resolved, in the order of the graph's making."""
    stops, seen, stack = set(stops), set(), list(goals)
    while stack:
        node = resolve(stack.pop(), chosen, stops)
        if node not in seen:
            seen.add(node)
            stack.extend(() if node in stops else node.all_input_nodes)
    return sorted(seen, key=lambda n: n._sort_key)


# -- 2. to 4. -----------------------------------------------------------------------------------------
class Function:
    """Computes ``outputs`` from ``inputs``; compiled at the first call.

    ``inputs``, ``outputs``: expressions (one output, or a list). ``mode``: 'predict' or 'train'.
    ``updates``: pairs (param, expression); the values are stored after each call. ``gradients``:
    params with respect to which the first output is differentiated; they follow the outputs.
    ``shapes``: declared shapes of the inputs (None: any), checked at each call, under ``names``.

    Called with arrays it returns an array (a list if ``outputs`` is one); with no argument it only
    compiles. ``last_exec_time`` is the time of the last call in seconds, ``code`` the program.
    """

    def __init__(self, inputs, outputs, updates=None, name="function", mode="predict", gradients=(), shapes=None,
                 names=None):
        if mode not in ("train", "predict"):
            raise ValueError(f"mode must be 'train' or 'predict', got {mode!r}.")
        self.name, self.mode = name, mode
        self.inputs = list(inputs)
        self.single = not isinstance(outputs, (list, tuple))
        self.outputs = [outputs] if self.single else list(outputs)
        self.updates = [(p, e) for p, e in (updates.items() if isinstance(updates, dict) else updates or ())]
        self.gradients = list(gradients)
        self.names = names or [i.node.name for i in self.inputs]
        self.shapes = shapes or [None] * len(self.inputs)
        self._fitting = set()  # sizes of inputs that are known to go together
        self.last_exec_time = 0.0
        self.finite = True
        self.settings = self._module = self._run = self._was_on = None

    # compile
    def compile(self):
        """Cut, place and compile for the current settings, unless that is done."""
        settings, switched_on = Settings.current(), self._switched_on()
        if settings == self.settings and switched_on == self._was_on:
            if any(p.tensor.device != torch.device(settings.device) for p in self.params):
                self._place()  # another function has moved them meanwhile
            return
        logger.info("Compiling %s, inputs=[%s]", self.name, ", ".join(self.names))
        start = time.perf_counter()
        wanted = self.outputs + [e for _, e in self.updates]
        self._module, _, self.params = cut(wanted, self.inputs, self.mode)
        self._take_checks()
        self._needs_grad = any(getattr(n.target, "takes_gradients", False) for n in self._module.graph.nodes)
        self.operations = sum(n.op.startswith("call") for n in self._module.graph.nodes)
        self.settings, self._was_on = settings, switched_on
        self._check_precision()
        self._place()
        self.backend, self.kernels = settings.backend, 0
        self._run = self._module
        if self.backend == "inductor":
            self._run = self._inductor()
        logger.info("Compiling done - in %.2f s", time.perf_counter() - start)
        logger.info("%s", self.summary)

    def _switched_on(self):
        return [p for p in self.outputs[0].tracer.switches if p.on]

    @property
    def summary(self):
        """One line: what was compiled, and how."""
        s = self.settings
        return (f"{self.name}: {self.mode}, {self.backend} on {s.device}, {s.precision}, {s.memory_format}, "
                f"{self.operations} operations, {self.kernels} generated kernels")

    @property
    def code(self):
        """The program as Python code."""
        return cut(self.outputs, self.inputs, self.mode)[0].code.strip()

    def _check_precision(self):
        """Single or double precision is decided when nodes are made; the others can be changed at any time."""
        double = self.settings.precision == "float64"
        wrong = [p.name for p in self.params if p.dtype in ("float32", "float64") and (p.dtype == "float64") != double]
        if wrong:
            self.settings = None
            made = "single" if double else "double"
            raise ValueError(f"{self.name}: parameter {wrong[0]!r} was made in {made} precision, but config.precision is "
                             f"now {config.precision!r}. Set 'float64' (or leave it) before building a model.")

    def _take_checks(self):
        """Take checks of inputs out of the module: they are done on what is given, before it is moved to the device."""
        self._checks, graph = [], self._module.graph
        inputs = [n for n in graph.nodes if n.op == "placeholder"]
        for node in list(graph.nodes):
            if getattr(node.target, "check", False) and node.args[0] in inputs:
                self._checks.append((inputs.index(node.args[0]), node.target, node.args[1:]))
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
        self._module.recompile()

    def _place(self):
        for param in self.params:
            place(param.tensor, self.settings)
        for buffer in self._module.buffers():
            buffer.data = buffer.data.to(self.settings.device)

    def _inductor(self):
        """The module compiled by inductor and run once on made-up inputs; the module itself if that is impossible."""
        if self._needs_grad:
            logger.info("%s takes symbolic gradients: it runs eagerly.", self.name)
            self.backend = "eager"
            return self._module
        try:
            metrics = importlib.import_module("torch._inductor.metrics")
            metrics.reset()
            self._keep_in_python()
            compiled = torch.compile(self._module, backend="inductor", dynamic=False)
            with self._context():
                result = compiled(*[self._example(e, s) for e, s in zip(self.inputs, self.shapes)])
                if self.gradients:
                    torch.autograd.grad(result[0].sum(), [p.tensor for p in self.gradients], allow_unused=True)
            self.kernels = metrics.generated_kernel_count
            return compiled
        except Exception as error:  # no compiler, or one that fails: said, and computed without
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            logger.warning("%s cannot be compiled by inductor (%s: %s); it runs eagerly. Set "
                           "config.compile_backend = 'eager' to silence this.", self.name, type(error).__name__, reason)
            self.backend = "eager"
            return self._module

    def _keep_in_python(self):
        """Let loops be run by Python, that only the programs they call are compiled, instead of a copy for each turn."""
        for node in self._module.graph.nodes:
            if hasattr(node.target, "in_python"):
                node.target = torch.compiler.disable(node.target.in_python, recursive=False)
        self._module.recompile()

    def _example(self, expression, shape):
        like = expression.meta
        sizes = [1 if n is None else n for n in shape] if shape is not None else like.shape
        return self._to_device(torch.zeros(tuple(sizes), dtype=like.dtype))

    @contextlib.contextmanager
    def _context(self):
        s = self.settings
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(s.precision)
        device_type = torch.device(s.device).type
        with contextlib.ExitStack() as stack:
            if self.gradients or self._needs_grad:
                stack.enter_context(torch.enable_grad())
            else:
                stack.enter_context(torch.no_grad())
            if dtype is not None:
                stack.enter_context(torch.autocast(device_type, dtype))
            yield

    # call
    def tensors(self, *values, only_finite=False):
        """Like a call, but takes arrays or tensors without checking and returns a tuple of tensors on the device:
        outputs, then gradients. Updates are stored; with ``only_finite`` not if the first output or a gradient is NaN or
        infinite, which ``finite`` then tells."""
        self.compile()
        given = [torch.as_tensor(np.ascontiguousarray(v) if isinstance(v, np.ndarray) else v) for v in values]
        for i, check, limits in self._checks:
            check(given[i], *limits)
        arguments = [self._to_device(v) for v in given]
        if self._needs_grad:
            arguments = [a.requires_grad_() if a.is_floating_point() else a for a in arguments]
        with self._context():
            results = self._run(*arguments)
        n = len(self.outputs)
        outputs = tuple(results[:n])
        if self.gradients:
            grads = torch.autograd.grad(results[0].sum(), [p.tensor for p in self.gradients], allow_unused=True)
            outputs = (*(o.detach() for o in outputs),
                       *(torch.zeros_like(p.tensor) if g is None else g for p, g in zip(self.gradients, grads)))
        self.finite = not only_finite or all_finite(outputs[0], outputs[n:])
        if not self.finite:
            return outputs
        with torch.no_grad():
            for (param, _), value in zip(self.updates, results[n:]):
                param.tensor.copy_(value)
        return outputs

    def _to_device(self, tensor):
        if tensor.device != torch.device(self.settings.device):
            tensor = tensor.to(self.settings.device, non_blocking=True)
        memory_format = _memory_format(tensor.ndim, self.settings)
        return tensor.contiguous(memory_format=memory_format) if memory_format else tensor.contiguous()

    def __call__(self, *values):
        if not values and self.inputs:
            self.compile()
            return None
        arrays = self.check(values)
        self.compile()
        start = time.perf_counter()
        results = [to_numpy(t) for t in self.tensors(*arrays)]
        self.last_exec_time = time.perf_counter() - start
        return results[0] if self.single and not self.gradients else results

    def check(self, values):
        """Arrays of the right dtype and shape; tensors that have it stay where they are. Raises TypeError with a table of
        what is needed and given."""
        if len(values) != len(self.inputs):
            raise TypeError(f"{self.name} needs {len(self.inputs)} inputs ({', '.join(self.names)}), "
                            f"but {len(values)} were given.")
        arrays = [v.detach() if isinstance(v, torch.Tensor) and v.dtype == getattr(torch, e.dtype) else as_array(v)
                  for v, e in zip(values, self.inputs)]
        given = [str(a.dtype).removeprefix("torch.") for a in arrays]
        problems = []
        for i, (array, expression, shape) in enumerate(zip(arrays, self.inputs, self.shapes)):
            converted = array if given[i] == expression.dtype else lossless(array, expression.dtype)
            if converted is None:
                problems.append(f"{self.names[i]}: values of dtype {array.dtype} cannot be held by {expression.dtype}; "
                                f"convert with .astype({expression.dtype!r}) if rounding is fine")
            else:
                arrays[i] = converted
            if shape is not None and len(shape) != array.ndim:
                missing = len(shape) - array.ndim
                hint = f" (axes are missing; x[{', '.join(['None'] * missing)}] adds them in front)" * (0 < missing < 3)
                problems.append(f"{self.names[i]}: shape {tuple(array.shape)} does not fit{hint}")
            elif shape is not None and any(n is not None and n != m for n, m in zip(shape, array.shape)):
                source = expression.tracer.makers.get(expression.node)
                tags = source.shape.tags if source is not None else range(len(shape))
                axes = [repr(t) for t, n, m in zip(tags, shape, array.shape) if n is not None and n != m]
                problems.append(f"{self.names[i]}: shape {tuple(array.shape)} does not fit on axis {', '.join(axes)}")
        if problems:
            rows = [("input", "needed shape", "dtype", "given shape", "dtype")]
            rows += [(n, str(tuple(s)) if s is not None else "any", e.dtype, str(tuple(a.shape)), d)
                     for n, s, e, a, d in zip(self.names, self.shapes, self.inputs, arrays, given)]
            widths = [max(map(len, column)) for column in zip(*rows)]
            table = "\n".join("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows)
            raise TypeError(f"Wrong inputs for {self.name}: " + "; ".join(problems) + f".\n{table}")
        sizes = tuple(tuple(a.shape) for a in arrays)
        if sizes not in self._fitting and any(None in (s or ()) for s in self.shapes):
            self._check_open(sizes)
            self._fitting.add(sizes)
        return arrays

    def _check_open(self, sizes):
        """Work out all sizes from those given for what was left open. ValueError naming the node where they do not fit."""
        tracer, chosen = self.outputs[0].tracer, 0 if self.mode == "train" else 1
        stops = [e.node for e in self.inputs]
        values = {e.node: torch.empty(s, dtype=e.meta.dtype, device="meta") for e, s in zip(self.inputs, sizes)}

        def value_of(n):
            return values[resolve(n, chosen, stops)]

        def size_of(node):
            return tuple(value_of(node.output.node).shape)
        for n in reachable([e.node for e in (*self.outputs, *(e for _, e in self.updates))], stops, chosen):
            maker = tracer.makers.get(n)
            if n not in values:
                try:
                    values[n] = tracer.infer(n, value_of) if n.op.startswith("call") else n.meta["val"]
                except (RuntimeError, ValueError, IndexError) as error:
                    if maker is None:
                        raise
                    raise ValueError(sizes_differ(maker, maker.parents, size_of=size_of) or does_not_fit(
                        maker, size_of, error)) from error
            if maker is not None and maker.joined and maker.output.node is n:
                problem = sizes_differ(maker, *maker.joined, size_of=size_of)
                if problem:
                    raise ValueError(problem)


def sizes_differ(node, parents, but_axis=None, *, size_of):
    """What is wrong if sizes of parents differ that were left open, else ''. ``size_of``: parent -> its sizes now."""
    first = parents[0]
    for other in parents[1:]:
        for i, (tag, n) in enumerate(zip(first.shape.tags, size_of(first))):
            if i == but_axis or first.shape[i] is not None or not other.shape.hastag(tag) or other.shape[tag] is not None:
                continue
            m = size_of(other)[other.shape.tag2index(tag)]
            if n != m:
                return (f"{type(node).__name__.removeprefix('_')} {node.name!r}: sizes on axis {tag!r}, which were left "
                        f"open, differ: {first.name!r} has {n}, {other.name!r} has {m}. Give inputs whose sizes go "
                        "together.")
    return ""


def does_not_fit(node, size_of, error):
    """What is wrong if a node cannot be computed from the present sizes of its parents: by its own rule, else torch's."""
    parents = ", ".join(f"{p.name!r} {size_of(p)}" for p in node.parents)
    spatial = [[size_of(p)[i] for i in p.shape.spatial_axes] for p in node.parents]
    try:
        for k, sizes in enumerate(zip(*spatial)):
            node._axis_size(k, *sizes)
    except ValueError as rule:
        error = rule
    return f"{type(node).__name__} {node.name!r} cannot be computed from {parents}: {error}"


def all_finite(tensor, others=()):
    """Whether a tensor holds no NaN and no infinity, nor do the norms of others. Waits for the device once."""
    norms = torch._foreach_norm(list(others)) if others else ()
    return bool(torch.isfinite(torch.cat([tensor.reshape(-1), *(norm.reshape(-1) for norm in norms)])).all())


def to_numpy(tensor):
    tensor = tensor.detach()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return tensor.cpu().contiguous().numpy()


def as_array(values):
    """A numpy array, from anything that makes one, or from a tensor on any device."""
    return to_numpy(values) if isinstance(values, torch.Tensor) else np.asarray(values)


def _memory_format(ndim, settings):
    if settings.memory_format == "channels_last":
        return {4: torch.channels_last, 5: torch.channels_last_3d}.get(ndim)
    return None


def place(tensor, settings):
    """Move a parameter (in place) to the device and into the memory format of the settings."""
    memory_format = _memory_format(tensor.ndim, settings)
    device = torch.device(settings.device)
    if tensor.device != device or (memory_format and not tensor.is_contiguous(memory_format=memory_format)):
        tensor.data = tensor.data.to(device).contiguous(memory_format=memory_format or torch.contiguous_format)


def make_func(inputs, outputs, updates=None, name="function", mode="predict"):
    """A lazily compiled function of expressions; see :class:`Function`.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((2, 3), 'b,f', print_repr=False)
    >>> double = make_func([x.output], x.output * 2, name='double')
    >>> double(np.ones((2, 3), 'float32')).sum()
    np.float32(12.0)
    """
    return Function(inputs, outputs, updates, name, mode)
