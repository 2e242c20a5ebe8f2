"""From label volumes to what a network is trained on: affinities, shifted targets, barriers; and fitting of shapes."""
import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from elektronn2.utils.validate import as_tuple, suggest

__all__ = ["affinity_targets", "center_cubes", "downsample_xy", "fit_border", "grow_seg", "ids2barriers", "make_affinities",
           "make_nhood_targets", "pool", "smearbarriers"]

BORDER_MODES = ("keep", "crop", "mirror", "0-pad")
NEIGHBOURS = np.array([(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])  # and the voxel
EDGES = {3: np.eye(3, dtype=int), 2: np.eye(3, dtype=int)[1:]}  # to the next voxel along each axis of a network
COPIES = {3: NEIGHBOURS, 2: NEIGHBOURS[NEIGHBOURS[:, 0] == 0]}


def _shifted(shift, shape):
    """Slices of the voxels v and v + shift that both lie in a volume."""
    here = tuple(slice(max(0, -d), max(0, min(n, n - d))) for d, n in zip(shift, shape))
    there = tuple(slice(max(0, d), max(0, min(n, n + d))) for d, n in zip(shift, shape))
    return here, there


def make_affinities(labels, nhood=None, size_thresh=1):
    """Which neighbouring voxels belong to the same object: (affinities, segmentation).

    ``labels``: ids (b, z, x, y), 0 (and below): no object. ``nhood``: (e, 3) int, the edges (None: to the next voxel
    along z, x and y). Affinity e of voxel v is 1 if v and v + nhood[e] have the same id, else, and outside, 0. The
    segmentation is what these edges connect, numbered from 1 in each volume; parts of up to ``size_thresh`` voxels are 0.

    Returns int16 arrays (b, e, z, x, y) and (b, z, x, y); the segmentation is int32 if it has more than 32767 parts.

    >>> aff, seg = make_affinities(np.array([[[[5, 5, 0, 7, 7, 5]]]]))
    >>> aff[0, 2, 0, 0], seg[0, 0, 0]
    (array([1, 0, 0, 1, 0, 0], dtype=int16), array([1, 1, 0, 2, 2, 0], dtype=int16))
    """
    labels = np.asarray(labels)
    if labels.ndim != 4:
        raise ValueError(f"labels must have axes (b, z, x, y), got shape {labels.shape}. Choose one channel of a target.")
    nhood = EDGES[3] if nhood is None else as_nhood(nhood)
    affinities = np.zeros((len(labels), len(nhood), *labels.shape[1:]), np.int16)
    segmentation = np.zeros(labels.shape, np.int32)
    index = np.arange(labels[0].size).reshape(labels.shape[1:])
    for ids, aff, seg in zip(labels, affinities, segmentation):
        edges = []
        for shift, edge in zip(nhood, aff):
            here, there = _shifted(shift, ids.shape)
            same = (ids[here] == ids[there]) & (ids[here] > 0)
            edge[here] = same
            edges.append(np.stack((index[here][same], index[there][same])))
        rows, columns = np.concatenate(edges, 1)
        graph = coo_array((np.ones(len(rows), bool), (rows, columns)), (ids.size, ids.size))
        parts = connected_components(graph, directed=False)[1]
        keep = np.bincount(parts) > size_thresh
        keep[parts[~(ids > 0).ravel()]] = False
        seg[...] = (np.cumsum(keep) * keep)[parts].reshape(ids.shape)
    return affinities, segmentation.astype(np.int16 if segmentation.max(initial=0) < 2 ** 15 else np.int32)


def make_nhood_targets(target, nhood=None):
    """Shifted copies of a target as channels.

    ``target``: (b, z, x, y) or (b, f, z, x, y), of which channel 0 is copied and the others are kept behind the copies.
    ``nhood``: (n, 3) int (None: the voxel itself, then +z, -z, +x, -x, +y, -y). Copy i at voxel v is the target at
    v - nhood[i], and -1 where that lies outside.

    >>> make_nhood_targets(np.array([[[[1, 2, 3]]]]), [(0, 0, 1)])
    array([[[[[-1,  1,  2]]]]])
    """
    target = np.asarray(target)
    if target.ndim not in (4, 5):
        raise ValueError(f"target must have axes (b, z, x, y) or (b, f, z, x, y), got shape {target.shape}.")
    target = target[:, None] if target.ndim == 4 else target
    nhood = NEIGHBOURS if nhood is None else as_nhood(nhood)
    copies = np.full((len(target), len(nhood), *target.shape[2:]), -1, target.dtype)
    for i, shift in enumerate(nhood):
        here, there = _shifted(shift, target.shape[2:])
        copies[(slice(None), i, *there)] = target[(slice(None), 0, *here)]
    return np.concatenate((copies, target[:, 1:]), 1)


def as_nhood(nhood, ndim=3):
    """Offsets (z, x, y) as integers (n, 3). For sections, with ``ndim`` 2, they may be (x, y), and z must be 0.

    >>> as_nhood([(1, 0), (0, -2)], 2).tolist()
    [[0, 1, 0], [0, 0, -2]]
    """
    try:
        array = np.asarray(nhood)
    except ValueError:  # rows of different lengths
        array = np.zeros(0)
    if array.ndim != 2 or not array.size or array.shape[1] not in (3, ndim) or array.dtype.kind not in "iu":
        flat = " or (n, 2), offsets (x, y)," * (ndim == 2)
        raise ValueError(f"nhood must be integers of shape (n, 3), offsets (z, x, y),{flat} but got {nhood!r}.")
    array = np.pad(array.astype(int), ((0, 0), (3 - array.shape[1], 0)))
    if ndim == 2 and array[:, 0].any():
        raise ValueError(f"nhood has offsets along z, but the network is 2-D: {nhood!r}.")
    return array


def affinity_targets(ids, nhood=None):
    """Affinities as :func:`make_affinities` tells them, and -1 where they are not known: int16 (e, z, x, y).

    ``ids``: (z, x, y), 0: no object, below 0: not labelled. ``nhood``: (e, 3) int, the edges (None: to the next voxel along
    each axis that is longer than 1). Edges to what is not labelled, or beyond the volume, are -1.

    >>> affinity_targets(np.array([[[5, 5, 0, -1, 7]]]), [(0, 0, 1)])
    array([[[[ 1,  0, -1, -1, -1]]]], dtype=int16)
    """
    ids = np.asarray(ids)
    nhood = EDGES[3][np.array(ids.shape) > 1] if nhood is None else as_nhood(nhood)
    affinities = np.full((len(nhood), *ids.shape), -1, np.int16)
    for shift, edge in zip(nhood, affinities):
        here, there = _shifted(shift, ids.shape)
        a, b = ids[here], ids[there]
        edge[here] = np.where((a < 0) | (b < 0), -1, (a == b) & (a > 0))
    return affinities


def ids2barriers(ids, dilute=(True, True, True), connectivity=(True, True, True), ecs_as_barr=True, smoothen=False):
    """Barriers between objects: int16 (z, x, y), 1 at both voxels of every change of ``ids`` along an axis.

    ``connectivity``: the axes (z, x, y) along which changes count. ``dilute``: the axes along which the barrier gets one
    more voxel on each side. ``ecs_as_barr``: True makes id 0 (extracellular space) barrier, too; 'new_class' makes what
    remains of it class 2; False leaves it 0. ``smoothen``: a voxel is barrier if more than 4 of it and its 6 neighbours are.
    Ids below 0 are not labelled: the result is -1 there, and around them where they could make a barrier.

    >>> ids2barriers(np.array([[[1, 1, 1, 2, 2, 2]]]), dilute=(False, False, False))
    array([[[0, 0, 1, 1, 0, 0]]], dtype=int16)
    """
    if not any(ecs_as_barr is v for v in (True, False)) and ecs_as_barr != "new_class":
        raise ValueError(f"ecs_as_barr must be True, False or 'new_class', got {ecs_as_barr!r}.")
    ids = np.asarray(ids)
    for name, axes in (("dilute", dilute), ("connectivity", connectivity)):
        if np.shape(axes) != (ids.ndim,):
            raise ValueError(f"{name} must tell True or False for each of the {ids.ndim} axes, got {axes!r}.")
    sure, possible, unknown = np.zeros(ids.shape, bool), ids < 0, ids < 0
    for axis in np.flatnonzero(connectivity):
        here, there = _shifted(np.eye(ids.ndim, dtype=int)[axis], ids.shape)
        change = ids[here] != ids[there]
        for barriers, counted in ((possible, change), (sure, change & ~unknown[here] & ~unknown[there])):
            barriers[here] |= counted
            barriers[there] |= counted
    sure = _thickened(sure, dilute, smoothen)
    result = sure.astype(np.int16)
    if unknown.any():
        result[_thickened(possible, dilute, smoothen) & ~sure] = -1
    if ecs_as_barr == "new_class":
        result[(ids == 0) & (result == 0)] = 2
    elif ecs_as_barr:
        result[ids == 0] = 1
    result[unknown] = -1
    return result


def _thickened(barriers, dilute, smoothen):
    for axis in np.flatnonzero(dilute):
        barriers = ndimage.binary_dilation(barriers, np.ones([3 if k == axis else 1 for k in range(barriers.ndim)]))
    if smoothen:
        cross = ndimage.generate_binary_structure(barriers.ndim, 1)
        barriers = ndimage.convolve(barriers.astype(np.int16), cross.astype(np.int16), mode="nearest") > 4
    return barriers


def smearbarriers(barriers, kernel=None):
    """Barriers with soft flanks: float32 in 0..1, the mean of barriers that spread and of gaps that spread into them.

    ``kernel``: weights (z, x, y), 1 in the middle (None: 3x5x5, falling linearly with the distance along each axis), or
    three sizes for such weights. A voxel gets the largest weight that a barrier (a gap) brings to it.

    >>> smearbarriers(np.array([[[0, 0, 0, 1, 1, 1, 1]]]), (1, 1, 3))
    array([[[0.  , 0.  , 0.25, 0.75, 1.  , 1.  , 1.  ]]], dtype=float32)
    """
    kernel = np.asarray((3, 5, 5) if kernel is None else kernel, np.float32)
    if kernel.ndim == 1:
        z, x, y = (1 - abs(np.arange(n) - n // 2) / (n // 2 + 1) for n in kernel.astype(int))
        kernel = z[:, None, None] * np.outer(x, y)
    barriers = np.asarray(barriers, np.float32)

    def spread(volume):
        result = np.zeros(volume.shape, np.float32)
        for position in np.ndindex(kernel.shape):
            here, there = _shifted(np.subtract(position, np.array(kernel.shape) // 2), volume.shape)
            np.maximum(result[there], volume[here] * kernel[position], out=result[there])
        return result

    return (spread(barriers) + 1 - spread(1 - barriers)) / 2


def grow_seg(seg, pixel=(1, 3, 3)):
    """Ids grown into the 0 around them, by up to ``pixel`` voxels per axis; where two meet, the larger id wins.

    >>> grow_seg(np.array([[[0, 0, 4, 0, 0, 0, 0, 2]]]), (0, 0, 2))
    array([[[4, 4, 4, 4, 4, 2, 2, 2]]])
    """
    seg, pixel = np.array(seg), as_tuple(pixel, np.ndim(seg), "pixel", 0)
    for step in range(max(pixel)):
        grown = ndimage.maximum_filter(seg, [3 if n > step else 1 for n in pixel], mode="nearest")
        seg = np.where(seg == 0, grown, seg)
    return seg


def pool(array, factors, labels=False):
    """Means, float64, or most frequent labels (of equally many the smallest) of windows ``factors`` of (f, z, x, y).

    >>> pool(np.array([[[[1, 1, 2, 5]]]]), (1, 1, 2)), pool(np.array([[[[3, 3, 1]]]]), (1, 1, 3), labels=True)
    (array([[[[1. , 3.5]]]]), array([[[[3]]]]))
    """
    if tuple(factors) == (1, 1, 1):
        return array
    shape = [array.shape[0]]
    for n, f in zip(array.shape[1:], factors):
        shape += [n // f, f]
    windows = array.reshape(shape)
    if not labels:
        return windows.mean(axis=(2, 4, 6), dtype=np.float64)
    windows = np.sort(windows.transpose(2, 4, 6, 0, 1, 3, 5).reshape(-1, *shape[:2], shape[3], shape[5]), axis=0)
    best, count = windows[0].copy(), np.zeros(windows.shape[1:], np.int64)
    for value in windows:
        n = (windows == value).sum(0)
        better = n > count
        best[better], count[better] = value[better], n[better]
    return best


def downsample_xy(image, labels, factor):
    """An image (f, z, x, y) and labels, (z, x, y) or (f, z, x, y), with ``factor`` times fewer voxels in x and in y.

    Those of the image are means, float64, labels the most frequent ones. What is left over at the end of an axis is dropped.

    >>> image, labels = downsample_xy(np.ones((1, 2, 5, 4), np.float32), np.ones((2, 5, 4), np.int16), 2)
    >>> image.shape, labels.shape, labels.dtype
    ((1, 2, 2, 2), (2, 2, 2), dtype('int16'))
    """
    factors = (1, *as_tuple(factor, 2, "factor"))

    def pooled(array, **how):
        whole = array[(..., *(slice(n // f * f) for n, f in zip(array.shape[-3:], factors)))]
        return pool(whole if whole.ndim == 4 else whole[None], factors, **how)
    ids = pooled(labels, labels=True)
    return pooled(image), ids if labels.ndim == 4 else ids[0]


def center_cubes(cube1, cube2, crop=True):
    """Two cubes, ([f,] z, x, y), with equal spatial shape, centred on each other.

    ``crop``: on each axis the longer is cropped, else the shorter is padded with 0. ValueError if a difference is odd.

    >>> [c.shape for c in center_cubes(np.zeros((3, 8, 6)), np.zeros((5, 4, 6)))]
    [(3, 4, 6), (3, 4, 6)]
    """
    cubes = [np.asarray(cube1), np.asarray(cube2)]
    shapes = np.array([cube.shape[-3:] for cube in cubes])
    difference = shapes[0] - shapes[1]
    if np.any(difference % 2):
        raise ValueError(f"Cubes {cube1.shape} and {cube2.shape} cannot be centred on each other: the difference must be "
                         "even on each spatial axis. Cut one voxel off.")
    shape = shapes.min(0) if crop else shapes.max(0)
    return tuple(fit_border(cube, shape, "crop" if crop else "0-pad") for cube in cubes)


def fit_border(image, shape, mode):
    """An image (..., *spatial) with the spatial shape ``shape``, as far as ``mode`` says.

    'keep': as it is. 'crop': the middle, where it is longer. 'mirror', '0-pad': the same, and where it is shorter, padded
    with its mirror image or 0, the odd voxel on the left.

    >>> fit_border(np.arange(1, 4), (6,), 'mirror'), fit_border(np.arange(1, 6), (3,), 'crop')
    (array([2, 1, 1, 2, 3, 3]), array([2, 3, 4]))
    """
    if mode not in BORDER_MODES:
        raise ValueError(f"border_mode must be one of {', '.join(BORDER_MODES)}; got {mode!r}.{suggest(mode, BORDER_MODES)}")
    if mode == "keep":
        return image
    sizes = image.shape[-len(shape):]
    image = image[(..., *(slice(max(n - m, 0) // 2, max(n - m, 0) // 2 + m) for n, m in zip(sizes, shape)))]
    if mode == "crop":
        return image
    missing = [max(m - n, 0) for n, m in zip(sizes, shape)]
    width = [(0, 0)] * (image.ndim - len(shape)) + [(-(-n // 2), n // 2) for n in missing]
    return np.pad(image, width, mode="symmetric" if mode == "mirror" else "constant")
