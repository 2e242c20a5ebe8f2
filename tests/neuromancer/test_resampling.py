"""Strided, dilated, grouped and transposed convolution, and upsampling: numbers against slow numpy, geometry against
impulses."""
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import reference as R
import torch
from test_nodes import check, check_gradients, positive, randomise, responses, source, windows

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer import computations, serialize
from elektronn2.neuromancer.dense import geometry
from elektronn2.utils.cnncalculator import cnncalculator, conv_size, upsampled_size

pytestmark = pytest.mark.usefixtures("float64")
QUIET = dict(print_repr=False)

CONVS = {  # tags, sizes, filter, pool, arguments
    "strided 1d": ("b,f,x", (11,), 3, 1, dict(stride=2)),
    "strided pool 1d": ("b,f,z", (11,), 2, 2, dict(stride=3)),
    "dilated 1d": ("b,f,x", (9,), 3, 1, dict(dilation=3)),
    "strided 2d": ("b,f,x,y", (9, 8), (3, 2), 1, dict(stride=(2, 3))),
    "strided same 2d": ("b,f,y,x", (9, 7), (3, 5), 1, dict(stride=(4, 2), conv_mode="same")),
    "all full 2d": ("b,f,x,y", (6, 6), (2, 3), (2, 1), dict(stride=(2, 1), dilation=(1, 2), conv_mode="full")),
    "all same 2d": ("b,f,x,y", (7, 8), 3, (2, 1), dict(stride=(2, 1), dilation=(1, 2), conv_mode="same")),
    "all 3d": ("b,f,z,x,y", (4, 7, 7), (2, 3, 2), (1, 1, 2), dict(stride=(1, 2, 1), dilation=(2, 1, 3))),
}
convs = pytest.mark.parametrize("name", CONVS)


