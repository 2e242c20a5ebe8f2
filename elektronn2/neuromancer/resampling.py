"""Nodes without weights that change the grid of voxels: pooling, upsampling, fragments made dense, cropping, padding.

Their geometry is in ``shape.py``, their sizes are in ``utils/cnncalculator.py``.
"""
from fractions import Fraction
from math import prod
from numbers import Real

from elektronn2.neuromancer import computations as C
from elektronn2.neuromancer.node_basic import Node
from elektronn2.utils.cnncalculator import pool_size, upsampled_size
from elektronn2.utils.validate import as_tuple


def spatial_layout(node, parent):
    """Check that axes are (b, f, *space) with one to three spatial axes."""
    shape = parent.shape
    if shape.tags[:2] != ["b", "f"] or not 1 <= shape.ndim <= 3 or len(shape) != shape.ndim + 2:
        raise NotImplementedError(f"{type(node).__name__} {node.name!r} needs axes b, f and one to three of z, y, x "
                                  f"in this order; {parent.name!r} is {shape}.")
    return shape.ndim


def in_fragments(shape, before, step):
    """``shape`` as fragments, stacked along b: one per shift by less than ``step`` of the voxels of ``before``."""
    return shape.updatemfp_offsets(before.fragmented(step).mfp_offsets).updateshape("b", prod(step), "mult")


def check_mfp(node, parent):
    batch = [n for n in parent.input_nodes if n.shape.hastag("b")]
    if batch and batch[0].shape["b"] != 1:
        raise ValueError(f"{type(node).__name__} {node.name!r}: MFP needs batch size 1, input {batch[0].name!r} has "
                         f"{batch[0].shape['b']}. Rebuild with imposed_batch_size=1.")
    if any(Fraction(s).denominator != 1 for s in parent.shape.strides):
        raise ValueError(f"{type(node).__name__} {node.name!r}: MFP cannot follow upsampling beyond the input's "
                         "resolution.")


def check_no_fragments(node, parent):
    if len(parent.shape.mfp_offsets) > 1:
        raise ValueError(f"{type(node).__name__} {node.name!r} cannot follow max-fragment pooling: {parent.name!r} has "
                         f"{len(parent.shape.mfp_offsets)} fragments. A network with upsampling predicts densely without "
                         "MFP.")


def check_sizes(node, parent):
    """ValueError, naming both nodes, if the sizes of ``parent`` do not fit the rule of ``node``."""
    for k, n in enumerate(parent.shape.spatial_shape):
        try:
            node._axis_size(k, n)
        except ValueError as error:
            raise ValueError(f"{type(node).__name__} {node.name!r} after {parent.name!r} {parent.shape}: {error}") from None


class Pool(Node):
    """Pooling. Input (b, f, *L), output (b, f, *(L - pool) / stride + 1).

    ``stride``: default ``pool_shape``. ``mode``: 'max', 'average', 'average_inc_pad', 'average_exc_pad', 'sum'
    (the averages are the same here, as nothing is padded). ``mfp``: as in :class:`Conv`.

    ValueError if windows are incomplete.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> y = nm.Pool(nm.Input((1, 1, 5), 'b,f,x', print_repr=False), 3, stride=2, mode='average', print_repr=False)
    >>> y(np.array([[[1, 2, 3, 4, 5]]], 'float32'))
    array([[[2., 4.]]], dtype=float32)
    """

    def __init__(self, parent, pool_shape, stride=None, mfp=False, mode="max", name="pool", print_repr=True):
        super().__init__(parent, name, print_repr)
        ndim = spatial_layout(self, parent)
        self.pool_shape = as_tuple(pool_shape, ndim, f"pool_shape of Pool {name!r}")
        self.stride = self.pool_shape if stride is None else as_tuple(stride, ndim, f"stride of Pool {name!r}")
        if mode not in C.POOL_MODES:
            raise ValueError(f"Pool {name!r}: mode must be one of {', '.join(C.POOL_MODES)}, got {mode!r}.")
        self.mode, self.mfp = mode, bool(mfp)
        check_sizes(self, parent)
        if self.mfp:
            check_mfp(self, parent)

    def _axis_size(self, k, *sizes, mfp=False):
        t = self.stride[k]
        active = (self.mfp or mfp) and t > 1
        return pool_size(sizes[0], self.pool_shape[k], t, active, self.parents[0].shape.spatial_tags[k])

    def _make_output(self):
        pool = C.fragmentpool if self.mfp and prod(self.stride) > 1 else C.pooling
        self.output = pool(self.parent.output, self.pool_shape, self.stride, self.mode)

    def _calc_shape(self):
        s = self.parent.shape
        sizes = [self._axis_size(k, n) for k, n in enumerate(s.spatial_shape)]
        self.shape = s.pooled(self.pool_shape, self.stride).with_spatial(sizes)
        if self.mfp:
            self.shape = in_fragments(self.shape, s, self.stride)


