"""What all layers with weights can do: duals, dropout at any time, batch normalisation in every mode, activations."""
import numpy as np
import pytest
import reference as R
import torch
from helpers import check, randomise, source

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer.function import Function

pytestmark = pytest.mark.usefixtures("float64")

LAYERS = {
    "Perceptron": lambda x, **kwargs: nm.Perceptron(x, 6, print_repr=False, **kwargs),
    "Conv": lambda x, **kwargs: nm.Conv(x, 6, (2, 1), print_repr=False, **kwargs),
    "UpConv": lambda x, **kwargs: nm.UpConv(x, 6, (1, 2), print_repr=False, **kwargs),
}
LINEAR = {"Perceptron": lambda x, w: R.naive_perceptron(x, w, 0), "Conv": R.naive_conv, "UpConv": R.naive_upconv}
layers = pytest.mark.parametrize("layer", LAYERS)


def build(layer, **kwargs):
    return LAYERS[layer](source((3, 2, 4, 3), "b,f,x,y"), **kwargs)


def image(rng):
    return rng.normal(size=(3, 2, 4, 3))


# -- duals ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tags", ["b,f", "b,f,x", "b,x,f"])
@pytest.mark.parametrize("share", [False, True])
def test_perceptron_dual(tags, share, rng, tmp_path):
    """Back to the features of the primal, by its own weights or the transposed ones, with gradients; saved as shared."""
    sizes = [dict(b=3, f=4, x=2)[t] for t in tags.split(",")]
    x = source(sizes, tags)
    axis = x.shape.tag2index("f")
    code = nm.Perceptron(x, 5, "tanh", name="code", print_repr=False)
    dual = code.make_dual(code, share, activation_func="lin", print_repr=False)
    assert (dual.name, dual.shape.shape) == ("code.T", x.shape.shape)
    assert list(dual.params) == (["b"] if share else ["w", "b"])
    p, q = randomise(code, rng), randomise(dual, rng)
    array = rng.normal(size=sizes)
    y = np.tanh(R.naive_perceptron(array, p["w"], p["b"], axis))
    check(dual, R.naive_perceptron(y, p["w"].T if share else q["w"], q["b"], axis), array)
    assert dual.all_params_count == 20 + 5 + 4 + 20 * (not share)
    code.model.save(tmp_path / "a.mdl")
    loaded = nm.model.modelload(tmp_path / "a.mdl")
    np.testing.assert_array_equal(loaded["code.T"](array), dual(array))
    loaded["code"].set_param_values(dict(w=2 * p["w"]))
    if share:
        np.testing.assert_array_equal(loaded["code.T"].w.get_value(), 2 * p["w"].T)
    else:
        np.testing.assert_array_equal(loaded["code.T"].w.get_value(), q["w"])


def test_transposed_weights_are_trained_together(rng):
    """One parameter for both layers: its gradient is the sum of both, and a step changes both."""
    x = source((2, 4), "b,f")
    code = nm.Perceptron(x, 3, "lin", print_repr=False)
    dual = code.make_dual(code, True, activation_func="lin", print_repr=False)
    loss = nm.AggregateLoss(nm.SquaredLoss(dual, x, print_repr=False), print_repr=False)
    model = x.model
    model.designate_nodes(input_node="input", loss_node=loss)
    assert [p is code.w for p in model.trainable_params].count(True) == 1 and len(model.trainable_params) == 3
    model.lr = 0.1
    array = rng.normal(size=(2, 4))
    losses = [model.trainingstep(array)[0] for _ in range(5)]
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(dual.w.get_value(), code.w.get_value().T)


def test_conv_dual(rng):
    """Upsampling by what the primal pools and strides, to its number of input features."""
    x = source((1, 3, 8, 13), "b,f,x,y")
    code = nm.Conv(x, 4, (2, 3), (2, 1), stride=(2, 1), name="code", print_repr=False)
    dual = code.make_dual(code, activation_func="tanh", print_repr=False)
    assert (dual.name, dual.pool_shape, dual.activation_func) == ("code.T", (4, 1), "tanh")
    assert dual.shape.shape == [1, 3, 8, 11]
    x = source((1, 2, 6, 6), "b,f,x,y")
    code = nm.Conv(x, 4, 3, name="code", print_repr=False)
    assert code.make_dual(code, name="back", print_repr=False).name == "back"


