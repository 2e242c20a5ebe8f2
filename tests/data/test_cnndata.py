"""Patches and targets: aligned, repeatable, as recorded from the first ELEKTRONN2, checked when the data are read."""
import inspect
import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from scipy.ndimage import label

from elektronn2 import neuromancer as nm
from elektronn2.data import cnndata
from elektronn2.data.cnndata import MAX_DRAWS, OPTIONS, BatchCreatorImage
from elektronn2.data.image import fit_border, make_nhood_targets
from elektronn2.data.sampling import WARP_ARGS, generator
from elektronn2.data.transformations import get_warped_slice
from elektronn2.data.volumes import convert, open_volume
from elektronn2.utils.basic import h5load

ORACLE = Path(__file__).parents[1] / "oracle" / "data"


def write(folder, raws, labs, **more):
    for i, (raw, lab) in enumerate(zip(raws, labs)):
        for name in (f"raw_{i}.h5", f"lab_{i}.h5"):
            (folder / name).unlink(missing_ok=True)  # a streamed one is still open
        with h5py.File(folder / f"raw_{i}.h5", "w") as f:
            f["raw"] = raw
        with h5py.File(folder / f"lab_{i}.h5", "w") as f:
            f["lab"] = lab
            for key, value in more.items():
                f[key] = value[i]
    n = len(raws)
    return dict(d_path=folder, l_path=folder, d_files=[(f"raw_{i}.h5", "raw") for i in range(n)],
                l_files=[(f"lab_{i}.h5", "lab") for i in range(n)])


def coded(shape, label_shape):
    """A raw volume (3, z, x, y) whose channels tell the position, and labels that repeat it in their part."""
    raw = np.indices(shape).astype(np.float32)
    part = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(shape, label_shape))
    return raw, raw[(slice(None), *part)]


def nodes(filters=(1, 4, 4), pools=(1, 2, 2), patch=(5, 13, 13), n_f=1, dtype="int32"):
    x = nm.Input((1, n_f, *patch), "b,f,z,x,y" if len(patch) == 3 else "b,f,x,y", name="raw")
    out = nm.Conv(x, 2, filters, pools, activation_func="lin")
    return x, nm.Input_like(out, override_f=1, name="target", dtype=dtype)


@pytest.fixture
def log():
    """Messages of the library's logger."""
    class Keep(logging.Handler):
        def emit(self, record):
            messages.append((record.levelname, record.getMessage()))
    messages, handler = [], Keep(logging.INFO)
    logging.getLogger("elektronn2log").addHandler(handler)
    yield messages
    logging.getLogger("elektronn2log").removeHandler(handler)


@pytest.fixture
def plain(tmp_path, rng):
    """Arguments for two cubes of noise: uint8 images, int16 labels 0..3 with some unlabelled voxels in the second."""
    raws = [rng.integers(0, 256, (14, 40, 44), dtype=np.uint8) for _ in range(3)]
    labs = [rng.integers(0, 4, (10, 30, 34)).astype(np.int16) for _ in range(3)]
    labs[1][:, :20] = -1
    return write(tmp_path, raws, labs)


# -- geometry --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [dict(), dict(flip=False), dict(warp=1), dict(warp=True, force_dense=True),
                                     dict(warp=1, warp_args=dict(lock_z=False, perspective=True, warp_amount=0.4))], ids=str)
@pytest.mark.parametrize("filters, pools, patch", [((1, 4, 4), (1, 2, 2), (5, 13, 13)), ((3, 3, 3), (1, 1, 1), (5, 9, 11)),
                                                   ((2, 4, 3), (1, 1, 3), (5, 9, 11)), ((4, 4), (2, 2), (13, 15))])
def test_targets_sit_where_the_geometry_says(filters, pools, patch, options, tmp_path):
    """Target voxel i is the raw voxel at offset + i * stride of the patch, also for an even fov, turned and warped."""
    raw, lab = coded((24, 50, 52), (20, 40, 42))
    x, target = nodes(filters, pools, patch, 3, "float32")
    data = BatchCreatorImage(x, target, seed=3, target_discrete_ix=[], **write(tmp_path, [raw], [lab]))
    shape, turned = target.shape, set()
    strides = np.ones_like(shape.strides) if options.get("force_dense") else shape.strides
    sizes = data.target_ps if options.get("force_dense") else shape.spatial_shape
    part = tuple(slice(o, o + s * (n - 1) + 1, s) for o, s, n in zip(shape.offsets, strides, sizes))
    for k in range(40):
        image, labels = data.sample(k, **options)
        assert image.shape == (3, *patch) and labels.shape == (3, *sizes)
        np.testing.assert_allclose(labels, image[(slice(None), *part)], atol=1e-4)
        turned.add(tuple(np.sign(image.reshape(3, -1)[:, -1] - image.reshape(3, -1)[:, 0])))
        assert options.get("warp") or np.array_equal(image, np.rint(image))
    assert len(turned) == 1 if options.get("flip") is False else len(turned) > 3


def test_validation_is_left_as_it_is_unless_asked_for(tmp_path):
    raw, lab = coded((14, 30, 32), (14, 30, 32))
    x, target = nodes(n_f=3, dtype="float32")
    data = BatchCreatorImage(x, target, valid_cubes=[1], seed=0, **write(tmp_path, [raw, raw], [lab, lab]))
    every = dict(warp=1, grey_augment_channels=[0, 1, 2], nga_blur_noise_probability=1, blurry_blobs_probability=1)
    straight = np.indices((5, 13, 13))
    for k in range(5):
        image, _ = data.sample(k, "valid", **every)
        assert np.array_equal(image - image[:, :1, :1, :1], straight)
    changed = [data.sample(k, "valid", augment_valid=True, **every)[0] for k in range(5)]
    assert all(image.max() > 1 for image in changed)  # grey values are not touched
    assert not any(np.array_equal(image - image[:, :1, :1, :1], straight) for image in changed)


def test_the_network_gets_what_was_recorded_from_the_first_elektronn2():
    """Its matrices, one after the other, in place of our draws."""
    x = nm.Input((1, 1, 9, 23, 23), "b,f,z,x,y")
    out = nm.Conv(nm.Conv(x, 2, (1, 4, 4), (1, 2, 2)), 2, (3, 3, 3))
    data = BatchCreatorImage(x, nm.Input_like(out, override_f=1, dtype="int16"), ORACLE, ORACLE,
                             [(f"raw_{i}.h5", "raw") for i in range(3)], [(f"lab_{i}.h5", "lab") for i in range(3)],
                             valid_cubes=[2])
    for name, wanted in dict(patch_size=[9, 23, 23], strides=[1, 2, 2], offsets=[1, 4, 4], target_ps=[7, 15, 15], n_f=1,
                             t_n_f=1, t_dtype="int16", mode="img-img", ndim=3, n_labelled_pixel=230_400).items():
        assert np.array_equal(getattr(data, name), wanted), name
    assert [a.shape for a in data.train_d + data.valid_d] == [(1, 24, 60, 64)] * 3
    assert [a.shape for a in data.train_l + data.valid_l] == [(1, 24, 60, 64), (1, 20, 48, 48), (1, 24, 60, 64)]
    np.testing.assert_allclose(data.cube_prios, [2 / 3, 1 / 3])
    assert repr(data) == ("1-target Data Set with 1 input channel(s):\n#train cubes: 2 and #valid cubes: 1, 230,400 "
                          "labelled pixels.")
    with np.load(ORACLE / "data_getbatch.npz") as f:
        recorded = dict(f)
    dense = recorded["warp0_force_dense/ret1"]
    ours = [data._targets(t, data._options(dict(nhood_targets=True, force_dense=True)))[0] for t in dense]
    assert np.array_equal(ours, recorded["nhood/ret1"])
    ours = [data._targets(t, data._options(dict(affinities="malis", force_dense=True))) for t in dense]
    assert np.array_equal([aff for aff, _ in ours], recorded["affinity/ret1"])
    for (_, seg), wanted in zip(ours, recorded["affinity/ret2"]):
        assert len(set(zip(seg.ravel(), wanted.ravel()))) == len(np.unique(seg)) == len(np.unique(wanted))


