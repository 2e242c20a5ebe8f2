"""The trainer: model, data and hooks of one experiment, put together from its config."""
import contextlib
import inspect
import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import elektronn2.data
from elektronn2.config import config
from elektronn2.neuromancer.function import as_array, resolve_device
from elektronn2.neuromancer.init import reseed
from elektronn2.neuromancer.manager import model_manager
from elektronn2.neuromancer.model import modelload
from elektronn2.neuromancer.optimiser import OPTIMISERS
from elektronn2.training import callbacks, preview
from elektronn2.training.gpu_augmentation import DeviceAugmentation
from elektronn2.training.history import HistoryTracker
from elektronn2.training.loop import Loop, StopTraining
from elektronn2.training.parallelisation import BackgroundProc, pinned
from elektronn2.training.schedule import Schedule
from elektronn2.training.shell import Shell
from elektronn2.training.trainutils import HYPER, VARIABLES
from elektronn2.utils import plotting
from elektronn2.utils.basic import atomic_write, import_file, out_of_memory, pretty_string_time
from elektronn2.utils.validate import suggest

logger = logging.getLogger("elektronn2log")

MONITOR = 2 ** 32  # samples for monitoring are numbered from here, far from those that are trained on


class Trainer:
    """Trains the model of an :class:`~elektronn2.training.trainutils.ExperimentConfig` on its data.

    >>> trainer = Trainer(ExperimentConfig('neuro3d.py'))  # doctest: +SKIP
    >>> trainer.run()  # doctest: +SKIP

    Attributes that can be used in the shell: ``model``, ``data``, ``exp_config``, ``history_tracker``, ``schedules``,
    ``preview_data``, ``loop`` (step, batch, loss), ``t_passed`` (seconds of training).

    Raises ValueError for a batch size that the model does not have, a schedule for something that there is not, or data that
    do not fit the model; whatever the config's own code raises.
    """

    def __init__(self, exp_config):
        self.exp_config = exp_config
        self.save_name, self.save_path = exp_config.save_name, Path(exp_config.save_path)
        self.t_passed, self.clock_on, self._last_monitored = 0.0, None, (0, 0.0)
        self.prevalence = float("nan")
        self.interrupted, self.shell = False, None
        self.terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
        self._lock = threading.Lock()
        self._monitored = 0
        self.created = {}
        self.model = self._make_model()
        self.first_batch = self.model.iterations  # a model that goes on gets the batches that it has not seen
        self.schedules = self.bind_schedules()
        self.data = self._make_data()
        self.batch_size = self._check_batch_size()
        self._check_monitoring()
        self.history_tracker = HistoryTracker(self.is_regression)
        if self.model.debug_output_names:
            self.history_tracker.register_debug_output_names(self.model.debug_output_names)
        path = exp_config.preview_data_path
        self.preview_data = None if path is None else preview.load_cubes(path)
        if path is not None:
            self._check_preview()
        self.last_status = dict(train_loss=np.nan, valid_loss=np.nan, train_err=np.nan, valid_err=np.nan, loss_gain=np.nan)
        self.loop, self._batches = None, None

    # -- assembly --------------------------------------------------------------------------------
    def _make_model(self):
        exp = self.exp_config
        if config.seed is not None:
            reseed(config.seed)
            torch.manual_seed(config.seed)
        if exp.model_load_path is not None:
            model = modelload(exp.model_load_path, **exp.model_load_args)
            if exp.create_model is not None:
                logger.info("The network is that of model_load_path, %s; create_model of the config is not used.",
                            exp.model_load_path)
            model.meta_params.update(HYPER)  # the config says which hyper-parameters hold
            for name, optimiser in model.used_optimisers.items():
                logger.info("%s goes on after %d steps, as %s holds its state.", name, optimiser.t, exp.model_load_path)
        else:
            model = self._create()
        model.set_opt_meta_params(exp.optimiser, exp.optimiser_params)
        return model

    def _create(self):
        """The config's model, in a model of its own; its local variables are kept for the shell."""
        create, code = self.exp_config.create_model, getattr(self.exp_config.create_model, "__code__", None)
        if "model" not in self.exp_config.namespace or code is None or code.co_name != "<lambda>":
            model_manager.newmodel(None if self.save_name in model_manager.models else self.save_name)

        def watch(frame, event, _):
            if event == "return" and frame.f_code is code:
                self.created = dict(frame.f_locals)
        previous = sys.getprofile()
        sys.setprofile(watch)
        try:
            arguments = (self.exp_config.model_load_args,) if self.exp_config.model_load_args else ()
            if arguments and code is not None and not code.co_argcount:
                raise ValueError("model_load_args is given, so create_model must take it as its one argument.")
            model = create(*arguments)
        finally:
            sys.setprofile(previous)
        if not hasattr(model, "designations"):
            raise ValueError(f"create_model in {self.exp_config.exp_file} must return the model, it returned {model!r}. "
                             "End it with: return model")
        return model

    def bind_schedules(self):
        """Schedules by variable, bound to the model or, failing that, to the config. AttributeError for an unknown one."""
        schedules = {}
        for name, description in self.exp_config.schedules.items():
            if not description:
                continue
            schedules[name] = schedule = Schedule(**description)  # checked when the config took it
            if name in self.model.nontrainable_params:
                schedule.bind_variable(variable_param=self.model.nontrainable_params[name])
            elif name in VARIABLES:
                rule = self.exp_config.optimiser
                if name in HYPER and name not in OPTIMISERS[rule].meta:
                    raise AttributeError(f"schedules: {rule} has no {name!r}, only {', '.join(OPTIMISERS[rule].meta)}.")
                schedule.bind_variable(obj=self.model, prop_name=name)
            elif hasattr(self.exp_config, name):
                schedule.bind_variable(obj=self.exp_config, prop_name=name)
            else:
                known = [*VARIABLES, *self.model.nontrainable_params]
                raise AttributeError(f"schedules: there is no variable {name!r}.{suggest(name, known)} Known: {known}.")
            logger.info("Schedule of %s: %s", name, schedule)
        return schedules

    def _make_data(self):
        exp = self.exp_config
        kind = data_class(exp.data_class)
        arguments = dict(exp.data_init_kwargs)
        known = inspect.signature(kind).parameters
        if "seed" in known and config.seed is not None:
            arguments.setdefault("seed", config.seed)
        if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            for name in arguments:
                if name not in known:
                    raise ValueError(f"data_init_kwargs: {kind.__name__} has no argument {name!r}.{suggest(name, known)} It "
                                     f"takes {', '.join(known)}.")
        data = kind(self.model.input_node, self.model.target_node, **arguments)
        if not hasattr(data, "getbatch"):
            raise ValueError(f"The data class {kind.__name__} needs a method getbatch(batch_size, source, ...).")
        device = config.augmentation_device
        return data if device is None else DeviceAugmentation(data, device)

    def _check_batch_size(self):
        wanted, own = self.exp_config.batch_size, self.model.batch_size
        if wanted is None and own is None:
            raise ValueError("batch_size is required in the config, because the model leaves it open (None).")
        if wanted is not None and own is not None and wanted != own:
            raise ValueError(f"batch_size is {wanted} in the config but {own} in the model; set one of them to None.")
        return wanted or own

    def _check_monitoring(self):
        """Raise ValueError unless loss and error can be measured as :meth:`test_model` does."""
        if not self.exp_config.history_freq or self.model.target_node is None:
            return
        first = (self.model.prediction_ext or [None])[:2]
        if first[0] is not self.model.loss_node or any(node.shape.ndim for node in first):
            given = [node.name for node in first if node]
            raise ValueError("The first nodes of prediction_ext must be the loss and the errors, which are measured every "
                             f"history_freq steps; they are {given}. Call model.designate_nodes(..., "
                             "prediction_ext=[loss, errors, probs]), or set history_freq = 0.")

    # -- batches ---------------------------------------------------------------------------------
    def make_batch(self, number, source="train", size=None, **more):
        """Tuple of arrays for a training step. Data that number their batches give the same one for the same number."""
        arguments = self._batch_arguments(source, size, **more)
        if hasattr(self.data, "batch"):
            return self._complete(self.data.batch(number, **arguments))
        with self._lock:  # other data may not be meant for several threads
            return self._complete(self.data.getbatch(**arguments))

    def _batch_arguments(self, source="train", size=None, **more):
        return {"batch_size": size or self.batch_size, "source": source, **self.exp_config.data_batch_args, **more}

    def _complete(self, batch):
        if not isinstance(batch, (tuple, list)) or not batch:
            raise ValueError(f"{type(self.data).__name__}.getbatch must return a tuple of arrays, like (images, targets), "
                             f"but it returned {type(batch).__name__}.")
        if self.exp_config.class_weights is not None:
            batch = (*batch, np.asarray(self.exp_config.class_weights, np.float32))
        return tuple(batch)

    def check_batch(self):
        """Make a batch and compute its loss, as the config says at this moment. Raises what is wrong with it."""
        try:
            self.model.loss(*self.make_batch(MONITOR - 1))
        except TypeError as error:
            if self.exp_config.class_weights is not None:
                error.add_note("The last input is class_weights of the config; the loss needs an input node for it.")
            raise

    def _start_batches(self):
        workers, first = config.background_processes, self.first_batch + self.loop.step
        self._batches = self.workers(max(2, int(workers)), config.background_kind, first) if workers else None

    def workers(self, n, kind, first=0):
        """``n`` threads or processes (``kind``) that prepare batches for training steps, numbered from ``first``."""
        processes = kind == "processes"
        if processes and config.augmentation_device is not None:
            raise ValueError("background_kind='processes' and augmentation_device exclude each other: images would have to "
                             "come back from the device. Use 'threads'.")
        if processes and not hasattr(self.data, "batch"):
            raise ValueError("background_kind='processes' needs data that number their batches, but "
                             f"{type(self.data).__name__} has no method batch(number, ...): each process would make the "
                             "same ones. Use 'threads'.")
        if not processes:
            return BackgroundProc(lambda number: self._pinned(self.make_batch(number)), n_proc=n, first=first)
        method = "spawn" if getattr(self.data, "h5stream", False) else None  # open files are no good heritage
        return BackgroundProc(self.data.batch, n_proc=n, target_kwargs=self._batch_arguments(), first=first, kind=kind,
                              start_method=method, finish=lambda batch: self._pinned(self._complete(batch)))

    def _pinned(self, batch):
        """The arrays where a GPU, if there is one, takes them from without waiting."""
        return pinned(batch) if resolve_device(config.device).startswith("cuda") else batch

    def next_batch(self):
        """The next batch, from the workers or made now."""
        return self._batches.get() if self._batches else self.make_batch(self.first_batch + self.loop.step)

    # -- the run ---------------------------------------------------------------------------------
    def run(self):
        """Train until ``n_steps``, ``max_runtime`` or the end that the user chooses. Returns True if it went as meant.

        Ctrl+C opens the shell after the step; a second one interrupts at once. A trainer runs once: RuntimeError if it has.
        """
        if self.loop is not None:
            raise RuntimeError(f"This trainer has run. To train the model further, begin a new run, with a config whose "
                               f"model_load_path is {str(self.save_path / (self.save_name + '-LAST.mdl'))!r}.")
        hooks = [callbacks.Clock(self), callbacks.CheckFinite(self), callbacks.Timeline(self), callbacks.Schedules(self),
                 callbacks.Snapshots(self), callbacks.Previews(self), callbacks.Monitor(self), callbacks.Pauses(self)]
        self.loop = Loop(self.model, self.next_batch, self.exp_config, hooks, self._on_error)
        self._start_batches()
        handler = self._catch_interrupts()
        try:
            self.loop.run()
        finally:
            if handler is not None:
                signal.signal(signal.SIGINT, handler)
            if self._batches:
                self._batches.shutdown()
        return self.loop.failure is None

    def _catch_interrupts(self):
        if threading.current_thread() is not threading.main_thread():
            return None

        def on_interrupt(*_):
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            if self.terminal:
                sys.stderr.write("\nPausing after this step ... (Ctrl+C again: end the run at once)\n")
        return signal.signal(signal.SIGINT, on_interrupt)

    def _on_error(self, error):
        """Let the user look at, and mend, what a batch or step could not be made with. True: go on."""
        if not self.terminal:
            return False
        logger.debug("%s", "".join(traceback.format_exception(error)))
        self.pause(f"{type(error).__name__}: {error}{memory_advice(error)}")
        return True

    def pause(self, reason):
        """Open the shell, and go on when it is left; without a terminal, end training."""
        if not self.terminal:
            raise StopTraining(f"{reason.rstrip('.')}. Training stops, as there is no terminal to ask.", failed=True)
        with self.clock_stopped():
            logger.info("%s\n%s", reason, self.summary())
            if self.shell is None:
                self.shell = Shell(self)
            in_loop = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl+C stops what runs in the shell
            try:
                go_on = self.shell.interact()
            finally:
                signal.signal(signal.SIGINT, in_loop)
            self.interrupted = False
            if not go_on:
                raise StopTraining("Ended by the user.")
            if self._batches:  # arguments of the data may have been changed
                if self._batches.kind == "processes":
                    self._batches.target_kwargs = self._batch_arguments()
                self._batches.reset()

    def tick(self):
        """Add the time since the last tick."""
        now = time.perf_counter()
        if self.clock_on is not None:
            self.t_passed += now - self.clock_on
            self.clock_on = now

    @contextlib.contextmanager
    def clock_stopped(self):
        """What is done within does not count as training time."""
        self.tick()
        self.clock_on = None
        try:
            yield
        finally:
            self.clock_on = time.perf_counter()

    # -- monitoring ------------------------------------------------------------------------------
    def test_model(self, source):
        """(loss, error) of one batch of ``monitor_batch_size`` examples, in predict mode; nan if there are none.

        Error is the value of the second node of ``prediction_ext``.
        """
        if self.model.target_node is None:
            return 0.0, 0.0
        total = -(-self.exp_config.monitor_batch_size // self.batch_size) * self.batch_size
        try:
            number = self._monitored if source == "train" else 0  # validation is always on the same examples
            batch = self.make_batch(MONITOR + number, source, total)
        except ValueError as error:
            if source == "train":
                raise
            logger.warning("No validation: %s", error)
            return np.nan, np.nan
        axes = [n.shape.tag2index("b") if n.shape.hastag("b") else None for n in self.model.loss_node.input_nodes]
        if np.isnan(self.prevalence):
            self.prevalence = callbacks.prevalence(batch)
        results = []
        for i in range(0, total, self.batch_size):
            part = slice(i, i + self.batch_size)
            arrays = [a if axis is None else a[(*(slice(None),) * axis, part)] for a, axis in zip(batch, axes)]
            results.append([float(np.mean(value)) for value in self.model.predict_ext(*arrays)[:2]])
        loss, *error = np.mean(results, axis=0)
        return float(loss), float(error[0]) if error else np.nan

    def monitor(self, loop):
        """Measure (with averaged weights, if there are any), record, save, draw and print the state of the run."""
        status = {}
        with self.averaged():
            status["train_loss"], status["train_err"] = self.test_model("train")
            status["valid_loss"], status["valid_err"] = self.test_model("valid")
        status["loss_gain"] = self.model.loss(*loop.batch) - loop.loss if loop.step else np.nan
        self._monitored += 1
        self.last_status = status
        self.tick()
        model = self.model
        rates = model.gradnet_rates
        measured = [status[k] for k in ("train_loss", "valid_loss", "loss_gain", "train_err", "valid_err")]
        self.history_tracker.update_history([loop.step, self.t_passed, *measured, model.lr, model.mom,
                                             rates[0] if rates else 0.0])
        if loop.step:
            self.save(f"{self.save_name}-LAST.mdl", optimiser_state=True)
            self.save_averaged(f"{self.save_name}-LAST-ema.mdl")
            self.save_history()
            if config.plot_on and (loop.step >= 3 * self.exp_config.history_freq or loop.step > 60):
                self.plot_history()
        if config.print_status:
            logger.info("%s", self.status_line())
        self._last_monitored = loop.step, self.t_passed

    @property
    def is_regression(self):
        """Whether the error is no rate, because the loss is a distance."""
        loss = self.model.loss_node
        return bool(loss.parents) and type(loss.parents[0]).__name__ in ("SquaredLoss", "AbsLoss", "EuclideanDistance")

    def _error(self, value):
        number, unit = (value, "err") if self.is_regression else (100 * value, "%")
        return f"{'nan' if np.isnan(value) else format(number, '05.2f')}{unit}"

    def speed(self):
        """Steps per second since the last status line, with everything but previews and pauses."""
        step, seconds = self._last_monitored
        return (self.loop.step - step) / (self.t_passed - seconds) if self.t_passed > seconds else 0.0

    def status_line(self):
        """One line: step, losses, errors, prevalence, learning rate, speed, time."""
        s, model = self.last_status, self.model
        smooth, last = (model.loss_smooth, self.loop.loss) if self.loop.step else (s["train_loss"],) * 2
        gain, speed = np.nan_to_num(s["loss_gain"]), self.speed()
        prevalence = "nan" if np.isnan(self.prevalence) else f"{100 * self.prevalence:04.1f}"
        voxels = self.batch_size * self.model.input_node.shape.stripbatch_prod
        return (f"{self.loop.step:05d}, L_m={smooth:.3f}, L={last:.2f}, tr={self._error(s['train_err'])}, "
                f"vl={self._error(s['valid_err'])}, prev={prevalence}, L_diff={gain:+.1e}, "
                f"LR={model.lr:.2e}, {speed:.2f} it/s, {voxels * speed / 1e6:.2f} MVx/s, "
                f"{pretty_string_time(self.t_passed)}")

    def summary(self):
        """Several lines, for a pause."""
        s, model = self.last_status, self.model
        return (f"After {self.loop.step if self.loop else 0} steps, {pretty_string_time(self.t_passed)}: "
                f"loss {model.loss_smooth:.4f} (training {s['train_loss']:.4f}, validation {s['valid_loss']:.4f}), "
                f"error {self._error(s['train_err'])} / {self._error(s['valid_err'])}\n"
                f"LR={model.lr:.3e}, MOM={model.mom:.3f}, WD={model.wd:.2e}, "
                f"{1 / model.time_per_step:.2f} it/s computing, {self.speed():.2f} it/s with everything")

    # -- files -----------------------------------------------------------------------------------
    def save(self, name, optimiser_state=False):
        """Write the model to a file in the folder of the run. Returns whether that worked; if not, training can go on.

        Parameters that are NaN or infinite are not saved over good ones."""
        return self._try(f"{name} could not be saved", self.model.save, self.save_path / name,
                         optimiser_state=optimiser_state)

    def save_averaged(self, name):
        """The same of the averaged weights, if there are any."""
        if self.model.averages:
            with self.averaged():
                self.save(name)

    def averaged(self):
        """Context manager: within, the model has its averaged weights, if there are any."""
        return self.model.averaged_weights() if self.model.averages else contextlib.nullcontext()

    def save_history(self):
        """Write the history to ``Backup/<save_name>.history.npz`` and ``.csv``."""
        self._try("The history could not be saved", self.history_tracker.save,
                  str(self.save_path / "Backup" / self.save_name))

    def plot_history(self):
        """Draw ``0-<save_name>.timeline.png``, ``.history.png`` and so on."""
        self._try("The history could not be drawn", self.history_tracker.plot, str(self.save_path / f"0-{self.save_name}"))

    @staticmethod
    def _try(message, function, *args, **kwargs):
        """Call a function whose failure is logged and does not end training. Returns whether it worked."""
        try:
            function(*args, **kwargs)
        except Exception as error:
            logger.error("%s (%s: %s). Training goes on.", message, type(error).__name__, error)
            return False
        return True

    # -- looking ---------------------------------------------------------------------------------
    def debug_getcnnbatch(self):
        """Draw image, target and both of one training example into ``Batch_test_image.png`` and return the batch.

        Only for networks on images: else a note is logged, and None returned.
        """
        model = self.model
        if model.ndim < 2 or model.input_node.shape.ndim < 2:
            logger.warning("No picture of a batch: prediction %r has fewer than two spatial axes.",
                           model.prediction_node.name)
            return None
        dense = "force_dense" in inspect.signature(self.data.getbatch).parameters
        batch = self.make_batch(self.loop.step if self.loop else 0, **dict(force_dense=True) if dense else {})
        image, target = as_array(batch[0][0]), np.where(batch[1][0] == -666, 0, batch[1][0])
        stride = model.target_node.shape.strides
        offset = model.target_node.shape.offsets
        if model.ndim == 3:
            z = target.shape[1] // 2
            image = image[:, offset[0] + z * (1 if dense else int(stride[0]))]
            target = target[:, z]
        image = image[0].T
        target = np.moveaxis(target[:3], 0, -1).swapaxes(0, 1) if len(target) >= 3 else target[0].T
        figure = plotting.plot_trainingtarget(image, target, 1 if dense else int(stride[-1]))
        FigureCanvasAgg(figure)
        with atomic_write(self.save_path / "Batch_test_image.png") as temporary:
            figure.savefig(temporary, format="png")
        logger.info("Drew %s", self.save_path / "Batch_test_image.png")
        return batch

    def preview_slice(self, number=None, export_class="all", max_z_pred=5):
        """Predict the preview cubes and write sections of raw and prediction; see
        :func:`~elektronn2.training.preview.predict_and_write`.

        ``number``: hours, for the file names (default: those of training so far). Raises ValueError without preview data,
        or for cubes that are too thin.
        """
        if self.preview_data is None:
            raise ValueError("There are no preview cubes: set preview_data_path in the config.")
        node = self._dense_node()
        number = round(self.t_passed / 3600, 3) if number is None else number
        for i, cube in enumerate(self.preview_data):
            raw = preview.central_slices(node, cube, max_z_pred)
            self.predict_and_write(node, raw, number, export_class, str(i), max_z_pred)

    def predict_and_write(self, pred_node, raw_img, number=0, export_class="all", block_name="", z_thick=5):
        """The same of one cube (f, z, x, y) and any node."""
        files = preview.predict_and_write(pred_node, raw_img, self.save_path, self.save_name, number, export_class,
                                          block_name, z_thick)
        logger.info("Wrote %d preview images, such as %s", len(files), files[-1])

    def preview_slice_from_traindata(self, cube_i=0, off=(0, 0, 0), sh=(10, 400, 400), number=None, export_class="all"):
        """Predict a part of training cube ``cube_i``, from corner ``off`` (z, x, y) and of at most size ``sh``."""
        node = self._dense_node()
        number = round(self.t_passed / 3600, 3) if number is None else number
        box = tuple(slice(o, o + n) for o, n in zip(off, sh))
        raw = preview.as_float(self.data.train_d[cube_i][(slice(None), *box)])
        z_pred = sh[0] if node.shape.ndim == 2 else preview.geometry(node)[0].size(raw.shape[1])
        self.predict_and_write(node, raw, number, export_class, f"train{cube_i}", z_pred)

    def _dense_node(self):
        node = self.model.prediction_node
        if node.shape.ndim < 2 and "pred_dense" in self.model:
            node = self.model["pred_dense"]
        if node.shape.ndim < 2:
            raise ValueError(f"Previews need a prediction with spatial axes; {node.name!r} is {node.shape}. Name a node "
                             "'pred_dense' to be used instead.")
        return node

    def _check_preview(self):
        """Raise ValueError if previews cannot be made as the config says."""
        kwargs, known = self.exp_config.preview_kwargs, list(inspect.signature(self.preview_slice).parameters)
        for name in kwargs:
            if name not in known:
                raise ValueError(f"preview_kwargs: there is no {name!r}, only {', '.join(known)}.{suggest(name, known)}")
        node, z = self._dense_node(), kwargs.get("max_z_pred", 5)
        if isinstance(z, bool) or not isinstance(z, (int, np.integer)) or z < 1:
            raise ValueError(f"preview_kwargs: max_z_pred must be an integer of at least 1; got {z!r}.")
        if kwargs.get("export_class", "all") not in ("malis", "affinity"):
            preview.wanted_channels(kwargs.get("export_class", "all"), node.shape["f"])
        for cube in self.preview_data:
            preview.central_slices(node, cube, z)

    def try_preview(self):
        """A preview whose failure is logged and does not end training."""
        with self.averaged():
            self._try("The preview failed; check preview_data_path and preview_kwargs", self.preview_slice,
                      **self.exp_config.preview_kwargs)


def memory_advice(error):
    """What to do if an error says that memory ran out; else an empty string."""
    advice = "\nThere is too little memory: lower batch_size, or make the input patch or the network smaller."
    return advice if out_of_memory(error) else ""


def data_class(value):
    """The class that ``data_class`` in a config names: in ``elektronn2.data``, or (path of a Python file, name)."""
    if isinstance(value, type):
        return value
    if isinstance(value, str):
        if value in elektronn2.data.LEFT_OUT:
            raise ValueError(f"data_class {value!r} is left out on purpose: {elektronn2.data.LEFT_OUT[value]}.")
        if value not in elektronn2.data.__all__:
            raise ValueError(f"data_class {value!r} is not in elektronn2.data.{suggest(value, elektronn2.data.__all__)} "
                             f"There are: {', '.join(elektronn2.data.__all__)}; or give (path of a Python file, name).")
        return getattr(elektronn2.data, value)
    path, name = value
    path = os.path.expanduser(path)
    module = import_file(path)
    if not hasattr(module, name):
        raise ValueError(f"data_class: {path} defines no {name!r}.{suggest(name, dir(module))}")
    return getattr(module, name)
