"""Scan: a loop over a step, against the same step written once per element, loops in numpy, and finite differences."""
import logging

import numpy as np
import pytest
import torch
from reference import naive_gru, naive_lstm

from elektronn2 import neuromancer as nm
from elektronn2.config import config
from elektronn2.neuromancer.function import Function, cut
from elektronn2.neuromancer.loops import Step
from elektronn2.neuromancer.scan import ScanN

QUIET = dict(print_repr=False)


def sequence(n=5, batch=2, n_f=4, sizes=(), tags="r,b,f"):
    """(sequence, its first element) as nodes."""
    x = nm.Input((n, batch, n_f, *sizes), tags, name="x", **QUIET)
    cuts = dict(index=1, name=["first", "rest"]) if n > 1 else dict(n_out=1, name=["first"])
    return x, nm.split(x, "r", strip_singleton_dims=True, **cuts)[0]


def values(node, seed=0):
    shape = [2 if n is None else n for n in node.shape]
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def recurrent(cell="GRU", n=5, activation="tanh", scan=None, **kwargs):
    """(x, memory, cell, result): a loop over one cell of three features with a trained initial state."""
    x, first = sequence(n, **kwargs)
    memory = nm.InitialState_like(first, 3 if cell == "GRU" else 6, init_kwargs=dict(mode="fix-uni", scale=1), **QUIET)
    step = getattr(nm, cell)(first, memory, 3, activation, name="cell", **QUIET)
    return x, memory, step, nm.Scan(step, memory, in_iterate=x, in_iterate_0=first, **(scan or {}), **QUIET)


# -- values ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("cell, naive", [("GRU", naive_gru), ("LSTM", naive_lstm)])
@pytest.mark.parametrize("n", [1, 2, 9, 20])
def test_values(cell, naive, n, unroll):
    """All steps against numpy; the last one by itself; with several steps compiled into one program and without."""
    x, memory, step, out = recurrent(cell, n, scan=dict(unroll_scan=unroll), sizes=(2,), tags="r,b,f,y")
    first = out.parent.in_iterate_0[0]
    last = nm.Scan(step, memory, in_iterate=x, in_iterate_0=first, last_only=True, unroll_scan=unroll, **QUIET)
    data = values(x)
    h = np.broadcast_to(memory.get_value()[:, None], (2, memory.shape["f"], 2))
    wanted = []
    for element in data:
        h = naive(element, h, step.w.get_value(), step.b.get_value())
        wanted.append(h)
    assert out.shape.tags == ["r", "b", "f", "y"] and out.shape["r"] == n
    np.testing.assert_allclose(out(data), wanted, atol=1e-5)
    assert last.shape == step.shape
    np.testing.assert_allclose(last(data), wanted[-1], atol=1e-5)


def rich_step(x_t, h, scale, weights=(None, None, None, None)):
    """(results, new memory): two results and a memory that is none of them; ``scale`` is from outside of the loop."""
    w, b, w_shown, b_shown = weights
    mixed = nm.Perceptron(nm.Concat([x_t, h], **QUIET), 3, "tanh", w=w, b=b, name="mixed", **QUIET)
    new = nm.Add(nm.MultMerge(mixed, scale, **QUIET), h, **QUIET)
    return [mixed, nm.Perceptron(new, 2, "prelu", w=w_shown, b=b_shown, name="shown", **QUIET)], new


def test_against_one_copy_of_the_step_per_element():
    """Values and gradients of several results, with a memory of its own, weights and an outside value in the step."""
    n = 4
    x, side = nm.Input((n, 2, 4), "r,b,f", name="x", **QUIET), nm.Input((2, 4), "b,f", name="side", **QUIET)
    elements = nm.split(x, "r", n_out=n, strip_singleton_dims=True)
    scale = nm.Perceptron(side, 3, "sig", name="scale", **QUIET)
    memory = nm.InitialState_like(elements[0], 3, init_kwargs=dict(mode="fix-uni", scale=1), name="memory", **QUIET)
    first, new = rich_step(elements[0], memory, scale)
    scanned = nm.Scan(first, memory, new, [x], [elements[0]], **QUIET)
    assert [n.name for n in scanned] == ["scan_out_mixed", "scan_out_shown"]

    params = [p for node in (memory, scale, *first) for p in node.params.values()]
    steps = [first]
    for x_t in elements[1:]:
        results, new = rich_step(x_t, new, scale, params[3:])
        steps.append(results)
    arrays, inputs = [values(n, i) for i, n in enumerate((x, side))], [x.output, side.output]
    for i, node in enumerate(scanned):
        wanted = Function(inputs, [results[i].output for results in steps])(*arrays)
        np.testing.assert_allclose(node(*arrays), wanted, atol=1e-6)

    R = [torch.from_numpy(values(n, 5)) for n in scanned]
    cost = sum((n.output * r).sum() for n, r in zip(scanned, R))
    by_hand = sum((n.output * r[t]).sum() for t, results in enumerate(steps) for n, r in zip(results, R))
    got, wanted = (Function(inputs, c, gradients=params, mode="train")(*arrays) for c in (cost, by_hand))
    assert len(got) == 1 + 7
    for a, b in zip(got, wanted):
        assert np.abs(b).max() > 1e-3
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_without_a_sequence():
    """h' = 2 h: powers of two; the number of steps is then needed."""
    h = nm.Input((1, 2), "b,f", name="h")
    double = nm.Add(h, h, name="double")
    out = nm.Scan(double, h, n_steps=12)
    np.testing.assert_array_equal(out(np.array([[1, 3]]))[:, 0], 2.0 ** np.arange(1, 13)[:, None] * [1, 3])
    with pytest.raises(ValueError, match="n_steps must be given"):
        nm.Scan(double, h)