def test_sections_for_2d_networks_come_from_everywhere(tmp_path):
    raw, lab = coded((6, 30, 32), (4, 30, 32))
    x, target = nodes((4, 4), (2, 2), (13, 13), 3, "float32")
    data = BatchCreatorImage(x, target, seed=0, **write(tmp_path, [raw], [lab]))
    images, targets = data.getbatch(40)
    assert images.shape == (40, 3, 13, 13) and targets.shape == (40, 3, 5, 5)
    assert all(np.ptp(image[0]) == 0 for image in images) and set(images[:, 0, 0, 0]) == {1, 2, 3, 4}
    flat = write(tmp_path, [raw[0, 0], ], [lab[0, 0]])  # an image without z
    x, target = nodes((4, 4), (2, 2), (13, 13))
    assert BatchCreatorImage(x, target, seed=0, **flat).getbatch()[0].shape == (1, 1, 13, 13)


# -- repeatable ------------------------------------------------------------------------------------------
def test_a_sample_is_a_pure_function_of_seed_and_index(plain):
    options = dict(warp=0.5, grey_augment_channels=[0], nga_blur_noise_probability=0.3, blurry_blobs_probability=0.3,
                   noisy_random_erasing_probability=0.3, uniform_random_erasing_probability=0.3)
    x, target = nodes()
    a, b = (BatchCreatorImage(x, target, seed=5, valid_cubes=[2], **plain) for _ in range(2))
    state = np.random.get_state()[1].copy()
    batches = [a.getbatch(3, **options) for _ in range(8)]
    order = np.random.default_rng(1).permutation(8)
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda k: b.batch(k, 3, **options), order))
    for k, batch in zip(order, again):
        assert all(np.array_equal(p, q) for p, q in zip(batch, batches[k], strict=True))
    assert np.array_equal(b.sample(7, **options)[0], batches[2][0][1])
    assert b.n_successful_warp + b.n_failed_warp and np.array_equal(state, np.random.get_state()[1])
    others = [BatchCreatorImage(x, target, seed=6, **plain).sample(0), a.sample(0, "valid"), a.sample(1)]
    assert not any(np.array_equal(a.sample(0)[0], other[0]) for other in others)
    assert np.array_equal(a.getbatch(source="valid")[0], b.batch(0, source="valid")[0])  # each source counts for itself
    assert generator(1, 2).random() != generator(2, 1).random()


def test_batches_are_numbered_once_however_many_threads_ask(plain):
    x, target = nodes()
    data, other = (BatchCreatorImage(x, target, seed=1, **plain) for _ in range(2))
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda _: data.getbatch(2)[0].tobytes(), range(12)))
    assert sorted(got) == sorted(other.batch(k, 2)[0].tobytes() for k in range(12))


def test_no_sample_comes_twice_when_the_batch_size_changes(plain):
    x, target = nodes()
    data, other = (BatchCreatorImage(x, target, seed=1, **plain) for _ in range(2))
    with pytest.raises(TypeError, match="batch_size must be one integer"):
        data.getbatch((2,))
    got = np.concatenate([data.getbatch(size)[0] for size in (2, 4, 1, 3)])
    assert np.array_equal(got, [other.sample(k)[0] for k in range(10)])


def test_large_seeds_differ():
    assert len({generator(seed, 5).random() for seed in (0, 2 ** 63, 2 ** 63 + 1, 2 ** 64 - 1)}) == 4


def test_without_a_seed_each_is_different_and_tells_its_own(plain):
    x, target = nodes()
    a, b = (BatchCreatorImage(x, target, **plain) for _ in range(2))
    assert a.seed != b.seed
    again = BatchCreatorImage(x, target, seed=a.seed, **plain)
    assert np.array_equal(a.sample(3)[0], again.sample(3)[0])


# -- values ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype, top", [("uint8", 255), ("uint16", 65535), ("float32", 1), ("float64", 1), ("float16", 1)])
def test_images_stay_as_stored_and_are_scaled_when_cut(dtype, top, tmp_path):
    x, target = nodes()
    raw = np.full((8, 20, 20), top, dtype)
    data = BatchCreatorImage(x, target, **write(tmp_path, [raw], [np.zeros((8, 20, 20), np.int16)]))
    assert data.train_d[0].dtype == ("float32" if "float" in dtype else dtype) and data.train_l[0].dtype == np.int16
    image, labels = data.sample(0)
    assert np.all(image == 1) and image.dtype == np.float32 and labels.dtype == np.int32


def test_labels_of_any_type(tmp_path, log):
    raw = np.zeros((8, 20, 20), np.uint8)
    for dtype in ("bool", "int8", "uint8", "uint16", "int64", "float32", "float64", ">i4"):
        x, target = nodes()
        data = BatchCreatorImage(x, target, **write(tmp_path, [raw], [np.ones((8, 20, 20), dtype)]))
        assert np.all(data.sample(0)[1] == 1) and data.sample(0)[1].dtype == np.int32
    sparse = np.full((8, 20, 20), np.nan)
    sparse[:, ::3] = 3
    for wanted in ("int32", "float32", "int16"):
        x, target = nodes(dtype=wanted)
        data = BatchCreatorImage(x, target, **write(tmp_path, [raw], [sparse]))
        labels = data.sample(0)[1]
        assert set(np.unique(labels)) == {-666, 3} and labels.dtype == wanted
        assert data.n_labelled_pixel == 8 * 7 * 20
    ids = np.full((8, 20, 20), 2 ** 25 + 1)
    x, target = nodes()
    assert BatchCreatorImage(x, target, **write(tmp_path, [raw], [ids])).sample(0)[1].max() == 2 ** 25 + 1
    assert not any("lose digits" in message for _, message in log)
    BatchCreatorImage(*nodes(dtype="float32"), **write(tmp_path, [raw], [ids]))
    assert any("lose digits in float32" in message for _, message in log)
    for labels, dtype, message in ((ids, "int16", "labels of 33554433 to 33554433 do not fit into the target's int16"),
                                   (-ids, "uint8", "do not fit"), (sparse, "int8", "NaN becomes -666"),
                                   (sparse / 2, "int16", "no whole numbers")):
        with pytest.raises(ValueError, match=message):
            BatchCreatorImage(*nodes(dtype=dtype), **write(tmp_path, [raw], [labels]))


@pytest.mark.parametrize("wanted", ["float32", "int16"])
@pytest.mark.parametrize("stream", [False, True])
def test_labels_must_be_classes_of_the_network(wanted, stream, tmp_path):
    x = nm.Input((1, 1, 3, 9, 9), "b,f,z,x,y")
    wide = nm.Conv(x, 8, (1, 3, 3))
    probs = nm.Softmax(nm.Conv(wide, 2, (1, 1, 1), activation_func="lin"))
    target = nm.Input_like(wide, wanted, override_f=1)
    nm.MultinoulliNLL(probs, target, target_is_sparse=True)
    raw, lab = np.zeros((6, 20, 20), np.uint8), np.ones((6, 20, 20), np.int16)
    for good in (lab, np.where(np.arange(20) % 2, np.nan, lab), lab - 2 * (np.arange(20) % 2)):
        BatchCreatorImage(x, target, h5stream=stream, **write(tmp_path, [raw], [good])).getbatch()
    for bad, message in ((lab * 255, r"Cube 0 \(raw_0.h5:raw, lab_0.h5:lab\).*: labels go up to 255, but the network has "),
                         (lab * 2, r"up to 2, but the network has 2 classes \(0 to 1\); larger ones lie in .* Renumber"),
                         (lab / 2, "no whole numbers in .*, but the target node has class ids"),
                         (lab * np.inf, r"labels are infinite in \[0:1, 0:\d+, 0:\d+, 0:\d+\]")):
        with pytest.raises(ValueError, match=message):
            BatchCreatorImage(x, target, h5stream=stream, **write(tmp_path, [raw], [bad])).getbatch()
    with pytest.raises(ValueError, match="target node has class ids. Name all"):
        BatchCreatorImage(x, target, target_discrete_ix=[], **write(tmp_path, [raw], [lab]))
    blocks = nm.Softmax(nm.Conv(wide, 6, (1, 1, 1), activation_func="lin"), n_indep=3)
    affinities = nm.Input_like(wide, wanted, override_f=3)  # made from ids, of which there may be many
    nm.MultinoulliNLL(blocks, affinities, target_is_sparse=True)
    BatchCreatorImage(x, affinities, **write(tmp_path, [raw], [lab * 7])).getbatch(affinities="affinity")


