"""Elastic warps, sections out of place, antialiasing: against scipy, and volumes whose voxels tell where they are."""
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from elektronn2.data import transformations as tf
from elektronn2.data.deformation import Deformation, check_elastic, random_deformation, spline_matrix
from elektronn2.data.transformations import WarpingOOBError, get_warped_slice, warp_slice
from elektronn2.data.warp_fit import what_fits

PS, OFF, STRIDES, N = (5, 19, 21), (1, 2, 3), (1, 2, 2), (3, 8, 7)
TARGET_PS = tuple(s * (n - 1) + 1 for s, n in zip(STRIDES, N))
PART = tuple(slice(o, o + m, s) for o, m, s in zip(OFF, TARGET_PS, STRIDES))


def coded(shape):
    """(3, z, x, y) float32: each voxel tells its own coordinate."""
    return np.indices(shape).astype(np.float32)


def displacement(bend, points):
    """(3, ...) at points (3, ...) of the patch, by scipy, which counts cells of a spline from its second coefficient."""
    t = (points - bend.start[:, None, None, None]) / bend.spacing[:, None, None, None]
    return np.stack([map_coordinates(c, t + 1, order=3, prefilter=False) for c in bend.coefficients])


def sources(matrix, points):
    back = np.linalg.inv(matrix) @ np.vstack((points.reshape(3, -1), np.ones(points[0].size)))
    return (back[:3] / back[3]).reshape(points.shape)


@pytest.mark.parametrize("perspective", [False, True])
def test_points_are_moved_by_a_cubic_spline(perspective, rng):
    image = coded((30, 60, 62))
    bend = random_deformation((0, 0, 0), np.array(PS) - 1, rng, dict(amplitude=3, spacing=8), None, 2, False)
    matrix = tf.chain_matrices([tf.translate(2, 9, 10), tf.get_random_warpmat(False, perspective, 1, rng),
                                tf.rotate_z(0.4), tf.translate(-14.5, -30, -31)])
    ours, target = warp_slice(image, PS, matrix, image, TARGET_PS, None, [], OFF, STRIDES, deformation=bend)
    points = np.indices(PS).astype(float)
    moves = displacement(bend, points)
    np.testing.assert_allclose(ours, sources(matrix, points + moves), atol=2e-4)
    np.testing.assert_allclose(target, ours[(slice(None), *PART)], atol=2e-4)
    assert np.all(np.abs(moves).max((1, 2, 3)) <= bend.reach()) and np.abs(moves).max() > 0.5
    for axis, n in enumerate(PS):
        weights = spline_matrix(bend.along(axis, np.arange(n)), bend.coefficients.shape[1 + axis])
        np.testing.assert_allclose(weights.sum(1), 1)
        moves = moves if axis else np.einsum("ia,dabc->dibc", weights, bend.coefficients)
        moves = np.moveaxis(np.tensordot(weights, moves, (1, axis + 1)), 0, axis + 1) if axis else moves
    np.testing.assert_allclose(moves, displacement(bend, points), atol=1e-12)
    for threads in (2, 3):
        again = warp_slice(image, PS, matrix, image, TARGET_PS, None, [], OFF, STRIDES, threads, deformation=bend)
        assert np.array_equal(again[0], ours)


@pytest.mark.parametrize("arguments", [
    dict(), dict(lock_z=False, warp_amount=0.2, perspective=True), dict(warp_amount=0), dict(sample_aniso=False),
    dict(antialias=True, warp_amount=2),
], ids=str)
def test_labels_move_with_the_image_and_nothing_is_read_from_outside(arguments):
    """Coordinates of the source are those of the points; where the source ended, they would stand still."""
    image = coded((26, 56, 56))
    label = image[:, 2:-2, 3:-3, 3:-3]
    failed, free = 0, 0
    for seed in range(40):
        arguments = dict(arguments, rng=np.random.default_rng(seed), elastic=dict(amplitude=4, spacing=12), aniso_factor=2)
        try:
            patch, target = get_warped_slice(image, PS, target=label, target_ps=TARGET_PS, target_off=OFF,
                                             target_strides=STRIDES, target_discrete_ix=[], **arguments)
        except WarpingOOBError:
            failed += 1
            continue
        np.testing.assert_allclose(target, patch[(slice(None), *PART)], atol=0.02 if arguments.get("antialias") else 2e-4)
        slope = np.abs(np.diff(patch, axis=2)).max(0)
        free += slope.min() > 1e-3
    assert failed < 15 and free == 40 - failed


