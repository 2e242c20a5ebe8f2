"""The model: roles, training, files, rebuilding; and what it says to wrong input."""
import json
import os
import resource

import numpy as np
import pytest
import safetensors.numpy
import torch

from elektronn2 import neuromancer as nm
from elektronn2.config import config
from elektronn2.errors import ModelFileError
from elektronn2.neuromancer import serialize


def net(bn=False, patch=12, batch=None):
    x = nm.Input((batch, 1, patch, patch), "b,f,x,y", name="x")
    h = nm.Conv(x, 3, (3, 3), (2, 2), batch_normalisation=bn)
    out = nm.Conv(h, 2, (2, 2), activation_func="lin", name="out")
    probs = nm.Softmax(out)
    target = nm.Input_like(probs, override_f=1, name="target")
    nll = nm.MultinoulliNLL(probs, target, target_is_sparse=True, class_weights=[1.0, 2.0])
    loss = nm.AggregateLoss(nll, name="loss")
    errors = nm.Errors(probs, target, target_is_sparse=True)
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, target, loss, probs, [loss, errors, probs], debug_outputs=[nll])
    return model


def data(rng, model, batch=2):
    x, t = model.input_node.shape.shape, model.target_node.shape.shape
    return rng.random((batch, *x[1:]), np.float32), rng.integers(0, 2, (batch, *t[1:])).astype(np.float32)


# -- training ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("optimiser, lr", [("SGD", 0.1), ("AdaGrad", 0.05), ("AdaDelta", 1.0), ("Adam", 0.02),
                                           ("AdamW", 0.02)])
def test_every_optimiser_lowers_the_loss(optimiser, lr, rng):
    model = net()
    batch = data(rng, model)
    model.set_opt_meta_params(optimiser, dict(lr=lr))
    losses = [model.trainingstep(*batch, optimiser=optimiser)[0] for _ in range(40)]
    assert losses[-1] < 0.9 * losses[0]
    assert model.iterations == 40 and model.elapsed_time > 0
    assert np.isclose(model.loss_smooth, np.mean(losses))


def test_a_training_step_returns_the_loss_before_it(rng):
    model = net()
    batch = data(rng, model)
    before = model.loss(*batch)
    loss, seconds, debug = model.trainingstep(*batch)
    assert np.isclose(loss, before) and seconds > 0 and debug[0].shape == (2, 1, 4, 4)
    after, _, _ = model.trainingstep(*batch, update_loss=True)
    assert np.isclose(after, model.loss(*batch))


def test_hyper_parameters_belong_to_a_model(rng):
    a = net()
    a.lr, a.mom, a.wd = 0.5, 0.1, 0.01
    nm.model_manager.newmodel("other")
    b = net()
    assert (b.lr, b.mom, b.wd) == (1.0, 0.9, 0.0)
    assert a.optimiser("SGD").meta_params["lr"] == 0.5
    with pytest.raises(KeyError, match="SGD has no hyper-parameter 'beta2'"):
        a.set_opt_meta_params("SGD", dict(beta2=0.9))


def test_an_unknown_optimiser_falls_back_to_sgd(rng):
    model = net()
    assert type(model.optimiser("Adams")).__name__ == "SGD"


def test_optimiser_state_continues_exactly(rng):
    """Save after three steps, restore into a copy, continue: the same parameters as without interruption."""
    for name in ("SGD", "Adam", "AdamW", "AdaDelta", "AdaGrad"):
        nm.model_manager.newmodel(None)
        model = net()
        model.lr = 0.01
        batch = data(rng, model)
        for _ in range(3):
            model.trainingstep(*batch, optimiser=name)
        copy = nm.model.rebuild_model(model)
        copy.lr = 0.01
        copy.optimiser(name).set_state(model.optimiser(name).get_state())
        for m in (model, copy):
            m.trainingstep(*batch, optimiser=name)
        for a, b in zip(model.get_param_values(as_list=True), copy.get_param_values(as_list=True)):
            assert np.array_equal(a, b), name


