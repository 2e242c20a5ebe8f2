"""Models of the first ELEKTRONN2: its own files with what it computed, and files of every node class written as it did."""
import json
import random
from pathlib import Path

import numpy as np
import old_models
import pytest
from old_models import OLD, Name, NodeDescriptor, NodePointer
from test_family import BATCH_OF_ONE, MFP, SAMPLES, build, compare_models, settle

from elektronn2 import neuromancer as nm
from elektronn2.errors import ModelFileError
from elektronn2.neuromancer import legacy, serialize
from elektronn2.neuromancer.model import modelload, params_from_model_file, rebuild_model
from elektronn2.neuromancer.variables import TransposedParam

ORACLE = Path(__file__).parents[1] / "oracle"


def oracle(name):
    """(path of the old file, facts, numbers) of a case."""
    with np.load(ORACLE / f"{name}.npz") as f:
        arrays = {k: f[k] for k in f.files}
    return ORACLE / "legacy" / f"{name}.mdl", json.loads((ORACLE / f"{name}.json").read_text()), arrays


def close(got, wanted):
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


# -- files that the original wrote ----------------------------------------------------------------------
@pytest.mark.parametrize("name", ["dense2d", "dense3d"])
def test_dense_predictions_of_the_original(name):
    """predict_dense of an old file, as it is, with constant weights, and with max-fragment pooling, against what the
    original computed from the same network."""
    path, info, arrays = oracle(name)
    model = modelload(path)
    close(model.predict_dense(arrays["img"]), arrays["dense"])
    close(model.predict_dense(arrays["img"], pad_raw=True), arrays["dense_pad"])
    constant = modelload(path, make_weights_constant=True, imposed_batch_size=1)
    close(constant.predict_dense(arrays["img"]), arrays["const_dense"])
    assert not constant.loss_node.all_trainable_params
    fast = modelload(path, override_mfp_to_active=True, imposed_batch_size=1, imposed_patch_size=info["imposed_mfp_patch"])
    assert fast.input_node.shape.spatial_shape == info["imposed_mfp_patch"]
    close(fast.predict_dense(arrays["img"]), arrays["mfp_dense"])


@pytest.mark.parametrize("name", ["dense2d", "dense3d", "mdl_and_bn"])
def test_nodes_of_the_original(name):
    """Names, order, roles and shapes of the nodes, and all parameters, against the original's; Conv kernels are reversed."""
    path, info, arrays = oracle(name)
    model = modelload(path)
    assert set(model) - {"cls for errors"} == set(info["nodes"])
    for node, facts in info["nodes"].items():
        assert model[node].shape.shape == facts["shape"] and model[node].shape.strides.tolist() == facts["strides"]
        assert type(model[node]).__name__ == facts["cls"] and [p.name for p in model[node].parents] == facts["parents"]
    for key in (k for k in arrays if k.startswith("param/")):
        _, node, param = key.split("/")
        wanted = arrays[key][..., ::-1, ::-1] if param == "w" else arrays[key]
        wanted = wanted[..., ::-1, :, :] if param == "w" and wanted.ndim == 5 else wanted
        np.testing.assert_array_equal(model[node].params[param].get_value(), wanted)
        np.testing.assert_array_equal(params_from_model_file(path)[node][param], wanted)


def test_batch_normalisation_of_the_original():
    """Every replacement of batch normalisation, and the batch statistics, against the original's predictions."""
    path, info, arrays = oracle("mdl_and_bn")
    model = modelload(path)
    assert model.designations == info["mdl_designated"]
    close(model.predict(arrays["x"], mode="train"), arrays["pred_train_mode"])
    close(model.predict(arrays["x"]), arrays["pred_predict"])
    for mode in ("remove", "predict", "const"):
        changed = modelload(path, replace_bn=mode)
        close(changed.predict(arrays["x"]), arrays[f"pred_{mode}"])
        assert repr(changed["c0"]).split() == info[f"repr_{mode}"].split()


def test_targets_follow_the_prediction():
    """A target of an old file is resized with the input: it is linked to the node that it was made like."""
    path, info, _ = oracle("dense3d")
    larger = modelload(path, imposed_patch_size=(6, 15, 15), imposed_batch_size=3)
    assert larger.target_node.shape.shape == [3, 1, *larger.prediction_node.shape.spatial_shape]
    assert larger.target_node.shape.spatial_shape != info["nodes"]["t"]["shape"][2:]


def test_locking_and_naming():
    """The remaining options reach the model."""
    path, _, _ = oracle("dense2d")
    model = modelload(path, name="mine", lock_trainable_params=["c0"])
    assert model.name == "mine" and nm.model_manager.current is model
    assert [k for k in model.loss_node.all_trainable_params] == ["c1_w", "c1_b", "out_w", "out_b"]
    with pytest.raises(TypeError, match="lock_trainable_params"):
        modelload(path, lock_trainable_param=1)
    assert list(nm.model_manager.models) == ["mine"]


