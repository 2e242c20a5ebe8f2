"""
3. Training on numpy arrays, with a loop of your own
====================================================

Not everything is a volume in a file with labels beside it. Here the data are arrays in memory, the loop over the updates is
written out, and no trainer, config or data class is involved: batches, learning rate, validation, saving, going on after a
break, and prediction, each in a few lines.

::

    python docs/tutorials/numpy_arrays.py --out numpy_arrays     # half a minute to two on two cores

The task is the removal of noise. An electron micrograph is noisy if it is taken fast. From pairs of fast and slow pictures
of the same sections, a network learns what the slow one would be. The output is a grey value, so this is a regression.
"""
# sphinx_gallery_thumbnail_path = "images/tutorial-numpy-arrays.png"
import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from elektronn2 import neuromancer as nm
from elektronn2.data.synthetic import make_volume
from elektronn2.neuromancer.init import reseed

parser = argparse.ArgumentParser(description="Training on numpy arrays, with a loop of your own")
parser.add_argument("--out", default="numpy_arrays", help="new folder for models and picture")
parser.add_argument("--quick", action="store_true", help="a few steps only, to see that it runs")
parser.add_argument("--seed", type=int, default=0, help="of data, initial weights and batches")
args = parser.parse_args()

out = Path(args.out).expanduser()
if out.exists():
    parser.error(f"{out} exists and is left as it is. Name a new folder with --out.")
out.mkdir(parents=True)
n_steps = 20 if args.quick else 1500

# %%
# The arrays
# ----------
#
# Any arrays will do. These are made: the same tissue, with much noise and with little. Networks like small numbers, so the
# grey values are scaled to 0..1, as float32.

size = 96 if args.quick else 256


def make_pairs(n, seed):
    """Fast and slow pictures of the same ``n`` sections, each (n, x, y) float32."""
    fast, slow = (make_volume((n, size, size), seed, noise=noise)[0] for noise in (0.15, 0.01))
    return fast.astype(np.float32) / 255, slow.astype(np.float32) / 255


train_fast, train_slow = make_pairs(24, (args.seed, 1))
valid_fast, valid_slow = make_pairs(6, (args.seed, 2))
test_fast, test_slow = make_pairs(6, (args.seed, 3))
print(f"{len(train_fast)} sections to train on, {len(valid_fast)} to watch, {len(test_fast)} to test at the end")

# %%
# The network
# -----------
#
# Six layers of small filters, and a last one that makes a grey value of 16 features. Dilated filters look at every second
# pixel only, and so further. A target is an input, too: ``Input_like`` gives it the shape of the prediction, which is
# smaller than the picture, since valid convolutions take away pixels at each side.

BATCH, PATCH = 8, 64


def create_model():
    fast = nm.Input((BATCH, 1, PATCH, PATCH), "b,f,x,y", name="fast")
    h = fast
    for dilation in (1, 1, 2, 2, 2, 1):
        h = nm.Conv(h, 16, (3, 3), dilation=dilation)
    clean = nm.Conv(h, 1, (1, 1), activation_func="lin", name="clean")
    slow = nm.Input_like(clean, name="slow")
    loss = nm.AggregateLoss(nm.SquaredLoss(clean, slow), name="loss")
    model = nm.model_manager.getmodel()
    model.designate_nodes(input_node=fast, target_node=slow, loss_node=loss, prediction_node=clean, prediction_ext=[loss])
    return model


reseed(args.seed)  # the initial weights
nm.model_manager.newmodel("denoise")
model = create_model()

# %%
# Batches
# -------
#
# A batch is a tuple of arrays, one for each source of the loss: here ``(fast, slow)``, with the axes (b, f, x, y) that the
# nodes have. The target is smaller than the input, and the node knows where it lies in it: pixel 0 of the prediction sits at
# ``offsets`` of the input.
#
# What is in a batch depends on the seed and the number of the batch alone. So a run can be repeated, and can go on after
# a break with the batches that it has not seen.

start = model.prediction_node.shape.offsets[0]
inner = slice(start, start + model.prediction_node.shape["x"])


def batch(number, fast=train_fast, slow=train_slow):
    """Patches of random places, each turned or mirrored at random: (b, 1, x, y) float32 twice."""
    rng = np.random.default_rng((args.seed, number))
    inputs, targets = [], []
    for _ in range(BATCH):
        z, x, y = rng.integers(len(fast)), *rng.integers(0, size - PATCH + 1, 2)
        turns, mirror = rng.integers(4), rng.choice([1, -1])
        patches = [np.rot90(a[z, x:x + PATCH, y:y + PATCH], turns)[::mirror] for a in (fast, slow)]
        inputs.append(patches[0])
        targets.append(patches[1][inner, inner])
    return np.stack(inputs)[:, None], np.stack(targets)[:, None]