def test_predict_ext_and_activations(rng):
    model = net()
    batch = data(rng, model)
    loss, errors, probs = model.predict_ext(*batch)
    assert loss.shape == errors.shape == (1,) and np.array_equal(probs, model.predict(batch[0]))
    assert np.isclose(errors[0], np.mean(probs.argmax(1) != batch[1][:, 0]))
    assert [a.shape for a in model.activations(*batch)] == [(2, 3, 5, 5), (2, 2, 4, 4), (2, 2, 4, 4), (2, 1, 4, 4), (1,)]
    model.paramstats()
    model.gradstats(*batch)
    model.actstats(*batch)
    assert set(model.measure_exectimes(1, 0, print_info=False)) == set(model.nodes)
    assert model.test_run_prediction().shape == (1, 2, 4, 4)


# -- files ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bn", [False, "train"])
def test_save_and_load(bn, rng, tmp_path):
    model = net(bn)
    batch = data(rng, model)
    model.lr = 0.1
    model.trainingstep(*batch)
    model.save(tmp_path / "m.mdl")
    loaded = nm.model.modelload(tmp_path / "m.mdl")
    assert np.array_equal(loaded.predict(batch[0]), model.predict(batch[0]))
    assert loaded.loss(*batch) == model.loss(*batch)
    assert [repr(n) for n in loaded.nodes.values()] == [repr(n) for n in model.nodes.values()]
    assert loaded.designations == model.designations
    assert nm.model_manager.getmodel() is loaded


def test_changed_patch_and_batch(rng, tmp_path):
    model = net()
    model.save(tmp_path / "m.mdl")
    loaded = nm.model.modelload(tmp_path / "m.mdl", imposed_patch_size=(21, 17), imposed_batch_size=4)
    assert loaded.input_node.shape.shape == [4, 1, 20, 16]
    assert loaded.target_node.shape.shape == [4, 1, 8, 6]
    with pytest.raises(ValueError, match="imposed_patch_size needs 2 values"):
        nm.model.modelload(tmp_path / "m.mdl", imposed_patch_size=(21, 17, 3))


def test_feature_names_stay_when_fragments_are_made_dense():
    x = nm.Input((1, 1, 13, 13), "b,f,x,y", name="x")
    out = nm.Conv(nm.Conv(x, 3, 2, 2), 2, 2, activation_func="lin", name="out")
    out.feature_names = ["cell", "gap"]
    out.model.designate_nodes(x, prediction_node=out)
    new = nm.model.rebuild_model(out.model, override_mfp_to_active=True)
    assert new.prediction_node.name != "out" and new.prediction_feature_names == ["cell", "gap"]


def test_constants_locks_and_batch_normalisation(rng, tmp_path):
    model = net("train")
    batch = data(rng, model)
    model.lr = 0.1
    for _ in range(5):
        model.trainingstep(*batch)
    load = nm.model.rebuild_model
    assert load(model, make_weights_constant=True).trainable_params == []
    assert [p.name for p in load(model, lock_trainable_params=1).trainable_params] == ["out_w", "out_b"]
    assert [p.name for p in load(model, lock_trainable_params=["out"]).trainable_params] == [
        "conv_w", "conv_b", "conv_gamma"]
    constant = load(model, make_weights_constant=True)
    assert len(load(constant, unlock_all_params=True).trainable_params) == 5
    for mode in ("predict", "const"):
        np.testing.assert_allclose(load(model, replace_bn=mode).predict(batch[0]), model.predict(batch[0]), atol=1e-6)
    assert load(model, replace_bn="remove")["conv"].batch_normalisation is False
    with pytest.raises(ValueError, match="contradict"):
        load(model, make_weights_constant=True, unlock_all_params=True)
    with pytest.raises(ValueError, match="replace_bn must be"):
        load(model, replace_bn="yes")
    with pytest.raises(ValueError, match="no node .'conf'.*Did you mean 'conv'"):
        load(model, lock_trainable_params=["conf"])