def test_memory_may_be_the_element_itself():
    """A delay: each element with the one before it."""
    x, first = sequence()
    before = nm.InitialState_like(first, 4, value=np.ones(4))
    pairs = nm.Concat([before, first])
    data = values(x)
    wanted = np.concatenate([np.concatenate([np.ones((1, 2, 4)), data[:-1]]), data], 2)
    np.testing.assert_array_equal(nm.Scan(pairs, before, first, x, first)(data), wanted.astype(np.float32))


def test_memory_is_stretched_at_the_first_step():
    x, first = sequence()
    memory = nm.ValueNode((1, 3), "b,f", apply_train=True, value=[[1, 2, 3]])
    step = nm.GRU(first, memory, 3)
    out, data = nm.Scan(step, memory, in_iterate=x, in_iterate_0=first), values(x)
    h, wanted = np.array([[1, 2, 3], [1, 2, 3]]), []
    for element in data:
        wanted.append(h := naive_gru(element, h, step.w.get_value(), step.b.get_value()))
    np.testing.assert_allclose(out(data), wanted, atol=1e-5)


def test_open_length_and_batch():
    """The number of steps is that of what is given, from call to call."""
    x = nm.Input((None, None, 4), "r,b,f", name="x", **QUIET)
    first = nm.ApplyFunc(x, torch.select, (0, 0), shape=x.shape.delaxis("r"))
    memory = nm.InitialState_like(first, 3, **QUIET)
    step = nm.GRU(first, memory, 3, **QUIET)
    out = nm.Scan(step, memory, in_iterate=x, in_iterate_0=first, **QUIET)
    assert out.shape.shape == [None, None, 3] and out.parent.computational_cost == 0
    data = np.random.default_rng(0).normal(size=(12, 3, 4)).astype(np.float32)
    for n in (1, 5, 12):
        h, wanted = np.zeros((3, 3)), []
        for element in data[:n]:
            h = naive_gru(element, h, step.w.get_value(), step.b.get_value())
            wanted.append(h)
        np.testing.assert_allclose(out(data[:n]), wanted, atol=1e-5)


def test_open_length_with_a_number_of_steps():
    x = nm.Input((None, 2, 4), "r,b,f", name="x", **QUIET)
    first = nm.ApplyFunc(x, torch.select, (0, 0), shape=x.shape.delaxis("r"))
    memory = nm.InitialState_like(first, 3, **QUIET)
    out = nm.Scan(nm.GRU(first, memory, 3, **QUIET), memory, in_iterate=x, in_iterate_0=first, n_steps=3, **QUIET)
    assert out(np.ones((3, 2, 4))).shape == (3, 2, 3)
    with pytest.raises(ValueError, match=r"'scan': 3 steps need sequences of length 3 on axis r, got \[4\]"):
        out(np.ones((4, 2, 4)))


# -- gradients ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_gradients_against_finite_differences(cell, float64):
    x, _, _, out = recurrent(cell, 3)
    params = list(out.all_params.values())
    module, _, _ = cut([out.output], [x.output, *[p.as_expression_of(out.model.graph) for p in params]])
    data = torch.tensor(values(x), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *v: module(*v)[0], [data, *[p.tensor for p in params]])


def test_symbolic_gradients_within_a_step():
    """h' = h - 0.1 d(sum (h - x)^2)/dh: each step is one of gradient descent."""
    x, first = sequence(4)
    h = nm.Input((2, 4), "b,f", name="h")
    cost = ((h.output - first.output) ** 2).sum()
    new = nm.FromTensor(h.output - 0.1 * nm.graphutils.grad(cost, h.output), h.shape, [h, first], name="new")
    out = nm.Scan(new, h, in_iterate=x, in_iterate_0=first)
    data, state = values(x), values(h, 1)
    wanted = []
    for element in data:
        wanted.append(state := state - 0.2 * (state - element))
    np.testing.assert_allclose(out(values(h, 1), data), wanted, atol=1e-5)


