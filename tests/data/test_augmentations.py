"""Augmentations of grey values by name: promises of all of them, and each against its formula, done slowly."""
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from elektronn2.data import edits, grey_noise, section_defects
from elektronn2.data.augmentations import AUGMENTATIONS, argument_names, as_augmentations, augment, check_augmentations
from elektronn2.data.edits import Recipe

ARGUMENTS = {"grey_augment": dict(channels=[0, 1])}
SECTIONS = [name for name in AUGMENTATIONS if "section_probability" in argument_names(AUGMENTATIONS[name])]


@pytest.fixture
def image(rng):
    return rng.random((2, 10, 40, 44), np.float32)


def call(name, image, seed=0, **more):
    arguments = {**ARGUMENTS.get(name, {}), **more}
    if name in SECTIONS:
        arguments.setdefault("section_probability", 0.5)
    return augment(image, [(name, arguments)], np.random.default_rng(seed))


# -- all of them -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_is_a_pure_function_of_image_and_generator(name, flat, image):
    image = image[:, 0] if flat else image
    before, different = image.copy(), []
    for seed in range(4):
        new = call(name, image, seed)
        assert np.array_equal(image, before) and new.shape == image.shape and new.dtype == np.float32
        assert np.array_equal(new, call(name, image, seed)) and np.isfinite(new).all()
        different.append(not np.array_equal(new, image))
    assert any(different)
    if name != "blur_augment":  # which draws nothing
        assert len({call(name, image, seed).tobytes() for seed in range(6)}) > 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_recipe_done_later_gives_the_same(name, image):
    recipe, new = Recipe(image.shape), image.copy()
    assert call(name, recipe, 3) is recipe
    for edit, region, arguments in recipe.edits:
        getattr(edits, edit)(new, region, *arguments)
    assert recipe.edits and np.array_equal(new, call(name, image, 3))


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_are_hit_as_often_as_asked_for_in_all_channels(name, image):
    assert np.array_equal(call(name, image, section_probability=0), image)
    hit = []
    for seed in range(60):
        changed = np.any(call(name, image, seed, section_probability=0.3) != image, axis=(2, 3))
        assert np.array_equal(changed[0], changed[1])
        hit.append(changed[0])
    assert abs(np.mean(hit) - 0.3) < 0.06 and np.ptp(np.mean(hit, 0)) < 0.4
    assert np.any(call(name, image, section_probability=1) != image, axis=(0, 2, 3)).all()


def test_the_order_and_the_probability_count(image):
    fill = ("uniform_random_erasing", dict(value=0.5, num_blob_range=(1, 2), blob_size_range=(60, 61)))
    noise = ("gaussian_noise", dict(sigma=(0.1, 0.1)))
    assert np.all(augment(image, [noise, fill], np.random.default_rng(0)) == 0.5)
    assert not np.any(np.all(augment(image, [fill, noise], np.random.default_rng(0)) == 0.5))
    assert np.all(augment(image, dict([noise, fill]), np.random.default_rng(0)) == 0.5)
    rare = [("cutout", dict(probability=0.25))]
    count = sum(not np.array_equal(augment(image[:, :1], rare, np.random.default_rng(k)), image[:, :1]) for k in range(400))
    assert abs(count / 400 - 0.25) < 0.07


def test_mistakes_are_named():
    with pytest.raises(TypeError, match=r"grey_augment needs channels, as in \('grey_augment', dict\(channels=...\)\)"):
        as_augmentations({"grey_augment": {}})
    with pytest.raises(ValueError, match=r"augmentations: grey_augment: channels must be a list such as \[0\], got 0"):
        check_augmentations({"grey_augment": {"channels": 0}}, (1, 4, 8, 8))
    assert as_augmentations([("cutout", None)]) == [("cutout", 1, {})]
    for given, kind, message in [
        ("cutout", TypeError, "must be a dict, or a list of pairs"), (5, TypeError, "must be a dict, or a list of pairs"),
        ([("cut_out", {})], TypeError, "there is no 'cut_out'. Did you mean 'cutout'"),
        ({"cutout": dict(sizes=1)}, TypeError, "cutout has no argument 'sizes'. Did you mean 'size'"),
        ({"cutout": dict(probability=2)}, ValueError, "probability of cutout must be a number in 0..1, got 2"),
        ({"cutout": dict(size=(0.5, 0.1))}, ValueError, r"cutout: size must be \(low, high\), two numbers of 0 to 1"),
        ({"cutout": dict(value="white")}, ValueError, "cutout: value must be a number, got 'white'"),
        ({"grey_augment": dict(channels=[2])}, ValueError, "channels names .2., but the image has 1"),
        ({"gaussian_noise": dict(sigma=0.1)}, ValueError, "sigma must be"),
        ({"poisson_noise": dict(counts=(0, 1))}, ValueError, "counts must be"),
        ({"missing_sections": dict(section_probability=-1)}, ValueError, "section_probability must be a number of 0 to 1"),
        ({"stripes": dict(number=(3, 3))}, ValueError, "number must be two integers"),
        ({"cutblur": dict(factor=(0.5, 2))}, ValueError, "factor must be"),
        ({"motion_blur": dict(length=(5, 200))}, ValueError, "length must be"),
    ]:
        with pytest.raises(kind, match=message):
            check_augmentations(given, (1, 2, 8, 8))


