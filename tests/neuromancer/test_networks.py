"""Networks from the literature: sizes and fields of view against published or hand-made figures, learning, tiles, files."""
import re
from pathlib import Path

import numpy as np
import pytest
from networks import example
from scipy.ndimage import gaussian_filter
from test_dense import close, whole

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer import init

QUIET = dict(print_repr=False)
TAGS = {1: "b,f,x", 2: "b,f,y,x", 3: "b,f,z,y,x"}


def network(name, patch, **arguments):
    """(model of the network for classification, its scores); ``patch``: per spatial axis."""
    nm.model_manager.newmodel(None)
    raw = nm.Input((1, 1, *patch), TAGS[len(patch)], name="raw", **QUIET)
    scores = getattr(nm.networks, name)(raw, **arguments, **QUIET)
    return nm.networks.classifier(scores), scores


# -- geometry -------------------------------------------------------------------------------------------
UNET = (103,) * 3, (44,) * 3, 1
THIN = (4, 4, 6, 6)
# name, arguments, patch -> output, fov, offset, stride
GEOMETRY = [
    ("unet", dict(n_f=THIN), (116, 132, 132), (28, 44, 44), *UNET),
    ("unet", dict(n_f=THIN, norm="layer"), (92, 100, 92), (4, 12, 4), *UNET),
    ("unet", dict(n_f=THIN, conv_mode="same", norm="group"), (32, 40, 24), (32, 40, 24), (103,) * 3, (0,) * 3, 1),
    # 1 + 4 * 2 (2 levels of 2 convolutions, stride 1) + 1 (pool) + 2 * 4 (stride 2) + 1 (up)
    ("unet", dict(n_f=(4, 8), norm="batch"), (24,), (8,), (19,), (8,), 1),
    ("unet", dict(n_f=(4, 8), pool_shape=(1, 2), filter_shape=[(1, 3), (3, 3)]), (6, 24), (2, 8), (5, 19), (2, 8), 1),
    # border 4, modules 6 per level and stride, poolings and upsamplings by 2
    ("residual_unet", {}, (18, 160, 160), (18, 160, 160), (55, 315, 315), (0,) * 3, 1),
    ("residual_unet", dict(norm="instance"), (96, 160), (96, 160), (315, 315), (0,) * 2, 1),
    ("residual_unet", dict(n_f=(4, 6), conv_mode="valid"), (19, 60, 60), (1, 28, 28), (19, 35, 35), (9, 16, 16), 1),
    # stages of 1, 2, 3, 3, 3, 3, 3, 2, 1 convolutions (4 times the stride 1, 2, 4, 8, 16, 8, ...), strided ones and back
    ("vnet", dict(n_f=(2, 4, 4, 6, 6)), (32, 48), (32, 48), (1 + 4 * (1 + 4 + 12 + 24 + 48 + 24 + 12 + 4 + 1) + 30,) * 2,
     (0,) * 2, 1),
    ("n337", {}, (93,) * 3, (2,) * 3, (85,) * 3, (42,) * 3, 8),
    ("n337", dict(mfp=True), (92,) * 3, (8,) * 3, (85,) * 3, (42,) * 3, 1),
    ("n537", dict(n_f=4), (163, 171), (1, 2), (163,) * 2, (81,) * 2, 8),
    ("n726", dict(n_f=4), (117, 121), (1, 2), (117,) * 2, (58,) * 2, 4),
    ("n926", dict(n_f=4), (155, 159), (1, 2), (155,) * 2, (77,) * 2, 4),
    ("neuro3d", {}, (23, 185, 185), (5, 21, 21), (15, 105, 105), (7, 52, 52), (2, 4, 4)),
    ("neuro3d_lite", {}, (11, 155, 155), (4, 30, 30), (5, 39, 39), (2, 19, 19), (2, 4, 4)),
    ("neuro3d", {}, (113, 105), (3, 1), (105, 105), (52, 52), 4),
]


