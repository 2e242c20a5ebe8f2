"""Pieces, values and other plain nodes, in double precision against numpy."""
import numpy as np
import pytest
from helpers import check, source

from elektronn2 import neuromancer as nm
from elektronn2.errors import ModelFileError
from elektronn2.neuromancer.graphutils import TaggedShape

pytestmark = pytest.mark.usefixtures("float64")


# -- split ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("axis", "how", "cuts"), [
    ("f", dict(index=2), [2]), ("f", dict(index=[1, 3]), [1, 3]), (1, dict(n_out=2), [2]), ("x", dict(n_out=3), [2, 4]),
    (-1, dict(index=np.array([1, 4])), [1, 4]), ("b", dict(n_out=2), [1]), ("s", dict(n_out=3), [1, 2])])
def test_split(axis, how, cuts, rng):
    """Every piece against numpy.split, with gradients."""
    x = source((2, 4, 3, 6, 5), "b,f,s,x,y")
    array = rng.normal(size=(2, 4, 3, 6, 5))
    index = x.shape.tag2index(axis) if isinstance(axis, str) else axis
    pieces = nm.split(x, axis, **how)
    for node, wanted, start, stop in zip(pieces, np.split(array, cuts, index), [0, *cuts], [*cuts, array.shape[index]]):
        check(node, wanted, array)
        assert node.parent is x and node.piece == (index % 5, start, stop) and node.computational_cost == 0
        assert repr(node).startswith(f"<FromTensor-Node> {node.name!r}")
    assert len(pieces) == len(cuts) + 1


@pytest.mark.parametrize("tags", ["b,f,x", "f,b,x", "b,x,f"])
def test_split_strips(tags, rng):
    """Pieces of length 1 lose their axis, longer ones keep it."""
    sizes = dict(b=3, f=3, x=4)
    x = source([sizes[t] for t in tags.split(",")], tags)
    array = rng.normal(size=x.shape.shape)
    for axis in "bfx":
        i = x.shape.tag2index(axis)
        one, rest = nm.split(x, axis, 1, strip_singleton_dims=True)
        check(one, np.take(array, 0, i), array)
        check(rest, np.take(array, range(1, sizes[axis]), i), array)
        assert one.shape.tags == [t for t in x.shape.tags if t != axis]


def test_split_geometry():
    """Voxel i of a piece sits where voxel start + i of the whole does; margins that see padding shrink with it."""
    x = nm.Pad(source((1, 2, 20, 9), "b,f,x,y"), 2, print_repr=False)
    y = nm.Conv(x, 4, (3, 2), (2, 1), print_repr=False)
    assert y.shape.spatial_shape == [11, 12] and y.shape.padded == (1, 2)
    for start, padded, node in zip((0, 3, 10), (1, 0, 1), nm.split(y, "x", [3, 10])):
        assert node.shape.centre[0] == y.shape.centre[0] + start * 2 and node.shape.centre[1] == y.shape.centre[1]
        assert (node.shape.fov, list(node.shape.strides)) == (y.shape.fov, [2, 1])
        assert node.shape.padded == (padded, 2)
    for node in nm.split(y, "f", n_out=2):
        assert node.shape == y.shape.updateshape("f", 2)


def test_split_then_joined_in_place(rng):
    """Both halves of the features of one node may be added; halves of its x axis are shifted against each other."""
    y = nm.Conv(source((1, 2, 9), "b,f,x"), 2, 2, print_repr=False)
    a, b = nm.split(y, n_out=2)
    array = rng.normal(size=(1, 2, 9))
    check(nm.Add(a, b, print_repr=False), y(array).sum(1, keepdims=True), array, gradients=False)
    a, b = nm.split(y, "x", n_out=2)
    with pytest.raises(ValueError, match="shifted by 4"):
        nm.Add(a, b, print_repr=False)


