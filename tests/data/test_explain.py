"""What is told of a sample is enough to make it again."""
import numpy as np
import pytest
from matplotlib.image import imread
from test_cnndata import coded, nodes, scalar_nodes, write

from elektronn2.data import non_geometric_augmentation as nga
from elektronn2.data.cnndata import BatchCreatorImage
from elektronn2.data.transformations import warp_slice

ELASTIC = dict(elastic=dict(amplitude=2, spacing=8), misalignment=dict(section_probability=0.5))


@pytest.fixture
def data(tmp_path):
    raw, lab = coded((20, 50, 52), (16, 40, 42))
    files = write(tmp_path, [raw, raw + 0.25], [lab, lab])
    return BatchCreatorImage(*nodes(n_f=3, dtype="float32"), seed=3, valid_cubes=[1], target_discrete_ix=[], **files)


@pytest.mark.parametrize("options", [dict(), dict(flip=False), dict(warp=1, warp_args=dict(lock_z=False, warp_amount=0.3)),
                                     dict(warp=1, warp_args=dict(perspective=True, warp_amount=0.4)),
                                     dict(warp=1, warp_args=dict(warp_amount=0.1, **ELASTIC))], ids=str)
def test_matrix_and_position_give_the_sample(data, options):
    for k in range(5):
        told = data.explain(k, **options)
        image, labels = data.sample(k, **options)
        assert np.array_equal(told.arrays[0], image) and np.array_equal(told.arrays[1], labels)
        again = warp_slice(data.train_d[0], (5, 13, 13), told.facts.matrix, deformation=told.facts.bend)[0]
        assert np.array_equal(again, image)
        if ELASTIC["elastic"] in options.get("warp_args", {}).values():
            assert "moved by up to z 0.0, x" in str(told)
            continue
        np.testing.assert_allclose(image[:, 2, 6, 6], told.centre, atol=1e-3)  # the image tells the position
        low, high = image.reshape(3, -1).min(1), image.reshape(3, -1).max(1)
        assert np.array_equal(told.box, np.stack((np.floor(low + 1e-4), np.ceil(high - 1e-4)), 1))
        assert told.facts.warped == bool(options.get("warp")) and told.facts.n_draws >= 1
        assert set(told.facts.seconds) == {"reading and warping", "grey values", "targets"}


def test_it_is_told_in_words(data):
    text = str(data.explain(4, flip=False, grey_augment_channels=[0], augmentations=dict(gaussian_noise={})))
    assert text.startswith("Sample 4 (train, seed 3) of Cube 0 (raw_0.h5:raw, lab_0.h5:lab)\ncentre: voxel z ")
    assert "warped: no" in text and "grey values: grey_augment, gaussian_noise" in text and " ms" in text
    valid = data.explain(0, "valid", grey_augment_channels=[0], warp=1)
    assert "(valid, seed 3) of Cube 1" in str(valid) and "warped: no" in str(valid) and "grey values: none" in str(valid)


def test_augmentations_are_told_as_they_were_applied(data, monkeypatch):
    called = []

    def watch(name, function):
        monkeypatch.setattr(nga, name, lambda *args, **kwargs: called.append(name) or function(*args, **kwargs))
    for name in ("grey_augment", "blur_augment", "noise_augment", "blurry_blobs", "noisy_random_erasing"):
        watch(name, getattr(nga, name))
    told = set()
    for k in range(12):
        called.clear()
        facts = data.explain(k, grey_augment_channels=[1], nga_blur_noise_probability=0.5, blurry_blobs_probability=0.5,
                             noisy_random_erasing_probability=0.5).facts
        assert facts.augmentations == called
        told.add(tuple(called))
    assert len(told) > 3


def test_of_several_draws_the_one_that_was_taken_is_told(tmp_path):
    raw, lab = coded((14, 40, 44), (14, 40, 44))
    lab = lab.copy()
    lab[:, :, :, :30] = -1
    data = BatchCreatorImage(*nodes(n_f=3, dtype="float32"), seed=0, **write(tmp_path, [raw], [lab]))
    drawn = []
    for thresh in (0.2, 0):  # one that is reached and, for most, one that is not
        for k in range(6):
            told = data.explain(k, ignore_thresh=thresh, warp=0.5)
            assert np.array_equal(warp_slice(data.train_d[0], (5, 13, 13), told.facts.matrix)[0], told.arrays[0])
            drawn.append(told.facts.n_draws)
    assert max(drawn) > 1


def test_it_is_drawn(data, tmp_path):
    path = tmp_path / "sample.png"
    figure = data.explain(0, path=path).draw()
    assert imread(path).ndim == 3 and len(figure.axes) == 6
    assert [ax.get_title() for ax in figure.axes[2:4]] == ["image 2, z = 2", "target 0"]
    shown = figure.axes[3].images[0]
    assert shown.get_extent() == [1, 11, 11, 1]  # voxels 2 to 10 of the patch, in pixels that are 2 wide
    assert np.array_equal(shown.get_array(), data.sample(0)[1][0, 2].T)


def test_images_with_one_label(tmp_path, rng):
    images = [rng.integers(0, 256, (4, 6, 6), dtype=np.uint8) for _ in range(2)]
    data = BatchCreatorImage(*scalar_nodes((4, 6, 6)), seed=0, **write(tmp_path, images, [np.float32(i) for i in range(2)]))
    told = data.explain(0)
    assert told.centre is None and str(told).startswith("Sample 0 (train, seed 0) of Cube") and "matrix" not in str(told)
    assert len(told.draw().axes) == 1
