"""Patches and targets: aligned, repeatable, checked when the data are read."""
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from elektronn2 import neuromancer as nm
from elektronn2.data.cnndata import BatchCreatorImage
from elektronn2.data.non_geometric_augmentation import grey_augment
from elektronn2.data.sampling import generator


def write(folder, raws, labs):
    for i, (raw, lab) in enumerate(zip(raws, labs)):
        with h5py.File(folder / f"raw_{i}.h5", "w") as f:
            f["raw"] = raw
        with h5py.File(folder / f"lab_{i}.h5", "w") as f:
            f["lab"] = lab
    n = len(raws)
    return dict(d_path=folder, l_path=folder, d_files=[(f"raw_{i}.h5", "raw") for i in range(n)],
                l_files=[(f"lab_{i}.h5", "lab") for i in range(n)])


def coded(shape, label_shape):
    """A raw volume whose value tells the position, and labels that repeat it in their part."""
    raw = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    part = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(shape, label_shape))
    return raw, raw[part].astype(np.int32)


def nodes(filters, pools, patch):
    x = nm.Input((1, 1, *patch), "b,f,z,x,y", name="raw")
    out = nm.Conv(x, 2, filters, pools, activation_func="lin")
    return x, nm.Input_like(out, override_f=1, name="target", dtype="int32")


@pytest.mark.parametrize("filters, pools, patch", [((1, 4, 4), (1, 2, 2), (5, 13, 13)), ((3, 3, 3), (1, 1, 1), (5, 9, 11)),
                                                   ((2, 4, 3), (1, 1, 3), (5, 9, 11))])
def test_targets_sit_where_the_geometry_says(filters, pools, patch, tmp_path):
    """Every target voxel is the raw voxel at offset + i * stride of the patch, in any orientation, also for an even fov."""
    raw, lab = coded((12, 30, 32), (8, 20, 22))
    x, target = nodes(filters, pools, patch)
    data = BatchCreatorImage(x, target, seed=3, **write(tmp_path, [raw], [lab]))
    shape, turned = target.shape, set()
    for k in range(60):
        image, labels = data.sample(k)
        assert image.shape == (1, *patch) and labels.shape == (1, *shape.spatial_shape)
        steps = np.array(np.unravel_index(image[0].astype(int), raw.shape))
        first, last = steps[:, 0, 0, 0], steps[:, -1, -1, -1]
        # a patch that was flipped starts at the other end; an even window is then off by one
        backwards = (last < first)
        swapped = abs(steps[1, 0, 0, 1] - steps[1, 0, 0, 0]) == 1
        turned.add((*backwards, bool(swapped)))
        assert set(labels.ravel()) <= set(image.ravel().astype(int))
        gap = np.array(patch) - (np.array(shape.strides) * (np.array(shape.spatial_shape) - 1) + 1)
        centre = np.array(shape.offsets)
        for axis in range(3):
            index = [0, 0, 0]
            index[axis] = 1
            here = np.argwhere(image[0] == labels[0, 0, 0, 0])[0][axis]
            assert here in (centre[axis], gap[axis] - centre[axis])
            if shape.spatial_shape[axis] > 1:
                there = np.argwhere(image[0] == labels[(0, *index)])[0][axis]
                assert there - here == shape.strides[axis]
    assert len(turned) > 6


def test_unflipped_samples_match_exactly(tmp_path):
    """Validation samples are not turned: target voxel i is patch voxel offset + i * stride."""
    raw, lab = coded((12, 30, 32), (12, 30, 32))
    x, target = nodes((1, 4, 4), (1, 2, 2), (5, 13, 13))
    data = BatchCreatorImage(x, target, valid_cubes=[1], **write(tmp_path, [raw, raw], [lab, lab]))
    for k in range(5):
        image, labels = data.sample(k, "valid")
        part = tuple(slice(o, o + s * (n - 1) + 1, s) for o, s, n in zip(
            target.shape.offsets, target.shape.strides, target.shape.spatial_shape))
        assert np.array_equal(labels[0], image[0][part])


