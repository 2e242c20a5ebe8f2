"""Affinities and MALIS: a network learns which voxels belong together, and which mistakes are the bad ones.

    python examples/malis.py [--steps 400] [--out malis.png]

The network predicts for every voxel whether it belongs to the same neurite as its neighbours in z, x and y. What is
connected by affinities above a threshold is an object, so a single leak in a membrane merges two neurites. The ordinary
loss (NLL) counts such a leak as one wrong edge among thousands. MALIS weights each edge by the pairs of voxels that it
joins or separates. The same network is trained twice: with NLL alone, and with NLL first and then the mean of both losses.
"""
import argparse

import numpy as np
from matplotlib.figure import Figure

from elektronn2 import malis
from elektronn2 import neuromancer as nm
from elektronn2.data.synthetic import make_volume
from elektronn2.neuromancer.init import reseed
from elektronn2.utils.plotting import BLUE, VERMILLION

NHOOD = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # edges to the next voxel along z, x, y
THRESHOLDS = np.linspace(0.05, 0.95, 19)   # affinities above are connections
NLL_ONLY = 0.4                             # share of the steps before MALIS joins in
LR = 2e-3
N_POINTS = 20                              # of the curves


def create_model():
    raw = nm.Input((1, 1, 14, 96, 96), "b,f,z,x,y", name="raw")
    out = nm.Conv(raw, 12, (1, 5, 5), (1, 2, 2))  # from here on voxels are about cubes
    out = nm.Conv(out, 24, (3, 3, 3))
    out = nm.Conv(out, 24, (3, 3, 3))
    out = nm.Conv(out, 24, (1, 3, 3))
    out = nm.Conv(out, 24, (3, 3, 3))
    out = nm.Conv(out, 2 * len(NHOOD), (1, 1, 1), activation_func="lin")
    probs = nm.Softmax(out, n_indep=len(NHOOD))  # per edge: not connected, connected
    ids = nm.Input_like(probs, "int32", override_f=1, name="ids")
    affinities = nm.Affinities(ids, NHOOD)
    nll = nm.MultinoulliNLL(probs, affinities, target_is_sparse=True)
    malis_nll = nm.MalisNLL(probs, affinities, ids, NHOOD, name="malis_nll")
    loss = nm.AggregateLoss([nll, malis_nll], [2, 0], name="loss")  # the mean of both, with these factors
    model = nm.model_manager.getmodel()
    model.designate_nodes(raw, ids, loss, probs, [nll, malis_nll, probs])
    return model


def make_data(seed, shape=(32, 200, 200)):
    """Raw data (z, x, y) float32 in 0..1, and ids of neurites int32, 0 on membranes."""
    raw, ids, barrier = make_volume(shape, seed)
    return raw.astype(np.float32) / 255, np.where(barrier, 0, ids)


def patch(model, raw, ids, rng):
    """Input (1, 1, z, x, y) and the ids that belong to what the network makes of it, from a random place, turned."""
    size = model.input_node.shape.spatial_shape
    corner = [rng.integers(0, n - m + 1) for n, m in zip(raw.shape, size)]
    cut = tuple(slice(c, c + n) for c, n in zip(corner, size))
    flips = tuple(rng.choice([1, -1], 3))
    axes = (0, 1, 2) if rng.random() < 0.5 else (0, 2, 1)
    raw, ids = (v[cut][tuple(slice(None, None, f) for f in flips)].transpose(axes) for v in (raw, ids))
    shape = model.prediction_node.shape
    place = tuple(slice(o, o + s * n, s) for o, s, n in zip(shape.offsets, shape.strides, shape.spatial_shape))
    return raw[None, None], ids[place][None, None]


def rand_errors(model, patches):
    """Error of the segmentations, 0 best and 1 worst: at threshold 0.5, and at the one that suits best."""
    errors = []
    for raw, ids in patches:
        connected = model.predict(raw)[0, 1::2]
        errors.append([1 - malis.compute_V_rand_N2(ids[0, 0], malis.affgraph_to_seg(connected > t, NHOOD, 0)[0])[0]
                       for t in THRESHOLDS])
    mean = np.mean(errors, 0)
    return mean[np.argmin(abs(THRESHOLDS - 0.5))], mean.min()


def train(n_steps, with_malis, volume, unseen, seed=0):
    """Rows (step, error at threshold 0.5, error at the best threshold), errors on the volume that is not trained on."""
    reseed(seed)  # the initial weights
    nm.model_manager.newmodel(f"{'malis' if with_malis else 'nll'} {seed}")
    model = create_model()
    rng = np.random.default_rng(seed)
    test = [patch(model, *unseen, rng) for _ in range(12)]
    rows = []
    for step in range(n_steps + 1):
        if step % max(1, n_steps // N_POINTS) == 0:
            rows.append((step, *rand_errors(model, test)))
            print(f"{model.name}, step {step}: loss {model.loss_smooth:.3f}, rand error {rows[-1][1]:.3f}, at the best "
                  f"threshold {rows[-1][2]:.3f}")
        if with_malis and step == int(NLL_ONLY * n_steps):
            model.mixing = [1, 1]
        model.lr = LR * (1 - step / (n_steps + 1))
        model.trainingstep(*patch(model, *volume, rng), optimiser="AdamW")
    return np.array(rows)


def draw(curves, path):
    """Errors over steps, one colour per training."""
    figure = Figure((8, 4.5), layout="constrained")
    ax = figure.subplots()
    for (name, rows), colour in zip(curves.items(), (BLUE, VERMILLION)):
        step, fixed, best = rows.T
        ax.plot(step, fixed, color=colour, lw=1.8, marker="o", ms=3, label=f"{name}, threshold 0.5")
        ax.plot(step, best, color=colour, lw=1.2, ls="--", label=f"{name}, best threshold")
    start = NLL_ONLY * step[-1]
    ax.axvline(start, color="#777777", lw=1)
    ax.text(start, 1.0, " MALIS begins", transform=ax.get_xaxis_transform(), va="top", color="#777777")
    ax.set(xlabel="step", ylabel="rand error on an unseen volume", ylim=(0, None), xlim=(0, step[-1]))
    ax.grid(True, color="#e5e5e5")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main(n_steps=400, out=None, seed=0):
    data = make_data(seed), make_data(1000 + seed)
    curves = {name: train(n_steps, with_malis, *data, seed)
              for name, with_malis in (("NLL", False), ("NLL, then with MALIS", True))}
    for name, rows in curves.items():
        late = rows[-len(rows) // 4:, 1:].mean(0)
        print(f"{name}: rand error over the last quarter {late[0]:.3f}, at the best threshold {late[1]:.3f}")
    if out:
        draw(curves, out)
    return curves


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", dest="n_steps", type=int, default=400)
    parser.add_argument("--out", help="picture of the curves to write")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
