"""Targets made from labels, and the fitting of shapes: against plain loops and what the first ELEKTRONN2 computed."""
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from elektronn2.data.image import (
    center_cubes,
    downsample_xy,
    fit_border,
    grow_seg,
    ids2barriers,
    make_affinities,
    make_nhood_targets,
    smearbarriers,
)


@pytest.fixture(scope="module")
def oracle():
    with np.load(Path(__file__).parents[1] / "oracle" / "data" / "data_grey_border.npz") as f:
        return dict(f)


def same_partition(a, b):
    """Whether two segmentations agree up to the choice of ids, with 0 the same in both."""
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist()))
    one_to_one = len(pairs) == len({p for p, _ in pairs}) == len({q for _, q in pairs})
    return one_to_one and np.array_equal(a == 0, b == 0)


# -- affinities ------------------------------------------------------------------------------------------
def test_affinities_are_those_of_the_first_elektronn2(oracle):
    aff, seg = make_affinities(oracle["seg"])
    assert np.array_equal(aff, oracle["aff"]) and aff.dtype == np.int16
    assert seg.dtype == np.int16 and all(same_partition(a, b) for a, b in zip(seg, oracle["aff_seg"]))


def test_affinities_by_the_book(rng):
    labels = rng.integers(-1, 3, (2, 4, 5, 6))
    nhood = np.array([(0, 0, 1), (-1, 2, 0), (0, -5, 0), (9, 0, 0)])
    aff, seg = make_affinities(labels, nhood, size_thresh=0)
    for b, e, *v in np.ndindex(aff.shape):
        w = np.add(v, nhood[e])
        inside = np.all(w >= 0) and np.all(w < labels.shape[1:])
        assert aff[(b, e, *v)] == (inside and labels[(b, *v)] == labels[(b, *w)] > 0 if inside else 0)
        if aff[(b, e, *v)]:
            assert seg[(b, *v)] == seg[(b, *w)]
    for volume in seg:
        assert np.array_equal(np.unique(volume), np.arange(volume.max() + 1))
    assert np.array_equal(seg > 0, labels > 0)
    wanted = sum(ndimage.label(labels[0] == i)[1] for i in (1, 2))
    assert make_affinities(labels, size_thresh=0)[1][0].max() == wanted


def test_small_parts_are_dropped(rng):
    labels = (rng.random((1, 6, 20, 20)) < 0.25).astype(np.int32)
    parts, n = ndimage.label(labels[0])
    sizes = np.bincount(parts.ravel())[1:]
    for threshold in (0, 1, 4):
        seg = make_affinities(labels, size_thresh=threshold)[1]
        assert seg.max() == np.count_nonzero(sizes > threshold) and np.count_nonzero(seg) == sizes[sizes > threshold].sum()
    assert n > 40
    assert make_affinities(np.zeros((1, 2, 2, 2), int))[1].max() == 0
    many = np.zeros((1, 1, 400, 200), int)
    many[..., ::2] = 1 + np.arange(100) + 100 * np.arange(400)[:, None]
    seg = make_affinities(many, size_thresh=0)[1]
    assert seg.max() == 40000 and seg.dtype == np.int32


def test_wrong_labels_and_neighbourhoods_are_named():
    with pytest.raises(ValueError, match=r"axes \(b, z, x, y\), got shape \(1, 2, 3\)"):
        make_affinities(np.zeros((1, 2, 3)))
    for nhood in ([1, 0, 0], [(1, 0)], [(0.5, 0, 0)]):
        with pytest.raises(ValueError, match="integers of shape"):
            make_affinities(np.zeros((1, 2, 3, 4)), nhood)
        with pytest.raises(ValueError, match="integers of shape"):
            make_nhood_targets(np.zeros((1, 2, 3, 4)), nhood)
    with pytest.raises(ValueError, match="target must have axes"):
        make_nhood_targets(np.zeros((2, 3, 4)))


# -- shifted targets -------------------------------------------------------------------------------------
def test_shifted_targets_are_those_of_the_first_elektronn2(oracle):
    ours = make_nhood_targets(oracle["seg"])
    assert np.array_equal(ours, oracle["nhood"]) and ours.dtype == np.int16


def test_shifted_targets_by_the_book(rng):
    target = rng.integers(0, 9, (2, 3, 3, 4, 5))
    nhood = [(1, 0, 0), (0, -2, 1), (4, 0, 0)]
    ours = make_nhood_targets(target, nhood)
    assert ours.shape == (2, 5, 3, 4, 5) and np.array_equal(ours[:, 3:], target[:, 1:])
    for b, i, *v in np.ndindex(2, 3, 3, 4, 5):
        w = np.subtract(v, nhood[i])
        inside = np.all(w >= 0) and np.all(w < (3, 4, 5))
        assert ours[(b, i, *v)] == (target[(b, 0, *w)] if inside else -1)


