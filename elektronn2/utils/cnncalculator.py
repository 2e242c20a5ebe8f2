"""Sizes along one axis: what fits through filters and pools, and which patch is nearest.

All rules are functions of plain integers. The shape rules of the nodes, dense prediction and
:func:`cnncalculator` call the same ones.
"""
import logging

from elektronn2.utils.validate import as_tuple

logger = logging.getLogger("elektronn2log")

MAX_PATCH = 5000


def conv_size(n, f, p=1, mode="valid", mfp=False, axis="?", stride=1, dilation=1):
    """Length after a convolution with ``f`` taps and max-pooling by ``p``; ``None`` stays ``None``.

    ``mode``: 'valid', 'same' (odd f) or 'full': zero padding of 0, half or all of (f - 1) * ``dilation`` at both ends,
    then windows of (f - 1) * dilation + 1 voxels every ``stride``. With ``mfp`` the length is that of each of the
    stride * p fragments.

    >>> conv_size(23, 4, 2)
    10
    >>> conv_size(23, 3, mode='same', stride=2)
    12

    Raises ValueError naming the axis if windows or pooling would drop voxels or nothing is left.
    """
    if n is None:
        return None
    extent = (f - 1) * dilation
    positions = n + {"valid": -extent, "same": 0, "full": extent}[mode]
    step = stride * p
    out, rest = _steps(positions, (p - 1) * stride + 1, step, mfp)
    if rest:
        how = (f" and stride {stride}" if stride > 1 else "") + (f" and dilation {dilation}" if dilation > 1 else "")
        how += " and using MFP" if mfp else ""
        raise ValueError(
            f"Cannot pool spatial axis {axis!r} of length {n} by factor {p} after convolving with kernel "
            f"of size {f}{how}. Nearest length that fits here: {n - rest}." if p > 1 else
            f"Cannot convolve spatial axis {axis!r} of length {n} with kernel of size {f}{how}: the last window would be "
            f"incomplete. Nearest length that fits here: {n - rest}." if positions > 0 and step > 1 else
            f"Spatial axis {axis!r} of length {n} is too short for a kernel of size {f}{how}: "
            f"it needs at least {n - rest}.")
    return out


def pool_size(n, p, t, mfp=False, axis="?"):
    """Length after pooling windows of ``p`` with step ``t``; incomplete windows are an error.

    >>> pool_size(9, 3, 2)
    4
    """
    if n is None:
        return None
    out, rest = _steps(n, p, t, mfp)
    if rest:
        how = " and using MFP" if mfp else ""
        raise ValueError(f"Cannot pool spatial axis {axis!r} of length {n} with windows of {p} and step {t}{how}. "
                         f"Nearest length that fits here: {n - rest}.")
    return out


def _steps(n, window, step, mfp):
    """(number of windows every ``step``, voxels that are left over or, negative, missing); ``mfp``: at all shifts."""
    last = n - window - (step - 1 if mfp else 0)
    return last // step + 1, last % step if last >= 0 else last


def upsampled_size(n, p, f=None, mode="valid", axis="?"):
    """Length after upsampling by ``p`` with a kernel of ``f`` taps (default ``p``); ``None`` stays ``None``.

    ``mode`` 'full': all voxels that see any input, (n - 1) * p + f; 'same': n * p; 'valid': those that see no border.

    >>> upsampled_size(5, 2), upsampled_size(5, 2, 4), upsampled_size(5, 2, 4, 'full')
    (10, 8, 12)

    Raises ValueError naming the axis if nothing is left.
    """
    if n is None:
        return None
    f = p if f is None else f
    out = n * p + {"valid": p - f, "same": 0, "full": f - p}[mode]
    if out < 1:
        raise ValueError(f"Spatial axis {axis!r} of length {n} is too short for upsampling by {p} with a kernel of size "
                         f"{f}: it needs at least {f // p}.")
    return out


class Chain:
    """Sizes, fields of view and strides along one axis of layers ``conv(f) -> pool(p)``."""

    def __init__(self, filters, pools, mfp):
        self.layers = list(zip(filters, pools, mfp))

    def size(self, n):
        for f, p, m in self.layers:
            n = conv_size(n, f, p, mfp=m and p > 1)
        return n

    def sizes(self, n):
        """Per layer (before pooling, after pooling)."""
        result = []
        for f, p, m in self.layers:
            unpooled = n - f + 1
            n = conv_size(n, f, p, mfp=m and p > 1)
            result.append((unpooled, n))
        return result

    def fields_and_strides(self):
        field, stride, fields, strides = 1, 1, [], []
        for f, p, _ in self.layers:
            field += (f + p - 2) * stride
            stride *= p
            fields.append(field)
            strides.append(stride)
        return fields, strides


