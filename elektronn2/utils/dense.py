"""Predict a volume of any size, tile by tile, with any function whose geometry is known.

The meaning is one: the function's output at every voxel, as if the whole volume had gone through it in
one pass, with its pooling grid anchored at voxel 0. Tiles are only the means: they start where the grid
allows, overlap by what the function loses at its borders, and what a tile's own border has touched is
not used. So the result does not depend on the tiling.
"""
from dataclasses import dataclass, replace
from itertools import product
from math import ceil

import numpy as np


@dataclass(frozen=True)
class Geometry:
    """What tiling must know of a function along one spatial axis.

    ``patch``: input length; ``out``: output length; ``stride``: input voxels between output voxels (>= 1);
    ``scale``: output voxels per input voxel, for functions that end at a finer resolution (then stride is 1);
    ``centre``: position of output voxel 0 on the input, in output voxels, rounded down; ``grid``: tiles start at
    multiples of this many input voxels; ``border``: outermost outputs per side that zero-padding inside the function
    has touched; ``keep_border``: whether such outputs are kept at the border of the volume (then the volume's border
    is what the function pads); ``axis``: its letter, for errors.
    """
    patch: int
    out: int
    stride: int
    centre: int
    scale: int = 1
    grid: int = 1
    border: int = 0
    keep_border: bool = False
    axis: str = ""

    def fitted(self, n):
        """The same for a patch no longer than a volume of ``n`` needs: then the volume's border is the function's."""
        steps = (self.patch - n) // self.grid
        if not (self.keep_border and self.border) or steps < 1:
            return self
        return replace(self, patch=self.patch - steps * self.grid, out=self.out - steps * self.grid * self.scale)

    @property
    def tile(self):
        """Input voxels of one tile: the patch at all shifts."""
        return self.patch + self.stride - 1

    @property
    def block(self):
        """Dense output voxels of one tile."""
        return self.out * self.stride

    @property
    def loss(self):
        """Output voxels that are missing from those of the volume (negative if there are more), borders not counted."""
        return self.tile * self.scale - self.block

    @property
    def margin(self):
        """Output voxels per side that are cut from the volume's prediction."""
        return 0 if self.keep_border else self.border * self.stride

    @property
    def offset(self):
        """Output voxels from the corner of the volume to the first one of its prediction."""
        return self.centre + self.margin

    def size(self, n):
        """Length of the prediction of a volume of length ``n``."""
        return n * self.scale - self.loss - 2 * self.margin

    def padding(self, n):
        """(before, after, skip): input voxels to pad so that the prediction covers a volume of length ``n``, and output
        voxels to skip then. Before the volume they are a multiple of ``grid``, so that the grid stays at its voxel 0."""
        before = max(ceil(self.offset / (self.scale * self.grid)), 0) * self.grid
        skip = before * self.scale - self.offset
        missing = n * self.scale + skip - self.size(n + before)
        return before, max(ceil(missing / self.scale), 0), skip

    def tiles(self, n):
        """(start, first, last) per tile for a volume of length ``n``: input from ``start``, outputs [first, last).

        Raises ValueError if the patch is too small for the grid.
        """
        cut = self.border * self.stride
        if self.keep_border and n <= self.tile:  # one pass is all, whatever its own padding touches
            return [(0, 0, self.block)]
        inner = self.block - 2 * cut
        step = inner // (self.grid * self.scale) * self.grid
        if step < 1:
            raise ValueError(f"A patch of {self.patch} voxels gives {self.out} output voxels, too few: tiles must step "
                             f"by multiples of {self.grid} voxels, and {self.border} outputs on each side see padding. "
                             "Use a larger patch.")
        low, high = cut, cut + self.size(n)
        if self.keep_border and cut:  # the last tile ends where the (rounded-up) volume ends
            end = self.tile + ceil((n - self.tile) / self.grid) * self.grid
            starts = [*range(0, end - self.tile, step), end - self.tile]
            low, high = 0, end * self.scale - self.loss
        else:
            more = ceil((self.size(n) - inner) / (step * self.scale))
            starts = [step * i for i in range(max(more, 0) + 1)]
        tiles = []
        for start in starts:
            first = low if start == 0 else start * self.scale + cut
            last = high if start == starts[-1] else (start + step) * self.scale + cut
            tiles.append((start, first, min(last, high)))
        return tiles


def source_index(start, length, n, before, mirror):
    """Index into a volume of length ``n`` for each voxel of a tile of the padded volume; -1 for zeros.

    With ``mirror`` what lies beyond the border mirrors the volume (the border voxel is repeated).
    """
    i = np.arange(start - before, start - before + length)
    if mirror:
        i = i % (2 * n)
        return np.where(i < n, i, 2 * n - 1 - i)
    return np.where((i >= 0) & (i < n), i, -1)


