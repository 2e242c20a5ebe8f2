"""What users may give by mistake: each is an error that says where, what and what to do, and leaves nothing behind."""
import json
import re

import numpy as np
import pytest
import safetensors.numpy
import torch

from elektronn2 import neuromancer as nm
from elektronn2.errors import ModelFileError
from elektronn2.neuromancer import serialize
from elektronn2.neuromancer.graphutils import TaggedShape, make_func

QUIET = dict(print_repr=False)
X = "[(1,b), (2,f), (6,x), (7,y)]"


def image(sizes=(6, 7), n_f=2, b=1, tags="b,f,x,y", **kwargs):
    return nm.Input((b, n_f, *sizes), tags, **QUIET, **kwargs)


def vector(**kwargs):
    return nm.Input((1, 3), "b,x", **QUIET, **kwargs)


def foreign():
    """A node of a model that is not the current one."""
    current = nm.model_manager.current
    nm.model_manager.newmodel("foreign")
    node = image(name="there")
    nm.model_manager.current = current
    return node


def cell(n_units=2, n_f=3, **kwargs):
    x, h = (nm.Input((1, n), "b,f", name=name, **QUIET, **kwargs) for name, n in (("input", n_f), ("input_h", 2)))
    return nm.GRU(x, h, n_units, **QUIET)


def conv(parent=None, n_f=2, filter_shape=2, **kwargs):
    return nm.Conv(image() if parent is None else parent, n_f, filter_shape, **QUIET, **kwargs)


def net():
    node = conv(image((6, 6), 1), 2, 3)
    node.model.designate_nodes(input_node="input", prediction_node=node)
    return node


def mixed():
    a, b = image(), image()
    loss = nm.AggregateLoss([nm.AbsLoss(conv(a), conv(b), **QUIET), nm.SquaredLoss(a, b, **QUIET)], **QUIET)
    loss.model.designate_nodes(loss_node=loss)
    return loss.model


def normalised():
    return conv(batch_normalisation="predict", mean=[0, 0], std=[1, 1])


def diverged():
    node = net()
    with torch.no_grad():
        node.w.tensor.view(-1)[0] = np.nan
    return node


