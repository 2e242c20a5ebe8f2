"""A GRU learns to continue waves: it is given the beginning of a sum of sines and goes on by itself.

    python examples/gru.py [--steps 1000] [--activation tanh] [--out gru.png]

Each wave is drawn anew: the same three periods, but random heights and phases. One step of the network becomes two loops:
the first takes the wave, the second what it has predicted itself. Takes a minute on one core.
"""
import argparse

import numpy as np
from matplotlib.figure import Figure

from elektronn2 import neuromancer as nm
from elektronn2.utils.plotting import BLUE, VERMILLION, sma

SEEN, AHEAD = 40, 60  # values that the network is given, and values that it goes on for
N_F = 64


def make_waves(n, rng):
    """Waves (SEEN + AHEAD + 1, n, 1) float32 of about unit standard deviation."""
    t = np.arange(SEEN + AHEAD + 1)[:, None, None]
    height, phase = rng.uniform(0.3, 1, (n, 3)), rng.uniform(0, 2 * np.pi, (n, 3))
    waves = (height * np.sin(2 * np.pi * t / (9, 16, 35) + phase)).sum(-1, keepdims=True)
    return (waves / np.sqrt((height ** 2).sum(-1) / 2)[:, None]).astype(np.float32)


def create_model(activation="tanh"):
    wave = nm.Input((SEEN, None, 1), "r,b,f", name="wave")
    first, _ = nm.split(wave, "r", index=1, strip_singleton_dims=True)
    start = nm.InitialState_like(first, N_F)
    state = nm.GRU(first, start, N_F, activation, name="state")
    value = nm.Perceptron(state, 1, "lin", name="value")  # what comes next
    states, values = nm.Scan([state, value], start, state, in_iterate=wave, in_iterate_0=first)

    # from the last of them on, the same step with the same weights, on its own predictions
    _, last_state = nm.split(states, "r", index=SEEN - 1, strip_singleton_dims=True)
    _, last_value = nm.split(values, "r", index=SEEN - 1, strip_singleton_dims=True)
    next_state = nm.GRU(last_value, last_state, N_F, activation, w=state.w, b=state.b)
    next_value = nm.Perceptron(next_state, 1, "lin", w=value.w, b=value.b)
    ahead = nm.Scan(next_value, [last_state, last_value], [next_state, next_value], n_steps=AHEAD)

    seen_target = nm.Input_like(values, name="seen_target")
    ahead_target = nm.Input_like(ahead, name="ahead_target")
    loss = nm.AggregateLoss([nm.SquaredLoss(values, seen_target), nm.SquaredLoss(ahead, ahead_target)], name="loss")
    model = nm.model_manager.getmodel()
    model.designate_nodes(wave, ahead_target, loss, ahead)
    return model


def draw(losses, waves, ahead, error, file):
    figure = Figure((11, 6.5), layout="constrained")
    left, *rows = figure.subplot_mosaic("AB;AC;AD;AE", width_ratios=(1, 2)).values()
    left.semilogy(losses, color="0.8", lw=0.6)
    left.semilogy(sma(losses, 30), color=BLUE)
    left.set(xlabel="update", ylabel="loss (mean of 30 updates)", xlim=(0, len(losses)))
    for i, ax in enumerate(rows):
        ax.axvspan(0, SEEN, color="0.94", lw=0)
        ax.plot(waves[:, i, 0], color="0.5", lw=1.2, label="wave")
        ax.plot(np.arange(SEEN + 1, SEEN + 1 + AHEAD), ahead[:, i, 0], "--", color=VERMILLION, lw=1.6, label="continued")
        ax.set(xlim=(0, SEEN + AHEAD), ylim=(-2.8, 2.8), yticks=(-2, 0, 2))
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelbottom=i == len(rows) - 1)
    rows[0].text(SEEN / 2, 2.9, "given", ha="center", va="bottom", color="0.4")
    rows[0].legend(loc="lower right", ncols=2, frameon=False, bbox_to_anchor=(1, 0.95))
    rows[-1].set_xlabel("step")
    figure.suptitle(f"GRU: error of {AHEAD} continued values {error:.2f} (of waves with standard deviation 1)")
    figure.savefig(file, dpi=120)


def main(steps=1000, activation="tanh", out=None):
    rng = np.random.default_rng(0)
    model = create_model(activation)
    model.set_opt_meta_params("AdamW", {"mom": 0.9, "beta2": 0.99, "wd": 0.0})
    test = make_waves(64, rng)

    def continued():
        ahead = model.predict(test[:SEEN])
        return ahead, float(np.sqrt(np.mean((ahead - test[SEEN + 1:]) ** 2)))
    losses = []
    for step in range(steps):
        waves = make_waves(32, rng)
        model.lr = 1e-2 * min(1, (step + 1) / 50) * (1 - step / steps)
        losses.append(model.trainingstep(waves[:SEEN], waves[1:SEEN + 1], waves[SEEN + 1:], optimiser="AdamW")[0])
        if step % 100 == 99:
            print(f"step {step + 1}: loss {model.loss_smooth:.4f}, error of {AHEAD} continued values {continued()[1]:.3f}")
    ahead, error = continued()
    print(f"waves continued for {AHEAD} values: error {error:.3f}")
    if out:
        draw(losses, test, ahead, error, out)
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--activation", default="tanh", help="of the GRU, like prelu or 'maxout 2'; tanh learns fastest")
    parser.add_argument("--out", help="picture to write, like gru.png")
    main(**vars(parser.parse_args()))
