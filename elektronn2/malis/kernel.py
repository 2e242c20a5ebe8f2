"""Graphs of voxels, compiled: edges in order of weight, what they join, and how many pairs of voxels each one joins.

All functions take volumes (z, x, y), flattened to ``n`` voxels. Edge ``e * n + v`` joins voxel v = (z, x, y) with
v + nhood[e], where both lie in the volume; it has the index that its weight has in a flat array (e, z, x, y).

A component is a tree in one array ``parent``: a root holds minus the number of its voxels, any other voxel its parent.
"""
import numpy as np

from elektronn2.utils.compiling import compiled

# A component of n_branch voxels was attached to one of n_root voxels, by an edge.
JOINT = np.dtype([(name, np.int32) for name in ("root", "n_root", "branch", "n_branch", "edge")])
# A voxel: its id, how many voxels have been attached below it (and itself), and the edge that attached it.
VOXEL = np.dtype([(name, np.int32) for name in ("id", "size", "edge")])


@compiled
def _spans(shift, shape):
    """First and last + 1 position on each axis, flattened, of the voxels v for which v + shift is in the volume, too."""
    return (max(0, -shift[0]), min(shape[0], shape[0] - shift[0]), max(0, -shift[1]), min(shape[1], shape[1] - shift[1]),
            max(0, -shift[2]), min(shape[2], shape[2] - shift[2]))


@compiled
def sorted_edges(weights, nhood):
    """Indices (m,) int32 of all edges, largest weight first, equal weights by index. ``weights``: (e, z, x, y) float32.

    A radix sort in three passes over 11 bits. Floats are compared as integers: the bits of positive ones are inverted to
    sort downwards, those of negative ones already do.
    """
    n_edges, nz, nx, ny = weights.shape
    n, m = nz * nx * ny, 0
    for e in range(n_edges):
        z0, z1, x0, x1, y0, y1 = _spans(nhood[e], (nz, nx, ny))
        m += (z1 - z0) * (x1 - x0) * (y1 - y0)
    items, other = np.empty(m, np.uint64), np.empty(m, np.uint64)  # key in the upper half, index in the lower half
    place = np.zeros((3, 2049), np.int64)  # per digit: how many items have it, then where the next one goes
    bits = weights.reshape(-1).view(np.uint32)
    i = 0
    for e in range(n_edges):
        z0, z1, x0, x1, y0, y1 = _spans(nhood[e], (nz, nx, ny))
        for z in range(z0, z1):
            for x in range(x0, x1):
                row = e * n + (z * nx + x) * ny
                for k in range(row + y0, row + y1):
                    key = np.uint64(bits[k])
                    if key <= np.uint64(0x80000000):  # which is -0 and becomes what 0 becomes
                        key = ~key & np.uint64(0x7FFFFFFF)
                    items[i] = key << np.uint64(32) | np.uint64(k)
                    i += 1
                    place[0, (key & np.uint64(2047)) + np.uint64(1)] += 1
                    place[1, (key >> np.uint64(11) & np.uint64(2047)) + np.uint64(1)] += 1
                    place[2, (key >> np.uint64(22)) + np.uint64(1)] += 1
    for digit in range(3):
        shift = np.uint64(32 + 11 * digit)
        for value in range(2047):
            place[digit, value + 1] += place[digit, value]
        for i in range(m):
            bucket = items[i] >> shift & np.uint64(2047)
            other[place[digit, bucket]] = items[i]
            place[digit, bucket] += 1
        items, other = other, items
    order = np.empty(m, np.int32)
    for i in range(m):
        order[i] = items[i] & np.uint64(0xFFFFFFFF)
    return order


@compiled
def _root(parent, v):
    """The root of the component of a voxel; on the way every other voxel gets a shorter way (path halving)."""
    while parent[v] >= 0:
        above = parent[v]
        if parent[above] < 0:
            return above
        parent[v] = parent[above]
        v = parent[above]
    return v


@compiled
def _join(parent, a, b):
    """Attach the smaller of two components to the root of the larger: (root, its voxels before, attached, its voxels)."""
    if parent[a] > parent[b]:
        a, b = b, a
    n_a, n_b = -parent[a], -parent[b]
    parent[a] = -n_a - n_b
    parent[b] = a
    return a, n_a, b, n_b


@compiled
def _steps(nhood, shape):
    """What the edges add to the index of a voxel."""
    return (nhood[:, 0] * shape[1] + nhood[:, 1]) * shape[2] + nhood[:, 2]