def test_split_names():
    """The split takes the name, its pieces and all later nodes the next numbers; a list names the pieces."""
    x = source((1, 4), "b,f")
    names = [n.name for n in nm.split(x, n_out=2)]
    assert names == ["split1", "split2"]
    assert [n.name for n in nm.split(x, n_out=2)] == ["split4", "split5"]
    assert [n.name for n in nm.split(x, n_out=2, name="half")] == ["half1", "half2"]
    assert nm.Perceptron(x, 1, name="half", print_repr=False).name == "half3"
    assert [n.name for n in nm.split(x, n_out=2, name=["left", "right"])] == ["left", "right"]
    assert [n.name for n in nm.split(x, n_out=2, name=["left", "left"])] == ["left1", "left2"]
    assert x.model.splits == dict(split=["split1", "split2"], split3=["split4", "split5"], half=["half1", "half2"])


def test_split_names_are_saved(tmp_path):
    """Names of splits stay taken in a loaded model, and after a split that failed they are free."""
    x = source((1, 4), "b,f")
    with pytest.raises(ValueError, match="3 equal pieces"):
        nm.split(x, n_out=3)
    nm.split(x, n_out=2)
    x.model.save(tmp_path / "a.mdl")
    loaded = nm.model.modelload(tmp_path / "a.mdl")
    assert list(loaded.nodes) == ["input", "split1", "split2"]
    assert [n.name for n in nm.split(loaded["input"], n_out=2)] == ["split4", "split5"]


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(axis="z", n_out=2), "no axis 'z'"), (dict(axis=4, n_out=2), "no axis 4"), (dict(axis="f"), "either index"),
    (dict(index=1, n_out=2), "either index"), (dict(n_out=3), "3 equal"), (dict(n_out=0), "0 equal"),
    (dict(index=4), "1 to 3"), (dict(index=0), "1 to 3"), (dict(index=[2, 1]), "increase"), (dict(index=[]), "increase"),
    (dict(n_out=2, name=["a"]), "2 pieces"), (dict(axis="b", n_out=2), "open size")])
def test_split_refuses(arguments, message):
    """Cuts that do not fit raise an error that names the node, and leave no node behind."""
    x = source((None, 4, 6), "b,f,x")
    with pytest.raises(ValueError, match=f"split of 'input'.*{message}"):
        nm.split(x, **arguments)
    assert list(x.model.nodes) == ["input"] and not x.model.splits


def test_split_of_other_things():
    with pytest.raises(TypeError, match="must be a node"):
        nm.split(np.ones(3), n_out=3)
    with pytest.raises(TypeError, match="integers"):
        nm.split(source((1, 4), "b,f"), index=1.5)


def test_split_and_fragments(rng):
    """MFP fragments may not be separated; each may be split along f and x."""
    x = source((1, 2, 9), "b,f,x")
    y = nm.Conv(x, 2, 1, 2, mfp=True, print_repr=False)
    with pytest.raises(ValueError, match="MFP fragments"):
        nm.split(y, "b", 1)
    a, _ = nm.split(y, n_out=2)
    array = rng.normal(size=(1, 2, 9))
    dense = nm.FragmentsToDense(a, print_repr=False)
    check(dense, nm.FragmentsToDense(y, print_repr=False)(array)[:, :1], array, gradients=False)


def test_split_resized(tmp_path):
    """A loaded piece of the features takes another patch; a piece of a spatial axis keeps it to its length."""
    def save(axis):
        nm.model_manager.newmodel(None)
        node = nm.split(nm.Conv(source((None, 1, 9, 9), "b,f,x,y"), 2, 2, print_repr=False), axis, n_out=2)[1]
        node.model.designate_nodes(input_node="input", prediction_node=node.name)
        node.model.save(tmp_path / f"{axis}.mdl")
        return node
    save("f")
    loaded = nm.model.modelload(tmp_path / "f.mdl", imposed_patch_size=(5, 6), imposed_batch_size=2)
    assert loaded.prediction_node.shape.shape == [2, 1, 4, 5]
    save("x")
    loaded = nm.model.modelload(tmp_path / "x.mdl", imposed_patch_size=(5, 6))
    assert loaded.prediction_node.shape.shape == [None, 2, 4, 5] and loaded.input_node.shape.spatial_shape == [9, 6]


