"""Recurrent cells: one step of a GRU or of an LSTM. :func:`Scan` (``scan.py``) makes a loop of a step."""
import torch

from elektronn2.config import config
from elektronn2.neuromancer import computations as C
from elektronn2.neuromancer.expression import op
from elektronn2.neuromancer.init import bias_init
from elektronn2.neuromancer.node_basic import Node, check_features, merged_shape
from elektronn2.utils.validate import as_int

__all__ = ["GRU", "LSTM"]


def _joined(h, x, axis):
    """[h, x] along ``axis``, with ``h`` stretched to the other sizes of ``x``."""
    sizes = list(x.shape)
    sizes[axis] = h.shape[axis]
    return torch.cat([h.expand(sizes), x], axis)


@op
def gru(x, h, w, b, activation, slope=None, axis=1):
    """(h', z, r) from features ``x`` and memory ``h`` along ``axis``; see :class:`GRU`."""
    n = h.shape[axis]
    gates = torch.sigmoid(C.add_bias(C.dot(_joined(h, x, axis), w[:, :2 * n], axis), b[:2 * n], axis))
    z, r = gates.chunk(2, axis)
    new = C.add_bias(C.dot(_joined(r * h, x, axis), w[:, 2 * n:], axis), b[2 * n:], axis)
    return (1 - z) * h + z * C.apply_activation(new, activation, slope, axis), z, r


@op
def lstm(x, state, w, b, activation, slope=None, axis=1):
    """[h' | c'] from features ``x`` and memory [h | c] along ``axis``; see :class:`LSTM`."""
    h, c = state.chunk(2, axis)
    n = h.shape[axis]
    linear = C.add_bias(C.dot(_joined(h, x, axis), w, axis), b, axis)
    gates, new = linear.split([3 * n, linear.shape[axis] - 3 * n], axis)
    f, i, o = torch.sigmoid(gates).chunk(3, axis)
    c = f * c + i * C.apply_activation(new, activation, slope, axis)
    shown = c if activation.startswith("maxout") else C.apply_activation(c, activation, slope, axis)
    return torch.cat([o * shown, c], axis)


class _Cell(Node):
    """What GRU and LSTM have in common: arguments, checks, weights, shape."""

    n_gates = n_states = None  # of each feature

    def _init_cell(self, parent, memory, n_f, activation_func, name, print_repr, w, b, unsupported):
        super().__init__([parent, memory], name, print_repr)
        what = f"{type(self).__name__} {name!r}"
        if unsupported:
            raise NotImplementedError(f"{what} has no {', '.join(unsupported)}. A Perceptron before or behind it has.")
        self.activation_func, pieces = C.check_activation(activation_func)
        self.n_f = as_int(n_f, f"n_f of {what}")
        shape, memory_shape = parent.shape, memory.shape
        if shape.hastag("r"):
            raise ValueError(f"{what} is one step, so its parent must not have an axis r; {parent.name!r} is {shape}. "
                             "Build the cell on the first element of the sequence and make a loop of it with Scan.")
        if memory_shape.tags != shape.tags:
            raise ValueError(f"{what}: parent and memory need the same axes; {parent.name!r} is {shape}, {memory.name!r} is "
                             f"{memory_shape}.")
        for p in self.parents:
            check_features(self, p, config.floatX)
        self.axis = shape.tag2index("f")
        size = self.n_states * self.n_f
        if memory_shape["f"] != size:
            raise ValueError(f"{what} with n_f={self.n_f} needs a memory of {size} features, {memory.name!r} is "
                             f"{memory_shape}.")
        others = [(n, m) for i, (n, m) in enumerate(zip(shape, memory_shape)) if i != self.axis]
        if any(n != m and m != 1 for n, m in others):
            raise ValueError(f"{what}: the memory {memory.name!r} {memory_shape} cannot be stretched to the sizes of "
                             f"{parent.name!r} {shape}. All sizes but f must be equal, or 1 in the memory.")
        self._shape = shape if any(n != m for n, m in others) else merged_shape(self, self.parents, axis=self.axis)
        columns = (self.n_gates + pieces) * self.n_f
        self.make_param("w", w, (shape["f"] + self.n_f, columns), dict(scale="glorot", mode="ortho"))
        self.make_param("b", b, (columns, 2) if activation_func == "prelu" else (columns,), bias_init(activation_func),
                        apply_reg=False)

        self.joined = None  # an open size of the memory may be 1, too

    def _cell(self, function):
        """What ``function`` makes of the parent, the memory and the weights."""
        w, b = (p.as_expression_of(self.model.graph) for p in (self.w, self.b))
        bias, slope = b, None
        if self.activation_func == "prelu":  # the slopes are those of the columns after the gates
            bias, slope = C.bias_of(b), C.slope_of(b)[self.n_gates * self.n_f:]
        return function(*[p.output for p in self.parents], w, bias, self.activation_func, slope, self.axis)

    def _calc_shape(self):
        self.shape = self._shape.updateshape("f", self.n_states * self.n_f)

    def _calc_comp_cost(self):
        self.computational_cost = self.parents[0].shape.stripnone_prod * self.w.shape[1]


