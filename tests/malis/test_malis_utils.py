"""Affinity graphs and MALIS: against slow and obvious ways, and what the first ELEKTRONN2 computed."""
import heapq
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from elektronn2 import malis
from elektronn2.malis import malis_utils

NEXT = np.eye(3, dtype=int)
LONG = np.array([(0, 0, 1), (-1, 1, 0), (0, -2, 1), (1, 0, -3)])


@pytest.fixture(scope="module")
def oracle():
    with np.load(Path(__file__).parents[1] / "oracle" / "malis" / "malis_utils.npz") as f:
        return dict(f)


def edges(shape, nhood):
    """(index in the affinity graph, first voxel, second voxel) of each edge, voxels as flat indices."""
    for e, *v in np.ndindex(len(nhood), *shape):
        w = np.add(v, nhood[e])
        if np.all(w >= 0) and np.all(w < shape):
            yield (e, *v), np.ravel_multi_index(v, shape), np.ravel_multi_index(w, shape)


def parts(shape, nhood, joined):
    """Component of each voxel (1-d), by scipy, when the edges where ``joined`` is true connect."""
    ends = np.array([(v, w) for k, v, w in edges(shape, nhood) if joined[k]], int).reshape(-1, 2)
    n = int(np.prod(shape))
    return connected_components(coo_array((np.ones(len(ends)), ends.T), (n, n)), directed=False)[1]


def same_partition(a, b):
    pairs = set(zip(np.ravel(a).tolist(), np.ravel(b).tolist()))
    return len(pairs) == len({p for p, _ in pairs}) == len({q for _, q in pairs})


def case(rng, shape=(3, 4, 5), nhood=NEXT, n_ids=3, levels=None):
    """A random prediction (of ``levels`` values, so with ties, or of unequal ones), true affinities and ids."""
    seg = rng.integers(0, n_ids + 1, shape)
    pred = rng.permutation(len(nhood) * seg.size).reshape(len(nhood), *shape).astype(np.float32) / 1000
    if levels:
        pred = rng.integers(0, levels, pred.shape).astype(np.float32) / levels
    return pred, malis.seg_to_affgraph(seg, nhood), seg


# -- neighbourhoods --------------------------------------------------------------------------------------
@pytest.mark.parametrize("key, nhood", [("mknhood2d", malis.mknhood2d()), ("mknhood3d", malis.mknhood3d()),
                                        ("mknhood3d_15", malis.mknhood3d(1.5))])
def test_neighbourhoods_are_those_of_the_first_elektronn2(oracle, key, nhood):
    """But for the voxel itself, which it put at the front by mistake."""
    assert not oracle[key][0].any()
    assert np.array_equal(nhood, oracle[key][1:]) and nhood.dtype == np.int32


@pytest.mark.parametrize("make, ndim", [(malis.mknhood2d, 2), (malis.mknhood3d, 3)])
@pytest.mark.parametrize("radius", [1, 1.5, 2, 3.2])
def test_half_of_the_ball(make, ndim, radius):
    half = [tuple(d) for d in make(radius).tolist()]
    span = range(-4, 5)
    ball = {d for d in np.ndindex((9,) * ndim) if 0 < sum(span[i] ** 2 for i in d) <= radius ** 2}
    assert len(set(half)) == len(half) == len(ball) / 2
    assert {tuple(span[i] for i in d) for d in ball} == {*half, *(tuple(-c for c in d) for d in half)}


def test_anisotropic_neighbourhood():
    nhood = malis.mknhood3d_aniso(2, 1.5)
    within, below = nhood[nhood[:, 0] == 0], nhood[nhood[:, 0] == -1]
    assert np.array_equal(within[:, 1:], malis.mknhood2d(2)) and len(within) + len(below) == len(nhood)
    assert {tuple(d) for d in below.tolist()} == {(-1, x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)} and len(below) == 9
    assert nhood[0].tolist() == [-1, 0, 0] and nhood.dtype == np.int32


