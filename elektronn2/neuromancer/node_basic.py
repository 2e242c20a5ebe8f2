"""Nodes without weights of their own that networks begin with and are joined by: inputs, concatenation, sums, functions."""
from elektronn2.config import config
from elektronn2.neuromancer import computations
from elektronn2.neuromancer.expression import op
from elektronn2.neuromancer.node import Node
from elektronn2.neuromancer.shape import TaggedShape
from elektronn2.utils.validate import suggest

__all__ = ["Add", "ApplyFunc", "Concat", "Input", "Input_like", "Node"]


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

    >>> import numpy as np
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
