"""Augmented 3-D patches per second against scipy, batchgenerators, MONAI and TorchIO doing what comes nearest to it.

    pip install -e .[benchmarks]
    python benchmarks/augmentation.py [--seconds 3] [--rounds 3]

A patch is (1,23,185,185) float32 of a uint8 cube, warped in the plane of the sections, with contrast, brightness and gamma
changed, alone or with a label patch. Ours has shear, stretch and perspective besides rotation, scipy the same coordinates;
MONAI has shear, too, batchgenerators and TorchIO rotate and scale only. All but TorchIO with empty corners, which is there
for information, read what turns into the patch from around it. The peers make the labels of the whole patch, as they know
no smaller ones; scipy and ours (17,97,97). 'Elastic' adds an elastic displacement of like strength.

Every contender runs in as many processes as told, each with one thread. Rates are patches per second of processor time,
summed over the processes, so that other work on the machine counts little; medians of the rounds, which alternate.
"""
import argparse
import itertools
import multiprocessing
import os
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from common import machine
from scipy.ndimage import map_coordinates

from elektronn2.data import transformations as tf
from elektronn2.data.deformation import random_deformation, spline_matrix
from elektronn2.data.non_geometric_augmentation import grey_augment

PATCH, TARGET, OFFSET, CUBE, LABELS = (23, 185, 185), (17, 97, 97), (3, 44, 44), (61, 421, 421), (41, 301, 301)
BOX = (31, 281, 281)  # of the cube, which the peers are given: what a turned patch needs
ELASTIC = dict(amplitude=6, spacing=32)


def volumes():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (1, *CUBE), np.uint8), rng.integers(0, 2, (1, *LABELS)).astype(np.int16)


def crop(cube, rng):
    starts = [rng.integers(n - m + 1) for n, m in zip(cube.shape[1:], BOX)]
    return cube[(slice(None), *(slice(a, a + m) for a, m in zip(starts, BOX)))]


def ours(cube, labels, rng, elastic):
    target = dict(target=labels, target_ps=TARGET, target_off=OFFSET) if labels is not None else {}
    image, _ = tf.get_warped_slice(cube, PATCH, perspective=True, rng=rng, elastic=ELASTIC if elastic else None, **target)
    return grey_augment(image, [0], rng)


def scipy_(cube, labels, rng, elastic):
    """The same matrix, spline and formula, written down in the obvious way."""
    matrix = tf.chain_matrices([tf.translate(*(np.array(PATCH) - 1) / 2), tf.get_random_rotmat(True, 1, rng),
                                tf.get_random_warpmat(True, True, 0.5, rng), tf.translate(*-(np.array(CUBE) - 1) / 2)])
    inverse = np.linalg.inv(matrix)

    def coordinates(origin, shape):
        points = np.indices(shape, np.float64) + np.array(origin)[:, None, None, None]
        if elastic:
            bend = random_deformation((0, 0, 0), np.array(PATCH) - 1, rng, ELASTIC, None, 2)
            moves = bend.coefficients
            for axis, n in enumerate(shape):
                weights = spline_matrix(bend.along(axis, origin[axis] + np.arange(n)), moves.shape[axis + 1])
                moves = np.moveaxis(np.tensordot(weights, moves, (1, axis + 1)), 0, axis + 1)
            points += moves
        points = points.reshape(3, -1)
        points = inverse[:, :3] @ points + inverse[:, 3:]
        return (points[:3] / points[3]).reshape(3, *shape)
    image = map_coordinates(cube[0], coordinates((0, 0, 0), PATCH), np.float32, 1) / np.float32(255)
    if labels is not None:
        shift = (np.subtract(CUBE, LABELS) / 2)[:, None, None, None]
        map_coordinates(labels[0], coordinates(OFFSET, TARGET) - shift, order=0)
    return grey_augment(image[None], [0], rng)


def batchgenerators_(cube, labels, rng, elastic):
    from batchgenerators.augmentations import color_augmentations as color
    from batchgenerators.augmentations.spatial_transformations import augment_spatial
    box = crop(cube, rng)
    data = box[None].astype(np.float32) / 255
    seg = None if labels is None else (box[None] > 127).astype(np.int16)
    image, _ = augment_spatial(data, seg, PATCH, None, do_elastic_deform=elastic, alpha=(500, 500), sigma=(11, 11),
                               angle_x=(0, 2 * np.pi), angle_y=(0, 0), angle_z=(0, 0), scale=(0.9, 1.1), order_data=1,
                               random_crop=False)
    image = color.augment_contrast(image[0], (0.85, 1.15))
    image = color.augment_brightness_multiplicative(image, (0.9, 1.1))
    return color.augment_gamma(image, (0.5, 2))