@pytest.mark.parametrize("stream", [False, True])
def test_images_have_finite_values(stream, tmp_path):
    raw, lab = np.zeros((6, 20, 20)), np.zeros((6, 20, 20), np.int16)
    for value in (np.nan, np.inf, -np.inf):
        raw[:, ::2, ::2] = value
        with pytest.raises(ValueError, match=r"Cube 1 \(raw_1.h5:raw, lab_1.h5:lab\).*: \d+ of .* of the image are NaN"):
            files = write(tmp_path, [lab.astype(np.uint8), raw], [lab, lab])
            BatchCreatorImage(*nodes(), h5stream=stream, cube_prios=[0, 1], seed=0, **files).getbatch()
    with pytest.raises(ValueError, match="Cube 0 .*: 1 of 1,296 values"):
        image = np.zeros((6, 36, 6), np.float32)
        image[3, 0, 5] = np.nan
        BatchCreatorImage(*scalar_nodes((4, 6, 6)), **write(tmp_path, [image], [1]))


def test_a_bad_patch_tells_where_it_comes_from(tmp_path):
    raw, lab = np.zeros((14, 40, 44), np.float32), np.zeros((10, 30, 34), np.int16)
    raw[7, 20:22, 22] = np.nan
    data = BatchCreatorImage(*nodes(), h5stream=True, seed=0, **write(tmp_path, [raw], [lab]))
    told = []
    for k in range(40):
        try:
            data.sample(k)
        except ValueError as error:
            told.append(re.match(rf"Sample {k}, a patch of Cube 0 \(raw_0.h5:raw, lab_0.h5:lab\) from image voxels "
                                 r"z (\d+):(\d+), x (\d+):(\d+), y (\d+):(\d+): [12] of 845 values", str(error)).groups())
    boxes = np.array(told, int).reshape(-1, 3, 2)
    assert len(boxes) > 2 and np.all(boxes[..., 1] - boxes[..., 0] == (5, 13, 13))
    assert np.all(boxes[..., 0] <= (7, 21, 22)) and np.all(boxes[..., 1] > (7, 20, 22))


@pytest.mark.parametrize("dtype", ["S1", np.complex64, [("id", "i4")]], ids=str)
def test_labels_and_masks_must_be_numbers(dtype, tmp_path):
    raw, lab = np.zeros((8, 20, 20), np.uint8), np.zeros((8, 20, 20), np.int16)
    for stream in (False, True):
        with pytest.raises(TypeError, match=r"Cube 0 .*: the labels are of dtype .*, but must be integers or real numbers"):
            BatchCreatorImage(*nodes(), h5stream=stream, **write(tmp_path, [raw], [np.zeros(lab.shape, dtype)]))
    files = write(tmp_path, [raw], [lab], mask=[np.zeros(lab.shape, dtype)])
    with pytest.raises(TypeError, match="Cube 0 .*: the values of the mask are of dtype"):
        BatchCreatorImage(*nodes(), m_files=[("lab_0.h5", "mask")], **files)
    with pytest.raises(ValueError, match=r"Cube 0 .*: the labels have shape \(0, 8, 20, 20\): there is no channel"):
        BatchCreatorImage(*nodes(), **write(tmp_path, [raw], [lab[None][:0]]))


def test_lazy_masks_have_the_same_classes_in_all_cubes(tmp_path):
    raw, lab = np.zeros((8, 20, 20), np.uint8), np.zeros((8, 20, 20), np.int16)
    mask = np.array([[1, 0, 1], [0, 1, 0]])
    files = write(tmp_path, [raw] * 2, [lab] * 2, ll_mask=[mask, mask])
    with h5py.File(tmp_path / "lab_1.h5", "a") as f:
        del f["ll_mask"]
    batch = BatchCreatorImage(*nodes(), seed=0, **files).getbatch(8, ret_ll_mask=True)
    assert {tuple(m.ravel()) for m in np.stack(batch[2:], 1)} == {(1, 0, 1, 0, 1, 0), (1, 1, 1, 0, 0, 0)}
    with pytest.raises(ValueError, match=r"equally many classes in all cubes, but it has 3 in Cube 0 .*, 2 in Cube 1 "):
        BatchCreatorImage(*nodes(), **write(tmp_path, [raw] * 2, [lab] * 2, ll_mask=[mask, mask[:, :2]]))
    with pytest.raises(ValueError, match=r"must have shape \(2, n_classes\) and numbers, got .S1 \(2, 3\)"):
        BatchCreatorImage(*nodes(), **write(tmp_path, [raw], [lab], ll_mask=[mask.astype("S1")]))


@pytest.mark.parametrize("stream", [False, True])
def test_values_of_another_scale_are_noted_once(stream, tmp_path, log):
    lab = np.zeros((6, 20, 20), np.int16)
    raw = np.stack([lab + 0.5, lab + 255]).astype(np.float32)
    data = BatchCreatorImage(*nodes(n_f=2), h5stream=stream, **write(tmp_path, [raw, raw], [lab, lab]))
    data.getbatch(grey_augment_channels=[0])
    assert not any("clip" in m for _, m in log)
    for _ in range(2):
        data.getbatch(2, grey_augment_channels=[1])
    notes = [m for level, m in log if "clip to 0..1" in m and level == "WARNING"]
    assert len(notes) == 1 and ": channel 1 of the image has values 255 to 255, but" in notes[0]
    assert "by 255" in notes[0]
    for top, n in ((4096, 0), (4095, 1)):
        BatchCreatorImage(*nodes(), **write(tmp_path, [np.full(lab.shape, top, np.uint16)] * 2, [lab, lab]))
        assert sum("Cube 0" in m and "largest value is 4095" in m and level == "WARNING" for level, m in log) == n
    assert sum("uint16" in m for _, m in log) == 1


def test_cubes_without_labels_are_noted(tmp_path, log):
    raw = np.zeros((6, 20, 20), np.uint8)
    good, nothing, empty = raw.astype(np.float32), np.full(raw.shape, -1, np.float32), np.full(raw.shape, np.nan)
    BatchCreatorImage(*nodes(), **write(tmp_path, [raw] * 3, [nothing, good, empty]))
    notes = [m for level, m in log if level == "WARNING" and "Nothing is labelled" in m]
    assert len(notes) == 1 and "in Cube 0 (raw_0.h5:raw, lab_0.h5:lab); Cube 2 (raw_2.h5:raw, lab_2.h5:lab)." in notes[0]
    files = write(tmp_path, [raw] * 3, [nothing, good, empty])
    with pytest.raises(ValueError, match="Nothing is labelled in any training cube: .*Cube 0 .*Cube 2"):
        BatchCreatorImage(*nodes(), valid_cubes=[1], **files)
    data = BatchCreatorImage(*nodes(), valid_cubes=[1], h5stream=True, **files)  # found as patches are read
    for n, told in ((MAX_DRAWS - 1, 0), (3, 1)):
        data.getbatch(n)
        assert sum("Nothing was labelled in the first 200 patches" in m for _, m in log) == told
    data = BatchCreatorImage(*nodes(), h5stream=True, seed=0, **files)
    data.getbatch(MAX_DRAWS + 1)
    assert sum("Nothing was labelled" in m for _, m in log) == 1
    BatchCreatorImage(*nodes(dtype="float32"), **write(tmp_path, [raw], [nothing]))  # real numbers may be negative
    with pytest.raises(ValueError, match="Nothing is labelled"):
        BatchCreatorImage(*nodes(dtype="float32"), **write(tmp_path, [raw], [empty]))
    absent = write(tmp_path, [raw], [nothing], ll_mask=[np.ones((2, 3))])  # classes that are surely absent teach something
    BatchCreatorImage(*nodes(), **absent)