@pytest.mark.parametrize(("name", "arguments", "patch", "out", "fov", "offset", "stride"), GEOMETRY)
def test_geometry(name, arguments, patch, out, fov, offset, stride):
    """Output size, field of view, offset and stride; the shape is also that of the value."""
    model, scores = network(name, patch, **arguments)
    s = scores.shape
    assert tuple(s.spatial_shape) == out and tuple(s.fov) == fov and tuple(s.offsets) == offset
    assert np.array_equal(s.strides, np.broadcast_to(stride, s.ndim))
    assert s["f"] == (3 if name.startswith("n") and name[1].isdigit() else 2)
    assert model.input_node.name == "raw" and model.prediction_node.name == "probs"
    assert [n.name for n in model.prediction_ext] == ["loss", "errors", "probs"]


@pytest.mark.parametrize(("name", "file", "patch"), [("unet", "unet3d", (116, 132, 132)), (
    "neuro3d", "neuro3d", (23, 185, 185)), ("neuro3d_lite", "neuro3d_lite", (11, 155, 155))])
def test_the_same_as_the_example(name, file, patch):
    """Layer for layer: kinds, sizes and parameters are those of the example that is written out by hand."""
    def layers(model):
        return [(type(n).__name__, n.shape.shape[1:], {k: p.shape for k, p in n.params.items()})
                for n in model.prediction_node.all_parents.values()]
    by_hand = example(file)
    assert layers(network(name, patch)[0]) == layers(by_hand)


def test_features_of_the_residual_unet():
    """Every module has as many features as its level, and joins add."""
    model, _ = network("residual_unet", (8, 32, 32), n_f=(3, 5, 7), n_class=4)
    modules = [n.shape["f"] for n in model.nodes.values() if n.name.startswith("residual")]
    assert modules == [3, 5, 7, 5, 3] and model.prediction_node.shape["f"] == 4
    assert not any(type(n).__name__ == "Concat" for n in model.nodes.values())
    filters = [n.filter_shape for n in model.nodes.values() if isinstance(n, nm.Conv)]
    assert filters[0] == filters[-2] == (1, 5, 5) and set(filters[1:-2]) == {(3, 3, 3)} and filters[-1] == (1, 1, 1)


def test_stages_of_the_vnet():
    """Convolutions per stage, features on both ways, and what is joined how: by the published figure."""
    model, _ = network("vnet", (16, 16, 16), n_f=(2, 4, 8, 16, 32))  # an eighth of the published features
    wide = [n for n in model.nodes.values() if type(n).__name__ == "Conv" and n.filter_shape == (5, 5, 5)]
    assert [8 * n.n_f for n in wide] == [16, 32, 32, 64, 64, 64, *[128] * 3, *[256] * 3, *[256] * 3, *[128] * 3, 64, 64, 32]
    down = [n for n in model.nodes.values() if type(n).__name__ == "Conv" and n.stride == (2, 2, 2)]
    assert [8 * n.n_f for n in down] == [32, 64, 128, 256] and {n.filter_shape for n in down} == {(2, 2, 2)}
    assert [8 * n.n_f for n in model.nodes.values() if isinstance(n, nm.UpConv)] == [128, 64, 32, 16]
    assert {n.activation_func for n in wide} == {"prelu", "lin"} and not any(
        isinstance(n, nm.Pool) for n in model.nodes.values())


@pytest.mark.parametrize(("name", "norm", "kind"), [("unet", "batch", "Conv"), ("unet", "instance", "InstanceNorm"), (
    "residual_unet", "group", "GroupNorm"), ("unet", "layer", "LayerNorm"), ("unet", None, "Conv")])
def test_norm(name, norm, kind):
    """Every convolution but the last has the normalisation."""
    model, _ = network(name, (16, 16), n_f=(8, 12), conv_mode="same", norm=norm)
    convs = [n for n in model.nodes.values() if type(n).__name__ == "Conv"][:-1]
    assert {n.batch_normalisation for n in convs} == {"train" if norm == "batch" else False}
    if kind != "Conv":
        assert sum(type(n).__name__ == kind for n in model.nodes.values()) == len(convs)
        assert all("b" in n.params and n.b.constant for n in convs)  # the normalisation has a shift of its own
    else:
        assert not any("Norm" in type(n).__name__ for n in model.nodes.values())


