"""An LSTM learns to continue music: it hears the beginning of a piece and plays on by itself.

    python examples/lstm.py [--steps 500] [--out lstm.png]

Pieces are piano rolls of an arpeggio over a bass: random key, four chords from a random one on, one of six figures. The
network learns which keys are struck next; then its own notes are what it hears. Takes half a minute on one core.
"""
import argparse

import numpy as np
import torch
from matplotlib.figure import Figure

from elektronn2 import neuromancer as nm
from elektronn2.utils.plotting import BLUE, VERMILLION, sma

SEEN, AHEAD = 48, 64  # steps that the network hears, and steps that it plays
BAR = 8  # steps per chord
KEYS = 36
N_F = 96
CHORDS = np.array([(0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14)])  # I, vi, IV, V in semitones above the key
FIGURES = np.array([(0, 1, 2, 1) * 2, (0, 2, 1, 2) * 2, (2, 1, 0, 1) * 2, (0, 1, 2, 0, 1, 2, 0, 1), (0, 0, 1, 1, 2, 2, 1, 1),
                    (2, 0, 2, 1, 2, 0, 2, 1)])


def make_pieces(n, length, rng):
    """Piano rolls (length, n, KEYS) float32, 1 where a key is struck."""
    t = np.arange(length)[:, None] + BAR * rng.integers(0, len(CHORDS), n)
    chord = CHORDS[t // BAR % len(CHORDS)]
    note = FIGURES[rng.integers(0, len(FIGURES), n), t % BAR]
    key = rng.integers(0, 8, n)
    struck = np.zeros((length, n, KEYS), np.float32)
    rows, columns = np.ogrid[:length, :n]
    struck[rows, columns, key + 12 + np.take_along_axis(chord, note[..., None], 2)[..., 0]] = 1
    bass = np.broadcast_to(t % (BAR // 2) == 0, chord.shape[:2])
    struck[rows, columns, key + chord[..., 0] % 12] = bass
    return struck


def step_of(heard, memory, like=None):
    """Nodes of one step: new state, hidden layer, probability of each key; with the weights of ``like``, another step."""
    w, b = (lambda i: like[i].w if like else None), (lambda i: like[i].b if like else None)
    state = nm.LSTM(heard, memory, N_F, w=w(0), b=b(0))
    shown, _ = nm.split(state, index=N_F)
    hidden = nm.Perceptron(shown, 64, "prelu", w=w(1), b=b(1))
    return state, hidden, nm.Perceptron(hidden, KEYS, "sig", w=w(2), b=b(2))


def create_model():
    heard = nm.Input((SEEN, None, KEYS), "r,b,f", name="heard")
    first, _ = nm.split(heard, "r", index=1, strip_singleton_dims=True)
    silence = nm.InitialState_like(first, 2 * N_F)
    step = state, _, keys = step_of(first, silence)
    states, probabilities = nm.Scan([state, keys], silence, state, in_iterate=heard, in_iterate_0=first)
    target = nm.Input_like(probabilities, name="target")
    loss = nm.AggregateLoss(nm.BinaryNLL(probabilities, target), name="loss")

    # from the last of them on, the same step with the same weights, on the keys that are more likely struck than not
    _, last_state = nm.split(states, "r", index=SEEN - 1, strip_singleton_dims=True)
    _, last_keys = nm.split(probabilities, "r", index=SEEN - 1, strip_singleton_dims=True)
    struck = nm.ApplyFunc(last_keys, torch.round, name="struck")
    state, _, keys = step_of(struck, last_state, like=step)
    played = nm.Scan(nm.ApplyFunc(keys, torch.round, name="played"), [last_state, struck],
                     [state, nm.ApplyFunc(keys, torch.round)], n_steps=AHEAD - 1)
    model = nm.model_manager.getmodel()
    model.designate_nodes(heard, target, loss, played, [struck, played])
    return model


def draw(losses, pieces, played, right, file):
    figure = Figure((12, 7), layout="constrained")
    left, *rolls = figure.subplot_mosaic("AB;AC;AD", width_ratios=(1, 2.4)).values()
    left.semilogy(losses, color="0.8", lw=0.6)
    left.semilogy(sma(losses, 30), color=BLUE)
    left.set(xlabel="update", ylabel="loss (mean of 30 updates)", xlim=(0, len(losses)))
    for i, ax in enumerate(rolls):
        ax.axvspan(-0.5, SEEN - 0.5, color="0.95", lw=0)
        ax.vlines(np.arange(-0.5, SEEN + AHEAD, BAR), -1, KEYS + 1, color="0.85", lw=0.5)
        t, key = np.nonzero(pieces[:, i])
        ax.scatter(t, key, s=34, marker="s", facecolors="none", edgecolors="0.45", lw=0.8, label="piece")
        t, key = np.nonzero(pieces[:SEEN, i])
        ax.scatter(t, key, s=12, marker="s", color="0.45", lw=0)
        t, key = np.nonzero(played[:, i])
        ax.scatter(SEEN + t, key, s=12, marker="s", color=VERMILLION, lw=0, label="played by the network")
        ax.set(xlim=(-1, SEEN + AHEAD), ylim=(-1, KEYS + 1), ylabel="key")
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelbottom=i == len(rolls) - 1)
    rolls[0].text(SEEN / 2, KEYS + 1.2, "heard", ha="center", va="bottom", color="0.4")
    rolls[0].legend(loc="lower right", ncols=2, frameon=False, bbox_to_anchor=(1, 0.97), borderaxespad=0)
    rolls[-1].set_xlabel("step")
    figure.suptitle(f"LSTM: {100 * right:.1f} % of {AHEAD} continued steps have exactly the right keys")
    figure.savefig(file, dpi=120)


def main(steps=500, out=None):
    rng = np.random.default_rng(0)
    model = create_model()
    model.set_opt_meta_params("AdamW", {"mom": 0.9, "beta2": 0.99, "wd": 0.0})
    test = make_pieces(64, SEEN + AHEAD, rng)

    def play():
        struck, played = model.predict_ext(test[:SEEN])
        played = np.concatenate([struck[None], played])
        return played, float((played == test[SEEN:]).all(-1).mean())
    losses = []
    for step in range(steps):
        pieces = make_pieces(64, SEEN + 1, rng)
        model.lr = 2e-2 * min(1, (step + 1) / 50) * (1 - step / steps)
        losses.append(model.trainingstep(pieces[:-1], pieces[1:], optimiser="AdamW")[0])
        if step % 100 == 99:
            print(f"step {step + 1}: loss {model.loss_smooth:.4f}, {100 * play()[1]:.1f} % of {AHEAD} continued steps right")
    played, right = play()
    print(f"pieces continued for {AHEAD} steps: {100 * right:.1f} % of the steps have exactly the right keys")
    if out:
        draw(losses, test, played, right, out)
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--out", help="picture to write, like lstm.png")
    main(**vars(parser.parse_args()))