def test_shared_weights_survive(rng, tmp_path):
    x = nm.Input((1, 2, 9), "b,f,x", name="x")
    a = nm.Conv(x, 2, 3, activation_func="tanh")
    b = nm.Conv(a, 2, 3, activation_func="tanh", w=a.w, b=[np.ones(2), "const"])
    nm.model_manager.getmodel().designate_nodes(x, prediction_node=b)
    copy = nm.model.rebuild_model(nm.model_manager.getmodel())
    value = rng.random((1, 2, 9), np.float32)
    assert np.array_equal(copy.predict(value), b(value))
    assert copy["conv1"].w is copy["conv"].w and copy["conv1"].b.constant
    copy["conv"].w.set_value(np.zeros((2, 2, 3)))
    assert np.allclose(copy.predict(value), np.tanh(1))


def clip(x, low):
    return x.clamp(min=low)


def test_functions_are_loaded_only_when_allowed(rng, tmp_path):
    x = nm.Input((1, 2), "b,f", name="x")
    y = nm.ApplyFunc(x, clip, kwargs=dict(low=0.5))
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, prediction_node=y)
    model.save(tmp_path / "f.mdl")
    with pytest.raises(ModelFileError, match=r"calls the function .*allow_functions=True"):
        nm.model.modelload(tmp_path / "f.mdl")
    loaded = nm.model.modelload(tmp_path / "f.mdl", allow_functions=True)
    assert loaded.predict(np.array([[0.0, 1.0]])).tolist() == [[0.5, 1.0]]
    nm.model_manager.newmodel(None)
    x = nm.Input((1, 2), "b,f", name="x")
    y = nm.ApplyFunc(x, lambda t: t + 1)
    nm.model_manager.getmodel().designate_nodes(x, prediction_node=y)
    with pytest.raises(ModelFileError, match="cannot be imported again"):
        nm.model_manager.getmodel().save(tmp_path / "g.mdl")
    assert not (tmp_path / "g.mdl").exists()


