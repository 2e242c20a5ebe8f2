"""Random networks of everything that moves voxels, as a hypothesis strategy, for tests of geometry.

A recipe is (ndim, list of steps); a step is (operation, arguments), where a tuple has one value per axis. ``trace`` works
out sizes and positions of a recipe without the library.
"""
from fractions import Fraction
from itertools import chain
from math import prod

from hypothesis import HealthCheck, reject, settings
from hypothesis import strategies as st

from elektronn2 import neuromancer as nm

SETTINGS = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FEATURES = 2


# -- what a recipe may be made of -------------------------------------------------------------------------
def per_axis(ndim, *values):
    return st.tuples(*[st.sampled_from(values)] * ndim)


def convs(ndim, modes):
    one = (1,) * ndim
    return st.sampled_from(modes).flatmap(lambda mode: st.fixed_dictionaries(dict(
        filter_shape=per_axis(ndim, 1, 3) if mode == "same" else per_axis(ndim, 1, 2, 2, 3, 4), conv_mode=st.just(mode),
        pool_shape=st.just(one) | per_axis(ndim, 1, 1, 2, 3 if ndim < 3 else 2),
        stride=st.just(one) | per_axis(ndim, 1, 2, 3 if ndim < 3 else 2),
        dilation=st.just(one) | per_axis(ndim, 1, 2, 3), groups=st.sampled_from([1, 2]))))


def ups(ndim, modes):
    """Arguments of an UpConv but its factor: what its kernel is longer by is even for 'same'."""
    return st.sampled_from(modes).flatmap(lambda mode: st.fixed_dictionaries(dict(
        conv_mode=st.just(mode), extra=per_axis(ndim, 0, 2) if mode == "same" else per_axis(ndim, 0, 0, 1, 2))))


def convs_of_one(filters, ndim):
    """A plain convolution, which keeps a later merge aligned if its filter is odd."""
    return per_axis(ndim, *filters).map(lambda f: ("Conv", dict(
        filter_shape=f, pool_shape=(1,) * ndim, conv_mode="valid", stride=(1,) * ndim, dilation=(1,) * ndim, groups=1)))


def steps(ndim, upsampling, padding):
    """Lists of steps: one operation, or down, up again and joined with what was before."""
    modes = ["valid", "valid", "same", "full"] if padding else ["valid"]
    pool = per_axis(ndim, 1, 2, 3 if ndim < 3 else 2)
    kinds = dict(
        Conv=convs(ndim, modes),
        Pool=st.fixed_dictionaries(dict(pool_shape=pool, stride=st.none() | pool, mode=st.sampled_from(["max", "average"]))),
        Crop=st.fixed_dictionaries(dict(crop=per_axis(ndim, 0, 1))), push=st.just({}),
        merge=st.tuples(st.sampled_from(["concat", "add"]), st.sampled_from(["upconv", "nearest", "linear"]),
                        ups(ndim, modes)).map(lambda a: dict(merge_mode=a[0], upsampling=a[1], **a[2])))
    if padding:
        kinds["Pad"] = st.fixed_dictionaries(dict(pad=per_axis(ndim, 0, 1, 2)))
    if upsampling:
        kinds["UpConv"] = st.tuples(per_axis(ndim, 1, 2, 3), ups(ndim, modes)).map(lambda a: dict(pool_shape=a[0], **a[1]))
    if upsampling and padding:  # what 'linear' does at the border is padding
        kinds["Upsample"] = st.fixed_dictionaries(dict(factor=per_axis(ndim, 1, 2, 3),
                                                       mode=st.sampled_from(["nearest", "linear"])))
    names = [k for k, n in dict(Conv=6, Pool=3, Crop=1, push=3, merge=4, Pad=1, UpConv=2, Upsample=2).items()
             for _ in range(n) if k in kinds]
    single = st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), kinds[name])).map(lambda s: [s])
    down = st.tuples(st.just("Pool"), kinds["Pool"]) | st.tuples(st.just("Conv"), kinds["Conv"])
    unet = st.tuples(st.just(("push", {})), convs_of_one([1, 3], ndim), down, convs_of_one([1, 3], ndim),
                     st.tuples(st.just("merge"), kinds["merge"]))
    return single | single | unet.map(list)


@st.composite
def recipes(draw, upsampling=True, padding=True):
    """Recipes of networks that can be built, and whose output has a place on the input's grid."""
    ndim = draw(st.sampled_from([1, 2, 2, 3]))
    recipe, pushed = [], 0
    for name, a in chain(*draw(st.lists(steps(ndim, upsampling, padding), min_size=1, max_size=4))):
        pushed += {"push": 1, "merge": -1}.get(name, 0)
        if pushed < 0:
            pushed = 0
        else:
            recipe.append((name, a))
    if not any(name not in ("push", "merge") for name, _ in recipe) or shifts(recipe) > 64:
        reject()
    recipe = ndim, recipe
    try:
        size = legal_size(recipe, [8] * ndim, upsampling)
    except Impossible:
        reject()
    strides = [s for _, s, _ in trace(recipe, size, upsampling)]
    if any(s.numerator > 1 and s.denominator > 1 for s in strides) or max(size) > (40 if ndim < 3 else 24):
        reject()
    return recipe


def shifts(steps):
    """Shifts of the coarsest grid, if all steps follow each other: what a dense prediction costs grows with it."""
    return prod(prod(a["pool_shape"]) * prod(a["stride"]) if name == "Conv" else prod(a["stride"] or a["pool_shape"])
                for name, a in steps if name in ("Conv", "Pool"))


def pads(recipe):
    """Whether some voxels see less than their window."""
    return any(name == "Pad" or a.get("conv_mode", "valid") != "valid" or "linear" in a.values() for name, a in recipe[1])