def fits(size_rule, n):
    """Whether ``size_rule(n)`` accepts the length."""
    try:
        return size_rule(n) >= 1
    except ValueError:
        return False


def nearest_size(size_rule, desired, axis="?"):
    """Nearest length that ``size_rule`` accepts: the largest up to ``desired``, else the smallest above.

    Raises ValueError if none below 5000 fits.
    """
    start = MAX_PATCH - 1 if desired is None else desired
    for n in (*range(start, 0, -1), *range(start + 1, MAX_PATCH)):
        if fits(size_rule, n):
            return n
    raise ValueError(f"No patch size below {MAX_PATCH} fits the layers on axis {axis}.")


def nearest_patch(rules, desired, log=logger.info):
    """Per axis the nearest valid size; a line is logged for every size that changes."""
    patch = []
    for axis, (rule, want) in enumerate(zip(rules, desired)):
        got = nearest_size(rule, want, axis)
        if want is not None and got != want:
            log(f"patch_size ({want}) changed to ({got}) (size not possible)")
        patch.append(got)
    return patch


class CNNCalculator:
    """Result of :func:`cnncalculator`; lists of lists (one per axis) if ndim > 1.

    Attributes: ``patch_size``; ``valid_patch_sizes`` (alias ``valid_inputs``); ``fields`` (cumulative
    field of view per layer, voxels), ``stride``, ``out`` (unpooled sizes), ``pool_out``, ``overlap``
    (field - stride), ``offset`` (half the last field, a float), ``pred_stride``.
    """

    def __init__(self, axes):
        single = len(axes) == 1
        for name in axes[0]:
            values = [a[name] for a in axes]
            setattr(self, name, values[0] if single else values)
        self._axes = axes

    @property
    def valid_inputs(self):
        return self.valid_patch_sizes

    def __repr__(self):
        def rows(name):
            per_axis = [reversed(a[name]) for a in self._axes]
            return [v[0] if len(v) == 1 else v for v in zip(*per_axis)]
        return (f"patch_size: {self.patch_size}\nLayer/Fragment sizes:\t{rows('pool_out')}\n"
                f"Unpooled Layer sizes:\t{rows('out')}\nReceptive fields:\t{rows('fields')}\n"
                f"Strides:\t\t{rows('stride')}\nOverlap:\t\t{rows('overlap')}\nOffset:\t\t{self.offset}\n"
                "If offset is non-int: output neurons lie centered on patch_size neurons, they have an odd FOV.\n")


def _per_axis(value, ndim):
    """Scalars of a layer list broadcast to ``ndim`` axes: list over axes of lists over layers."""
    if not isinstance(value, (list, tuple)):
        value = [value]
    layers = [v if isinstance(v, (list, tuple)) else (v,) * ndim for v in value]
    return [list(axis) for axis in zip(*layers)]


def _chains(filters, poolings, mfp, ndim):
    if filters and isinstance(filters[0], (list, tuple)):
        ndim = len(filters[0])
    if len(filters) != len(poolings):
        raise ValueError(f"{len(filters)} filters but {len(poolings)} poolings: one of each per layer is needed.")
    active = list(mfp) if isinstance(mfp, (list, tuple)) else [bool(mfp)] * len(filters)
    if len(active) != len(filters):
        raise ValueError(f"mfp needs one value or one per layer ({len(filters)}), got {len(active)}.")
    return [Chain(f, p, active) for f, p in zip(_per_axis(filters, ndim), _per_axis(poolings, ndim))]


