"""Beyond the update rules (see test_nodes.py): what all of them share. Reference: torch's own, in float64."""
import copy

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer.optimiser import DEFAULTS, OPTIMISERS, check_hyper

SHAPE = (4, 3)


def model(name=None):
    nm.model_manager.newmodel(name)
    x = nm.Input(SHAPE, "b,f", name="x", print_repr=False)
    hidden = nm.Perceptron(x, 5, activation_func="tanh", name="hidden", print_repr=False)
    y = nm.Perceptron(hidden, 2, activation_func="lin", name="y", print_repr=False)
    m = nm.model_manager.getmodel()
    m.designate_nodes(x, loss_node=nm.AggregateLoss(y, print_repr=False), prediction_node=y)
    m.lr = 0.1
    return m


def values(m):
    return m.get_param_values(as_list=True)


def as_parameters(m):
    """Copies of the trainable parameters, for torch's optimisers."""
    return [torch.nn.Parameter(torch.from_numpy(p.get_value())) for p in m.trainable_params]


def follow(m, params, batches, step, optimiser="SGD"):
    """Train the model, and the copies with its gradients and ``step()``; yields after each step, having compared."""
    for batch in batches:
        for p, g in zip(params, m.gradients(batch), strict=True):
            p.grad = torch.from_numpy(g)
        step()
        m.trainingstep(batch, optimiser=optimiser)
        for p, own in zip(params, m.trainable_params, strict=True):
            np.testing.assert_allclose(own.get_value(), p.detach(), rtol=0, atol=1e-12)
        yield


def run(*args, **kwargs):
    for _ in follow(*args, **kwargs):
        pass


# -- Nesterov ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mom", [0.0, 0.8])
def test_nesterov_is_torchs(float64, rng, mom):
    m = model()
    m.set_opt_meta_params("SGD", dict(lr=0.1, mom=mom, nesterov=True))
    params = as_parameters(m)
    theirs = torch.optim.SGD(params, lr=0.1, momentum=mom, nesterov=mom > 0)
    run(m, params, rng.normal(size=(6, *SHAPE)), theirs.step)


def test_nesterov_with_weight_decay(float64, rng):
    """The decay stands outside the momentum; biases have none."""
    m = model()
    m.set_opt_meta_params("SGD", dict(lr=0.1, mom=0.8, wd=0.05, nesterov=True))
    params = as_parameters(m)
    decays = [0.05 * (not p.name.endswith("_b")) for p in m.trainable_params]
    assert len(set(decays)) == 2
    memory = [np.zeros(p.shape) for p in params]

    def step():
        for i, (p, decay) in enumerate(zip(params, decays)):
            g, before = p.grad.numpy(), p.detach().numpy().copy()
            memory[i] = g + 0.8 * memory[i]
            p.data = torch.from_numpy(before - 0.1 * (g + 0.8 * memory[i] + decay * before))
    run(m, params, rng.normal(size=(6, *SHAPE)), step)


# -- clipping ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("clip_value, clip_norm", [(0.02, None), (None, 0.05), (0.02, 0.05), (None, 100.0)])
def test_clipping_is_torchs(float64, rng, clip_value, clip_norm):
    m = model()
    m.set_opt_meta_params("SGD", dict(lr=0.5, mom=0.6, clip_value=clip_value, clip_norm=clip_norm))
    params = as_parameters(m)
    theirs = torch.optim.SGD(params, lr=0.5, momentum=0.6)
    norms = []

    def step():
        if clip_value:
            torch.nn.utils.clip_grad_value_(params, clip_value)
        if clip_norm:
            norms.append(float(torch.nn.utils.clip_grad_norm_(params, clip_norm)))
        theirs.step()
    run(m, params, rng.normal(size=(6, *SHAPE)), step)
    assert not norms or (min(norms) > clip_norm) == (clip_norm < 1), "the limit was meant to matter, or not to"


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_rule_clips_before_anything_else(float64, rng, optimiser):
    """A step from gradients that are cut is the step from gradients that were cut before."""
    cut, plain = model(), model()
    plain.set_param_values(values(cut))
    gradients = [torch.from_numpy(rng.normal(size=p.shape)) for p in cut.trainable_params]
    cut.set_opt_meta_params(optimiser, dict(clip_value=0.3))
    copies = [g.clone() for g in gradients]
    for _ in range(2):
        cut.optimiser(optimiser).apply(gradients)
        plain.optimiser(optimiser).apply([g.clamp(-0.3, 0.3) for g in gradients])
    for a, b in zip(values(cut), values(plain)):
        np.testing.assert_array_equal(a, b)
    for g, kept in zip(gradients, copies):
        assert torch.equal(g, kept), "gradients belong to the caller"


# -- averages ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("optimiser, theirs", [("SGD", None), ("AdamW", torch.optim.AdamW)])
def test_averages_are_torchs(float64, rng, optimiser, theirs):
    m = model()
    m.set_opt_meta_params(optimiser, dict(lr=0.05, mom=0.8, ema=0.7))
    params = as_parameters(m)
    theirs = (torch.optim.SGD(params, 0.05, momentum=0.8) if theirs is None
              else theirs(params, 0.05, betas=(0.8, 0.999), weight_decay=0))
    averaged = AveragedModel(torch.nn.ParameterList(params), multi_avg_fn=get_ema_multi_avg_fn(0.7))
    for _ in follow(m, params, rng.normal(size=(7, *SHAPE)), theirs.step, optimiser):
        averaged.update_parameters(torch.nn.ParameterList(params))
        with m.averaged_weights():
            for p, wanted in zip(m.trainable_params, averaged.module):
                np.testing.assert_allclose(p.get_value(), wanted.detach(), rtol=0, atol=1e-12)