print("a batch:", *(f"{a.dtype} {a.shape}" for a in batch(0)))

# %%
# The loop
# --------
#
# ``trainingstep`` makes one update and returns the loss before it, the seconds it took, and debug outputs, of which this
# model has none. Hyper-parameters, such as the learning rate ``lr``, are attributes of the model; here it falls as a cosine.
# Every 100 updates the loss is measured on other sections, always on the same batches, and the best weights are kept.
#
# In the middle of the run, the model is saved together with the state of its optimiser.

valid = [batch(number, valid_fast, valid_slow) for number in range(4)]


def update(model, step):
    """One update; returns the loss."""
    model.lr = 3e-3 * (1 + math.cos(math.pi * step / n_steps)) / 2
    loss, _, _ = model.trainingstep(*batch(step), optimiser="AdamW")
    return loss


losses, best, best_weights = [], math.inf, None
for step in range(n_steps):
    if step == n_steps // 2:
        model.save(out / "half.mdl", optimiser_state=True)
    losses.append(update(model, step))
    if (step + 1) % (10 if args.quick else 100) == 0:
        valid_loss = np.mean([model.predict_ext(*b)[0] for b in valid])
        print(f"step {step + 1}: loss {np.mean(losses[-100:]):.5f}, on other sections {valid_loss:.5f}")
        if valid_loss < best:
            best, best_weights = valid_loss, model.get_param_values()
model.set_param_values(best_weights)
model.save(out / "denoise.mdl")

# %%
# Going on after a break
# ----------------------
#
# A file that was saved with ``optimiser_state=True`` goes on as if nothing had happened: the model tells how many updates it
# has made, so the next batches and the learning rate are right, and its losses are those of the run without a break. (In
# another process, the arrays, ``batch``, ``update`` and the sizes that they use are needed there as well: put them into a
# file that both scripts import. A model saved without that state, such as ``denoise.mdl``, begins at update 0 with the
# learning rate 1.0, so set ``lr`` first.)

resumed = nm.model.modelload(out / "half.mdl")
again = [update(resumed, step) for step in range(resumed.iterations, resumed.iterations + 5)]
difference = np.max(np.abs(np.array(again) - losses[n_steps // 2:n_steps // 2 + 5]))
print(f"resumed at step {n_steps // 2}: the losses of five updates differ by at most {difference:.1e}")
assert difference < 1e-6

# %%
# Prediction
# ----------
#
# ``predict`` takes exactly what the input node declares. For pictures of any size there is ``predict_dense``, with the
# features as the first axis: ``stack[None]`` has one. A 2-D network predicts a stack section by section.
#
# How much better is it? The peak signal-to-noise ratio says how small the mean squared difference to the slow picture is,
# in decibels: 3 dB more mean half of it. To compare with, there is the Gaussian filter whose width suits the training
# sections best: a network that is no better would not be worth the trouble.

cleaned = model.predict_dense(test_fast[None], pad_raw=True)[0]


def psnr(image, wanted):
    """Peak signal-to-noise ratio in dB, for grey values in 0..1."""
    return -10 * np.log10(np.mean((image - wanted) ** 2))


def smooth(stack, width):
    return gaussian_filter(stack, (0, width, width))


width = max(np.arange(0.4, 3, 0.1), key=lambda w: psnr(smooth(train_fast, w), train_slow))
smoothed = smooth(test_fast, width)
print(f"test sections: fast {psnr(test_fast, test_slow):.2f} dB, Gaussian filter of {width:.1f} pixels "
      f"{psnr(smoothed, test_slow):.2f} dB, network {psnr(cleaned, test_slow):.2f} dB")

# %%
# With the seed 0 this prints::
#
#     test sections: fast 17.11 dB, Gaussian filter of 1.2 pixels 26.68 dB, network 27.41 dB
#
# or, on another processor, which rounds differently, 27.67 dB for the network. So it leaves 15 to 20 % less of the squared
# error than the filter does; with other seeds, whose tissue is another, up to 30 %. More features, more updates and
# neighbouring sections as features of the input would be the next things to try.
#
# .. image:: /images/tutorial-numpy-arrays.png
#    :alt: The same part of a section four times: fast, very grainy; after a Gaussian filter, blurred and still uneven; after
#          the network, smoother, with narrower membranes; slow, the clear original.

figure = Figure((12, 3.4), layout="constrained")
panels = {"fast": test_fast, "Gaussian filter": smoothed, "network": cleaned, "slow": test_slow}
for ax, (title, stack) in zip(figure.subplots(1, len(panels)), panels.items()):
    ax.imshow(stack[2, :128, :128].T, cmap="gray", vmin=0, vmax=1)
    ax.set_title(title)
    ax.set_axis_off()
figure.savefig(out / "numpy_arrays.png", dpi=75)
print(f"Written to {out}: {', '.join(sorted(p.name for p in out.iterdir()))}")
