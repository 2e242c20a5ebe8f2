"""Matrices and warped patches: against the first ELEKTRONN2, scipy, and volumes whose voxels tell where they are."""
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from elektronn2.data import transformations as tf
from elektronn2.data.transformations import WarpingOOBError, get_warped_slice, warp_slice

ORACLE = Path(__file__).parents[1] / "oracle" / "data"


@pytest.fixture(scope="module")
def matrices():
    with np.load(ORACLE / "data_matrices.npz") as f:
        return dict(f)


@pytest.fixture(scope="module")
def cubes():
    """[(raw uint8, lab int16)] of three cubes, (1, z, x, y)."""
    def read(name, key):
        with h5py.File(ORACLE / name) as f:
            return f[key][()][None]
    return [(read(f"raw_{i}.h5", "raw"), read(f"lab_{i}.h5", "lab")) for i in range(3)]


# -- matrices --------------------------------------------------------------------------------------------
def test_elementary_matrices_are_those_of_the_first_elektronn2(matrices):
    angle = 0.3
    wanted = {"translate": tf.translate(1, 2, 3), "rotate_z": tf.rotate_z(angle), "rotate_y": tf.rotate_y(angle),
              "rotate_x": tf.rotate_x(angle), "scale": tf.scale(2, 3, 4), "scale_inv": tf.scale_inv(2, 3, 4),
              "rotmat_from_direc_gamma02": tf.get_rotmat_from_direc(matrices["direc"], 0.2)}
    for name, ours in wanted.items():
        np.testing.assert_allclose(ours, matrices[name], atol=1e-6, err_msg=name)
    assert np.array_equal(tf.identity(), np.eye(4))
    a, b, c = tf.translate(1, 2, 3), tf.rotate_x(0.3), tf.scale(2, 3, 4)
    np.testing.assert_allclose(tf.chain_matrices([a, b, c]), a @ (b @ c))
    assert np.array_equal(tf.chain_matrices([a]), a)


@pytest.mark.parametrize("lock_z", [True, False])
def test_random_matrices_are_those_of_the_first_elektronn2(lock_z, matrices):
    """From the same draws, which are those of numpy's legacy generator."""
    for amount, name in ((1, ""), (0.5, "_amount05")):
        ours = tf.get_random_rotmat(lock_z, amount, np.random.RandomState(0))
        np.testing.assert_allclose(ours, matrices[f"random_rotmat_lockz{lock_z:d}{name}"], atol=1e-6)
    for perspective in (True, False):
        ours = tf.get_random_warpmat(lock_z, perspective, 1, np.random.RandomState(1))
        np.testing.assert_allclose(ours, matrices[f"random_warpmat_lockz{lock_z:d}_persp{perspective:d}"], atol=1e-6)
    for no_x_flip in (True, False):
        flips = {tuple(np.diag(tf.get_random_flipmat(no_x_flip, rng))) for rng in map(np.random.default_rng, range(100))}
        assert flips >= {tuple(np.diag(m)) for m in matrices[f"random_flipmat_noxflip{no_x_flip:d}"]}
        assert len(flips) == (4 if no_x_flip else 8) and all(f[3] == 1 for f in flips)
    swaps = {tf.get_random_swapmat(lock_z, rng).tobytes() for rng in map(np.random.default_rng, range(100))}
    assert swaps >= {m.astype(float).tobytes() for m in matrices[f"random_swapmat_lockz{lock_z:d}"]}
    assert len(swaps) == (2 if lock_z else 6)


def test_rotations_turn_a_direction_onto_z():
    for seed in range(5):
        direc = np.random.default_rng(seed).normal(size=3)
        direc /= np.linalg.norm(direc)
        matrix = tf.get_rotmat_from_direc(direc, seed)
        np.testing.assert_allclose(matrix[:3, :3] @ direc, (1, 0, 0), atol=1e-9)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-9)
    with pytest.raises(ValueError, match="must have length 1"):
        tf.get_rotmat_from_direc((1, 1, 0))


def test_axes_are_reordered_as_in_the_first_elektronn2():
    with np.load(ORACLE / "data_grey_border.npz") as f:
        assert np.array_equal(tf.xyz2zxy(np.arange(24).reshape(2, 3, 4)), f["xyz2zxy"])


# -- warping by a given matrix ---------------------------------------------------------------------------
RECORDED = [("data_getbatch", case) for case in ("warp0", "warp0_no_x_flip", "warp0_force_dense", "valid", "ll_mask",
                                                 "warp1_default", "warp1_aniso_persp", "warp1_nolockz")]
