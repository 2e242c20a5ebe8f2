"""Nodes that networks begin with and are joined by: inputs, values, concatenation, sums, pieces, functions."""
import operator

import numpy as np
import torch

from elektronn2.config import config
from elektronn2.neuromancer import computations
from elektronn2.neuromancer.expression import Expression, op
from elektronn2.neuromancer.manager import choose_name, model_manager
from elektronn2.neuromancer.node import Node
from elektronn2.neuromancer.shape import TaggedShape
from elektronn2.neuromancer.variables import VariableParam
from elektronn2.utils.validate import as_int, dtype_name, suggest

__all__ = ["Add", "ApplyFunc", "Concat", "FromTensor", "InitialState_like", "Input", "Input_like", "MultMerge", "Node",
           "ValueNode", "model_manager", "split"]

DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


class Input(Node):
    """A source: values that are given when a function is called. Output (b, f, *L), or whatever ``shape`` says.

    ``shape``: sizes, None for any; ``tags``: axis letters, like 'b,f,z,x,y'; ``strides``, ``fov``,
    ``offsets``: per spatial axis, where its voxels sit on another input (for targets); ``dtype``: a name, like 'int16',
    or the like of numpy, default ``config.floatX``.
    ``hardcoded_shape``: insist that every size is given (ValueError if one is None).

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> nm.Input((None, 1, 23, 185, 185), 'b,f,z,x,y', name='raw', print_repr=False).shape
    [(None,b), (1,f), (23,z), (185,x), (185,y)]
    """

    is_source = True

    def __init__(self, shape, tags, strides=None, fov=None, dtype=None, hardcoded_shape=False, name="input",
                 print_repr=True, offsets=None):
        super().__init__(None, name, print_repr)
        self._declared = TaggedShape(shape, tags, strides, fov=fov, offsets=offsets)
        self._dtype = _known_dtype(dtype, f"Input {name!r}")
        if hardcoded_shape and None in self._declared.shape:
            raise ValueError(f"Input {name!r} has hardcoded_shape, but its shape {self._declared} leaves a size open.")

    def _make_output(self):
        self.output = self.model.graph.source(self.name, self._declared, self._dtype)

    def _calc_shape(self):
        self.shape = self._declared


def _known_dtype(dtype, where):
    """``dtype``, or the working float for None. ValueError unless it is the name of one that nodes can have."""
    if dtype is None:
        return config.floatX
    dtype = dtype_name(dtype)
    if not isinstance(dtype, str):
        raise ValueError(f"{where}: dtype must be a string like 'float32', or a dtype of numpy, got {dtype!r}.")
    if dtype not in DTYPES:
        raise ValueError(f"{where}: unknown dtype {dtype!r}.{suggest(dtype, DTYPES)} Known: {', '.join(DTYPES)}.")
    return dtype


