"""Images warped and augmented by torch are those of the compiled code; the same tests run on a GPU where there is one."""
import pickle

import h5py
import numpy as np
import pytest
import torch
from configs import write_config

from elektronn2 import neuromancer as nm
from elektronn2.data import edits
from elektronn2.data.augmentations import AUGMENTATIONS, augment
from elektronn2.data.cnndata import BatchCreatorImage
from elektronn2.data.edits import Recipe
from elektronn2.training.gpu_augmentation import EDITS, DeviceAugmentation, render
from elektronn2.training.trainer import Trainer
from elektronn2.training.trainutils import ExperimentConfig

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
EVERYTHING = [(name, dict(probability=0.3, **({"channels": [0, 1]} if name == "grey_augment" else {})))
              for name in AUGMENTATIONS]


def data_set(folder, dtype="uint8", patch=(5, 13, 15), targets="ids", shape=(2, 16, 40, 44), **more):
    rng = np.random.default_rng(0)
    for i in range(2):
        raw = rng.random(shape)
        with h5py.File(folder / f"{dtype}{i}.h5", "w") as f:
            f["raw"] = raw.astype(dtype) if dtype.startswith("f") else (raw * np.iinfo(dtype).max).astype(dtype)
            f["lab"] = rng.integers(0, 4, (12, 36, 40)) if targets == "ids" else np.array([i])
    flat = len(patch) == 2
    x = nm.Input((2, 2, *patch), "b,f,x,y" if flat else "b,f,z,x,y", name="raw")
    out = nm.Conv(x, 2, (4, 4) if flat else (1, 4, 4), (2, 2) if flat else (1, 2, 2), activation_func="lin")
    target = nm.Input_like(out, override_f=1, dtype="int32") if targets == "ids" else nm.Input((2, 1), "b,f", dtype="int32")
    names = [f"{dtype}{i}.h5" for i in range(2)]
    return BatchCreatorImage(x, target, folder, folder, [(n, "raw") for n in names], [(n, "lab") for n in names], seed=0,
                             **more)