NODES = {
    # sizes and axes of sources
    "float size": (lambda: nm.Input((1, 1, 8.5, 8), "b,f,x,y"), TypeError, "each an integer or None, got (1, 1, 8.5, 8)"),
    "size 0": (lambda: nm.Input((1, 1, 0, 8), "b,f,x,y"), ValueError, "at least 1, got (1, 1, 0, 8)"),
    "size as text": (lambda: nm.Input((1, "8"), "b,f"), TypeError, "got (1, '8')"),
    "one number as shape": (lambda: nm.Input(5, "b"), TypeError, "a sequence of sizes"),
    "stride 0": (lambda: nm.Input((1, 2, 3), "b,f,x", strides=[0]), ValueError, "strides must be positive, got [0]"),
    "strides as text": (lambda: nm.Input((1, 2, 3), "b,f,x", strides="a"), ValueError, "strides must be a finite number"),
    "NaN as offset": (lambda: nm.Input((1, 2, 3), "b,f,x", offsets=[np.nan]), ValueError, "offsets must be a finite"),
    # features and dtypes of layers
    "n_f 2.7": (lambda: conv(n_f=2.7), TypeError, "n_f of Conv 'conv' must be one integer, got 2.7"),
    "n_f 0": (lambda: nm.Perceptron(image(), 0), ValueError, "n_f of Perceptron 'dot' must be at least 1, got 0"),
    "n_f True": (lambda: nm.UpConv(image(), True, 2), TypeError, "n_f of UpConv 'upconv' must be one integer"),
    "n_f list": (lambda: conv(n_f=[2]), TypeError, "n_f of Conv 'conv' must be one integer, got [2]"),
    "n_f 2.7 of a cell": (lambda: cell(2.7), TypeError, "n_f of GRU 'gru' must be one integer, got 2.7"),
    "n_f 0 of a cell": (lambda: cell(0), ValueError, "n_f of GRU 'gru' must be at least 1, got 0"),
    "n_groups 2.0": (lambda: nm.GroupNorm(image(), 2.0), TypeError, "n_groups of GroupNorm 'group_norm' must be one"),
    "reduction 0": (lambda: nm.SqueezeExcitation(image(), 0), ValueError, "'squeeze' must be at least 1, got 0"),
    "n_class True": (lambda: nm.Softmax(image(), True), TypeError, "n_class of Softmax 'softmax' must be one integer"),
    "open f of a cell": (lambda: cell(n_f=None), ValueError, "GRU 'gru' must know the number of features; 'input' is"),
    "open f of Softmax": (lambda: nm.Softmax(image(n_f=None)), ValueError, "Give its source a size on axis f."),
    "integers before a cell": (lambda: cell(dtype="int16"), TypeError,
                               "GRU 'gru' computes with float32, but 'input' has int16"),
    "integers before Softmax": (lambda: nm.Softmax(image(dtype="int16")), TypeError, "computes with floating point, but"),
    "std 0": (lambda: conv(batch_normalisation="predict", std=[1, 0]), ValueError, "std must be above 0, features are"),
    "initial vector": (lambda: nm.InitialState_like(image(), 3, init_kwargs=dict(mode="uni")), ValueError,
                       "shape (3,) does not tell: two axes that are not spatial are needed. A vector can have mode 'const'"),
    "unknown initial values": (lambda: nm.InitialState_like(image(), 3, init_kwargs=dict(mode="constt")), ValueError,
                               "got 'constt'. Did you mean 'const'?"),
    "constant text": (lambda: nm.InitialState_like(image(), 3, init_kwargs=dict(mode="const")), ValueError,
                      "scale must be a number for mode 'const', got 'glorot'"),
    "halves as integers": (lambda: nm.ValueNode((2,), "f", dtype="int32", value=[1.5, 2]), ValueError,
                           "of dtype int32 cannot hold [1.5, 2.0] without change. Round the values"),
    "large integers": (lambda: nm.ValueNode((2,), "f", dtype="int16", value=np.array([40000, 1])), ValueError,
                       "of dtype int16 cannot hold [40000, 1]"),
    "complex value": (lambda: nm.ValueNode((2,), "f", value=[1j, 2]), ValueError, "argument 'value' must be None, an array"),
    "open f": (lambda: conv(nm.Input((1, None, 6), "b,f,x")), ValueError, "'conv' must know the number of features; 'i"),
    "no axis f": (lambda: nm.Perceptron(vector(), 2), ValueError, "'dot' needs an axis f; 'input' is [(1,b), (3,x)]"),
    "integers before Conv": (lambda: conv(image(dtype="int16")), TypeError, "Conv 'conv' computes with float32, but 'in"),
    "half precision before Conv": (lambda: conv(image(dtype="float16")), TypeError, "'input' has float16. Make the source"),
    "double before UpConv": (lambda: nm.UpConv(image(dtype="float64"), 2, 2), TypeError, "UpConv 'upconv' computes with"),
    # options of layers
    "dropout as text": (lambda: conv(dropout_rate="a"), TypeError, "dropout_rate of Conv 'conv' must be a number, got 'a'"),
    "dropout 1": (lambda: conv(dropout_rate=1), ValueError, "dropout_rate of Conv 'conv' must be in [0, 1), got 1"),
    "list of activations": (lambda: conv(activation_func=["relu"]), TypeError, "by its name, like 'relu', got ['relu']"),
    "batch_normalisation=True": (lambda: conv(batch_normalisation=True), ValueError, "'conv': batch_normalisation must be"),
    "filter 2.5": (lambda: conv(filter_shape=2.5), TypeError, "filter_shape of Conv 'conv' must be one integer or 2"),
    "filter of 3 axes": (lambda: conv(filter_shape=(1, 2, 2)), ValueError, "filter size 1 on an axis that is not"),
    "filter too large": (lambda: conv(filter_shape=9), ValueError, f"Conv 'conv' after 'input' {X}"),
    "pool 0": (lambda: nm.Pool(image(), 0), ValueError, "pool_shape of Pool 'pool' must be at least 1 on every axis, got 0"),
    "odd pooling": (lambda: nm.Pool(image(), 2), ValueError, f"Pool 'pool' after 'input' {X}"),
    "odd crop": (lambda: nm.AutoMerge(image((6, 6)), image((5, 6)), **QUIET), ValueError, "differ by an odd number"),
    "crop 1.5": (lambda: nm.Crop(image(), 1.5), TypeError, "crop of Crop 'crop' must be one integer"),
    "crop too much": (lambda: nm.Crop(image(), 3), ValueError, "Crop 'crop': cannot remove 2 x 3 voxels"),
    "pad with text": (lambda: nm.Pad(image(), 1, "a"), TypeError, "value of Pad 'pad' must be a number, got 'a'"),
    "w of another shape": (lambda: conv(w=np.ones((2, 2))), ValueError, "Conv 'conv': argument 'w' must have shape"),
    "shared w of another shape": (lambda: conv(w=nm.Perceptron(image(), 3, **QUIET).w), ValueError, "shared parameter has"),
    "a node as w": (lambda: conv(w=image()), ValueError, "argument 'w' must be None, an array, a parameter of another node"),
    # parents
    "list as parent": (lambda: conv([image()]), TypeError, "Conv 'conv': its parent must be one node"),
    "name as parent": (lambda: nm.Pool("conv", 2), TypeError, "Pool 'pool': its parent must be one node, got 'conv'"),
    "None as parent": (lambda: nm.Crop(None, 2), TypeError, "Crop 'crop': its parent must be one node, got None"),
    "array to add": (lambda: nm.Add(image(), np.ones(3)), TypeError,
                     "parent 2 of 2 must be a node, got an array of shape (3,)"),
    "axis True": (lambda: nm.Concat([image(), image()], axis=True), ValueError,
                  "there is no axis True; axes are b, f, x, y"),
    "nothing in fragments": (lambda: nm.FragmentsToDense(image(b=2)), ValueError,
                             "has no fragments of max-fragment pooling"),
    "nothing to join": (lambda: nm.Concat([]), ValueError, "Concat needs a list of nodes, got []"),
    "array to join": (lambda: nm.Concat([image(), 3]), TypeError, "Concat 'concat': parent 2 of 2 must be a node, got 3"),
    "other axes to join": (lambda: nm.Concat([image(), vector()]), ValueError, f"'input' has axes {X} but 'input1'"),
    "other sizes to join": (lambda: nm.Concat([image(), image((5, 7))]), ValueError, "sizes on axis 'x' differ: 'input'"),
    "axis that is not there": (lambda: nm.Concat([image(), image()], axis="z"), ValueError, "there is no axis 'z'"),
    "axis 7": (lambda: nm.Concat([image(), image()], axis=7), ValueError, "there is no axis 7; axes are b, f, x, y"),
    "other features to multiply": (lambda: nm.MultMerge(image(), image(n_f=3)), ValueError, "sizes on axis 'f' differ"),
    "number to merge": (lambda: nm.AutoMerge(image(), 3), TypeError, "AutoMerge 'merge': its parents must be two nodes"),
    "node of another model": (lambda: nm.Add(image(), foreign()), ValueError,
                              "Add 'add' cannot have parents from different models: 'input' of model 'default', 'there' of "
                              "model 'foreign'. New sources go to the current model, 'default'"),
    "weight of another model": (lambda: conv(image(), w=conv(foreign(), name="far").w), ValueError,
                                "the parameter of 'far' belongs to model 'foreign', this node to 'default'"),
    "loss of another model": (lambda: nm.SquaredLoss(image(), foreign()), ValueError, "different models: 'input' of model"),
    "no losses": (lambda: nm.AggregateLoss([]), ValueError, "parent_nodes is empty"),
    "like a number": (lambda: nm.Input_like(3), ValueError, "Input_like: ref must be a node or a TaggedShape, got 3"),
    # names, functions
    "number as name": (lambda: conv(name=3), TypeError, "The name of a node is a string, got 3"),
    "unknown argument": (lambda: conv(activation="relu"), TypeError, "unknown argument 'activation'. Did you mean"),
    "function that fails": (lambda: nm.ApplyFunc(image(), torch.linalg.inv), ValueError, f"'apply' of 'input' {X}"),
    "function that averages": (lambda: nm.ApplyFunc(image(), torch.mean, kwargs=dict(dim=1, keepdim=True)), ValueError,
                               f"turns 'input' {X} into (1, 1, 6, 7); pass shape=TaggedShape(...)"),
    "function of another shape": (lambda: nm.ApplyFunc(image(), torch.mean, shape=TaggedShape((1, 2), "b,f")), ValueError,
                                  "into (); but shape says [(1,b), (2,f)]"),
    "tuple as shape": (lambda: nm.ApplyFunc(image(), torch.abs, shape=(1, 2)), TypeError,
                       "must be a TaggedShape, got (1, 2)"),
    "function of two results": (lambda: nm.ApplyFunc(image(), torch.sort), TypeError, "must return one tensor"),
}


