"""The picture of all augmentations in augmentation.md: one patch, changed by each of them.

    python docs/augmentation_sheet.py raw_0.h5:raw docs/images/augmentations.png
"""
import argparse

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from elektronn2.data.augmentations import AUGMENTATIONS, argument_names, augment
from elektronn2.data.deformation import random_deformation
from elektronn2.data.transformations import get_warped_slice, translate, warp_slice
from elektronn2.data.volumes import open_volume

PATCH = (7, 140, 140)
WARPS = {
    "rotation, shear, stretch": dict(),
    "perspective": dict(perspective=True, warp_amount=1.5),
    "reflections, exchange of axes": dict(warp_amount=0, flip=True),
}
DEFORMATIONS = {
    "elastic": dict(elastic=dict(amplitude=12, spacing=40)),
    "misalignment": dict(misalignment=dict(displacement=12, section_probability=0.5)),
}
STRONGER = {"noise_augment": dict(level=0.4), "gaussian_noise": dict(sigma=(0.1, 0.1)),
            "poisson_noise": dict(counts=(20, 20)), "blurry_blobs": dict(diffuseness=3),
            "cutblur": dict(factor=(6, 6), size=(0.4, 0.5)),
            "cutout": dict(size=(0.3, 0.4)), "grey_augment": dict(channels=[0]),
            "brightness_gradient": dict(strength=(0.6, 0.6)), "contrast_gradient": dict(strength=(1.6, 1.6))}


def panels(cube):
    """(title, section (x, y), section (z, y)) of the patch as it is, and of each augmentation."""
    middle = [(n - m) // 2 for n, m in zip(cube.shape[1:], PATCH)]
    place = translate(*(-m for m in middle))
    plain = warp_slice(cube, PATCH, place)[0]
    patches = {"the patch": plain}
    for name, arguments in DEFORMATIONS.items():
        bend = random_deformation((0, 0, 0), np.array(PATCH) - 1, np.random.default_rng(0), aniso_factor=10, **arguments)
        patches[name] = warp_slice(cube, PATCH, place, deformation=bend)[0]
    for k, (name, arguments) in enumerate(WARPS.items()):
        part = cube[(slice(None), *(slice(m - r, m + n + r) for m, n, r in zip(middle, PATCH, (5, 55, 55))))]
        patches[name] = get_warped_slice(part, PATCH, **{"flip": False, "aniso_factor": 10, **arguments},
                                         rng=np.random.default_rng(k))[0]
    for name, function in AUGMENTATIONS.items():
        arguments = dict(STRONGER.get(name, {}))
        if "section_probability" in argument_names(function):
            arguments["section_probability"] = 1
        if name == "missing_sections":
            arguments.update(partly=1)
        patches[name] = augment(plain, [(name, arguments)], np.random.default_rng(2))
    return [(name, patch[0, PATCH[0] // 2], patch[0, :, PATCH[1] // 2]) for name, patch in patches.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("volume", help="such as raw_0.h5:raw")
    parser.add_argument("picture")
    args = parser.parse_args()
    shown = panels(open_volume(args.volume).load())
    columns = 5
    rows = -(-len(shown) // columns)
    figure = Figure((2 * columns, 2.45 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * rows, columns, height_ratios=[140, 28] * rows, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for k, (name, section, along_z) in enumerate(shown):
        row, column = 2 * (k // columns), k % columns
        axes[row, column].set_title(name, fontsize=8)
        axes[row, column].imshow(section.T, cmap="gray", vmin=0, vmax=1)
        axes[row + 1, column].imshow(np.repeat(along_z, 4, axis=0), cmap="gray", vmin=0, vmax=1)
    figure.savefig(args.picture, dpi=90)
    few = [round(v / 255 * 23) * 255 // 23 for v in range(256)]  # grey values, to keep the file small
    Image.open(args.picture).convert("L").point(few).quantize().save(args.picture, optimize=True)


if __name__ == "__main__":
    main()
