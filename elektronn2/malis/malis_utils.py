"""Affinity graphs, their segmentations, and the MALIS weights of their edges.

An affinity graph has axes (e, z, x, y) or (e, x, y): value e of voxel v says how much v and v + nhood[e] belong
together, from 0 to 1. ``nhood`` (e, 3) or (e, 2) are these displacements, integers. Edges that leave the volume do not
exist: their values are 0 where a graph is made and ignored where one is read.
"""
import numpy as np
from scipy.sparse import coo_array

from elektronn2.malis import kernel
from elektronn2.utils.basic import as_float
from elektronn2.utils.validate import as_int

__all__ = ["affgraph_to_seg", "bmap_to_affgraph", "bmappred_to_affgraph", "compute_V_rand_N2", "malis_weights", "mknhood2d",
           "mknhood3d", "mknhood3d_aniso", "nodelist_from_shape", "seg_to_affgraph", "watershed_from_affgraph"]


# -- neighbourhoods --------------------------------------------------------------------------------------
def mknhood2d(radius=1):
    """Displacements to the neighbours within ``radius`` pixels, one of each pair of opposite ones: (e, 2) int32.

    >>> mknhood2d().tolist()
    [[-1, 0], [0, -1]]
    """
    return _half(_ball(radius, 2))


def mknhood3d(radius=1):
    """Displacements to the neighbours within ``radius`` voxels, one of each pair of opposite ones: (e, 3) int32.

    >>> mknhood3d().tolist()
    [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
    """
    return _half(_ball(radius, 3))


def mknhood3d_aniso(radiusxy=1, radiusxy_zminus1=1.8):
    """Displacements for thick slices: (e, 3) int32.

    First (-1, 0, 0), then half of the neighbours within ``radiusxy`` in the slice, as in :func:`mknhood2d`, then the others
    in the slice z - 1 within ``radiusxy_zminus1``, measured in the slice.

    >>> len(mknhood3d_aniso()), mknhood3d_aniso()[:4].tolist()
    (11, [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-1, 1, 1]])
    """
    within, below = mknhood2d(radiusxy), _ball(radiusxy_zminus1, 2)
    below = np.insert(below[below.any(1)], 0, -1, 1)
    return np.concatenate(([[-1, 0, 0]], np.insert(within, 0, 0, 1), below)).astype(np.int32)


def _ball(radius, ndim):
    """All displacements up to ``radius``, the last axis varying slowest, each from high to low."""
    if not 1 <= radius < 100:
        raise ValueError(f"The radius of a neighbourhood must be at least 1 voxel and below 100, got {radius!r}.")
    ball = int(radius) - np.indices((2 * int(radius) + 1,) * ndim).reshape(ndim, -1).T[:, ::-1]
    return ball[(ball ** 2).sum(1) <= radius ** 2].astype(np.int32)