# -- modes ----------------------------------------------------------------------------------------------
def test_dropout_draws_anew_at_each_step():
    """Values are doubled or dropped: with a mask of its own each step drops half of what is left."""
    h = nm.Input((1, 4000), "b,f", name="h")
    step = nm.Perceptron(h, 4000, "lin", w=np.eye(4000), b=np.zeros(4000), dropout_rate=0.5)
    out = nm.Scan(step, h, n_steps=4)
    ones = np.ones((1, 4000))
    np.testing.assert_array_equal(out(ones), np.ones((4, 1, 4000)))
    kept = out(ones, mode="train")[:, 0]
    for t, row in enumerate(kept, start=1):
        assert set(np.unique(row)) == {0, 2 ** t}
        assert abs((row > 0).mean() - 0.5 ** t) < 0.04
    assert not np.array_equal(out(ones, mode="train")[:, 0], kept)


def test_dropout_that_is_switched_on_later():
    """A layer that was built without dropout gets some, in a function that is compiled already."""
    h = nm.Input((1, 100), "b,f", name="h")
    step = nm.Perceptron(h, 100, "lin", w=np.eye(100), b=np.zeros(100))
    out, ones = nm.Scan(step, h, n_steps=10), np.ones((1, 100))
    np.testing.assert_array_equal(out(ones, mode="train"), np.ones((10, 1, 100)))
    step.dropout_rate.set_value(0.5)
    assert 0 < (out(ones, mode="train")[1] == 0).mean() < 1
    np.testing.assert_array_equal(out(ones), np.ones((10, 1, 100)))