# -- mistakes -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "arguments", "patch", "nearest"), [
    ("unet", dict(n_f=THIN), (117, 20, 130), [116, 92, 124]), ("unet", dict(n_f=THIN, conv_mode="same"), (30, 7), [24, 8]),
    ("residual_unet", {}, (5, 150, 9), [5, 144, 16]), ("n337", {}, (90, 84), [85, 85]),
    ("n337", dict(mfp=True), (100, 93), [100, 92]), ("neuro3d", {}, (24, 180, 190), [23, 177, 189])])
def test_patches_that_do_not_fit(name, arguments, patch, nearest):
    """The error names the nearest patch: it fits, and nothing of the network that failed is left."""
    nm.model_manager.newmodel(None)
    current = nm.model_manager.current, nm.model_manager.last
    raw = nm.Input((1, 1, *patch), TAGS[len(patch)], name="raw", **QUIET)
    with pytest.raises(ValueError, match=f"{name}: the patch .* of 'raw' does not fit") as error:
        getattr(nm.networks, name)(raw, **arguments, **QUIET)
    assert f"nearest that fits is {nearest}." in str(error.value)
    assert list(raw.model.nodes) == ["raw"] and (nm.model_manager.current, nm.model_manager.last) == current
    network(name, nearest, **arguments)
    for k, n in enumerate(nearest):  # none is between
        for between in range(min(n, patch[k]) + 1, max(n, patch[k])):
            with pytest.raises(ValueError, match="does not fit"):
                network(name, [*nearest[:k], between, *nearest[k + 1:]], **arguments)
            break


@pytest.mark.parametrize(("arguments", "words"), [
    (dict(n_f=8), "n_f must be a list"), (dict(n_f=()), "n_f must be a list"), (dict(norm="batsh"), "Did you mean 'batch'"),
    (dict(filter_shape=(3, 3, 3)), "filter_shape"), (dict(pool_shape=[(2, 2)]), "given for 1 levels, 3 are needed"),
    (dict(conv_mode="same", filter_shape=2), "odd filter"), (dict(conv_mode="sane"), "conv_mode")])
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        network("unet", (100, 100), **arguments)


@pytest.mark.parametrize(("name", "patch", "arguments"), [
    ("unet", (68, 68), dict(n_f=(4, 4, 6), n_class=0)), ("unet", (68,), dict(n_f=(4, 4, 6), n_class=[])),
    ("residual_unet", (64, 64), dict(n_f=(4, 6), n_class="two")), ("vnet", (64,), dict(n_f=(4, 6), n_class=-1)),
    ("residual_unet", (64, 64), dict(n_f=(4, 5), activation_func="maxout 2")),  # odd number of features on the second level
    ("n337", (93, 93), dict(n_f=4, n_class=2.5)), ("neuro3d_lite", (155, 155), dict(n_class=None))])
def test_no_node_stays_after_an_error(name, patch, arguments):
    model = nm.model_manager.newmodel(None)
    raw = nm.Input((1, 1, *patch), TAGS[len(patch)], name="raw", **QUIET)
    before = len(model.graph)
    with pytest.raises((ValueError, TypeError)):
        getattr(nm.networks, name)(raw, **arguments, **QUIET)
    assert list(model) == ["raw"] and not raw.children and len(model.graph) == before


def test_no_model_stays_after_an_error():
    model = nm.model_manager.newmodel(None)
    names = list(nm.model_manager.models)
    with pytest.raises(ValueError, match="n_f"):
        nm.networks.simple_cnn(1, 1, 0, 30, [5, 3], [8, 10], "relu", [2, 1])
    with pytest.raises(ValueError, match="is a model"):
        nm.networks.simple_cnn(1, 1, 2, 30, [5, 3], [8, 10], "relu", [2, 1], name=model.name)
    assert list(nm.model_manager.models) == names and nm.model_manager.current is model