def test_probabilities_are_interpolated_where_asked_for(tmp_path, rng):
    raw = np.zeros((10, 30, 30), np.uint8)
    probs = np.stack((p := rng.integers(0, 2, (10, 30, 30)), 1 - p)).astype(np.float32)
    x, target = nodes((1, 1, 1), (1, 1, 1), (3, 9, 9), dtype="float32")
    files = write(tmp_path, [raw], [probs])
    blends = {}
    for discrete in (None, [], [1]):
        data = BatchCreatorImage(x, target, target_discrete_ix=discrete, seed=0, **files)
        labels = data.sample(0, warp=1)[1]
        blends[str(discrete)] = [bool(np.any(channel % 1)) for channel in labels]
        assert discrete == [1] or np.allclose(labels.sum(0), 1)
    assert blends == {"None": [False, False], "[]": [True, True], "[1]": [True, False]}
    with pytest.raises(ValueError, match="target node has int32. Give it dtype='float32'"):
        BatchCreatorImage(*nodes((1, 1, 1), (1, 1, 1), (3, 9, 9)), target_discrete_ix=[], **files)


def test_vectors_turn_with_the_patch(tmp_path):
    """A field that points along x in the labels points to where x lies in the patch."""
    raw, _ = coded((12, 40, 40), (12, 40, 40))
    field = np.zeros((3, 12, 40, 40), np.float32)
    field[1] = 1
    x, target = nodes((1, 1, 1), (1, 1, 1), (3, 9, 9), 3, "float32")
    data = BatchCreatorImage(x, target, target_vec_ix=[(0, 1, 2)], seed=0, aniso_factor=1, **write(tmp_path, [raw], [field]))
    for k in range(12):
        image, vectors = data.sample(k, warp=0.5, warp_args=dict(lock_z=False, warp_amount=0.2))
        where, to = vectors[:, 1, 4, 4], []
        for axis in range(3):  # x grows along the vector, by one voxel: its gradient times the vector is 1
            after, before = np.array((1, 4, 4)), np.array((1, 4, 4))
            after[axis] += 1
            before[axis] -= 1
            to.append((image[(1, *after)] - image[(1, *before)]) / 2)
        assert abs(np.dot(to, where) - 1) < 1e-3
    with pytest.raises(ValueError, match="no single direction under perspective"):
        data.getbatch(warp=1, warp_args={"perspective": True})


def test_affinities_shifts_and_lazy_masks(tmp_path, plain, rng):
    default = BatchCreatorImage(*nodes(), **plain).getbatch(ret_ll_mask=True)
    assert np.array_equal(default[2], [[1]]) and np.array_equal(default[3], [[0]])
    labs = [rng.integers(0, 4, (10, 30, 34)).astype(np.int16) for _ in range(3)]
    masks = [np.array([[1, 0, i], [0, 1, 0]]) for i in range(3)]
    files = write(tmp_path, [np.zeros((14, 40, 44), np.uint8)] * 3, labs, ll_mask=masks)
    x, target = nodes((3, 4, 4), (1, 2, 2))
    data = BatchCreatorImage(x, target, seed=0, **files)
    _, dense = data.batch(0, 2, force_dense=True)
    _, strided = data.batch(0, 2)
    assert np.array_equal(strided, dense[:, :, :, ::2, ::2])
    _, aff, seg, labelled, absent = data.batch(0, 2, affinities="malis", ret_ll_mask=True)
    assert aff.shape == (2, 3, 3, 5, 5) and seg.shape == (2, 1, 3, 5, 5)
    assert {a.dtype for a in (aff, seg, labelled, absent)} == {np.dtype(np.int16)}
    same = (strided[:, 0, :, :, 1:] == strided[:, 0, :, :, :-1]) & (strided[:, 0, :, :, 1:] > 0)
    assert np.array_equal(aff[:, 2, :, :, :-1], same)
    assert len(data.batch(0, 2, affinities="affinity")) == 2
    assert np.array_equal(data.batch(0, 2, affinities="affinity")[1], aff)
    assert labelled.shape == (2, 3) and np.array_equal(absent, [[0, 1, 0]] * 2)
    shifted = data.batch(0, 2, nhood_targets=[(0, 0, 1), (0, -1, 0)])[1]
    assert np.array_equal(shifted, make_nhood_targets(dense, [(0, 0, 1), (0, -1, 0)])[:, :, :, ::2, ::2])
    assert data.batch(0, 2, nhood_targets=True, force_dense=True)[1].shape == (2, 7, 3, 9, 9)


def test_affinities_and_shifts_of_sections(tmp_path, rng):
    """A 2-D network has edges along x and y alone, and each section is segmented for itself."""
    labs = [np.broadcast_to(rng.integers(0, 3, (30, 34)), (10, 30, 34)).astype(np.int16)]
    files = write(tmp_path, [np.zeros((14, 40, 44), np.uint8)], labs)
    data = BatchCreatorImage(*nodes((4, 4), (2, 2), (13, 13)), seed=0, **files)
    _, ids = data.batch(0, 2)
    _, aff, seg = data.batch(0, 2, affinities="malis")
    assert aff.shape == (2, 2, 5, 5) and seg.shape == (2, 1, 5, 5) and aff.dtype == seg.dtype == np.int16
    assert np.array_equal(aff[:, 0, :-1], (ids[:, 0, 1:] == ids[:, 0, :-1]) & (ids[:, 0, 1:] > 0))
    assert np.array_equal(aff[:, 1, :, :-1], (ids[:, 0, :, 1:] == ids[:, 0, :, :-1]) & (ids[:, 0, :, 1:] > 0))
    assert not aff[:, 0, -1].any() and not aff[:, 1, :, -1].any()
    for one, parts in zip(ids[:, 0], seg[:, 0]):
        pieces = sum((label(one == i)[0] + 100 * i) * (one == i) for i in (1, 2))
        pieces[np.isin(pieces, [i for i, n in zip(*np.unique(pieces, return_counts=True)) if n == 1])] = 0
        assert len(set(zip(pieces.ravel(), parts.ravel()))) == len(np.unique(pieces)) == len(np.unique(parts))
    assert np.array_equal(data.batch(0, 2, affinities="affinity")[1], aff)
    dense = data.batch(0, 2, force_dense=True)[1]
    for nhood in ([(0, 1), (-2, 0)], [(0, 0, 1), (0, -2, 0)]):
        shifted = data.batch(0, 2, nhood_targets=nhood)[1]
        assert np.array_equal(shifted, make_nhood_targets(dense[:, :, None], [(0, 0, 1), (0, -2, 0)])[:, :, 0, ::2, ::2])
    five = data.batch(0, 2, nhood_targets=True, force_dense=True)[1]
    assert five.shape == (2, 5, 9, 9) and np.array_equal(five[:, :1], dense)
    assert np.array_equal(five[:, 1, 1:], dense[:, 0, :-1]) and np.all(five[:, 1, 0] == -1)


def test_places_with_few_labels_are_drawn_again(plain, log):
    x, target = nodes()
    plain.update(d_files=plain["d_files"][1:2], l_files=plain["l_files"][1:2])
    data = BatchCreatorImage(x, target, seed=0, **plain)
    missing = [np.mean(data.sample(k)[1] < 0) for k in range(30)]
    assert np.mean(np.array(missing) > 0.2) > 0.5
    for k in range(30):
        _, labels = data.sample(k, ignore_thresh=0.2, force_dense=True)
        assert np.mean(labels < 0) <= 0.2
        assert labels.shape == (1, 5, 9, 9) and data.sample(k, ignore_thresh=0.2)[1].shape == (1, 5, 5, 5)
    assert not any(level == "WARNING" and "ignore_thresh" in m for level, m in log)
    with h5py.File(plain["l_path"] / "lab_1.h5", "a") as f:
        f["lab"][:] = -1
        f["lab"][0, 0, 0] = 1
    data = BatchCreatorImage(x, target, seed=0, **plain)
    for k in range(3):
        data.sample(k, ignore_thresh=0.1)
    assert sum("Raise ignore_thresh" in m for _, m in log) == 1
    with h5py.File(plain["l_path"] / "lab_1.h5", "a") as f:
        f["ll_mask"] = np.ones((2, 4), np.int16)  # classes that are surely absent are labels, too
    BatchCreatorImage(x, target, seed=0, **plain).sample(0, ignore_thresh=0.1)
    assert sum("Raise ignore_thresh" in m for _, m in log) == 1