def test_the_dual_of_a_dual_shares_the_same_weights():
    code = nm.Perceptron(source((2, 4), "b,f"), 3, name="code", print_repr=False)
    dual = code.make_dual(code, share_w=True, print_repr=False)
    again = dual.make_dual(dual, share_w=True, print_repr=False)
    assert again.w is code.w and again.shape.shape == [2, 3]
    image = source((1, 2, 6, 6), "b,f,x,y")
    conv = nm.Conv(image, 3, 3, print_repr=False)
    assert conv.make_dual(conv, share_w=True, mfp=False, print_repr=False).w.T is conv.w


@pytest.mark.parametrize(("sizes", "kernel", "pool", "stride"), [((7,), (3,), 1, 1), ((7, 6), (2, 3), 1, 1),
                                                                 ((9, 7), (3, 3), 1, 2), ((4, 5, 4), (2, 1, 3), 1, 1)])
def test_conv_dual_is_the_transposed_map(sizes, kernel, pool, stride, rng, tmp_path):
    """<Conv(x), y> = <x, dual(y)> for shared weights and no pooling, which defines the transposed map."""
    tags = ",".join(["b", "f", "z", "x", "y"][:2] + ["z", "x", "y"][3 - len(sizes):])
    x = source((2, 3, *sizes), tags)
    code = nm.Conv(x, 4, kernel, pool, stride=stride, activation_func="lin", b=np.zeros(4), print_repr=False)
    free = nm.Input_like(code, name="y", print_repr=False)
    dual = code.make_dual(free, True, activation_func="lin", print_repr=False)
    assert dual.shape.shape == x.shape.shape and list(dual.params) == ["b"]
    a, b = rng.normal(size=x.shape.shape), rng.normal(size=code.shape.shape)
    np.testing.assert_allclose((code(a) * b).sum(), (a * dual(b)).sum())
    check(dual, dual(b), b)
    x.model.save(tmp_path / "a.mdl")
    np.testing.assert_array_equal(nm.model.modelload(tmp_path / "a.mdl")[dual.name](b), dual(b))


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda x: nm.Perceptron(x, 5, name="p", print_repr=False).make_dual(x), ValueError, "Perceptron 'p'.*5 features"),
    (lambda x: (p := nm.Perceptron(x, 5, flatten=True, print_repr=False)).make_dual(p), NotImplementedError, "Reshape"),
    (lambda x: (p := nm.Perceptron(x, 4, "maxout 2", print_repr=False)).make_dual(p, True), ValueError, "maxout 2"),
    (lambda x: nm.Conv(x, 5, 2, name="c", print_repr=False).make_dual("c"), ValueError, "dual of Conv 'c'.*'c'"),
    (lambda x: (c := nm.Conv(x, 4, 2, groups=2, print_repr=False)).make_dual(c, True), ValueError, "groups"),
    (lambda x: (c := nm.Conv(x, 4, 2, print_repr=False)).make_dual(c, mfp=True), ValueError, "mfp=False"),
    (lambda x: (u := nm.UpConv(x, 4, 2, print_repr=False)).make_dual(u), NotImplementedError, "has no dual.*Conv"),
    (lambda x: nm.VariableParam(np.ones(3)).T, ValueError, "two axes")])
def test_dual_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make(source((1, 2, 6, 6), "b,f,x,y"))


