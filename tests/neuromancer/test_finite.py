"""NaN and infinite values: refused as weights, and found where they begin."""
import numpy as np
import pytest
import torch

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer import serialize
from elektronn2.neuromancer.variables import VariableParam


def model():
    x = nm.Input((2, 3), "b,f", name="x")
    first = nm.Perceptron(x, 4, activation_func="lin", name="first")
    root = nm.ApplyFunc(first, torch.sqrt, name="root")
    last = nm.Perceptron(root, 2, activation_func="lin", name="last")
    loss = nm.AggregateLoss(last, name="loss")
    m = nm.model_manager.getmodel()
    m.designate_nodes(x, loss_node=loss, prediction_node=last)
    first.set_param_values(dict(w=np.full((3, 4), 0.5), b=np.zeros(4)))
    return m


ONES = np.ones((2, 3), "float32")


def test_weights_are_finite():
    m = model()
    w = m["first"].params["w"]
    before = w.get_value()
    bad = before.copy()
    bad[0, 1:3] = np.nan, -np.inf
    message = "Parameter 'first_w' cannot be NaN or infinite; 2 of 12 given values are"
    for attempt in (lambda: w.set_value(bad), lambda: m.set_param_values({"first": {"w": bad}}),
                    lambda: m["first"].set_param_values({"w": bad}), lambda: VariableParam(bad, "first_w"),
                    lambda: nm.Perceptron(m["x"], 4, w=bad, name="first")):
        with pytest.raises(ValueError, match=message.replace("first_w", "first\\d?_w")):
            attempt()
    np.testing.assert_array_equal(w.get_value(), before)


def test_files_are_finite(tmp_path):
    m = model()
    m.save(tmp_path / "good.mdl")
    good = (tmp_path / "good.mdl").read_bytes()
    m["first"].b.tensor.data[2] = torch.inf
    with pytest.raises(ValueError, match=r"NaN or infinite weights .* parameter 'b' of node 'first' \(1 of 4 values\)"):
        m.save(tmp_path / "good.mdl")
    assert (tmp_path / "good.mdl").read_bytes() == good
    serialize.write(*serialize.describe(m), tmp_path / "bad.mdl")
    with pytest.raises(ValueError, match=r"at node 'first': Parameter 'first_b' cannot be NaN or infinite; 1 of 4"):
        nm.model.modelload(tmp_path / "bad.mdl", allow_functions=True)


def test_predictions_name_the_weights_to_blame():
    m = model()
    with_nan = ONES.copy()
    with_nan[0] = np.nan
    assert np.isnan(m.predict(with_nan)[0]).all() and np.isfinite(m.predict(with_nan)[1]).all()
    m["last"].w.tensor.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"parameter 'w' of node 'last' \(1 of 8 values\)"):
        m.predict(ONES)


def test_dense_prediction_names_the_weights_to_blame():
    x = nm.Input((1, 1, 8, 8), "b,f,x,y", name="x")
    conv = nm.Conv(x, 2, (3, 3), name="conv")
    m = nm.model_manager.getmodel()
    m.designate_nodes(x, prediction_node=conv)
    conv.w.tensor.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"parameter 'w' of node 'conv' \(9 of 18 values\)"):
        m.predict_dense(np.zeros((1, 2, 20, 20), "float32"))


def test_find_nonfinite():
    m = model()
    assert m.find_nonfinite(ONES) is None
    some = ONES.copy()
    some[1, 2] = np.nan
    assert m.find_nonfinite(some) == "node 'first' (4 of 8 values), because of input 'x' (1 of 6 values)"
    assert m.find_nonfinite(-ONES) == "node 'root' (8 of 8 values), although its inputs and parameters are finite"
    assert m.find_nonfinite(0 * ONES) == "the gradient of first_w (12 of 12 values)"
    m["last"].b.tensor.data[0] = torch.nan
    assert m.find_nonfinite(ONES) == ("node 'last' (2 of 4 values), because of parameter 'b' of node 'last' "
                                      "(1 of 2 values)")


def test_find_nonfinite_in_a_weight_without_effect_and_a_shared_one():
    x = nm.Input((2, 3), "b,f", name="x")
    a = nm.Perceptron(x, 3, activation_func="lin", name="a")
    b = nm.Perceptron(a, 3, activation_func="lin", w=a.w, name="b")
    hidden = nm.ApplyFunc(b, torch.nan_to_num, name="hidden")
    m = nm.model_manager.getmodel()
    m.designate_nodes(x, loss_node=nm.AggregateLoss(hidden), prediction_node=hidden)
    a.b.tensor.data[:] = torch.nan
    assert m.find_nonfinite(ONES).startswith("node 'a' (6 of 6 values), because of parameter 'b' of node 'a' (3 of 3")
    m.reset_optimisers()
    with pytest.raises(ValueError, match="has no loss_node"):
        nm.model_manager.newmodel(None).find_nonfinite(ONES)
