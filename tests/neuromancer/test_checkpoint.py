"""Training that is broken off, saved, loaded and continued, against training without a break."""
import json

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

from elektronn2 import neuromancer as nm
from elektronn2.config import config
from elektronn2.errors import ModelFileError
from elektronn2.neuromancer import serialize
from elektronn2.neuromancer.optimiser import OPTIMISERS


def net():
    nm.model_manager.newmodel(None)
    x = nm.Input((2, 1, 4, 10, 10), "b,f,z,x,y", name="x", print_repr=False)
    conv = nm.Conv(x, 3, (2, 3, 3), (1, 2, 2), batch_normalisation="train", name="conv", print_repr=False)
    shared = nm.Conv(conv, 3, (1, 3, 3), conv_mode="same", name="one", print_repr=False)
    again = nm.Conv(shared, 3, (1, 3, 3), conv_mode="same", activation_func="lin", name="two", w=shared.w, print_repr=False)
    probs = nm.Softmax(again, n_class=3, name="probs", print_repr=False)
    t = nm.Input_like(probs, "int16", name="t", override_f=1, print_repr=False)
    loss = nm.AggregateLoss(nm.MultinoulliNLL(probs, t, target_is_sparse=True, print_repr=False), print_repr=False)
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, t, loss, probs)
    return model


def batches(rng, n=6):
    return [(rng.random((2, 1, 4, 10, 10), np.float32), rng.integers(0, 3, (2, 1, 3, 4, 4)).astype("int16"))
            for _ in range(n)]


HYPER = {"SGD": dict(lr=0.05, mom=0.8, nesterov=True), "AdaGrad": dict(lr=0.05), "AdaDelta": dict(lr=0.5),
         "Adam": dict(lr=0.02, beta2=0.95), "AdamW": dict(lr=0.02, mom=0.8)}


def train(model, rule, data):
    for batch in data:
        model.trainingstep(*batch, optimiser=rule)


def assert_same(a, b):
    for name, p, q in zip(a.loss_node.all_params, a.loss_node.all_params.values(), b.loss_node.all_params.values(),
                          strict=True):
        np.testing.assert_array_equal(p.get_value(), q.get_value(), err_msg=name)


@pytest.mark.parametrize("rule", [k for k, c in OPTIMISERS.items() if c.__module__.startswith("elektronn2.")])
def test_a_break_changes_no_bit(rule, rng, tmp_path):
    data = batches(rng)
    model = net()
    model.set_opt_meta_params(rule, dict(HYPER[rule], wd=0.01, clip_norm=0.5, ema=0.8))
    train(model, rule, data[:3])
    model.save(tmp_path / "checkpoint.mdl", optimiser_state=True)
    train(model, rule, data[3:])
    after = nm.model.modelload(tmp_path / "checkpoint.mdl")
    assert after.iterations == 3 and after.meta_params == model.meta_params and list(after.used_optimisers) == [rule]
    train(after, rule, data[3:])
    assert_same(model, after)
    with model.averaged_weights(), after.averaged_weights():
        assert_same(model, after)
    assert after.iterations == 6 and after.loss_smooth == model.loss_smooth and len(after._losses) == 6
    assert after.elapsed_time > model.elapsed_time / 4 and after.optimiser(rule).t == 6


@pytest.mark.parametrize("rule", HYPER)
def test_memory_may_be_laid_out_anew_in_between(rule, rng, tmp_path):
    """State and averages follow the parameters: kernels that walk memory would mix elements otherwise."""
    data, results = batches(rng), []
    net().save(tmp_path / "start.mdl")
    for formats in (["contiguous"] * 3, ["contiguous", "channels_last", "contiguous"]):
        model = nm.model.modelload(tmp_path / "start.mdl")
        model.set_opt_meta_params(rule, dict(HYPER[rule], ema=0.8))
        for memory_format, part in zip(formats, (data[:2], data[2:4], data[4:])):
            config.memory_format = memory_format
            train(model, rule, part)
        with model.averaged_weights():
            results.append(model.get_param_values(as_list=True))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(a).max())