# -- dropout --------------------------------------------------------------------------------------------
@layers
def test_dropout_later(layer, rng, tmp_path):
    """A layer built without dropout gets it afterwards, also in functions that exist; it is saved, and predicts as ever."""
    node = build(layer, activation_func="lin", b=np.full(6, 9.0))
    model, array = node.model, image(rng)
    before = node(array, mode="train")
    assert list(node.params) == ["w", "b"] and "rate" not in repr(node) and model.dropout_rates == []
    operations = node.function("train").operations
    node.set_dropout_rate(0.5)
    value = node(array, mode="train")
    kept = value != 0
    assert 0.3 < kept.mean() < 0.7
    np.testing.assert_allclose(value[kept], 2 * before[kept])
    np.testing.assert_array_equal(node(array), before)
    assert model.dropout_rates == [0.5] and list(node.params) == ["w", "b", "dropout_rate"] and "0.5" in repr(node)
    assert node.function("train").operations == operations + 1
    model.save(tmp_path / "a.mdl")
    loaded = nm.model.modelload(tmp_path / "a.mdl")
    assert loaded.dropout_rates == [0.5] and repr(loaded[node.name]) == repr(node)
    assert (loaded[node.name](array, mode="train") == 0).any()
    model.dropout_rates = 0
    np.testing.assert_array_equal(node(array, mode="train"), before)


def test_dropout_of_a_model(rng):
    """Rates by name of the node, in a model that trains already; the functions of the optimiser follow."""
    x = source((4, 3), "b,f")
    first = nm.Perceptron(x, 50, "lin", name="first", print_repr=False)
    second = nm.Perceptron(first, 3, "lin", name="second", print_repr=False)
    model = x.model
    loss = nm.AggregateLoss(nm.SquaredLoss(second, nm.Input_like(second, name="t", print_repr=False), print_repr=False))
    model.designate_nodes(input_node="input", target_node="t", loss_node=loss, prediction_node=second)
    model.lr = 0.0
    arrays = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    losses = {model.trainingstep(*arrays)[0] for _ in range(3)}
    assert len(losses) == 1
    model.dropout_rates = {"first": 0.5}
    assert model.dropout_rates == [0.5]
    assert len({model.trainingstep(*arrays)[0] for _ in range(3)} | losses) == 4
    with pytest.raises(KeyError, match="no node 'third'"):
        model.dropout_rates = {"first": 0.1, "third": 0.5}
    with pytest.raises(ValueError, match=r"none: \['t'\]"):
        model.dropout_rates = {"first": 0.1, "t": 0.5}
    with pytest.raises(ValueError, match="dropout_rate of Perceptron 'first'"):
        first.set_dropout_rate(1)
    assert model.dropout_rates == [0.5]


def test_dropout_off_is_free():
    """A layer without dropout has no operation for it in training."""
    node = build("Conv", activation_func="lin")
    node(mode="train")
    assert "dropout" not in node.function("train")._module.code
    node.set_dropout_rate(0.0)
    assert list(node.params) == ["w", "b"]


def test_no_dropout_in_normalisation():
    with pytest.raises(ValueError, match="has no dropout"):
        nm.InstanceNorm(source((1, 2, 5), "b,f,x"), print_repr=False).set_dropout_rate(0.5)


# -- batch normalisation --------------------------------------------------------------------------------
@layers
@pytest.mark.parametrize("rate", [1.0, 0.3, 0.0])
def test_fadeout(layer, rate, rng):
    """Fading normalisation in training and prediction, against the formula; at rate 0 it is the layer without."""
    node = build(layer, batch_normalisation="fadeout", activation_func="tanh")
    p = randomise(node, rng)
    node.set_param_values(dict(gradnet_rate=rate, init_weight=0))
    assert node.model.gradnet_rates == [rate]
    x = image(rng)
    y = LINEAR[layer](x, p["w"])
    for mode, (mean, std) in (("train", R.naive_batch_statistics(y)), ("predict", (p["mean"], p["std"]))):
        gamma = rate * p["gamma"] + 1 - rate
        wanted = R.naive_normalise(y, gamma, rate * mean, rate * std + 1 - rate) + R.along(p["b"], y)
        check(node, np.tanh(wanted), x, mode=mode)