@pytest.mark.parametrize("damage, message", [
    (lambda b: b[:len(b) // 2], "truncated or damaged"),
    (lambda b: b[:4], "truncated or damaged"),
    (lambda b: b"", "truncated or damaged"),
    (lambda b: b"\x80\x02}q\x00." * 10, "is a pickle"),
    (lambda b: b"PK\x03\x04 some archive that is no model", "a zip file, such as PyTorch writes"),
    (lambda b: safetensors.numpy.save({"w": np.zeros(3)}), "not one that this library wrote"),
    (lambda b: safetensors.numpy.save({"w": np.zeros(3)}, metadata={serialize.KEY: "{"}), "graph is damaged"),
    (lambda b: safetensors.numpy.save({"w": np.zeros(3)}, metadata={serialize.KEY: json.dumps(
        {"format": 99, "nodes": [], "designations": {}})}), "has format 99"),
])
def test_damaged_and_foreign_files(damage, message, tmp_path):
    net().save(tmp_path / "m.mdl")
    (tmp_path / "m.mdl").write_bytes(damage((tmp_path / "m.mdl").read_bytes()))
    before = list(nm.model_manager.models)
    with pytest.raises(ModelFileError, match=message):
        nm.model.modelload(tmp_path / "m.mdl")
    assert list(nm.model_manager.models) == before, "no half-read model is left behind"


def test_unknown_classes_and_arguments_in_a_file(tmp_path):
    description, tensors = serialize.describe(net())
    for change, message in [(("class", "Convv"), "Unknown node class 'Convv'. Did you mean 'Conv'"),
                            (("arguments", {"parent": {"node": "nobody"}}), "refers to node .nobody., which is not"),
                            (("arguments", {"parent": {"system": "rm"}}), "unknown form")]:
        broken = json.loads(json.dumps(description))
        broken["nodes"][1][change[0]] = change[1]
        data = safetensors.numpy.save(tensors, metadata={serialize.KEY: json.dumps(broken)})
        (tmp_path / "m.mdl").write_bytes(data)
        with pytest.raises(ValueError, match=message):
            nm.model.modelload(tmp_path / "m.mdl")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no model file"):
        nm.model.modelload(tmp_path / "none.mdl")


def test_a_full_disk_keeps_the_old_file(tmp_path):
    """A real failing write (the size of files is limited): the old model stays, nothing else is left."""
    path = tmp_path / "m.mdl"
    model = net()
    model.save(path)
    old = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="large"):
            model.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["m.mdl"]


# -- wrong use --------------------------------------------------------------------------------------------
def test_sizes_that_do_not_fit():
    x = nm.Input((1, 1, 12, 13), "b,f,x,y", name="x")
    with pytest.raises(ValueError, match=r"Conv 'conv' after 'x' .*axis 'y' of length 13 by factor 2 .*size 3.*12"):
        nm.Conv(x, 3, (3, 3), (2, 2))
    with pytest.raises(ValueError, match=r"too short for a kernel of size 20"):
        nm.Conv(x, 3, (20, 3))
    with pytest.raises(ValueError, match=r"needs 2 values.*filter size 1"):
        nm.Conv(x, 3, (1, 3, 3))
    with pytest.raises(NotImplementedError, match=r"Did you mean 'relu'"):
        nm.Conv(x, 3, 3, activation_func="rellu")
    with pytest.raises(TypeError, match=r"unknown argument 'n_filters'.*Did you mean 'filter_shape'"):
        nm.Conv(x, n_filters=3, filter_shape=3)
    with pytest.raises(TypeError, match="its parent must be one node"):
        nm.Conv(nm.model_manager, 3, 3)
    assert list(nm.model_manager.getmodel().nodes) == ["x"], "failed nodes leave nothing behind"


def test_misaligned_merges_name_nodes_axis_and_shift():
    x = nm.Input((1, 1, 12, 12), "b,f,x,y", name="x")
    a = nm.Conv(x, 2, (3, 3), name="a")
    b = nm.Conv(x, 2, (2, 3), name="b")
    with pytest.raises(ValueError, match=r"sizes on axis 'x' differ: 'a' is .* 'b' is "):
        nm.Concat([a, b])
    even = nm.Conv(b, 2, (2, 1), name="even")
    assert nm.Add(a, even).shape.spatial_shape == [10, 10], "two even filters are centred again"
    pooled = nm.Pool(a, (2, 2), name="pooled")
    small = nm.Crop(nm.Conv(a, 2, (2, 2)), (2, 2), name="small")
    with pytest.raises(ValueError, match=r"misaligned on axis 'x': 'pooled' has stride 2, 'small' has 1"):
        nm.Concat([pooled, small])
    late = nm.UpConv(nm.Pool(x, (2, 2)), 2, (2, 2), name="late")
    assert nm.Concat([x, late]).shape.spatial_shape == [12, 12], "upsampled again: aligned"


def test_shifted_branches_are_found_where_sizes_are_open():
    x = nm.Input((1, 1, None, 12), "b,f,x,y", name="x")
    a, b = nm.Conv(x, 2, (3, 3), name="a"), nm.Conv(x, 2, (5, 3), name="b")
    with pytest.raises(ValueError, match=r"misaligned on axis 'x': 'b' is shifted by 1 input voxels against 'a' "
                                         r"\(they start at 2 and 1\)"):
        nm.Concat([a, b])
    other = nm.Input((1, 1, None, 12), "b,f,x,y", name="other")
    c = nm.Crop(nm.Conv(other, 2, (1, 1)), (1, 1))
    assert nm.Concat([a, c]).shape["f"] == 4, "from another source: no common grid to compare"


def test_odd_difference_in_automerge_quotes_both_shapes():
    x = nm.Input((1, 1, 12, 12), "b,f,x,y", name="x")
    a, b = nm.Conv(x, 2, (2, 3), name="a"), nm.Conv(x, 2, (3, 3), name="b")
    with pytest.raises(ValueError, match=r"odd number.*'b' is \[.*'a' is \["):
        nm.AutoMerge(a, b)


def test_unknown_names_are_suggested():
    model = net()
    with pytest.raises(KeyError, match="no node 'softmx'.*Did you mean 'softmax'"):
        model["softmx"]
    with pytest.raises(KeyError, match="no node 'los' for loss_node.*Did you mean 'loss'"):
        model.designate_nodes("x", loss_node="los")
    with pytest.raises(ValueError, match="loss_node is one node, got a list"):
        model.designate_nodes("x", loss_node=["loss"])
    with pytest.raises(KeyError, match="There is no model 'defaullt'.*Did you mean 'default'"):
        nm.model_manager["defaullt"]
    with pytest.raises(KeyError, match="Node 'conv' has no parameter 'v'"):
        model["conv"].set_param_values({"v": 1})
    with pytest.raises(AttributeError, match="no setting 'precison'.*Did you mean 'precision'"):
        config.precison = "bfloat16"
    with pytest.raises(ValueError, match="must be one of float32.*Did you mean 'float32'"):
        config.precision = "flaot32"


def test_a_wrong_shape_rule_names_the_node():
    class Wrong(nm.Node):
        def __init__(self, parent, name="wrong", print_repr=False):
            super().__init__(parent, name, print_repr)

        def _make_output(self):
            self.output = self.parent.output[:, :1]

    x = nm.Input((1, 2, 5), "b,f,x", name="x")
    with pytest.raises(ValueError, match=r"Wrong 'wrong' declares shape .* its output has \(1, 1, 5\)"):
        Wrong(x)


def test_a_constructor_makes_one_node():
    class Two(nm.Node):
        def __init__(self, parent, name="two", print_repr=False):
            super().__init__(nm.Crop(parent, 1), name, print_repr)

    with pytest.raises(RuntimeError, match="created inside the constructor of Two 'two'"):
        Two(nm.Input((1, 2, 5), "b,f,x", name="x"))
    assert nm.Crop(nm.model_manager.getmodel()["x"], 1).name == "crop"


def test_dense_prediction_of_wrong_input():
    model = net()
    for shape, message in [((12, 12), r"needs an array with axes \(f, x, y\).*raw\[None\]"),
                           ((3, 20, 20), "needs 1 channels on axis 0"), ((1, 5, 20), "at least 6 are needed")]:
        with pytest.raises(ValueError, match=message):
            model.predict_dense(np.zeros(shape, np.float32))
    with pytest.raises(TypeError, match="int32 has no known scale"):
        model.predict_dense(np.zeros((1, 20, 20), np.int32))
    assert model.predict_dense(np.zeros((1, 5, 20), np.float32), pad_raw=True).shape == (2, 5, 20)


def test_dense_prediction_of_integer_images(rng):
    model = net()
    image = rng.random((1, 19, 22))
    for dtype in (np.uint8, np.uint16):
        levels = np.iinfo(dtype).max
        integers = (image * levels).astype(dtype)
        np.testing.assert_array_equal(model.predict_dense(integers),
                                      model.predict_dense(integers.astype(np.float32) / levels))
    probs = model.predict_dense(integers)
    np.testing.assert_array_equal(model.predict_dense(integers, as_uint8=True), (probs * 255).astype(np.uint8))


def test_two_dimensional_networks_predict_volumes_slice_by_slice(rng):
    model = net()
    volume = rng.random((1, 3, 19, 22), np.float32)
    dense = model.predict_dense(volume)
    assert dense.shape == (2, 3, 14, 17)
    for z in range(3):
        assert np.array_equal(dense[:, z], model.predict_dense(volume[:, z]))


def test_mfp_of_networks_with_several_parents_and_pool_nodes(rng):
    """A prediction node that joins two branches, each pooled by its own Pool nodes, in another order."""
    x = nm.Input((1, 1, 14, 14), "b,f,x,y", name="x")
    a = nm.Pool(nm.Pool(nm.Conv(x, 2, (3, 3)), (2, 1)), (1, 2))
    b = nm.Pool(nm.Conv(x, 3, (3, 3)), (2, 2))
    joined = nm.Concat([a, b], name="joined")
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, prediction_node=joined)
    mfp = nm.model.rebuild_model(model, override_mfp_to_active=True)
    assert sum(type(n).__name__ == "FragmentsToDense" for n in mfp.nodes.values()) == 2
    raw = rng.random((1, 31, 27), np.float32)
    np.testing.assert_allclose(mfp.predict_dense(raw), model.predict_dense(raw), atol=1e-6)
    nm.model_manager.newmodel(None)
    x = nm.Input((1, 1, 14, 14), "b,f,x,y", name="x")
    last = nm.Conv(x, 2, (3, 3), (2, 2), name="last")
    nm.model_manager.getmodel().designate_nodes(x, prediction_node=last)
    mfp = nm.model.rebuild_model(nm.model_manager.getmodel(), override_mfp_to_active=True)
    np.testing.assert_allclose(mfp.predict_dense(raw), last.predict_dense(raw), atol=1e-6)