def test_conversion_is_announced(caplog):
    path, _, _ = oracle("dense2d")
    with caplog.at_level("INFO", "elektronn2log"):
        modelload(path)
    assert sum("elektronn2-convert" in r.message for r in caplog.records) == 1


# -- every node class, written as the original wrote it -------------------------------------------------
def is_old(model):
    """Whether the original had the classes and arguments of all nodes, and could save them (not transposed weights)."""
    if any(isinstance(v, TransposedParam) for a in model.arguments.values() for v in a.values()):
        return False
    return all(type(n).__name__ in OLD and (model.arguments[n.name].keys() - {"offsets"} <= set(OLD[type(n).__name__][1])
                                            or getattr(n, "piece", None)) for n in model.nodes.values())


ALL = [(name, make, 1 if name in BATCH_OF_ONE or makes is MFP.get(name) else 2) for samples in (SAMPLES, MFP)
       for name, makes in samples.items() for make in makes if name in OLD and name != "ApplyFunc"]


@pytest.mark.parametrize(("name", "make", "batch"), ALL, ids=[f"{n}{i}" for i, (n, _, _) in enumerate(ALL)])
def test_every_class(name, make, batch, tmp_path):
    """The sample, from an old file, against itself: names, prints, shapes, parameters and values in both modes."""
    node = build(make, batch)
    model = nm.model_manager.getmodel()
    if not is_old(model):
        pytest.skip("uses what the original did not have")
    settle(model)
    for n in model.nodes.values():
        if "init_weight" in n.params:  # running averages were taken as they are
            n.params["init_weight"].set_value(0.0)
        if "class_weights" in n.params:  # these were no parameter
            n.params["class_weights"].set_value(model.arguments[n.name]["class_weights"])
    if name == "FromTensor" and not model.splits:
        pytest.skip("pieces that have names of their own")
    old_models.write(model, tmp_path / "old.mdl")
    compare_models(model, modelload(tmp_path / "old.mdl"), node)


def network():
    """Convolutions with everything that they can have, a split, a shared kernel, dropout and a dense layer."""
    x = nm.Input((2, 2, 16, 17), "b,f,x,y", name="image")
    c = nm.Conv(x, 4, (3, 4), (2, 2), batch_normalisation="train", dropout_rate=0.2, activation_func="prelu")
    a, b = nm.split(nm.Conv(c, 6, (3, 2)), n_out=2)
    first = nm.Conv(a, 3, (2, 3), name="first")
    joined = nm.Concat([first, nm.Conv(b, 3, (2, 3), w=first.w, activation_func="tanh")])
    probs = nm.Softmax(nm.Perceptron(nm.Conv(joined, 5, 1, w=[np.ones((5, 6, 1, 1)), "const"]), 3, "lin"), name="probs")
    target = nm.Input_like(probs, override_f=1, dtype="int16", name="target")
    loss = nm.AggregateLoss(nm.MultinoulliNLL(probs, target, True, class_weights=[1, 2, 3]))
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, target, loss, probs, [loss, probs], debug_outputs=[joined])
    settle(model)
    model["conv"].set_param_values({"init_weight": 0.0})
    model["nll"].set_param_values({"class_weights": [1, 2, 3]})
    return model


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("python2", [False, True])
def test_whole_network(python2, zipped, tmp_path):
    """A network with splits, sharing and constants, from files of Python 2 and 3, gzip'd or not, against itself."""
    model = network()
    old_models.write(model, tmp_path / "old.mdl", python2, zipped)
    loaded = modelload(tmp_path / "old.mdl")
    compare_models(model, loaded, model.loss_node)
    assert loaded.designations == model.designations
    assert loaded["conv2"].w is loaded["first"].w and loaded["conv3"].w.constant
    loaded.save(tmp_path / "new.mdl")
    compare_models(model, modelload(tmp_path / "new.mdl"), model.loss_node)


@pytest.mark.parametrize("last_only", [False, True])
def test_scan(last_only, tmp_path):
    """A loop over an LSTM, whose results the original split off the loop, against itself."""
    x = nm.Input((5, 3, 4), "r,b,f", name="data")
    first, _ = nm.split(x, "r", 1, strip_singleton_dims=True)
    memory = nm.InitialState_like(first, 6)
    cell = nm.LSTM(first, memory, 3, name="cell")
    out = nm.Scan(cell, memory, in_iterate=x, in_iterate_0=first, last_only=last_only)
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, prediction_node=out)
    settle(model)
    old_models.write(model, tmp_path / "old.mdl")
    loaded = modelload(tmp_path / "old.mdl")
    assert loaded.prediction_node.name == "scan_out_cell"
    compare_models(model, loaded, out)


