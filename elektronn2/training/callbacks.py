"""What training does beside the updates, each as a hook of the loop.

They hold the trainer, read its settings anew each time, and write into its folder.
"""
import logging
import math
import sys
import time

import numpy as np

from elektronn2.config import config
from elektronn2.training.loop import Hook, StopTraining
from elektronn2.utils.basic import pretty_string_time

logger = logging.getLogger("elektronn2log")


class TrainerHook(Hook):
    """A hook that belongs to a trainer."""

    def __init__(self, trainer):
        self.trainer = trainer


class Clock(TrainerHook):
    """Counts the time of training: steps and monitoring, not previews and pauses; shows the last step."""

    def on_start(self, loop):
        self.trainer.clock_on = self.shown = time.perf_counter()

    def on_step(self, loop):
        trainer = self.trainer
        trainer.tick()
        if trainer.terminal and trainer.clock_on > self.shown + 0.1:
            self.shown = trainer.clock_on
            sys.stderr.write(f"{loop.step:05d}, {loop.loss:.4f}   \r")  # the next line overwrites it
            sys.stderr.flush()


class CheckFinite(TrainerHook):
    """Pauses training when the loss is no finite number, before anything is saved."""

    def on_step(self, loop):
        if not math.isfinite(loop.loss):
            origin = self.trainer.model.find_nonfinite(*loop.batch)
            self.trainer.pause(f"The loss became {loop.loss} at step {loop.step}, which changed nothing (its batch: "
                               f"batch[0], batch[1]). Not finite at first: {origin or 'nothing, when computed again'}. A "
                               f"smaller learning rate than {self.trainer.model.lr:.3g}, or clip_norm, often helps")


class Timeline(TrainerHook):
    """Records every step."""

    def on_step(self, loop):
        trainer = self.trainer
        trainer.prevalence = prevalence(loop.batch)
        trainer.history_tracker.update_timeline([trainer.t_passed, loop.loss, trainer.prevalence])
        if loop.debug is not None:
            trainer.history_tracker.update_debug_outputs([loop.step, loop.loss, *map(np.mean, loop.debug)])


class Snapshots(TrainerHook):
    """Keeps a model every ``config.param_save_it`` steps, with the optimiser's state, and the last one without it."""

    def on_step(self, loop):
        if loop.step % config.param_save_it == 0:
            self.trainer.save(f"Backup/{self.trainer.save_name}-{loop.step / 1000:g}k.mdl", optimiser_state=True)

    def on_end(self, loop):
        name = self.trainer.save_name
        if loop.failure is not None and loop.step:
            self.trainer.save(f"Backup/{name}-stopped.mdl", optimiser_state=True)
        elif loop.failure is None:
            self.trainer.save_averaged(f"{name}-FINAL-ema.mdl")
            if not self.trainer.save(f"{name}-FINAL.mdl"):
                loop.failure = OSError("The final model was not saved.")


class Previews(TrainerHook):
    """Predicts the preview cubes, first after ``config.initial_prev_h`` hours, then every ``config.prev_save_h``."""

    def __init__(self, trainer):
        super().__init__(trainer)
        self.last = None

    def on_step(self, loop):
        trainer = self.trainer
        hours = trainer.t_passed / 3600
        due = config.initial_prev_h if self.last is None else self.last + config.prev_save_h
        if trainer.preview_data is None or hours < due:
            return
        self.last = hours
        with trainer.clock_stopped():
            trainer.try_preview()


class Schedules(TrainerHook):
    """Lets the schedules of the config set their values."""

    def on_start(self, loop):
        for schedule in self.trainer.schedules.values():
            schedule.update(0)

    def on_step(self, loop):
        for schedule in self.trainer.schedules.values():
            schedule.update(loop.step)


class Monitor(TrainerHook):
    """Every ``history_freq`` steps, and before the first: measures, records, saves, draws, prints the status line."""

    def on_start(self, loop):
        if self.trainer.exp_config.history_freq:
            self.trainer.monitor(loop)

    def on_step(self, loop):
        every = self.trainer.exp_config.history_freq
        if every and loop.step % every == 0:
            self.trainer.monitor(loop)

    def on_end(self, loop):
        trainer = self.trainer
        if loop.step:
            trainer.save_history()
        if loop.step > 10 and config.plot_on:
            trainer.plot_history()
        logger.info("Training of %s ended after %d steps, %s", trainer.save_name, loop.step,
                    pretty_string_time(trainer.t_passed))


class Pauses(TrainerHook):
    """Opens the shell when Ctrl+C was pressed, and ends training when its time is over."""

    def on_step(self, loop):
        trainer = self.trainer
        if trainer.interrupted:
            trainer.interrupted = False
            trainer.pause("Interrupted by Ctrl+C")
        trainer.tick()
        if trainer.t_passed > trainer.exp_config.max_runtime:
            raise StopTraining(f"max_runtime ({trainer.exp_config.max_runtime:g} s) is over.")


def prevalence(batch):
    """Mean of the first channel of the targets where they are labelled (at least 0); nan if there are none."""
    if len(batch) < 2:
        return float("nan")
    target = batch[1][:, 0] if batch[1].ndim > 1 else batch[1]
    labelled = target[target >= 0]
    return float(labelled.mean()) if labelled.size else float("nan")
