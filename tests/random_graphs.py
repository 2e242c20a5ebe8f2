"""Random networks of convolutions, pools, upsamplings, crops, pads and merges, for tests of geometry."""
from fractions import Fraction

import numpy as np

from elektronn2 import neuromancer as nm

OPS = ("conv", "conv", "convpool", "pool", "up", "crop", "pad", "same", "full", "push", "merge", "merge")


def random_recipe(rng, upsampling=True, padding=True):
    """(ndim, list of steps); a step is (operation, argument). May be impossible to build: build() then raises."""
    ndim = int(rng.choice([1, 2, 2, 3]))
    steps, pushed = [], 0

    def per_axis(low, high):
        return tuple(int(v) for v in rng.integers(low, high + 1, ndim))
    for _ in range(int(rng.integers(3, 8))):
        op = str(rng.choice(OPS))
        if op == "conv":
            steps.append(("conv", per_axis(1, 4)))
        elif op == "convpool":
            steps.append(("convpool", (per_axis(1, 4), per_axis(1, 3 if ndim < 3 else 2))))
        elif op == "pool":
            pool = per_axis(1, 3 if ndim < 3 else 2)
            stride = tuple(int(rng.integers(1, p + 1)) for p in pool) if rng.random() < 0.3 else pool
            mode = str(rng.choice(["max", "average"]))
            steps.append(("pool", (pool, stride, mode)))
        elif op == "up" and upsampling:
            steps.append(("up", per_axis(1, 2)))
        elif op == "crop":
            steps.append(("crop", per_axis(0, 1)))
        elif op == "pad" and padding:
            steps.append(("pad", per_axis(0, 2)))
        elif op in ("same", "full") and padding:
            steps.append((op, tuple(int(v) for v in rng.choice([1, 3], ndim))))
        elif op == "push":
            steps.append(("push", None))
            pushed += 1
        elif op == "merge" and pushed:
            steps.append(("merge", str(rng.choice(["concat", "add"]))))
            pushed -= 1
    return ndim, steps


def build(recipe, size, upsampling=True, activation="tanh"):
    """Model of a recipe for an input of ``size``; raises ValueError if it does not fit or is misaligned."""
    ndim, steps = recipe
    model = nm.model_manager.newmodel(None)
    tags = "b,f," + ",".join("zyx"[-ndim:] if ndim < 3 else "zxy")
    common = dict(activation_func=activation, print_repr=False)
    try:
        source = node = nm.Input((1, 1, *size), tags, name="raw", print_repr=False)
        stack, features = [], 2
        for op, a in steps:
            if op in ("conv", "same", "full"):
                node = nm.Conv(node, features, a, conv_mode="valid" if op == "conv" else op, **common)
            elif op == "convpool":
                node = nm.Conv(node, features, *a, **common)
            elif op == "pool":
                node = nm.Pool(node, a[0], stride=a[1], mode=a[2], print_repr=False)
            elif op == "up":
                node = nm.UpConv(node, features, a, **common)
            elif op == "crop":
                node = nm.Crop(node, a, print_repr=False)
            elif op == "pad":
                node = nm.Pad(node, a, value=0.5, print_repr=False)
            elif op == "push":
                if node.shape["f"] != features:
                    node = nm.Conv(node, features, (1,) * ndim, **common)
                stack.append(node)
            elif op == "merge":
                if node.shape["f"] != features:
                    node = nm.Conv(node, features, (1,) * ndim, **common)
                node = nm.UpConvMerge(stack.pop(), node, features, merge_mode=a, disable_upconv=not upsampling,
                                      upconv_kwargs=common, print_repr=False)
        if node is source:
            raise ValueError("an empty network")
        node = nm.Conv(node, 2, (1,) * ndim, name="out", activation_func="lin", print_repr=False)
        model.designate_nodes(source, prediction_node=node)
    except ValueError:
        nm.model_manager.discard(model.name)
        raise
    return model


def legal_size(recipe, start, upsampling=True, limit=40, activation="tanh"):
    """(size, model) of the smallest input from ``start`` voxels per axis that fits; ValueError if none does."""
    size = list(start)
    while True:
        try:
            model = build(recipe, size, upsampling, activation)
        except ValueError as error:
            last = error
        else:
            return tuple(size), model
        # axes are independent: find each one with the others at whatever makes that axis the only obstacle
        size = _next(recipe, size, start, upsampling, limit, last)


def _next(recipe, size, start, upsampling, limit, error):
    """Axis by axis search with a one-dimensional version of the recipe."""
    ndim, steps = recipe

    def one_axis(k):
        def pick(a):
            if isinstance(a, tuple) and a and isinstance(a[0], tuple):
                return tuple(pick(v) if isinstance(v, tuple) else v for v in a)
            return (a[k],) if isinstance(a, tuple) else a
        return 1, [(op, pick(a)) for op, a in steps]
    found = []
    for k in range(ndim):
        sub = one_axis(k)
        for n in range(start[k], start[k] + limit):
            try:
                model = build(sub, (n,), upsampling)
            except ValueError:
                continue
            nm.model_manager.discard(model.name)
            found.append(n)
            break
        else:
            raise ValueError(f"no size fits: {error}")
    if found == list(size):
        raise ValueError(f"no size fits: {error}")
    return found


def random_networks(seed, count, **options):
    """Yield ``count`` (recipe, size, model) that can be built."""
    rng = np.random.default_rng(seed)
    upsampling = options.get("upsampling", True)
    made = 0
    while made < count:
        recipe = random_recipe(rng, **options)
        try:
            size, model = legal_size(recipe, [10 if recipe[0] < 3 else 8] * recipe[0], upsampling)
        except ValueError:
            continue
        strides = [Fraction(s) for s in model.prediction_node.shape.strides]
        if any(s.numerator > 1 and s.denominator > 1 for s in strides):
            continue  # 3/2 voxels: such an output has no place on the input's grid
        made += 1
        yield recipe, size, model