RECORDED += [("data_getbatch2d", "warp0"), ("data_getbatch2d", "warp1")]


@pytest.mark.parametrize("file, case", RECORDED, ids=" ".join)
def test_patches_are_those_of_the_first_elektronn2(file, case, cubes):
    """The matrices of all draws are recorded in order, also of those that fell outside, but not the cubes.

    ``warp0_grey`` and ``warp05_neuro3d`` cannot be compared: the draws of their grey values are not recorded. ``nhood`` and
    ``affinity`` are, in test_cnndata.
    """
    with np.load(ORACLE / f"{file}.npz") as f:
        drawn, images, targets = (f[f"{case}/{k}"] for k in ("M", "ret0", "ret1"))
    if file == "data_getbatch2d":
        images, targets = images[:, :, None], targets[:, :, None]
    depth = images.shape[2]
    strides = (1, 1, 1) if case == "warp0_force_dense" else (1, 2, 2)
    found = 0
    for image, target in zip(images, targets):
        for matrix, (raw, lab) in ((m, c) for m in drawn for c in cubes):
            try:
                ours = warp_slice(raw, (depth, 23, 23), matrix, lab, (max(depth - 2, 1), 15, 15), target_strides=strides)
            except WarpingOOBError:
                continue
            if np.abs(ours[0] - image).max() < 1e-5 * image.max():
                assert np.array_equal(ours[1], target)
                found += 1
                break
    assert found == len(images) == 3


def random_matrix(rng, ps, centre, perspective):
    matrix = tf.chain_matrices([tf.get_random_rotmat(False, 0.1, rng), tf.get_random_warpmat(False, perspective, 1, rng)])
    return tf.chain_matrices([tf.translate(*(np.array(ps) - 1) / 2), matrix, tf.translate(*-np.array(centre))])


def coordinates(matrix, ps, origin=(0, 0, 0), strides=(1, 1, 1)):
    """Source coordinates (3, *ps) of patch voxels, the obvious way."""
    points = np.indices(ps).reshape(3, -1) * np.array(strides)[:, None] + np.array(origin)[:, None]
    points = np.linalg.inv(matrix) @ np.vstack((points, np.ones(points.shape[1])))
    return (points[:3] / points[3]).reshape(3, *ps)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("perspective", [False, True])
def test_interpolation_is_that_of_scipy(dtype, perspective, rng):
    grey = rng.random((2, 30, 40, 50))
    top = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    image = (grey * top).astype(dtype)
    label = rng.integers(0, 9, (2, 26, 36, 44)).astype(np.int64) + 2 ** 40
    ps, off, target_ps, strides = (7, 16, 19), (1, 3, 2), (5, 9, 13), (2, 1, 3)
    matrix = random_matrix(rng, ps, (14.3, 20, 24.5), perspective)
    ours, target = warp_slice(image, ps, matrix, label, target_ps, None, None, off, strides)
    where = coordinates(matrix, ps)
    for channel in range(2):
        wanted = map_coordinates(image[channel].astype(float) / top, where, order=1)
        np.testing.assert_allclose(ours[channel], wanted, atol=1e-5)
    where = np.rint(coordinates(matrix, (3, 9, 5), off, strides) - np.array((2, 2, 3))[:, None, None, None]).astype(int)
    assert ours.dtype == np.float32 and target.dtype == np.int64
    assert np.array_equal(target, label[:, *where])  # exact, although floats cannot hold such numbers
    for threads in (2, 3):
        again = warp_slice(image, ps, matrix, label, target_ps, None, None, off, strides, n_threads=threads)
        assert np.array_equal(ours, again[0]) and np.array_equal(target, again[1])


def test_many_threads_fill_the_whole_patch(rng):
    image = rng.integers(0, 256, (1, 20, 100, 90), dtype=np.uint8)
    matrix = tf.translate(-3, -5.5, -6.25)
    one = warp_slice(image, (11, 85, 80), matrix)[0]
    for threads in (2, 5):
        assert np.array_equal(one, warp_slice(image, (11, 85, 80), matrix, n_threads=threads)[0])