def check(data, device, atol=2e-5, **options):
    on_device = DeviceAugmentation(data, device)
    for number in range(3):
        images, *others = on_device.batch(number, 3, **options)
        wanted, *other = data.batch(number, 3, **options)
        assert images.device.type == device and images.dtype == torch.float32
        np.testing.assert_allclose(images.cpu(), wanted, atol=atol)
        assert all(np.array_equal(a, b) for a, b in zip(others, other, strict=True))
    return images.cpu().numpy()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_images_of_every_kind(dtype, device, tmp_path):
    check(data_set(tmp_path, dtype), device, warp=0.7, warp_args=dict(perspective=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("arguments", [
    dict(lock_z=False, warp_amount=0.3, perspective=True), dict(sample_aniso=False), dict(warp_amount=0),
    dict(elastic=dict(amplitude=3, spacing=9), lock_z=False, warp_amount=0.2, perspective=True),
    dict(misalignment=dict(section_probability=0.4)), dict(antialias=True, aniso_factor=0.5, sample_aniso=False),
    dict(antialias=True, warp_amount=2, elastic=dict(amplitude=3, spacing=9), misalignment=dict(displacement=4)),
], ids=str)
def test_warps_of_every_kind(arguments, device, tmp_path):
    data = data_set(tmp_path)
    warped = check(data, device, warp=0.8, warp_args=arguments)
    assert not np.allclose(warped, data.batch(2, 3)[0], atol=0.01) or not arguments.get("warp_amount", 1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_augmentation(name, device, rng):
    arguments = {"channels": [0, 1]} if name == "grey_augment" else {}
    images = [rng.random(shape, np.float32) for shape in ((2, 6, 40, 44), (2, 40, 44))]
    for image in images:
        changed = 0
        for seed in range(4):
            recipe = augment(Recipe(image.shape, image), [(name, arguments)], np.random.default_rng(seed))
            wanted = augment(image, [(name, arguments)], np.random.default_rng(seed))
            ours = render([recipe], device)[0].cpu().numpy()
            np.testing.assert_allclose(ours, wanted, atol=2e-5)
            changed += not np.array_equal(wanted, image)
        assert changed or (image.ndim == 3 and name.endswith(("sections", "blur", "stripes")))


def test_every_edit_is_known():
    assert set(EDITS) == {name for name, f in vars(edits).items() if hasattr(f, "__wrapped__") and name != "coarsening"}


@pytest.mark.parametrize("device", DEVICES)
def test_everything_at_once_in_3d_2d_and_for_whole_images(device, tmp_path):
    options = dict(grey_augment_channels=[0], nga_blur_noise_probability=0.5, blurry_blobs_probability=0.5,
                   noisy_random_erasing_probability=0.5, uniform_random_erasing_probability=0.5, augmentations=EVERYTHING)
    warps = dict(warp=0.5, warp_args=dict(elastic=dict(amplitude=2, spacing=9)))
    check(data_set(tmp_path), device, 1e-3, **options, **warps, ret_ll_mask=True, ignore_thresh=0.5)
    check(data_set(tmp_path, patch=(13, 15)), device, 1e-3, **options, **warps)
    check(data_set(tmp_path, patch=(12, 39, 43), targets="scalar"), device, 1e-3, **options)
    small = data_set(tmp_path, patch=(11, 37, 39))  # warps fit rarely: cut without them in the end
    check(small, device, warp=1, warp_args=dict(perspective=True, lock_z=False))
    valid = DeviceAugmentation(data_set(tmp_path, valid_cubes=[1]), device)
    assert np.array_equal(valid.batch(3, 2, "valid", **options)[0].cpu(), valid.data.batch(3, 2, "valid")[0])
    assert valid.n_f == 2 and isinstance(valid.getbatch()[0], np.ndarray)
    check(data_set(tmp_path, h5stream=True), device, 1e-3, **options, **warps)


def test_a_recipe_holds_no_more_than_it_needs(tmp_path):
    data = data_set(tmp_path, shape=(2, 60, 120, 120))
    recipes, labels = data.deferred_batch(0, 2, warp=1)
    assert len(recipes) == len(labels) == 2
    assert len(pickle.dumps(recipes)) < 0.1 * data.train_d[0].nbytes
    assert all(not np.shares_memory(r.source.source, cube) for r in recipes for cube in data.train_d)


def test_other_data_and_devices_are_refused():
    with pytest.raises(TypeError, match="is for data of class BatchCreatorImage, not dict"):
        DeviceAugmentation({}, "cpu")
    with pytest.raises(ValueError, match="augmentation_device = 'gpu' is not a device"):
        DeviceAugmentation(BatchCreatorImage.__new__(BatchCreatorImage), "gpu")


def test_training_takes_images_from_the_device(tmp_path):
    """By one line in a config; the losses are the same, to the rounding of images."""
    losses = []
    for device in (None, "cpu"):
        extra = f"\nsave_name = 'on_{device}'\naugmentation_device = {device!r}\n"
        path = write_config(tmp_path, f"on_{device}.py", extra, change={"n_steps = 12": "n_steps = 4"})
        trainer = Trainer(ExperimentConfig(path))
        assert trainer.debug_getcnnbatch() is not None and trainer.run()
        assert isinstance(trainer.loop.batch[0], torch.Tensor if device else np.ndarray)
        losses.append(trainer.model.loss_smooth)
    assert abs(losses[0] - losses[1]) < 1e-4
    path = write_config(tmp_path, "bad.py", extra + "background_kind = 'processes'\nsave_name = 'bad'\n")
    with pytest.raises(ValueError, match="background_kind='processes' and augmentation_device exclude each other"):
        Trainer(ExperimentConfig(path)).run()