def read_tile(volume, index):
    """Box of an array-like (f, *L) by an index array per spatial axis; -1 gives zeros. Reads only the box it needs."""
    lows = [int(i[i >= 0].min()) if (i >= 0).any() else 0 for i in index]
    highs = [int(i.max()) + 1 if (i >= 0).any() else 1 for i in index]
    box = np.asarray(volume[(slice(None), *(slice(a, b) for a, b in zip(lows, highs)))])
    for axis, (i, low) in enumerate(zip(index, lows), start=1):
        if np.array_equal(i, np.arange(low, low + box.shape[axis])):
            continue
        box = np.take(box, np.where(i >= 0, i - low, 0), axis=axis)
        if (i < 0).any():
            box[(*(slice(None),) * axis, i < 0)] = 0
    return box


def _allocate(shape, dtype):
    """An array for the prediction. MemoryError that says how to do with less."""
    try:
        return np.empty(shape, dtype)
    except MemoryError as error:
        raise MemoryError(f"There is too little memory for the whole prediction: {error}. Predict parts of the volume, each "
                          "with the field of view around it, or use as_uint8=True.") from None


def check_size(shape, geometry):
    """Raise ValueError, naming axis and lengths, if a volume is too small to give a single output voxel."""
    for k, (n, g) in enumerate(zip(shape, geometry)):
        if g.size(n) < 1:
            raise ValueError(f"The volume has {n} voxels on axis {g.axis or k!r}; with this network at least "
                             f"{n + 1 - g.size(n)} are needed for one output voxel. Use pad_raw=True to mirror the "
                             "border, or a larger volume.")


def predict_tiled(function, volume, geometry, n_out, pad=False, prepare=None, finish=None, out=None, on_start=None,
                  progress=None):
    """Prediction of ``function`` at every voxel of ``volume`` (f, *L), as array (n_out, *size).

    ``function``: (1, f, *patch) -> (1, n_out, *out), floating point. ``geometry``: one :class:`Geometry` per spatial
    axis. ``pad``: mirror the volume at its border so that the prediction covers it. ``prepare``, ``finish``: applied
    to each tile read and to each prediction written. ``out``: array-like to write to. ``on_start``: called with the
    (padded) shape and the number of tiles per axis. ``progress``: called with the voxels finished after each tile.

    Raises ValueError for a volume that is too small.
    """
    sizes = volume.shape[1:]
    padding = [g.padding(n) if pad else (0, 0, 0) for g, n in zip(geometry, sizes)]
    padded = [n + a + b for n, (a, b, _) in zip(sizes, padding)]
    check_size(padded, geometry)
    geometry = [g.fitted(n) for g, n in zip(geometry, padded)]
    wanted = [n * g.scale if pad else g.size(n) for g, n in zip(geometry, sizes)]
    tiles = [g.tiles(n) for g, n in zip(geometry, padded)]
    if on_start:
        on_start((volume.shape[0], *padded), tuple(map(len, tiles)))

    shifts = list(product(*(range(g.stride) for g in geometry)))
    for tile in product(*tiles):
        index = [source_index(start, g.tile, n, a, pad)
                 for (start, _, _), g, n, (a, _, _) in zip(tile, geometry, sizes, padding)]
        raw = read_tile(volume, index)
        raw = prepare(raw) if prepare else raw
        block = None
        for shift in shifts:
            patch = raw[(None, slice(None), *(slice(d, d + g.patch) for d, g in zip(shift, geometry)))]
            result = np.asarray(function(patch))[0]
            if len(shifts) == 1:
                block = result
                break
            if block is None:
                block = np.empty((n_out, *(g.block for g in geometry)), result.dtype)
            block[(slice(None), *(slice(d, None, g.stride) for d, g in zip(shift, geometry)))] = result
        source, target = [], []
        for (start, first, last), g, n, (_, _, skip) in zip(tile, geometry, wanted, padding):
            low = g.margin + skip
            first, last = max(first, low), min(last, low + n)
            source.append(slice(first - start * g.scale, last - start * g.scale))
            target.append(slice(first - low, last - low))
        if any(t.stop <= t.start for t in target):
            continue
        block = block[(slice(None), *source)]
        block = finish(block) if finish else block
        if out is None:
            out = _allocate((n_out, *wanted), block.dtype)
        out[(slice(None), *target)] = block
        if progress:
            progress(int(np.prod(block.shape[1:])))
    return out