def test_channels_are_discrete_or_linear_or_vectors(rng):
    image = rng.random((1, 12, 30, 30)).astype(np.float32)
    target = rng.random((5, 12, 30, 30)).astype(np.float32)
    ps = (4, 10, 10)
    matrix = random_matrix(rng, ps, (5.2, 14.9, 15.3), False)
    where = coordinates(matrix, ps)
    linear = np.array([map_coordinates(t.astype(float), where, order=1) for t in target])
    nearest = target[:, *np.rint(where).astype(int)]
    ours = warp_slice(image, ps, matrix, target, ps, target_discrete_ix=[0, 4], target_vec_ix=[(1, 2, 3)])[1]
    assert np.array_equal(ours[[0, 4]], nearest[[0, 4]])
    turned = np.einsum("ij,jzxy->izxy", matrix[:3, :3], linear[1:4])
    np.testing.assert_allclose(ours[1:4], turned, atol=1e-5)
    np.testing.assert_allclose(warp_slice(image, ps, matrix, target, ps, target_discrete_ix=[])[1], linear, atol=1e-5)
    whole = (target * 9).astype(np.int16)
    turned = warp_slice(image, ps, matrix, whole, ps, target_vec_ix=[[0, 1, 2]])[1]
    assert turned.dtype == np.float32
    wanted = np.einsum("ij,jzxy->izxy", matrix[:3, :3], whole[:3, *np.rint(where).astype(int)])
    np.testing.assert_allclose(turned[:3], wanted, atol=1e-4)
    with pytest.raises(ValueError, match="no single direction under perspective"):
        warp_slice(image, ps, random_matrix(rng, ps, (5.2, 14.9, 15.3), True), target, ps, target_vec_ix=[(1, 2, 3)])


def test_the_border_belongs_to_the_image(rng):
    """The whole volume, in every orientation, comes back voxel by voxel; a hair beyond is an error."""
    image = rng.integers(0, 256, (1, 4, 5, 5), dtype=np.uint8)
    flip = tf.chain_matrices([tf.translate(3, 4, 4), np.diag([-1.0, -1, -1, 1])])
    exact = image.astype(np.float32) / np.float32(255)
    assert np.array_equal(warp_slice(image, (4, 5, 5), tf.identity())[0], exact)
    assert np.array_equal(warp_slice(image, (4, 5, 5), flip, image, (4, 5, 5))[0], exact[:, ::-1, ::-1, ::-1])
    assert np.array_equal(warp_slice(image, (4, 5, 5), flip, image, (4, 5, 5))[1], image[:, ::-1, ::-1, ::-1])
    for axis in range(3):
        shift = np.eye(3)[axis] * 0.01
        with pytest.raises(WarpingOOBError, match="Out of bounds for image"):
            warp_slice(image, (4, 5, 5), tf.translate(*shift))
        with pytest.raises(WarpingOOBError, match="Out of bounds for target"):
            warp_slice(np.pad(image, [(0, 0)] + [(1, 1)] * 3), (4, 5, 5), tf.translate(*shift - 1), image, (4, 5, 5))
    single = rng.random((1, 1, 1, 6)).astype(np.float32)
    assert np.array_equal(warp_slice(single, (1, 1, 6), tf.identity())[0], single)


def test_not_a_number_stays_where_it_is():
    image = np.zeros((1, 3, 3, 3), np.float32)
    image[0, 1, 1, 1] = np.nan
    for matrix in (tf.identity(), tf.chain_matrices([tf.translate(2, 2, 2), np.diag([-1.0, -1, -1, 1])])):
        assert np.array_equal(np.isnan(warp_slice(image, (3, 3, 3), matrix)[0]), np.isnan(image))


def test_what_is_in_a_file_is_read_in_part(tmp_path, rng):
    image = rng.integers(0, 256, (1, 20, 40, 40), dtype=np.uint8)
    matrix = random_matrix(rng, (5, 9, 9), (10, 20, 20), True)
    read = []

    class Stored:
        shape, dtype, ndim = image.shape, image.dtype, 4

        def __len__(self):
            return 1

        def __getitem__(self, box):
            read.append(image[box].size)
            return image[box]

    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("raw", data=image, chunks=True, compression="gzip")
        ours = warp_slice(f["raw"], (5, 9, 9), matrix, f["raw"], (3, 5, 5))
    wanted = warp_slice(image, (5, 9, 9), matrix, image, (3, 5, 5))
    assert np.array_equal(ours[0], wanted[0]) and np.array_equal(ours[1], wanted[1])
    assert np.array_equal(warp_slice(Stored(), (5, 9, 9), matrix)[0], wanted[0])
    assert len(read) == 1 and read[0] < 5000  # of 32000
    transposed = np.ascontiguousarray(image.swapaxes(1, 3)).swapaxes(1, 3)
    assert np.array_equal(warp_slice(transposed, (5, 9, 9), matrix)[0], wanted[0])


# -- random patches --------------------------------------------------------------------------------------
def coded(shape):
    """(3, z, x, y) float32: each voxel tells its own coordinate, scaled to keep digits."""
    return np.indices(shape).astype(np.float32)


