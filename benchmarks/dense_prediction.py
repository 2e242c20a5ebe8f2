"""Voxels per second of dense prediction of neuro3d: max-fragment pooling against plain PyTorch passes at all offsets.

    python benchmarks/dense_prediction.py [--rounds 3]

Plain: the training patch (23,185,185), float32, NCDHW, no_grad, shifted over all 2*4*4 offsets. Ours: predict_dense with
MFP at patch (46,304,304), in float32 and bfloat16, on the volume that takes one tile. Both results are compared.
"""
import argparse
import logging
import statistics
from itertools import product

import numpy as np
import torch
from common import example, machine
from training_step import Plain, timed

from elektronn2 import neuromancer as nm
from elektronn2.config import config


def all_offsets(plain, raw, patch, strides):
    """Dense barrier probability of one block, by a pass per offset."""
    passes = {}
    with torch.no_grad():
        for shift in product(*map(range, strides)):
            window = raw[(slice(None), *(slice(d, d + n) for d, n in zip(shift, patch)))]
            passes[shift] = torch.softmax(plain(torch.from_numpy(np.ascontiguousarray(window[None]))), 1)[0].numpy()
    out = passes[(0, 0, 0)].shape[1:]
    dense = np.empty((2, *(n * s for n, s in zip(out, strides))), np.float32)
    for shift, result in passes.items():
        dense[(slice(None), *(slice(d, None, s) for d, s in zip(shift, strides)))] = result
    return dense


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patch", type=int, nargs=3, default=[46, 304, 304])
    args = parser.parse_args()
    logging.getLogger("elektronn2log").setLevel(logging.WARNING)
    config.device = "cpu"
    model = example("neuro3d")
    plain = Plain(model)
    patch, strides = model.input_node.shape.spatial_shape, [int(s) for s in model.prediction_node.shape.strides]
    mfp = nm.model.rebuild_model(model, imposed_batch_size=1, override_mfp_to_active=True, imposed_patch_size=args.patch)
    size = mfp.input_node.shape.spatial_shape
    rng = np.random.default_rng(0)
    raw = rng.random((1, *size), np.float32)
    small = raw[(slice(None), *(slice(0, n + s - 1) for n, s in zip(patch, strides)))]
    print(machine(), f"; MFP patch {size}")
    rates = {"plain": [], "float32": [], "bfloat16": []}
    results = {}
    for _ in range(args.rounds):
        seconds, results["plain"] = timed(all_offsets, plain, small, patch, strides)
        rates["plain"].append(results["plain"][0].size / seconds)
        for precision in ("float32", "bfloat16"):
            config.precision = precision
            mfp.prediction_node()  # compiled beforehand
            seconds, results[precision] = timed(mfp.predict_dense, raw)
            rates[precision].append(results[precision][0].size / seconds)
    part = (slice(None), *(slice(0, n) for n in results["plain"].shape[1:]))
    print("largest differences to plain:", ", ".join(
        f"{k} {np.abs(results[k][part] - results['plain']).max():.1e}" for k in ("float32", "bfloat16")))
    base = statistics.median(rates["plain"])
    for k, v in rates.items():
        print(f"  {k:<9} {statistics.median(v):9.0f} voxels/s   {statistics.median(v) / base:.2f} x plain")


if __name__ == "__main__":
    main()
