"""The documented network to the letter, and the acceptance values of the seven networks."""
import logging
import re

import numpy as np
import pytest
from networks import FewerFeatures, docs_cnn, example

from elektronn2 import neuromancer as nm

pytestmark = pytest.mark.usefixtures("all_cores")


# spatial input, output (f, *L), strides, true field of view, offsets, parameters
VALUES = {
    "neuro3d": ((23, 185, 185), (2, 5, 21, 21), (2, 4, 4), (15, 105, 105), (7, 52, 52), 2_756_042),
    "neuro3d_lite": ((11, 155, 155), (2, 4, 30, 30), (2, 4, 4), (5, 39, 39), (2, 19, 19), 885_132),
    "unet3d": ((116, 132, 132), (2, 28, 44, 44), (1, 1, 1), (103, 103, 103), (44, 44, 44), 19_069_058),
    "unet3d_lite": ((22, 140, 140), (2, 10, 52, 52), (1, 1, 1), (13, 103, 103), (6, 44, 44), 7_794_786),
    "unet3d_litelite": ((22, 140, 140), (2, 10, 36, 36), (1, 1, 1), (13, 135, 135), (6, 52, 52), 352_207),
}


@pytest.mark.parametrize("name", VALUES)
def test_example_networks(name):
    patch, output, strides, fov, offsets, params = VALUES[name]
    model = example(name)
    shape = model.prediction_node.shape
    assert tuple(model.input_node.shape) == (None, 1, *patch)
    assert tuple(shape)[1:] == output
    assert tuple(shape.strides) == strides
    assert tuple(shape.fov) == fov
    assert tuple(shape.offsets) == offsets
    assert model.loss_node.all_params_count == params
    assert tuple(model.target_node.shape.offsets) == offsets


def test_mnist_network():
    model = example("mnist")
    assert tuple(model["conv2"].shape) == (None, 64, 3, 3)
    assert model["dot"].w.shape == (576, 200)
    assert model.loss_node.all_params_count == 142_366
    assert list(model.nodes)[-3:] == ["total_loss", "cls for errors", "errors"]


# -- the page's first example ---------------------------------------------------------------------------
NODES = """
<Input-Node> 'image'
Out:[(10,b), (3,f), (23,z), (183,x), (183,y)]
<Conv-Node> 'conv'
#Params=3,488 Comp.Cost=25.2 Giga Ops, Out:[(10,b), (32,f), (23,z), (89,x), (89,y)]
n_f=32, 3d conv, kernel=(1, 6, 6), pool=(1, 2, 2), act='relu',
<Conv-Node> 'conv1'
#Params=294,976 Comp.Cost=416.2 Giga Ops, Out:[(10,b), (64,f), (10,z), (42,x), (42,y)]
n_f=64, 3d conv, kernel=(4, 6, 6), pool=(2, 2, 2), act='relu',
<Conv-Node> 'conv2'
#Params=8,645 Comp.Cost=1.1 Giga Ops, Out:[(10,b), (5,f), (8,z), (40,x), (40,y)]
n_f=5, 3d conv, kernel=(3, 3, 3), pool=(1, 1, 1), act='lin',
<Softmax-Node> 'softmax'
Comp.Cost=640.0 kilo Ops, Out:[(10,b), (5,f), (8,z), (40,x), (40,y)]
<Input-Node> 'target'
Out:[(10,b), (1,f), (8,z), (40,x), (40,y)]
<MultinoulliNLL-Node> 'nll'
Comp.Cost=640.0 kilo Ops, Out:[(10,b), (1,f), (8,z), (40,x), (40,y)]
Order of sources=['image', 'target'],
<AggregateLoss-Node> 'loss'
Comp.Cost=128.0 kilo Ops, Out:[(1,f)]
Order of sources=['image', 'target'],
<_Errors-Node> 'errors'
Comp.Cost=128.0 kilo Ops, Out:[(1,f)]
Order of sources=['image', 'target'],
Prediction properties:
[(10,b), (5,f), (8,z), (40,x), (40,y)]
fov=[9, 27, 27], offsets=[4, 13, 13], strides=[2 4 4], spatial shape=[8, 40, 40]
Total Computational Cost of Model: 442.5 Giga Ops
Total number of trainable parameters: 307,109.
Computational Cost per pixel: 34.6 Mega Ops
"""