def test_weights_depend_on_the_seed_alone():
    """Looking for patches draws no weights: they are those of the nodes made by hand."""
    init.reseed(5)
    _, scores = network("n337", (85, 85), n_f=3)
    init.reseed(5)
    x = nm.Input((1, 1, 85, 85), "b,f,x,y", **QUIET)
    w = nm.Conv(x, 3, (2, 2), (2, 2), w="he", **QUIET).w.get_value()
    np.testing.assert_array_equal(scores.model["conv"].w.get_value(), w)


# -- learning, files, tiles -----------------------------------------------------------------------------
LEARN = [("unet", dict(n_f=(8, 16, 16)), (48, 48, 48)), ("unet", dict(n_f=(8, 16, 16), conv_mode="same", norm="instance"),
                                                        (32, 32)),
         ("residual_unet", dict(n_f=(6, 8, 10)), (6, 32, 32)), ("residual_unet", dict(n_f=(8, 16), norm="group"), (32, 32)),
         ("vnet", dict(n_f=(4, 8, 12)), (16, 16, 16)),
         ("n337", dict(n_f=8), (109, 109)), ("n337", dict(n_f=8, mfp=True), (92, 92)), ("n537", dict(n_f=8), (187, 187)),
         ("n726", dict(n_f=8), (129, 129)), ("n926", dict(n_f=8), (167, 167)), ("neuro3d", {}, (121, 121)),
         ("neuro3d_lite", {}, (7, 51, 51))]


@pytest.mark.parametrize(("name", "arguments", "patch"), LEARN)
def test_learns(name, arguments, patch, tmp_path):
    """The sign of the blurred image, in twenty steps on one image; then the file gives the same prediction."""
    init.reseed(0)
    model, scores = network(name, patch, **arguments)
    smooth = gaussian_filter(np.random.default_rng(0).normal(size=patch), 4)
    raw = (smooth / smooth.std()).astype(np.float32)[None, None]
    s = scores.shape
    at = tuple(slice(o, o + (n - 1) * t + 1, t) for o, n, t in zip(s.offsets, s.spatial_shape, s.strides))
    target = (raw[(..., *at)] > np.median(raw[(..., *at)])).astype(np.int16)
    lr = 5e-4 if name.startswith("neuro3d") else 2e-3  # as in its example
    model.set_opt_meta_params("AdamW", dict(lr=lr, mom=0.9, beta2=0.999, wd=0))
    losses = [model.trainingstep(raw, target.astype(model.target_node.output.dtype), optimiser="AdamW")[0]
              for _ in range(20)]
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:2]), losses
    model.save(tmp_path / "a.mdl")
    loaded = nm.model.modelload(tmp_path / "a.mdl")
    np.testing.assert_array_equal(loaded.predict(raw), model.predict(raw))


TILES = [("unet", dict(n_f=(2, 4)), (24, 24), (40, 36)), ("unet", dict(n_f=(2, 4), conv_mode="same"), (48, 48), (64, 72)),
         ("unet", dict(n_f=(4, 4), norm="layer"), (20, 20, 20), (24, 24, 28)),
         ("residual_unet", dict(n_f=(2, 3), norm="batch"), (24, 44, 44), (26, 48, 46)),
         ("vnet", dict(n_f=(2, 3)), (48, 48), (56, 50)),
         ("n337", dict(n_f=2), (93, 85), (93, 101)), ("neuro3d_lite", {}, (5, 43, 43), (7, 43, 51))]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "arguments", "patch", "size"), TILES)
def test_tiled_equals_whole(name, arguments, patch, size, rng):
    """Of a volume in several tiles, against one pass over all of it, for each shift of the output grid."""
    model, _ = network(name, patch, **arguments)
    raw = rng.normal(size=(1, *(n + int(t) - 1 for n, t in zip(size, model.prediction_node.shape.strides))))
    assert close(model.predict_dense(raw), whole(model, raw))