@compiled
def pair_counts(order, nhood, ids, different):
    """Pairs of voxels that each edge joins first when edges are added in the given order (Kruskal): (e, z, x, y) uint64.

    ``ids``: (z, x, y) int32; pairs of equal, or if ``different`` of unequal, ids are counted, and none with id 0.

    First the edges are added, the smaller component attached to the root of the larger, and this is noted. Then voxels are
    laid out so that each is followed by all that has been attached to it, a branch in one piece, in the order of time.
    At last each voxel walks its branches and counts ids. As a branch is the smaller part of what it forms, a voxel is in at
    most log2(n) branches: the walks take n log n steps at most, each to the next place in memory.
    """
    n, (nz, nx, ny) = ids.size, ids.shape
    step, flat = _steps(nhood, ids.shape), ids.reshape(-1)
    parent = np.full(n, -1, np.int32)
    joints, n_joints = np.empty(n, JOINT), 0
    for k in order:
        v = k % n
        a, b = _root(parent, v), _root(parent, v + step[k // n])
        if a != b:
            joint = joints[n_joints]
            joint.root, joint.n_root, joint.branch, joint.n_branch = _join(parent, a, b)
            joint.edge = k
            n_joints += 1
            if n_joints == n - 1:
                break
    voxels = np.empty(n, VOXEL)
    place, end = np.empty(n, np.int32), 0
    for v in range(n):
        if parent[v] < 0:
            place[v] = end
            voxels[end].id, voxels[end].size = flat[v], -parent[v]
            end -= parent[v]
    for i in range(n_joints - 1, -1, -1):
        joint = joints[i]
        p = place[joint.branch] = place[joint.root] + joint.n_root
        voxels[p].id, voxels[p].size, voxels[p].edge = flat[joint.branch], joint.n_branch, joint.edge
    counts = np.zeros((len(nhood), nz, nx, ny), np.uint64)
    _count_branches(voxels, different, np.zeros(ids.max() + 1, np.int64), counts.reshape(-1))
    return counts


@compiled
def _count_branches(voxels, different, seen, counts):
    """Fill ``counts`` of edges, from voxels of which each is followed by its branches, in the order of attachment.

    ``seen``: zeros, one per id; here the voxels of each id in what has been attached so far, none for id 0.
    """
    for first in range(len(voxels)):
        end = first + voxels[first].size
        if end == first + 1:
            continue
        n_seen = np.int64(voxels[first].id > 0)
        seen[voxels[first].id] = n_seen
        start = first + 1
        while start < end:
            stop = start + voxels[start].size
            n_new = same = 0
            for p in range(start, stop):
                same += seen[voxels[p].id]
                n_new += voxels[p].id > 0
            counts[voxels[start].edge] = n_new * n_seen - same if different else same
            for p in range(start, stop):
                seen[voxels[p].id] += voxels[p].id > 0
            n_seen += n_new
            start = stop
        for p in range(first, end):
            seen[voxels[p].id] = 0


@compiled
def flood(order, nhood, seeds):
    """Each voxel's seed when edges are added in the given order, but none between two seeds: (z, x, y) int32.

    ``seeds``: (z, x, y) int32, 0: none. A voxel that no seed reaches stays 0.
    """
    n, step = seeds.size, _steps(nhood, seeds.shape)
    seed = seeds.copy().reshape(-1)  # valid at roots
    parent = np.full(n, -1, np.int32)
    for k in order:
        v = k % n
        a, b = _root(parent, v), _root(parent, v + step[k // n])
        if a == b or (seed[a] != seed[b] and seed[a] > 0 and seed[b] > 0):
            continue
        a, _, b, _ = _join(parent, a, b)
        seed[a] = max(seed[a], seed[b])
    for v in range(n):
        seed[v] = seed[_root(parent, v)]
    return seed.reshape(seeds.shape)


@compiled
def components(joined, nhood, size_thresh):
    """What edges join, numbered from 1 by first voxel: (z, x, y) int32. ``joined``: (e, z, x, y) bool.

    Components of up to ``size_thresh`` voxels are 0.
    """
    n_edges, nz, nx, ny = joined.shape
    n, step = nz * nx * ny, _steps(nhood, joined.shape[1:])
    parent = np.full(n, -1, np.int32)
    for e in range(n_edges):
        z0, z1, x0, x1, y0, y1 = _spans(nhood[e], (nz, nx, ny))
        for z in range(z0, z1):
            for x in range(x0, x1):
                for y in range(y0, y1):
                    if joined[e, z, x, y]:
                        v = (z * nx + x) * ny + y
                        a, b = _root(parent, v), _root(parent, v + step[e])
                        if a != b:
                            _join(parent, a, b)
    number, last = np.zeros(n, np.int32), 0  # of roots, and then of all
    for v in range(n):
        root = _root(parent, v)
        if number[root] == 0 and -parent[root] > size_thresh:
            last += 1
            number[root] = last
        number[v] = number[root]
    return number.reshape((nz, nx, ny))
