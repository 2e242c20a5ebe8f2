"""Membranes in electron micrographs in ten minutes on two processor cores: a small 2-D U-Net.

    python examples/em_fast.py --data PATH [--seed 0] [--minutes 10] [--out em-fast]

PATH holds raw_{0,1,2}.h5 and barrier_int16_{0,1,2}.h5, for example the ISBI-2012 volumes (ssTEM, 4 x 4 x 50 nm). Sections
that thick are nearly independent, so the network sees one at a time. Cubes 0 and 1 train, cube 2 is predicted at every
voxel, as the mean over its eight reflections and quarter turns, and compared with its labels.
"""
import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from elektronn2 import neuromancer as nm
from elektronn2.config import config
from elektronn2.data.cnndata import BatchCreatorImage
from elektronn2.neuromancer import init
from elektronn2.utils.basic import h5load, h5save
from elektronn2.utils.evaluation import roc_auc

MARGIN = 96  # pixels by which sections are continued by their mirror image, so that turned patches fit in
PEAK_LR, WARMUP = 2e-3, 0.05  # the learning rate rises for 5 % of the time, then falls as a cosine to 0


def conv(parent, n_f):
    """A 3 x 3 convolution of its parent's size. The initial weights keep the variance from layer to layer, without which
    so many layers begin slowly. Source: He et al. 2015, Delving deep into rectifiers."""
    shape = (n_f, parent.shape["f"], 3, 3)
    w = init.generator().normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
    return nm.Conv(parent, n_f, (3, 3), conv_mode="same", w=w, b=np.zeros(n_f))


def create_model(widths=(16, 32, 64, 96, 128)):
    """A U-Net with two convolutions per level, which halves the resolution between levels."""
    inp = nm.Input((1, 1, 192, 192), "b,f,x,y", name="raw")

    out = conv(conv(inp, widths[0]), widths[0])
    skips = []
    for n_f in widths[1:]:
        skips.append(out)
        out = nm.Pool(out, (2, 2))
        out = conv(conv(out, n_f), n_f)
    for skip in reversed(skips):
        n_f = skip.shape["f"]
        out = nm.UpConvMerge(skip, out, n_f)
        out = conv(conv(out, n_f), n_f)

    barr = nm.Conv(out, 2, (1, 1), activation_func="lin", name="barr")
    probs = nm.Softmax(barr)
    target = nm.Input_like(probs, override_f=1, name="target")
    loss_pix = nm.MultinoulliNLL(probs, target, target_is_sparse=True, name="nll_barr")
    loss = nm.AggregateLoss(loss_pix, name="loss")
    errors = nm.Errors(probs, target, target_is_sparse=True)

    model = nm.model_manager.getmodel()
    model.designate_nodes(input_node=inp, target_node=target, loss_node=loss, prediction_node=probs,
                          prediction_ext=[loss, errors, probs])
    return model


def mirrored(cube, margin):
    """A volume (z, x, y), longer by ``margin`` at both ends of x and y."""
    return np.pad(cube, ((0, 0), (margin, margin), (margin, margin)), "symmetric")


def training_data(model, path, seed):
    """Samples of cubes 0 and 1, with mirrored borders."""
    with tempfile.TemporaryDirectory() as folder:
        for name, key in (("raw", "raw"), ("barrier_int16", "lab")):
            for i in range(2):
                cube = h5load(path / f"{name}_{i}.h5", key)
                h5save(mirrored(cube, MARGIN), f"{folder}/{name}_{i}.h5", key)
        return BatchCreatorImage(model.input_node, model.target_node, folder, folder,
                                 [(f"raw_{i}.h5", "raw") for i in range(2)],
                                 [(f"barrier_int16_{i}.h5", "lab") for i in range(2)], seed=seed)


def train(model, data, seconds):
    """Update until the time is over; the learning rate is a function of the time that has passed."""
    model.set_opt_meta_params("AdamW", {"lr": 0, "mom": 0.9, "beta2": 0.999, "wd": 0.01})
    start = time.perf_counter()
    with tqdm(unit="step", desc="Training", mininterval=1) as bar:
        while (part := (time.perf_counter() - start) / seconds) < 1:
            fall = (1 + math.cos(math.pi * (part - WARMUP) / (1 - WARMUP))) / 2
            model.lr = PEAK_LR * (part / WARMUP if part < WARMUP else fall)
            batch = data.getbatch(warp=True)
            model.trainingstep(*batch, optimiser="AdamW")
            bar.update()
            bar.set_postfix(loss=f"{model.loss_smooth:.3f}", refresh=False)


def predict(model, raw):
    """Membrane probability (z, x, y) of a raw volume (z, x, y): the mean over eight views of it."""
    dense = nm.model.rebuild_model(model, imposed_patch_size=(448, 448))
    raw, inner = mirrored(raw, 32), (slice(None), slice(32, -32), slice(32, -32))
    total = np.zeros(raw.shape, np.float32)
    for turns in range(4):
        for flip in (False, True):
            view = np.rot90(raw, turns, (1, 2))[:, ::-1 if flip else 1]
            seen = dense.predict_dense(view[None], pad_raw=True)[1]
            total += np.rot90(seen[:, ::-1 if flip else 1], -turns, (1, 2))
    return total[inner] / 8


def main(data, seed=0, minutes=10, out="em-fast"):
    path, out = Path(data).expanduser(), Path(out).expanduser()
    if out.exists():
        raise FileExistsError(f"{out} exists and is left as it is. Name a new folder with --out.")
    config.precision = "bfloat16"  # on processors that compute with it nearly twice as fast as float32
    init.reseed(seed)
    model = create_model()
    train(model, training_data(model, path, seed), 60 * minutes)
    out.mkdir(parents=True)
    model.save(out / "em_fast.mdl")

    raw, labels = h5load(path / "raw_2.h5", "raw"), h5load(path / "barrier_int16_2.h5", "lab")
    probability = predict(model, raw)
    h5save(probability, out / "prediction_2.h5", "barrier")
    auc = roc_auc(labels, probability)
    print(f"{model.iterations} steps in {minutes} minutes, seed {seed}: ROC AUC {auc:.4f} on cube 2. Written to {out}.")
    return auc


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="folder with raw_0.h5 ... and barrier_int16_0.h5 ...")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and samples")
    parser.add_argument("--minutes", type=float, default=10, help="of training")
    parser.add_argument("--out", default="em-fast", help="new folder for model and prediction")
    main(**vars(parser.parse_args()))
