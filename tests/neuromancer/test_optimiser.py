"""Beyond the update rules (see test_nodes.py): going back to earlier parameters."""
import numpy as np
import pytest

from elektronn2 import neuromancer as nm


def model():
    x = nm.Input((4, 3), "b,f", name="x")
    y = nm.Perceptron(x, 2, activation_func="lin")
    m = nm.model_manager.getmodel()
    m.designate_nodes(x, loss_node=nm.AggregateLoss(y), prediction_node=y)
    m.lr = 0.1
    return m


def test_repair_goes_back_up_to_three_steps(rng):
    m = model()
    x = rng.random((4, 3), np.float32)
    with pytest.raises(ValueError, match="keep_history = True"):
        m.optimiser("SGD").repair()
    m.optimiser("SGD").keep_history = True
    seen = []
    for _ in range(5):
        seen.append(m.get_param_values(as_list=True))
        m.trainingstep(x)
    m.optimiser("SGD").repair()
    for a, b in zip(m.get_param_values(as_list=True), seen[2]):
        assert np.array_equal(a, b), "the parameters before the last three steps"
    assert m.optimiser("SGD").state == {}
    m.trainingstep(x)
    m.optimiser("SGD").repair()
    for a, b in zip(m.get_param_values(as_list=True), seen[2]):
        assert np.array_equal(a, b), "with fewer steps remembered: the oldest"