def test_other_order_of_axes(rng, tmp_path):
    """A file with axes b,z,f,x,y, as the original allowed, against the same network with b,f,z,x,y."""
    x = nm.Input((1, 2, 5, 9, 8), "b,f,z,x,y")
    c = nm.Concat([nm.Conv(x, 4, (2, 3, 1)), nm.Conv(x, 3, (2, 3, 1), w=[rng.normal(size=(3, 2, 2, 3, 1)), "const"])])
    a, _ = nm.split(nm.Conv(c, 4, (3, 2, 3)), n_out=2)
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, prediction_node=a)

    def swap(entries):
        for entry in entries.values():
            if not isinstance(entry, list):
                entry.kwargs["axis"] = 2
                continue
            descriptor, params = entry
            if "w" in params:
                params["w"] = params["w"].swapaxes(1, 2).copy()
            if "w" in descriptor.kwargs:
                descriptor.kwargs["w"][0] = descriptor.kwargs["w"][0].swapaxes(1, 2).copy()
            if descriptor.cls.name == "Input":
                descriptor.args[:2] = [(1, 5, 2, 9, 8), "b,z,f,x,y"]
            if descriptor.cls.name == "Concat":
                descriptor.kwargs["axis"] = 2
    old_models.write(model, tmp_path / "old.mdl", change=swap)
    loaded = modelload(tmp_path / "old.mdl")
    image = rng.random((1, 2, 5, 9, 8), np.float32)
    np.testing.assert_array_equal(loaded.predict(image), model.predict(image))


def test_unet(rng, tmp_path):
    """A U-Net, whose target had an unknown field of view in the original: it is where the prediction is, and is resized."""
    x = nm.Input((1, 1, 30, 26), "b,f,x,y", name="image")
    fine = nm.Conv(x, 3, 3)
    coarse = nm.Conv(nm.Conv(fine, 4, 3, 2), 4, 3)
    probs = nm.Softmax(nm.Conv(nm.UpConvMerge(coarse, fine, 4), 2, 1, activation_func="lin"))
    target = nm.Input_like(probs, override_f=1, dtype="int16", name="target")
    loss = nm.AggregateLoss(nm.MultinoulliNLL(probs, target, target_is_sparse=True))
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, target, loss, probs)

    def unknown(entries):
        descriptor, _ = entries[model.target_node.name]
        n = model.target_node.shape.ndim
        descriptor.kwargs.update(fov=[-1] * n)
        descriptor.args[2] = np.ones(n)
    old_models.write(model, tmp_path / "old.mdl", change=unknown)
    loaded = modelload(tmp_path / "old.mdl")
    assert loaded.target_node.shape == model.target_node.shape
    assert loaded.target_node.shape.centre == loaded.prediction_node.shape.centre
    image = rng.random([1, *model.input_node.shape.shape[1:]], np.float32)
    np.testing.assert_array_equal(loaded.predict(image), model.predict(image))
    sizes = [n + 8 for n in model.input_node.shape.spatial_shape]
    larger, other = modelload(tmp_path / "old.mdl", imposed_patch_size=sizes), rebuild_model(model, imposed_patch_size=sizes)
    assert larger.target_node.shape == other.target_node.shape != loaded.target_node.shape


def test_functions_are_imported_only_when_allowed(rng, tmp_path):
    """ApplyFunc names a function: it is not imported unless the caller says so."""
    x = nm.Input((2, 3), "b,f")
    model = nm.model_manager.getmodel()
    model.designate_nodes(x, prediction_node=nm.Node(x))

    def write(module, function):
        def add(entries):
            entries["f"] = [NodeDescriptor(cls=Name("elektronn2.neuromancer.node_basic", "ApplyFunc"), kwargs={},
                                           args=[NodePointer(target_id="input"), Name(module, function)]), {}]
        old_models.write(model, tmp_path / "old.mdl", change=add)
    write("torch", "tanh")
    with pytest.raises(ModelFileError, match="'f'.*calls the function 'torch:tanh'.*allow_functions=True"):
        modelload(tmp_path / "old.mdl")
    array = rng.random((2, 3), np.float32)
    np.testing.assert_allclose(modelload(tmp_path / "old.mdl", allow_functions=True)["f"](array), np.tanh(array), rtol=1e-5)
    write("os", "system")
    with pytest.raises(ModelFileError, match="os:system"):
        modelload(tmp_path / "old.mdl")


# -- files that are refused -----------------------------------------------------------------------------
def rename(*name):
    return lambda e: setattr(e["first"][0], "cls", Name(*name))


def endless(entries):
    args = entries["first"][0].args
    args[2] = [args]