UPSAMPLING = ("nearest", "linear")


class Upsample(Node):
    """Upsampling without weights, by ``factor`` per axis; a Conv may follow. Input (b, f, *L), output (b, f, *L * factor).

    ``mode``: 'nearest' repeats every voxel; 'linear' interpolates between the centres of voxels, and repeats those at the
    border, so that factor // 2 outermost voxels per side see less than those inside.

    ValueError for another mode, or after max-fragment pooling.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> y = nm.Upsample(nm.Input((1, 1, 2), 'b,f,x', print_repr=False), 2, 'linear', print_repr=False)
    >>> y(np.array([[[0, 4]]], 'float32'))
    array([[[0., 1., 3., 4.]]], dtype=float32)
    """

    upsamples = True

    def __init__(self, parent, factor, mode="nearest", name="upsample", print_repr=True):
        super().__init__(parent, name, print_repr)
        self.factor = as_tuple(factor, spatial_layout(self, parent), f"factor of Upsample {name!r}")
        if mode not in UPSAMPLING:
            raise ValueError(f"Upsample {name!r}: mode must be 'nearest' or 'linear', got {mode!r}.")
        self.mode = mode
        check_no_fragments(self, parent)

    def _axis_size(self, k, *sizes, mfp=False):
        return upsampled_size(sizes[0], self.factor[k])

    def _make_output(self):
        self.output = C.upsampling(self.parent.output, self.factor, self.mode)

    def _calc_shape(self):
        s = self.parent.shape
        if self.mode == "nearest":
            s = s.upsampled(self.factor)
        else:  # as a transposed convolution with a tent of 2 p - 1 (odd p) or 2 p taps
            s = s.upsampled(self.factor, [2 * p - p % 2 for p in self.factor]).shifted([p // 2 for p in self.factor])
        self.shape = s.with_spatial([self._axis_size(k, n) for k, n in enumerate(self.parent.shape.spatial_shape)])

    def _repr_details(self):
        return f"factor={self.factor}, mode='{self.mode}'"


class FragmentsToDense(Node):
    """Interleave the fragments of max-fragment pooling to one dense volume.

    Input (prod(strides), f, *L), output (1, f, *L * strides). ValueError if the number of fragments is not
    prod(strides).

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((1, 1, 12, 12), 'b,f,x,y', print_repr=False)
    >>> pooled = nm.Conv(x, 2, 2, 2, mfp=True, print_repr=False)
    >>> pooled.shape, nm.FragmentsToDense(pooled, print_repr=False).shape
    ([(4,b), (2,f), (5,x), (5,y)], [(1,b), (2,f), (10,x), (10,y)])
    """

    def __init__(self, parent, name="to_dense", print_repr=True):
        super().__init__(parent, name, print_repr)
        s = parent.shape
        if len(s.mfp_offsets) == 1 and (s["b"] != 1 or any(v > 1 for v in s.strides)):
            raise ValueError(f"FragmentsToDense {name!r}: {parent.name!r} {s} has no fragments of max-fragment pooling that "
                             "could be made dense. Use mfp=True in every pooling layer before it, and batch size 1; without "
                             "pooling leave FragmentsToDense out.")
        needed = prod(int(v) for v in s.strides)
        if not (len(s.mfp_offsets) == needed and s["b"] in (needed, None)):
            raise ValueError(f"FragmentsToDense {name!r} needs {needed} fragments for strides {s.strides}, but "
                             f"{parent.name!r} {s} has {len(s.mfp_offsets)}. Use mfp=True in every pooling layer "
                             "and batch size 1.")

    def _make_output(self):
        s = self.parent.shape
        self.output = C.fragments2dense(self.parent.output, s.mfp_offsets.tolist(), [int(v) for v in s.strides])

    def _calc_shape(self):
        s = self.parent.shape
        strides = [int(v) for v in s.strides]
        sizes = [None if n is None else n * t for n, t in zip(s.spatial_shape, strides)]
        self.shape = s._new(strides=None, mfp_offsets=None, padded=[m * t for m, t in zip(s.padded, strides)])
        self.shape = self.shape.with_spatial(sizes).updateshape("b", 1)

    def _axis_size(self, k, *sizes, mfp=False):
        return sizes[0] * int(self.parent.shape.strides[k])

    def _calc_comp_cost(self):
        self.computational_cost = 0


class Crop(Node):
    """Remove ``crop[k]`` voxels from both ends of spatial axis k. Input (b, f, *L), output (b, f, *L - 2 crop).

    ``crop``: one number per spatial axis, or one for all. ValueError if nothing would be left.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> nm.Crop(nm.Input((1, 4, 9, 20), 'b,f,x,y', print_repr=False), (1, 4), print_repr=False).shape
    [(1,b), (4,f), (7,x), (12,y)]
    """

    def __init__(self, parent, crop, name="crop", print_repr=True):
        super().__init__(parent, name, print_repr)
        self.crop = as_tuple(crop, parent.shape.ndim, f"crop of Crop {name!r}", minimum=0)
        for k, n in enumerate(parent.shape.spatial_shape):
            self._axis_size(k, n)

    def _axis_size(self, k, *sizes, mfp=False):
        n, c = sizes[0], self.crop[k]
        if n is not None and n <= 2 * c:
            raise ValueError(f"Crop {self.name!r}: cannot remove 2 x {c} voxels from spatial axis "
                             f"{self.parent.shape.spatial_tags[k]!r} of length {n}.")
        return None if n is None else n - 2 * c

    def _make_output(self):
        self.output = C.crop(self.parent.output, self.crop, self.parent.shape.spatial_axes)

    def _calc_shape(self):
        s = self.parent.shape
        self.shape = s.shifted(self.crop).with_spatial([self._axis_size(k, n) for k, n in enumerate(s.spatial_shape)])

    def _calc_comp_cost(self):
        self.computational_cost = 0


class Pad(Node):
    """Add ``pad[k]`` voxels of ``value`` to both ends of spatial axis k. Input (b, f, *L), output (b, f, *L + 2 pad).

    ``pad``: one number per spatial axis, or one for all.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> y = nm.Pad(nm.Input((1, 1, 2), 'b,f,x', print_repr=False), 1, value=9, print_repr=False)
    >>> y(np.array([[[1, 2]]], 'float32'))
    array([[[9., 1., 2., 9.]]], dtype=float32)
    """

    def __init__(self, parent, pad, value=0.0, name="pad", print_repr=True):
        super().__init__(parent, name, print_repr)
        self.pad = as_tuple(pad, parent.shape.ndim, f"pad of Pad {name!r}", minimum=0)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"value of Pad {name!r} must be a number, got {value!r}.")
        self.value = float(value)

    def _axis_size(self, k, *sizes, mfp=False):
        return None if sizes[0] is None else sizes[0] + 2 * self.pad[k]

    def _make_output(self):
        self.output = C.pad(self.parent.output, self.pad, self.parent.shape.spatial_axes, self.value)

    def _calc_shape(self):
        s = self.parent.shape
        self.shape = s.shifted([-p for p in self.pad]).with_spatial(
            [self._axis_size(k, n) for k, n in enumerate(s.spatial_shape)])

    def _calc_comp_cost(self):
        self.computational_cost = 0