def test_names_run_on():
    x = nm.Input((1, 2, 9), "b,f,x")
    assert [nm.Conv(x, 1, 1).name for _ in range(3)] == ["conv", "conv1", "conv2"]
    assert nm.Conv(x, 1, 1, name="conv").name == "conv3"
    assert nm.model_manager.getmodel().node_count == 5


def test_target_of_other_voxels_is_warned_about(caplog):
    model = net()
    x, probs = model.input_node, model.prediction_node
    assert "labels of other voxels" not in caplog.text
    with caplog.at_level("WARNING", "elektronn2log"):
        model.designate_nodes(x, nm.Input((None, 1, 4, 4), "b,f,x,y", name="unplaced"), prediction_node=probs)
    assert "strides of target 'unplaced' are (1, 1), those of the prediction 'softmax' are (2, 2)" in caplog.text
    assert "offsets of target 'unplaced' are (0, 0), those of the prediction 'softmax' are (2, 2)" in caplog.text


def test_dense_models_are_not_warned_about(caplog):
    with caplog.at_level("WARNING", "elektronn2log"):
        nm.model.rebuild_model(net(), override_mfp_to_active=True, imposed_batch_size=1)
    assert "labels of other voxels" not in caplog.text


def test_mixing_is_one_number_for_all_or_a_list():
    x = nm.Input((2, 3), "b,f")
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, loss_node=nm.AggregateLoss([x, x]))
    model.mixing = 2
    assert model.mixing.tolist() == [2, 2]
    model.mixing = [1, 3]
    assert model.mixing.tolist() == [1, 3]
    with pytest.raises(ValueError, match="mixing_weights"):
        model.mixing = [1, 2, 3]


