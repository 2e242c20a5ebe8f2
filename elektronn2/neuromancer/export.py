"""Predictions for other programs: as ONNX, as a torch.export program, or as a bioimage.io package.

What is written is the prediction of a model in single precision on the processor, whatever device, precision and memory
format it is trained with. The geometry of the network says which sizes of the input are legal, so that batch and
spatial axes stay open where the network permits. Every file is read back and compared before it gets its name.
"""
import contextlib
import copy
import importlib
import io
import json
import logging
import warnings
from dataclasses import dataclass, field, replace
from math import ceil, lcm
from pathlib import Path

import numpy as np
import torch

from elektronn2.neuromancer import bioimageio, graph
from elektronn2.neuromancer.finite import require_finite
from elektronn2.neuromancer.function import cut
from elektronn2.neuromancer.various import GaussianRV
from elektronn2.utils.basic import atomic_write
from elektronn2.utils.cnncalculator import fits
from elektronn2.utils.validate import suggest

logger = logging.getLogger("elektronn2log")

TOLERANCE = 1e-4  # largest difference to the model's own prediction, relative to its largest value
SUFFIXES = {".onnx": "onnx", ".pt2": "torch", ".zip": "bioimageio"}
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": ()}
NEEDED["bioimageio"] = (*NEEDED["onnx"], "bioimageio.spec")


def export(node, file, format=None, overwrite=False, dynamic=None, **about):
    """Write a node's prediction for other programs; see :meth:`Model.export <elektronn2.neuromancer.model.Model.export>`."""
    path = Path(file).expanduser()
    format = _format(path, format)
    if about and format != "bioimageio":
        raise TypeError(f"export: {', '.join(about)} can only be said in a bioimage.io package (.zip), not in {path.name}.")
    bioimageio.check_about(**about)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Choose another name, or overwrite=True to replace it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to. Make it, or choose another one.")
    _check_installed(format)
    require_finite(node)
    random = [n.name for n in graph.ancestors(node) if isinstance(n, GaussianRV)]
    if random:
        raise ValueError(f"The prediction {node.name!r} cannot be exported: {random[0]!r} draws random numbers, so no file "
                         "computes what the model does. Predict a node that does not depend on it, such as its mean mu.")
    prediction = Prediction.of(node)
    if dynamic is not None:
        prediction = prediction.with_open(dynamic)
    if format == "bioimageio":
        prediction = bioimageio.describable(prediction)
    data, prediction = _write(prediction, _write_torch if format == "torch" else _write_onnx, dynamic is None)
    if format == "bioimageio":
        data = bioimageio.package(prediction, data, **about)
    with atomic_write(path) as temporary, open(temporary, "wb") as f:
        f.write(data)
    logger.info("Exported %r as %s to %s; open axes: %s", node.name, format, path, prediction.open_axes)


def _format(path, format):
    if format is None:
        if path.suffix not in SUFFIXES:
            raise ValueError(f"export: the suffix of {path.name!r} says no format; use {', '.join(SUFFIXES)}, or format=.")
        return SUFFIXES[path.suffix]
    if format not in NEEDED:
        raise ValueError(f"export: format must be one of {', '.join(NEEDED)}, got {format!r}.{suggest(format, NEEDED)}")
    return format


def _check_installed(format):
    for name in NEEDED[format]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f"Exporting as {format} needs the package {name} ({error}): "
                              "pip install 'elektronn2[export]'") from None


# -- what is exported ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Sizes:
    """Legal lengths of an input along one axis: smallest + n * step."""
    smallest: int
    step: int

    @classmethod
    def of(cls, rule, grid=1, limit=4000):
        """From a rule input length -> output length, as ``Node.axis_rules`` gives; None if lengths are not so. Only every
        ``grid``-th length, where voxels that do not fill it would be ignored."""
        legal = (n for n in range(1, limit) if fits(rule, n))
        smallest, second = next(legal, None), next(legal, None)
        if second is None:
            return None
        sizes = cls(smallest, second - smallest)
        return cls(smallest, lcm(sizes.step, grid)) if all(next(legal, None) == sizes.nth(n) for n in (2, 3)) else None

    def nth(self, n):
        return self.smallest + n * self.step


