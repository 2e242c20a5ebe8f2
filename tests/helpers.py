"""Sources, random parameters, and the comparison of a node with a reference, for tests of nodes (in float64)."""
import numpy as np
import torch

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer.function import cut


def source(shape, tags, **kwargs):
    return nm.Input(shape, tags, print_repr=False, **kwargs)


def randomise(node, rng):
    """New random parameters, so that no initial value hides an error. Returns name -> array."""
    for name, p in node.params.items():
        if p.apply_train:
            p.set_value(rng.uniform(0.5, 1.5, p.shape) * rng.choice([-1, 1], p.shape))
        elif name == "mean":
            p.set_value(rng.normal(size=p.shape))
        elif name == "std":
            p.set_value(rng.uniform(0.5, 2, p.shape))
    return node.get_param_values()


def check(node, wanted, *arrays, mode="predict", gradients=True):
    """Value of ``node`` for ``arrays`` within 1e-10 of ``wanted``, of the declared shape and dtype, and gradients."""
    got = node(*arrays, mode=mode)
    assert got.dtype == np.asarray(wanted).dtype
    assert str(got.dtype) == node.output.dtype
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-10)
    assert len(got.shape) == len(node.shape)
    assert all(n in (None, m) for n, m in zip(node.shape, got.shape)), (node.shape, got.shape)
    if gradients:
        check_gradients(node, arrays, mode)


def check_gradients(node, arrays, mode="predict", inputs=True):
    """Gradients with respect to floating-point inputs (unless not wanted) and trained parameters, against finite
    differences."""
    module, _, _ = cut([node.output], [n.output for n in node.input_nodes], mode)
    params = {k: p for k, p in module.named_parameters() if p.requires_grad}
    tensors = [torch.from_numpy(np.array(a)) for a in arrays]
    n = len(tensors)
    tensors = [t.requires_grad_(inputs and t.is_floating_point()) for t in tensors]
    tensors += [p.detach().clone().requires_grad_() for p in params.values()]

    def function(*values):
        return torch.func.functional_call(module, dict(zip(params, values[n:])), values[:n])[0]
    if not any(t.requires_grad for t in tensors):
        raise AssertionError(f"{node.name} has nothing to differentiate by")
    assert torch.autograd.gradcheck(function, tensors)
