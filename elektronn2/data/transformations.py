"""Geometric augmentation: homogeneous matrices, and patches pulled through them.

A transformation is a 4x4 matrix M that takes source voxels to patch voxels, as column vectors (z, x, y, 1). To fill a
patch, each of its voxels is taken back by the inverse of M (in float64) and the source is interpolated there, in one
compiled pass that reads only what it needs, in the dtype in which it is stored.
"""
import math
from itertools import permutations

import numpy as np

from elektronn2.data.deformation import random_deformation
from elektronn2.data.pullback import Grid, Pull, WarpingOOBError, draw_position, plain_dtype, run
from elektronn2.utils.validate import as_tuple

__all__ = ["WarpingOOBError", "chain_matrices", "get_random_flipmat", "get_random_rotmat", "get_random_swapmat",
           "get_random_warpmat", "get_rotmat_from_direc", "get_warped_slice", "identity", "rotate_x", "rotate_y",
           "rotate_z", "scale", "scale_inv", "translate", "warp_slice", "xyz2zxy"]


# -- elementary matrices ---------------------------------------------------------------------------------
def identity():
    """The matrix that changes nothing."""
    return np.eye(4)


def translate(dz, dx, dy):
    """Shift by (dz, dx, dy) voxels.

    >>> translate(1, 2, 3) @ [0, 0, 0, 1]
    array([1., 2., 3., 1.])
    """
    matrix = np.eye(4)
    matrix[:3, 3] = dz, dx, dy
    return matrix


def scale(mz, mx, my):
    """Stretch the axes by these factors."""
    return np.diag([mz, mx, my, 1.0])


def scale_inv(mz, mx, my):
    """Shrink the axes by these factors: the inverse of :func:`scale`."""
    return np.diag([1 / mz, 1 / mx, 1 / my, 1.0])


def _rotate(first, second, angle):
    matrix = np.eye(4)
    c, s = math.cos(angle), math.sin(angle)
    matrix[[first, first, second, second], [first, second, first, second]] = c, -s, s, c
    return matrix


def rotate_z(angle):
    """Turn the x, y plane by ``angle`` (radians) about z.

    >>> np.rint(rotate_z(np.pi / 2) @ [0, 1, 0, 1])
    array([0., 0., 1., 1.])
    """
    return _rotate(1, 2, angle)


def rotate_y(angle):
    """Turn the z, x plane by ``angle`` (radians) about y."""
    return _rotate(0, 1, angle)


def rotate_x(angle):
    """Turn the z, y plane by ``angle`` (radians) about x, from y towards z."""
    return _rotate(2, 0, angle)


def chain_matrices(matrices):
    """The product of a list of matrices; the last one acts first.

    >>> chain_matrices([translate(1, 0, 0), scale(2, 1, 1)]) @ [3, 0, 0, 1]
    array([7., 0., 0., 1.])
    """
    return np.linalg.multi_dot(matrices) if len(matrices) > 1 else np.array(matrices[0], float)


def get_rotmat_from_direc(direc, gamma=0.0):
    """The rotation that turns the direction ``direc`` (z, x, y) onto the z axis, and then by ``gamma`` (radians) about it.

    ValueError unless the length of ``direc`` is 1 (to 1e-3).

    >>> np.rint(get_rotmat_from_direc((0, 1, 0))[:3, :3] @ (0, 1, 0))
    array([1., 0., 0.])
    """
    z, x, y = direc
    if abs(math.hypot(z, x, y) - 1) > 1e-3:
        raise ValueError(f"direc must have length 1, got {direc!r} of length {math.hypot(z, x, y):.4f}. Divide by it.")
    return _turn(math.atan2(y, x), math.acos(min(1, max(-1, z))), gamma)


def _turn(phi, theta, gamma):
    return chain_matrices([rotate_z(gamma), rotate_y(-theta), rotate_z(-phi)])


