"""From nothing to a predicted volume in a few minutes on a laptop without a GPU.

    python examples/demo.py [--data PATH] [--steps 1100] [--out DIR]

Makes synthetic EM volumes (or takes those of ``--data``: raw_{0,1,2}.h5 and barrier_int16_{0,1,2}.h5), trains the network
of ``laptop.py`` to find the barriers between cells, predicts the held-out cube 2 at every voxel with max-fragment pooling,
prints error and ROC AUC against the labels, and writes pictures and the prediction beside the model.
"""
import argparse
import logging
import os
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from elektronn2 import neuromancer as nm
from elektronn2.config import config
from elektronn2.training.trainer import Trainer
from elektronn2.training.trainutils import ExperimentConfig
from elektronn2.utils.basic import h5load, h5save
from elektronn2.utils.d3viz import visualise_model
from elektronn2.utils.evaluation import roc_auc

logger = logging.getLogger("elektronn2log")
ORANGE, BLUE = "#e69f00", "#0072b2"  # told apart by colour-blind readers, too


def train(steps):
    """A trained :class:`Trainer`."""
    experiment = ExperimentConfig(Path(__file__).with_name("laptop.py"), __file__)
    experiment.n_steps = steps
    experiment.schedules = {"lr": {"cosine": max(steps, 1)}}
    trainer = Trainer(experiment)
    visualise_model(trainer.model, str(trainer.save_path / "1-model-graph"))
    trainer.debug_getcnnbatch()
    trainer.run()
    return trainer


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


def main(data=None, steps=1100, out="demo-output", seed=0):
    if data:
        os.environ["ELEKTRONN2_DATA"] = str(Path(data).expanduser().resolve())
    config.save_path, config.seed = str(Path(out).resolve()), seed
    trainer = train(steps)
    data, folder = Path(trainer.exp_config.namespace["data_path"]), trainer.save_path

    raw, labels = h5load(data / "raw_2.h5", "raw"), h5load(data / "barrier_int16_2.h5", "lab")
    probability = predict(trainer.model, raw)
    h5save(probability, folder / "prediction_2.h5", "barrier")
    auc = evaluate(probability, labels, raw)
    draw_result(folder / "result.png", raw, labels, probability)
    logger.info("Written to %s: %s", folder, ", ".join(sorted(p.name for p in folder.iterdir())))
    return auc


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", help="folder with raw_0.h5 ... and barrier_int16_0.h5 ... (default: synthetic data)")
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--out", default="demo-output", help="folder for the run, which gets a folder of its own in it")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
