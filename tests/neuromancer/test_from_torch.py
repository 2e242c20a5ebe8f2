"""Modules of PyTorch as nodes, against the modules themselves, torch's optimisers, and this library's own layers.

The geometry that is found by trying is compared with that of networks of the same structure built from nodes, whose rules
are tested elsewhere, and with numbers by hand.
"""
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from elektronn2 import neuromancer as nm
from elektronn2.config import config
from elektronn2.errors import ModelFileError
from elektronn2.neuromancer.probing import Axis, NotFound, probe

QUIET = dict(print_repr=False)


def image(sizes=(20, 22), b=None, n_f=1, tags="b,f,x,y"):
    return nm.Input((b, n_f, *sizes), tags, name="raw", **QUIET)


class Small(nn.Module):
    """Convolution, batch normalisation, dropout, a bias that is not trained, a buffer that is not saved, tied weights."""

    def __init__(self, n_f=4, p=0.5):
        super().__init__()
        self.first = nn.Conv2d(1, n_f, 3)
        self.bn = nn.BatchNorm2d(n_f)
        self.drop = nn.Dropout(p)
        self.second = nn.Conv2d(n_f, n_f, 1)
        self.again = nn.Conv2d(n_f, n_f, 1, bias=False)
        self.again.weight = self.second.weight
        self.second.bias.requires_grad_(False)
        self.register_buffer("gain", torch.tensor(2.0), persistent=False)

    def forward(self, x):
        x = self.drop(torch.relu(self.bn(self.first(x))))
        return F.max_pool2d(self.again(self.second(x)), 2) * self.gain


class UNet(nn.Module):
    def __init__(self, ndim=1, pad=1, depth=2, n_f=3, norm=False):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d)[ndim - 1]
        self.pool = (F.max_pool1d, F.max_pool2d)[ndim - 1]
        self.down = nn.ModuleList([conv(n_f if i else 1, n_f, 3, padding=pad) for i in range(depth + 1)])
        self.up = nn.ModuleList([conv(2 * n_f, n_f, 3, padding=pad) for _ in range(depth)])
        self.norm = nn.GroupNorm(1, n_f) if norm else nn.Identity()

    def forward(self, x):
        skips = []
        for layer in self.down[:-1]:
            x = torch.relu(self.norm(layer(x)))
            skips.append(x)
            x = self.pool(x, 2)
        x = torch.relu(self.down[-1](x))
        for layer in self.up:
            x, skip = F.interpolate(x, scale_factor=2), skips.pop()
            for axis in range(2, x.ndim):
                skip = skip.narrow(axis, (skip.shape[axis] - x.shape[axis]) // 2, x.shape[axis])
            x = layer(torch.cat([x, skip], 1))
        return x


def arrays(*shape):
    return np.random.default_rng(0).random(shape).astype("float32")


# -- computing ------------------------------------------------------------------------------------------
def test_prediction_is_that_of_the_module():
    """A node against its module in evaluation mode; the module stays as it is."""
    module = Small()
    for p in module.parameters():
        nn.init.normal_(p)
    module.bn.running_mean.fill_(0.3)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    y = nm.from_torch(module, image(), **QUIET)
    x = arrays(3, 1, 20, 22)
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(x))
    np.testing.assert_allclose(y(x), wanted, rtol=1e-6)
    assert y.shape.shape == [None, 4, 9, 10] and list(wanted.shape) == [3, 4, 9, 10]
    y.params["first.weight"].set_value(np.zeros((4, 1, 3, 3)))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_parameters():
    """Which are trained, decay, and are saved; tied ones come once."""
    y = nm.from_torch(Small, image(), kwargs=dict(n_f=3), **QUIET)
    flags = {k: (p.apply_train, bool(p.apply_reg)) for k, p in y.params.items()}
    assert flags == {"first.weight": (True, True), "first.bias": (True, False), "bn.weight": (True, False),
                     "bn.bias": (True, False), "second.weight": (True, True), "second.bias": (False, False),
                     "bn.running_mean": (False, False), "bn.running_var": (False, False),
                     "bn.num_batches_tracked": (False, False)}
    assert y.param_count == 27 + 3 + 3 + 3 + 9
    y = nm.from_torch(Small, image(), trainable=False, **QUIET)
    assert y.param_count == 0