def test_batch_normalisation_within_a_step():
    """Statistics of each step in training; the running averages are those of the first, and serve all in prediction."""
    x, first = sequence(3, batch=6)
    h = nm.InitialState_like(first, 4)
    step = nm.Perceptron(nm.Add(first, h), 4, "lin", w=np.eye(4), batch_normalisation="train", name="step")
    out = nm.Scan(step, h, in_iterate=x, in_iterate_0=first)
    target = nm.Input_like(out)
    loss = nm.AggregateLoss(nm.SquaredLoss(out, target))
    model = out.model
    model.designate_nodes(x, target, loss, out)
    data, b = 3 * values(x), step.b.get_value()

    def run(statistics):
        state, steps = np.zeros((6, 4)), []
        for element in data:
            mean, std = statistics(element + state)
            steps.append(state := (element + state - mean) / std + b)
        return steps
    np.testing.assert_allclose(out(data, mode="train"), run(lambda v: (v.mean(0), v.std(0))), atol=1e-4)
    model.lr = 0.0
    model.trainingstep(data, np.zeros(out.shape.shape))
    np.testing.assert_allclose(step.mean.get_value(), 0.0005 * data[0].mean(0), rtol=1e-4)
    np.testing.assert_allclose(out(data), run(lambda v: (data[0].mean(0), data[0].std(0))), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("cell, activation", [("GRU", "tanh"), ("GRU", "maxout 2"), ("GRU", "prelu"), ("LSTM", "maxout 2"),
                                              ("LSTM", "prelu")])
def test_training_learns_to_sum(cell, activation):
    """A loss on the last step trains weights and initial state through the loop."""
    x, memory, _, out = recurrent(cell, 6, activation, scan=dict(last_only=True), batch=32, n_f=1)
    prediction = nm.Perceptron(out, 1, "lin")
    target = nm.Input_like(prediction, name="target")
    model = out.model
    model.designate_nodes(x, target, nm.AggregateLoss(nm.SquaredLoss(prediction, target)), prediction)
    assert [p.name for p in model.trainable_params][:1] == ["initial_state_value"]
    model.set_opt_meta_params("AdamW", dict(lr=0.02))
    rng, before, losses = np.random.default_rng(0), memory.get_value(), []
    for _ in range(150):
        data = rng.uniform(-0.5, 0.5, x.shape.shape).astype(np.float32)
        losses.append(model.trainingstep(data, data.sum(0), optimiser="AdamW")[0])
    assert np.mean(losses[-20:]) < 0.2 * np.mean(losses[:5])
    assert np.abs(memory.get_value() - before).max() > 1e-3


# -- compiling ------------------------------------------------------------------------------------------
def programs_of(out, params):
    """Sizes of the programs that a compiler is given for a function of ``out``, forward."""
    function = Function([n.output for n in out.input_nodes], (out.output ** 2).sum(), mode="train", gradients=params)
    data, sizes = values(out.input_nodes[0]), []
    wanted = function(data)
    function._keep_in_python()

    def compiler(module, _):
        sizes.append(len(module.graph.nodes))
        return module.forward
    torch._dynamo.reset()
    function._run = torch.compile(function._module, backend=compiler, dynamic=False)
    for a, b in zip(wanted, function(data)):
        np.testing.assert_allclose(b, a, rtol=1e-5)
    return sizes


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
@pytest.mark.parametrize("unroll, n_programs", [(True, 4), (False, 3)])
def test_the_number_of_steps_does_not_matter_to_a_compiler(unroll, n_programs):
    """Before the loop, one step, eight steps, after the loop: however often they are repeated."""
    sizes = []
    for n in (20, 60):
        _, _, _, out = recurrent("LSTM", n, scan=dict(unroll_scan=unroll))
        sizes.append(programs_of(out, list(out.all_params.values())))
    assert sizes[0] == sizes[1] and len(sizes[0]) == n_programs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_inductor_agrees_with_eager():
    x, first = sequence(4)
    h = nm.InitialState_like(first, 4)
    out = nm.Scan(nm.Perceptron(nm.Add(h, first), 4, "tanh"), h, in_iterate=x, in_iterate_0=first, unroll_scan=False)
    function = Function([x.output], (out.output ** 2).mean(), mode="train", gradients=list(out.all_params.values()))
    data = values(x)
    wanted = function(data)
    config.compile_backend = "inductor"
    for a, b in zip(wanted, function(data)):
        np.testing.assert_allclose(b, a, atol=1e-5)
    assert function.backend == "inductor" and function.kernels > 0


# -- graph and files ------------------------------------------------------------------------------------
def test_cost_counts_the_step_alone():
    """What is before the loop is not repeated."""
    x, first = sequence(5)
    wide = nm.Perceptron(nm.Input((2, 50), "b,f", **QUIET), 3, **QUIET)
    memory = nm.Perceptron(first, 3, **QUIET)
    step = nm.GRU(nm.Concat([first, wide], **QUIET), memory, 3, **QUIET)
    out = nm.Scan(step, memory, in_iterate=x, in_iterate_0=first, **QUIET)
    assert out.parent.computational_cost == 4 * step.computational_cost > 0
    assert out.all_computational_cost == 5 * step.computational_cost + wide.computational_cost + memory.computational_cost


def test_parameters_outside_of_the_step_are_known():
    """Weights that reach the loop as values are trained through it, those within it too, each once."""
    _, _, cell, out = recurrent("LSTM")
    assert list(out.all_params) == ["initial_state_value", "cell_w", "cell_b"]
    step = Step([n.output for n in out.parent.starts], [cell.output, cell.output], 1, "predict")
    known = out.model.graph.params
    assert [known[e.node.target] for e in step.others] == [cell.w, cell.b] and not list(step.program().parameters())


def test_saved_with_other_sizes(tmp_path):
    """One loop behind all results in the loaded model, with another batch size; the length is that of the sequence."""
    x, first = sequence(5)
    h = nm.InitialState_like(first, 3)
    step = nm.GRU(first, h, 3, "maxout 2", name="step")
    shown = nm.Perceptron(step, 2, "prelu", name="shown")
    results = nm.Scan([step, shown], h, step, x, first, unroll_scan=False, name="loop")
    model = step.model
    model.designate_nodes(x, prediction_node=results[1])
    model.save(tmp_path / "m.mdl")
    loaded = nm.model.modelload(tmp_path / "m.mdl", imposed_batch_size=7)
    a, b = (loaded[f"scan_out_{n}"] for n in ("step", "shown"))
    assert a.parent is b.parent is loaded["loop"] and not a.parent.unroll_scan
    assert [n for n in loaded if isinstance(loaded[n], ScanN)] == ["loop"]
    assert b.shape.shape == [5, 7, 2]
    data = np.repeat(values(x), 4, axis=1)[:, :7]
    np.testing.assert_allclose(b(data)[:, ::4], results[1](data[:, ::4]), atol=1e-6)


def test_names_and_prints():
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("elektronn2log").addHandler(handler)
    h = nm.Input((1, 2), "b,f", name="h")
    double = nm.Add(h, h, name="double")
    out = nm.Scan(double, h, n_steps=3, name="powers")
    again, = nm.Scan([double], h, n_steps=3, last_only=True, print_repr=False)
    logging.getLogger("elektronn2log").removeHandler(handler)
    assert (out.name, out.parent.name, again.name, again.parent.name) == ("scan_out_double", "powers", "scan_out_double1",
                                                                         "scan")
    assert any("<ScanOut-Node> 'scan_out_double'" in m and "Out:[(3,r), (1,b), (2,f)]" in m for m in messages)
    assert "scan(" in out.output.code