def Input_like(ref, dtype=None, name="input", override_f=False, hardcoded_shape=False, print_repr=True):
    """An :class:`Input` with the shape, strides, fov and offsets of ``ref``, a node or a TaggedShape.

    ``dtype``: default that of a node's output; needed for a TaggedShape (ValueError). ``override_f``: another
    size of axis f (1 for sparse targets). ``hardcoded_shape``: as of Input.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> pred = nm.Conv(nm.Input((1, 1, 9), 'b,f,x', print_repr=False), 2, 3, print_repr=False)
    >>> target = nm.Input_like(pred, 'int16', override_f=1, name='target', print_repr=False)
    >>> target.shape, target.shape.offsets
    ([(1,b), (1,f), (7,x)], [1])
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


class ValueNode(Node):
    """A value that needs no input: a constant, or trained. Output ``shape``, for example (b, f, *L).

    ``shape``, ``tags``, ``strides``, ``fov``: as in :class:`Input`, but every size is given. ``value``: array, number,
    parameter of another node (shared), or [array, 'const'] (default 0). With ``apply_train`` it is trained, starting from
    ``value`` or else from ``initweights(shape, **init_kwargs)``. ``dtype``: a name; a trained value is floating point.

    Raises ValueError for open sizes, a value of another shape, or a trained value with no initial one.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> nm.ValueNode((2,), 'f', value=[0.5, 2], print_repr=False)()
    array([0.5, 2. ], dtype=float32)
    """

    def __init__(self, shape, tags, strides=None, fov=None, dtype=None, apply_train=False, value=None, init_kwargs=None,
                 name="value_state", print_repr=True):
        super().__init__(None, name, print_repr)
        where = f"ValueNode {name!r}"
        self._declared = TaggedShape(shape, tags, strides, fov=fov)
        dtype = _known_dtype(dtype, where)
        if None in self._declared.shape:
            raise ValueError(f"{where}: every size must be given, got {self._declared}.")
        marked = isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], str)
        train = (value[1] == "trainable") if marked else bool(apply_train)
        if train and not dtype.startswith("float"):
            raise ValueError(f"{where}: a trained value must be floating point, not {dtype}.")
        if not train:
            if init_kwargs is not None and value is None:
                raise NotImplementedError(f"{where}: init_kwargs are for values that are trained; pass apply_train=True, "
                                          "or value=initweights(...).")
            if not marked and not isinstance(value, VariableParam):
                value = [0 if value is None else value, "const"]
        elif value is None and init_kwargs is None:
            raise ValueError(f"{where}: a trained value needs value or init_kwargs, like dict(mode='const', scale=0).")
        self.make_param("value", value, self._declared.shape, init_kwargs, train, train, dtype)

    def _make_output(self):
        self.output = self.model.graph.param(self.value)

    def _calc_shape(self):
        self.shape = self._declared

    def _calc_comp_cost(self):
        self.computational_cost = 0

    def _axis_size(self, k, *sizes, mfp=False):
        return self._declared.spatial_shape[k] if k < self._declared.ndim else None

    def get_value(self):
        """A copy of the value, as an array."""
        return self.value.get_value()


class InitialState_like(Node):
    """A trained vector, repeated over all axes of ``parent`` but f: the first state of a recurrent layer.

    ``override_f``: its length; ``init_kwargs``: as for ``initweights``, default zeros; ``value``: as in :class:`ValueNode`.
    ``dtype``: default that of ``parent``. Input (b, f, *L), output (b, override_f, *L); the values of the input do not
    matter.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((2, 3), 'b,f', print_repr=False)
    >>> start = nm.InitialState_like(x, 2, init_kwargs=dict(mode='const', scale=0.5), print_repr=False)
    >>> start(np.zeros((2, 3), 'float32'))
    array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """

    def __init__(self, parent, override_f, dtype=None, name="initial_state", print_repr=True, init_kwargs=None, value=None):
        super().__init__(parent, name, print_repr)
        self._axis = _axis_of(parent.shape, "f", f"InitialState_like {name!r} of {parent.name!r} {parent.shape}")
        n_f = as_int(override_f, f"override_f of InitialState_like {name!r}")
        if dtype is None and parent.output.dtype.startswith("float"):
            dtype = parent.output.dtype
        dtype = _known_dtype(dtype, f"InitialState_like {name!r}")
        if not dtype.startswith("float"):
            raise ValueError(f"InitialState_like {name!r}: a trained value must be floating point, not {dtype}.")
        self.make_param("value", value, (n_f,), init_kwargs or dict(mode="const", scale=0.0), dtype=dtype)

    def _make_output(self):
        self.output = computations.spread(self.model.graph.param(self.value), self.parent.output, self._axis)

    def _calc_shape(self):
        self.shape = self.parent.shape.updateshape("f", self.value.shape[0])

    def _calc_comp_cost(self):
        self.computational_cost = 0

    def get_value(self):
        """A copy of the vector, as an array."""
        return self.value.get_value()


def check_features(node, parent, dtype=None):
    """Check that a parent has an axis f of known size, and that its values are of ``dtype`` (None: floating point)."""
    what = f"{type(node).__name__} {node.name!r}"
    if not parent.shape.hastag("f"):
        raise ValueError(f"{what} needs an axis f; {parent.name!r} is {parent.shape}.")
    if parent.shape["f"] is None:
        raise ValueError(f"{what} must know the number of features; {parent.name!r} is {parent.shape}. Give its source a "
                         "size on axis f.")
    if parent.output.dtype != dtype and (dtype or not parent.output.dtype.startswith("float")):
        raise TypeError(f"{what} computes with {dtype or 'floating point'}, but {parent.name!r} has {parent.output.dtype}. "
                        f"Make the source with dtype={dtype or config.floatX!r}: arrays are converted when they are given.")


def merged_shape(node, parents, equal_f=True, axis=None):
    """Shape of a node that joins ``parents`` voxel by voxel: all sizes but ``axis`` must agree, and, where they
    depend on the same source, strides and positions too. ValueError naming nodes, axis and shift; open sizes are compared
    when the node is called."""
    node.joined = tuple(parents), axis
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

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((1, 2, 9), 'b,f,x', print_repr=False)
    >>> nm.Concat([x, nm.Conv(x, 5, 3, conv_mode='same', print_repr=False)], print_repr=False).shape
    [(1,b), (7,f), (9,x)]
    """

    def __init__(self, parent_nodes, axis="f", name="concat", print_repr=True):
        if not isinstance(parent_nodes, (list, tuple)) or not parent_nodes:
            got = f"one node, {parent_nodes.name!r}" if isinstance(parent_nodes, Node) else repr(parent_nodes)
            raise ValueError(f"Concat needs a list of nodes, got {got}. Write Concat([a, b]).")
        super().__init__(list(parent_nodes), name, print_repr)
        shape = self.parents[0].shape
        self.axis = _axis_of(shape, axis, f"Concat {name!r} of {self.parents[0].name!r} {shape}")
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
        names = ", ".join(repr(p.name) for p in node.parents)
        raise ValueError(f"{type(node).__name__} {node.name!r}: its parents {names} have different sizes on axis "
                         f"{node.shape.spatial_tags[k]!r}: {', '.join(map(str, sizes))}.")
    return sizes[0]


