"""GRU and LSTM: one step, against loops in numpy, PyTorch's cells and finite differences."""
import numpy as np
import pytest
import torch
from reference import naive_gru, naive_lstm

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer.function import cut

CELLS = {"GRU": (nm.GRU, naive_gru, 1), "LSTM": (nm.LSTM, naive_lstm, 2)}
QUIET = dict(print_repr=False)


def build(name, batch=2, sizes=(), tags="b,f", n_f=3, memory=None, **kwargs):
    """(cell, arrays): a cell with random weights, and values for its inputs x and h."""
    cls, _, states = CELLS[name]
    x = nm.Input((batch, 4, *sizes), tags, name="x", **QUIET)
    h = nm.Input(memory or (batch, states * n_f, *sizes), tags, name="h", **QUIET)
    cell = cls(x, h, n_f, **kwargs, **QUIET)
    rng = np.random.default_rng(5)
    cell.set_param_values({k: rng.normal(size=p.shape) for k, p in cell.params.items()})
    shapes = [[2 if n is None else n for n in node.shape] for node in (x, h)]
    return cell, [rng.normal(size=s).astype(np.float32) for s in shapes]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("sizes, tags", [((), "b,f"), ((3, 2), "b,f,x,y"), ((2,), "b,f,z")])
def test_values(name, sizes, tags):
    cell, arrays = build(name, sizes=sizes, tags=tags)
    wanted = CELLS[name][1](*arrays, *cell.get_param_values().values())
    np.testing.assert_allclose(cell(*arrays), wanted, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_features_on_another_axis(name):
    cls, naive, states = CELLS[name]
    x, h = nm.Input((2, 5, 4), "b,x,f", name="x"), nm.Input((2, 5, states * 3), "b,x,f", name="h")
    cell, rng = cls(x, h, 3), np.random.default_rng(0)
    arrays = [rng.normal(size=n.shape.shape).astype(np.float32) for n in (x, h)]
    wanted = naive(*[a.swapaxes(1, 2) for a in arrays], *cell.get_param_values().values()).swapaxes(1, 2)
    np.testing.assert_allclose(cell(*arrays), wanted, atol=1e-5)


def prelu(slope):
    return lambda v: np.where(v < 0, slope * v, v)


@pytest.mark.parametrize("name", CELLS)
def test_activations(name):
    """relu; prelu with its slopes; the largest of three linear functions, where the LSTM's cell is then shown as it is."""
    naive = CELLS[name][1]
    for activation, function in (("relu", lambda v: np.maximum(v, 0)), ("lin", lambda v: v)):
        cell, arrays = build(name, activation_func=activation)
        wanted = naive(*arrays, cell.w.get_value(), cell.b.get_value(), function)
        np.testing.assert_allclose(cell(*arrays), wanted, atol=1e-5)

    cell, arrays = build(name, activation_func="prelu")
    bias, slope = cell.b.get_value().T
    np.testing.assert_allclose(cell(*arrays), naive(*arrays, cell.w.get_value(), bias, prelu(slope[-3:])), atol=1e-5)

    cell, arrays = build(name, activation_func="maxout 3")
    largest = lambda v: v.reshape(-1, 3).max(1)  # noqa: E731
    last = {"last": lambda c: c} if name == "LSTM" else {}
    wanted = naive(*arrays, cell.w.get_value(), cell.b.get_value(), largest, **last)
    np.testing.assert_allclose(cell(*arrays), wanted, atol=1e-5)


def test_gru_against_torch():
    """PyTorch multiplies r with h after the matrix, so the matrix is diagonal here; its z is 1 - z."""
    cell, (x, h) = build("GRU")
    w, b = cell.w.get_value(), cell.b.get_value()
    w[:3, 6:] = np.diag(np.diag(w[:3, 6:]))
    cell.w.set_value(w)
    other = torch.nn.GRUCell(4, 3)
    columns = np.split(w, 3, axis=1)
    columns = np.concatenate([columns[1], -columns[0], columns[2]], 1)
    bias = np.concatenate([b[3:6], -b[:3], b[6:]])
    load(other, columns, bias)
    np.testing.assert_allclose(cell(x, h), other(torch.tensor(x), torch.tensor(h)).detach(), atol=1e-5)


def test_lstm_against_torch():
    cell, (x, state) = build("LSTM")
    f, i, o, c = np.split(np.concatenate([cell.w.get_value(), cell.b.get_value()[None]]), 4, axis=1)
    all_columns = np.concatenate([i, f, c, o], 1)
    other = torch.nn.LSTMCell(4, 3)
    load(other, all_columns[:-1], all_columns[-1])
    h, c = other(torch.tensor(x), tuple(torch.tensor(state).chunk(2, 1)))
    np.testing.assert_allclose(cell(x, state), torch.cat([h, c], 1).detach(), atol=1e-5)


def load(cell, columns, bias):
    state = dict(weight_hh=columns[:3].T, weight_ih=columns[3:].T, bias_ih=bias, bias_hh=0 * bias)
    cell.load_state_dict({k: torch.tensor(v) for k, v in state.items()})


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("activation", ["tanh", "prelu", "maxout 2"])
def test_gradients(name, activation, float64):
    cell, arrays = build(name, sizes=(2,), tags="b,f,x", activation_func=activation)
    params = list(cell.params.values())
    wrt = [p.as_expression_of(cell.model.graph) for p in params]
    module, _, _ = cut([cell.output], [n.output for n in cell.input_nodes] + wrt)
    values = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays] + [p.tensor for p in params]
    assert torch.autograd.gradcheck(lambda *v: module(*v)[0], values)