def test_a_sample_is_a_pure_function_of_seed_and_index(tmp_path):
    raw, lab = coded((12, 30, 32), (8, 20, 22))
    files = write(tmp_path, [raw, raw + 1], [lab, lab])
    x, target = nodes((1, 4, 4), (1, 2, 2), (5, 13, 13))
    a, b = (BatchCreatorImage(x, target, seed=5, **files) for _ in range(2))
    batch = a.getbatch(4)
    one_by_one = [b.sample(k) for k in (3, 1, 0, 2)]
    for k, (image, labels) in zip((3, 1, 0, 2), one_by_one):
        assert np.array_equal(batch[0][k], image) and np.array_equal(batch[1][k], labels)
    assert not np.array_equal(a.sample(0)[0], BatchCreatorImage(x, target, seed=6, **files).sample(0)[0])
    assert generator(1, 2).random() != generator(2, 1).random()


def test_integer_images_are_scaled(tmp_path):
    x, target = nodes((1, 4, 4), (1, 2, 2), (5, 13, 13))
    raw = np.full((8, 20, 20), 255, np.uint8)
    data = BatchCreatorImage(x, target, **write(tmp_path, [raw], [raw.astype(np.int16)]))
    assert data.sample(0)[0].max() == 1.0 and data.sample(0)[0].dtype == np.float32


def test_grey_augmentation_follows_its_formula():
    image = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    new = grey_augment(image, [1], np.random.default_rng(7))
    a, c, g = np.random.default_rng(7).random(3)
    expected = np.clip(image[1].astype(float) * (1 + 0.3 * (a - 0.5)) + 0.3 * (c - 0.5), 0, 1) ** 2 ** (2 * g - 1)
    np.testing.assert_allclose(new[1], expected, rtol=1e-5)
    assert np.array_equal(new[0], image[0]) and not np.array_equal(new[1], image[1])


def test_wrong_data_are_named(tmp_path):
    x, target = nodes((1, 4, 4), (1, 2, 2), (5, 13, 13))
    raw, lab = coded((12, 30, 32), (8, 20, 22))
    good = write(tmp_path, [raw], [lab])
    cases = [(dict(d_files=[("none.h5", "raw")]), FileNotFoundError, "(?s)missing.*none.h5.*synthetic"),
             (dict(d_files=[("raw_0.h5", "rew")]), KeyError, "no data set 'rew'; available"),
             (dict(l_files=[]), ValueError, "needs l_files"),
             (dict(valid_cubes=[3]), ValueError, "not all among the 1 cubes"),
             (dict(valid_cubes=[0]), ValueError, "none is left"), (dict(cube_prios=[1, 2]), ValueError, "one value per")]
    for change, kind, message in cases:
        with pytest.raises(kind, match=message):
            BatchCreatorImage(x, target, **{**good, **change})
    with pytest.raises(ValueError, match="no validation cubes"):
        BatchCreatorImage(x, target, **good).sample(0, "valid")
    with pytest.raises(ValueError, match="'train' or 'valid'"):
        BatchCreatorImage(x, target, **good).getbatch(source="test")
    odd = write(tmp_path, [raw], [lab[:-1]])
    with pytest.raises(ValueError, match=r"Cube 0, axis z: labels \(7\) must be centred in the image \(12\)"):
        BatchCreatorImage(x, target, **odd)
    small = write(tmp_path, [raw[:4]], [lab[:4]])
    with pytest.raises(ValueError, match=r"Cube 0, axis z: no patch of 5 voxels"):
        BatchCreatorImage(x, target, **small)
    flat = SimpleNamespace(shape=nm.Input((1, 1, 13, 13), "b,f,x,y").shape)
    with pytest.raises(ValueError, match="three spatial axes"):
        BatchCreatorImage(flat, flat, **good)
