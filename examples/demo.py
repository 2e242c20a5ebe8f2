"""From nothing to a predicted volume in a few minutes on a laptop without a GPU.

    python examples/demo.py [--data PATH] [--steps 1100] [--out DIR]

Makes synthetic EM volumes (or takes those of ``--data``: raw_{0,1,2}.h5 and barrier_int16_{0,1,2}.h5), trains a small
3-D network to find the barriers between cells, predicts the held-out cube 2 at every voxel with max-fragment pooling,
prints error and ROC AUC against the labels, and writes pictures, the model and the prediction.
"""
import argparse
import logging
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from elektronn2 import neuromancer as nm
from elektronn2.data.cnndata import BatchCreatorImage
from elektronn2.data.synthetic import default_data_path, write_neuro_data
from elektronn2.neuromancer.init import reseed
from elektronn2.utils.basic import h5load, h5save
from elektronn2.utils.evaluation import roc_auc

logger = logging.getLogger("elektronn2log")
ORANGE, BLUE = "#e69f00", "#0072b2"  # told apart by colour-blind readers, too


def create_model():
    inp = nm.Input((None, 1, 11, 107, 107), "b,f,z,x,y", name="raw")

    out = nm.Conv(inp, 16, (1, 4, 4), (1, 2, 2))
    out = nm.Conv(out, 32, (3, 3, 3), (1, 2, 2))
    out = nm.Conv(out, 64, (3, 4, 4))
    out = nm.Conv(out, 64, (1, 3, 3))
    out = nm.Conv(out, 100, (1, 1, 1))
    out = nm.Conv(out, 2, (1, 1, 1), activation_func="lin")
    probs = nm.Softmax(out)

    target = nm.Input_like(probs, override_f=1, name="target")
    loss_pix = nm.MultinoulliNLL(probs, target, target_is_sparse=True)
    loss = nm.AggregateLoss(loss_pix, name="loss")
    errors = nm.Errors(probs, target, target_is_sparse=True)

    model = nm.model_manager.getmodel()
    model.designate_nodes(input_node=inp, target_node=target, loss_node=loss, prediction_node=probs,
                          prediction_ext=[loss, errors, probs])
    return model


def train(model, data, steps):
    """Losses of ``steps`` updates, one random patch each."""
    model.set_opt_meta_params("AdamW", dict(lr=1e-3, mom=0.9, beta2=0.999, wd=0.5e-4))
    losses = []
    for step in (bar := tqdm(range(steps), desc="Training", unit="step", mininterval=1)):
        model.lr = 1e-3 * (1 - 0.9 * step / steps)
        images, targets = data.getbatch(grey_augment_channels=[0])
        losses.append(model.trainingstep(images, targets, optimiser="AdamW")[0])
        bar.set_postfix(loss=f"{model.loss_smooth:.3f}", refresh=False)
    return losses


def predict(model, raw):
    """Barrier probability (z, x, y) of a raw volume (z, x, y), at every voxel."""
    dense = nm.model.rebuild_model(model, imposed_batch_size=1, override_mfp_to_active=True,
                                   imposed_patch_size=(24, 132, 132))
    return dense.predict_dense(raw[None], pad_raw=True)[1]


def evaluate(probability, labels, raw):
    """Compare within the labelled part, which is centred in the volume."""
    part = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(raw.shape, labels.shape))
    probability, grey = probability[part], raw.astype(np.float32)
    auc = roc_auc(labels, probability)
    error = np.mean((probability > 0.5) != (labels > 0))
    floor = max(roc_auc(labels, -gaussian_filter(grey, s)[part]) for s in ((0, 0, 0), (0, 1, 1), (0.5, 1, 1), (1, 2, 2)))
    logger.info("Held-out cube: error %.2f %%, ROC AUC %.4f (smoothed grey values alone: %.4f; always the commoner "
                "class: error %.2f %%)", 100 * error, auc, floor, 100 * min(labels.mean(), 1 - labels.mean()))
    return auc


def draw_result(path, raw, labels, probability):
    """Raw, labels, prediction and both in one, of the middle section."""
    z = raw.shape[0] // 2
    part = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(raw.shape[1:], labels.shape[1:]))
    image, truth, guess = raw[z][part].T, labels[labels.shape[0] // 2].T, probability[z][part].T
    figure = Figure(figsize=(14, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4)
    for axis, title in zip(axes, ("Raw", "Labelled barriers", "Predicted probability", "Overlay")):
        axis.set_title(title)
        axis.set_axis_off()
    axes[0].imshow(image, cmap="gray")
    axes[1].imshow(truth, cmap="gray")
    axes[2].imshow(guess, cmap="gray", vmin=0, vmax=1)
    axes[3].imshow(image, cmap="gray")
    axes[3].contour(truth, [0.5], colors=ORANGE, linewidths=1)
    axes[3].contour(guess, [0.5], colors=BLUE, linewidths=1)
    axes[3].plot([], [], color=ORANGE, label="labels")
    axes[3].plot([], [], color=BLUE, label="prediction")
    axes[3].legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)


def draw_loss(path, losses):
    """Loss of every step, and its running mean."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot(losses, ".", color="0.7", markersize=2, label="each step")
    n = max(1, len(losses) // 30)
    axis.plot(np.arange(n - 1, len(losses)), np.convolve(losses, np.ones(n) / n, "valid"), color=BLUE,
              label=f"mean of {n} steps")
    axis.set(xlabel="training step", ylabel="loss (nats per voxel)", ylim=(0, np.percentile(losses, 99) * 1.1))
    axis.legend()
    figure.savefig(path, dpi=110)


def free_folder(path):
    """``path``, or with -v1, -v2, ... if it exists."""
    path, n = Path(path), 1
    free = path
    while free.exists():
        free, n = path.with_name(f"{path.name}-v{n}"), n + 1
    free.mkdir(parents=True)
    return free


def main(data=None, steps=1100, out="demo-output", seed=0):
    reseed(seed)
    path = Path(data).expanduser() if data else write_neuro_data(default_data_path())
    model = create_model()
    samples = BatchCreatorImage(model.input_node, model.target_node, path, path,
                                [(f"raw_{i}.h5", "raw") for i in range(3)],
                                [(f"barrier_int16_{i}.h5", "lab") for i in range(3)], valid_cubes=[2], seed=seed)
    out = free_folder(out)
    losses = train(model, samples, steps)
    model.save(out / "demo.mdl")

    raw, labels = h5load(path / "raw_2.h5", "raw"), h5load(path / "barrier_int16_2.h5", "lab")
    probability = predict(model, raw)
    h5save(probability, out / "prediction_2.h5", "barrier")
    auc = evaluate(probability, labels, raw)
    draw_result(out / "result.png", raw, labels, probability)
    draw_loss(out / "loss.png", losses)
    logger.info("Written to %s: %s", out.resolve(), ", ".join(sorted(p.name for p in out.iterdir())))
    return auc


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", help="folder with raw_0.h5 ... and barrier_int16_0.h5 ... (default: synthetic data)")
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--out", default="demo-output", help="folder for the results (an existing one is not touched)")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