@layers
@pytest.mark.parametrize("mode", ["train", "predict", "fadeout"])
@pytest.mark.parametrize("options", [dict(make_weights_constant=True), dict(replace_bn="predict"), dict(replace_bn="const"),
                                     dict(make_weights_constant=True, replace_bn="const"), dict(unlock_all_params=True),
                                     dict(lock_trainable_params=1)], ids=str)
def test_rebuilt_predicts_the_same(layer, mode, options, rng):
    """However weights and normalisation are fixed, the prediction stays; with constant weights nothing is trained."""
    node = build(layer, batch_normalisation=mode, activation_func="tanh", gradnet_mode=mode == "fadeout")
    randomise(node, rng)
    if "gradnet_rate" in node.params:
        node.set_param_values(dict(gradnet_rate=0.4))
    if mode != "predict":  # a few steps of the running averages
        step = Function(node.input_tensors, node.output, node.all_extra_updates, mode="train")
        for _ in range(3):
            step(image(rng))
    x = image(rng)
    node.model.designate_nodes(input_node="input", prediction_node=node)
    new = nm.model.rebuild_model(node.model, **options).prediction_node
    np.testing.assert_allclose(new(x), node(x), rtol=0, atol=1e-12)
    if "make_weights_constant" in options or "lock_trainable_params" in options:
        assert not new.all_trainable_params
    else:
        assert {"w", "b"} <= {k for k, p in new.params.items() if p.apply_train}
    if options.get("replace_bn"):
        assert new.batch_normalisation == "predict" and not new.model.batch_normalisation_active


# -- activations ----------------------------------------------------------------------------------------
@layers
@pytest.mark.parametrize("bn", [False, "train"])
@pytest.mark.parametrize("name", ["prelu", "maxout 2", "maxout 3"])
def test_activations_with_parameters_or_fewer_features(layer, bn, name, rng):
    """In training, against the formulas; prelu starts linear."""
    node = build(layer, activation_func=name, batch_normalisation=bn)
    if name == "prelu":
        np.testing.assert_array_equal(node.b.get_value()[:, 1], np.ones(6))
    p, x = randomise(node, rng), image(rng)
    y = LINEAR[layer](x, p["w"])
    b, slope = p["b"].T if name == "prelu" else (p["b"], None)
    if bn:
        y = R.naive_normalise(y, p["gamma"], *R.naive_batch_statistics(y))
    check(node, R.naive_activation(y + R.along(b, y), name, slope), x, mode="train")
    assert node.shape["f"] == 6 // {"prelu": 1}.get(name, int(name[-1]) if name[-1].isdigit() else 1)


def test_switches_are_per_model(rng):
    """Switching dropout on in one model compiles nothing in another."""
    torch.manual_seed(0)
    a, b = build("Conv"), None
    nm.model_manager.newmodel(None)
    b = build("Conv")
    x = image(rng)
    a(x, mode="train"), b(x, mode="train")
    module = b.function("train")._module
    a.set_dropout_rate(0.5)
    a(x, mode="train"), b(x, mode="train")
    assert b.function("train")._module is module


@pytest.mark.parametrize("conv_mode", ["valid", "same", "full"])
def test_upconv_that_does_not_upsample_follows_fragments(conv_mode, rng):
    x = nm.Input((1, 1, 20, 20), "b,f,x,y", print_repr=False)
    pooled = nm.Conv(x, 4, 3, 2, print_repr=False)
    up = nm.UpConv(pooled, 3, 1, "tanh", filter_shape=3, conv_mode=conv_mode, identity_init=False, print_repr=False)
    x.model.designate_nodes(x, prediction_node=nm.Conv(up, 2, 3, print_repr=False))
    mfp = nm.model.rebuild_model(x.model, override_mfp_to_active=True, imposed_patch_size=21)
    assert mfp["conv"].mfp and not up.upsamples
    raw = rng.random((1, 34, 31), np.float32)
    assert np.abs(mfp.predict_dense(raw) - x.model.predict_dense(raw)).max() < 1e-6
    assert nm.UpConv(pooled, 3, (2, 1), print_repr=False).upsamples
