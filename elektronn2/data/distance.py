"""The signed distance of objects, as a target: how deep a voxel lies in its object, or how far it is from the next one."""
import math

import numpy as np

from elektronn2.utils.compiling import compiled

UNKNOWN = -666  # which losses on numbers leave out


def signed_distance(ids, voxel_size=(1.0, 1.0, 1.0), reach=10.0, scale=None):
    """Distance of each voxel to the nearest voxel with another id: float32 (z, x, y).

    ``ids``: integers (z, x, y), 0: no object, below 0: not labelled. Distances are positive in objects, negative at id 0,
    from voxel centre to voxel centre, in the unit of ``voxel_size`` (z, x, y), and at most ``reach``. ``scale``: if given,
    tanh(distance / scale) instead. -666, which losses on numbers leave out, where it is not labelled, or where what is not
    labelled is as near as any other id. What lies beyond the volume does not count.

    Raises ValueError for sizes that are not above 0. Source of the scaled form: Heinrich et al. 2018, Synaptic cleft
    segmentation in non-isotropic volume electron microscopy of the complete Drosophila brain.

    >>> signed_distance(np.array([[[7, 7, 7, 0, 0, 0, 0]]]), reach=3)
    array([[[ 3.,  2.,  1., -1., -2., -3., -3.]]], dtype=float32)
    """
    size = np.array(np.broadcast_to(voxel_size, 3), float)
    if not (np.all(size > 0) and 0 < reach < np.inf and (scale is None or scale > 0)):
        raise ValueError(f"voxel_size, reach and scale must be above 0, got {voxel_size!r}, {reach!r} and {scale!r}.")
    ids = np.ascontiguousarray(ids, np.int64)
    distance = _distance(ids, size, reach)
    unknown = ids < 0
    result = np.where(ids > 0, distance, -distance)
    if scale is not None:
        result = np.tanh(result / scale)
    if unknown.any():
        result[unknown | ((distance < reach) & (_distance(unknown.astype(np.int64), size, reach) <= distance))] = UNKNOWN
    return result.astype(np.float32)


def _distance(ids, size, reach):
    """Distance to the nearest voxel of another id, at most ``reach``.

    Along one axis after the other, the square of it is the least, over the voxels to each side, of the square so far plus
    that of the way there; the first voxel of another id ends the search. Source: the separable transform of Saito and
    Toriwaki 1994, for several objects at once.
    """
    square = np.full(ids.shape, float(reach) ** 2)
    for axis in (2, 1, 0):
        moved = np.moveaxis(square, axis, -1)
        moved[...] = _along(np.ascontiguousarray(np.moveaxis(ids, axis, -1)), np.ascontiguousarray(moved), size[axis],
                            math.ceil(reach / size[axis]))
    return np.sqrt(square)


@compiled
def _along(ids, square, size, steps):
    result = square.copy()
    for i in range(ids.shape[0]):
        for j in range(ids.shape[1]):
            row, before, after = ids[i, j], square[i, j], result[i, j]
            for k in range(len(row)):
                for direction in (-1, 1):
                    for d in range(1, steps + 1):
                        other = k + direction * d
                        way = (size * d) ** 2
                        if other < 0 or other >= len(row) or way >= after[k]:
                            break
                        if row[other] != row[k]:
                            after[k] = way
                            break
                        after[k] = min(after[k], before[other] + way)
    return result
