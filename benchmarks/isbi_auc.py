"""Does a network learn: neuro3d_lite on the ISBI-2012 volumes, ROC AUC on a cube that it has not seen.

    python benchmarks/isbi_auc.py PATH [--seeds 0 1 2 3 4] [--steps 1000]

PATH holds raw_{0,1,2}.h5 and barrier_int16_{0,1,2}.h5. Cubes 0 and 1 train, 2 is predicted densely with mirrored border.
"""
import argparse
import logging
import time

import numpy as np
from common import example, machine

from elektronn2 import neuromancer as nm
from elektronn2.data.cnndata import BatchCreatorImage
from elektronn2.neuromancer.init import reseed
from elektronn2.utils.basic import h5load
from elektronn2.utils.evaluation import roc_auc


def run(path, seed, steps):
    reseed(seed)
    model = example("neuro3d_lite")
    data = BatchCreatorImage(model.input_node, model.target_node, path, path,
                             [(f"raw_{i}.h5", "raw") for i in range(3)],
                             [(f"barrier_int16_{i}.h5", "lab") for i in range(3)], valid_cubes=[2], seed=seed)
    model.set_opt_meta_params("AdamW", dict(lr=5e-4, mom=0.9, beta2=0.999, wd=0.5e-4))
    start = time.perf_counter()
    for _ in range(steps):
        model.trainingstep(*data.getbatch(grey_augment_channels=[0]), optimiser="AdamW")
    seconds = time.perf_counter() - start
    dense = nm.model.rebuild_model(model, imposed_batch_size=1, override_mfp_to_active=True,
                                   imposed_patch_size=(34, 166, 166))
    probs = dense.predict_dense(h5load(f"{path}/raw_2.h5", "raw")[None], pad_raw=True)
    nm.model_manager.models.clear()
    return roc_auc(h5load(f"{path}/barrier_int16_2.h5", "lab"), probs[1]), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("path")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    logging.getLogger("elektronn2log").setLevel(logging.WARNING)
    print(machine())
    scores = []
    for seed in args.seeds:
        auc, seconds = run(args.path, seed, args.steps)
        scores.append(auc)
        print(f"seed {seed}: AUC {auc:.4f} after {args.steps} steps in {seconds:.0f} s", flush=True)
    print(f"mean {np.mean(scores):.4f} over seeds {args.seeds}")


if __name__ == "__main__":
    main()
