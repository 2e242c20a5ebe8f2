"""Shared parameters: what they hold, what they refuse, and what functions and optimisers see of them."""
import numpy as np
import pytest

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer.function import make_func


def test_parameters(rng):
    """The value of each kind, as given or made, in expressions, and after it was set."""
    value = rng.normal(size=(2, 3)).astype("float32")
    x = nm.Input((4, 2), "b,f", name="x", print_repr=False)
    a = rng.normal(size=(4, 2)).astype("float32")
    weight = nm.VariableWeight((2, 3), dict(mode="const", scale=0.5), name="w")
    assert (weight.get_value() == 0.5).all()
    params = nm.VariableParam(value, "p"), nm.VariableWeight(value=value, name="w"), nm.ConstantParam(value, "c"), weight
    for param in params:
        f = make_func([x.output], x.output @ param)
        np.testing.assert_allclose(f(a), a @ param.get_value(), rtol=1e-5)
        if param.constant:
            with pytest.raises(RuntimeError, match="constant"):
                param.set_value(value + 1)
            continue
        param.set_value(value + 1)
        np.testing.assert_array_equal(param.get_value(), value + 1)
        np.testing.assert_allclose(f(a), a @ (value + 1), rtol=1e-5)  # the compiled function sees the new value


def test_what_is_trained():
    """Names and flags by kind."""
    assert nm.VariableParam(1.0, "p").apply_train and nm.VariableParam(1.0, "p").apply_reg
    still = nm.VariableParam(1.0, "p", apply_train=False, apply_reg=False)
    assert still.name == "p_noTrain"
    still.updates = "an expression"
    constant = nm.ConstantParam(1.0, "c")
    assert constant.constant and not constant.apply_train and not constant.apply_reg
    with pytest.raises(ValueError, match="'p'.*update"):
        nm.VariableParam(1.0, "p").updates = "an expression"


@pytest.mark.parametrize("make", [
    lambda: nm.VariableWeight(name="w"), lambda: nm.VariableWeight((2,), name="w"),
    lambda: nm.VariableWeight((2,), value=np.ones(3), name="w"), lambda: nm.VariableParam(name="w"),
    lambda: nm.VariableParam(np.ones(2), "w").set_value(np.ones(3))])
def test_refused(make):
    """Errors that name the parameter."""
    with pytest.raises(ValueError, match="'w'"):
        make()