def test_cubes_are_drawn_by_their_weights(tmp_path):
    raws = [np.full((8, 20, 20), v, np.uint8) for v in (0, 51, 102, 153, 204)]
    files = write(tmp_path, raws, [r.astype(np.int16) for r in raws])
    data = BatchCreatorImage(*nodes(), valid_cubes=[1, 3], cube_prios=[1, 0, 3], seed=0, **files)
    drawn = [int(data.sample(k)[1].max()) for k in range(400)]
    assert set(drawn) == {0, 204} and 0.68 < np.mean(np.array(drawn) == 204) < 0.82
    assert {int(data.sample(k, "valid")[1].max()) for k in range(30)} == {51, 153}


def test_grey_values_are_augmented_in_training_only(plain):
    x, target = nodes()
    data = BatchCreatorImage(x, target, seed=0, valid_cubes=[2], **plain)
    for options in (dict(grey_augment_channels=[0]), dict(nga_blur_noise_probability=1), dict(blurry_blobs_probability=1),
                    dict(noisy_random_erasing_probability=1, noisy_random_erasing_args=dict(blob_size_range=(2, 8))),
                    dict(uniform_random_erasing_probability=1, uniform_random_erasing_args=dict(value=0.25))):
        assert not np.array_equal(data.sample(0)[0], data.sample(0, **options)[0])
        assert np.array_equal(data.sample(0)[1], data.sample(0, **options)[1])
        assert np.array_equal(data.sample(0, "valid")[0], data.sample(0, "valid", **options)[0])
    assert np.array_equal(data.sample(0)[0], data.sample(0, grey_augment_channels=[])[0])
    both = [data.sample(0, grey_augment_channels=channels, flip=1)[0] for channels in (0, [0])]
    assert np.array_equal(*both)


# -- warps that do not fit -------------------------------------------------------------------------------
def test_warps_that_never_fit_end_in_a_plain_sample_and_one_warning(tmp_path, rng, log):
    raw = rng.integers(0, 256, (6, 14, 14), dtype=np.uint8)
    x, target = nodes()
    data = BatchCreatorImage(x, target, seed=0, **write(tmp_path, [raw], [raw.astype(np.int16)]))
    options = dict(warp=1, warp_args=dict(sample_aniso=False, lock_z=False))
    images = [data.sample(k, **options)[0] for k in range(3)]
    assert all(image.shape == (1, 5, 13, 13) for image in images)
    warnings = [m for level, m in log if level == "WARNING" and "in a row fell outside" in m]
    assert len(warnings) == 1 and f"{MAX_DRAWS} warps" in warnings[0] and "smaller warp_amount" in warnings[0]
    assert data.n_failed_warp >= MAX_DRAWS
    assert data.warp_stats.startswith(f"{data.n_successful_warp} warps succeeded and {data.n_failed_warp} failed")


def test_warped_is_what_was_asked_for(plain):
    x, target = nodes()
    data = BatchCreatorImage(x, target, seed=0, **plain)
    data.getbatch(20)
    assert (data.n_successful_warp, data.n_failed_warp) == (0, 0) and "0 warps succeeded" in data.warp_stats
    data.getbatch(100, warp=0.3, warp_args={"warp_amount": 0.2})
    assert 15 < data.n_successful_warp < 45
    before = data.n_successful_warp
    data.getbatch(10, warp=True, warp_args={"warp_amount": 0.2})
    assert data.n_successful_warp == before + 10 and "% success" in data.warp_stats


# -- files -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("channels", [False, True])
def test_axes_xyz_and_streamed_files_give_the_same_samples(stream, channels, plain, tmp_path):
    x, target = nodes()
    wanted = BatchCreatorImage(x, target, seed=0, valid_cubes=[0], **plain)
    for kind, key in (("raw", "raw"), ("lab", "lab")):
        for i in range(3):
            with h5py.File(tmp_path / f"{kind}_{i}.h5", "a") as f:
                array = np.moveaxis(f[key][()], 0, -1)
                f.create_dataset("xyz", data=array[None] if channels else array, compression="gzip")
    files = {k: [(name, "xyz") for name, _ in v] if k.endswith("files") else v for k, v in plain.items()}
    data = BatchCreatorImage(x, target, seed=0, valid_cubes=[0], zxy=False, h5stream=stream, **files)
    assert [a.shape for a in data.train_d] == [(1, 14, 40, 44)] * 2
    for k in range(6):
        for a, b in zip(wanted.sample(k, warp=0.5), data.sample(k, warp=0.5)):
            assert np.array_equal(a, b)
    assert isinstance(data.train_d[0], np.ndarray) != stream
    plain_stream = BatchCreatorImage(x, target, seed=0, valid_cubes=[0], h5stream=True, **plain)
    assert np.array_equal(wanted.batch(2, 2, warp=1)[0], plain_stream.batch(2, 2, warp=1)[0])
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda k: plain_stream.batch(k, 2, warp=1), range(8)))) == 8


@pytest.mark.parametrize("form", ["em.zarr", "em.h5:raw", "em.npy", "em.tif", "precomputed:em", "array", "zyx"])
def test_samples_are_the_same_from_every_format(form, plain, tmp_path, log):
    x, target = nodes()
    wanted = BatchCreatorImage(x, target, seed=0, valid_cubes=[0], **plain)
    arrays = {kind: [h5load(tmp_path / f"{kind}_{i}.h5", kind) for i in range(3)] for kind in ("raw", "lab")}
    files = {}
    for kind, name in (("raw", "d_files"), ("lab", "l_files")):
        files[name] = arrays[kind]
        if form == "zyx":
            files[name] = [open_volume(a.swapaxes(1, 2), "zyx") for a in arrays[kind]]
        elif form != "array":
            files[name] = [re.sub("em(?=[.]|$)", f"{tmp_path}/{kind}_{i}_em", form) for i in range(3)]
            for array, file in zip(arrays[kind], files[name]):
                convert(array, file, chunks=8, labels=kind == "lab")
    for options in (dict(), dict(h5stream=True), dict(max_ram=1e-5)):
        data = BatchCreatorImage(x, target, tmp_path, tmp_path, seed=0, valid_cubes=[0], **files, **options)
        assert data.h5stream == bool(options)
        assert isinstance(data.train_d[0], np.ndarray) == (not options)
        for k in range(4):
            for a, b in zip(wanted.sample(k, warp=0.5), data.sample(k, warp=0.5)):
                assert a.dtype == b.dtype and np.array_equal(a, b)
        with ThreadPoolExecutor(4) as pool:
            for k, batch in enumerate(pool.map(lambda k: data.batch(k, 2, warp=0.5), range(4))):  # noqa: B023
                assert all(map(np.array_equal, batch, wanted.batch(k, 2, warp=0.5)))
    assert any("max_ram is 0.0 GiB: each patch is read from the files" in m for _, m in log)


def test_damaged_volumes_are_named_when_a_patch_is_read(plain, tmp_path):
    convert(f"{tmp_path}/raw_1.h5:raw", tmp_path / "raw_1.zarr")
    chunk = tmp_path / "raw_1.zarr/0/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-50])
    files = [("raw_0.h5", "raw"), "raw_1.zarr", ("raw_2.h5", "raw")]
    data = BatchCreatorImage(*nodes(), seed=0, cube_prios=[0, 1, 0], h5stream=True, **{**plain, "d_files": files})
    with pytest.raises(OSError, match=r"raw_1.zarr: the box f 0:1, z \d+:\d+, x \d+:\d+, y \d+:\d+ cannot be read: "):
        data.getbatch()
    with pytest.raises(OSError, match=r"raw_1.zarr: the box f 0:1, z 0:14, x 0:40, y 0:44 cannot be read: "):
        BatchCreatorImage(*nodes(), **{**plain, "d_files": files})


def test_what_cannot_be_used_is_noted(tmp_path, log):
    raw = np.zeros((21, 30, 22), np.uint8)
    lab = np.zeros((21, 28, 20), np.int16)
    BatchCreatorImage(*nodes((3, 8, 8), (1, 1, 1), (15, 15, 15)), **write(tmp_path, [raw], [lab]))
    notes = [m for _, m in log if m.startswith("NOTE")]
    assert any("raw_0.h5" in m and "upper end of axis z: 1 + 1 of 21; axis x: 2 + 3 of 28; " in m for m in notes)
    assert any("few positions for patches, on axis z: 7 for 15 voxels in 21; axis y: 8 for 15" in m for m in notes)
    assert len(notes) == 2
    assert any("1-target Data Set" in m for _, m in log)