def wide(entries):
    value = [0]
    for _ in range(15):
        value = [value] * 10
    entries["first"][0].args[2] = value


def parent(pointer):
    return lambda e: e["first"][0].args.__setitem__(0, pointer)


def upconv(entries):
    descriptor, _ = entries["conv2"]
    descriptor.cls = Name("elektronn2.neuromancer.neural", "UpConv")


DAMAGE = {  # a change of the descriptors of ``network``, and words of the error
    "skeletons": (rename("elektronn2.neuromancer.various", "SkelPrior"), "'first'.*SkelPrior.*skeletons"),
    "unknown class": (rename("elektronn2.neuromancer.neural", "Convv"), "'first'.*Convv does not exist"),
    "function for a class": (rename("os", "system"), "'first'.*os.system does not exist"),
    "known class elsewhere": (rename("os", "Conv"), "'first'.*os.Conv does not exist"),
    "class that is a text": (lambda e: setattr(e["first"][0], "cls", "Conv"), "'first'.*its class is no class"),
    "name as an argument": (lambda e: e["first"][0].kwargs.update(conv_mode=Name("os", "x")), "'first'.*name os.x"),
    "no such parent": (parent(NodePointer(target_id="nobody")), "'first'.*'nobody'"),
    "no target": (parent(NodePointer()), "'first'.*target_id"),
    "unknown argument": (lambda e: e["first"][0].kwargs.update(colour=1), "'first'.*colour"),
    "weights are missing": (lambda e: e["first"][1].pop("w"), "'first'.*lacks its parameters.*'w'"),
    "bias is missing": (lambda e: e["first"][1].pop("b"), "'first'.*lacks its parameters.*'b'"),
    "more features than weights": (lambda e: e["first"][0].args.__setitem__(1, 10 ** 12), "'first'.*shape"),
    "weights of another shape": (lambda e: e["first"][1].update(w=np.ones((3, 3, 2, 2), "float32")), "'first'.*shape"),
    "weights that are a list": (lambda e: e["first"][1].update(w=[1.0]), "'first'.*no arrays"),
    "more weights": (lambda e: e["first"][1].update(v=np.ones(3, "float32")), r"'first'.*\['v'\]"),
    "no descriptor": (lambda e: e.update(first=[1, 2]), "'first'.*neither a NodeDescriptor"),
    "split by another function": (lambda e: setattr(e["split"], "func", Name("os", "system")), "'split'.*another function"),
    "split of nothing": (lambda e: setattr(e["split"], "node_id", "nobody"), "'split'.*'nobody'"),
    "list that holds itself": (endless, "'first'.*nested without end"),
    "list of lists of lists": (wide, "'first'.*nested without end"),
    "kernel shared with an UpConv": (upconv, "'conv2'.*shares the kernel of 'first'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage(name, tmp_path):
    """The error names file and node, and no half-read model stays."""
    change, message = DAMAGE[name]
    old_models.write(network(), tmp_path / "old.mdl", change=change)
    before = list(nm.model_manager.models), nm.model_manager.current
    with pytest.raises(ValueError, match=f"old.mdl.*{message}"):
        modelload(tmp_path / "old.mdl")
    assert (list(nm.model_manager.models), nm.model_manager.current) == before


def test_damage_at_any_place(tmp_path):
    """An old file with some bytes changed: a ValueError, or a model; nothing else, and no half-read model stays."""
    data, rng, read = oracle("mdl_and_bn")[0].read_bytes(), random.Random(1), 0
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(data))] = rng.choice(b"RbK0c.(tueN\x85\x86" + bytes([rng.randrange(256)]))
        (tmp_path / "old.mdl").write_bytes(changed)
        try:
            legacy.load(tmp_path / "old.mdl")
            read += 1
        except ValueError:
            pass
        assert not nm.model_manager.models
    assert 5 < read < 145


@pytest.mark.parametrize("content, message", [
    ([1, 2, 3], "no model of ELEKTRONN2"), (({}, {"colour": "red"}), "designations: 'colour'"),
    (({}, {"input_node": 1}), "designations: 'input_node'"), (({}, {"input_node": "nobody"}), "nobody")])
def test_foreign_pickles(content, message, tmp_path):
    (tmp_path / "old.mdl").write_bytes(old_models.pickled(content))
    with pytest.raises(ModelFileError, match=message):
        modelload(tmp_path / "old.mdl")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.mdl"):
        modelload(tmp_path / "nothing.mdl")
    with pytest.raises(FileNotFoundError, match=r"nothing\.mdl"):
        legacy.load(tmp_path / "nothing.mdl")
    with pytest.raises(ModelFileError, match="modelload reads it"):
        serialize.load(oracle("dense2d")[0])
