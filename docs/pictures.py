"""The pictures of the guide: the task, with what the demo has predicted, and drawings of patch, stride and tiles.

    make demo
    python docs/pictures.py demo-output/RUN docs/images
"""
import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from scipy import ndimage

from elektronn2.data.synthetic import default_data_path
from elektronn2.malis import bmappred_to_affgraph, mknhood3d, watershed_from_affgraph
from elektronn2.utils.basic import h5load

ORANGE, BLUE, GREY = "#e69f00", "#0072b2", "#999999"


def new_figure(width, height, columns, **kwargs):
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, **kwargs)
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def save(figure, path):
    """With few colours, which is enough for these pictures and makes the files small."""
    figure.savefig(path, dpi=100)
    Image.open(path).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def cells_of(barrier):
    """Ids (z, x, y) by a watershed from what is surely inside of cells."""
    seeds, _ = ndimage.label(barrier < 0.1)
    seeds[np.bincount(seeds.ravel())[seeds] < 50] = 0
    nhood = mknhood3d()
    return watershed_from_affgraph(bmappred_to_affgraph(barrier, nhood), seeds, nhood)[0]


def task(run, path):
    """Raw, labels, both, prediction and cells of the middle section of the demo's held-out cube."""
    data = default_data_path()
    raw, labels = h5load(data / "raw_2.h5", "raw"), h5load(data / "barrier_int16_2.h5", "lab")
    part = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(raw.shape, labels.shape))
    barrier = h5load(run / "prediction_2.h5", "barrier")[part]
    cells = cells_of(barrier)
    z = len(labels) // 2
    image, truth, guess, ids = (a[z].T for a in (raw[part], labels, barrier, cells))
    figure, axes = new_figure(11, 2.6, 5)
    titles = "raw section", "labels: barriers", "labels on raw", "predicted probability", "cells"
    for axis, title in zip(axes, titles):
        axis.set_title(title, fontsize=10)
    for axis in axes[[0, 2, 4]]:
        axis.imshow(image, cmap="gray")
    axes[1].imshow(truth, cmap="gray")
    axes[2].imshow(np.ma.masked_equal(truth, 0), cmap=ListedColormap([ORANGE]), alpha=0.6)
    axes[3].imshow(guess, cmap="gray", vmin=0, vmax=1)
    shuffled = np.random.default_rng(0).permutation(ids.max() + 1)
    axes[4].imshow(shuffled[ids], cmap="viridis", alpha=0.6, interpolation="nearest")
    save(figure, path)


def grid(axis, n, **kwargs):
    for k in range(n + 1):
        axis.plot([0, n], [k, k], color=GREY, lw=0.4, **kwargs)
        axis.plot([k, k], [0, n], color=GREY, lw=0.4, **kwargs)


def box(axis, x, y, width, height, color, **kwargs):
    axis.add_patch(Rectangle((x, y), width, height, **{"fill": False, "lw": 2, "ec": color, **kwargs}))


def geometry(path, patch=19, fov=7, stride=4):
    """A patch with its outputs, and the window of two of them."""
    figure, axes = new_figure(8, 3.9, 2, width_ratios=[1, 0.85])
    axis, offset = axes[0], fov // 2
    grid(axis, patch)
    centres = range(offset, patch - offset, stride)
    for x in centres:
        for y in centres:
            axis.add_patch(Rectangle((x, y), 1, 1, fc=ORANGE, ec="none"))
    box(axis, 0, 0, patch, patch, "black")
    box(axis, 0, 0, fov, fov, BLUE)
    box(axis, stride, 0, fov, fov, BLUE, ls="--")
    axis.set(xlim=(-0.5, patch + 0.5), ylim=(patch + 0.5, -0.5), aspect="equal")
    notes = [
        ("black", f"patch: {patch} x {patch} voxels, the input"),
        (ORANGE, f"outputs: {len(centres)} x {len(centres)} voxels are predicted"),
        (BLUE, f"field of view: the {fov} x {fov} voxels\nthat decide on the first output"),
        (BLUE, "dashed: those of the second one"),
        ("black", f"offset {offset}: the first output is that of\nvoxel ({offset}, {offset}) of the patch"),
        ("black", f"stride {stride}: outputs are {stride} voxels apart"),
        ("black", f"{patch} = {fov} + {stride} x ({len(centres)} - 1)"),
    ]
    for k, (color, text) in enumerate(notes):
        axes[1].text(0, 0.97 - 0.155 * k, text, color=color, fontsize=10, va="top")
    save(figure, path)


def dense(path, n=19, fov=7, stride=4, tile=9, loss=4):
    """Left: passes at all shifts. Right: tiles that overlap, and what each predicts."""
    figure, axes = new_figure(9, 3, 2)
    offset = fov // 2
    axis = axes[0]
    axis.set_title(f"stride {stride}: {stride} passes, each shifted by one voxel", fontsize=10)
    for row in range(stride + 1):
        for k in range(n + stride - 1):
            axis.add_patch(Rectangle((k, 1.5 * row), 1, 1, fc="none", ec=GREY, lw=0.4))
    for shift in range(stride):
        box(axis, shift, 1.5 * shift, n, 1, "black", lw=1.5)
        for k in range(offset + shift, n - offset + shift, stride):
            color = (BLUE, ORANGE, "#56b4e9", "#000000")[shift % 4]
            for row in (shift, stride):
                axis.add_patch(Rectangle((k, 1.5 * row), 1, 1, fc=color, ec="none"))
    axis.text(-0.5, 1.5 * stride + 0.5, "together", ha="right", va="center", fontsize=9)
    axis.set(xlim=(-4.5, n + stride), ylim=(1.5 * stride + 1.5, -0.5))
    axis = axes[1]
    axis.set_title("tiles overlap, what they predict lies side by side", fontsize=10)
    out = tile - loss
    for i in range(3):
        for j in range(2):
            x, y = i * out, j * out
            first = (i, j) == (1, 0)
            box(axis, x + loss / 2, y + loss / 2, out, out, ORANGE, fill=True, fc=ORANGE, alpha=0.9 if first else 0.3, lw=1)
            box(axis, x, y, tile, tile, BLUE if first else GREY, lw=2 if first else 0.8, zorder=3 if first else 2)
    axis.set(xlim=(-0.5, 3 * out + loss + 0.5), ylim=(2 * out + loss + 0.5, -0.5), aspect="equal")
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run of the demo")
    parser.add_argument("out", type=Path, help="folder of the pictures")
    args = parser.parse_args()
    task(args.run, args.out / "task.png")
    geometry(args.out / "geometry.png")
    dense(args.out / "dense.png")


if __name__ == "__main__":
    main()