@pytest.mark.parametrize("name", NODES)
def test_nodes(name):
    """Wrong arguments of nodes: the message, and that the model has no node that its error was about."""
    make, error, message = NODES[name]
    with pytest.raises(error, match=re.escape(message)):
        make()
    model = nm.model_manager.getmodel()
    assert not [n for n in model.nodes if not n.startswith(("input", "dot")) and f"{n!r}" in message]


def test_an_error_names_its_node():
    """An error whose message does not is given a note that does."""
    with pytest.raises(TypeError) as caught:
        nm.Input((1, 1.5), "b,f", name="raw")
    assert caught.value.__notes__ == ["This was when Input 'raw' was made."]


USES = {
    "volume as text": (lambda: net().predict_dense("file.h5"), TypeError, "can be sliced like one, got str 'file.h5'"),
    "volume None": (lambda: net().predict_dense(None), TypeError, "got NoneType"),
    "complex volume": (lambda: net().predict_dense(np.ones((1, 9, 9), complex)), TypeError, "an array of complex128"),
    "list of integers": (lambda: net().predict_dense([[[1] * 9] * 9]), TypeError, "int64 has no known scale"),
    "no slices": (lambda: net().predict_dense(np.ones((1, 0, 9, 9))), ValueError, "image of no slices, shape (1, 0, 9, 9)"),
    "no voxels": (lambda: net().predict_dense(np.ones((1, 0, 9))), ValueError, "The volume has 0 voxels on axis 'x'; with"),
    "no channel axis": (lambda: net().predict_dense(np.ones((9, 9))), ValueError, "still needs its axis: raw[None]"),
    "channels": (lambda: net().predict_dense(np.ones((2, 9, 9))), ValueError, "needs 1 channels on axis 0"),
    "folder": (lambda: net().model.save("/"), IsADirectoryError, "/ is a folder. Give the name of a file in it"),
    "missing folder": (lambda: net().model.save("/no/such/a.mdl"), FileNotFoundError, "Choose another folder"),
    "one feature name": (lambda: setattr(net(), "feature_names", ["a"]), ValueError, "Node 'conv' with shape"),
    "number of features": (lambda: setattr(net(), "feature_names", 3), TypeError, "node 'conv' are a list of names, got 3"),
    "float as batch size": (lambda: nm.model.rebuild_model(net().model, imposed_batch_size=2.0), TypeError,
                            "imposed_batch_size must be one integer, got 2.0"),
    "batch size 0": (lambda: nm.model.rebuild_model(net().model, imposed_batch_size=0), ValueError, "must be at least 1"),
    "text as mixing": (lambda: setattr(mixed(), "mixing", "a"), ValueError, "takes numbers of shape (2,), got 'a'"),
    "number as hyper-parameters": (lambda: mixed().set_opt_meta_params("SGD", 3), TypeError, "like dict(lr=0.001), got 3"),
    "std 0 set later": (lambda: normalised().set_param_values(dict(std=[0, 1])), ValueError,
                        "Parameter 'conv_std' must be above 0, as features are divided by it; got [0.0, 1.0]"),
    "nan std set later": (lambda: normalised().std.set_value([-1, 1]), ValueError, "'conv_std' must be above 0"),
    "number for kernel lists": (lambda: nm.model.kernel_lists_from_node_descr(3), TypeError,
                                "takes a model, the path of a model file, or the description"),
    "nodes for kernel lists": (lambda: nm.model.kernel_lists_from_node_descr(net().model.node_descriptors), TypeError,
                               "takes a model, the path of a model file, or the description"),
    "node to rebuild": (lambda: nm.model.rebuild_model(net()), TypeError, "a model, such as node.model, got <Conv-Node>"),
    "number as parameters": (lambda: net().set_param_values(3), TypeError, "of node 'conv' are set from a dict, name ->"),
    "number as all parameters": (lambda: net().model.set_param_values(3), TypeError, "from a dict, a list or a file, got 3"),
    "number as parameters of a node": (lambda: net().model.set_param_values(dict(conv=3)), TypeError, "of node 'conv' are"),
    "no samples": (lambda: net().measure_exectime(n_samples=0), ValueError, "n_samples must be at least 1, got 0"),
    "array of another size": (lambda: net()(np.ones((2, 1, 3, 6))), TypeError, "3, 6) does not fit on axis 'b', 'x'."),
    "input twice": (lambda: make_func([image().output] * 2, image().output)(), ValueError, "is given twice. Give each"),
    "export of NaN": (lambda: diverged().model.export("a.pt2"), ValueError, "parameter 'w' of node 'conv' (1 of 18 values)"),
    "text as weight": (lambda: net().set_param_values(dict(w="a")), ValueError, "'conv_w' takes numbers of shape"),
    "dropout of a source": (lambda: setattr(net().model, "dropout_rates", dict(input=0.5)), ValueError, "['input']"),
    "array of text": (lambda: net()("a"), TypeError, "input: values of dtype <U1"),
    "role of another model": (lambda: net().model.designate_nodes(input_node=foreign()), ValueError,
                              "input_node 'there' belongs to model 'foreign', not to 'default'"),
    "unknown role": (lambda: net().model.designate_nodes(input_node="inputt"), KeyError, "Did you mean 'input'?"),
    "lists as roles": (lambda: net().model.designate_nodes(prediction_node=["conv"]), ValueError, "is one node, got a list"),
}