def test_averages_are_used_only_on_request(rng, tmp_path):
    m = model()
    m.ema = 0.5
    x = rng.normal(size=SHAPE).astype("float32")
    with pytest.raises(ValueError, match="set the hyper-parameter ema"), m.averaged_weights():
        pass
    for _ in range(3):
        m.trainingstep(x)
    before, plain = values(m), m.predict(x)
    with pytest.raises(ZeroDivisionError), m.averaged_weights():
        with m.averaged_weights():
            averaged = m.predict(x)
        m.save(tmp_path / "averaged.mdl")
        assert np.array_equal(m.predict(x), averaged), "still averaged when an inner block ends"
        with pytest.raises(RuntimeError, match="leave it first"):
            m.trainingstep(x)
        raise ZeroDivisionError
    for a, b in zip(values(m), before):
        np.testing.assert_array_equal(a, b)
    assert np.array_equal(m.predict(x), plain) and np.abs(averaged - plain).max() > 1e-3
    np.testing.assert_array_equal(nm.model.modelload(tmp_path / "averaged.mdl").predict(x), averaged)
    m.ema = None
    m.trainingstep(x)
    assert not m.averages, "averages of long ago are not kept"


# -- hyper-parameters ------------------------------------------------------------------------------------
def test_models_share_nothing(rng):
    a, b = model("a"), model("b")
    b.set_param_values(values(a))
    single = copy.deepcopy(values(b))
    a.set_opt_meta_params("Adam", dict(lr=0.3, mom=0.1, wd=0.2, beta2=0.5, clip_value=1.0, clip_norm=2.0, ema=0.9))
    a.nesterov = True
    assert (b.lr, {k: v for k, v in b.meta_params.items() if k != "lr"}) == (
        0.1, {k: v for k, v in DEFAULTS.items() if k != "lr"})
    x = rng.normal(size=SHAPE).astype("float32")
    a.trainingstep(x, optimiser="Adam")
    assert b.optimiser("Adam").t == 0 and b.optimiser("Adam").state == {} and not b.averages and a.averages
    for p, q in zip(values(b), single):
        np.testing.assert_array_equal(p, q)


def test_rules_refuse_what_they_do_not_have():
    m = model()
    for optimiser, key, hint in (("Adam", "nesterov", ""), ("SGD", "beta2", ""), ("SGD", "nestorov", "'nesterov'"),
                                 ("AdamW", "clipnorm", "'clip_norm'")):
        before = dict(m.meta_params)
        with pytest.raises(KeyError, match=f"{optimiser} has no hyper-parameter '{key}'.*{hint}"):
            m.set_opt_meta_params(optimiser, {"lr": 0.5, key: 1.0})
        assert m.meta_params == before, "all or nothing"


@pytest.mark.parametrize("name, good, bad", [
    ("lr", [0, 1, np.float32(2)], [-1, None, True, "1", np.nan]), ("mom", [0, 0.9], [1, -0.1, None]),
    ("beta2", [0.99], [1.0, None]), ("ema", [None, 0.999], [0, 1, -1, True]),
    ("clip_norm", [None, 1, 5.5], [0, -1, "a", np.inf]),
    ("clip_value", [None, 0.1], [0, -1, False]), ("nesterov", [True, False], [1, None, "yes"])])
def test_values_of_hyper_parameters(name, good, bad):
    for value in good:
        assert check_hyper(name, value) == value
    for value in bad:
        with pytest.raises(ValueError, match=f"Hyper-parameter '{name}' must be"):
            check_hyper(name, value)


# -- what is not finite -----------------------------------------------------------------------------------
def test_a_gradient_that_is_not_finite_changes_nothing():
    nm.model_manager.newmodel(None)
    x = nm.Input(SHAPE, "b,f", name="x")
    first = nm.Perceptron(x, 2, activation_func="lin", name="first")
    root = nm.ApplyFunc(first, torch.sqrt, name="root")
    other = nm.Perceptron(x, 2, activation_func="lin", name="other")
    m = nm.model_manager.getmodel()
    loss = nm.AggregateLoss([nm.AggregateLoss(root), nm.AggregateLoss(other)])
    m.designate_nodes(x, loss_node=loss, prediction_node=first)
    m["first"].set_param_values(dict(w=np.ones((3, 2)), b=np.zeros(2)))
    before = values(m)
    with pytest.raises(FloatingPointError, match="gradient of first_w, first_b is NaN or infinite, although the loss"):
        m.trainingstep(np.zeros(SHAPE, "float32"))
    for a, b in zip(values(m), before):
        np.testing.assert_array_equal(a, b)
    assert m.optimiser("SGD").t == 0
    m.trainingstep(np.ones(SHAPE, "float32"))
    assert m.optimiser("SGD").t == 1


# -- going back -------------------------------------------------------------------------------------------
def test_repair_goes_back_up_to_three_steps(rng):
    m = model()
    m.ema = 0.9
    x = rng.random(SHAPE, np.float32)
    with pytest.raises(ValueError, match="keep_history = True"):
        m.optimiser("SGD").repair()
    m.optimiser("SGD").keep_history = True
    seen = []
    for _ in range(5):
        seen.append(values(m))
        m.trainingstep(x)
    m.optimiser("SGD").repair()
    for a, b in zip(values(m), seen[2]):
        assert np.array_equal(a, b), "the parameters before the last three steps"
    assert m.optimiser("SGD").state == {} and not m.averages
    m.trainingstep(x)
    m.optimiser("SGD").repair()
    for a, b in zip(values(m), seen[2]):
        assert np.array_equal(a, b), "with fewer steps remembered: the oldest"