@pytest.mark.usefixtures("float64")
def test_max_fragment_pooling_by_argument_or_afterwards(rng):
    """mfp=True, and rebuild_model with override_mfp_to_active, both give the output at all shifts."""
    model, _ = network("n337", (93, 93), n_f=2)
    rebuilt = nm.model.rebuild_model(model, override_mfp_to_active=True, imposed_patch_size=(100, 100))
    direct, _ = network("n337", (100, 100), n_f=2, mfp=True)
    direct.set_param_values(model.get_param_values())
    raw = rng.normal(size=(1, 100, 100))
    wanted = model.predict_dense(raw)
    assert wanted.shape == (3, 16, 16)
    assert close(rebuilt.predict_dense(raw), wanted) and close(direct.predict(raw[None])[0], wanted)


def test_losses_of_choice():
    """Another loss, with arguments of its own."""
    nm.model_manager.newmodel(None)
    raw = nm.Input((1, 1, 24, 24), "b,f,x,y", name="raw", **QUIET)
    scores = nm.networks.unet(raw, 3, n_f=(2, 4), **QUIET)
    model = nm.networks.classifier(scores, nm.FocalLoss, gamma=1.5, class_weights=[1, 2, 3])
    assert isinstance(model["nll"], nm.FocalLoss) and model["nll"].gamma == 1.5


def documented():
    """Rows of the table of docs/networks.md."""
    for line in (Path(__file__).parents[2] / "docs" / "networks.md").read_text().split("\n"):
        if re.match(r"\| `\w+\(raw", line):
            yield [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(("call", "patch", "out", "params", "fov", "cost"), list(documented()))
def test_documented_figures(call, patch, out, params, fov, cost):
    """Every row of the table against the network that it describes."""
    name, arguments = re.fullmatch(r"`(\w+)\(raw(?:, )?(.*)\)`", call).groups()
    _, scores = network(name, [int(n) for n in patch.split("x")], **{
        k: {"True": True}.get(v, v.strip("'")) for k, v in (a.split("=") for a in arguments.split(", ") if a)})
    assert ["x".join(map(str, v)) for v in (scores.shape.spatial_shape, scores.shape.fov)] == [out, fov]
    per_voxel = scores.all_computational_cost / scores.shape.spatial_size
    assert (params, cost) == (f"{scores.all_params_count / 1e6:.2f} M", f"{per_voxel / 1e6:.2f} M")


# -- a chain in one call --------------------------------------------------------------------------------
@pytest.mark.parametrize(("size", "patch", "out"), [(23, [22], [10]), ((23, 30), [22, 30], [10, 14]),
                                                     ((10, 23, 30), [10, 22, 30], [4, 10, 14])])
def test_simple_cnn(size, patch, out, rng):
    """The patch is changed to the nearest that fits, sizes are those of the arithmetic, and it learns."""
    model = nm.model.simple_cnn(None, 1, 2, size, [3], [6], "relu", [2], name="simple")
    assert model.name == "simple" and model is nm.model_manager.current
    assert model.input_node.shape.spatial_shape == patch and model.prediction_node.shape.spatial_shape == out
    bright = np.arange(4).reshape(4, *[1] * (len(patch) + 1)) % 2
    x = (0.5 * bright + 0.5 * rng.random((4, 1, *patch))).astype("float32")
    t = np.broadcast_to(bright, (4, 1, *out)).astype(model.target_node.output.dtype)
    model.lr = 0.01
    losses = [model.trainingstep(x, t, optimiser="AdamW")[0] for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


def test_simple_cnn_with_fragments():
    """As wide as the window leaves."""
    model = nm.model.simple_cnn(1, 1, 2, (24, 24), [3], [6], "relu", [2], mfp=True)
    assert model.prediction_node.shape.spatial_shape == [n - 3 for n in model.input_node.shape.spatial_shape]


def test_simple_cnn_of_unequal_lists():
    with pytest.raises(ValueError, match="pools must have one entry per layer"):
        nm.model.simple_cnn(1, 1, 2, (24, 24), [3], [6], "relu", [2, 1])