def test_elastic_warps_do_not_fold_and_know_the_length_of_voxels():
    points = np.indices((6, 24, 24)).astype(float)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        bend = random_deformation((0, 0, 0), (5, 23, 23), rng, dict(amplitude=8 / 2.48, spacing=8), None, 4, False)
        moves = displacement(bend, points)
        gradients = [np.gradient(points[k] + moves[k]) for k in range(3)]
        assert np.linalg.det(np.moveaxis(gradients, (0, 1), (-2, -1))).min() > 0
        assert np.isclose(bend.spacing, (2, 8, 8)).all()
        assert 0.7 < 4 * bend.reach()[0] / bend.reach()[1] < 1.4
        assert random_deformation((0,) * 3, (5, 23, 23), rng, dict(amplitude=3, spacing=8), None, 4).reach()[0] == 0
    assert random_deformation((0, 0, 0), (5, 23, 23), rng) is None


def test_sections_slip_alone_or_take_the_labels_along(rng):
    image = coded((30, 90, 90))
    slips, moved = 0, 0
    for seed in range(30):
        bends = {slip: random_deformation((0, 0, 0), (9, 18, 20), np.random.default_rng(seed), None,
                                          dict(displacement=6, section_probability=0.3, slip=slip)) for slip in (0, 1)}
        for slip, bend in bends.items():
            matrix = tf.translate(-5, -30, -30)
            patch, target = warp_slice(image, (10, 19, 21), matrix, image, (10, 19, 21), None, [], deformation=bend)
            here, there = patch[1:, :, 0, 0] - 30, target[1:, :, 0, 0] - 30
            np.testing.assert_allclose(patch, coded((10, 19, 21)) + np.array((5, 30, 30))[:, None, None, None]
                                       + np.vstack((np.zeros(10), here))[:, :, None, None], atol=1e-4)
            if slip:
                assert np.all(there == 0) and np.abs(here).max() <= 6
                slips += np.mean(np.any(here != 0, axis=0))
            else:
                assert np.array_equal(here, there) and np.abs(np.diff(here)).max() <= 6.0001
                moved += np.mean(np.any(np.diff(here) != 0, axis=0))
    assert abs(slips / 30 - 0.3) < 0.06 and abs(moved / 30 - 0.3) < 0.06


def test_the_image_must_hold_what_is_moved():
    image = np.zeros((1, 9, 40, 40), np.uint8)
    bend = Deformation(np.full((3, 5, 5, 5), 0.5), np.zeros(3), np.full(3, 40.0), np.zeros((2, 0, 2)), 0)
    warp_slice(image, (7, 38, 38), tf.translate(-1, -1, -1), deformation=bend)
    with pytest.raises(WarpingOOBError, match="Out of bounds for image"):
        warp_slice(image, (7, 38, 39), tf.translate(-1, -1, -1), deformation=bend)
    with pytest.raises(ValueError, match="Vectors are not turned by elastic"):
        warp_slice(image, (3, 9, 9), tf.translate(-3, -9, -9), image[[0, 0, 0]], (3, 9, 9), [(0, 1, 2)], deformation=bend)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_antialiasing_takes_means_of_what_is_shrunk(dtype, rng):
    image = rng.integers(0, 2, (2, 12, 30, 31)).astype(dtype)
    matrix = tf.chain_matrices([tf.scale_inv(1, 3, 2), tf.translate(-2, -4, -5.5)])  # patch voxel 0 is the middle of a block
    plain = warp_slice(image, (5, 7, 6), matrix)[0]
    ours, target = warp_slice(image, (5, 7, 6), matrix, image, (5, 7, 6), antialias=True)
    wanted = image[:, 2:7, 3:24, 5:17].reshape(2, 5, 7, 3, 6, 2).mean((3, 5)) / (255 if dtype == "uint8" else 1)
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    assert np.abs(plain - wanted).max() > 0.2 * wanted.max() and np.all(target == np.rint(target))
    assert np.array_equal(ours, warp_slice(image, (5, 7, 6), matrix, antialias=True, n_threads=2)[0])
    near = tf.chain_matrices([tf.scale_inv(1, 1.4, 1), tf.translate(-2, -4, -5)])
    assert np.array_equal(*(warp_slice(image, (5, 7, 6), near, antialias=a)[0] for a in (False, True)))
    with pytest.raises(WarpingOOBError):  # half a block before the first voxel
        warp_slice(image, (5, 7, 6), tf.chain_matrices([tf.scale_inv(1, 3, 2), tf.translate(-2, -0.5, -5)]), antialias=True)


