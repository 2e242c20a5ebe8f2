"""How a sample came about, in words and as a picture."""
import time
from dataclasses import dataclass, field

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from elektronn2.utils.basic import atomic_write
from elektronn2.utils.imageplots import plot_sample


@dataclass
class Facts:
    """What is noted while a sample is made.

    ``matrix``: 4x4, takes voxels (z, x, y, 1) of the image to those of the patch; None for images that are taken whole.
    ``bend``: a :class:`~elektronn2.data.deformation.Deformation`, or None. ``n_draws``: places and warps that were tried.
    ``augmentations``: names of those of grey values that were applied. ``seconds``: by stage.
    """
    index: int
    source: str
    seed: int
    cube: str = ""
    warped: bool = False
    n_draws: int = 1
    matrix: np.ndarray | None = None
    bend: object = None
    augmentations: list = field(default_factory=list)
    seconds: dict = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter, repr=False)

    def lap(self, stage):
        """Note the time since the last lap."""
        now = time.perf_counter()
        self.seconds[stage], self.started = now - self.started, now


def source_box(matrix, patch_size):
    """Where a patch comes from: its middle (z, x, y), and the box of image voxels, [first, last + 1] for each axis.

    ``matrix``: 4x4, takes voxels of the image to those of the patch.

    >>> source_box(np.eye(4), (5, 9, 9))[1].tolist()
    [[0, 5], [0, 9], [0, 9]]
    """
    last = np.array(patch_size) - 1
    corners = np.array([[z, x, y] for z in (0, last[0]) for x in (0, last[1]) for y in (0, last[2])] + [last / 2])
    points = np.c_[corners, np.ones(9)] @ np.linalg.inv(matrix).T
    points = points[:, :3] / points[:, 3:]
    low, high = np.floor(points[:8].min(0) + 1e-6), np.ceil(points[:8].max(0) - 1e-6) + 1
    return points[8], np.stack((low, high), 1).astype(int)


class Explanation:
    """Printed, it tells where a sample comes from and what was done to it; :meth:`draw` shows it.

    Attributes: ``facts`` (:class:`Facts`), ``arrays`` (what ``sample`` returns), ``centre`` (z, x, y) in voxels of the image
    that came to lie in the middle of the patch, ``box``: [first, last] voxel of the image that was needed, per axis; both
    as the matrix says, without elastic deformation, and None for images that are taken whole.
    """

    def __init__(self, facts, arrays, patch_size, offsets, strides, targets=None):
        self.facts, self.arrays, self.strides = facts, arrays, strides
        self.offsets = offsets if targets is None else np.add(offsets, targets.margin[:, 0])
        self.centre = self.box = None
        if facts.matrix is not None:
            self.centre, box = source_box(facts.matrix, patch_size)
            self.box = box - [0, 1]

    def __repr__(self):
        facts = self.facts
        lines = [f"Sample {facts.index} ({facts.source}, seed {facts.seed}) of {facts.cube}"]
        if self.box is not None:
            box = ", ".join(f"{axis} {a}..{b}" for axis, (a, b) in zip("zxy", self.box.tolist()))
            rows = ["  ".join(f"{v:8.3f}" for v in row) for row in facts.matrix]
            lines += [f"centre: voxel {', '.join(f'{axis} {c:.2f}' for axis, c in zip('zxy', self.centre))} of the image",
                      f"needs:  voxels {box}",
                      f"warped: {'yes' if facts.warped else 'no'}; drawn {facts.n_draws} times",
                      "matrix, from image voxels (z, x, y, 1) to patch voxels:", *(f"    {row}" for row in rows)]
        if facts.bend is not None:
            reach = ", ".join(f"{axis} {d:.1f}" for axis, d in zip("zxy", facts.bend.reach()))
            lines.append(f"before that, points of the patch are moved by up to {reach} voxels (elastic, misalignment)")
        lines.append(f"augmentations of grey values: {', '.join(facts.augmentations) or 'none'}")
        lines.append("time: " + ", ".join(f"{stage} {1000 * s:.1f} ms" for stage, s in facts.seconds.items()))
        return "\n".join(lines)

    def draw(self, path=None):
        """A figure of image and targets; ``path``: of a PNG to be written."""
        image, *others = self.arrays
        targets = [t for t in others if t.ndim == image.ndim]
        figure = plot_sample(image, targets, self.offsets, self.strides)
        figure.suptitle(f"sample {self.facts.index}, {self.facts.cube}", fontsize=10)
        if path is not None:
            FigureCanvasAgg(figure)
            with atomic_write(path) as temporary:
                figure.savefig(temporary, format="png")
        return figure