def test_training_is_that_of_torch():
    """Three steps of SGD and the statistics of batch normalisation, against torch's own loop on the module."""
    module = Small(p=0.0)
    y = nm.from_torch(module, image(), **QUIET)
    target = nm.Input_like(y, name="target", **QUIET)
    loss = nm.AggregateLoss(nm.SquaredLoss(y, target, **QUIET), **QUIET)
    model = y.model
    model.designate_nodes("raw", target, loss, y)
    model.lr, model.mom, model.wd = 0.05, 0.0, 0.0
    sgd = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.05)
    module.train()
    x, t = arrays(4, 1, 20, 22), arrays(4, 4, 9, 10)
    scale = float(model.loss(x, t)) / float(((module(torch.from_numpy(x)) - torch.from_numpy(t)) ** 2).mean().detach())
    module.bn.reset_running_stats()
    for _ in range(3):
        model.trainingstep(x, t, optimiser="SGD")
        sgd.zero_grad()
        (scale * ((module(torch.from_numpy(x)) - torch.from_numpy(t)) ** 2).mean()).backward()
        sgd.step()
    for key, value in module.state_dict().items():
        if key != "again.weight":  # the same as second.weight
            np.testing.assert_allclose(y.get_param_values()[key], value, rtol=1e-4, atol=1e-6, err_msg=key)
    assert y.get_param_values()["bn.num_batches_tracked"] == 3
    back = y.to_torch()
    with torch.no_grad():
        np.testing.assert_allclose(y(x), back(torch.from_numpy(x)), rtol=1e-6)
    assert back.again.weight is not None and not back.training


def test_modes():
    """Dropout and statistics of the batch in training mode only; only training steps change the statistics."""
    y = nm.from_torch(Small(), image(), **QUIET)
    x = arrays(2, 1, 20, 22)
    before = y.get_param_values()
    trained = y(x, mode="train"), y(x, mode="train")
    assert not np.array_equal(*trained) and np.array_equal(y(x), y(x))
    for key, value in y.get_param_values().items():
        np.testing.assert_array_equal(value, before[key])


def test_double_precision(float64):
    y = nm.from_torch(UNet(), image((16,), 2, tags="b,f,x"), **QUIET)
    value = y(arrays(2, 1, 16).astype("float64"))
    assert value.dtype == np.float64 and y.get_param_values()["up.0.weight"].dtype == np.float64


def test_cost():
    """Multiply-adds as those of the same layer of this library."""
    x = image(b=2, n_f=3)
    ours = nm.Conv(x, 5, (3, 4), activation_func="lin", **QUIET)
    y = nm.from_torch(nn.Conv2d, x, (3, 5, (3, 4)), **QUIET)
    assert (y.computational_cost, y.param_count) == (ours.computational_cost, ours.param_count)


# -- geometry -------------------------------------------------------------------------------------------
def ours(pad, depth=2):
    """The same U-Net, of nodes."""
    x = nm.Input((1, 1, 16 + 46 * (not pad), 4), "b,f,x,y", **QUIET)
    mode, n, skips = "same" if pad else "valid", (3, 1), []
    for _ in range(depth):
        skips.append(nm.Conv(x, 3, n, conv_mode=mode, **QUIET))
        x = nm.Pool(skips[-1], (2, 1), **QUIET)
    x = nm.Conv(x, 3, n, conv_mode=mode, **QUIET)
    for _ in range(depth):
        x = nm.Conv(nm.AutoMerge(x, skips.pop(), 3, **QUIET), 3, n, conv_mode=mode, **QUIET)
    return x.shape


def test_geometry_of_layers():
    """By hand: (module, fov, stride, centre) of single layers and short chains."""
    for module, fov, stride, centre in (
            (nn.Conv1d(1, 2, 3), 3, 1, 1), (nn.Conv1d(1, 2, 4, padding=1), 4, 1, 0.5),
            (nn.Conv1d(1, 2, 3, dilation=4), 9, 1, 4),
            (nn.Conv1d(1, 2, 3, stride=2, padding=1), 3, 2, 0), (nn.MaxPool1d(3), 3, 3, 1),
            (nn.ConvTranspose1d(1, 2, 2, stride=2), 1.5, 0.5, -0.25), (nn.Upsample(scale_factor=4), 1.75, 0.25, -0.375),
            (nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(2, 2, 5)), 12, 2, 5.5)):
        s = nm.from_torch(module, image((40,), tags="b,f,x"), **QUIET).shape
        assert (s._fov[0], s._strides[0], s.centre[0]) == (fov, stride, centre), module


