"""Gradients of every node of the registry in double precision against finite differences, on the samples of
``test_family``. A class whose values are not differentiable must be listed, and must be it."""
import pytest
import torch
from helpers import check_gradients
from test_family import BASES, CLASSES, SAMPLES, arrays_for, build, settle
from torch.autograd.gradcheck import GradcheckError

from elektronn2.neuromancer.computations import by_mode

pytestmark = pytest.mark.usefixtures("float64")

NOT_DIFFERENTIABLE = {  # class: why
    "Classification": "class ids", "_Errors": "a share of wrong class ids", "OneHot": "of class ids",
    "Affinities": "of object ids", "SignedDistance": "of class ids"}
CONSTANT_BY_DEFINITION = {"MultinoulliNLL4": "weakness: the softened target is a constant for the gradient"}
ALL = [(name, make) for name, makes in SAMPLES.items() for make in makes]
samples = pytest.mark.parametrize(("name", "make"), ALL, ids=[
    f"{name}{sum(n == name for n, _ in ALL[:i])}" for i, (name, _) in enumerate(ALL)])


def differentiable(node):
    """Whether there is a floating-point input or a trained parameter."""
    inputs = any(n.output.dtype.startswith("float") for n in node.input_nodes)
    return node.output.dtype.startswith("float") and (inputs or any(p.apply_train for p in node.all_params.values()))


def doubles_for(node):
    return [a.astype("float64") if a.dtype.kind == "f" else a for a in arrays_for(node)]


def modes(node):
    """Those in which the values of the node can differ."""
    differ = any(n.target is by_mode for n in node.output.tracer.graph.nodes)
    return ("train", "predict") if differ else ("predict",)


@samples
def test_gradients(name, make, monkeypatch, request):
    """With respect to all floating-point sources and trained parameters, for a batch of one or two."""
    node = build(make, 1 if name == "FragmentsToDense" else 2)
    settle(node.model)
    if name in NOT_DIFFERENTIABLE:
        expression = node.output.meta
        assert not expression.is_floating_point() or not differentiable(node) or name == "_Errors"
        return
    if not differentiable(node):
        pytest.skip("this sample takes integers")
    if any(f"[{sample}]" in request.node.name for sample in CONSTANT_BY_DEFINITION):
        with pytest.raises(GradcheckError):
            check_gradients(node, doubles_for(node), "predict")
        return
    for draw in ("rand_like", "randn_like"):  # the same at every call
        monkeypatch.setattr(torch, draw, lambda x: torch.full_like(x, 0.5))
    for mode in modes(node):
        check_gradients(node, doubles_for(node), mode)


def test_every_class_is_tested():
    """Against the registry: a class has samples, of which one at least can be differentiated, or is in the list."""
    for name in CLASSES:
        if name in BASES or name in NOT_DIFFERENTIABLE:
            continue
        assert any(differentiable(build(make, 1)) for make in SAMPLES[name]), name