# -- random matrices -------------------------------------------------------------------------------------
def get_random_rotmat(lock_z=False, amount=1.0, rng=None):
    """A random rotation: about z by up to ``amount`` of a full turn, and unless ``lock_z`` also away from the z axis."""
    rng = rng or np.random.default_rng()
    gamma = rng.random() * 2 * math.pi * amount
    if lock_z:
        return rotate_z(gamma)
    phi = rng.random() * 2 * math.pi * amount
    return _turn(phi, math.asin(rng.random()) * amount, gamma)


def get_random_flipmat(no_x_flip=False, rng=None):
    """A reflection of each axis with probability 1/2; never of the last one with ``no_x_flip``."""
    rng = rng or np.random.default_rng()
    signs = np.where(rng.random(3) < 0.5, -1.0, 1.0)
    if no_x_flip:
        signs[2] = 1
    return np.diag([*signs, 1.0])


def get_random_swapmat(lock_z=False, rng=None):
    """A random permutation of the axes; with ``lock_z`` at most an exchange of x and y."""
    rng = rng or np.random.default_rng()
    orders = [(0, 1, 2), (0, 2, 1)] if lock_z else list(permutations(range(3)))
    return np.eye(4)[[*orders[int(rng.random() * len(orders))], 3]]


def get_random_warpmat(lock_z=False, perspective=False, amount=1.0, rng=None):
    """Shear, stretch and a shift below one voxel, by up to 10 % times ``amount``, and the same of perspective.

    All 16 entries but the last differ from the identity by uniform draws from +-0.1 ``amount``. ``lock_z`` keeps z
    apart from x and y. The last row is 0 without ``perspective``, else scaled by 0.05 and clipped to +-0.003.
    """
    rng = rng or np.random.default_rng()
    change = (rng.random((4, 4)) * 0.2 - 0.1) * amount
    if lock_z:
        change[0] = change[:, 0] = 0
    change[3] = np.clip(change[3] * 0.05, -3e-3, 3e-3) if perspective else 0
    change[3, 3] = 0
    return np.eye(4) + change


# -- patches ---------------------------------------------------------------------------------------------
def get_warped_slice(img, ps, aniso_factor=2, sample_aniso=True, warp_amount=1.0, lock_z=True, no_x_flip=False,
                     perspective=False, target=None, target_ps=None, target_vec_ix=None, target_discrete_ix=None, rng=None,
                     flip=True, target_off=None, target_strides=1, n_threads=1, label_offset=None, facts=None, elastic=None,
                     misalignment=None, antialias=False, defer=False):
    """A patch at a random position, randomly turned, reflected, sheared, stretched, and its target: (image, target).

    M = T(centre) S_dest R W F P S_src T(-position), where S_src stretches z by ``aniso_factor`` (the length of a voxel in z
    over that in x), so that rotations are true, and S_dest shrinks it again (with ``sample_aniso``; else the patch is
    isotropic). R rotates, W shears, stretches and shifts, F reflects axes, P exchanges them: see the ``get_random_...mat``
    functions. All of it is scaled by ``warp_amount``; 0 leaves only F and P, and then every voxel of the patch is
    exactly one of the image. ``lock_z`` keeps z what it is. ``no_x_flip`` forbids the reflection of the last axis and the
    exchange of axes, ``flip=False`` all reflections and exchanges. The position is drawn from those where patch and target
    lie inside, on the grid of the image.

    ``elastic``: dict(amplitude, spacing), in voxels of x: before all this, each point of the patch is moved by a cubic
    B-spline whose coefficients lie ``spacing`` apart and are drawn, on each axis, from +-``amplitude`` (at most the spacing
    / 2.48, so that nothing folds: Choi and Lee 2000, Injectivity conditions of 2D and 3D uniform cubic B-spline functions).
    It is the same for voxels of other length in z, and leaves z alone with ``lock_z``. ``misalignment``: dict of
    ``displacement`` (8), ``section_probability`` (0.05), ``slip`` (0.5): sections of the patch out of place, by up to
    ``displacement`` voxels in x and y. With probability ``slip`` it is one section, and the labels stay; else all that
    follow, and the labels go with them: Lee et al. 2017, Superhuman accuracy on the SNEMI3D connectomics challenge. Neither
    is scaled by ``warp_amount``. They cannot be told for vectors.

    ``img``, ``target``, ``ps``, ``target_...``, ``label_offset``, ``n_threads``, ``antialias``, ``defer`` and the results
    are as in :func:`warp_slice`. ``rng``: np.random.Generator (None: a new one). ``facts``: a dict that gets 'matrix' and
    'bend', M and the deformation as they were drawn. Raises WarpingOOBError if the warped patch, or its target, fits
    nowhere.

    >>> cube = np.random.default_rng(0).integers(0, 255, (1, 20, 60, 60), dtype=np.uint8)
    >>> image, target = get_warped_slice(cube, (5, 21, 21), target=cube, target_ps=(3, 15, 15))
    >>> image.shape, image.dtype, target.shape, target.dtype
    ((1, 5, 21, 21), dtype('float32'), (1, 3, 15, 15), dtype('uint8'))
    """
    rng = rng or np.random.default_rng()
    matrix, bend = draw_warp(img, ps, aniso_factor, sample_aniso, warp_amount, lock_z, no_x_flip, perspective, target,
                             target_ps, rng, flip, target_off, target_strides, label_offset, elastic, misalignment,
                             antialias)
    if facts is not None:
        facts.update(matrix=matrix, bend=bend)
    return warp_slice(img, ps, matrix, target, target_ps, target_vec_ix, target_discrete_ix, target_off, target_strides,
                      n_threads, label_offset, bend, antialias, defer)