def test_without_state_training_begins_anew(rng, tmp_path):
    """So that the test above is not passed by files that hold nothing."""
    data = batches(rng)
    model = net()
    model.set_opt_meta_params("AdamW", dict(lr=0.02, ema=0.8))
    plain = model.save(tmp_path / "untrained.mdl")
    train(model, "AdamW", data[:3])
    model.save(tmp_path / "plain.mdl")
    model.save(tmp_path / "checkpoint.mdl", optimiser_state=True)
    rebuilt = nm.model.rebuild_model(model)
    for other in (nm.model.modelload(tmp_path / "plain.mdl"), rebuilt):
        assert_same(model, other)
        assert not other.used_optimisers and not other.averages and other.iterations == 0 and other.lr == 1
    files = [load_file(tmp_path / f) for f in ("untrained.mdl", "plain.mdl", "checkpoint.mdl")]
    assert plain is None and files[0].keys() == files[1].keys()
    assert all(k.startswith("training:") for k in files[2].keys() - files[1].keys())
    trained = len(model.trainable_params)
    assert len(files[2]) - len(files[1]) == 3 * trained, "means, squares and averages"
    nm.model.modelload(tmp_path / "plain.mdl").set_param_values(tmp_path / "checkpoint.mdl")
    assert nm.model.params_from_model_file(tmp_path / "checkpoint.mdl").keys() == {
        k for k, n in model.nodes.items() if n.params}


@pytest.mark.parametrize("options", [dict(lock_trainable_params=["conv"]), dict(make_weights_constant=True),
                                     dict(replace_bn="remove")], ids=str)
def test_state_of_other_parameters_is_left_out(options, rng, tmp_path, caplog):
    model = net()
    model.set_opt_meta_params("Adam", dict(lr=0.02, ema=0.8))
    train(model, "Adam", batches(rng, 2))
    model.save(tmp_path / "checkpoint.mdl", optimiser_state=True)
    other = nm.model.modelload(tmp_path / "checkpoint.mdl", **options)
    assert not other.used_optimisers and not other.averages and other.lr == 0.02 and other.iterations == 2
    if other.trainable_params:
        train(other, "Adam", batches(rng, 1))


def test_sizes_may_change_and_averages_are_used_on_request(rng, tmp_path):
    model = net()
    model.set_opt_meta_params("SGD", dict(lr=0.2, ema=0.8))
    train(model, "SGD", batches(rng, 3))
    model.save(tmp_path / "checkpoint.mdl", optimiser_state=True)
    sizes = dict(imposed_patch_size=(4, 14, 14), imposed_batch_size=1)
    with model.averaged_weights():
        model.save(tmp_path / "averaged.mdl")
        with pytest.raises(ValueError, match="without optimiser_state"):
            model.save(tmp_path / "no.mdl", optimiser_state=True)
    assert not (tmp_path / "no.mdl").exists()
    x = rng.random((1, 1, 4, 14, 14), np.float32)
    wanted = nm.model.modelload(tmp_path / "averaged.mdl", **sizes).predict(x)
    other = nm.model.modelload(tmp_path / "checkpoint.mdl", **sizes)
    assert other.optimiser("SGD").t == 3
    with other.averaged_weights():
        np.testing.assert_array_equal(other.predict(x), wanted)
    assert np.abs(other.predict(x) - wanted).max() > 1e-3


def test_a_rule_that_is_not_known_here(rng, tmp_path, monkeypatch):
    class Own(OPTIMISERS["SGD"]):
        pass
    monkeypatch.setitem(OPTIMISERS, "Own", Own)
    model = net()
    model.lr = 0.01
    train(model, "Own", batches(rng, 1))
    model.save(tmp_path / "checkpoint.mdl", optimiser_state=True)
    assert nm.model.modelload(tmp_path / "checkpoint.mdl").optimiser("Own").t == 1
    monkeypatch.delitem(OPTIMISERS, "Own")
    assert not nm.model.modelload(tmp_path / "checkpoint.mdl").used_optimisers


@pytest.mark.parametrize("entry, value, message", [
    ("hyper", {"lr": -1}, "'lr' must be a number"), ("hyper", 3, "int"), ("steps", None, "items"),
    ("losses", ["a"], "could not convert"), ("iterations", "x", "invalid literal")])
def test_damaged_state(entry, value, message, rng, tmp_path):
    model = net()
    train(model, "SGD", batches(rng, 1))
    path = tmp_path / "checkpoint.mdl"
    model.save(path, optimiser_state=True)
    with safetensors.safe_open(path, "np") as f:
        metadata = f.metadata()
    description = json.loads(metadata[serialize.KEY])
    description["training"][entry] = value
    save_file(load_file(path), path, {serialize.KEY: json.dumps(description)})
    current, n = nm.model_manager.current, len(nm.model_manager.models)
    with pytest.raises((ModelFileError, ValueError), match=f"cannot be rebuilt at its state of training: .*{message}"):
        nm.model.modelload(path)
    assert nm.model_manager.current is current and len(nm.model_manager.models) == n
