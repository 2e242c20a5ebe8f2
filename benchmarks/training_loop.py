"""Does background loading keep up: the training loop on new, warped samples against the same loop on one fixed batch.

    python benchmarks/training_loop.py [--rounds 5] [--steps 12] [--workers 2] [--kind threads] [--precision bfloat16]

neuro3d and neuro3d_lite with the data settings of their configs (grey augmentation, half of the samples warped), on
synthetic volumes made for it. Also the ratio of their steps.
"""
import argparse
import logging
import statistics
import tempfile
import time

from common import config_of, machine, median_ratio

from elektronn2 import neuromancer as nm
from elektronn2.config import config
from elektronn2.data.cnndata import BatchCreatorImage
from elektronn2.data.synthetic import write_neuro_data
from elektronn2.training.loop import Hook, Loop
from elektronn2.training.parallelisation import BackgroundProc


class Stopwatch(Hook):
    """Seconds per step of the loop, without the first two."""

    def on_start(self, loop):
        self.start = None

    def on_step(self, loop):
        if loop.step == 2:
            self.start = time.perf_counter()

    def on_end(self, loop):
        self.seconds = (time.perf_counter() - self.start) / (loop.step - 2)


class Options:
    optimiser = "AdamW"

    def __init__(self, n_steps):
        self.n_steps = n_steps


def rounds(name, data_path, n_rounds, steps, workers, kind):
    """Seconds per step, with background loading and on a fixed batch, one pair per round."""
    experiment = config_of(name)
    nm.model_manager.newmodel(None)
    model = experiment.create_model()
    model.set_opt_meta_params("AdamW", experiment.optimiser_params)
    data = BatchCreatorImage(model.input_node, model.target_node, seed=0,
                             **{**experiment.data_init_kwargs, "d_path": data_path, "l_path": data_path})
    arguments = dict(batch_size=1, source="train", **experiment.data_batch_args)
    fixed = data.batch(0, **arguments)
    loaded_times, fixed_times = [], []
    for _ in range(n_rounds):
        batches = BackgroundProc(data.batch, n_proc=workers, target_kwargs=arguments, first=0, kind=kind)
        for next_batch, times in ((batches.get, loaded_times), (lambda: fixed, fixed_times)):
            watch = Stopwatch()
            Loop(model, next_batch, Options(steps + 2), [watch]).run()
            times.append(watch.seconds)
            if next_batch == batches.get:
                batches.shutdown()
    return loaded_times, fixed_times, data.warp_stats


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kind", choices=("threads", "processes"), default="threads")
    parser.add_argument("--configs", nargs="+", default=["neuro3d", "neuro3d_lite"])
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    args = parser.parse_args()
    config.precision = args.precision
    logging.getLogger("elektronn2log").setLevel(logging.WARNING)
    print(machine())
    fixed = {}
    with tempfile.TemporaryDirectory() as folder:
        write_neuro_data(folder, raw_shape=(80, 300, 300), label_shape=(60, 180, 180), preview_shape=(30, 200, 200))
        for name in args.configs:
            loaded, fixed[name], stats = rounds(name, folder, args.rounds, args.steps, args.workers, args.kind)
            seconds = statistics.median(loaded), statistics.median(fixed[name])
            print(f"{name}: new samples {seconds[0]:.3f} s, one fixed batch {seconds[1]:.3f} "
                  f"s per step; median ratio {median_ratio(loaded, fixed[name]):.3f} ({stats})", flush=True)
    if {"neuro3d", "neuro3d_lite"} <= set(fixed):
        print(f"a step of neuro3d takes {median_ratio(fixed['neuro3d'], fixed['neuro3d_lite']):.2f} times as long as one of "
              "neuro3d_lite")


if __name__ == "__main__":
    main()