@pytest.mark.parametrize("name", USES)
def test_uses(name):
    """Wrong arguments of what nodes and models do."""
    use, error, message = USES[name]
    with pytest.raises(error, match=re.escape(message)):
        use()


# -- inputs that are fine -------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [">u2", ">f4", "tensor", "list", "tuple"])
def test_volumes_of_other_kinds(kind, rng):
    """Other byte order, tensors and lists are predicted as the array they hold."""
    node, raw = net(), rng.random((1, 9, 9)).astype("float32")
    if kind == ">u2":
        raw = (60000 * raw).astype("uint16")
    other = {"tensor": lambda: torch.from_numpy(raw), "list": raw.tolist, "tuple": lambda: tuple(raw.tolist())}
    given = other[kind]() if kind in other else raw.astype(kind)
    np.testing.assert_allclose(node.predict_dense(given), node.predict_dense(raw), atol=1e-6)


@pytest.mark.parametrize("name", ["self", "class", "x y", "1", "a/b", "torch", "ünï"])
def test_any_name(name, tmp_path):
    """Any text can name a source and a layer, through compiling and files."""
    x = nm.Input((1, 2), "b,f", name=name, **QUIET)
    y = nm.Perceptron(x, 3, name=f"{name}-", **QUIET)
    array = np.ones((1, 2), "float32")
    x.model.save(tmp_path / "a.mdl")
    np.testing.assert_array_equal(nm.model.modelload(tmp_path / "a.mdl")[f"{name}-"](array), y(array))


def test_circle_in_a_file(tmp_path):
    """A file in which two nodes are each other's parent: nodes cannot be built so, but a file can say it."""
    net().model.save(tmp_path / "a.mdl")
    description, tensors = serialize.load(tmp_path / "a.mdl")
    conv = description["nodes"][-1]
    conv["arguments"]["parent"] = {"node": conv["name"]}
    path = tmp_path / "b.mdl"
    path.write_bytes(safetensors.numpy.save(tensors, metadata={serialize.KEY: json.dumps(description)}))
    with pytest.raises(ModelFileError, match="Node 'conv': it refers to node 'conv', which is not in the file, or later"):
        nm.model.modelload(path)