def draw_warp(img, ps, aniso_factor, sample_aniso, warp_amount, lock_z, no_x_flip, perspective, target, target_ps, rng, flip,
              target_off, target_strides, label_offset, elastic, misalignment, antialias):
    """The random choices of :func:`get_warped_slice`: matrix and deformation. Only the shapes of the arrays count."""
    ps = as_tuple(ps, 3, "ps")
    matrices = [translate(*((n - 1) / 2 for n in ps))]
    if sample_aniso:
        matrices.append(scale_inv(aniso_factor, 1, 1))
    if warp_amount:
        matrices.append(get_random_rotmat(lock_z, warp_amount, rng))
        matrices.append(get_random_warpmat(lock_z, perspective, warp_amount, rng))
    if flip:
        matrices.append(get_random_flipmat(no_x_flip, rng))
        if not no_x_flip:
            matrices.append(get_random_swapmat(lock_z, rng))
    matrices.append(scale(aniso_factor, 1, 1))
    matrix = chain_matrices(matrices)
    grids = [Grid("image", img, img, ps, (0, 0, 0), ps, 1, parts=_parts(matrix, ps, antialias))]
    if target is not None:
        grids.append(Grid("target", img, target, ps, target_off, target_ps, target_strides, label_offset))
    low = np.min([g.origin for g in grids], 0)
    high = np.max([g.origin + g.step * (g.shape - 1) for g in grids], 0)
    bend = random_deformation(low, high, rng, elastic, misalignment, aniso_factor if sample_aniso else 1, lock_z)
    for grid in grids:
        grid.bend = bend
    return matrix @ translate(*-draw_position(matrix, grids, rng)), bend