@pytest.mark.parametrize("dtype", [np.int16, np.dtype("int16")])
def test_dtypes_of_numpy(dtype, tmp_path):
    x = nm.Input((2, 3), "b,f", dtype=dtype, name="x")
    like, value = nm.Input_like(x, dtype, name="like"), nm.ValueNode((2,), "f", dtype=dtype, name="constant")
    assert x.output.dtype == like.output.dtype == value.output.dtype == "int16"
    nm.model_manager.getmodel().save(tmp_path / "m.mdl")
    model = nm.model.modelload(tmp_path / "m.mdl")
    assert {model[n].output.dtype for n in ("x", "like", "constant")} == {"int16"}
    with pytest.raises(ValueError, match="unknown dtype 'complex64'"):
        nm.Input((2, 3), "b,f", dtype=np.complex64)


def test_managers():
    manager = nm.model_manager
    default = manager.getmodel()
    other = manager.newmodel("b")
    assert manager.getmodel() is other and manager.last is default and repr(manager) == "['default', 'b']"
    assert manager.togglemodel() is default and manager.getmodel("b") is other
    with pytest.raises(ValueError, match="There is a model 'b' already"):
        manager.newmodel("b")
    with pytest.raises(RuntimeError, match="exists already"):
        manager.setdefault()


def test_a_file_that_lacks_a_weight_is_refused(tmp_path):
    description, tensors = serialize.describe(net())
    del tensors["conv/w"]
    (tmp_path / "m.mdl").write_bytes(safetensors.numpy.save(tensors, metadata={serialize.KEY: json.dumps(description)}))
    current = nm.model_manager.getmodel()
    with pytest.raises(ModelFileError, match=r"conv/w.*missing"):
        nm.model.modelload(tmp_path / "m.mdl")
    assert nm.model_manager.getmodel() is current, "a failed load leaves the current model current"


def test_shared_weights_are_trained_wherever_their_owner_is(rng):
    x = nm.Input((1, 1, 8, 8), "b,f,x,y", name="x")
    own = nm.Conv(x, 2, (3, 3), name="own")
    user = nm.Conv(x, 2, (3, 3), w=own.w, name="user")
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, loss_node=nm.AggregateLoss(user), prediction_node=user)
    before = own.w.get_value()
    model.lr = 0.1
    model.trainingstep(rng.random((1, 1, 8, 8), np.float32))
    assert not np.array_equal(own.w.get_value(), before)