DAMAGE = {
    "nodes": [None, 3, "a", {}, [None], [{}]], "designations": [None, 3, [], "a", {"input_node": 3}, {"input_node": [3]}],
    "splits": [None, 3, "a", {"split": 3}, {"split": "a"}], "format": [None, 2, "1"],
    "name": [None, 3, []], "class": [None, 3, []], "arguments": [None, 3, [], "a"], "like": [3, "a", {}, {"node": 3}],
    "constants": [None, 3, "w", [3]]}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in DAMAGE.items() for value in values])
def test_parts_of_other_types_in_a_file(key, value, tmp_path):
    """Valid JSON that is no description."""
    net().model.save(tmp_path / "a.mdl")
    description, tensors = serialize.load(tmp_path / "a.mdl")
    target = description if key in ("nodes", "designations", "splits", "format") else description["nodes"][-1]
    target[key] = value
    path = tmp_path / "b.mdl"
    path.write_bytes(safetensors.numpy.save(tensors, metadata={serialize.KEY: json.dumps(description)}))
    with pytest.raises(ModelFileError, match="b.mdl: .* is damaged: |b.mdl has format"):
        nm.model.modelload(path)
    if key != "format":
        model = nm.model_manager.newmodel(None)
        with pytest.raises(ModelFileError, match="is damaged"):
            model.restore(description, tensors)


def test_kernel_lists_of_models_and_files(tmp_path):
    model = nm.Conv(conv(filter_shape=3, name="c"), 2, (3, 1), (2, 1), **QUIET).model
    model.save(tmp_path / "a.mdl")
    for given in (model, tmp_path / "a.mdl", str(tmp_path / "a.mdl"), model.serialise()[0]):
        assert nm.model.kernel_lists_from_node_descr(given) == ([3, (3, 1)], [1, (2, 1)], [False, False])


# -- settings of models ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "right"), [
    ("learning_rate", "lr"), ("momentum", "mom"), ("weight_decay", "wd"), ("dropout_rate", "dropout_rates")])
def test_settings_under_other_names(name, right):
    """They would be set, and nothing would read them; other attributes are the user's own."""
    model = net().model
    with pytest.raises(AttributeError, match=f"no {name!r}: .* Set model.{right};"):
        setattr(model, name, 0.1)
    model.my_note = "x"
    assert model.my_note == "x" and not hasattr(model, name)


# -- functions that make several nodes --------------------------------------------------------------------
def merged(x):
    """A merge that fails as its last step: 5 features do not add to 2."""
    return nm.AutoMerge(x, conv(conv(x, 4, 1, pool_shape=2, name="deep"), 4, 3), 5, merge_mode="add", **QUIET)


def residual(x):
    return nm.ResidualAdd(conv(x, 2, 3, name="deep"), x, activation_func="tahn", **QUIET)


@pytest.mark.parametrize("make, kept", [
    (merged, ["x", "deep", "conv"]), (residual, ["x", "deep"]),
    (lambda x: nm.Errors(nm.Softmax(x), x, True), ["x", "softmax"]),
    (lambda x: nm.SobelizedLoss(x, vector(name="v"), **QUIET), ["x", "v"]),
    (lambda x: nm.networks.classifier(x, tau=1), ["x"])],
    ids=["AutoMerge", "ResidualAdd", "Errors", "SobelizedLoss", "classifier"])
def test_nothing_is_left_of_what_failed(make, kept):
    x = image((20, 20), name="x")
    with pytest.raises((ValueError, TypeError, NotImplementedError)):
        make(x)
    assert list(x.model.nodes) == kept
    assert not set(x.children) - set(kept)
    assert len(x.model.graph) == len(nm.model.rebuild_model(x.model).graph)


# -- classes of one's own --------------------------------------------------------------------------------
class Own(nm.Node):
    """Computes what it is told to."""

    def __init__(self, parent, make, shape=None, name="own", print_repr=False):
        super().__init__(parent, name, print_repr)
        self.make, self.declared = make, shape

    def _make_output(self):
        self.output = self.make(*[p.output for p in self.parents])

    def _calc_shape(self):
        self.shape = self.declared or self.parents[0].shape


class WithoutBase(nm.Node):
    def __init__(self, parent, name="bare", print_repr=False):
        self.parent = parent


OWN = {
    "other shape": (lambda: Own(image(), lambda x: x[:, :, 1:]), ValueError,
                    f"Own 'own' declares shape {X}, but its output has (1, 2, 5, 7): .* It is made from 'input' {X}."),
    "other sizes": (lambda: Own([image(), image((5, 7))], torch.add), ValueError,
                    f"Own 'own' cannot be computed from 'input' {X}, 'input1' [(1,b), (2,f), (5,x), (7,y)]: .*broadcast"),
    "no such axis": (lambda: Own(image(), lambda x: x.sum(7)), ValueError, f"'own' cannot be computed from 'input' {X}: .*"),
    "open sizes": (lambda: Own([image(), image((None, 7))], torch.add), ValueError, "Give both the size 6"),
    "nothing": (lambda: Own(image(), lambda x: None), TypeError, "one tensor, such as .*; it is None."),
    "a number": (lambda: Own(image(), lambda x: 3), TypeError, "one tensor, such as .*; it is 3."),
    "two tensors": (lambda: Own(image(), lambda x: x.max(1)), TypeError, "of one tensor, .* it is Expression(max"),
    "tuple as shape": (lambda: Own(image(), torch.abs, (1, 2)), TypeError, "'own': _calc_shape must .* it is (1, 2)."),
    "no base": (lambda: WithoutBase(image()), TypeError, "WithoutBase 'bare': its constructor must begin with super()"),
}