class Add(Node):
    """Elementwise sum of two nodes of the same shape, ``n1`` and ``n2``. Input (b, f, *L) twice, output (b, f, *L).

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((1, 2), 'b,f', print_repr=False)
    >>> nm.Add(x, x, print_repr=False)(np.array([[1, 2]], 'float32'))
    array([[2., 4.]], dtype=float32)
    """

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


class MultMerge(Node):
    """Elementwise product of two nodes of the same shape, ``n1`` and ``n2``. Input (b, f, *L) twice, output (b, f, *L).

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((1, 2), 'b,f', print_repr=False)
    >>> nm.MultMerge(x, x, print_repr=False)(np.array([[1, 2]], 'float32'))
    array([[1., 4.]], dtype=float32)
    """

    def __init__(self, n1, n2, name="multmerge", print_repr=True):
        super().__init__([n1, n2], name, print_repr)
        self._merged = merged_shape(self, self.parents)

    def _make_output(self):
        a, b = aligned_outputs(self.parents)
        self.output = a * b

    def _calc_shape(self):
        self.shape = self._merged

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
        if shape is not None and not isinstance(shape, TaggedShape):
            raise TypeError(f"ApplyFunc {name!r}: shape must be a TaggedShape, got {shape!r}.")
        self.functor, self.args, self.kwargs = functor, args, kwargs or {}
        self._declared = shape

    def _make_output(self):
        where = f"ApplyFunc {self.name!r} of {self.parent.name!r} {self.parent.shape}"
        try:
            self.output = op(self.functor)(self.parent.output, *self.args, **self.kwargs)
        except Exception as error:
            raise ValueError(f"{where}: {self.functor!r} fails: {error}") from error
        if not isinstance(self.output.meta, torch.Tensor):
            raise TypeError(f"{where}: {self.functor!r} must return one tensor, but it returns {type(self.output.meta)}.")

    def _calc_shape(self):
        self.shape = self._declared or self.parent.shape
        meta = tuple(self.output.meta.shape)
        if len(meta) != len(self.shape) or any(n is not None and n != m for n, m in zip(self.shape, meta)):
            rule = ("pass shape=TaggedShape(...) for a function that changes the shape" if self._declared is None else
                    f"but shape says {self._declared}")
            raise ValueError(f"ApplyFunc {self.name!r}: {self.functor!r} turns {self.parent.name!r} {self.parent.shape} "
                             f"into {meta}; {rule}.")