# -- barriers --------------------------------------------------------------------------------------------
def test_barriers_by_the_book(rng):
    ids = ndimage.zoom(rng.integers(0, 4, (3, 4, 4)), 3, order=0)
    for connectivity in ((True, True, True), (False, True, True), (True, False, False)):
        wanted = np.zeros(ids.shape, int)
        for v in np.ndindex(ids.shape):
            for axis in np.flatnonzero(connectivity):
                for step in (-1, 1):
                    w = np.add(v, step * np.eye(3, dtype=int)[axis])
                    if np.all(w >= 0) and np.all(w < ids.shape):
                        wanted[v] |= ids[v] != ids[tuple(w)]
        ours = ids2barriers(ids, (False,) * 3, connectivity, ecs_as_barr=False)
        assert np.array_equal(ours, wanted) and ours.dtype == np.int16
        assert np.array_equal(ids2barriers(ids, (False,) * 3, connectivity), wanted | (ids == 0))
        both = ids2barriers(ids, (False,) * 3, connectivity, "new_class")
        assert np.array_equal(both == 1, wanted == 1) and np.array_equal(both == 2, (ids == 0) & (wanted == 0))
    line = np.array([1] * 5 + [2] * 5)
    for axis in range(3):
        shape = np.ones(3, int)
        shape[axis] = 10
        for dilute in (0, 1):
            got = ids2barriers(line.reshape(shape), np.arange(3) == (axis if dilute else axis - 1)).ravel()
            assert np.array_equal(got, [0, 0, 0, 1, 1, 1, 1, 0, 0, 0] if dilute else [0, 0, 0, 0, 1, 1, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="ecs_as_barr must be"):
        ids2barriers(ids, ecs_as_barr="new")


def test_smooth_barriers_have_most_of_their_neighbours(rng):
    ids = rng.integers(1, 3, (5, 6, 7)).repeat(3, 1).repeat(2, 2)
    rough = ids2barriers(ids, (False,) * 3)
    smooth = ids2barriers(ids, (False,) * 3, smoothen=True)
    padded = np.pad(rough, 1, mode="edge")
    for z, x, y in np.ndindex(ids.shape):
        around = padded[z:z + 3, x:x + 3, y:y + 3]
        cross = around[:, 1, 1].sum() + around[1, :, 1].sum() + around[1, 1].sum() - 2 * rough[z, x, y]
        assert smooth[z, x, y] == (cross > 4)
    assert np.any(smooth != rough)


def test_smeared_barriers_fall_off_on_both_sides(rng):
    wall = np.zeros((5, 12, 5), np.float32)
    wall[:, 6:] = 1
    soft = smearbarriers(wall)
    assert soft.dtype == np.float32 and np.all(np.diff(soft, axis=1) >= 0) and np.ptp(soft, axis=(0, 2)).max() == 0
    np.testing.assert_allclose(soft[2, :, 2], [0, 0, 0, 0, 1 / 6, 1 / 3, 2 / 3, 5 / 6, 1, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(smearbarriers(1 - wall), 1 - soft, atol=1e-6)
    z, x = (smearbarriers(np.moveaxis(wall, 1, axis)) for axis in (0, 1))
    assert np.count_nonzero(z % 1) < np.count_nonzero(x % 1)  # sections are further apart
    noise = rng.integers(0, 2, (4, 5, 6))
    assert np.array_equal(smearbarriers(noise, np.ones((1, 1, 1))), noise)


def test_growing_keeps_ids_and_fills_what_is_near(rng):
    seg = np.zeros((7, 15, 15), np.int32)
    seg[3, 7, 7] = 5
    grown = grow_seg(seg)
    wanted = np.zeros_like(seg)
    wanted[2:5, 4:11, 4:11] = 5
    assert np.array_equal(grown, wanted) and grown.dtype == seg.dtype and seg.sum() == 5
    many = rng.integers(0, 30, (6, 20, 20)) * (rng.random((6, 20, 20)) < 0.05)
    grown = grow_seg(many)
    assert np.array_equal(grown[many > 0], many[many > 0])
    reach = ndimage.maximum_filter(many > 0, (3, 7, 7), mode="constant")
    assert np.array_equal(grown > 0, reach)


@pytest.mark.parametrize("channels", [False, True])
def test_fewer_voxels_in_x_and_y(channels, rng):
    image, labels = rng.random((2, 3, 9, 13)), rng.integers(0, 4, (2, 3, 9, 13))
    small, ids = downsample_xy(image, labels if channels else labels[0], 3)
    assert small.shape == (2, 3, 3, 4) and ids.shape == ((2, 3, 3, 4) if channels else (3, 3, 4))
    for f, z, x, y in np.ndindex(small.shape):
        part = np.s_[f, z, 3 * x:3 * x + 3, 3 * y:3 * y + 3]
        assert np.isclose(small[f, z, x, y], image[part].mean())
        found, window = (ids[f], labels[part]) if channels else (ids, labels[(0, *part[1:])])
        assert found[z, x, y] == np.bincount(window.ravel()).argmax()


# -- shapes ----------------------------------------------------------------------------------------------
def test_border_modes_are_those_of_the_first_elektronn2(oracle):
    for mode, shape in (("crop", (2, 4, 5)), ("mirror", (6, 9, 9)), ("0-pad", (6, 9, 9)), ("keep", (6, 9, 9))):
        assert np.array_equal(fit_border(oracle["d"], shape, mode), oracle[f"border_{mode}"]), mode
    both = fit_border(oracle["d"], (2, 9, 7), "0-pad")  # shorter on one axis, longer on another
    assert both.shape == (1, 2, 9, 7) and np.array_equal(both[:, :, 2:8], oracle["d"][:, 1:3])
    with pytest.raises(ValueError, match="Did you mean 'crop'"):
        fit_border(oracle["d"], (2, 4, 5), "corp")


def test_cubes_are_centred_on_each_other(rng):
    a, b = rng.random((2, 8, 9, 4)), rng.random((5 + 3, 5, 8))
    small = center_cubes(a, b)
    assert np.array_equal(small[0], a[:, :, 2:7]) and np.array_equal(small[1], b[..., 2:6])
    large = center_cubes(a, b, crop=False)
    assert np.array_equal(large[0][..., 2:6], a) and np.array_equal(large[1][:, 2:7], b)
    assert large[0].shape == (2, 8, 9, 8) and large[1].sum() == pytest.approx(b.sum())
    with pytest.raises(ValueError, match="difference must be even"):
        center_cubes(a, b[1:])