# -- graphs ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape, nhood", [((3, 4, 5), LONG), ((4, 6), malis.mknhood2d(2))])
def test_nodelist_and_affinities_by_the_book(rng, shape, nhood):
    seg = rng.integers(-1, 3, shape)
    boundary = rng.random(shape)
    first, second = malis.nodelist_from_shape(shape, nhood)
    aff = malis.seg_to_affgraph(seg, nhood)
    near = nhood[np.abs(nhood).max(1) == 1]
    hard, soft = malis.bmap_to_affgraph(boundary > 0.5, near), malis.bmappred_to_affgraph(boundary, near)
    true_second, true_aff = np.full_like(second, -1), np.zeros_like(aff)
    for k, v, w in edges(shape, nhood):
        true_second[k] = w
        true_aff[k] = seg.flat[v] == seg.flat[w] > 0
    assert np.array_equal(first, np.broadcast_to(np.arange(seg.size).reshape(shape), first.shape))
    assert np.array_equal(second, true_second) and np.array_equal(aff, true_aff) and aff.dtype == np.int16
    true_soft = np.zeros(soft.shape)
    for k, v, w in edges(shape, near):
        true_soft[k] = 1 - max(boundary.flat[v], boundary.flat[w])
    np.testing.assert_allclose(soft, true_soft, rtol=1e-5, atol=1e-7)
    assert np.array_equal(hard, true_soft >= 0.5) and hard.dtype == np.int32 and soft.dtype == np.float32


def test_graphs_are_those_of_the_first_elektronn2(oracle):
    nhood = oracle["nhood"]
    assert np.array_equal(malis.seg_to_affgraph(oracle["seg"], nhood), oracle["aff"])
    for key, convert in (("bmap/0", malis.bmap_to_affgraph), ("bmappred/0", malis.bmappred_to_affgraph)):
        boundary = np.ones(oracle["seg"].shape)  # the smallest ones that have such affinities
        for k, v, w in edges(boundary.shape, nhood):
            for voxel in (v, w):
                boundary.flat[voxel] = min(boundary.flat[voxel], 1 - oracle[key][k])
        aff = convert(boundary, nhood)
        np.testing.assert_allclose(aff, oracle[key], rtol=1e-6)
        assert aff.dtype == oracle[key].dtype