@dataclass(frozen=True)
class Prediction:
    """A node's prediction as a plain module, and what is known of it.

    ``module``: tensors for the ``sources``, in order -> tuple of one; ``sizes``: spatial letter -> :class:`Sizes`, of those
    axes that need not have one length; ``opened``: letters of the axes that have no fixed length; ``cropped``: letter ->
    (n, m) voxels at the ends of an input that the module does not look at.
    """
    node: object
    sources: list
    module: torch.nn.Module
    sizes: dict
    opened: tuple
    cropped: dict = field(default_factory=dict)

    @classmethod
    def of(cls, node):
        sources = node.input_nodes
        module = copy.deepcopy(cut([node.output], [s.output for s in sources], "predict")[0]).float().cpu().eval()
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.contiguous()
            tensor.requires_grad_(False)
        sizes = {}
        if len(sources) == 1 and sources[0].shape.spatial_tags == node.shape.spatial_tags:
            _, rules = node.axis_rules()
            sizes = {t: Sizes.of(rule, _grid(node, t)) for t, rule in zip(node.shape.spatial_tags, rules)}
        sizes = {t: s for t, s in sizes.items() if s is not None}
        fragments = any(len(n.shape.mfp_offsets) > 1 for n in graph.ancestors(node))
        batch = node.shape.hastag("b") and all(s.shape.hastag("b") for s in sources) and not fragments
        return cls(node, sources, module, sizes, (*(["b"] if batch else []), *sizes))

    def with_open(self, tags):
        """The same with other axes fixed to the lengths of the model; ValueError for an axis that cannot be open."""
        fixed = [t for t in tags if t not in self.opened and t not in ", "]
        if fixed:
            raise ValueError(f"export: axis {fixed[0]!r} of {self.node.name!r} has a fixed length; those that can be open: "
                             f"{self.open_axes}.")
        return replace(self, opened=tuple(t for t in self.opened if t in tags))

    def without_smallest(self):
        """The same from the second legal size on: in the smallest, lengths of 1 inside may need a program of their own."""
        return replace(self, sizes={t: Sizes(s.nth(1), s.step) for t, s in self.sizes.items()})

    def with_ends(self, ends):
        """The same for an input with more voxels at its ends (letter -> (n, m)), which are cut off again."""
        axes = [(self.sources[0].shape.tag2index(t), *e) for t, e in ends.items()]
        sizes = {t: Sizes(s.smallest + sum(ends.get(t, ())), s.step) for t, s in self.sizes.items()}
        return replace(self, module=_Cropped(self.module, axes), sizes=sizes, cropped=ends)

    def output_length(self, tag, n):
        """Length of the output on a spatial axis, from that of the input."""
        rules = dict(zip(self.node.shape.spatial_tags, self.node.axis_rules()[1]))
        return int(rules[tag](n - sum(self.cropped.get(tag, ()))))

    def fixed_length(self, tag):
        """Length of the input on an axis that is not open."""
        n = self.sources[0].shape[tag]
        return n if n is None else n + sum(self.cropped.get(tag, ()))

    @property
    def open_axes(self):
        return ", ".join(self.opened) or "none"

    @property
    def batch(self):
        """The batch size of the model, 1 if it has none."""
        return next((s.shape["b"] for s in self.sources if s.shape.hastag("b")), None) or 1

    def lengths(self, nth=None):
        """Letter -> length: the nth legal one where it is open, else that of the model, or the next legal one."""
        lengths = {}
        for t, sizes in self.sizes.items():
            n = self.fixed_length(t) or sizes.nth(2)
            if t in self.opened:
                n = sizes.nth(max(ceil((n - sizes.smallest) / sizes.step), 0) if nth is None else nth)
            lengths[t] = n
        return lengths

    def inputs(self, batch, lengths, seed=0):
        """Random tensors for the sources, with that batch size (if it is open) and spatial ``lengths`` by letter."""
        rng, tensors = np.random.default_rng(seed), []
        for source in self.sources:
            sizes = {t: n for t, n in zip(source.shape.tags, source.shape)}
            sizes.update({t: n for t, n in lengths.items() if t in sizes})
            if "b" in sizes:
                sizes["b"] = batch if "b" in self.opened else self.batch
            if None in sizes.values():
                raise ValueError(f"The input {source.name!r} is {source.shape}; to export it, give all lengths but b.")
            dtype = source.output.dtype.replace("float64", "float32")
            array = rng.random(tuple(sizes.values())) if "float" in dtype else rng.integers(0, 2, tuple(sizes.values()))
            tensors.append(torch.from_numpy(array.astype(dtype)))
        return tensors

    def __call__(self, inputs):
        with torch.no_grad():
            return self.module(*inputs)[0]

    def geometry(self):
        """What a program must know to place the output on the input, as plain values."""
        shape = self.node.shape
        return {"inputs": {s.name: "".join(s.shape.tags) for s in self.sources}, "output": "".join(shape.tags),
                "fov": [float(v) for v in shape.fov], "strides": [float(v) for v in shape.strides],
                "centre": [float(c) + self.cropped.get(t, (0, 0))[0] for t, c in zip(shape.spatial_tags, shape.centre)]}


