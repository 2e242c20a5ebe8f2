"""Augmentation of grey values: formulas, strengths, places, and that nothing else changes."""
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from elektronn2.data import non_geometric_augmentation as nga
from elektronn2.data.non_geometric_augmentation import InvalidNonGeomAugmentParameters


@pytest.fixture(scope="module")
def oracle():
    with np.load(Path(__file__).parents[1] / "oracle" / "data" / "data_grey_border.npz") as f:
        return dict(f)


@pytest.fixture
def image(rng):
    return rng.random((2, 12, 40, 44), np.float32)


def test_grey_augmentation_is_that_of_the_first_elektronn2(oracle):
    """From the same draws. With several channels in 3-D it failed there, or mixed up channels and z."""
    for name, image, channels in (("grey", "d", [0]), ("grey2ch_2d", "d2", [0, 1]), ("grey_ch1_2d", "d2", [1])):
        ours = nga.grey_augment(oracle[image], channels, np.random.RandomState(11))
        np.testing.assert_allclose(ours, oracle[name], atol=1e-6, err_msg=name)


def test_grey_augmentation_follows_its_formula(image):
    before = image.copy()
    new = nga.grey_augment(image, [1], np.random.default_rng(7))
    a, c, g = np.random.default_rng(7).random(3)
    expected = np.clip(image[1].astype(float) * (1 + 0.3 * (a - 0.5)) + 0.3 * (c - 0.5), 0, 1) ** 2 ** (2 * g - 1)
    np.testing.assert_allclose(new[1], expected, rtol=1e-5)
    assert np.array_equal(new[0], image[0]) and np.array_equal(image, before)
    assert np.array_equal(nga.grey_augment(image, [], np.random.default_rng(7)), image)


def test_noise_and_blur(oracle, image, rng):
    np.testing.assert_allclose(nga.blur_augment(oracle["d"]), oracle["blur"], atol=1e-6)
    wanted = [gaussian_filter(channel, 2) for channel in image]
    assert np.array_equal(nga.blur_augment(image, 2), wanted)
    middle = image * 0.5 + 0.25
    change = nga.noise_augment(middle, 0.4, rng=rng) - middle
    assert abs(change).max() <= 0.2 and abs(change.std() - 0.4 / 12 ** 0.5) < 0.01 and abs(change.mean()) < 0.01
    noisy = nga.noise_augment(image, 1, rng=rng)
    assert noisy.min() == 0 and noisy.max() == 1 and noisy.dtype == np.float32


BLOBS = {
    "blurry_blobs": (dict(diffuseness=3), lambda new, old: new.std() < 0.5 * old.std()),
    "noisy_random_erasing": (dict(noise_range=(0.25, 0.5)), lambda new, old: new.min() >= 0.25 and new.max() <= 0.5),
    "uniform_random_erasing": (dict(value=0.125), lambda new, old: np.all(new == 0.125)),
}


@pytest.mark.parametrize("name", BLOBS)
def test_blobs_are_boxes_with_the_promised_content(name, image):
    function, (arguments, holds) = getattr(nga, name), BLOBS[name]
    before = image.copy()
    for seed in range(5):
        new = function(image, **arguments, num_blob_range=(1, 2), blob_size_range=(8, 11), rng=np.random.default_rng(seed))
        assert np.array_equal(image, before) and new.dtype == np.float32
        for channel, old in zip(new, image):
            where = np.argwhere(channel != old)
            low, high = where.min(0), where.max(0) + 1
            box = tuple(slice(a, b) for a, b in zip(low, high))
            assert set(high - low) <= {8, 10} and len(set(high - low)) == 1
            assert holds(channel[box], old[box])
    assert not np.array_equal(function(image, rng=np.random.default_rng(1)), function(image, rng=np.random.default_rng(2)))
    assert np.array_equal(function(image, rng=np.random.default_rng(1)), function(image, rng=np.random.default_rng(1)))
    given = image.copy()
    assert function(given, data_overwrite=True, rng=np.random.default_rng(1)) is given
    assert np.array_equal(given, function(image, rng=np.random.default_rng(1)))


def test_as_many_blobs_as_asked_for_and_sizes_cut_to_the_image():
    image = np.ones((1, 3, 300, 300), np.float32)
    counts = set()
    for seed in range(40):
        new = nga.uniform_random_erasing(image, 0, (2, 4), (6, 7), rng=np.random.default_rng(seed))
        lost = np.count_nonzero(new[0] == 0)
        counts.add(label(new[0] == 0)[1] if lost % (3 * 36) == 0 else None)
    assert counts - {None} == {2, 3}
    whole = nga.uniform_random_erasing(image[:, :, :20, :20], 0, (1, 2), (32, 33), rng=np.random.default_rng(0))
    assert np.all(whole == 0)  # larger than the image on every axis
    flat = nga.blurry_blobs(np.random.default_rng(0).random((2, 30, 30)), rng=np.random.default_rng(0))  # (f, x, y)
    assert flat.shape == (2, 30, 30)
    some = nga.noisy_random_erasing(image, rng=np.random.default_rng(0))
    assert some.min() >= 0 and some.max() <= 1


def test_senseless_strengths_are_named(image):
    cases = [(nga.noise_augment, dict(level=1.5), "level must be a number of 0 to 1, got 1.5"),
             (nga.noise_augment, dict(level="x"), "level must be"), (nga.blur_augment, dict(level=-1), "level must be"),
             (nga.blur_augment, dict(level=np.nan), "level must be a number of 0 to 1000, got nan"),
             (nga.blurry_blobs, dict(num_blob_range=(5, 5)), "num_blob_range must be"),
             (nga.uniform_random_erasing, dict(blob_size_range=(0, 5)), "blob_size_range must be"),
             (nga.noisy_random_erasing, dict(noise_range=(1, 0)), "noise_range must be")]
    for function, arguments, message in cases:
        with pytest.raises(InvalidNonGeomAugmentParameters, match=message):
            function(image, **arguments)
        with pytest.raises(InvalidNonGeomAugmentParameters, match="must be floating point"):
            function(image.astype(np.uint8))