@pytest.fixture
def log(caplog):
    logger = logging.getLogger("elektronn2log")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "elektronn2log")
    yield caplog
    logger.removeHandler(caplog.handler)


def collapsed(text):
    return re.sub(r"\s+", " ", re.sub(r"-{20,}", "", text)).strip()


def test_the_documented_network_prints_itself(log):
    docs_cnn()
    assert collapsed("\n".join(r.getMessage() for r in log.records)) == collapsed(NODES)


def test_the_documented_model_interface(log):
    model = docs_cnn()
    assert repr(model) == ("['image', 'conv', 'conv1', 'conv2', 'softmax', 'target', 'nll', 'loss', 'cls for errors', "
                           "'errors']")
    assert type(model["nll"]).__name__ == "MultinoulliNLL"
    assert model["conv2"].shape.ext_repr == (
        "[(10,b), (5,f), (8,z), (40,x), (40,y)]\n"
        "fov=[9, 27, 27], offsets=[4, 13, 13], strides=[2 4 4], spatial shape=[8, 40, 40]")
    log.clear()
    model["target"].measure_exectime(n_samples=5, n_warmup=4)
    lines = [r.getMessage() for r in log.records]
    assert lines[0] == "Compiling target, inputs=[target]"
    assert re.fullmatch(r"Compiling done - in \d+\.\d\d s", lines[1])
    assert re.match(r"target: predict, (eager|inductor) on \S+, float32, channels_last, \d+ operations", lines[2])
    assert lines[3] == "target samples in ms:"
    assert re.fullmatch(r"\[ *(\d+\.\d*\s*){5}\]", lines[4])
    assert re.fullmatch(r"target: median execution time: \d+\.\d{5} ms", lines[5])


@pytest.mark.parametrize("factor", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_the_documented_network_computes_and_predicts_densely(log, factor):
    """With a sixteenth of its features, and as it is, which takes a minute."""
    model = docs_cnn(FewerFeatures(factor))
    probs = model["softmax"]
    output = probs(np.ones(model["image"].shape.shape, np.float32))
    assert output.shape == (10, 5, 8, 40, 40)
    assert np.all(output > 0) and np.all(output < 1)
    np.testing.assert_allclose(output.sum(1), 1, rtol=1e-5)

    log.clear()
    mfp = nm.model.rebuild_model(model, imposed_batch_size=1, override_mfp_to_active=True)
    lines = [r.getMessage() for r in log.records]
    assert lines[:3] == ["patch_size (23) changed to (22) (size not possible)",
                         "patch_size (183) changed to (182) (size not possible)",
                         "patch_size (183) changed to (182) (size not possible)"]
    assert "Out:[(1,b), (3,f), (22,z), (182,x), (182,y)]" in lines[3]

    log.clear()
    image = np.random.default_rng(0).random((3, 50, 300, 300), np.float32)
    dense = mfp.predict_dense(image, pad_raw=True)
    assert dense.shape == (5, 50, 300, 300)
    assert "Predicting img (3, 58, 326, 326) in 16 Blocks: (4, 2, 2)" in [r.getMessage() for r in log.records]
    # one window of the network as it was trained, around a voxel in the middle
    window = nm.model.rebuild_model(model, imposed_batch_size=1, imposed_patch_size=(9, 27, 27))
    cut = image[:, 20 - 4:20 + 5, 150 - 13:150 + 14, 99 - 13:99 + 14]
    np.testing.assert_allclose(window.predict(cut[None])[0, :, 0, 0, 0], dense[:, 20, 150, 99], atol=1e-5)


def test_neuro3d_predicts_the_documented_size():
    """A volume of (1,32,160,160), smaller than the patch, gives (2,18,56,56)."""
    model = nm.model.rebuild_model(example("neuro3d"), imposed_batch_size=1, override_mfp_to_active=True,
                                   imposed_patch_size=(32, 160, 160))
    assert model.predict_dense(np.zeros((1, 32, 160, 160), np.uint8)).shape == (2, 18, 56, 56)
