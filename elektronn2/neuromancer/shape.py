"""TaggedShape: sizes with axis letters, and where each voxel sits on the input.

Per spatial axis, in input voxels: neighbouring output voxels are ``stride`` apart, output voxel i
sits on ``centre + i * stride``, and its window (field of view) is ``fov`` long around that centre.
All three are exact rationals, and every operation has one rule (see docs/geometry.md)::

    convolution (f, dilation d, step t)  centre += (f-1)*d*stride/2  fov += (f-1)*d*stride;  stride *= t
    pooling (p, step t)                  centre += (p-1)*stride/2    fov += (p-1)*stride;    stride *= t
    upsampling (p) with a kernel of f    centre -= (f-1)*stride/p/2  fov += (f-1)*stride/p;  stride /= p
    crop n / pad n                       centre += n*stride / -= n*stride
    merge                                strides and centres must agree; the largest fov

``padded`` counts the outermost voxels per side whose window reaches into padding of the network.
"""
import operator
from fractions import Fraction
from math import ceil, floor, prod
from numbers import Integral

import numpy as np

TAGS = "rbsfzyx"
SPATIAL = "zyx"


def _sizes(shape):
    """Tuple of positive integers, or None. TypeError for other kinds, ValueError for 0 and below."""
    try:
        sizes = tuple(None if n is None else operator.index(n) for n in shape)
    except TypeError:
        raise TypeError(f"A shape is a sequence of sizes, each an integer or None, got {shape!r}.") from None
    if any(n is not None and n < 1 for n in sizes):
        raise ValueError(f"Sizes must be at least 1, got {sizes}.")
    return sizes


def _fractions(values, n, name):
    if values is None:
        return None
    try:
        result = tuple(v if isinstance(v, Fraction) else Fraction(float(v)).limit_denominator(10**6) for v in values)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a finite number per spatial axis, got {values!r}.") from None
    if len(result) != n:
        raise ValueError(f"{name} needs one value per spatial axis ({n}), got {len(result)}.")
    if name == "strides" and any(v <= 0 for v in result):
        raise ValueError(f"strides must be positive, got {values!r}.")
    return result


