"""Dense prediction: tiled equals whole, MFP equals all shifts, impulses land where the geometry says."""
from fractions import Fraction
from itertools import product
from math import lcm

import numpy as np
import pytest
from hypothesis import given, settings
from networks import FewerFeatures, docs_cnn, example
from random_graphs import SETTINGS, build, legal_size, pads, recipes

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer.dense import geometry

pytestmark = pytest.mark.usefixtures("float64")


def whole(model, raw):
    """The definition: the whole volume in one pass per shift of the output grid, raw (f, *L) of a legal size + stride - 1.

    Outputs that padding inside a strided network has touched are cut.
    """
    node = model.prediction_node
    axes = geometry(node)
    strides = [a.stride for a in axes]
    sizes = [n - s + 1 for n, s in zip(raw.shape[1:], strides)]
    big = nm.model.rebuild_model(model, imposed_patch_size=sizes)
    assert big.input_node.shape.spatial_shape == sizes
    out = big.prediction_node.shape.spatial_shape
    dense = np.empty((node.shape["f"], *(n * s for n, s in zip(out, strides))))
    for shift in product(*map(range, strides)):
        window = raw[(slice(None), *(slice(d, d + n) for d, n in zip(shift, sizes)))]
        dense[(slice(None), *(slice(d, None, s) for d, s in zip(shift, strides)))] = big.predict(window[None])[0]
    cut = [0 if a.keep_border else a.border * a.stride for a in axes]
    return dense[(slice(None), *(slice(c, n - c) for c, n in zip(cut, dense.shape[1:])))]


def patch_for_tiling(recipe, model, upsampling=True, linear=False):
    """A model whose patch is large enough to be a tile that steps by some voxels."""
    for _ in range(30):
        size = model.input_node.shape.spatial_shape
        try:
            if all(len(a.tiles(a.tile + 4)) <= 3 for a in geometry(model.prediction_node)):
                return size, model
        except ValueError:
            pass
        nm.model_manager.discard(model.name)
        model = build(recipe, legal_size(recipe, [n + 2 for n in size], upsampling), upsampling, linear)
    raise AssertionError(f"no patch of {recipe} can be a tile")


def tileable_mfp(model, size):
    for more in (8, 16, 32, 64):
        mfp = nm.model.rebuild_model(model, override_mfp_to_active=True, imposed_patch_size=[n + more for n in size])
        try:
            for a in geometry(mfp.prediction_node):
                a.tiles(a.tile + 1)
        except ValueError:
            continue
        return mfp
    raise AssertionError("no MFP patch can be a tile")


def on_random_graphs(check, examples, **options):
    """``check(recipe, model, rng)`` on that many random graphs."""
    upsampling = options.get("upsampling", True)

    @settings(SETTINGS, max_examples=examples)
    @given(recipes(**options))
    def run(recipe):
        nm.model_manager.models.clear()
        size = legal_size(recipe, [8] * recipe[0], upsampling)
        check(recipe, build(recipe, size, upsampling), np.random.default_rng(0))
    run()
    nm.model_manager.models.clear()


def examples(few, many):
    """A few graphs always, many in the slow tests."""
    return pytest.mark.parametrize("n", [few, pytest.param(many, marks=pytest.mark.slow)])


def close(a, b):
    assert a.shape == b.shape
    return np.abs(a - b).max() <= 1e-9 * max(1, np.abs(b).max())