def _half(ball):
    return ball[len(ball) // 2 + 1:]


# -- graphs from segmentations and boundaries ------------------------------------------------------------
def nodelist_from_shape(shape, nhood):
    """The two voxels of every edge: two int64 arrays (e, *shape) of flat indices, the second -1 where there is no edge.

    >>> nodelist_from_shape((1, 3), [(0, 1)])[1]
    array([[[ 1,  2, -1]]])
    """
    nhood = _check_nhood(nhood, shape)
    first = np.arange(np.prod(shape)).reshape(shape)
    second = np.full((len(nhood), *shape), -1)
    for e, shift in enumerate(nhood):
        here, there = _ends(shift, shape)
        second[(e, *here)] = first[there]
    return np.tile(first, (len(nhood), *(1 for _ in shape))), second


def seg_to_affgraph(seg, nhood):
    """Affinities int16 (e, *spatial) of a segmentation (z, x, y) or (x, y): 1 where both voxels have the same id above 0.

    >>> seg_to_affgraph(np.array([[3, 3, 0, 0, 4]]), [(0, 1)])
    array([[[1, 0, 0, 0, 0]]], dtype=int16)
    """
    seg = np.asarray(seg)
    return _edges(seg, _check_nhood(nhood, seg.shape), lambda a, b: (a == b) & (a > 0)).astype(np.int16)


def bmap_to_affgraph(bmap, nhood):
    """Affinities int32 (e, *spatial) of a boundary map, 1 where neither voxel is boundary.

    ``bmap``: (z, x, y) or (x, y), 1 (or True) is boundary, 0 is not. ValueError for other values, and for edges further
    than to the next voxel, which could jump over a boundary.

    >>> bmap_to_affgraph(np.array([[0, 0, 1, 0, 0]]), [(0, 1)])
    array([[[1, 0, 0, 1, 0]]], dtype=int32)
    """
    bmap = np.asarray(bmap)
    if not np.isin(bmap, (0, 1)).all():
        raise ValueError("bmap must be 1 (boundary) or 0 everywhere. For probabilities use bmappred_to_affgraph.")
    return _edges(bmap.astype(np.int32), _check_nhood(nhood, bmap.shape, 1), lambda a, b: 1 - np.maximum(a, b))


def bmappred_to_affgraph(pred, nhood):
    """Affinities float32 (e, *spatial) of boundary probabilities: 1 minus the larger one of the two voxels.

    ``pred``: (z, x, y) or (x, y), floats in 0..1, or uint8 (uint16) that are divided by 255 (65535); TypeError for other
    integers. ValueError for other values, and for edges further than to the next voxel.

    >>> bmappred_to_affgraph(np.array([[0, 51, 255]], np.uint8), [(0, 1)])
    array([[[0.8, 0. , 0. ]]], dtype=float32)
    """
    pred = as_float(np.asarray(pred)).astype(np.float32)
    if not np.all((pred >= 0) & (pred <= 1)):  # also NaN
        raise ValueError(f"pred must be probabilities in 0..1, got values from {pred.min()} to {pred.max()}.")
    return _edges(pred, _check_nhood(nhood, pred.shape, 1), lambda a, b: 1 - np.maximum(a, b))


def _edges(volume, nhood, affinity):
    """``affinity(first voxels, second voxels)`` of all edges, in the dtype of the volume."""
    graph = np.zeros((len(nhood), *volume.shape), volume.dtype)
    for edge, shift in zip(graph, nhood):
        here, there = _ends(shift, volume.shape)
        edge[here] = affinity(volume[here], volume[there])
    return graph


def _ends(shift, shape):
    """Slices of the voxels v and v + shift that both lie in a volume."""
    here = tuple(slice(max(0, -d), min(n, n - d)) for d, n in zip(shift, shape))
    there = tuple(slice(max(0, d), min(n, n + d)) for d, n in zip(shift, shape))
    return here, there


# -- segmentations from graphs ---------------------------------------------------------------------------
def affgraph_to_seg(affinities, nhood, size_thresh=1):
    """Connected components of an affinity graph: (segmentation, sizes).

    ``affinities``: (e, *spatial), any real numbers or bool; edges whose absolute value is above 1e-5 connect, so cut
    predictions first: ``affgraph_to_seg(pred > 0.5, nhood)``. The segmentation is int32 (*spatial), numbered from 1 by first
    voxel; components of up to ``size_thresh`` voxels are 0. ``sizes`` int64 (1 + number of components): voxels of each id.

    >>> affgraph_to_seg(np.array([[[0, 1, 0, 1, 1, 0]]]), [(0, 1)])
    (array([[0, 1, 1, 2, 2, 2]], dtype=int32), array([1, 2, 3]))
    """
    affinities, nhood = _check_graph(affinities, nhood, "affinities")
    size_thresh = as_int(size_thresh, "size_thresh", 0)
    joined, nhood = _as_3d(np.abs(affinities) > 1e-5, nhood)
    seg = kernel.components(joined, nhood, size_thresh).reshape(affinities.shape[1:])
    return seg, np.bincount(seg.ravel())


def watershed_from_affgraph(affinities, seeds, nhood):
    """Seeds grown over the edges of an affinity graph, largest affinity first: (segmentation, sizes).

    ``affinities``: (e, *spatial), real, compared as float32. ``seeds``: integers (*spatial), 0 where there is no seed. Each
    voxel gets the id in whose tree it is in the maximum spanning forest with one tree per id of ``seeds``, or 0 if no edges
    lead to a seed. Edges of affinity 0 come last but are used: give background a seed, or mask it afterwards. Among equal
    affinities the first in the array decides. The segmentation has the shape and dtype of ``seeds``. ``sizes`` int64: voxels
    of 0 and then of each id of ``seeds``, ascending.

    Source: Meyer, Minimum spanning forests for morphological segmentation, 1994.

    >>> watershed_from_affgraph(np.array([[[.9, .8, .3, .7, 0.]]]), np.array([[5, 0, 0, 0, 7]]), [(0, 1)])
    (array([[5, 5, 5, 7, 7]]), array([0, 3, 2]))
    """
    affinities, nhood = _check_graph(affinities, nhood, "affinities")
    seeds = _ids(seeds, "seeds", affinities.shape[1:])
    names, numbers = _numbered(seeds)
    weights, nhood = _as_3d(affinities.astype(np.float32, copy=False), nhood)
    order = kernel.sorted_edges(weights, nhood)
    seg = kernel.flood(order, nhood, numbers.reshape(weights.shape[1:])).ravel()
    return names[seg].reshape(seeds.shape), np.bincount(seg, minlength=len(names))


# -- MALIS -----------------------------------------------------------------------------------------------
def malis_weights(aff_pred, aff_gt, seg_gt, nhood, unrestrict_neg=False):
    """How many pairs of voxels depend on each edge of a predicted affinity graph: (pos, neg) uint64 (e, *spatial).

    ``aff_pred``: predicted affinities (e, *spatial), floats, compared as float32. ``aff_gt``: true ones, of the same shape,
    0 or 1. ``seg_gt``: true ids, integers (*spatial); voxels of id 0 count in no pair.

    Two voxels are as connected as the weakest edge of the strongest path between them. Pairs of equal id are counted at that
    edge in ``pos``, where edges weigh min(aff_pred, aff_gt): paths stay within objects. Pairs of different ids are
    counted in ``neg``, where edges weigh max(aff_pred, aff_gt), or with ``unrestrict_neg`` just aff_pred. The edges
    are found by adding all of them, also of weight 0, largest first (Kruskal); among equal weights the first in the
    array decides. Each sum is the number of all pairs, if the edges connect all voxels. Time: n log n for n voxels.

    Raises ValueError for shapes that do not fit, NaN, negative ids and edges longer than the volume, TypeError for ids that
    are not integers. Source: Turaga, Briggman, Helmstaedter, Denk, Seung, Maximin affinity learning of image segmentation,
    2009; in two passes as in Funke et al., Large scale image segmentation with structured loss, 2018.

    >>> aff, seg = np.array([[[.9, .2, .6, 0]]], np.float32), np.array([[1, 1, 2, 2]])
    >>> malis_weights(aff, seg_to_affgraph(seg, [(0, 1)]), seg, [(0, 1)])
    (array([[[1, 0, 1, 0]]], dtype=uint64), array([[[0, 4, 0, 0]]], dtype=uint64))
    """
    aff_pred, nhood = _check_graph(aff_pred, nhood, "aff_pred")
    aff_gt, _ = _check_graph(aff_gt, nhood, "aff_gt")
    if aff_gt.shape != aff_pred.shape:
        raise ValueError(f"aff_gt must have the shape of aff_pred, {aff_pred.shape}; got {aff_gt.shape}.")
    ids = _numbered(_ids(seg_gt, "seg_gt", aff_pred.shape[1:]))[1].reshape(-1, *aff_pred.shape[-2:])
    pred, steps = _as_3d(aff_pred.astype(np.float32, copy=False), nhood)
    true, _ = _as_3d(aff_gt.astype(np.float32, copy=False), nhood)
    pos = kernel.pair_counts(kernel.sorted_edges(np.minimum(pred, true), steps), steps, ids, False)
    weights = pred if unrestrict_neg else np.maximum(pred, true)
    neg = kernel.pair_counts(kernel.sorted_edges(weights, steps), steps, ids, True)
    return pos.reshape(aff_pred.shape), neg.reshape(aff_pred.shape)


def compute_V_rand_N2(seg_true, seg_pred):
    """How well two segmentations agree on which voxels belong together: three numbers in 0..1, **1 is best**.

    ``seg_true``, ``seg_pred``: ids, integers of the same shape. Voxels with true id 0 are not counted; a predicted 0 is an
    object like any other. With p_ij the number of voxels of true id i and predicted id j, and t_i and s_j its sums over
    the other index, these are

    - the F-score of the next two: 2 sum p^2 / (sum t^2 + sum s^2),
    - of all pairs that the prediction joins, the part that belongs together: sum p^2 / sum s^2. Small for false mergers;
    - of all pairs that belong together, the part that the prediction joins: sum p^2 / sum t^2. Small for false splits.

    The paper calls the second one merge score and the third one split score: Arganda-Carreras et al., Crowdsourcing the
    creation of image segmentation algorithms for connectomics, 2015. ValueError if no voxel is counted.

    >>> compute_V_rand_N2(np.array([1, 1, 1, 1]), np.array([1, 1, 2, 2]))  # an object is split
    (0.6666666666666666, 1.0, 0.5)
    >>> compute_V_rand_N2(np.array([1, 1, 2, 2]), np.array([1, 1, 1, 1]))  # two are merged
    (0.6666666666666666, 0.5, 1.0)
    """
    seg_pred = _ids(seg_pred, "seg_pred", np.shape(seg_pred))
    seg_true = _ids(seg_true, "seg_true", seg_pred.shape)
    counted = seg_true > 0
    if not counted.any():
        raise ValueError("seg_true has no id above 0, so there is nothing to compare.")
    (_, true), (_, pred) = _numbered(seg_true[counted]), _numbered(seg_pred[counted])
    table = coo_array((np.ones(len(true), np.int64), (true, pred))).tocsr()
    both, t, s = (int((n.astype(np.int64) ** 2).sum()) for n in (table.data, table.sum(1), table.sum(0)))
    return 2 * both / (t + s), both / s, both / t


# -- checks and forms ------------------------------------------------------------------------------------
def _check_nhood(nhood, shape, longest=None):
    array = np.asarray(nhood)
    if array.ndim != 2 or array.shape[1] != len(shape) or array.dtype.kind not in "iu" or not len(array):
        raise ValueError(f"nhood must be integers of shape (edges, {len(shape)}), displacements on the axes of a volume of "
                         f"shape {tuple(shape)}; got {array.dtype} of shape {array.shape}.")
    array = array.astype(np.int64)
    for shift in array:
        if not shift.any() or np.any(abs(shift) >= shape):
            raise ValueError(f"nhood has the displacement {tuple(shift.tolist())}, by which no two voxels of a volume of "
                             f"shape {tuple(shape)} differ. Leave it and its channel out.")
    if longest and abs(array).max() > longest:
        raise ValueError("A boundary map says nothing of edges further than to the next voxel: all displacements in nhood "
                         f"must be -1, 0 or 1, got {array.tolist()}.")
    return array


def _check_graph(graph, nhood, name):
    graph = np.asarray(graph)
    if graph.ndim not in (3, 4) or graph.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be real numbers with axes (e, z, x, y) or (e, x, y), got {graph.dtype} of shape "
                         f"{graph.shape}.")
    nhood = _check_nhood(nhood, graph.shape[1:])
    if len(nhood) != len(graph):
        raise ValueError(f"{name} of shape {graph.shape} has {len(graph)} channels, but nhood has {len(nhood)} edges.")
    if graph.size >= 2 ** 31:
        raise ValueError(f"{name} of shape {graph.shape} has 2^31 or more edges. Cut the volume into blocks.")
    if np.isnan(graph).any():
        raise ValueError(f"{name} has {np.isnan(graph).sum()} NaN, the first at index "
                         f"{tuple(np.argwhere(np.isnan(graph))[0].tolist())}.")
    return graph, nhood


