"""Pictures of images: training examples, filters, volumes to scroll through."""
import re

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

FRAME = "#e69f00"
_ID_COLOURS = ListedColormap(np.r_[np.zeros((1, 3)), np.random.default_rng(1).uniform(0.2, 1, (255, 3))], "ids")


def plot_trainingtarget(img, lab, stride=1):
    """Figure with three panels: image, target, and the overlay 0.75 * image + 0.25 * (1 - target).

    ``img``: (h, w) grey or (h, w, 3), scaled to 0..1 if it is not within; ``lab``: (h', w') or (h', w', 3), divided by its
    maximum if that is above 1, and 0 where it is negative; ``stride``: distance of target pixels in the image. The target
    lies in the middle of the image; its frame is drawn. Raises ValueError if it is larger than the image.

    >>> figure = plot_trainingtarget(np.zeros((40, 40)), np.ones((10, 12)), stride=2)
    >>> figure.axes[2].images[0].get_array().shape
    (19, 23)
    """
    img, lab = _unit(np.asarray(img)), np.maximum(np.asarray(lab, float), 0)
    lab = lab / max(lab.max(), 1)
    sizes = [(n - 1) * stride + 1 for n in lab.shape[:2]]
    if any(size > n for size, n in zip(sizes, img.shape)):
        raise ValueError(f"A target of {lab.shape[:2]} pixels at stride {stride} covers {tuple(sizes)} pixels, but the "
                         f"image has {img.shape[:2]}. Check the stride.")
    corner = [(n - size) // 2 for n, size in zip(img.shape, sizes)]
    nearest = np.ix_(*[(np.arange(size) + stride // 2) // stride for size in sizes])
    part = img[corner[0]:corner[0] + sizes[0], corner[1]:corner[1] + sizes[1]]
    full = lab[nearest]
    if part.ndim != full.ndim:
        part, full = (a[..., None].repeat(3, -1) if a.ndim == 2 else a for a in (part, full))
    overlay = 0.75 * part + 0.25 * (1 - full)

    figure = Figure((14, 5), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, image, title in zip(axes, (img, lab, overlay), ("image", "target", "overlay")):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(f"{title} ({image.shape[0]} x {image.shape[1]})", fontsize=11)
        ax.set_axis_off()
    axes[0].add_patch(Rectangle((corner[1] - 0.5, corner[0] - 0.5), sizes[1], sizes[0], fill=False, color=FRAME))
    return figure


def plot_sample(image, targets, offsets, strides):
    """Figure of a training sample: a section of each channel of the image, then of each channel of each target.

    ``image``: (f, [z,] x, y); ``targets``: list of arrays (c, [z,] x, y), the first voxel of which lies at voxel ``offsets``
    of the image, the others ``strides`` apart. x runs to the right, y down. In 3-D, the section in the middle of the
    targets is shown. The frame is that of the target; what is negative there, so unlabelled, is drawn in grey.

    >>> figure = plot_sample(np.zeros((1, 5, 9, 8)), [np.ones((2, 3, 4, 3))], (1, 1, 1), (1, 2, 2))
    >>> [ax.get_title() for ax in figure.axes]
    ['image 0, z = 2', 'target 0', 'target 1']
    """
    image, targets, title = np.asarray(image), [np.asarray(t) for t in targets], "image {}"
    if image.ndim == 4:
        z = targets[0].shape[1] // 2 if targets else 0
        where = int(offsets[0] + z * strides[0]) if targets else image.shape[1] // 2
        image, targets, title = image[:, where], [t[:, z] for t in targets], f"image {{}}, z = {where}"
    panels = [(title.format(i), channel, None) for i, channel in enumerate(image)]
    corner, step = offsets[-2:], strides[-2:]
    for channel in (c for target in targets for c in target):
        # pixel edges in voxels of the image: left, right, bottom, top
        (x0, x1), (y0, y1) = ((o - s / 2, o + (n - 0.5) * s) for o, s, n in zip(corner, step, channel.shape))
        panels.append((f"target {len(panels) - len(image)}", channel, (x0, x1, y1, y0)))
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure = Figure((3.4 * columns, 3.6 * rows + 0.4), layout="constrained")
    for ax, (name, values, extent) in zip(figure.subplots(rows, columns, squeeze=False).flat, panels):
        shown = np.ma.masked_less(values, 0) if extent and values.dtype.kind in "iu" else np.ma.masked_equal(values, -666)
        ax.set_facecolor("#999999")
        ax.imshow(shown.T, cmap="gray" if extent is None else "viridis", extent=extent, interpolation="nearest")
        ax.set_title(name, fontsize=10)
        ax.set_xlim(-0.5, image.shape[-2] - 0.5)
        ax.set_ylim(image.shape[-1] - 0.5, -0.5)
        ax.tick_params(labelsize=8)
    for ax in figure.axes[len(panels):]:
        ax.remove()
    for ax, (_, _, extent) in zip(figure.axes, panels):
        if targets and extent is None:
            x0, x1, y1, y0 = panels[-1][2]
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=FRAME))
    return figure


def embedfilters(filters, border_width=1, normalize=False, output_ratio=1.0, rgb_axis=None):
    """One image of all filters, side by side in rows.

    ``filters``: (..., h, w); the leading axes are counted through, the last fastest. ``rgb_axis``: an axis of length 3 that
    becomes the colour. ``border_width``: pixels between filters, which have the smallest value of all. ``normalize``: scale
    each filter to 0..1. ``output_ratio``: height / width to come near to. Returns (H, W), or (H, W, 3) with ``rgb_axis``.
    Raises ValueError for other shapes.

    >>> embedfilters(np.ones((4, 2, 2))).shape
    (5, 5)
    """
    filters = np.asarray(filters)
    if filters.ndim < 2 + (rgb_axis is not None):
        raise ValueError(f"Filters must have shape (..., h, w){' and a colour axis' if rgb_axis is not None else ''}, got "
                         f"{filters.shape}.")
    if rgb_axis is None:
        filters = filters[..., None]
    elif filters.shape[rgb_axis] == 3:
        filters = np.moveaxis(filters, rgb_axis, -1)
    else:
        raise ValueError(f"rgb_axis {rgb_axis} must have length 3, but filters have shape {filters.shape}.")
    h, w, colours = filters.shape[-3:]
    tiles = filters.reshape(-1, h, w, colours).astype(float)
    if normalize:
        low, high = (f(tiles, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
        tiles = (tiles - low) / np.where(high > low, high - low, 1)
    h, w = h + border_width, w + border_width
    columns = min(max(round(np.sqrt(len(tiles) * h / (w * output_ratio))), 1), len(tiles))
    rows = -(-len(tiles) // columns)
    image = np.full((rows * h, columns * w, colours), tiles.min())
    for i, tile in enumerate(tiles):
        y, x = i // columns * h, i % columns * w
        image[y:y + h - border_width, x:x + w - border_width] = tile
    image = image[:image.shape[0] - border_width, :image.shape[1] - border_width]
    return image if rgb_axis is not None else image[..., 0]


class ScrollPlot:
    """A window with sections of volumes, the z of which the mouse wheel changes; made by :func:`scroll_plot`.

    ``figure``, ``z``, ``show(z)``.
    """

    def __init__(self, figure, axes, images, names, z):
        self.figure, self.volumes, self.z = figure, images, z
        self.drawn = []
        for ax, volume, name in zip(axes, images, names):
            ids = _is_ids(name)
            style = dict(cmap=_ID_COLOURS, vmin=0, vmax=255) if ids else dict(cmap="gray", vmin=volume.min(),
                                                                              vmax=volume.max())
            self.drawn.append((ax, ax.imshow(np.zeros(volume.shape[1:3]), interpolation="nearest", **style), name, ids))
            ax.set_axis_off()
        figure.canvas.mpl_connect("scroll_event", lambda event: self.show(self.z + (1 if event.button == "up" else -1)))
        self.show(z)

    def show(self, z):
        """Show section ``z``, or the nearest that there is."""
        self.z = int(np.clip(z, 0, len(self.volumes[0]) - 1))
        for (ax, image, name, ids), volume in zip(self.drawn, self.volumes):
            section = volume[self.z]
            image.set_data(np.where(section == 0, 0, section % 255 + 1) if ids else section)
            ax.set_title(f"{name} z={self.z}", fontsize=11)
        self.figure.canvas.draw_idle()


def scroll_plot(images, names=None, init_z=None):
    """Open a window in which the mouse wheel moves through 1, 2 or 4 volumes at once; returns a :class:`ScrollPlot`.

    ``images``: one volume (z, x, y) or (z, x, y, 3), or a list of volumes with as many sections; ``names``: titles, one
    per volume. A volume whose name contains a word like ``ids``, ``seg`` or ``labels`` is drawn with a colour per number.
    ``init_z``: first section (default: the middle).

    >>> viewer = scroll_plot([raw, seg], ['raw', 'seg'])  # doctest: +SKIP

    Raises ValueError for another number of volumes or volumes of different depth.
    """
    from matplotlib import pyplot  # opens a window, so it is imported only where one is wanted
    volumes = [np.asarray(v) for v in (images if isinstance(images, (list, tuple)) else [images])]
    names = [f"image {i}" for i in range(len(volumes))] if names is None else [names] if isinstance(names, str) else names
    if len(volumes) not in (1, 2, 4) or len(names) != len(volumes):
        raise ValueError(f"scroll_plot shows 1, 2 or 4 volumes, each with a name; got {len(volumes)} volumes and "
                         f"{len(names)} names.")
    if len({len(v) for v in volumes}) > 1 or any(v.ndim not in (3, 4) for v in volumes):
        raise ValueError(f"Volumes must be (z, x, y) with the same number of sections, got {[v.shape for v in volumes]}.")
    rows, columns = {1: (1, 1), 2: (1, 2), 4: (2, 2)}[len(volumes)]
    figure, axes = pyplot.subplots(rows, columns, squeeze=False, figsize=(6 * columns, 6 * rows), layout="constrained")
    viewer = ScrollPlot(figure, axes.flat, volumes, names, len(volumes[0]) // 2 if init_z is None else init_z)
    pyplot.show(block=False)
    return viewer


def _is_ids(name):
    return any(re.fullmatch("ids?|seg|segmentations?|labels?", word) for word in re.split("[^a-z]+", name.lower()))


def _unit(image):
    """As floats within 0..1."""
    image = image.astype(float)
    low, high = image.min(), image.max()
    return image if low >= 0 and high <= 1 else (image - low) / (high - low or 1)