# -- numbers --------------------------------------------------------------------------------------------
@convs
@pytest.mark.parametrize(("n_in", "n_f", "groups"), [(1, 2, 1), (2, 3, 1), (4, 6, 2), (2, 4, 2)])
def test_conv(name, n_in, n_f, groups, rng):
    """Stride, dilation and groups, then pooling, bias and activation, against loops; one channel takes another path."""
    tags, sizes, kernel, pool, kwargs = CONVS[name]
    node = nm.Conv(source((None, n_in, *sizes), tags), n_f, kernel, pool, groups=groups, activation_func="prelu", **QUIET,
                   **kwargs)
    p = randomise(node, rng)
    x = rng.normal(size=(2, n_in, *sizes))
    y = R.naive_conv(x, p["w"], None, kwargs.get("conv_mode", "valid"), *(
        np.broadcast_to(kwargs.get(k, 1), len(sizes)).tolist() for k in ("stride", "dilation")), groups)
    y = R.naive_pool(y, node.pool_shape) + R.along(p["b"][:, 0], x)
    check(node, R.naive_activation(y, "prelu", p["b"][:, 1]), x, gradients=n_in == 4)
    if n_in == 1:
        check_gradients(node, [x], inputs=False)
    assert node.computational_cost == cost(node, n_in // groups)


def cost(node, n_in):
    """Multiply-adds by counting positions of the kernel."""
    sizes = node.parent.shape.spatial_shape
    extent = [(f - 1) * d for f, d in zip(node.filter_shape, node.dilation)]
    more = [-e if node.conv_mode == "valid" else e for e in extent]
    positions = [len(range(0, n + m, t)) for n, m, t in zip(sizes, more, node.stride)]
    return node.n_f * n_in * int(np.prod(node.filter_shape) * np.prod(positions))


@pytest.mark.parametrize(("kernel", "pad", "extra"), [
    ((2, 1, 3), "valid", dict(stride=(1, 2, 2))), ((1, 3, 3), "same", dict(stride=(1, 1, 3), dilation=(1, 2, 1))),
    ((1, 3, 3), "same", dict(dilation=(1, 1, 2), groups=3))])
@pytest.mark.parametrize("n_f", [1, 3])
def test_convolutions_whose_axes_are_reordered(kernel, pad, extra, n_f, rng):
    """Flat single-precision volumes with few features take other paths through PyTorch: the same numbers as a double
    precision convolution of all axes as they are."""
    extra = dict(extra, groups=min(n_f, extra.get("groups", 1)))
    x = torch.tensor(rng.standard_normal((1, n_f, 4, 90, 100)), dtype=torch.float32)
    w = torch.tensor(rng.standard_normal((6, n_f // extra["groups"], *kernel)), dtype=torch.float32)
    y = computations.conv(x, w, None, pad, **extra)
    width = [0 if pad == "valid" else d * (k // 2) for k, d in zip(kernel, extra.get("dilation", (1, 1, 1)))]
    expected = torch.nn.functional.conv3d(x.double(), w.double(), padding=width, **extra)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


@convs
def test_conv_mfp(name, rng):
    """Max-fragment pooling of a strided convolution: fragment i is the layer on the input moved by its shift."""
    tags, sizes, kernel, pool, kwargs = CONVS[name]
    kwargs = {k: v for k, v in kwargs.items() if k != "conv_mode"}
    kernel, pool, stride, dilation = (np.broadcast_to(v, len(sizes)).tolist() for v in (
        kernel, pool, kwargs.get("stride", 1), kwargs.get("dilation", 1)))
    steps = [t * p for t, p in zip(stride, pool)]
    size = [next(n for n in range(m, m + 20) if fits(n, *axis)) for m, *axis in zip(sizes, kernel, pool, stride, dilation)]
    node = nm.Conv(source((1, 2, *size), tags), 2, kernel, pool, mfp=True, activation_func="tanh", **kwargs, **QUIET)
    p = randomise(node, rng)
    x = rng.normal(size=(1, 2, *size))
    np.testing.assert_array_equal(node.shape.mfp_offsets, list(np.ndindex(*steps)))
    wanted = []
    for shift in np.ndindex(*steps):
        moved = x[(..., *(slice(i, n - t + 1 + i) for i, n, t in zip(shift, size, steps)))]
        y = R.naive_conv(moved, p["w"], p["b"], "valid", stride, dilation)
        wanted.append(np.tanh(R.naive_pool(y, pool)))
    check(node, np.concatenate(wanted), x)
    assert node.computational_cost == np.prod(p["w"].shape) * np.prod(
        [n - (f - 1) * d for n, f, d in zip(size, kernel, dilation)])


def fits(*numbers):
    n, f, p, t, d = numbers
    try:
        return conv_size(n, f, p, mfp=t * p > 1, stride=t, dilation=d) > 0
    except ValueError:
        return False


UPCONVS = {  # tags, sizes, factor, filter, mode
    "1d": ("b,f,x", (4,), 2, 3, "valid"), "1d same": ("b,f,x", (4,), 3, 5, "same"), "1d full": ("b,f,x", (3,), 2, 5, "full"),
    "2d": ("b,f,x,y", (3, 4), (2, 3), (4, 3), "valid"), "2d same": ("b,f,x,y", (3, 2), (2, 1), (4, 3), "same"),
    "2d full": ("b,f,y,x", (2, 3), (1, 2), 3, "full"), "3d same": ("b,f,z,x,y", (2, 2, 3), (1, 2, 2), (3, 4, 2), "same"),
}
upconvs = pytest.mark.parametrize("name", UPCONVS)


@upconvs
def test_upconv(name, rng):
    """Transposed convolution with a kernel larger than its stride, against loops."""
    tags, sizes, factor, kernel, mode = UPCONVS[name]
    node = nm.UpConv(source((None, 2, *sizes), tags), 3, factor, "tanh", filter_shape=kernel, conv_mode=mode, **QUIET)
    p = randomise(node, rng)
    x = rng.normal(size=(2, 2, *sizes))
    crop = [int((f - s) * {"valid": 1, "same": 0.5, "full": 0}[mode]) for f, s in zip(node.filter_shape, node.pool_shape)]
    check(node, np.tanh(R.naive_upconv(x, p["w"], p["b"], node.pool_shape, crop)), x)


@pytest.mark.parametrize(("factor", "kernel"), [(2, 2), (2, 3), (2, 4), (3, 5), (3, 8), (1, 3)])
def test_upconv_identity_init(factor, kernel):
    """With the identity part alone a constant stays what it is, a straight line stays one, and a kernel of twice the odd
    factor less one interpolates linearly."""
    node = nm.UpConv(source((1, 2, 9), "b,f,x"), 2, factor, "lin", filter_shape=kernel, **QUIET)
    w = node.w.get_value()
    identity = w[0, 0].copy()
    assert (w[1, 1] == identity).all() and 0 < np.abs(w[[0, 1], [1, 0]]).max() < 0.6
    node.w.set_value(np.eye(2)[:, :, None] * identity)
    np.testing.assert_allclose(node(np.ones((1, 2, 9))), 1, atol=1e-12)
    if kernel == 2 * factor - 1:
        line = node(np.arange(9.0) * np.ones((1, 2, 1)))[0, 0]
        np.testing.assert_allclose(line, float(node.shape.centre[0]) + np.arange(len(line)) / factor, atol=1e-12)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("tags", "sizes", "factor"), [
    ("b,f,x", (4,), (3,)), ("b,f,x,y", (3, 2), (2, 4)), ("b,f,y,x", (2, 3), (1, 2)), ("b,f,z,x,y", (2, 1, 3), (1, 3, 2))])
def test_upsample(tags, sizes, factor, mode, rng):
    """Both modes against the position of every voxel."""
    node = nm.Upsample(source((None, 2, *sizes), tags), factor, mode, **QUIET)
    x = rng.normal(size=(2, 2, *sizes))
    check(node, R.naive_upsample(x, factor, mode), x)


@pytest.mark.parametrize("groups", [1, 4])
def test_initial_scale(groups):
    """Glorot's variance 2 / (n_in + n_out) * taps, both counted per group; a stride counts as a pool does."""
    x = source((1, 64, 9, 9), "b,f,x,y")
    w = nm.Conv(x, 128, 3, stride=2, conv_mode="same", groups=groups, **QUIET).w.get_value()
    assert w.shape == (128, 64 // groups, 3, 3)
    wanted = np.sqrt(2 / ((64 + 128 / 4) / groups * 9))
    assert abs(w.std() / wanted - 1) < 0.03


@pytest.mark.parametrize("upsampling", ["upconv", "nearest", "linear"])
@pytest.mark.parametrize("mode", ["add", "concat"])
def test_automerge(upsampling, mode, rng):
    """Every way of upsampling: the low branch comes first, and lies where the high one does."""
    x = source((1, 1, 14, 10), "b,f,x,y")
    high = nm.Conv(x, 3, 1, activation_func="lin", **QUIET)
    low = nm.Pool(high, 2, **QUIET)
    kwargs = {"upconv": dict(filter_shape=4, conv_mode="same"), "nearest": None,
              "linear": dict(filter_shape=3, activation_func="tanh")}[upsampling]
    node = nm.AutoMerge(low, high, 3, mode, upconv_kwargs=kwargs, upsampling=upsampling, **QUIET)
    first = node.parents[0]
    assert type(first).__name__ == ("UpConv" if upsampling == "upconv" else "Conv")
    if upsampling != "upconv":
        assert first.filter_shape == ((1, 1) if upsampling == "nearest" else (3, 3))
        assert first.parent.mode == upsampling
    assert node.shape["f"] == (3 if mode == "add" else 6)
    image = rng.normal(size=(1, 1, 14, 10))
    a, b = (p(image) for p in node.parents)
    np.testing.assert_allclose(node(image), a + b if mode == "add" else np.concatenate([a, b], 1), atol=1e-12)
    with pytest.raises(ValueError, match="upsampling must be"):
        nm.AutoMerge(low, high, 3, upsampling="cubic", **QUIET)


# -- sizes ----------------------------------------------------------------------------------------------
def test_sizes_against_pytorch():
    """Length of every combination against what PyTorch computes; refused exactly if voxels would be left over, and then
    the nearest length fits."""
    for n, f, t, d, p, mode in product(range(1, 14), (1, 2, 3), (1, 2, 3), (1, 2), (1, 2), ("valid", "same", "full")):
        pad = {"valid": 0, "same": (f - 1) * d // 2, "full": (f - 1) * d}[mode]
        if mode == "same" and f % 2 == 0:
            continue
        used = n + 2 * pad - (f - 1) * d - 1
        fine = used >= 0 and used % t == 0 and (used // t + 1) % p == 0
        try:
            size = conv_size(n, f, p, mode, stride=t, dilation=d)
        except ValueError as error:
            assert not fine
            near = int(str(error).rstrip(".").split()[-1])
            assert near != n and conv_size(near, f, p, mode, stride=t, dilation=d) >= 1
            continue
        assert fine
        y = torch.nn.functional.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, f), padding=pad, stride=t, dilation=d)
        assert size == y.shape[2] // p
    for n, p, f in product(range(1, 6), (1, 2, 3), range(1, 8)):
        if f < p:
            continue
        for mode, crop in (("full", 0), ("same", (f - p) // 2), ("valid", f - p)):
            length = (n - 1) * p + f - 2 * crop
            if mode == "same" and (f - p) % 2:
                continue
            if length < 1:
                with pytest.raises(ValueError, match="too short") as error:
                    upsampled_size(n, p, f, mode)
                least = int(str(error.value).rstrip(".").split()[-1])
                assert upsampled_size(least, p, f, mode) >= 1 and (least - 1) * p + f - 2 * crop <= p
                continue
            y = torch.nn.functional.conv_transpose1d(torch.zeros(1, 1, n), torch.zeros(1, 1, f), stride=p, padding=crop)
            assert upsampled_size(n, p, f, mode) == y.shape[2] == length


def test_legal_patches_of_a_graph():
    """The search for patches knows stride, dilation and the larger kernel of a transposed convolution."""
    x = source((1, 1, 31), "b,f,x")
    y = nm.Conv(nm.Conv(x, 2, 3, stride=2, **QUIET), 2, 3, dilation=2, **QUIET)
    y = nm.UpConv(y, 2, 2, filter_shape=4, **QUIET)
    found = cnncalculator(y, desired_patch_size=40)
    assert found.patch_size == 39 and found.stride == [1]
    assert found.valid_patch_sizes[:4] == [13, 15, 17, 19]
    assert y.shape.spatial_shape == [20]


# -- geometry -------------------------------------------------------------------------------------------
def conv(x, kernel, pool=1, **kwargs):
    return nm.Conv(x, 2, kernel, pool, **QUIET, **kwargs)


CHAINS = {
    "strided": lambda x: conv(x, (3, 2), stride=(2, 3)),
    "dilated": lambda x: conv(x, (3, 2), dilation=(2, 5)),
    "strided twice": lambda x: conv(conv(x, (2, 3), (1, 2), stride=(2, 1)), (2, 3), stride=(2, 1)),
    "dilated after stride": lambda x: conv(conv(x, 2, stride=(2, 1)), 2, dilation=(2, 3)),
    "stride over the filter": lambda x: conv(x, (1, 2), stride=3),
    "depthwise": lambda x: conv(conv(x, 2), 2, groups=2, dilation=2, stride=(2, 1)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_windows(name):
    """First and last voxel that every output depends on, probed with impulses, against fov, centre and stride."""
    make = CHAINS[name]
    x = source((None, 1, 15, 17), "b,f,x,y")
    shape = [next(n for n in range(15, 40) if fit(make, k, n)) for k in range(2)]
    assert make(x) if shape == [15, 17] else True
    nm.model_manager.newmodel(None)
    node = positive(make(source((None, 1, *shape), "b,f,x,y")))
    seen, expected = responses(node)[0], windows(node)
    for k in range(2):
        ends = [edges(a, k) for a in (seen, expected)]
        np.testing.assert_array_equal(*ends)


def fit(make, k, n):
    """Whether the chain accepts length n on axis k."""
    nm.model_manager.newmodel(None)
    for other in range(15, 40):
        try:
            make(source((None, 1, *((n, other) if k == 0 else (other, n))), "b,f,x,y"))
            return True
        except ValueError:
            continue
    return False


def edges(seen, k):
    """(first, last) voxel on axis k of every output voxel."""
    flat = seen.any(tuple(range(2, 2 + k)) + tuple(range(3 + k, 4)))
    return np.stack([flat.argmax(-1), flat.shape[-1] - 1 - flat[..., ::-1].argmax(-1)])


UPS = {
    **{name: (lambda x, p=factor, f=kernel, m=mode: nm.UpConv(x, 2, p, filter_shape=f, conv_mode=m, **QUIET))
       for name, (tags, _, factor, kernel, mode) in UPCONVS.items() if name.startswith("2d")},
    "nearest": lambda x: nm.Upsample(x, (2, 3), **QUIET),
    "linear": lambda x: nm.Upsample(x, (2, 3), "linear", **QUIET),
    "linear 4": lambda x: nm.Upsample(x, (4, 1), "linear", **QUIET),
    "down up": lambda x: nm.UpConv(conv(x, (2, 3), stride=2), 2, 2, filter_shape=(3, 4), **QUIET),
    "up up": lambda x: nm.Upsample(nm.UpConv(x, 2, 2, filter_shape=3, **QUIET), (1, 2), "linear", **QUIET),
    "up same": lambda x: conv(nm.Upsample(x, 2, "linear", **QUIET), 3, conv_mode="same", dilation=2),
    "full up": lambda x: nm.UpConv(conv(x, 2, conv_mode="full"), 2, 2, filter_shape=5, **QUIET),
    "crop": lambda x: nm.Crop(nm.Upsample(conv(x, 3, conv_mode="same"), 2, "linear", **QUIET), (2, 3), **QUIET),
}


@pytest.mark.parametrize("name", UPS)
def test_windows_after_upsampling(name):
    """Every output voxel sees within its declared window; all phases together fill it; and exactly ``padded`` outermost
    voxels per side see another number of input voxels than their phase does inside."""
    node = positive(UPS[name](source((None, 1, 12, 11), "b,f,x,y")))
    s, seen = node.shape, responses(node)[0]
    assert not (seen & ~windows(node)).any()
    for k in range(2):
        flat = seen.any(tuple(a for a in range(2) if a != k)).any(tuple(1 + a for a in range(2) if a != k))
        reach = [v - s.centre[k] - i * Fraction(s.strides[k]) for i, v in np.argwhere(flat)]
        half = (Fraction(s.fov[k]) - 1) / 2
        assert (min(reach), max(reach)) == (-half, half)
        ups = [getattr(n, "factor", getattr(n, "pool_shape", None)) for n in node.all_parents.values()
               if isinstance(n, (nm.UpConv, nm.Upsample))]
        count, phases = flat.sum(-1), int(np.prod([p[k] for p in ups]))
        middle = len(count) // 2 - len(count) // 2 % phases
        inside = np.array([count[middle + (i - middle) % phases] for i in range(len(count))])
        low = min(i for i in range(len(count)) if (count[i:middle] == inside[i:middle]).all())
        assert low == s.padded[k], (k, count)


@pytest.mark.parametrize("name", CHAINS)
def test_dense_prediction_at_all_shifts(name, rng):
    """predict_dense of a strided network is the network on the one window around every voxel; by fragments as well."""
    make, shape = CHAINS[name], []
    for k in range(2):
        shape.append(next(n for n in range(15, 40) if fit(make, k, n)))
    nm.model_manager.newmodel(None)
    node = make(source((1, 1, *shape), "b,f,x,y"))
    model, s = node.model, node.shape
    model.designate_nodes(node.input_nodes[0], prediction_node=node)
    image = rng.normal(size=(1, *(n + 9 for n in shape)))
    dense = model.predict_dense(image)
    assert dense.shape[1:] == tuple(n - v + 1 for n, v in zip(image.shape[1:], s.fov))
    window = nm.model.rebuild_model(model, imposed_patch_size=s.fov)
    for at in np.ndindex(dense.shape[1:]):
        cut = image[(slice(None), *(slice(i, i + v) for i, v in zip(at, s.fov)))]
        np.testing.assert_allclose(dense[(slice(None), *at)], window.predict(cut[None])[0, :, 0, 0], rtol=0, atol=1e-10)
    fragments = nm.model.rebuild_model(model, override_mfp_to_active=True)
    strided = max(s.strides) > 1
    assert any(type(n).__name__ == "FragmentsToDense" for n in fragments.nodes.values()) == strided
    assert [g.stride for g in geometry(fragments.prediction_node)] == [1, 1]
    np.testing.assert_allclose(fragments.predict_dense(image), dense, rtol=0, atol=1e-10)


def test_printed_form():
    """Stride, dilation and groups are printed where they are not 1."""
    x = source((1, 2, 9, 9), "b,f,x,y")
    assert "pool=(1, 1), act='relu', " in repr(nm.Conv(x, 2, 3, **QUIET))
    assert "pool=(1, 1), stride=(2, 1), dilation=(1, 2), groups=2, act='relu', " in repr(
        nm.Conv(x, 2, 3, stride=(2, 1), dilation=(1, 2), groups=2, **QUIET))
    assert "factor=(2, 2), mode='linear'" in repr(nm.Upsample(x, 2, "linear", **QUIET))


def test_kernel_lists_refuse_what_they_cannot_tell():
    """Filters and pools of the convolutions of a model; with a stride or dilation an error that names the node."""
    x = source((1, 1, 32), "b,f,x")
    y = nm.Conv(nm.Conv(x, 2, 3, 2, stride=1, **QUIET), 2, 3, **QUIET)
    lists = nm.model.kernel_lists_from_node_descr
    assert lists(serialize.describe(y.model)[0]) == ([3, 3], [2, 1], [False, False])
    nm.Conv(x, 2, 3, dilation=2, name="wide", **QUIET)
    with pytest.raises(ValueError, match="'wide' has a stride or dilation"):
        lists(serialize.describe(y.model)[0])