def warp_slice(img, ps, M, target=None, target_ps=None, target_vec_ix=None, target_discrete_ix=None, target_off=None,
               target_strides=1, n_threads=1, label_offset=None, deformation=None, antialias=False, defer=False):
    """The patch that matrix ``M`` makes of an image, and that of its target: (image, target or None).

    ``img``: (f, z, x, y), an array or an h5 data set, of uint8 or uint16 (then divided by 255 or 65535) or floating point.
    ``ps``: shape (z, x, y) of the patch. ``target``: labels (f, z, x, y), the first of which lies at image voxel
    ``label_offset`` (None: they are centred in the image, with an even difference of shapes); ``target_ps``: shape of their
    patch before striding; ``target_off``: where it begins in the patch (None: it is centred); ``target_strides``: take only
    every so manieth voxel. Channels of the target in ``target_discrete_ix`` (None: all) are taken from the nearest voxel
    (halves to the even one), others are interpolated linearly, as is the image. ``target_vec_ix``: triples of channels that
    are vectors (z, x, y) and turned by M. ``n_threads``: to be used at once. ``deformation``: a
    :class:`~elektronn2.data.deformation.Deformation` of the patch. ``antialias``: where M shrinks the image, a voxel of the
    patch is the mean of several points, as many along each axis as it spans voxels of the image in its middle (rounded).
    ``defer``: return in place of the image the :class:`~elektronn2.data.pullback.Pull` that would make it.

    Returns the image (f, *ps), float32, and the target in its own dtype if all its channels are discrete, else float32.
    Raises WarpingOOBError if the patch reaches out of the image or the labels, and ValueError for vectors in perspective.

    >>> cube = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    >>> warp_slice(cube, (1, 2, 2), translate(-1, -1, -0.5))[0]
    array([[[[25.5, 26.5],
             [30.5, 31.5]]]], dtype=float32)
    """
    ps = as_tuple(ps, 3, "ps")
    M = np.asarray(M, np.float64)
    check_vectors(target_vec_ix, np.any(M[3, :3]), deformation is not None)
    inverse = np.linalg.inv(M)
    grid = Grid("image", img, img, ps, (0, 0, 0), ps, 1, bend=deformation, parts=_parts(M, ps, antialias))
    pulls = [Pull(img, inverse, grid, np.zeros(len(img), bool), np.float32, copy=defer)]
    if target is not None:
        nearest = np.ones(len(target), bool)
        if target_discrete_ix is not None:
            nearest[:] = False
            nearest[list(target_discrete_ix)] = True
        exact = nearest.all() and not target_vec_ix
        grid = Grid("target", img, target, ps, target_off, target_ps, target_strides, label_offset, deformation)
        pulls.append(Pull(target, inverse, grid, nearest, plain_dtype(target.dtype) if exact else np.float32))
    run(pulls[1:] if defer else pulls, n_threads)
    image = pulls[0] if defer else pulls[0].out
    if target is None:
        return image, None
    result = pulls[1].out
    for triple in target_vec_ix or ():
        result[list(triple)] = np.tensordot(M[:3, :3], result[list(triple)], 1)
    return image, result


def check_vectors(target_vec_ix, perspective, deformed):
    """ValueError if channels of the target are vectors that a warp cannot turn."""
    if target_vec_ix and perspective:
        raise ValueError("Vectors have no single direction under perspective: leave out target_vec_ix or perspective.")
    if target_vec_ix and deformed:
        raise ValueError("Vectors are not turned by elastic and misalignment: leave out target_vec_ix or these.")


def _parts(matrix, ps, antialias):
    """How many points, along each axis of the patch, are to be averaged to a voxel."""
    if not antialias:
        return 1, 1, 1
    back = np.linalg.inv(matrix)
    middle = back @ [*((n - 1) / 2 for n in ps), 1]
    step = (back[:3, :3] - np.outer(middle[:3] / middle[3], back[3, :3])) / middle[3]
    return np.maximum(1, np.floor(np.linalg.norm(step, axis=0) + 0.5).astype(int))


def xyz2zxy(volume):
    """A view with axes (..., z, x, y) of a volume with axes (..., x, y, z).

    >>> xyz2zxy(np.zeros((1, 2, 3, 4))).shape
    (1, 4, 2, 3)
    """
    return np.moveaxis(volume, -1, -3)