def test_boundary_images():
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        aff = malis.bmappred_to_affgraph(np.array([[0, top // 5, top]], dtype), [(0, 1)])
        np.testing.assert_allclose(aff, [[[0.8, 0, 0]]], rtol=1e-6)
    with pytest.raises(TypeError, match="int32 has no known scale"):
        malis.bmappred_to_affgraph(np.zeros((2, 2), np.int32), [(0, 1)])


# -- segmentations ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape, nhood", [((4, 5, 6), LONG), ((4, 5, 6), NEXT), ((7, 9), malis.mknhood2d())])
def test_connected_components(rng, shape, nhood):
    aff = rng.choice([0, 9e-6, -9e-6, -0.1, 2e-5], (len(nhood), *shape))
    wanted = parts(shape, nhood, np.abs(aff) > 1e-5)
    sizes = np.bincount(wanted)[wanted].reshape(shape)
    for threshold in (0, 1, 3):
        seg, counts = malis.affgraph_to_seg(aff, nhood, threshold)
        assert np.array_equal(seg > 0, sizes > threshold) and seg.dtype == np.int32
        assert same_partition(seg[seg > 0], wanted.reshape(shape)[seg > 0])
        assert np.array_equal(counts, np.bincount(seg.ravel()))
        first = np.unique(seg[seg > 0], return_index=True)
        assert np.array_equal(first[0], np.arange(1, len(counts))) and np.all(np.diff(first[1]) > 0)
    assert np.array_equal(malis.affgraph_to_seg(np.abs(aff) > 1e-5, nhood)[0], malis.affgraph_to_seg(aff, nhood)[0])


@pytest.mark.parametrize("threshold", [1, 5])
def test_components_are_those_of_the_first_elektronn2(oracle, threshold):
    seg, sizes = malis.affgraph_to_seg(oracle["aff"], oracle["nhood"], threshold)
    assert np.array_equal(seg, oracle[f"aff2seg_{threshold}"])
    assert np.array_equal(sizes, oracle[f"aff2seg_sizes_{threshold}"])


def flooded(aff, seeds, nhood):
    """Seeds that grow by the largest edge on their front (Prim), where the library adds all edges by size (Kruskal)."""
    neighbours = {v: [] for v in range(seeds.size)}
    for k, v, w in edges(seeds.shape, nhood):
        neighbours[v].append((-aff[k], w))
        neighbours[w].append((-aff[k], v))
    seg = np.zeros(seeds.size, seeds.dtype)
    front = [(-np.inf, v, seeds.flat[v]) for v in np.flatnonzero(seeds)]
    heapq.heapify(front)
    while front:
        _, v, seed = heapq.heappop(front)
        if seg[v] == 0:
            seg[v] = seed
            for weight, w in neighbours[v]:
                heapq.heappush(front, (weight, w, seed))
    return seg.reshape(seeds.shape)


@pytest.mark.parametrize("shape, nhood", [((4, 5, 6), NEXT), ((4, 5, 6), LONG), ((9, 11), malis.mknhood2d(1.5))])
@pytest.mark.parametrize("dtype", [np.int16, np.uint64])
def test_watershed(rng, shape, nhood, dtype):
    aff = case(rng, shape, nhood)[0] - 0.1  # also negative ones
    names = np.array([3, 8, 9, 20000], dtype)
    seeds = np.where(rng.random(shape) < 0.08, rng.choice(names, shape), 0).astype(dtype)
    seg, sizes = malis.watershed_from_affgraph(aff, seeds, nhood)
    assert np.array_equal(seg, flooded(aff, seeds, nhood)) and seg.dtype == dtype
    assert sizes.tolist() == [np.sum(seg == i) for i in (0, *np.unique(seeds[seeds > 0]))]


def test_watershed_of_ties_and_out_of_reach():
    line = np.ones((1, 1, 5))
    seg, sizes = malis.watershed_from_affgraph(line, np.array([[1, 0, 0, 0, 2]]), [(0, 1)])
    assert seg.tolist() == [[1, 1, 1, 1, 2]] and sizes.tolist() == [0, 4, 1]
    seg, sizes = malis.watershed_from_affgraph(np.ones((1, 2, 3)), np.array([[0, 4, 0], [0, 0, 0]]), [(0, 1)])
    assert seg.tolist() == [[4, 4, 4], [0, 0, 0]] and sizes.tolist() == [3, 3]


# -- MALIS -----------------------------------------------------------------------------------------------
def n_pairs(component, ids):
    """Pairs of labelled voxels in the same component: (with equal ids, with different ids)."""
    table = np.zeros((component.max() + 1, ids.max() + 1), np.int64)
    np.add.at(table, (component, ids.ravel()), 1)
    table = table[:, 1:]
    equal = np.sum(table * (table - 1) // 2)
    total = table.sum(1)
    return np.array([equal, np.sum(total * (total - 1) // 2) - equal])


def check_levels(counts, which, weights, ids, nhood):
    """Voxels are as connected as the lowest level at which they are in one component: count pairs there, for every level."""
    exist = np.zeros(weights.shape, bool)
    for k, _, _ in edges(ids.shape, nhood):
        exist[k] = True
    assert not counts[~exist].any() and counts.dtype == np.uint64 and counts.shape == weights.shape
    before = 0
    for level in np.unique(weights[exist])[::-1]:
        joined = n_pairs(parts(ids.shape, nhood, weights >= level), ids)[which]
        assert counts[exist & (weights == level)].sum() == joined - before
        before = joined
    return before


@pytest.mark.parametrize("levels", [None, 6])
@pytest.mark.parametrize("shape, nhood", [((2, 3, 4), NEXT), ((3, 3, 4), LONG), ((5, 6), malis.mknhood2d())])
@pytest.mark.parametrize("unrestrict", [False, True])
def test_weights_at_each_level(rng, shape, nhood, levels, unrestrict):
    """Where weights are all different, a level is one edge."""
    pred, true, seg = case(rng, shape, nhood, levels=levels)
    pos, neg = malis.malis_weights(pred, true, seg, nhood, unrestrict)
    check_levels(pos, 0, np.minimum(pred, true), seg, nhood)
    check_levels(neg, 1, pred if unrestrict else np.maximum(pred, true), seg, nhood)


def kruskal(weights, ids, nhood):
    """Sets of voxels that are joined edge by edge, and all pairs counted one by one."""
    counts = np.zeros((2, *weights.shape), np.uint64)
    home = {v: {v} for v in range(ids.size)}
    for k, v, w in sorted(edges(ids.shape, nhood), key=lambda edge: -weights[edge[0]]):
        if home[v] is not home[w]:
            for a in home[v]:
                for b in home[w]:
                    if ids.flat[a] and ids.flat[b]:
                        counts[int(ids.flat[a] != ids.flat[b])][k] += np.uint64(1)
            both = home[v] | home[w]
            home.update(dict.fromkeys(both, both))
    return counts


@pytest.mark.parametrize("levels", [1, 3, None])
@pytest.mark.parametrize("nhood", [NEXT, LONG])
def test_ties_are_broken_by_the_order_of_edges(rng, nhood, levels):
    for n_ids in (1, 2, 40):
        pred, true, seg = case(rng, (3, 4, 5), nhood, n_ids, levels)
        pred[pred == 0] = rng.choice([0.0, -0.0], np.sum(pred == 0))
        pos, neg = malis.malis_weights(pred, true, seg, nhood)
        assert np.array_equal(pos, kruskal(np.minimum(pred, true), seg, nhood)[0])
        assert np.array_equal(neg, kruskal(np.maximum(pred, true), seg, nhood)[1])
        assert np.array_equal(malis.malis_weights(pred, true, seg, nhood, True)[1], kruskal(pred, seg, nhood)[1])


def test_negative_and_infinite_weights(rng):
    pred, true, seg = case(rng)
    pred = (pred - 0.05) * 1e5
    pred[0, 0, 0, 0], pred[1, 1, 1, 1] = np.inf, -np.inf
    pos, neg = malis.malis_weights(pred, true, seg, NEXT)
    assert np.array_equal(pos, kruskal(np.minimum(pred, true), seg, NEXT)[0])
    assert np.array_equal(neg, kruskal(np.maximum(pred, true), seg, NEXT)[1])


def test_all_pairs_are_counted_once(rng):
    pred, true, seg = case(rng, (9, 10, 11), n_ids=7)
    pos, neg = malis.malis_weights(pred, true, seg, NEXT)
    n = int(np.sum(seg > 0))
    assert pos.sum() + neg.sum() == n * (n - 1) // 2
    assert pos.sum() == sum(int(m) * (int(m) - 1) // 2 for m in np.bincount(seg.ravel())[1:])
    assert [pos.sum(), neg.sum()] == n_pairs(np.zeros(seg.size, int), seg).tolist()


@pytest.mark.parametrize("unrestrict", [0, 1])
def test_weights_are_those_of_the_first_elektronn2(oracle, unrestrict):
    """In sum, and on each true edge: there all predictions differ. All other edges of the positive pass weigh 0."""
    pos, neg = malis.malis_weights(oracle["aff_pred"], oracle["aff"], oracle["seg"], oracle["nhood"], bool(unrestrict))
    assert pos.sum() == oracle[f"pos_unrestrict{unrestrict}"].sum() > 0
    inside = oracle["aff"] == 1
    assert np.array_equal(pos[inside], oracle[f"pos_unrestrict{unrestrict}"][inside])
    assert np.array_equal(neg, oracle[f"neg_unrestrict{unrestrict}"])


def test_known_totals(rng):
    seg = np.tile([1, 1, 2, 2, 0, 3], (1, 4, 1))
    nhood = [(0, 1, 0), (0, 0, 1)]
    pos, neg = malis.malis_weights(rng.random((2, *seg.shape)), malis.seg_to_affgraph(seg, nhood), seg, nhood)
    assert pos.sum() == 62 and neg.sum() == 128


@pytest.mark.parametrize("shape", ["ruler", "ramp"])
def test_long_chains(shape):
    """2^17 voxels of as many ids, joined pairwise and pairs pairwise, or one by one. n^2 steps would take minutes."""
    n = 2 ** 17
    i = np.arange(1, n)
    weights = np.zeros((1, 1, n), np.float32)
    weights[0, 0, :-1] = i & -i if shape == "ruler" else i  # lowest bit
    weights = weights.max() - weights
    ids = np.arange(1, n + 1).reshape(1, n)
    pos, neg = malis.malis_weights(weights, np.zeros((1, 1, n)), ids, [(0, 1)])
    assert not pos.any()
    assert np.array_equal(neg[0, 0, :-1], (i & -i) ** 2 if shape == "ruler" else i)
    assert malis.malis_weights(weights, weights, ids ** 0, [(0, 1)])[0].sum() == n * (n - 1) // 2


def test_kinds_of_input(rng):
    """dtype, memory order, write protection, byte order, large ids: the same numbers, and nothing is changed."""
    pred, true, seg = case(rng)
    wanted = malis.malis_weights(pred, true, seg, NEXT)
    large = np.where(seg > 0, seg.astype(np.uint64) * np.uint64(2 ** 60), np.uint64(0))
    frozen = pred.copy()
    frozen.flags.writeable = False
    for args in ((pred.astype(float), true.astype(bool), seg.astype(np.int16)), (np.asfortranarray(pred), true * 1.0, large),
                 (frozen, true.astype(np.uint8), seg.astype(np.uint8)), (pred.astype(">f4"), true.astype(">i2"), seg)):
        for unrestrict in (False, True):
            copies = [a.copy() for a in args]
            for a, b in zip(malis.malis_weights(*args, NEXT.tolist(), unrestrict),
                            malis.malis_weights(pred, true, seg, NEXT, True) if unrestrict else wanted):
                assert np.array_equal(a, b)
            assert all(np.array_equal(a, b) for a, b in zip(args, copies))
    no_zero = np.where(seg == 0, 2 ** 40, seg)
    pos, _ = malis.malis_weights(pred, true, no_zero, NEXT)
    assert np.array_equal(pos, kruskal(np.minimum(pred, true), seg + 1, NEXT)[0])


# -- Rand index ------------------------------------------------------------------------------------------
def test_rand_index_counts_pairs(rng):
    true, pred = rng.integers(0, 4, (3, 4, 5)), rng.integers(0, 5, (3, 4, 5)) * 10 ** 9
    labelled = [(t, p) for t, p in zip(true.flat, pred.flat) if t]
    n = len(labelled)  # each voxel is a pair with itself, and the other pairs come in both orders
    joint, t, p = np.full(3, n) + 2 * np.sum([(a == c and b == d, a == c, b == d)
                                              for (a, b), (c, d) in combinations(labelled, 2)], 0)
    np.testing.assert_allclose(malis.compute_V_rand_N2(true, pred), (2 * joint / (t + p), joint / p, joint / t))
    assert malis.compute_V_rand_N2(true, true * 7) == (1, 1, 1)


def test_rand_index_is_that_of_the_first_elektronn2(oracle):
    values = malis.compute_V_rand_N2(oracle["seg"], np.roll(oracle["seg"], 1, 0))
    np.testing.assert_allclose(values, [oracle[f"rand/{i}"] for i in range(3)])


# -- the package -----------------------------------------------------------------------------------------
def test_nothing_heavy_is_imported_before_it_is_used():
    code = "import sys, elektronn2.malis; print([m for m in ('numba', 'torch', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    assert sorted(malis.__all__) == sorted(malis_utils.__all__) and set(malis.__all__) <= set(dir(malis))
    with pytest.raises(AttributeError, match="no 'malis_weigths'. Did you mean 'malis_weights'"):
        malis.malis_weigths  # noqa: B018


GRAPH, SEG = np.ones((3, 2, 3, 4), np.float32), np.ones((2, 3, 4), int)
BAD = GRAPH.copy()
BAD[1, 0, 2, 3] = np.nan


@pytest.mark.parametrize("call, error, message", [
    (lambda: malis.malis_weights(GRAPH, GRAPH[:2], SEG, NEXT), ValueError, "aff_gt of shape.*has 2 channels.*3 edges"),
    (lambda: malis.malis_weights(GRAPH, GRAPH[:, :, :2], SEG, NEXT), ValueError, "aff_gt must have the shape of aff_pred"),
    (lambda: malis.malis_weights(GRAPH, GRAPH, SEG[None], NEXT), ValueError, r"seg_gt must have shape \(2, 3, 4\), got"),
    (lambda: malis.malis_weights(GRAPH, GRAPH, SEG - 2, NEXT), ValueError, "seg_gt has negative ids, from -1. Use 0"),
    (lambda: malis.malis_weights(GRAPH, GRAPH, SEG * 1.0, NEXT), TypeError, "seg_gt must be integer ids, got float64"),
    (lambda: malis.malis_weights(BAD, GRAPH, SEG, NEXT), ValueError, r"aff_pred has 1 NaN.*index \(1, 0, 2, 3\)"),
    (lambda: malis.malis_weights(GRAPH, BAD, SEG, NEXT), ValueError, "aff_gt has 1 NaN"),
    (lambda: malis.malis_weights(GRAPH[None], GRAPH, SEG, NEXT), ValueError, r"axes \(e, z, x, y\).*\(1, 3, 2, 3, 4\)"),
    (lambda: malis.malis_weights(GRAPH + 1j, GRAPH, SEG, NEXT), ValueError, "real numbers.*complex"),
    (lambda: malis.malis_weights(GRAPH, GRAPH, SEG, NEXT[:, :2]), ValueError, r"nhood must be integers of shape \(edges"),
    (lambda: malis.malis_weights(GRAPH, GRAPH, SEG, NEXT * 1.0), ValueError, "nhood must be integers.*got float64"),
    (lambda: malis.malis_weights(GRAPH, GRAPH, SEG, NEXT * 2), ValueError, r"displacement \(2, 0, 0\), by which no two"),
    (lambda: malis.affgraph_to_seg(GRAPH, NEXT * 0), ValueError, r"displacement \(0, 0, 0\).*Leave it and its channel out"),
    (lambda: malis.affgraph_to_seg(BAD, NEXT), ValueError, "affinities has 1 NaN"),
    (lambda: malis.affgraph_to_seg(GRAPH, NEXT, -1), ValueError, "size_thresh must be at least 0"),
    (lambda: malis.affgraph_to_seg(GRAPH, NEXT, 1.5), TypeError, "size_thresh must be one integer"),
    (lambda: malis.affgraph_to_seg(np.broadcast_to(False, (1, 2 ** 16, 2 ** 16)), [(0, 1)]), ValueError, "Cut the volume"),
    (lambda: malis.watershed_from_affgraph(GRAPH, -SEG, NEXT), ValueError, "seeds has negative ids"),
    (lambda: malis.watershed_from_affgraph(GRAPH, SEG[0], NEXT), ValueError, "seeds must have shape"),
    (lambda: malis.seg_to_affgraph(SEG, [(0, 1)]), ValueError, r"shape \(edges, 3\).*shape \(1, 2\)"),
    (lambda: malis.seg_to_affgraph(SEG, np.zeros((0, 3), int)), ValueError, "nhood must be integers"),
    (lambda: malis.nodelist_from_shape((3, 4), [(0, -4)]), ValueError, r"displacement \(0, -4\)"),
    (lambda: malis.bmap_to_affgraph(SEG + 1, NEXT), ValueError, r"1 \(boundary\) or 0.*bmappred_to_affgraph"),
    (lambda: malis.bmap_to_affgraph(SEG, [(0, 2, 0)]), ValueError, "further than to the next voxel"),
    (lambda: malis.bmappred_to_affgraph(SEG * 0.5, [(0, 0, -2)]), ValueError, "further than to the next voxel"),
    (lambda: malis.bmappred_to_affgraph(SEG * 1.5, NEXT), ValueError, "probabilities in 0..1, got values from 1.5"),
    (lambda: malis.bmappred_to_affgraph(SEG * np.nan, NEXT), ValueError, "probabilities in 0..1"),
    (lambda: malis.mknhood3d(0.9), ValueError, "radius of a neighbourhood must be at least 1 voxel.*got 0.9"),
    (lambda: malis.compute_V_rand_N2(SEG, SEG[0]), ValueError, "seg_true must have shape"),
    (lambda: malis.compute_V_rand_N2(SEG * 0, SEG), ValueError, "nothing to compare"),
    (lambda: malis.compute_V_rand_N2(SEG, SEG * 0.5), TypeError, "seg_pred must be integer ids"),
])
def test_errors_say_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()