def cnncalculator(filters, poolings=None, desired_patch_size=None, mfp=False, force_center=False,
                  desired_output=None, ndim=1):
    """Sizes and nearest valid patch of a network.

    ``filters``, ``poolings``: one entry per layer (a number, or one number per axis) of a chain
    conv -> pool -> conv -> ...; or ``filters`` is a node or model of any graph, and ``poolings``
    is left out (then: the patch sizes and the geometry of its prediction; no per-layer lists).
    ``desired_patch_size`` in voxels: taken if valid, else the largest valid one below it, else the
    smallest valid one; ``desired_output``: the smallest patch with at least that many output voxels.
    ``mfp``: for max-fragment pooling (True, or one value per layer).

    >>> cnncalculator([4, 3, 3], [2, 2, 1], 100).patch_size
    99

    Raises ValueError if nothing fits, or for an even field of view with ``force_center``.
    """
    if hasattr(filters, "axis_rules"):
        return _of_graph(filters, desired_patch_size, mfp, force_center, desired_output)
    chains = _chains(filters, poolings, mfp, ndim)
    rules = [c.size for c in chains]
    valid = [[n for n in range(2, MAX_PATCH) if fits(r, n)] for r in rules]
    patch = _choose(rules, desired_patch_size, desired_output, valid)
    axes = []
    for chain, n, sizes in zip(chains, patch, valid):
        fields, strides = chain.fields_and_strides()
        _check_center(fields[-1], force_center)
        out, pool_out = zip(*chain.sizes(n))
        active = any(m for _, _, m in chain.layers)
        axes.append(dict(patch_size=n, valid_patch_sizes=sizes, fields=fields, stride=strides, out=list(out),
                         pool_out=list(pool_out), overlap=[f - s for f, s in zip(fields, strides)],
                         offset=fields[-1] / 2, pred_stride=1 if active else strides[-1]))
    return CNNCalculator(axes)


def _of_graph(graph, desired, mfp, force_center, desired_output):
    shape, rules = graph.axis_rules(mfp)
    valid = [[n for n in range(2, MAX_PATCH) if fits(r, n)] for r in rules]
    patch = _choose(rules, desired, desired_output, valid)
    axes = []
    for n, sizes, rule, fov, stride in zip(patch, valid, rules, shape.fov, shape.strides):
        _check_center(fov, force_center)
        axes.append(dict(patch_size=n, valid_patch_sizes=sizes, fields=[fov], stride=[stride], out=[rule(n)],
                         pool_out=[rule(n)], overlap=[fov - stride], offset=float(fov) / 2,
                         pred_stride=1 if mfp else stride))
    return CNNCalculator(axes)


def _choose(rules, desired, desired_output, valid):
    if desired_output is not None:
        wanted = as_tuple(desired_output, len(rules), "desired_output")
        patch = []
        for axis, (rule, out, sizes) in enumerate(zip(rules, wanted, valid)):
            big_enough = [n for n in sizes if rule(n) >= out]
            if not big_enough:
                raise ValueError(f"No patch below {MAX_PATCH} gives {out} output voxels on axis {axis}.")
            patch.append(big_enough[0])
        return patch
    wanted = [None] * len(rules) if desired is None else as_tuple(desired, len(rules), "desired_patch_size")
    return nearest_patch(rules, wanted)


def _check_center(field, force_center):
    if field % 2 == 0:
        message = (f"The field of view ({field}) is even: output voxels lie between input voxels. "
                   "Change one filter by one to make it odd.")
        if force_center:
            raise ValueError(message)
        logger.warning(message)


def get_valid_patch_sizes(filters, poolings, mfp=False, ndim=1):
    """All valid patch sizes from 2 to 4999: a list, or one list per axis if ndim > 1."""
    valid = [[n for n in range(2, MAX_PATCH) if fits(c.size, n)] for c in _chains(filters, poolings, mfp, ndim)]
    return valid[0] if len(valid) == 1 else valid


def get_closest_valid_patch_size(filters, poolings, desired_patch_size=100, mfp=False, ndim=1):
    """The valid patch size nearest to the desired one, as :func:`cnncalculator` chooses it."""
    chains = _chains(filters, poolings, mfp, ndim)
    patch = nearest_patch([c.size for c in chains], as_tuple(desired_patch_size, len(chains), "desired_patch_size"))
    return patch[0] if len(patch) == 1 else patch


get_cloesest_valid_patch_size = get_closest_valid_patch_size  # the name that existing scripts use

# ``import elektronn2.utils.cnncalculator as cc`` gives the function, as elektronn2.utils has it under the same name
cnncalculator.__dict__.update({f: globals()[f] for f in (
    "cnncalculator", "get_valid_patch_sizes", "get_closest_valid_patch_size", "get_cloesest_valid_patch_size")})