def test_dense_prediction_of_pieces(rng):
    """Features of a network can be predicted densely, part of an axis cannot."""
    y = nm.Conv(source((1, 1, 6, 6), "b,f,x,y"), 4, 3, print_repr=False)
    image = rng.normal(size=(1, 11, 9))
    np.testing.assert_allclose(nm.split(y, n_out=2)[1].predict_dense(image), y.predict_dense(image)[2:], atol=1e-12)
    with pytest.raises(ValueError, match="split along f"):
        nm.split(y, "x", n_out=2)[0].predict_dense(image)


# -- expressions as nodes -------------------------------------------------------------------------------
def test_from_tensor(rng, tmp_path):
    """Any expression as a node; it cannot be saved, and says what to do instead."""
    x = source((2, 3), "b,f")
    node = nm.FromTensor(x.output.cumsum(1) * 2, x.shape, x)
    array = rng.normal(size=(2, 3))
    check(node, 2 * array.cumsum(1), array)
    assert (node.name, node.computational_cost, node.piece) == ("from_tensor", 0, None)
    with pytest.raises(ModelFileError, match="'from_tensor' cannot be saved.*ApplyFunc"):
        x.model.save(tmp_path / "a.mdl")


def test_from_tensor_of_another_model():
    x = source((2, 3), "b,f")
    nm.model_manager.newmodel(None)
    y = source((2, 3), "b,f")
    with pytest.raises(ValueError, match="another model than 'input'"):
        nm.FromTensor(x.output * 2, TaggedShape((2, 3), "b,f"), y)


# -- values ---------------------------------------------------------------------------------------------
def test_value_node(rng):
    """Constants and trained values, without any input, with gradients of the trained ones."""
    value = rng.normal(size=(2, 3))
    node = nm.ValueNode((2, 3), "b,f", value=value, print_repr=False)
    np.testing.assert_array_equal(node(), value)
    np.testing.assert_array_equal(node.get_value(), value)
    assert node.input_nodes == [] and node.param_count == 0 and not node.is_source and node.params["value"].constant
    np.testing.assert_array_equal(nm.ValueNode((2,), "f", print_repr=False)(), [0, 0])
    trained = nm.ValueNode((2, 3), "b,f", apply_train=True, value=value, print_repr=False)
    check(trained, value)
    assert (trained.param_count, trained.value.apply_reg, trained.computational_cost) == (6, True, 0)
    trained.set_param_values(dict(value=2 * value))
    np.testing.assert_array_equal(trained(), 2 * value)
    with pytest.raises(ValueError, match="constant"):
        node.set_param_values(dict(value=value))


def test_values_are_saved(tmp_path):
    """Arrays, lists and numbers given as values come back (the original lost arrays), constants as constants."""
    given = dict(array=np.array([0.25, -3]), listed=[1.5, 2], number=7.0, const=[np.array([4.0, 5]), "const"])
    for name, value in given.items():
        nm.ValueNode((2,), "f", value=value, name=name, print_repr=False)
    nm.ValueNode((2,), "f", value=[1, 2], apply_train=True, name="trained", print_repr=False)
    nm.InitialState_like(source((3, 1), "b,f"), 2, value=[8, 9], print_repr=False)
    model = nm.model_manager.getmodel()
    model.save(tmp_path / "a.mdl")
    for options, constant in (({}, False), (dict(make_weights_constant=True), True)):
        loaded = nm.model.modelload(tmp_path / "a.mdl", **options)
        for name, node in model.nodes.items():
            if node.params:
                np.testing.assert_array_equal(loaded[name].get_value(), node.get_value())
                assert loaded[name].value.constant == (constant or name in given)