# -- one by one ------------------------------------------------------------------------------------------
def test_noise_has_the_promised_moments(rng):
    grey = np.repeat(np.linspace(0.05, 0.75, 8, dtype=np.float32), 40_000).reshape(1, 8, 200, 200)
    noisy = grey_noise.gaussian_noise(grey * 0.5 + 0.25, (0.05, 0.05), rng)
    np.testing.assert_allclose((noisy - grey * 0.5 - 0.25).std((2, 3)), 0.05, rtol=0.03)
    counted = grey_noise.poisson_noise(grey, (40, 40), rng)
    true = rng.poisson(40 * grey.astype(float)) / 40
    np.testing.assert_allclose(counted.mean((2, 3)), grey[..., 0, 0], atol=0.003)
    np.testing.assert_allclose(counted.std((2, 3)), true.std((2, 3)), rtol=0.04)
    strengths = [grey_noise.gaussian_noise(grey[:, 3:5, :50, :50], rng=rng).std() for _ in range(20)]
    assert min(strengths) < 0.04 + 0.05 < max(strengths) + 0.03 and np.ptp(strengths) > 0.02


@pytest.mark.parametrize("name, grey, wanted", [("brightness_gradient", 0.5, 0.3), ("contrast_gradient", 0.8, 0.3 * 0.3)])
def test_gradients_are_planes(name, grey, wanted):
    angles = []
    for seed in range(20):
        new = AUGMENTATIONS[name](np.full((1, 3, 31, 51), grey, np.float32), (0.3, 0.3), np.random.default_rng(seed))
        points = np.indices(new.shape[2:]).reshape(2, -1)
        basis = np.stack([*points, np.ones(points.shape[1])], 1)
        plane, *_ = np.linalg.lstsq(basis, new[0, 0].ravel(), rcond=None)
        np.testing.assert_allclose(basis @ plane, new[0, 0].ravel(), atol=1e-5)
        assert np.array_equal(new[0, 0], new[0, 2]) and abs(np.ptp(new) - wanted) < 1e-5
        angles.append(np.arctan2(plane[1], plane[0]))
    assert min(angles) < -1 and max(angles) > 1


def test_missing_sections(image):
    new = call("missing_sections", image, section_probability=0.5, value=(0.25, 0.75))
    lost = np.ptp(new, axis=(2, 3)) == 0
    assert 0 < lost[0].sum() < 10 and np.array_equal(new[~lost], image[~lost])
    assert len(set(new[0, lost[0], 0, 0])) == lost[0].sum() and np.all((new[lost] >= 0.25) & (new[lost] <= 0.75))
    parts = []
    for seed in range(30):
        new = call("missing_sections", image[:1, :1], seed, section_probability=1, partly=1)[0, 0]
        lost = new != image[0, 0]
        assert np.all(new[lost] == 0)
        parts.append(lost.mean())
        if 0 < lost.mean() < 1:  # a straight line parts them
            here, there = np.argwhere(lost), np.argwhere(~lost)
            normals = [np.array((np.cos(a), np.sin(a))) for a in np.linspace(0, 2 * np.pi, 1000)]
            assert any((here @ n).min() > (there @ n).max() - 0.3 for n in normals)
    assert min(parts) < 0.2 and max(parts) > 0.8


def test_stripes_are_straight_and_as_strong_as_told():
    grey = np.full((1, 30, 60, 60), 0.5, np.float32)
    new = call("stripes", grey, section_probability=1, number=(1, 2), width=(3, 3), strength=(0.125, 0.25)) - grey
    for section in new[0]:
        where = np.argwhere(section)
        if len(where) < 60:  # in a corner
            continue
        assert np.ptp(section[section != 0]) == 0 and 0.125 <= abs(section).max() <= 0.25
        angles = np.linspace(0, np.pi, 1000)
        assert np.ptp(where @ (np.cos(angles), np.sin(angles)), axis=0).min() <= 3.1
    assert new.min() < 0 < new.max()