# -- sizes and positions ----------------------------------------------------------------------------------
class Impossible(Exception):
    """No size fits."""


class Misfit(Exception):
    """The size of one axis does not fit; ``args``: the axis."""


def slide(k, n, s, c, window, step):
    if n < window or (n - window) % step:
        raise Misfit(k)
    return (n - window) // step + 1, s * step, c + Fraction(window - 1, 2) * s


def shift(k, n, s, c, crop):
    if n <= 2 * crop:
        raise Misfit(k)
    return n - 2 * crop, s, c + crop * s


def spread(k, n, s, c, factor, taps, mode="full"):
    out = (n - 1) * factor + taps, s / factor, c - Fraction(taps - 1, 2) * s / factor
    extra = taps - factor
    return shift(k, *out, {"full": 0, "same": extra // 2, "valid": extra}[mode])


def step(k, axis, name, a):
    """(length, stride, centre) of axis k after one operation."""
    if name == "Conv":
        extent = (a["filter_shape"][k] - 1) * a["dilation"][k]
        axis = shift(k, *axis, {"valid": 0, "same": -extent // 2, "full": -extent}[a["conv_mode"]])
        axis = slide(k, *axis, extent + 1, a["stride"][k])
        return slide(k, *axis, a["pool_shape"][k], a["pool_shape"][k])
    if name == "Pool":
        return slide(k, *axis, a["pool_shape"][k], (a["stride"] or a["pool_shape"])[k])
    if name == "Crop":
        return shift(k, *axis, a["crop"][k])
    if name == "Pad":
        return shift(k, *axis, -a["pad"][k])
    if name == "UpConv":
        return spread(k, *axis, a["pool_shape"][k], a["pool_shape"][k] + a["extra"][k], a["conv_mode"])
    return spread(k, *axis, a["factor"][k], a["factor"][k])


def merge(a, left, right, upsampling):
    """Axes of two branches joined: the one of larger stride upsampled, the longer one cropped."""
    low, high = (left, right) if any(r[1] < n[1] for n, r in zip(left, right)) else (right, left)
    ratios = [n[1] / h[1] for n, h in zip(low, high)]
    if any(r > 1 for r in ratios):
        if not upsampling or any(r.denominator > 1 for r in ratios):
            raise Impossible
        extra, mode = (a["extra"], a["conv_mode"]) if a["upsampling"] == "upconv" else ([0] * len(low), "full")
        low = [spread(k, *axis, int(r), int(r) + extra[k], mode) for k, (axis, r) in enumerate(zip(low, ratios))]
    joined = []
    for k, (one, two) in enumerate(zip(low, high)):
        if (one[0] - two[0]) % 2:
            raise Misfit(k)
        one, two = (shift(k, *x, max(x[0] - y[0], 0) // 2) for x, y in ((one, two), (two, one)))
        if one != two:
            raise Impossible
        joined.append(one)
    return joined


def trace(recipe, size, upsampling=True):
    """(length, stride, centre of voxel 0) per axis of the output; Misfit or Impossible if there is none."""
    axes, stack = [(n, Fraction(1), Fraction(0)) for n in size], []
    for name, a in recipe[1]:
        if name == "push":
            stack.append(axes)
        elif name == "merge":
            axes = merge(a, stack.pop(), axes, upsampling)
        else:
            axes = [step(k, axis, name, a) for k, axis in enumerate(axes)]
    return axes


def legal_size(recipe, start, upsampling=True, limit=80):
    """The smallest input from ``start`` voxels per axis that fits."""
    size = list(start)
    while True:
        try:
            trace(recipe, size, upsampling)
            return size
        except Misfit as misfit:
            k, = misfit.args
            size[k] += 1
            if size[k] > start[k] + limit:
                raise Impossible from misfit


# -- the network ------------------------------------------------------------------------------------------
def build(recipe, size, upsampling=True, linear=False):
    """Model of a recipe for an input of ``size``; ``linear``: without activations, and with 0 for padding."""
    ndim, steps = recipe
    model = nm.model_manager.newmodel(None)
    quiet = dict(print_repr=False)
    layer = dict(activation_func="lin" if linear else "tanh", **quiet)
    node = nm.Input((1, 1, *size), "b,f," + ",".join("zyx"[-ndim:] if ndim < 3 else "zxy"), name="raw", **quiet)
    source, stack = node, []

    def plain(node):
        return node if node.shape["f"] == FEATURES else nm.Conv(node, FEATURES, 1, **layer)

    def taps(a, factor):
        return dict(filter_shape=[f + e for f, e in zip(factor, a["extra"])], conv_mode=a["conv_mode"])
    for name, a in steps:
        if name == "push":
            node = plain(node)
            stack.append(node)
        elif name == "merge":
            left, right = stack.pop(), plain(node)
            kwargs = layer
            if a["upsampling"] == "upconv":
                factor = [max(Fraction(p) / Fraction(q), Fraction(q) / Fraction(p))
                          for p, q in zip(left.shape.strides, right.shape.strides)]
                kwargs = dict(layer, **taps(a, map(int, factor)))
            node = nm.AutoMerge(left, right, FEATURES, a["merge_mode"], not upsampling, kwargs, upsampling=a["upsampling"],
                                **quiet)
        elif name == "Conv":
            node = nm.Conv(node, FEATURES, **dict(a, groups=a["groups"] if node.shape["f"] > 1 else 1), **layer)
        elif name == "UpConv":
            node = nm.UpConv(node, FEATURES, a["pool_shape"], **taps(a, a["pool_shape"]), **layer)
        else:
            extra = dict(value=0.0 if linear else 0.5) if name == "Pad" else {}
            node = getattr(nm, name)(node, **a, **extra, **quiet)
    model.designate_nodes(source, prediction_node=node)
    return model