class FromTensor(Node):
    """An expression as a node: one of several values that were computed from ``tensor_parent``, or a piece of it.

    ``tensor``: expression, made from outputs of nodes; ``tensor_shape``: its TaggedShape; or ``piece``, as :func:`split`
    gives it: (axis index, sizes of all pieces, which one, whether that axis goes), with None for the other two.
    Output ``tensor_shape``, or (b, f, *L) with one axis shorter. A piece can be saved, another expression cannot.

    Attributes of a piece: ``parent``, and ``piece``: (axis index, start, stop).

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> from elektronn2.neuromancer.graphutils import TaggedShape
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((2, 3), 'b,f', print_repr=False)
    >>> largest = nm.FromTensor(x.output.amax(1), TaggedShape((2,), 'b'), x)
    >>> largest(np.array([[1, 3, 2], [6, 5, 4]], 'float32'))
    array([3., 6.], dtype=float32)
    """

    def __init__(self, tensor, tensor_shape, tensor_parent, name="from_tensor", print_repr=False, piece=None):
        super().__init__(tensor_parent, name, print_repr)
        self.piece = None
        if piece is not None:
            self._start_piece(piece)
        elif not isinstance(tensor, Expression) or not isinstance(tensor_shape, TaggedShape):
            raise TypeError(f"FromTensor {name!r}: tensor must be an expression (like node.output * 2) and tensor_shape a "
                            f"TaggedShape, got {tensor!r} and {tensor_shape!r}.")
        elif tensor.tracer is not self.model.graph:
            raise ValueError(f"FromTensor {name!r}: tensor belongs to another model than {tensor_parent.name!r}.")
        else:
            self._tensor, self._declared = tensor, tensor_shape

    def _start_piece(self, piece):
        axis, sizes, i, self._strip = piece
        stop = sum(sizes[:i + 1])
        self.piece = axis, stop - sizes[i], stop
        parent = self.parent
        if parent.shape[axis] != sum(sizes):
            raise ValueError(f"FromTensor {self.name!r}: {parent.name!r} {parent.shape} was split on axis "
                             f"{parent.shape.tags[axis]!r} when that had {sum(sizes)} entries; split it anew.")

    def _make_output(self):
        self.output = computations.piece(self.parent.output, *self.piece, self._strip) if self.piece else self._tensor

    def _calc_shape(self):
        if self.piece is None:
            self.shape = self._declared
            return
        self.shape = self.parent.shape.sliced(*self.piece)
        if self._strip:
            self.shape = self.shape.delaxis(self.piece[0])

    def _calc_comp_cost(self):
        self.computational_cost = 0

    def _axis_size(self, k, *sizes, mfp=False):
        """Other sizes than that of the parent are refused on the axis that was split, as the pieces are fixed."""
        before = self.parent.shape
        if self.piece is None or before.tags[self.piece[0]] not in before.spatial_tags:
            return sizes[0]
        where = before.spatial_axes.index(self.piece[0])
        if k == where and not self._strip:
            if sizes[0] != before.spatial_shape[k]:
                raise ValueError(f"FromTensor {self.name!r}: {self.parent.name!r} was split on this axis at length "
                                 f"{before.spatial_shape[k]}, so it cannot have {sizes[0]}.")
            return self.piece[2] - self.piece[1]
        return sizes[0]