@pytest.mark.parametrize("name", CELLS)
def test_memory_is_stretched(name):
    """A memory of size 1 on an axis acts like its copies, also where the batch size is open."""
    n = 3 * CELLS[name][2]
    cell, (x, h) = build(name, batch=None, sizes=(5,), tags="b,f,x", memory=(1, n, 1))
    assert cell.shape.shape == [None, n, 5]
    x = np.concatenate([x, 2 * x])
    wanted = CELLS[name][1](x, np.broadcast_to(h, (4, n, 5)), *cell.get_param_values().values())
    np.testing.assert_allclose(cell(x, h), wanted, atol=1e-5)


def test_debug_outputs():
    """memory, output, z and r of a GRU: z mixes memory and candidate."""
    cell, (x, h) = build("GRU")
    memory, out, z, r = cell.get_debug_outputs(x, h)
    w, b = cell.w.get_value(), cell.b.get_value()
    np.testing.assert_array_equal(memory, h)
    np.testing.assert_allclose(out, cell(x, h))
    np.testing.assert_allclose(np.log(z / (1 - z)), np.concatenate([h, x], 1) @ w[:, :3] + b[:3], atol=1e-4)
    np.testing.assert_allclose(np.log(r / (1 - r)), np.concatenate([h, x], 1) @ w[:, 3:6] + b[3:6], atol=1e-4)


def test_weights_are_shared_given_and_held_constant():
    x, h = nm.Input((2, 4), "b,f", name="x"), nm.Input((2, 3), "b,f", name="h")
    first = nm.GRU(x, h, 3, name="first")
    second = nm.GRU(x, first, 3, w=first.w, b=[np.arange(9), "const"])
    assert second.w is first.w and second.param_count == 0 and second.b.constant
    with pytest.raises(ValueError, match=r"\(7, 9\)"):
        nm.GRU(x, h, 3, w=np.zeros((7, 8)))
    second.model.designate_nodes(x, prediction_node=second)
    fixed = nm.model.rebuild_model(second.model, make_weights_constant=True)
    assert fixed.trainable_params == []
    arrays = [np.full(n.shape.shape, 0.3, np.float32) for n in (x, h)]
    np.testing.assert_allclose(fixed["gru"](*arrays), second(*arrays), atol=1e-6)


def test_initial_weights():
    """Orthogonal columns; biases by the activation, of all columns."""
    x, h = nm.Input((1, 20), "b,f"), nm.Input((1, 4), "b,f")
    for cell in (nm.LSTM(x, h, 2, activation_func="relu"), nm.GRU(x, h, 4, activation_func="relu")):
        w = cell.w.get_value()
        products = w.T @ w
        np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-5)
        assert (cell.b.get_value() == 1).all() and cell.b.apply_reg is False
    assert np.abs(nm.LSTM(x, h, 2).b.get_value()).max() <= 1e-6


def test_cost_of_all_gates():
    assert build("GRU", batch=2, sizes=(5,), tags="b,f,x")[0].computational_cost == 3 * 40 * 3
    assert build("LSTM", batch=None)[0].computational_cost == 4 * 4 * 3
    assert build("GRU", activation_func="maxout 2")[0].computational_cost == 4 * 8 * 3