@pytest.mark.parametrize("name", OWN)
def test_own_classes(name):
    """The message names the node and its parents, and nothing is left in the model."""
    make, error, message = OWN[name]
    with pytest.raises(error, match=re.escape(message).replace(r"\.\*", ".*")):
        make()
    model = nm.model_manager.getmodel()
    assert set(model.nodes) <= {"input", "input1"} and all(n.op == "placeholder" for n in model.graph.graph.nodes)
    assert not model["input"].children


def test_other_errors_of_own_classes():
    """They stay what they are, with a note that says where."""
    with pytest.raises(AttributeError) as caught:
        Own(image(), lambda x: x.foo())
    assert caught.value.__notes__ == [f"This was when Own 'own' was made from 'input' {X}."]


# -- functions ------------------------------------------------------------------------------------------
def test_function_of_two_models():
    """Sources of two models with the same name."""
    a, b = foreign(), image(name="there")
    for inputs, output in (([a.output, b.output], b.output * 2), ([a.output], b.output * 2), ([b.output], a.output)):
        with pytest.raises(ValueError, match="Input 'there' of the function belongs to another model"):
            make_func(inputs, output)()


def opened(size=(1, 2, None, 7), n_f=2):
    """Two inputs of open sizes, 'p' and 'q', the second one of n_f features."""
    return [nm.Input((size[0], f, *size[2:]), "b,f,x,y"[:2 * len(size) - 1], name=name, **QUIET)
            for name, f in (("p", 2), ("q", n_f))]


def softmaxed(p, q):
    return nm.Softmax(p, name="s", **QUIET), q


def skipping():
    p = nm.Input((1, 2, None, 8), "b,f,x,y", name="p", **QUIET)
    return nm.Concat([p, nm.UpConv(nm.Pool(p, 2, **QUIET), 2, 2, name="q", **QUIET)], **QUIET)


def same(parent):
    return conv(parent, 2, 3, conv_mode="same", name="c")


MEET = {
    "Concat": (lambda: nm.Concat(opened(), **QUIET), (1, 2, 5, 7), (1, 2, 6, 7), "'x'.* 'p' has 5, 'q' has 6"),
    "Add": (lambda: nm.Add(*map(same, opened()), **QUIET), (1, 2, 5, 7), (1, 2, 6, 7), "'x'.* 'c' has 5, 'c1' has 6"),
    "Add to one": (lambda: nm.Add(*opened(), **QUIET), (1, 2, 1, 7), (1, 2, 6, 7), "'x'.* 'p' has 1, 'q' has 6"),
    "MultMerge": (lambda: nm.MultMerge(*opened((None, 2)), **QUIET), (3, 2), (1, 2), "'b'.* 'p' has 3, 'q' has 1"),
    "SquaredLoss": (lambda: nm.SquaredLoss(*opened(), **QUIET), (1, 2, 6, 7), (1, 2, 1, 7), "'x'.* 'p' has 6, 'q' has 1"),
    "MultinoulliNLL": (lambda: nm.MultinoulliNLL(*softmaxed(*opened(n_f=1)), True, **QUIET), (1, 2, 5, 7), (1, 1, 6, 7),
                       "'x'.* 's' has 5, 'q' has 6"),
    "Errors": (lambda: nm.Errors(*softmaxed(*opened(n_f=1)), True, **QUIET), (1, 2, 5, 7),
               (1, 1, 6, 7), "'x'.* has 5, 'q' has 6"),
    "class of one's own": (lambda: Own(opened(), torch.add), (1, 2, 5, 7), (1, 2, 6, 7), "'x'.* 'p' has 5, 'q' has 6"),
    "U-Net": (skipping, (1, 2, 9, 8), None, "'x'.* 'p' has 9, 'q' has 8"),
}


@pytest.mark.parametrize("name", MEET)
def test_open_sizes_that_meet(name):
    """What does not go together is said by the node where it meets, also where one of the sizes is 1; the rest is fine."""
    make, first, second, message = MEET[name]
    node = make()
    ones = [np.ones(s, "float32") for s in (first, second) if s]
    for _ in range(2):  # it is not forgotten
        with pytest.raises(ValueError, match=f"{node.name!r}: sizes on axis {message}. Give inputs whose sizes"):
            node(*ones)
    good = [np.ones([m if n is None else n for n, m in zip(s.shape, (2, 2, 8, 8))], "float32") for s in node.input_nodes]
    assert np.isfinite(node(*good)).all()