def split(node, axis="f", index=None, n_out=None, strip_singleton_dims=False, name="split", print_repr=False):
    """Tuple of nodes, each a piece of ``node`` along one axis (letter or index).

    ``index``: where to cut, an integer or an increasing list; or ``n_out``: number of equal pieces.
    ``strip_singleton_dims``: pieces of length 1 lose the axis. ``name``: of the split, pieces have numbers appended;
    or a list with one name per piece. Input (b, f, *L), pieces (b, f_i, *L) with sum f_i = f (or so on another axis).

    Raises ValueError if the axis does not exist or has an open size, or if the pieces do not fit it.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((1, 5, 8), 'b,f,x', print_repr=False)
    >>> {n.name: n.shape for n in nm.split(x, 'f', index=[1, 3])}
    {'split1': [(1,b), (1,f), (8,x)], 'split2': [(1,b), (2,f), (8,x)], 'split3': [(1,b), (2,f), (8,x)]}
    """
    if not isinstance(node, Node):
        raise TypeError(f"split: node must be a node, got {node!r}.")
    where, shape = f"split of {node.name!r} {node.shape}", node.shape
    axis = _axis_of(shape, axis, where)
    size, tag = shape[axis], shape.tags[axis]
    if size is None:
        raise ValueError(f"{where}: axis {tag!r} has an open size, so it cannot be cut.")
    if tag == "b" and len(shape.mfp_offsets) > 1:
        raise ValueError(f"{where}: its axis b holds {len(shape.mfp_offsets)} MFP fragments; use FragmentsToDense first.")
    sizes = _piece_sizes(size, tag, index, n_out, where)
    taken = dict.fromkeys(node.model.taken)
    base = None
    if isinstance(name, str):
        base = choose_name(name, taken)
        taken[base] = None
        names = [name] * len(sizes)
    else:
        names = list(name)
        if len(names) != len(sizes):
            raise ValueError(f"{where}: {len(sizes)} pieces need as many names, got {names}.")
    for i, proposal in enumerate(names):
        names[i] = choose_name(proposal, taken)
        taken[names[i]] = None
    pieces = tuple(FromTensor(None, None, node, names[i], print_repr, (axis, sizes, i, strip_singleton_dims and n == 1))
                   for i, n in enumerate(sizes))
    if base is not None:
        node.model.register_split(base, names)
    return pieces


def _axis_of(shape, axis, where):
    """Index of an axis that is given by its letter or index. ValueError, beginning with ``where``, if there is none."""
    try:
        return shape._axis(axis)
    except ValueError:
        raise ValueError(f"{where}: there is no axis {axis!r}; axes are {', '.join(shape.tags)}.") from None


def _piece_sizes(size, tag, index, n_out, where):
    """Sizes of the pieces of an axis that is cut at ``index`` or into ``n_out`` equal ones."""
    if (index is None) == (n_out is None):
        raise ValueError(f"{where}: give either index (where to cut) or n_out (number of equal pieces).")
    try:
        if n_out is not None:
            n_out = operator.index(n_out)
            if n_out < 1 or size % n_out:
                raise ValueError(f"{where}: {size} entries on axis {tag!r} cannot be cut into {n_out} equal pieces.")
            return (size // n_out,) * n_out
        cuts = [operator.index(i) for i in np.atleast_1d(index).tolist()]
    except TypeError:
        raise TypeError(f"{where}: index and n_out are integers (index also a list), got {index!r}, {n_out!r}.") from None
    sizes = tuple(b - a for a, b in zip([0, *cuts], [*cuts, size]))
    if not cuts or min(sizes) < 1:
        raise ValueError(f"{where}: index must increase and lie within 1 to {size - 1} on axis {tag!r}, got {index!r}.")
    return sizes