def test_what_was_drawn_before_there_were_deformations_is_still_drawn():
    cube = np.random.default_rng(0).integers(0, 256, (1, 24, 60, 64), dtype=np.uint8)
    label = np.random.default_rng(1).integers(0, 5, (1, 20, 52, 52)).astype(np.int16)
    recorded = [(dict(), 0.49778046, 0.6115027, 1393), (dict(perspective=True), 0.50415020, 0.4082028, 1378),
                (dict(lock_z=False, warp_amount=0.3, perspective=True), 0.50092755, 0.8424788, 1361),
                (dict(sample_aniso=False), 0.48525561, 0.24227394, 1440),
                (dict(warp_amount=0), 0.49618782, 0.98039216, 1274)]
    for seed, (arguments, mean, voxel, total) in enumerate(recorded):
        image, target = get_warped_slice(cube, (5, 21, 21), target=label, target_ps=(3, 15, 15),
                                         rng=np.random.default_rng(seed), **arguments)
        np.testing.assert_allclose((image.mean(dtype=float), image[0, 1, 2, 3]), (mean, voxel), rtol=1e-6)
        assert target.sum() == total


def test_senseless_deformations_are_named():
    check_elastic(dict(amplitude=4, spacing=10), dict(displacement=5))
    for elastic, misalignment, message in [
        (dict(amplitude=5, spacing=10), None, "amplitude 5 folds the image at spacing 10. At most 4.03"),
        (dict(amplitude=-1, spacing=10), None, "elastic: amplitude must be a number"),
        (dict(amplitude=0.1, spacing=0.5), None, "elastic: spacing must be a number in 1"),
        (None, dict(displacement="far"), "misalignment: displacement must be a number"),
        (None, dict(slip=2), "misalignment: slip must be a number in 0..1, got 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_elastic(elastic, misalignment)


def test_what_fits_is_what_can_be_cut():
    image, label = np.zeros((1, 20, 70, 70), np.uint8), np.zeros((1, 18, 60, 60), np.uint8)
    geometry = ((7, 57, 57), (1, 4, 4), (1, 2, 2), (5, 49, 49))
    arguments = dict(aniso_factor=2, perspective=True, warp_amount=1.5)
    share, smaller, its_share = what_fits([(image, label, None)], [1], *geometry, True, arguments)

    def cut(patch):
        target = np.array(patch) - np.subtract(geometry[0], geometry[3])
        worked = 0
        for seed in range(200):
            try:
                get_warped_slice(image, patch, target=label, target_ps=target, target_off=geometry[1],
                                 rng=np.random.default_rng(1000 + seed), **arguments)
                worked += 1
            except WarpingOOBError:
                pass
        return worked / 200
    assert share < 0.5 <= its_share and abs(cut(geometry[0]) - share) < 0.15 and abs(cut(smaller) - its_share) < 0.15
    assert all((a - b) % s == 0 for a, b, s in zip(geometry[0], smaller, geometry[2]))
    assert what_fits([(image, label, None)], [1], (3, 9, 9), (1, 1, 1), (1, 1, 1), (1, 7, 7), True,
                     arguments) == (1, (3, 9, 9), 1)
    assert what_fits([(image, image[:, :, 35:36], (0, 0, 35))], [1], (3, 69, 69), (1, 34, 1), (1, 1, 1), (1, 1, 67), True,
                     arguments)[1:] == (None, None)