def test_wrong_data_are_named(tmp_path, plain):
    x, target = nodes()
    first = dict(d_files=plain["d_files"][:1], l_files=plain["l_files"][:1])
    cases = [(dict(d_files=[("none.h5", "raw")] * 3), FileNotFoundError, "(?s)missing.*none.h5.*data.synthetic"),
             (dict(d_path=tmp_path / "neuro_data_zxy"), FileNotFoundError,
              "(?s)raw_0.h5.*raw_2.h5.*data.download.*http://elektronn.org/downloads/neuro_data_zxy.zip"),
             (dict(d_files=[("raw_0.h5", "rew")] * 3), KeyError, r"no data set 'rew'; available: \['raw'\]"),
             (dict(d_files=["none.h5"] * 3), FileNotFoundError, "none.h5"),
             (dict(d_files="raw_0.h5"), ValueError, "d_files must be a list of"),
             (dict(d_files=["raw_0.zarr:raw:0?axes=zyx", 3]), ValueError, "d_files must be a list of"),
             (dict(max_ram="much"), TypeError, "max_ram must be a number of GiB"),
             (dict(max_ram=-1), ValueError, "at least 0 GiB"), (dict(max_ram=np.nan), ValueError, "at least 0 GiB"),
             (dict(l_files=[]), ValueError, "needs l_files"), (dict(d_path=None), ValueError, "needs d_path"),
             (dict(target_node=None), ValueError, "needs target_node"),
             (dict(d_files=plain["d_files"][:2]), ValueError, "2 image files but 3 label files"),
             (dict(valid_cubes=[3]), ValueError, "not all among the 3 cubes"),
             (dict(valid_cubes=2), ValueError, "list of cube numbers"),
             (dict(valid_cubes=[0, 1, 2]), ValueError, "none is left"),
             (dict(cube_prios=[1, 2]), ValueError, "one value per"),
             (dict(cube_prios=[0, 0, 0]), ValueError, "not be negative, and not all 0"),
             (dict(cube_prios=[1, 1, np.nan]), ValueError, "must be finite"),
             (dict(cube_prios="ab"), ValueError, "one per training cube .3., got 'ab'"),
             (dict(cube_prios=3), ValueError, "one per training cube .3., got 3"),
             (dict(d_path=3), TypeError, "d_path must be the path of a folder, got 3"),
             (dict(d_files=3), ValueError, "d_files must be a list of"),
             (dict(l_files=[("lab_0.h5", None)] * 3), TypeError,
              "l_files: the name of the data set in lab_0.h5 must be a string, got None"),
             (dict(h5stream="no"), ValueError, "h5stream must be True or False, got 'no'"),
             (dict(zxy=2), ValueError, "zxy must be True or False"),
             (dict(aniso_factor="2"), ValueError, "aniso_factor must be a number above 0"),
             (dict(aniso_factor=None), ValueError, "aniso_factor must be a number above 0"),
             (dict(seed="abc"), TypeError, "seed must be an integer of at least 0, or None, got 'abc'"),
             (dict(seed=2 ** 64), ValueError, "below 2"),
             (dict(target_vec_ix=[0, 1]), ValueError, "must be a list of triples"),
             (dict(target_vec_ix=7), ValueError, "must be a list of triples"),
             (dict(target_vec_ix=[0, 1, 2]), ValueError, r"channels \[1, 2\] of labels that have 1"),
             (dict(target_discrete_ix=1), ValueError, r"channels \[1\] of labels"),
             (dict(target_discrete_ix=True), TypeError, "target_discrete_ix must be a list of channels"),
             (dict(border_mode="mirrored"), ValueError, "Did you mean 'mirror'"), (dict(seed=-1), ValueError, "at least 0"),
             (dict(aniso_factor=0), ValueError, "above 0"),
             (dict(target_vec_ix=[(0, 1, 2)]), ValueError, r"channels \[1, 2\] of labels that have 1"),
             (dict(target_discrete_ix=[1]), ValueError, r"channels \[1\] of labels")]
    for change, kind, message in cases:
        with pytest.raises(kind, match=message):
            BatchCreatorImage(**{"input_node": x, "target_node": target, **plain, **change})
    with h5py.File(tmp_path / "raw_0.h5", "a") as f:
        f["group/raw"] = 1
    with pytest.raises(KeyError, match=r"no data set 'group' .it is a group.; available: \['group/raw', 'raw'\]"):
        BatchCreatorImage(x, target, **{**plain, "d_files": [("raw_0.h5", "group")] * 3})
    with pytest.raises(ValueError, match=r"Cube 0 \(raw_0.h5:raw, lab_0.h5:lab\): the image has 1 channels, but the input"):
        BatchCreatorImage(*nodes(n_f=2), **plain)
    with pytest.raises(ValueError, match="Batches have axes b,f,z,x,y, but"):
        BatchCreatorImage(nm.Input((1, 5, 1, 13, 13), "b,z,f,x,y"), target, **plain)
    with pytest.raises(ValueError, match="2 or 3 spatial axes"):
        BatchCreatorImage(nm.Input((1, 1, 13), "b,f,x"), target, **plain)
    with pytest.raises(ValueError, match="leaves its size open"):
        BatchCreatorImage(nm.Input((1, 1, 5, None, 13), "b,f,z,x,y"), target, **plain)
    (tmp_path / "raw_0.h5").write_bytes((tmp_path / "raw_0.h5").read_bytes()[:5000])
    with pytest.raises(OSError, match=r"raw_0.h5 .*cannot be read as an h5 file"):
        BatchCreatorImage(x, target, **{**plain, **first})


def test_shapes_that_do_not_go_together_are_named(tmp_path):
    x, target = nodes((3, 4, 4), (1, 2, 2))
    raw, lab = np.zeros((12, 30, 32), np.uint8), np.zeros((8, 20, 22), np.int16)
    cases = [([raw], [lab[:-1]],
              r"Cube 0 \(raw_0.h5:raw, lab_0.h5:lab\), axis z: the labels \(7\) cannot be centred in the image \(12\)"),
             ([raw, raw[:4]], [lab, lab[:4]], r"Cube 1 .*, axis z: the patch \(5\) is larger than the image \(4\). Use an "
              r"input shape of at most \(4, 13, 13\), a larger cube"),
             ([raw[:2]], [lab[:2]], r"the patch \(5\) is larger than the image \(2\). Use a network with a smaller field"),
             ([raw.transpose(1, 2, 0)], [lab.transpose(1, 2, 0)], r"axis y: .* have axes \(x, y, z\), pass zxy=False"),
             ([raw[:, :, :12]], [lab[..., :8]], r"axis y: the patch \(13\) .* input shape of at most \(5, 13, 11\)"),
             ([raw[..., :20]], [lab], r"axis y: the labels \(22\) are longer than the image \(20\)"),
             ([raw], [lab[:2]], r"axis z: no patch of 5 voxels .* \(voxels 1 to 3 of the patch\) in the labels \(2.* "
              r"shape of at most \(4, 13, 13\)"),
             ([raw], [lab[:2, :8, :4]], r"axis z: no patch of 5 .* shape of at most \(4, 11, 7\)"),
             ([raw, np.stack([raw] * 2)], [lab, lab], r"Cube 1 .*: the image has 2 channels"),
             ([raw, raw], [lab, np.stack([lab] * 2)], r"equally many label channels; they have \[1, 2\]"),
             ([raw[None, None]], [lab], "has shape .* but volumes have axes")]
    for raws, labs, message in cases:
        with pytest.raises(ValueError, match=message):
            BatchCreatorImage(x, target, **write(tmp_path, raws, labs))
    with pytest.raises(TypeError, match=r"Cube 0 .*int16 has no known scale"):
        BatchCreatorImage(x, target, **write(tmp_path, [raw.astype(np.int16)], [lab]))
    with pytest.raises(ValueError, match="ll_mask beside .*lab_0.h5:lab must have shape"):
        BatchCreatorImage(x, target, **write(tmp_path, [raw], [lab], ll_mask=[np.ones(3)]))