def test_motion_blur_is_the_mean_along_a_line(image):
    """Against the mean of shifted copies; the direction is read from the response to a point."""
    point = np.zeros((1, 1, 31, 31), np.float32)
    point[0, 0, 15, 15] = 1
    for seed in range(8):
        spread = call("motion_blur", point, seed, section_probability=1, length=(7, 7))[0, 0]
        where = np.indices((31, 31)).reshape(2, -1).T - 15
        spans, axes = np.linalg.eigh(np.cov(where.T, aweights=spread.ravel()))
        direction = axes[:, 1]
        assert abs(spread.sum() - 1) < 1e-5 and spans[0] < 0.3 and 2 < spans[1] < 5
        new = call("motion_blur", image[:, :1], seed, section_probability=1, length=(7, 7))[1, 0]
        grid = np.indices(new.shape, float)
        wanted = np.mean([map_coordinates(image[1, 0], grid + direction[:, None, None] * t, order=1, mode="grid-mirror")
                          for t in np.linspace(-3, 3, 101)], 0)
        assert np.abs(new - wanted).max() < 0.05 and abs(new - wanted).mean() < 0.01


def test_defocus_blur_makes_disks():
    point = np.zeros((1, 1, 31, 31), np.float32)
    point[0, 0, 15, 15] = 1
    spread = call("defocus_blur", point, section_probability=1, radius=(4, 4))[0, 0]
    distance = np.hypot(*(np.indices((31, 31)) - 15))
    assert np.ptp(spread[distance < 3.4]) == 0 and np.all(spread[distance > 4.5] == 0)
    assert abs(1 / spread[15, 15] / (np.pi * 16) - 1) < 0.05 and abs(spread.sum() - 1) < 1e-5


def test_low_resolution_is_block_means_and_lines_between():
    row = np.random.default_rng(0).random(13)
    for factor, blocks in ((1, 13), (13, 1), (2.6, 5), (3, 4)):
        fine = np.repeat(row, 1000).reshape(blocks, -1).mean(1)  # exact, as 13000 is a multiple of all
        centres = (np.arange(blocks) + 0.5) * 13 / blocks
        wanted = np.interp(np.arange(13) + 0.5, centres, fine)
        np.testing.assert_allclose(edits.coarsening(13, factor) @ row, wanted, atol=1e-6)
    image = np.random.default_rng(1).random((1, 3, 12, 15), np.float32)
    new = call("low_resolution_sections", image, section_probability=1, factor=(3, 3))
    wanted = np.einsum("ij,fzjy,ky->fzik", edits.coarsening(12, 3), image, edits.coarsening(15, 3))
    np.testing.assert_allclose(new, wanted, atol=1e-6)


def test_low_contrast_follows_its_formula(image):
    new = section_defects.low_contrast_sections(image, 1, (0.25, 0.25), (0.1, 0.1))
    np.testing.assert_allclose(new, (image - 0.5) * 0.25 + 0.6, atol=1e-6)
    new = section_defects.low_contrast_sections(image, 1, (1, 1), (0.4, 0.4))
    np.testing.assert_allclose(new, np.clip(image + 0.4, 0, 1), atol=1e-6)


@pytest.mark.parametrize("name", ["cutout", "cutblur"])
def test_one_box_in_all_channels(name, image):
    for seed in range(10):
        changed = call(name, image, seed, size=(0.2, 0.5)) != image
        where = np.argwhere(changed.any(0))
        low, high = where.min(0), where.max(0) + 1
        assert changed[(slice(None), *map(slice, low, high))].mean() > 0.99
        assert np.all((high - low >= np.floor(np.array(image.shape[1:]) * 0.2)) & (high - low <= np.ceil(22)))


def test_mirrored_blobs_are_mirrored(image):
    seen = set()
    for seed in range(12):
        new = call("mirrored_blobs", image[:1], seed, num_blob_range=(1, 2), blob_size_range=(8, 9))
        where = np.argwhere(new != image[:1])
        box = tuple(slice(a, b) for a, b in zip(where.min(0), where.max(0) + 1))
        axes = [k for k in (1, 2, 3) if np.array_equal(new[box], np.flip(image[:1][box], k))]
        assert len(axes) == 1
        seen.update(axes)
    assert seen == {1, 2, 3}