def test_initial_state(rng):
    """The vector at every position and for every batch size, with gradients of it and none of the input."""
    x = source((None, 2, 3), "b,f,x")
    node = nm.InitialState_like(x, 4, print_repr=False)
    np.testing.assert_array_equal(node(rng.normal(size=(2, 2, 3))), np.zeros((2, 4, 3)))
    node.set_param_values(dict(value=[1, 2, 3, 4]))
    for batch in (1, 3):
        array = rng.normal(size=(batch, 2, 3))
        check(node, np.broadcast_to(np.array([[[1.0], [2], [3], [4]]]), (batch, 4, 3)), array)
    assert node.param_count == 4 and node.computational_cost == 0
    np.testing.assert_array_equal(node.get_value(), [1, 2, 3, 4])


def test_mult_merge(rng):
    x = [source((2, 3, 4), "b,f,x") for _ in range(2)]
    arrays = rng.normal(size=(2, 2, 3, 4))
    node = nm.MultMerge(*x, print_repr=False)
    check(node, arrays[0] * arrays[1], *arrays)
    assert node.computational_cost == 24


# -- reshape --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("batch", "sizes", "tags", "declared"), [
    (2, (2, 2, 3, 4), "b,s,f,x", (2, 2, 3, 4)), (2, (2, None), "b,f", (2, 24)), (2, (None, 24), "b,f", (2, 24)),
    (None, (None, 24), "b,f", (None, 24)), (2, (48,), "f", (48,)), (None, (3, None, 8), "r,b,f", (3, None, 8))])
def test_reshape(batch, sizes, tags, declared, rng):
    """Against numpy.reshape; a size None is worked out, or open if the batch size is."""
    x = source((batch, 6, 4), "b,f,x")
    node = nm.Reshape(x, sizes, tags, print_repr=False)
    assert tuple(node.shape) == declared and node.computational_cost == 0
    array = rng.normal(size=(2, 6, 4))
    check(node, array.reshape([-1 if n is None else n for n in sizes]), array)


def test_reshape_geometry():
    """Kept where the axes from the first spatial one on are kept; else as given, or as that of an input."""
    y = nm.Conv(source((1, 1, 9, 9), "b,f,x,y"), 4, 2, 2, print_repr=False)
    kept = nm.Reshape(y, (1, 2, 2, 4, 4), "b,s,f,x,y", print_repr=False).shape
    assert (kept.fov, list(kept.strides), kept.centre) == (y.shape.fov, [2, 2], y.shape.centre)
    other = nm.Reshape(y, (1, 4, 16), "b,f,x", print_repr=False).shape
    assert (other.fov, list(other.strides)) == ([1], [1])
    given = nm.Reshape(y, (1, 4, 16), "b,f,x", strides=[2], fov=[5], print_repr=False).shape
    assert (given.fov, list(given.strides)) == ([5], [2])


def test_reshape_of_fragments(rng):
    """MFP fragments stay in order where b and space are kept."""
    y = nm.Conv(source((1, 2, 9), "b,f,x"), 4, 1, 2, mfp=True, activation_func="lin", print_repr=False)
    array = rng.normal(size=(1, 2, 9))
    there = nm.Reshape(y, (2, 2, 2, 4), "b,s,f,x", print_repr=False)
    back = nm.Reshape(there, y.shape.shape, y.shape.tags, print_repr=False)
    assert back.shape == y.shape
    np.testing.assert_array_equal(back(array), y(array))


def test_reshape_resized():
    """A rebuilt model with another batch size or patch: open sizes follow, fixed ones say that they do not fit."""
    def model(sizes, tags):
        nm.model_manager.newmodel(None)
        node = nm.Reshape(source((2, 6, 4), "b,f,x"), sizes, tags, print_repr=False)
        node.model.designate_nodes(input_node="input", prediction_node=node.name)
        return node.model
    rebuilt = nm.model.rebuild_model(model((None, 24), "b,f"), imposed_batch_size=5)
    assert rebuilt.prediction_node.shape.shape == [5, 24]
    with pytest.raises(ValueError, match="Give None for one size"):
        nm.model.rebuild_model(model((2, 24), "b,f"), imposed_batch_size=5)