def _index(value, n, message):
    """``value``, an integer from -n to n - 1, counted from the first of ``n``. ValueError with a message otherwise."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not -n <= value < n:
        raise ValueError(message)
    return int(value) % n


def _plain(value):
    """An int if the Fraction is one."""
    return int(value) if value.denominator == 1 else value


class TaggedShape:
    """Sizes with one letter per axis: r recurrence, b batch, s samples, f features, z y x space.

    ``shape``: sizes, None where unspecified. ``tags``: letters, as a list or 'b,f,z,x,y'; any order.
    ``strides``, ``fov``, ``offsets``: one value per spatial axis, in voxels of the input.
    ``mfp_offsets``: int array (n_fragments, n_spatial), the origin of each fragment.

    A value: no method changes it, all return a new one.

    >>> TaggedShape((10, 3, 23, 183, 183), 'b,f,z,x,y')
    [(10,b), (3,f), (23,z), (183,x), (183,y)]

    Raises ValueError for unknown letters or a number of letters that differs from that of sizes.
    """

    __slots__ = ("_centre", "_fov", "_mfp_offsets", "_padded", "_shape", "_strides", "_tags")

    def __init__(self, shape, tags, strides=None, mfp_offsets=None, fov=None, offsets=None, padded=None):
        tags = parse_tags(tags)
        shape = _sizes(shape)
        if len(shape) != len(tags):
            raise ValueError(f"Shape {shape} has {len(shape)} axes but tags {','.join(tags)!r} name {len(tags)}.")
        n = sum(t in SPATIAL for t in tags)
        one = (Fraction(1),) * n
        self._shape, self._tags = shape, tags
        self._strides = _fractions(strides, n, "strides") or one
        self._fov = _fractions(fov, n, "fov") or one
        self._centre = _fractions(offsets, n, "offsets")
        if self._centre is None:
            self._centre = tuple((v - 1) / 2 for v in self._fov)
        mfp = np.zeros((1, n), int) if mfp_offsets is None else np.array(mfp_offsets, int)
        if mfp.ndim != 2 or mfp.shape[1] != n:
            raise ValueError(f"mfp_offsets must have shape (n_fragments, {n}), got {mfp.shape}.")
        self._mfp_offsets = mfp
        self._padded = tuple(padded) if padded is not None else (0,) * n

    def _new(self, **changes):
        arguments = dict(shape=self._shape, tags=self._tags, strides=self._strides,
                         mfp_offsets=self._mfp_offsets, fov=self._fov, offsets=self._centre,
                         padded=self._padded)
        arguments.update(changes)
        return TaggedShape(**arguments)

    # -- reading ---------------------------------------------------------------------------------
    @property
    def shape(self):
        """List of sizes."""
        return list(self._shape)

    @property
    def tags(self):
        return list(self._tags)

    @property
    def strides(self):
        """Array of int (or of Fraction where upsampling made steps below one input voxel)."""
        if all(s.denominator == 1 for s in self._strides):
            return np.array([int(s) for s in self._strides], int)
        return np.array(self._strides, object)

    @property
    def mfp_offsets(self):
        return self._mfp_offsets.copy()

    @property
    def fov(self):
        """Field of view per spatial axis."""
        return [_plain(v) for v in self._fov]

    @property
    def centre(self):
        """Exact position of output voxel 0 on the input, as Fractions."""
        return self._centre

    @property
    def offsets(self):
        """Position of output voxel 0 on the input; half voxels (even fov) are rounded down."""
        return [floor(c) for c in self._centre]

    @property
    def padded(self):
        """Number of outermost voxels per side that see padding of the network itself."""
        return self._padded

    @property
    def fov_all_centered(self):
        """Whether every output voxel lies on an input voxel (odd field of view on all axes)."""
        return all(c.denominator == 1 for c in self._centre)

    @property
    def spatial_axes(self):
        return [i for i, t in enumerate(self._tags) if t in SPATIAL]

    @property
    def spatial_tags(self):
        return [t for t in self._tags if t in SPATIAL]

    @property
    def ndim(self):
        """Number of spatial axes."""
        return len(self._centre)

    @property
    def spatial_shape(self):
        return [self._shape[i] for i in self.spatial_axes]

    @property
    def spatial_size(self):
        """Number of voxels of one feature map (1 without spatial axes)."""
        return prod(n for n in self.spatial_shape if n is not None)

    @property
    def stripnone(self):
        return [n for n in self._shape if n is not None]

    @property
    def stripnone_prod(self):
        return prod(self.stripnone)

    @property
    def stripbatch_prod(self):
        return prod(n for n, t in zip(self._shape, self._tags) if t != "b" and n is not None)

    def __getitem__(self, key):
        return self._shape[self.tag2index(key) if isinstance(key, str) else key]

    def __len__(self):
        return len(self._shape)

    def __iter__(self):
        return iter(self._shape)

    def __eq__(self, other):
        if not isinstance(other, TaggedShape):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self):
        return hash(self._key())

    def _key(self):
        return (self._shape, self._tags, self._strides, self._fov, self._centre, self._mfp_offsets.tobytes())

    def hastag(self, tag):
        return tag in self._tags

    def tag2index(self, tag):
        """Index of the axis with that letter. Raises ValueError if there is none."""
        if tag not in self._tags:
            raise ValueError(f"{self} has no axis {tag!r}.")
        return self._tags.index(tag)

    def _axis(self, axis):
        """Index of an axis that is given by its letter or index. ValueError if there is none."""
        if isinstance(axis, str):
            return self.tag2index(axis)
        return _index(axis, len(self), f"{self} has no axis {axis!r}; it has {len(self)}, of which 0 is the first.")

    def __repr__(self):
        return "[" + ", ".join(f"({n},{t})" for n, t in zip(self._shape, self._tags)) + "]"

    @property
    def ext_repr(self):
        """Sizes, and field of view, offsets, strides and spatial shape if there are spatial axes, as text."""
        if not self.ndim:
            return repr(self)
        fov = [v if isinstance(v, int) else float(v) for v in self.fov]
        strides = np.array([float(s) for s in self._strides])
        if all(s.denominator == 1 for s in self._strides):
            strides = strides.astype(int)
        return (f"{self!r}\nfov={fov}, offsets={self.offsets}, "
                f"strides={np.array2string(strides, precision=3)}, spatial shape={self.spatial_shape}")

    # -- changing sizes --------------------------------------------------------------------------
    def copy(self):
        return self._new()

    def updateshape(self, axis, new_size, mode=None):
        """Set one size; ``mode`` 'add' or 'mult' combines with the old one (None stays None)."""
        i = self._axis(axis)
        old = self._shape[i]
        if mode in ("add", "mult"):
            new_size = None if old is None else old + new_size if mode == "add" else old * new_size
        elif mode is not None:
            raise ValueError(f"mode must be None, 'add' or 'mult', got {mode!r}.")
        return self._new(shape=self._shape[:i] + (new_size,) + self._shape[i + 1:])

    def updatefov(self, axis, fov):
        """Set the field of view of one spatial axis (0 is the first); its centre follows."""
        axis = _index(axis, self.ndim, f"{self} has no spatial axis {axis!r}; it has {self.ndim}, of which 0 is the first.")
        values, centre = list(self._fov), list(self._centre)
        fov, = _fractions([fov], 1, "fov")
        centre[axis] += (fov - values[axis]) / 2
        values[axis] = fov
        return self._new(fov=values, offsets=centre)

    def updatestrides(self, strides):
        return self._new(strides=strides)

    def updatemfp_offsets(self, mfp_offsets):
        return self._new(mfp_offsets=mfp_offsets)

    def addaxis(self, axis, size, tag):
        """Insert an axis at an index, or right of the axis with a letter."""
        i = self.tag2index(axis) + 1 if isinstance(axis, str) else _index(
            axis, len(self) + 1, f"{self} can take an axis at 0 to {len(self)}, not at {axis!r}.")
        if tag in SPATIAL:
            raise ValueError("addaxis adds r, b, s or f; a spatial axis needs its own geometry.")
        return self._new(shape=self._shape[:i] + (size,) + self._shape[i:],
                         tags=self._tags[:i] + (tag,) + self._tags[i:])

    def delaxis(self, axis):
        """Remove an axis, by index or letter; for a spatial one its geometry goes too."""
        i = self._axis(axis)
        changes = dict(shape=self._shape[:i] + self._shape[i + 1:], tags=self._tags[:i] + self._tags[i + 1:])
        if self._tags[i] in SPATIAL:
            k = self.spatial_axes.index(i)
            keep = [j for j in range(self.ndim) if j != k]
            changes.update(strides=[self._strides[j] for j in keep], fov=[self._fov[j] for j in keep],
                           offsets=[self._centre[j] for j in keep], padded=[self._padded[j] for j in keep],
                           mfp_offsets=self._mfp_offsets[:, keep])
        return self._new(**changes)

    def with_spatial(self, sizes):
        """The same with other spatial sizes."""
        shape = list(self._shape)
        for i, n in zip(self.spatial_axes, sizes):
            shape[i] = n
        return self._new(shape=shape)

    # -- geometry: one rule per operation ----------------------------------------------------------
    def _window(self, extra):
        """Windows longer by ``extra`` voxels of this resolution, starting at the same place."""
        return dict(offsets=[c + Fraction(e) * s / 2 for c, e, s in zip(self._centre, extra, self._strides)],
                    fov=[v + e * s for v, e, s in zip(self._fov, extra, self._strides)])

    def convolved(self, filter_shape, stride=None, dilation=None):
        """Geometry after a valid convolution (sizes are set by the caller)."""
        ones = (1,) * self.ndim
        return self.pooled([(f - 1) * d + 1 for f, d in zip(filter_shape, dilation or ones)], stride or ones)

    def pooled(self, pool_shape, step):
        """Geometry after pooling windows of ``pool_shape`` every ``step``."""
        return self._new(**self._window([p - 1 for p in pool_shape]),
                         strides=[s * t for s, t in zip(self._strides, step)],
                         padded=[ceil(Fraction(m, t)) for m, t in zip(self._padded, step)])

    def fragmented(self, step):
        """MFP: one fragment per shift, the last spatial axis fastest; see ``computations.fragmentpool``."""
        shifts = np.array(list(np.ndindex(*step)), int).reshape(-1, self.ndim)
        new = shifts[:, None, :] * np.array([int(s) for s in self._strides], int) + self._mfp_offsets[None]
        return self._new(mfp_offsets=new.reshape(-1, self.ndim))

    def upsampled(self, factor, filter_shape=None):
        """Geometry after a transposed convolution of stride ``factor``, with all voxels that see any input.

        ``filter_shape``: at least ``factor``, which is the default and is as repeating every voxel.
        """
        filter_shape = factor if filter_shape is None else filter_shape
        fine = [s / p for s, p in zip(self._strides, factor)]
        return self._new(strides=fine,
                         offsets=[c - Fraction(f - 1) * s / 2 for c, f, s in zip(self._centre, filter_shape, fine)],
                         fov=[v + (f - 1) * s for v, f, s in zip(self._fov, filter_shape, fine)],
                         padded=[m * p + f - p for m, p, f in zip(self._padded, factor, filter_shape)])

    def sliced(self, axis, start, stop):
        """Entries ``start`` to ``stop`` of an axis; on a spatial one the first voxel moves."""
        i = self._axis(axis)
        changes = dict(shape=self._shape[:i] + (stop - start,) + self._shape[i + 1:])
        if self._tags[i] in SPATIAL:
            k, centre, padded = self.spatial_axes.index(i), list(self._centre), list(self._padded)
            centre[k] += start * self._strides[k]
            padded[k] = max(padded[k] - min(start, self._shape[i] - stop), 0)
            changes.update(offsets=centre, padded=padded)
        return self._new(**changes)

    def shifted(self, n):
        """Geometry after cropping ``n`` voxels from both ends (padding: negative ``n``)."""
        return self._new(offsets=[c + k * s for c, k, s in zip(self._centre, n, self._strides)],
                         padded=[max(m - k, 0) for m, k in zip(self._padded, n)])


def parse_tags(tags):
    """Tuple of axis letters from 'b,f,z,x,y' or a sequence of letters; checked."""
    if isinstance(tags, str):
        tags = tags.replace(" ", "").split(",")
    elif not isinstance(tags, (list, tuple)):
        raise ValueError(f"tags must be a string like 'b,f,z,x,y' or a list of letters, got {tags!r}.")
    tags = tuple(str(t).strip() for t in tags)
    unknown = [t for t in tags if len(t) != 1 or t not in TAGS]
    if unknown:
        together = len(tags) == 1 and set(tags[0]) <= set(TAGS)
        commas = f" Write commas between them: {','.join(tags[0])!r}." if together else ""
        raise ValueError(f"Unknown axis letters {unknown} in tags {tags}; allowed: {', '.join(TAGS)} (f: channels).{commas}")
    if len(set(tags)) != len(tags):
        raise ValueError(f"Tags {','.join(tags)!r} name an axis twice.")
    return tags
