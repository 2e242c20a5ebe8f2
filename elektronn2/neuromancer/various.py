"""Nodes for special purposes: other axes for the same values."""
from elektronn2.neuromancer import computations
from elektronn2.neuromancer.node import Node
from elektronn2.neuromancer.shape import TaggedShape

__all__ = ["Reshape"]


class Reshape(Node):
    """The same values, in order, on other axes. Input (b, f, *L), output ``shape``, of as many elements.

    ``shape``: TaggedShape; or sizes, with ``tags``, ``strides`` and ``fov``. One size may be None: it is what is left, and
    stays open if the parent has an open size. Where all axes from the first spatial one on stay as they are, they keep
    their strides and positions, unless others are given.

    Raises ValueError if tags are missing or the numbers of elements differ.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((None, 6, 4), 'b,f,x', print_repr=False)
    >>> nm.Reshape(x, (None, 2, 3, 4), 'b,s,f,x', print_repr=False).shape
    [(None,b), (2,s), (3,f), (4,x)]
    """

    def __init__(self, parent, shape, tags=None, strides=None, fov=None, name="reshape", print_repr=True):
        super().__init__(parent, name, print_repr)
        before, where = parent.shape, f"Reshape {name!r} of {parent.name!r} {parent.shape}"
        if isinstance(shape, TaggedShape):
            if not (tags is strides is fov is None):
                raise ValueError(f"{where}: tags, strides and fov are those of the TaggedShape {shape}; do not give others.")
            self._declared = _with_size_left(shape, before, where)
        elif tags is None:
            raise ValueError(f"{where}: sizes {shape!r} need tags, like 'b,f,x,y'.")
        else:
            self._declared = _with_size_left(TaggedShape(shape, tags, strides, fov=fov), before, where)
            if strides is None and fov is None:
                self._declared = _with_kept_space(self._declared, before)
        if len(before.mfp_offsets) > 1 and len(self._declared.mfp_offsets) != len(before.mfp_offsets):
            raise ValueError(f"{where}: axis b holds {len(before.mfp_offsets)} MFP fragments; use FragmentsToDense first.")

    def _make_output(self):
        open_axis = None if None in self._declared.shape else "b"  # dense prediction runs with a batch size of its own
        sizes = [-1 if n is None or t == open_axis else n for n, t in zip(self._declared, self._declared.tags)]
        self.output = computations.reshape(self.parent.output, sizes)

    def _calc_shape(self):
        self.shape = self._declared

    def _calc_comp_cost(self):
        self.computational_cost = 0

    def _axis_size(self, k, *sizes, mfp=False):
        before, after = self.parent.shape.spatial_shape, self._declared.spatial_shape
        if k < len(before) and sizes[0] != before[k]:
            raise ValueError(f"Reshape {self.name!r}: its sizes {self._declared} are fixed for {self.parent.name!r} "
                             f"{self.parent.shape}, which cannot get length {sizes[0]} on spatial axis {k}.")
        return after[k] if k < len(after) else None


def _with_size_left(shape, before, where):
    """``shape`` with the size that is None worked out from those of ``before``, or open if one of those is."""
    wanted, had = shape.stripnone_prod, before.stripnone_prod
    n_open, n_before = shape.shape.count(None), before.shape.count(None)
    if n_open > 1 or (n_before and n_open != n_before):
        raise ValueError(f"{where}: to become {shape}, exactly one size may be None"
                         f"{', as the parent has open sizes' * bool(n_before)}.")
    if had != wanted if n_before == n_open else (not wanted or had % wanted):
        raise ValueError(f"{where}: its {had} elements (open sizes not counted) do not fit {shape}, which has {wanted}. "
                         "Give None for one size, and it is worked out.")
    if n_open and not n_before:
        return shape.updateshape(shape.shape.index(None), had // wanted)
    return shape


def _with_kept_space(shape, before):
    """``shape`` with the geometry of ``before``, if the first axis and all from the first spatial one on are the same."""
    if not shape.ndim or not before.ndim:
        return shape
    new, old = ([(t, n) for t, n in zip(s.tags, s)] for s in (shape, before))
    same = new[0] == old[0] and new[shape.spatial_axes[0]:] == old[before.spatial_axes[0]:]
    return before._new(shape=shape.shape, tags=shape.tags) if same else shape