def test_precision_that_a_model_was_not_built_in(rng):
    model = net()
    config.precision = "float64"
    with pytest.raises(ValueError, match="made in single precision"):
        model.predict(rng.random((1, 1, 12, 12), np.float32))


def test_options_that_would_be_ignored_are_refused():
    x = nm.Input((1, 1, 8, 8), "b,f,x,y", name="x")
    with pytest.raises(ValueError, match="no value to hold constant"):
        nm.Conv(x, 2, 3, w=[None, "const"])
    model = net()
    with pytest.raises(TypeError, match="Unknown option 'remove_bn'.*Did you mean 'replace_bn'"):
        nm.model.rebuild_model(model, remove_bn=True)
    with pytest.raises(ValueError, match="number of nodes or a list of names"):
        nm.model.rebuild_model(model, lock_trainable_params="conv")
    for name, value in [("lr", -1), ("lr", "a"), ("mom", float("nan"))]:
        with pytest.raises(ValueError, match="must be a number of at least 0"):
            setattr(model, name, value)


def test_small_volumes_of_same_padding_networks_take_one_pass(rng):
    x = nm.Input((1, 1, 32, 32), "b,f,x,y", name="x")
    out = nm.Conv(nm.Conv(x, 2, 5, conv_mode="same"), 2, 5, conv_mode="same", activation_func="lin")
    raw = rng.random((1, 8, 9), np.float32)
    nm.model_manager.getmodel().designate_nodes(x, prediction_node=out)
    whole = nm.model.rebuild_model(nm.model_manager.getmodel(), imposed_patch_size=(8, 9)).predict(raw[None])[0]
    np.testing.assert_allclose(out.predict_dense(raw), whole, atol=1e-6)


def test_functions_of_torch_can_be_saved(rng):
    x = nm.Input((1, 2), "b,f", name="x")
    y = nm.ApplyFunc(nm.ApplyFunc(x, torch.tanh), torch.Tensor.abs)
    nm.model_manager.getmodel().designate_nodes(x, prediction_node=y)
    copy = nm.model.rebuild_model(nm.model_manager.getmodel())
    assert np.array_equal(copy.predict(np.array([[-1.0, 2.0]])), np.tanh([[1, 2]]).astype(np.float32))


def test_reversed_views_are_accepted(rng):
    model = net()
    x, _ = data(rng, model)
    np.testing.assert_array_equal(model.predict(x[:, :, ::-1]), model.predict(np.ascontiguousarray(x[:, :, ::-1])))


def test_errors_and_loss_agree_on_what_is_unlabelled(rng):
    """Any negative id is; one above the classes is an error, for each of both."""
    model = net()
    x, t = data(rng, model)
    t[:, :, :2] = -1
    negative = model.predict_ext(x, t)[:2]
    t[:, :, :2] = -128
    assert np.array_equal(model.predict_ext(x, t)[:2], negative)
    t[:, :, :2] = 255
    for node in (model.loss_node, model.error_node or model.prediction_ext[1]):
        with pytest.raises(ValueError, match="'target' holds the id 255"):
            node(x, t)


def test_dense_prediction_of_joined_space_and_integer_sources():
    x = nm.Input((1, 1, 9, 9), "b,f,x,y", name="x")
    c = nm.Conv(x, 2, 3)
    with pytest.raises(ValueError, match="joined along f"):
        nm.Concat([c, c], axis="x").predict_dense(np.zeros((1, 12, 12)))
    i = nm.Input((1, 1, 9, 9), "b,f,x,y", dtype="uint8", name="i")
    with pytest.raises(ValueError, match="make the input floating point"):
        nm.Crop(i, 1).predict_dense(np.zeros((1, 12, 12), np.uint8))


def test_nothing_to_train():
    model = nm.model.rebuild_model(net(), make_weights_constant=True)
    with pytest.raises(ValueError, match="no trainable parameters.*unlock_all_params"):
        model.trainingstep(np.zeros((1, 1, 12, 12)), np.zeros((1, 1, 4, 4)))
