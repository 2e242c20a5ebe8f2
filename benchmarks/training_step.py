"""Time of a training step of neuro3d against plain PyTorch: the same network and rule, pair by pair.

    python benchmarks/training_step.py [--pairs 9]

Plain: float32, NCDHW, eager, torch.optim.AdamW, conv -> max-pool -> ReLU. Ours: model.trainingstep(optimiser='AdamW') with
the default settings, and in bfloat16. Both start from the same weights; the first losses are compared.
"""
import argparse
import logging
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from common import example, machine, median_ratio

from elektronn2.config import config
from elektronn2.neuromancer.neural import Conv


class Plain:
    """The network of a model (a chain of Conv) as one would write it in PyTorch."""

    def __init__(self, model):
        self.layers = [(n.pool_shape, n.activation_func) for n in model.nodes.values() if isinstance(n, Conv)]
        values = [(n.w.get_value(), n.b.get_value()) for n in model.nodes.values() if isinstance(n, Conv)]
        self.params = [torch.from_numpy(v).requires_grad_() for pair in values for v in pair]
        self.optimiser = torch.optim.AdamW(self.params, lr=5e-4, weight_decay=0.5e-4)

    def __call__(self, x):
        for i, (pool, activation) in enumerate(self.layers):
            x = F.conv3d(x, self.params[2 * i], self.params[2 * i + 1])
            if max(pool) > 1:
                x = F.max_pool3d(x, pool)
            if activation == "relu":
                x = F.relu(x)
        return x

    def step(self, image, target):
        loss = F.cross_entropy(self(torch.from_numpy(image)), torch.from_numpy(target[:, 0]).long())
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--network", default="neuro3d")
    args = parser.parse_args()
    logging.getLogger("elektronn2log").setLevel(logging.WARNING)
    config.device = "cpu"
    rng = np.random.default_rng(0)
    ours, plain = {}, None
    for precision in ("float32", "bfloat16"):
        model = example(args.network)
        plain = plain or Plain(model)
        for node, i in zip([n for n in model.nodes.values() if isinstance(n, Conv)], range(0, len(plain.params), 2)):
            node.set_param_values({"w": plain.params[i].detach().numpy(), "b": plain.params[i + 1].detach().numpy()})
        model.set_opt_meta_params("AdamW", dict(lr=5e-4, mom=0.9, beta2=0.999, wd=0.5e-4))
        ours[precision] = model
    image = rng.random((1, *model.input_node.shape.shape[1:]), np.float32)
    target = rng.integers(0, 2, (1, *model.target_node.shape.shape[1:])).astype(np.float32)

    print(machine())
    times = {k: [] for k in ("plain", *ours)}
    for pair in range(args.pairs + 2):
        losses = {}
        t, losses["plain"] = timed(plain.step, image, target)
        seconds = {"plain": t}
        for precision, model in ours.items():
            config.precision = precision
            seconds[precision], (losses[precision], _, _) = timed(
                lambda m=model: m.trainingstep(image, target, optimiser="AdamW"))
        if pair == 0:
            print("first losses:", ", ".join(f"{k} {v:.5f}" for k, v in losses.items()))
        if pair >= 2:  # two to warm up
            for k, v in seconds.items():
                times[k].append(v)
    print(f"{args.network}, {args.pairs} pairs, median seconds per step and median ratio to plain")
    for k, v in times.items():
        print(f"  {k:<9} {statistics.median(v):.3f} s   {median_ratio(v, times['plain']):.3f}")


if __name__ == "__main__":
    main()