def _ids(seg, name, shape):
    seg = np.asarray(seg)
    if seg.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integer ids, got {seg.dtype}.")
    if seg.shape != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {seg.shape}.")
    if seg.min(initial=0) < 0:
        raise ValueError(f"{name} has negative ids, from {seg.min()}. Use 0 for what is not labelled.")
    return seg


def _numbered(ids):
    """Distinct ids, ascending and with 0 at the front, and where in them each voxel's id is: int32, 1-d."""
    if ids.max(initial=0) < 4 * ids.size:
        used = np.zeros(ids.max() + 1, bool)
        used[0] = used[ids] = True
        return np.flatnonzero(used).astype(ids.dtype), (np.cumsum(used, dtype=np.int32) - np.int32(1))[ids.ravel()]
    names, numbers = np.unique(ids, return_inverse=True)
    if names[0] != 0:
        names, numbers = np.concatenate((np.zeros(1, ids.dtype), names)), numbers + 1
    return names, numbers.ravel().astype(np.int32)


def _as_3d(graph, nhood):
    """The graph of an image as that of a volume with one slice."""
    if graph.ndim == 3:
        graph, nhood = graph[:, None], np.insert(nhood, 0, 0, 1)
    return np.ascontiguousarray(graph), np.ascontiguousarray(nhood)