def test_wrong_arguments_of_batches_are_named(plain):
    x, target = nodes()
    data = BatchCreatorImage(x, target, valid_cubes=[2], **plain)
    assert list(inspect.signature(data.getbatch).parameters)[2:-1] == OPTIONS
    cases = [(dict(wrap=1), TypeError, "no argument 'wrap'. Did you mean 'warp'"),
             (dict(warp_args=dict(warp_amonut=1)), TypeError, "Did you mean 'warp_amount'"),
             (dict(warp_args=dict(target_ps=1)), TypeError, "warp_args has no argument 'target_ps'"),
             (dict(blurry_blobs_args=dict(difuseness=1)), TypeError, "Did you mean 'diffuseness'"),
             (dict(uniform_random_erasing_args=dict(data=1)), TypeError, "no argument 'data'"),
             (dict(warp=2), ValueError, "warp must be True, False or a number in 0..1"),
             (dict(ignore_thresh="no"), ValueError, "ignore_thresh must be"),
             (dict(blurry_blobs_probability=-1), ValueError, "blurry_blobs_probability must be"),
             (dict(affinities="malice"), ValueError, "'malis' or 'affinity'"),
             (dict(affinities="malis", nhood_targets=True), ValueError, "exclude each other"),
             (dict(grey_augment_channels=[1]), ValueError, r"channels \[1\] of images that have 1"),
             (dict(grey_augment_channels=1), ValueError, r"channels \[1\] of images that have 1"),
             (dict(grey_augment_channels=True), TypeError, "grey_augment_channels must be a list of channels"),
             (dict(grey_augment_channels="0"), TypeError, "grey_augment_channels must be a list of channels"),
             (dict(warp_args="warp_amount"), TypeError, "warp_args must be a dict of arguments"),
             (dict(warp_args=[]), TypeError, "warp_args must be a dict of arguments"),
             *((dict(warp_args=dict(warp_amount=v)), ValueError, "warp_amount must be a number in 0..2")
               for v in ("big", -1, 50, None)),
             *((dict(warp_args=dict(aniso_factor=v)), ValueError, "aniso_factor must be a number above 0")
               for v in (0, "2")),
             *((dict(warp_args={k: "no"}), ValueError, f"{k} must be True or False, got 'no'")
               for k in ("lock_z", "perspective", "sample_aniso", "no_x_flip")),
             *(({k: "no"}, ValueError, f"{k} must be True or False, got 'no'")
               for k in ("flip", "augment_valid", "force_dense", "ret_ll_mask")),
             (dict(blurry_blobs_args={"num_blob_range": 3}), ValueError, "num_blob_range must be two integers"),
             (dict(blurry_blobs_args={"diffuseness": "x"}), ValueError, "diffuseness must be None or a number"),
             (dict(noisy_random_erasing_args={"noise_range": 1}), ValueError, "noise_range must be .low, high."),
             (dict(uniform_random_erasing_args={"value": "x"}), ValueError, "value must be a number"),
             (dict(source="test"), ValueError, "'train' or 'valid'"), (dict(batch_size=0), ValueError, "at least 1")]
    for options, kind, message in cases:
        with pytest.raises(kind, match=message):
            data.getbatch(**options)
        if not {"source", "batch_size"} & set(options):
            with pytest.raises(kind, match=message):
                data.sample(0, **options)
    known = inspect.signature(get_warped_slice).parameters
    assert data.getbatch(warp=1, warp_args={k: known[k].default for k in WARP_ARGS})
    with pytest.raises(ValueError, match="no validation cubes"):
        BatchCreatorImage(x, target, **plain).sample(0, "valid")
    for index, kind in ((-1, ValueError), (0.5, TypeError), ("0", TypeError)):
        for call in (data.sample, data.explain):
            with pytest.raises(kind, match="index must be"):
                call(index)
        with pytest.raises(kind, match="number must be"):
            data.batch(index)
    flat = BatchCreatorImage(*nodes((4, 4), (2, 2), (13, 13)), **plain)
    with pytest.raises(ValueError, match="misalignment moves sections against their neighbours"):
        flat.getbatch(warp=1, warp_args=dict(misalignment={}))
    for either, nhood, message in ((data, 3, r"nhood_targets: nhood must be integers of shape \(n, 3\)"),
                                   (data, [(1, 0)], r"nhood_targets: nhood must be integers of shape \(n, 3\)"),
                                   (flat, [(1, 0, 0)], "nhood_targets: nhood has offsets along z, but the network is 2-D"),
                                   (flat, [(1, 0), (0, 1, 0)], r"or \(n, 2\), offsets \(x, y\), but got")):
        with pytest.raises(ValueError, match=message):
            either.getbatch(nhood_targets=nhood)


# -- one label per image ---------------------------------------------------------------------------------
def scalar_nodes(shape, n=1, dtype="float32"):
    x = nm.Input((1, 1, *shape), "b,f,z,x,y" if len(shape) == 3 else "b,f,x,y")
    return x, nm.Input((1, n), "b,f", dtype=dtype)


@pytest.mark.parametrize("shape", [(4, 6, 6), (6, 6)])
@pytest.mark.parametrize("mode", ["crop", "mirror", "0-pad"])
def test_images_with_one_label(shape, mode, tmp_path, rng):
    sizes = [6] * len(shape) if mode == "crop" else [3] * len(shape)
    images = [rng.integers(0, 256, sizes, dtype=np.uint8) for _ in range(4)]
    files = write(tmp_path, images, [np.float32(i) for i in range(4)])
    data = BatchCreatorImage(*scalar_nodes(shape), border_mode=mode, valid_cubes=[3], seed=0, **files)
    assert data.mode == "img-scalar"
    batch = data.getbatch(6, grey_augment_channels=[], force_dense=True)
    assert batch[0].shape == (6, 1, *shape) and batch[0].dtype == np.float32 and batch[1].shape == (6, 1)
    assert set(data.getbatch(40)[1].ravel()) == {0, 1, 2}
    image, label = data.sample(0, "valid")
    wanted = fit_border(images[3][None], shape, mode).astype(np.float32) / np.float32(255)
    assert label == 3 and np.array_equal(image, wanted)
    orientations = {data.sample(k, flip=False)[0].tobytes() for k in range(40)}
    assert len(orientations) == 3 and len({data.sample(k)[0].tobytes() for k in range(40)}) > 3


def test_wrong_images_with_one_label_are_named(tmp_path):
    images = [np.zeros((6, 6, 6), np.uint8)] * 2
    vector = write(tmp_path, images, [np.arange(2)] * 2)
    data = BatchCreatorImage(*scalar_nodes((4, 6, 6), 2, "int16"), **vector)
    assert np.array_equal(data.getbatch(2)[1], [[0, 1]] * 2) and data.getbatch(2)[1].dtype == np.int16
    with pytest.raises(ValueError, match="labels with spatial axes"):
        data.getbatch(warp=1)
    with pytest.raises(ValueError, match=r"leaves the image at \(1, 6, 6, 6\), but the input needs \(4, 6, 6\)"):
        BatchCreatorImage(*scalar_nodes((4, 6, 6), 2), border_mode="keep", **vector)
    with pytest.raises(ValueError, match="leaves the image at"):
        BatchCreatorImage(*scalar_nodes((8, 6, 6), 2), **vector)
    with pytest.raises(ValueError, match="labels have 2 values per image"):
        BatchCreatorImage(*scalar_nodes((4, 6, 6), 1), **vector)
    with pytest.raises(ValueError, match="h5stream, target_vec_ix"):
        BatchCreatorImage(*scalar_nodes((4, 6, 6), 2), h5stream=True, **vector)
    with pytest.raises(ValueError, match="the input has 2 spatial axes, the image shape"):
        BatchCreatorImage(*scalar_nodes((6, 6), 2), **write(tmp_path, [image[None] for image in images], [np.arange(2)] * 2))
    many = write(tmp_path, [np.zeros((n, 6, 6), np.uint8) for n in (3, 3, 2)], [1, 2, 3])
    x = nm.Input((1, 3, 6, 6), "b,f,x,y")
    with pytest.raises(ValueError, match=r"Cube 2 .*: the image has 2 channels, but .* 3. It has shape \(2, 6, 6\), read"):
        BatchCreatorImage(x, nm.Input((1, 1), "b,f"), **many)
    with pytest.raises(ValueError, match=r"Cube 0 .*: the image has no voxels; its shape is \(0, 6\), axes xy"):
        BatchCreatorImage(*scalar_nodes((6, 6)), border_mode="mirror", **write(tmp_path, [np.zeros((0, 6), np.uint8)], [1]))
    with pytest.raises(ValueError, match="a number or a vector, but it has shape"):
        BatchCreatorImage(*scalar_nodes((4, 6, 6), 2), **write(tmp_path, images, [np.zeros((2, 2))] * 2))