def test_open_sizes_in_training():
    p, q = opened((None, 2, 6, 7))
    loss = nm.AggregateLoss(nm.SquaredLoss(same(p), q, name="s", **QUIET), **QUIET)
    loss.model.designate_nodes("p", loss_node=loss)
    one, two = np.ones((1, 2, 6, 7), "float32"), np.ones((2, 2, 6, 7), "float32")
    for call in (loss.model.trainingstep, loss.model.loss, loss.model.gradients):
        with pytest.raises(ValueError, match="'s': sizes on axis 'b'.* 'c' has 2, 'q' has 1"):
            call(two, one)
        call(two, two)


def test_open_sizes_that_may_differ():
    """Along the axis that is joined, and where a memory is stretched."""
    node = nm.Concat(opened(), axis="x", **QUIET)
    assert node(np.ones((1, 2, 5, 7)), np.ones((1, 2, 6, 7))).shape == (1, 2, 11, 7)
    x, h = opened((None, 2))
    assert nm.GRU(x, h, 2, **QUIET)(np.ones((3, 2)), np.ones((1, 2))).shape == (3, 2)


def test_an_open_size_that_is_too_small():
    node = conv(nm.Input((1, 2, None, 7), "b,f,x,y", name="p", **QUIET), 2, 5)
    with pytest.raises(ValueError, match=r"Conv 'conv' cannot be computed from 'p' \(1, 2, 3, 7\): Spatial axis 'x'"):
        node(np.ones((1, 2, 3, 7), "float32"))


def test_open_sizes_of_a_merge():
    with pytest.raises(ValueError, match="AutoMerge: sizes on axis 'x' are open, so it is not known what to crop"):
        nm.AutoMerge(*opened(), **QUIET)


# -- classes that are left out --------------------------------------------------------------------------
LEFT_OUT = ["GenericInput", "SkelGetBatch", "SkelGridUpdate", "SkelLoss", "SkelLossRec", "SkelPrior"]


@pytest.mark.parametrize("name", LEFT_OUT)
def test_left_out(name, tmp_path):
    """Names of the tracing code say why they are missing, in the package and in model files."""
    with pytest.raises(AttributeError, match=f"{name} is left out on purpose"):
        getattr(nm, name)
    assert not hasattr(nm, name)
    image().model.save(tmp_path / "a.mdl")
    tensors = safetensors.numpy.load_file(tmp_path / "a.mdl")
    with safetensors.safe_open(str(tmp_path / "a.mdl"), framework="np") as f:
        description = json.loads(f.metadata()["elektronn2"])
    description["nodes"][0]["class"] = name
    safetensors.numpy.save_file(tensors, tmp_path / "b.mdl", {"elektronn2": json.dumps(description)})
    with pytest.raises(ModelFileError, match=f"node 'input': {name} is left out on purpose"):
        nm.model.modelload(tmp_path / "b.mdl")


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'Convv'"):
        nm.Convv  # noqa: B018


def test_shape_is_checked_everywhere():
    with pytest.raises(ValueError, match="at least 1"):
        TaggedShape((2, 3), "b,f").updateshape("f", 0)


@pytest.mark.parametrize("change", [
    lambda s: s.updateshape(9, 5), lambda s: s.updateshape(-4, 5), lambda s: s.updateshape(1.0, 5), lambda s: s.delaxis(3),
    lambda s: s.addaxis(4, 1, "b"), lambda s: s.updatefov(2, 3), lambda s: s.updatefov("x", 3), lambda s: s.sliced(3, 0, 1)])
def test_axes_that_are_not_there(change):
    with pytest.raises(ValueError, match=r"\(2,f\), \(8,y\), \(9,x\)\] (has no|can take an)"):
        change(TaggedShape((2, 8, 9), "f,y,x"))


def test_numpy_integers():
    n = np.int64
    assert nm.GroupNorm(image(n_f=4), n(2), **QUIET).n_groups == 2
    assert nm.SqueezeExcitation(image(n_f=4), n(2), **QUIET).n_hidden == 2
    node = nm.Concat([image((n(6), n(7))), conv(n_f=n(3), filter_shape=n(1))], axis=n(1), **QUIET)
    assert node.shape.shape == [1, 5, 6, 7] and node.model[n(-1)] is node
    assert node.shape.updateshape(n(1), n(2)).shape == [1, 2, 6, 7]


@pytest.mark.parametrize(("argument", "shape", "tags", "needed"), [
    ("example_weights", (2, 6, 6), "b,y,x", "(2,b), (6,x), (6,y)"), ("mask_class_labeled", (2, 2), "f,b", "(2,b), (2,f)"),
    ("mask_class_not_present", (2, 2), "x,f", "(2,b), (2,f)"), ("class_weights", (2,), "b", "(2,f)")])
def test_axes_of_weights(argument, shape, tags, needed):
    """Sizes that fit by chance do not make up for other axes."""
    p = nm.Softmax(image((6, 6), b=2), **QUIET)
    given = nm.Input(shape, tags, name="given", **QUIET)
    with pytest.raises(ValueError, match=re.escape(f"{argument} 'given' has shape {given.shape}, needed is [{needed}]")):
        nm.MultinoulliNLL(p, nm.Input_like(p, override_f=1, **QUIET), True, **{argument: given}, **QUIET)