def _grid(node, tag):
    """The coarsest grid inside a network, in input voxels."""
    nodes = [(n, n.shape.spatial_tags.index(tag)) for n in graph.ancestors(node) if n.shape.hastag(tag)]
    return lcm(*(n.shape._strides[k].numerator for n, k in nodes), *(n.phases[k] for n, k in nodes if hasattr(n, "phases")))


class _Cropped(torch.nn.Module):
    """A module behind cuts (axis, voxels at the beginning, at the end) of its input."""

    def __init__(self, module, cuts):
        super().__init__()
        self.module, self.cuts = module, cuts

    def forward(self, x):
        for axis, first, last in self.cuts:
            x = x.narrow(axis, first, x.shape[axis] - first - last)
        return self.module(x)


# -- writing and reading back -------------------------------------------------------------------------
def _write(prediction, writer, may_fix):
    """(bytes of the file, prediction with the axes that are open in it): the first attempt that works. ``may_fix``:
    whether axes may be fixed if they cannot stay open."""
    attempts = [prediction, prediction.without_smallest()]
    if may_fix:
        attempts += [prediction.with_open("b" if "b" in prediction.opened else ""), prediction.with_open("")]
    for attempt in attempts:
        try:
            data, run = writer(_program(attempt), attempt)
            _compare(attempt, run)
            return data, attempt
        except Exception as error:  # whatever the tracers, writers and readers raise
            failure = error
            logger.info("%r cannot be exported with open axes %s: %s", attempt.node.name, attempt.open_axes,
                        _first_line(error))
    raise ValueError(f"The prediction {prediction.node.name!r} cannot be exported with open axes {attempts[-1].open_axes}: "
                     f"{_first_line(failure)}") from failure


def _first_line(error):
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _program(prediction):
    """The prediction as torch.export traces it."""
    dims = {t: _dimension(t, prediction.sizes.get(t)) for t in prediction.opened}
    shapes = tuple({i: dims[t] for i, t in enumerate(s.shape.tags) if t in dims} for s in prediction.sources)
    with _quiet():
        return torch.export.export(prediction.module, tuple(prediction.inputs(2, prediction.lengths(2))),
                                   dynamic_shapes=shapes, strict=False)


def _dimension(tag, sizes):
    """The lengths of an open axis: any batch size, or the legal spatial ones, counted from 1 as tracing wants it."""
    if sizes is None:
        return torch.export.Dim("batch", min=1)
    step = torch.export.Dim(f"_{tag}", min=1)
    step, rest = sizes.step * step if sizes.step > 1 else step, sizes.smallest - sizes.step
    return step + rest if rest else step


@contextlib.contextmanager
def _quiet():
    """Exporters talk of their own deprecations and of packages that are not there."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _write_torch(program, prediction):
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer, extra_files={"elektronn2.json": json.dumps(prediction.geometry())})
        buffer.seek(0)
        module = torch.export.load(buffer).module()
    return buffer.getvalue(), lambda inputs: module(*inputs)[0]


# -- ONNX ---------------------------------------------------------------------------------------------
def _write_onnx(program, prediction):
    onnxruntime = importlib.import_module("onnxruntime")
    names = [s.name for s in prediction.sources]
    with _quiet():
        proto = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False).model_proto
    output = prediction.node.name if prediction.node.name not in names else f"{prediction.node.name}_output"
    _rename(proto.graph, [*names, output])
    entry = proto.metadata_props.add()
    entry.key, entry.value = "elektronn2", json.dumps(prediction.geometry())
    data = proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return data, lambda inputs: torch.from_numpy(session.run(None, {n: i.numpy() for n, i in zip(names, inputs)})[0])


def _rename(graph, names):
    """Give inputs and outputs these names; values inside that have such names get others."""
    outer = dict(zip([v.name for v in (*graph.input, *graph.output)], names))

    def renamed(values):
        return [outer.get(v, f"{v}_inside" if v in names else v) for v in values]
    for node in graph.node:
        node.input[:], node.output[:] = renamed(node.input), renamed(node.output)
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name, = renamed([value.name])


def _compare(prediction, run):
    """ValueError unless ``run`` computes what the prediction does: at the sizes of the model, and at the smallest."""
    for inputs in (prediction.inputs(1, prediction.lengths()), prediction.inputs(3, prediction.lengths(0), seed=1)):
        got, wanted = run(inputs), prediction(inputs)
        shapes = ", ".join(str(tuple(i.shape)) for i in inputs)
        if got.shape != wanted.shape:
            raise ValueError(f"the file gives {tuple(got.shape)} for {shapes}, the model {tuple(wanted.shape)}.")
        error, scale = (got - wanted).abs().max().item(), wanted.abs().max().item()
        if not error <= TOLERANCE * scale:
            raise ValueError(f"for {shapes} the file differs from the model by {error:.2g}, where the largest value is "
                             f"{scale:.2g}.")