@pytest.mark.parametrize("pad", [0, 1])
def test_geometry_of_unets(pad):
    """Fov, stride and centre as of the same network of nodes; tiles of the total downsampling."""
    wanted = ours(pad)
    y = nm.from_torch(UNet(pad=pad), image((60 if pad else 62,), tags="b,f,x"), **QUIET)
    got = y.shape
    assert (got._fov[0], got._strides[0], got.centre[0]) == (wanted._fov[0], wanted._strides[0], wanted.centre[0])
    assert y.phases == [4] and wanted.padded[0] <= got.padded[0] <= 22 * pad


def test_geometry_after_other_nodes():
    """Strides, windows and offsets of the parent go on."""
    x = nm.Conv(image((43, 8)), 1, (4, 1), (2, 1), **QUIET)
    ours = nm.Conv(x, 2, (3, 1), (3, 1), **QUIET).shape
    got = nm.from_torch(nn.Sequential(nn.Conv2d(1, 2, (3, 1)), nn.MaxPool2d((3, 1))), x, **QUIET).shape
    assert (got.fov, got.centre, list(got.strides), got.shape) == (ours.fov, ours.centre, list(ours.strides), ours.shape)


def test_given_geometry():
    y = nm.from_torch(nn.AvgPool1d(2), nm.Pool(image((16,), tags="b,f,x"), 2, **QUIET), fov=[2], strides=[2], **QUIET)
    assert (y.shape.fov, y.shape.centre, list(y.shape.strides)) == ([4], (Fraction(3, 2),), [4])


@pytest.mark.parametrize(("function", "message"), [
    (lambda x: x + x.mean(), "do not repeat"),
    (lambda x: x * torch.arange(x.shape[-1]), "depends on the position"),
    (lambda x: x * (F.avg_pool1d(x, 9, 1, 4) > 0.5), "NaN does not show"),
    (lambda x: (x > 0.5).float(), "NaN in its input does not show"),
    (lambda x: F.adaptive_avg_pool1d(x, 4), "does not grow"),
    (lambda x: x.flip(2), "do not repeat"),
    (lambda x: F.pad(x, (2, 2), mode="circular"), "do not repeat")])
def test_what_has_no_geometry(function, message, monkeypatch):
    """Global, position-dependent and hidden dependencies are found, not guessed."""
    monkeypatch.setattr("elektronn2.neuromancer.probing.LONGEST", 300)

    def length(n):
        return function(torch.zeros(1, 1, n)).shape[2]
    with pytest.raises(NotFound, match=message):
        probe(function, length, (1, 1, 1), 2, 2)


def test_shift_is_found_where_windows_hide_it():
    """A coarse path that lies within the windows of a fine one makes no pattern, but tiles must know of it."""
    def function(x):
        return F.avg_pool1d(x, 9, 1, 4) + F.interpolate(F.max_pool1d(x, 2), scale_factor=2)

    def length(n):
        if n % 2:
            raise ValueError
        return n
    assert probe(function, length, (1, 1, 2), 2, 2) == Axis(9, 1, 0, 2, 4)


def test_error_says_what_to_do():
    with pytest.raises(ValueError, match=r"TorchModule 'pool': its field of view cannot be found: .*Give fov, strides"):
        nm.from_torch(nn.AdaptiveAvgPool1d(4), image((16,), tags="b,f,x"), name="pool", **QUIET)
    y = nm.from_torch(nn.AdaptiveAvgPool1d(4), image((16,), tags="b,f,x"), fov=[4], strides=[4], name="pool", **QUIET)
    assert y.shape.shape == [None, 1, 4]


# -- with the rest of the library -----------------------------------------------------------------------
@pytest.mark.parametrize("pad_raw", [False, True])
@pytest.mark.parametrize("module", [UNet(2, 1), UNet(2, 0), Small()], ids=["same", "valid", "pooling"])
def test_dense_prediction(module, pad_raw):
    """Tiles against the whole volume in one pass (pooling networks: at one shift)."""
    more = 2 if isinstance(module, UNet) and module.down[0].padding[0] == 0 else 0
    sizes = (60 + more, 60 + more) if isinstance(module, UNet) else (20, 22)
    y = nm.from_torch(module, image(sizes, 1), **QUIET)
    y.model.designate_nodes("raw", prediction_node=y)
    volume = arrays(1, 84 + more, 92 + more)
    got = y.predict_dense(volume, pad_raw=pad_raw)
    with torch.no_grad():
        whole = module.eval()(torch.from_numpy(volume[None]))[0].numpy()
    if not pad_raw:
        step = int(y.shape.strides[0])
        np.testing.assert_allclose(got[:, ::step, ::step], whole, atol=1e-5)
    else:
        assert got.shape[1:] == volume.shape[1:]