@pytest.mark.parametrize("make", [
    lambda s, t: nm.Add(s, t), lambda s, t: nm.Concat([s, t]), lambda s, t: nm.AbsLoss(s, t),
    lambda s, t: nm.MultinoulliNLL(nm.Softmax(s, name="fixed softmax", print_repr=False), t)])
@pytest.mark.parametrize("size", [(3, 2, 11, None), (None, 2, 11, 11)])
@pytest.mark.parametrize("batch", [1, 3])
def test_an_open_size_beside_a_known_one(make, size, batch):
    size = (batch if size[0] else None, *size[1:])
    nm.model_manager.newmodel(None)
    s = nm.Input((batch, 2, 11, 11), "b,f,x,y", name="fixed", print_repr=False)
    t = nm.Input(size, "b,f,x,y", name="open", print_repr=False)
    with pytest.raises(ValueError, match="'open'.* has an open size, that of 'fixed.*a known one"):
        make(s, t)


def test_model_from_its_description():
    """What serialise returns gives the same model in an empty one, and nothing in others."""
    node = conv(name="c")
    node.model.designate_nodes(input_node="input", prediction_node="c")
    description, tensors = json.loads(json.dumps(node.model.serialise()[0])), node.model.serialise()[1]
    assert list(node.model.node_descriptors) == ["input", "c"] and node.model.node_descriptors["c"]["class"] == "Conv"
    other = nm.model_manager.newmodel("other")
    nm.model_manager.newmodel("current")
    with pytest.raises(ValueError, match="has nodes already"):
        node.model.restore(description, tensors)
    with pytest.raises(ModelFileError, match="missing"):
        other.restore(description, {k: v for k, v in tensors.items() if k != "c/w"})
    assert not other.nodes and not len(other.graph)
    other.restore(description, tensors)
    assert nm.model_manager.current is other
    x = np.random.default_rng(0).random((1, 2, 6, 7), "float32")
    np.testing.assert_array_equal(other.predict(x), node(x))


@pytest.mark.parametrize("rates", ["a", None, [0.1, "a"], 1, -0.1])
def test_rates(rates):
    first = conv(dropout_rate=0.5)
    model = conv(first, dropout_rate=0.5).model
    with pytest.raises(ValueError, match=r"dropout_rate must be a number in \[0, 1\), got"):
        model.dropout_rates = rates
    assert model.dropout_rates == [0.5, 0.5]


def test_gradnet_rates():
    model = conv(gradnet_mode="sum", batch_normalisation="fadeout").model
    with pytest.raises(ValueError, match=r"gradnet_rate must be a number in \[0, 1\], got"):
        model.gradnet_rates = 2


def test_numpy_number_of_locked_nodes():
    model = nm.model.rebuild_model(conv(name="c").model, lock_trainable_params=np.int64(1))
    assert not model["c"].w.apply_train


@pytest.mark.parametrize("swap", [False, True])
def test_residual_of_no_node(swap):
    pair = (image(), 3) if swap else (3, image())
    with pytest.raises(TypeError, match="branch and skip must be nodes, got 3"):
        nm.ResidualAdd(*pair)


@pytest.mark.parametrize(("argument", "pred", "given", "tags"), [
    ("example_weights", (3, 2, 6, 6), (None, 6, 6), "b,y,x"), ("example_weights", (1, 2, 6, 6), (1, None, 6), "b,y,x"),
    ("mask_class_labeled", (1, 2, 6, 6), (None, 2), "b,f"), ("example_weights", (None, 2, 6, 6), (3, 6, 6), "b,y,x"),
    ("mask_class_labeled", (None, 2, 6, 6), (3, 2), "b,f")])
def test_weights_of_open_size_beside_known_ones(argument, pred, given, tags):
    p = nm.Softmax(nm.Input(pred, "b,f,y,x", **QUIET), name="pred", **QUIET)
    weights = nm.Input(given, tags, name="given", **QUIET)
    target = nm.Input_like(p, override_f=1, name="target", **QUIET)
    opens, fixed = ("pred", "given") if pred[0] is None else ("given", "pred")
    with pytest.raises(ValueError, match=f"'nll'.*'{opens}' .* has an open size, that of '{fixed}' .* a known one"):
        nm.MultinoulliNLL(p, target, True, **{argument: weights}, **QUIET)


def test_integers_that_other_ways_would_scale_are_noticed_once(caplog):
    image = nm.Input((1, 1, 8), "b,f,x", name="raw")
    pred = nm.Conv(image, 1, 3)
    target = nm.Input_like(pred, name="target")
    loss = nm.AggregateLoss(nm.SquaredLoss(pred, target))
    model = nm.model_manager.getmodel()
    model.designate_nodes("raw", "target", loss, pred)
    x = np.arange(8, dtype=np.uint8).reshape(1, 1, 8)
    caplog.clear()
    model.predict(x.astype(np.float32))
    model.predict(x.astype(np.int64))
    assert "taken as it is" not in caplog.text
    model.trainingstep(x, np.zeros((1, 1, 6), np.uint8))
    model.predict(x.astype(np.uint16))
    assert caplog.text.count("The image for 'raw' is uint8 and taken as it is") == 1 and "uint16" not in caplog.text