def monai_(cube, labels, rng, elastic):
    from monai import transforms as mt
    keys = ["image"] if labels is None else ["image", "label"]
    box = crop(cube, rng)
    sample = {"image": torch.from_numpy(box.astype(np.float32) / 255)}
    if labels is not None:
        sample["label"] = torch.from_numpy((box > 127).astype(np.float32))
    common = dict(prob=1, rotate_range=(np.pi, 0, 0), shear_range=(0.1,) * 6, scale_range=(0.1,) * 3, spatial_size=PATCH,
                  padding_mode="border", mode=["bilinear", "nearest"][:len(keys)])
    warp = (mt.Rand3DElasticd(keys, sigma_range=(8, 8), magnitude_range=(500, 500), **common) if elastic else
            mt.RandAffined(keys, **common))
    grey = [mt.RandScaleIntensityd("image", 0.15, 1), mt.RandShiftIntensityd("image", 0.15, prob=1),
            mt.RandAdjustContrastd("image", 1, (0.5, 2))]
    return np.asarray(mt.Compose([warp, *grey])(sample)["image"])


def torchio_(cube, labels, rng, elastic, empty_corners=False):
    import torchio as tio
    box = crop(cube, rng)
    sample = {"image": tio.ScalarImage(tensor=torch.from_numpy(box.astype(np.float32) / 255))}
    if labels is not None:
        sample["label"] = tio.LabelMap(tensor=torch.from_numpy((box > 127).astype(np.int16)))
    subject, last = tio.Subject(**sample), tio.CropOrPad(PATCH)  # warps keep the size
    if empty_corners:
        subject, last = last(subject), tio.Compose([])
    subject = tio.RandomAffine(scales=0.1, degrees=(0, 360, 0, 0, 0, 0), default_pad_value="mean")(subject)
    if elastic:
        subject = tio.RandomElasticDeformation(num_control_points=(5, 9, 9), max_displacement=(2, 6, 6))(subject)
    image = tio.RandomGamma(log_gamma=(-0.7, 0.7))(last(subject))["image"].data
    return (image * (0.85 + 0.3 * rng.random()) + 0.3 * (rng.random() - 0.5)).clamp(0, 1).numpy()


INCOMPLETE = "TorchIO, empty corners"
CONTENDERS = {"ours": ours, "scipy": scipy_, "batchgenerators": batchgenerators_, "MONAI": monai_, "TorchIO": torchio_,
              INCOMPLETE: partial(torchio_, empty_corners=True)}
CONTENDERS = {name: make for name, make in CONTENDERS.items() if name == "ours" or find_spec(name.split(",")[0].lower())}


def work(name, with_labels, elastic, seed, seconds):
    """Patches per second of processor time in this process; its first patch, for which code is compiled, does not count."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cube, labels = volumes()
    rng, make, n, start = np.random.default_rng(seed), CONTENDERS[name], -1, 0.0
    while n < 1 or time.process_time() - start < seconds:
        try:
            patch = make(cube, labels if with_labels else None, rng, elastic)
        except tf.WarpingOOBError:
            continue  # drawn again, on our time
        if n < 0:
            assert np.asarray(patch).reshape(-1, *PATCH).dtype == np.float32
            start = time.process_time()
        n += 1
    return n / (time.process_time() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1",
                      ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS="1")
    print(f"{machine()}; patches per second of processor time")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    spawn = multiprocessing.get_context("spawn")
    processes = {name: [ProcessPoolExecutor(1, spawn) for _ in range(cores)] for name in CONTENDERS}
    for elastic, with_labels, n in itertools.product((False, True), (False, True), sorted({1, cores})):
        rates = {name: [] for name in CONTENDERS}
        for k in range(args.rounds + 1):
            for name, pools in processes.items():
                jobs = [pool.submit(work, name, with_labels, elastic, 100 * k + i, args.seconds if k else 0)
                        for i, pool in enumerate(pools[:n])]
                total = sum(job.result() for job in jobs)
                rates[name] += [total] if k else []  # at first all code is compiled
        medians = {name: statistics.median(r) for name, r in rates.items()}
        fastest = max((name for name in medians if name not in ("ours", INCOMPLETE)), key=medians.get)
        print(f"  {'elastic ' * elastic}warp and grey values{' with labels' * with_labels}, {n} process{'es' * (n > 1)}: "
              + ", ".join(f"{name} {r:.2f}" for name, r in medians.items())
              + f": {medians['ours'] / medians[fastest]:.1f} times {fastest}", flush=True)


if __name__ == "__main__":
    main()