class GRU(_Cell):
    """One step of a gated recurrent unit.

    Parent x (b, f, *L), memory h (b, n_f, *L), output h' (b, n_f, *L), w (n_f + f, 3 n_f), applied to [h, x] along
    the features; its columns are those of z, r and h~::

        z, r = sigmoid([h, x] w_zr + b_zr)
        h~ = activation([r * h, x] w_h + b_h)
        h' = (1 - z) * h + z * h~

    Where the memory has size 1 it is stretched to the parent's size. With 'maxout k' there are k times as many
    columns of h~; with 'prelu' b is (3 n_f, 2), biases and slopes, and only the slopes of h~ count. ``w``, ``b``: as in
    other layers (arrays, parameters of another cell, [array, 'const']). The debug outputs are memory, output, z, r.

    ValueError if the parent has an axis r, or the memory other axes or sizes; NotImplementedError for ``flatten``,
    batch normalisation and dropout, which a Perceptron before or behind the cell has.

    Source: Cho et al. 2014, Learning phrase representations using RNN encoder-decoder for statistical machine
    translation.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x, h = (nm.Input((1, n), 'b,f', name=name, print_repr=False) for name, n in (('x', 3), ('h', 2)))
    >>> cell = nm.GRU(x, h, 2, print_repr=False)
    >>> cell.w.set_value(np.zeros((5, 6)))
    >>> cell.b.set_value([0, 0, 0, 0, 9, 9])  # z is 1/2: half of the memory, half of tanh(9)
    >>> cell(np.zeros((1, 3)), np.ones((1, 2))).round(3)
    array([[1., 1.]], dtype=float32)
    """

    n_gates, n_states = 2, 1

    def __init__(self, parent, memory_state, n_f, activation_func="tanh", flatten=False, batch_normalisation=False,
                 dropout_rate=0, name="gru", print_repr=True, w=None, b=None, gamma=None, mean=None, std=None,
                 gradnet_mode=None):
        self._init_cell(parent, memory_state, n_f, activation_func, name, print_repr, w, b, _given(
            flatten=flatten, batch_normalisation=batch_normalisation, dropout_rate=dropout_rate, gamma=gamma, mean=mean,
            std=std, gradnet_mode=gradnet_mode))

    def _make_output(self):
        step = self._cell(gru)
        self.output = step[0]
        self.debug_outputs = {"memory": self.parents[1].output, "out": step[0], "z": step[1], "r": step[2]}


class LSTM(_Cell):
    """One step of a long short-term memory without peepholes.

    Parent x (b, f, *L), memory [h | c] (b, 2 n_f, *L), output [h' | c'] (b, 2 n_f, *L), w (n_f + f, 4 n_f), applied to
    [h, x] along the features; its columns are those of f, i, o and c~::

        f, i, o = sigmoid([h, x] w_fio + b_fio)
        c' = f * c + i * activation([h, x] w_c + b_c)
        h' = o * activation(c')

    Where the memory has size 1 it is stretched to the parent's size. With 'maxout k' there are k times as many
    columns of c~, and h' = o * c'; with 'prelu' b is (4 n_f, 2), biases and slopes, and only the slopes of c~ count.
    Other arguments and errors are those of :class:`GRU`. ``split(cell, index=n_f)`` takes h' and c' apart.

    Source: Hochreiter and Schmidhuber 1997, Long short-term memory; Gers et al. 2000, Learning to forget.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x, state = (nm.Input((1, n), 'b,f', name=name, print_repr=False) for name, n in (('x', 3), ('state', 2)))
    >>> cell = nm.LSTM(x, state, 1, print_repr=False)
    >>> cell.b.set_value([9, -9, 9, 0])  # remember all, take nothing in, show all
    >>> cell.w.set_value(np.zeros((4, 4)))
    >>> cell(np.zeros((1, 3)), np.array([[0, 2]])).round(2)  # [tanh(2) | 2]
    array([[0.96, 2.  ]], dtype=float32)
    """

    n_gates, n_states = 3, 2

    def __init__(self, parent, memory_states, n_f, activation_func="tanh", flatten=False, batch_normalisation=False,
                 dropout_rate=0, name="lstm", print_repr=True, w=None, b=None, gamma=None, mean=None, std=None,
                 gradnet_mode=None):
        self._init_cell(parent, memory_states, n_f, activation_func, name, print_repr, w, b, _given(
            flatten=flatten, batch_normalisation=batch_normalisation, dropout_rate=dropout_rate, gamma=gamma, mean=mean,
            std=std, gradnet_mode=gradnet_mode))

    def _make_output(self):
        self.output = self._cell(lstm)


def _given(**arguments):
    """Names of the arguments that are set: neither None nor False nor 0."""
    return [k for k, v in arguments.items() if v is not None and v is not False and not (k == "dropout_rate" and v == 0)]