@pytest.mark.parametrize("arguments", [
    dict(warp_amount=0), dict(warp_amount=0, lock_z=False, aniso_factor=1), dict(), dict(perspective=True),
    dict(no_x_flip=True),
    dict(lock_z=False, warp_amount=0.3, perspective=True), dict(sample_aniso=False, aniso_factor=3), dict(flip=False),
], ids=str)
@pytest.mark.parametrize("ps, off, strides, n", [((5, 13, 13), (1, 4, 4), (1, 2, 2), (3, 3, 3)),
                                                 ((1, 12, 15), (0, 1, 3), (1, 1, 3), (1, 9, 3))])
def test_target_and_image_tell_the_same_place(arguments, ps, off, strides, n):
    """The labels are the coordinates of the image, also for windows of even length, where they do not sit centrally."""
    image = coded((30, 48, 50))
    margin = 4
    label = image[:, margin:-margin, margin:-margin, margin:-margin]
    target_ps = tuple(s * (m - 1) + 1 for s, m in zip(strides, n))
    seen = set()
    for seed in range(25):
        patch, target = get_warped_slice(image, ps, target=label, target_ps=target_ps, target_off=off,
                                         target_strides=strides, target_discrete_ix=[], rng=np.random.default_rng(seed),
                                         **arguments)
        part = tuple(slice(o, o + m, s) for o, m, s in zip(off, target_ps, strides))
        np.testing.assert_allclose(target, patch[(slice(None), *part)], atol=2e-4)
        step = patch[:, 0, -1, 0] - patch[:, 0, 0, 0]
        seen.add(tuple(np.sign(np.rint(step / (np.abs(step).max()))).astype(int)))
        if not arguments.get("warp_amount", 1):
            assert np.array_equal(patch, np.rint(patch))
    assert len(seen) == 1 if arguments.get("flip") is False and not arguments.get("warp_amount", 1) else len(seen) > 1


def test_positions_reach_every_corner(rng):
    """Patches start at every voxel where they fit, and labels are used up to their last voxel."""
    image = coded((7, 9, 11))
    label = image[:, 1:-1, 2:-2, 2:-2]
    starts, ends = set(), set()
    for _ in range(3000):
        patch, target = get_warped_slice(image, (5, 5, 5), target=label, target_ps=(3, 3, 3), warp_amount=0, rng=rng)
        starts.add(tuple(patch.reshape(3, -1).min(1).astype(int)))
        ends.add(tuple(target.reshape(3, -1).max(1).astype(int)))
    assert starts == {(z, x, y) for z in range(3) for x in range(1, 4) for y in range(1, 6)}
    assert max(ends) == (5, 6, 8)


def test_z_is_locked_and_amounts_count():
    image = coded((20, 60, 60))
    for seed in range(10):
        patch, _ = get_warped_slice(image, (5, 15, 15), rng=np.random.default_rng(seed))
        assert np.ptp(patch[0], axis=(1, 2)).max() < 1e-4
        patch, _ = get_warped_slice(image, (5, 15, 15), rng=np.random.default_rng(seed), warp_amount=0.01, flip=False)
        assert np.abs(patch - patch[:, :1, :1, :1] - coded((5, 15, 15))).max() < 2


def test_what_does_not_fit_is_refused(rng):
    image = np.zeros((1, 8, 30, 30), np.uint8)
    with pytest.raises(WarpingOOBError, match="fits nowhere on axis z: its image spans 9.0 of 8 voxels"):
        get_warped_slice(image, (9, 5, 5), rng=rng)
    with pytest.raises(WarpingOOBError, match="fits nowhere on axis x: .* its target spans 7.0 of 6 voxels"):
        get_warped_slice(image, (3, 9, 9), target=image[:, :, 12:-12], target_ps=(3, 7, 7), warp_amount=0, rng=rng)
    with pytest.raises(ValueError, match="cannot be centred in image"):
        get_warped_slice(image, (3, 9, 9), target=image[:, 1:], target_ps=(3, 7, 7), rng=rng)
    with pytest.raises(ValueError, match="cannot be centred in a patch of .* give target_off"):
        get_warped_slice(image, (3, 9, 9), target=image, target_ps=(3, 7, 6), rng=rng)
    with pytest.raises(TypeError, match="no known scale"):
        warp_slice(image.astype(np.int16), (3, 9, 9), tf.identity())
    steep = np.eye(4)
    steep[3, 2] = -0.2
    with pytest.raises(WarpingOOBError, match="no source"):
        warp_slice(image, (3, 9, 9), np.linalg.inv(steep))