def test_threads_are_left_to_others_in_workers(plain, monkeypatch):
    """A batch that is made in a thread of the trainer starts no threads of its own."""
    asked = []

    def spy(*args, n_threads, **kwargs):
        asked.append(n_threads)
        return get_warped_slice(*args, n_threads=n_threads, **kwargs)
    monkeypatch.setattr(cnndata, "get_warped_slice", spy)
    data = BatchCreatorImage(*nodes(), seed=0, **plain)
    data.getbatch()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(data.getbatch).result()
    assert asked == [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), 1]


def test_nodes_need_not_be_of_a_model(plain):
    x, target = nodes()
    stand_ins = [SimpleNamespace(shape=n.shape, output=SimpleNamespace(dtype=np.int16)) for n in (x, target)]
    assert BatchCreatorImage(*stand_ins, **plain).getbatch()[1].dtype == np.int16


def test_a_patch_can_be_cut_by_hand(plain):
    data = BatchCreatorImage(*nodes(), seed=0, **plain)
    raw, labels = data.train_d[0], data.train_l[0]
    whole = raw[0].astype(np.float32) / 255
    image, target = data.warp_cut(raw, labels, warp=False, rng=np.random.default_rng(1), flip=False)
    assert image.shape == (1, 5, 13, 13) and target.shape == (1, 5, 5, 5)
    windows = np.lib.stride_tricks.sliding_window_view(whole, (5, 13, 13))
    assert np.isclose(windows, image[0], atol=1e-6).all((3, 4, 5)).any()
    warped = [data.warp_cut(raw, labels, 0.5, dict(warp_amount=0.2, aniso_factor=1), np.random.default_rng(k), flip=False)[0]
              for k in range(40)]
    exact = [np.isclose(windows, w[0], atol=1e-6).all((3, 4, 5)).any() for w in warped]
    assert 8 < sum(exact) < 32
    dense = data.warp_cut(raw, labels, rng=np.random.default_rng(1), flip=False, force_dense=True)[1]
    assert np.array_equal(dense[:, :, ::2, ::2], target)
    with pytest.raises(TypeError, match="Did you mean 'warp_amount'"):
        data.warp_cut(raw, labels, True, dict(warp_amuont=1))


# -- augmentations by name -------------------------------------------------------------------------------
def test_augmentations_are_applied_last_and_only_to_training(plain):
    x, target = nodes()
    data = BatchCreatorImage(x, target, seed=5, valid_cubes=[2], **plain)
    wanted = {"missing_sections": dict(section_probability=0.5, value=(0.5, 0.5))}
    lost = []
    for k in range(8):
        (before, label), (after, same) = data.sample(k), data.sample(k, augmentations=wanted)
        assert np.array_equal(label, same)
        lost.append(np.all(after == 0.5, axis=(0, 2, 3)))
        assert np.array_equal(before[:, ~lost[-1]], after[:, ~lost[-1]])
        assert np.array_equal(data.sample(k, "valid")[0], data.sample(k, "valid", augmentations=wanted)[0])
    assert 0.2 < np.mean(lost) < 0.8
    with pytest.raises(TypeError, match="there is no 'blob'"):
        data.getbatch(augmentations=[("blob", {})])
    with pytest.raises(ValueError, match="channels names .1., but the image has 1"):
        data.getbatch(augmentations={"grey_augment": dict(channels=[1])})


def test_a_note_says_which_patch_would_fit(tmp_path, rng, log):
    raw, lab = rng.integers(0, 256, (12, 40, 40), dtype=np.uint8), np.zeros((12, 40, 40), np.int16)
    data = BatchCreatorImage(*nodes(patch=(5, 33, 33)), seed=0, **write(tmp_path, [raw], [lab]))
    data.getbatch()
    assert not any("NOTE: only about" in m for _, m in log)
    for _ in range(2):
        data.getbatch(warp=0.5, warp_args=dict(perspective=True))
    notes = [m for _, m in log if "NOTE: only about" in m]
    assert len(notes) == 1 and "of warped patches of (5, 33, 33) fit" in notes[0]
    assert "With a patch of about (5, " in notes[0]
    small = BatchCreatorImage(*nodes(), seed=0, **write(tmp_path, [raw], [lab]))
    small.getbatch(warp=1, warp_args=dict(warp_amount=0.5))
    data.getbatch(warp=1)  # not yet told of these warps, although plain samples came first
    assert sum("NOTE: only about" in m for _, m in log) == 2
    data.getbatch(warp=1)
    assert sum("NOTE: only about" in m for _, m in log) == 2


def test_elastic_warps_are_of_warped_samples_only(tmp_path):
    raw, lab = coded((24, 50, 52), (20, 46, 48))
    data = BatchCreatorImage(*nodes(n_f=3, dtype="float32"), seed=0, target_discrete_ix=[], **write(tmp_path, [raw], [lab]))
    bent = dict(elastic=dict(amplitude=3, spacing=10), misalignment=dict(section_probability=0.3, slip=0))
    part = (slice(None), slice(0, 5), slice(2, 11, 2), slice(2, 11, 2))
    for k in range(10):
        image, labels = data.sample(k, warp=1, warp_args=bent)
        straight = data.sample(k, warp=1)[0]
        assert not np.array_equal(image, straight)
        np.testing.assert_allclose(labels, image[part], atol=1e-4)
        only = data.sample(k, warp=1, flip=False, warp_args=dict(bent, warp_amount=0))[0]
        assert not np.array_equal(only, np.rint(only)) and np.array_equal(only[0], np.rint(only[0]))
        assert np.array_equal(data.sample(k, warp=0, warp_args=bent)[0], data.sample(k)[0])
    many = dict(warp=1, flip=False, warp_args=dict(warp_amount=0, misalignment={}))  # its defaults
    assert any(not np.array_equal(data.sample(k, **many)[0], data.sample(k, warp=1, flip=False)[0]) for k in range(20))
    data = BatchCreatorImage(*nodes(n_f=3, dtype="float32"), target_vec_ix=[(0, 1, 2)], **write(tmp_path, [raw], [lab]))
    data.getbatch(warp=1, warp_args=dict(elastic=None, misalignment=None))
    for bad, kind, message in ((dict(elastic=dict(amplitude=3, spacing=10)), ValueError, "Vectors are not turned"),
                               (dict(elastic=dict(amplitude=3)), TypeError, "elastic needs both of amplitude, spacing"),
                               (dict(elastic={}), TypeError, "elastic needs both of amplitude, spacing"),
                               (dict(elastic=dict(sigma=3)), TypeError, "elastic has no argument 'sigma'"),
                               (dict(misalignment=5), TypeError, "misalignment must be a dict"),
                               (dict(elastic=dict(amplitude=9, spacing=9)), ValueError, "folds the image")):
        with pytest.raises(kind, match=message):
            data.getbatch(warp=1, warp_args=bad)


def test_valid_cubes_are_a_list(tmp_path):
    raw, lab = np.zeros((12, 30, 32), np.uint8), np.zeros((8, 20, 22), np.int16)
    files = write(tmp_path, [raw, raw], [lab, lab])
    for wrong in (0, 1, "1"):
        with pytest.raises(ValueError, match=f"valid_cubes must be a list of cube numbers, got {wrong!r}"):
            BatchCreatorImage(*nodes(), valid_cubes=wrong, **files)
    for right in ([0], (0,), np.array([0])):
        assert BatchCreatorImage(*nodes(), valid_cubes=right, **files).valid_d
