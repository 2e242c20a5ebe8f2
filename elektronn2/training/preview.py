"""Previews: sections of volumes beside what the network predicts for them, as PNG files."""
import logging
from pathlib import Path

import numpy as np
from matplotlib.image import imsave

from elektronn2.data.volumes.opening import open_volumes
from elektronn2.neuromancer.dense import geometry, predict_dense
from elektronn2.utils.basic import as_float, atomic_write

logger = logging.getLogger("elektronn2log")


def load_cubes(path):
    """List of volumes (f, z, x, y) that an address or (file, key) names; all data sets of an h5 file without a key."""
    return open_volumes(path)


def central_slices(node, cube, max_z_pred):
    """The central part, float32 (f, z, x, y), of a cube (z, x, y) or (f, z, x, y) that gives at least ``max_z_pred``
    predicted sections; as thick as the network's patch at least.

    ``cube``: an array or a Volume, of uint8 (divided by 255), uint16 (65535) or floating point. ValueError if it is too
    thin.
    """
    cube = cube[None] if cube.ndim == 3 else cube
    if cube.ndim != 4:
        raise ValueError(f"A preview cube must have axes (z, x, y) or (f, z, x, y), got shape {cube.shape}.")
    z = 1
    if cube.shape[1] > cube.shape[3]:
        z = 3
        logger.warning("A preview cube of shape %s is taken as (x, y, z), since its first axis is longer than its last.",
                       cube.shape[1:])
    thick = max_z_pred
    if node.shape.ndim == 3:
        along_z = geometry(node)[0]
        thick = along_z.tile
        while along_z.size(thick) < max_z_pred:
            thick += max(along_z.stride, 1)
    if thick > cube.shape[z]:
        raise ValueError(f"The preview needs {thick} sections for {max_z_pred} predicted ones, the cube has "
                         f"{cube.shape[z]}. Lower max_z_pred in preview_kwargs, or use thicker cubes.")
    start = (cube.shape[z] - thick) // 2
    part = cube[(*(slice(None),) * z, slice(start, start + thick))]
    return as_float(np.moveaxis(part, z, 1)).astype(np.float32, copy=False)


def wanted_channels(export_class, n_f):
    """List of channel numbers from 'all', a number, a string with a number, or a list of numbers.

    >>> wanted_channels('1', 2)
    [1]
    """
    if export_class == "all":
        return list(range(n_f))
    try:
        channels = [int(c) for c in ([export_class] if isinstance(export_class, (int, np.integer, str)) else export_class)]
    except (TypeError, ValueError):
        raise ValueError("export_class must be 'all', a channel number, a list of them, 'malis' or 'affinity'; "
                         f"got {export_class!r}.") from None
    if any(not 0 <= c < n_f for c in channels):
        raise ValueError(f"export_class {export_class!r}: the prediction has the channels 0 to {n_f - 1}.")
    return channels


def write_png(path, image, limits=None):
    """Write an array (x, y) or (x, y, rgb), x to the right; ``limits``: values of black and white (default: its own)."""
    low, high = limits or (float(image.min()), float(image.max()))
    grey = np.rint(255 * np.clip((image - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8).swapaxes(0, 1)
    with atomic_write(path) as temporary:
        imsave(temporary, grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2), format="png")


def predict_and_write(node, raw_img, folder, save_name, number=0, export_class="all", block_name="", z_thick=5):
    """Predict a cube (f, z, x, y) densely and write ``z_thick`` central sections of it as PNG files.

    ``<save_name>-pred-<block>-z<i>-c<class>-<number>hrs.png``: one channel, black 0 to white 1 (or its own range, if it
    is no probability). ``<save_name>-pred-<block>-aff-z<i>-<number>hrs.png`` for ``export_class`` 'malis' or 'affinity':
    channels 0, 2, 4 as red, green, blue. ``<save_name>-raw-<block>-z<i>.png``, written once: the same part of the image.
    Returns the list of files.
    """
    folder = Path(folder)
    prediction = predict_dense(node, raw_img, progress=False)
    first = (prediction.shape[1] - z_thick) // 2
    axes = geometry(node)
    offsets = [g.offset for g in axes]
    offsets = [0, *offsets] if len(axes) == 2 else offsets
    limits = (0, 1) if prediction.min() >= 0 and prediction.max() <= 1 else None  # comparable over time
    hours, files = f"{number:g}hrs", []
    affinity = export_class in ("malis", "affinity")
    channels = None if affinity else wanted_channels(export_class, len(prediction))
    if affinity and len(prediction) < 5:
        raise ValueError(f"export_class {export_class!r} shows channels 0, 2 and 4, the prediction has {len(prediction)}.")

    def write(name, image, limits):
        files.append(folder / name)
        write_png(files[-1], image, limits=limits)

    for i in range(z_thick):
        section = prediction[:, first + i]
        raw_name = f"{save_name}-raw-{block_name}-z{i}.png"
        if not (folder / raw_name).exists():
            part = tuple(slice(o, o + n) for o, n in zip(offsets[1:], section.shape[1:]))
            write(raw_name, raw_img[(0, first + i + offsets[0], *part)], (0, 1))
        if affinity:
            write(f"{save_name}-pred-{block_name}-aff-z{i}-{hours}.png", np.moveaxis(section[[0, 2, 4]], 0, -1), (0, 1))
        for c in channels or ():
            write(f"{save_name}-pred-{block_name}-z{i}-c{c}-{hours}.png", section[c], limits)
    return files