def test_statistics_over_space_are_said(caplog):
    y = nm.from_torch(UNet(norm=True), image((60,), 1, tags="b,f,x"), **QUIET)
    assert y.patch_statistics and y.shape.fov == ours(1).fov[:1]
    y.predict_dense(arrays(1, 80))
    assert "TorchModule 'torch' normalises by statistics of the patch" in caplog.text
    assert not nm.from_torch(UNet(), y.parent, **QUIET).patch_statistics


def test_saved(tmp_path):
    """What makes the module is stored and refused on loading until allowed; geometry is stored too."""
    y = nm.from_torch(UNet, image((16,), 1, tags="b,f,x"), kwargs=dict(pad=1), **QUIET)
    y.model.designate_nodes("raw", prediction_node=y)
    y.model.save(tmp_path / "net.mdl")
    with pytest.raises(ModelFileError, match=r"calls the function 'test_from_torch:UNet'.*allow_functions=True"):
        nm.model.modelload(tmp_path / "net.mdl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("elektronn2.neuromancer.torch_module.probe", None)
        new = nm.model.modelload(tmp_path / "net.mdl", allow_functions=True, imposed_patch_size=32)
    assert new.prediction_node.shape.shape == [1, 3, 32]
    x = arrays(1, 1, 16)
    np.testing.assert_array_equal(nm.model.rebuild_model(new, imposed_patch_size=16).predict(x), y(x))


def test_locked(tmp_path):
    y = nm.from_torch(UNet, image((16,), 1, tags="b,f,x"), name="unet", **QUIET)
    y.model.designate_nodes("raw", prediction_node=y)
    for options, trained in (({}, 10), (dict(make_weights_constant=True), 0), (dict(lock_trainable_params=["unet"]), 0)):
        new = nm.model.rebuild_model(y.model, **options)
        assert len(new.prediction_node.all_trainable_params) == trained
        np.testing.assert_array_equal(new["unet"].get_param_values()["up.0.weight"], y.get_param_values()["up.0.weight"])
    new = nm.model.rebuild_model(new, unlock_all_params=True)
    assert len(new.prediction_node.all_trainable_params) == 10


def test_batch_normalisation_that_cannot_be_replaced(caplog):
    """It is named once, not again for the sizes that are tried out; other modules and options are no reason to warn."""
    y = nm.from_torch(Small, image(), kwargs=dict(p=0.0), name="inside", **QUIET)
    y = nm.from_torch(nn.Conv2d, y, (4, 2, 1), name="without", **QUIET)
    y.model.designate_nodes("raw", prediction_node=y)
    nm.model.rebuild_model(y.model)
    assert "replace_bn" not in caplog.text
    new = nm.model.rebuild_model(y.model, replace_bn="remove", imposed_batch_size=1)
    assert ["'inside' cannot be replaced" in m for m in caplog.messages if m.startswith("replace_bn: ")] == [True]
    x = arrays(1, 1, 20, 22)
    np.testing.assert_array_equal(new.predict(x), y(x))


def test_modules_themselves_are_not_saved(tmp_path):
    y = nm.from_torch(nn.Conv1d(1, 1, 3), image((16,), tags="b,f,x"), name="mine", **QUIET)
    with pytest.raises(ModelFileError, match=r"Node 'mine' cannot be saved: its Conv1d .* what makes it instead"):
        y.model.save(tmp_path / "net.mdl")
    assert list(tmp_path.iterdir()) == []


def test_exported(tmp_path):
    """Open axes too, in whole steps of the pooling inside."""
    y = nm.from_torch(Small(), image(), name="probs", **QUIET)
    y.model.designate_nodes("raw", prediction_node=y)
    y.model.export(tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2").module()
    x = arrays(2, 1, 32, 40)
    with torch.no_grad():
        np.testing.assert_allclose(program(torch.from_numpy(x))[0], y.to_torch()(torch.from_numpy(x)), atol=1e-5)


def test_reduced_precision():
    y = nm.from_torch(UNet(), image((16,), 1, tags="b,f,x"), **QUIET)
    x = arrays(1, 1, 16)
    wanted = y(x)
    config.precision = "bfloat16"
    got = y(x)
    assert 0 < abs(got - wanted).max() < 0.05