@examples(30, 600)
def test_tiled_equals_whole_on_random_graphs(n):
    """At least two tiles per axis, against one pass over the whole volume."""
    def check(recipe, model, rng):
        size, model = patch_for_tiling(recipe, model)
        axes = geometry(model.prediction_node)
        steps = [max(lcm(a.grid), a.block // a.grid * a.grid) for a in axes]
        wanted = [n + s // a.scale + 1 for n, s, a in zip(size, steps, axes)]
        whole_size = legal_size(recipe, wanted)
        raw = rng.normal(size=(1, *(n + a.stride - 1 for n, a in zip(whole_size, axes))))
        assert all(len(a.tiles(n)) >= 2 for a, n in zip(axes, raw.shape[1:]))
        plain = model.predict_dense(raw)
        assert close(plain, whole(model, raw))

        padded = model.predict_dense(raw, pad_raw=True)
        assert padded.shape[1:] == tuple(n * a.scale for n, a in zip(raw.shape[1:], axes))
        if not any(a.border and a.keep_border for a in axes) and all(a.offset >= 0 for a in axes):
            inner = (slice(None), *(slice(a.offset, a.offset + n) for a, n in zip(axes, plain.shape[1:])))
            assert close(padded[inner], plain), "the grid is anchored at voxel 0, whether the border is mirrored or not"
        widths = [a.padding(n) for a, n in zip(axes, raw.shape[1:])]
        mirrored = np.pad(raw, [(0, 0), *((before, after + 80) for before, after, _ in widths)], mode="symmetric")
        legal = legal_size(recipe, [n + b + c - a.stride + 1 for a, n, (b, c, _) in zip(axes, raw.shape[1:], widths)])
        reference = whole(model, mirrored[(slice(None), *(slice(0, n + a.stride - 1) for n, a in zip(legal, axes)))])
        # a same-padding network sees its own padding at the border of the rounded-up volume
        same = [n + a.stride - 1 == m + b + c for n, m, a, (b, c, _) in zip(legal, raw.shape[1:], axes, widths)]
        if all(s or not a.border or not a.keep_border for s, a in zip(same, axes)):
            part_of = reference[(slice(None), *(slice(s, s + n) for (_, _, s), n in zip(widths, padded.shape[1:])))]
            assert close(padded, part_of)
    on_random_graphs(check, n)


@examples(30, 600)
def test_mfp_equals_all_shifts_on_random_graphs(n):
    """Max-fragment pooling against the shifted passes, on branching graphs without upsampling."""
    strided = 0

    def check(recipe, model, rng):
        nonlocal strided
        size, model = patch_for_tiling(recipe, model, upsampling=False)
        raw = rng.normal(size=(1, *(n + 7 for n in size)))
        shifts = model.predict_dense(raw)
        mfp = tileable_mfp(model, size)
        moves = np.prod(model.prediction_node.shape.strides) > 1
        strided += moves
        assert any(type(n).__name__ == "FragmentsToDense" for n in mfp.nodes.values()) == moves
        for pad in (False, True):
            assert close(mfp.predict_dense(raw, pad_raw=pad), model.predict_dense(raw, pad_raw=True) if pad else shifts)
    on_random_graphs(check, n, upsampling=False)
    assert strided >= n // 4


# patch, whole volume in one pass: at least two tiles per axis
NETWORKS = {
    "docs_cnn": ((11, 31, 31), (15, 39, 39)),
    "neuro3d": ((17, 109, 109), (19, 113, 113)),
    "neuro3d_lite": ((7, 43, 43), (9, 51, 51)),
    "unet3d": ((100, 100, 100), (108, 108, 108)),
    "unet3d_lite": ((16, 100, 100), (18, 108, 108)),
    "unet3d_litelite": ((14, 124, 124), (16, 140, 140)),
}


@pytest.mark.parametrize("name, factor", [
    pytest.param(name, factor, marks=[pytest.mark.slow] * (factor == 1 or name in ("neuro3d", "unet3d")))
    for name in NETWORKS for factor in (16, 1)])
def test_documented_networks(name, factor, rng):
    """Tiled equals whole, MFP equals all shifts, with and without mirrored border."""
    patch, size = NETWORKS[name]
    original = docs_cnn(FewerFeatures(factor)) if name == "docs_cnn" else example(name, FewerFeatures(factor))
    model = nm.model.rebuild_model(original, imposed_patch_size=patch, imposed_batch_size=1)
    assert model.input_node.shape.spatial_shape == list(patch)
    axes = geometry(model.prediction_node)
    raw = rng.random((model.input_node.shape["f"], *(n + a.stride - 1 for n, a in zip(size, axes))))
    assert all(len(a.tiles(n)) >= 2 for a, n in zip(axes, raw.shape[1:]))
    dense = model.predict_dense(raw)
    assert close(dense, whole(model, raw))

    # a smaller volume, mirrored: before it by multiples of the U-Net's total stride, which is cut off again
    small = raw[(slice(None), *(slice(0, n) for n in dense.shape[1:]))]
    widths, cuts = [(0, 0)], [slice(None)]
    for n, m, o, a in zip(raw.shape[1:], dense.shape[1:], model.prediction_node.shape.offsets, axes):
        before = -(-o // a.grid) * a.grid
        after = n - m - o + (a.grid - (before - o)) % a.grid
        widths.append((before, after))
        cuts.append(slice(before - o, before - o + m))
    reference = whole(model, np.pad(small, widths, mode="symmetric"))
    assert close(model.predict_dense(small, pad_raw=True), reference[tuple(cuts)])

    mfp = nm.model.rebuild_model(model, override_mfp_to_active=True, imposed_patch_size=size)
    assert ("unet" in name) != any(type(n).__name__ == "FragmentsToDense" for n in mfp.nodes.values())
    assert close(mfp.predict_dense(raw), dense)
    assert close(mfp.predict_dense(small, pad_raw=True), model.predict_dense(small, pad_raw=True))


def test_a_classifier_of_images_says_that_it_is_not_dense():
    with pytest.raises(ValueError, match="image-to-image"):
        example("mnist").predict_dense(np.zeros((1, 40, 40)))


@examples(15, 300)
def test_strided_network_is_the_window_at_every_voxel(n):
    """Without padding, every dense voxel is the network evaluated on the one window of fov size around it."""
    checked = 0

    def check(recipe, model, rng):
        nonlocal checked
        shape = model.prediction_node.shape
        raw = rng.normal(size=(1, *(n + 9 for n in model.input_node.shape.spatial_shape)))
        dense = model.predict_dense(raw)
        if any(name == "Crop" for name, _ in recipe[1]) or any(type(n).__name__ == "Crop" for n in model.nodes.values()):
            return  # cropped inside: the smallest window gives nothing
        checked += 1
        assert dense.shape[1:] == tuple(n - v + 1 for n, v in zip(raw.shape[1:], shape.fov))
        window = nm.model.rebuild_model(model, imposed_patch_size=shape.fov)
        for _ in range(5):
            at = [int(rng.integers(n)) for n in dense.shape[1:]]
            cut = raw[(slice(None), *(slice(i, i + v) for i, v in zip(at, shape.fov)))]
            np.testing.assert_allclose(window.predict(cut[None])[0][(slice(None), *[0] * len(at))],
                                       dense[(slice(None), *at)], atol=1e-9)
    on_random_graphs(check, n, upsampling=False, padding=False)
    assert checked >= n // 3


def positive(model):
    for node in model.nodes.values():
        if "w" in node.params:
            node.w.set_value(np.abs(node.w.get_value()) + 0.1)


@examples(25, 300)
def test_impulse_lands_where_the_geometry_says(n):
    """A changed voxel changes exactly the outputs whose window holds it (at most those, after upsampling)."""
    exact = 0

    def check(recipe, model, rng):
        nonlocal exact
        size, model = patch_for_tiling(recipe, build(recipe, model.input_node.shape.spatial_shape, linear=True), linear=True)
        positive(model)
        axes, shape = geometry(model.prediction_node), model.prediction_node.shape
        raw = rng.random((1, *(n + a.grid for n, a in zip(size, axes))))
        at = [n // 2 for n in raw.shape[1:]]
        changed = raw.copy()
        changed[(0, *at)] += 1e3
        moved = np.abs(model.predict_dense(changed, pad_raw=True) - model.predict_dense(raw, pad_raw=True))[0] > 1e-6
        if not moved.any():
            return  # a stride or dilation larger than the window leaves voxels out
        upsamples = any(type(n).__name__ in ("UpConv", "Upsample") for n in model.nodes.values())
        dilated = any(max(a.get("dilation", [1])) > 1 for _, a in recipe[1])
        for k, (v, a, fov) in enumerate(zip(at, axes, shape.fov)):
            hits = np.flatnonzero(moved.any(axis=tuple(i for i in range(moved.ndim) if i != k)))
            # output voxel j sits on input voxel (j - (scale - 1) / 2) / scale, plus what an even fov was rounded down by
            exact_index = shape.centre[k] * a.scale + Fraction(a.scale - 1, 2)
            position = (hits - (a.scale - 1) / 2 + float(exact_index - a.centre)) / a.scale
            half = (float(fov) - 1) / 2
            assert position.min() >= v - half - 1e-9 and position.max() <= v + half + 1e-9, k
            if not (upsamples or dilated or pads(recipe)):
                assert position.min() == v - half and position.max() == v + half, k
                exact += 1
    on_random_graphs(check, n)
    assert exact >= n // 5
