"""Parameters that go from one layer to another: running averages keep their meaning, sharing models can be rebuilt."""
import numpy as np
import pytest

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer.function import Function


def trained(rng, mode="train", **options):
    """A layer 'c' after three steps, when its running averages are still mostly their initial values; and its input."""
    nm.model_manager.newmodel(None)
    x = nm.Input((4, 2, 9, 9), "b,f,x,y", name="im", print_repr=False)
    c = nm.Conv(x, 3, 3, batch_normalisation=mode, name="c", print_repr=False, **options)
    image = (3 * rng.normal(size=(4, 2, 9, 9)) + 5).astype("float32")
    if mode != "predict":
        step = Function(c.input_tensors, c.output, c.all_extra_updates, mode="train")
        for _ in range(3):
            step(image)
        assert 0.99 < c.init_weight.get_value() < 1
    return c, image


def as_predict(c, **given):
    return nm.Conv(nm.Input((4, 2, 9, 9), "b,f,x,y", name="im", print_repr=False), 3, 3, batch_normalisation="predict",
                   name="c", print_repr=False, **given)


@pytest.mark.parametrize("how", ["node", "model", "file", "arguments"])
def test_running_averages_in_a_layer_that_does_not_measure(how, rng, tmp_path):
    c, image = trained(rng)
    wanted = c(image)
    c.model.save(tmp_path / "c.mdl")
    values = c.model.get_param_values()
    nm.model_manager.newmodel(None)
    given = nm.model.params_from_model_file(tmp_path / "c.mdl")["c"] if how == "arguments" else {}
    new = as_predict(c, **{k: v for k, v in given.items() if k != "init_weight"})
    if how == "node":
        new.set_param_values(values["c"])
    elif how == "model":
        new.model.set_param_values(values)
    elif how == "file":
        new.model.set_param_values(tmp_path / "c.mdl")
    np.testing.assert_allclose(new(image), wanted, atol=1e-3)


def test_a_file_sets_running_averages_as_they_are(rng, tmp_path):
    """In a layer that goes on measuring, they keep the weight of their initial values."""
    c, _ = trained(rng)
    c.model.save(tmp_path / "c.mdl")
    wanted = c.get_param_values()
    c.model.set_param_values({"c": {"mean": np.zeros(3), "std": np.ones(3), "init_weight": 1.0}})
    c.model.set_param_values(tmp_path / "c.mdl")
    for key, value in c.get_param_values().items():
        np.testing.assert_array_equal(value, wanted[key])


def sharing(c, **options):
    return nm.Conv(c.parent, 3, 3, batch_normalisation="predict", w=c.w, b=c.b, gamma=c.gamma, mean=c.mean, std=c.std,
                   name="e", print_repr=False, **options)


def test_shared_statistics_are_those_that_the_owner_uses(rng, tmp_path):
    c, image = trained(rng)
    e = sharing(c)
    np.testing.assert_allclose(e(image), c(image), atol=1e-5)
    c.model.save(tmp_path / "c.mdl")
    loaded = nm.model.modelload(tmp_path / "c.mdl")
    np.testing.assert_allclose(loaded["e"](image), c(image), atol=1e-5)
    loaded["c"].set_param_values({"mean": np.zeros(3), "init_weight": 0.0})
    np.testing.assert_allclose(loaded["e"](image), loaded["c"](image), atol=1e-5)


@pytest.mark.parametrize("replace", ["predict", "const", "remove"])
@pytest.mark.parametrize("mode", ["train", "predict", "fadeout"])
@pytest.mark.parametrize("share", ["gamma", "all"])
def test_replacing_batch_normalisation_that_is_shared(share, mode, replace, rng):
    c, image = trained(rng, mode, gradnet_mode=mode == "fadeout")
    if mode == "fadeout":
        c.set_param_values({"gradnet_rate": 0.7})
    c.set_param_values({"gamma": [0.5, 1.5, 2.0]})
    e = sharing(c) if share == "all" else nm.Conv(
        c.parent, 3, 3, batch_normalisation=mode, gamma=c.gamma, name="e", gradnet_mode=mode == "fadeout", print_repr=False)
    new = nm.model.rebuild_model(_designated(c, e), replace_bn=replace)
    for node in (c, e):
        assert new[node.name].batch_normalisation == (False if replace == "remove" else "predict")
        if replace != "remove":
            np.testing.assert_allclose(new[node.name](image), node(image), rtol=1e-4, atol=1e-3)


def _designated(c, e):
    c.model.designate_nodes(input_node="im", prediction_node=nm.Add(c, e, print_repr=False))
    return c.model


@pytest.mark.parametrize("lock", [["e"], ["dual"], 1])
def test_locking_a_layer_locks_what_it_shares(lock):
    nm.model_manager.newmodel(None)
    x = nm.Input((1, 2, 9, 9), "b,f,x,y", name="im", print_repr=False)
    a = nm.Conv(x, 2, 3, name="a", print_repr=False)
    e = nm.Conv(a, 2, 3, w=a.w, name="e", print_repr=False)
    dual = e.make_dual(e, share_w=True, name="dual", print_repr=False)
    a.model.designate_nodes(input_node="im", prediction_node=dual)
    locked = {"a_w"} | ({"a_b"} if lock == 1 else {f"{lock[0]}_b"})
    new = nm.model.rebuild_model(a.model, lock_trainable_params=lock)
    assert {p.name for p in new.trainable_params} == {"a_w", "a_b", "e_b", "dual_b"} - locked
