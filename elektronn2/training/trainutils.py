"""The experiment: a config file, checked as a whole before any work begins, and the folder of its run."""
import ast
import getpass
import logging
import os
import shutil
import socket
import sys
import tarfile
import time
from pathlib import Path

import numpy as np

import elektronn2
from elektronn2.config import config, execute, read_source
from elektronn2.data.io import how_to_get
from elektronn2.data.volumes.opening import as_address, open_volumes
from elektronn2.neuromancer.function import resolve_device
from elektronn2.neuromancer.model import Model
from elektronn2.neuromancer.optimiser import DEFAULTS as HYPER
from elektronn2.neuromancer.optimiser import OPTIMISERS, check_hyper
from elektronn2.training.history import HistoryTracker, loadhistorytracker
from elektronn2.training.schedule import Schedule
from elektronn2.utils.log import change_logging_file, stop_logging_to_file
from elektronn2.utils.validate import suggest, suggest_file

__all__ = ["ExperimentConfig", "HistoryTracker", "Schedule", "levenshtein", "loadhistorytracker", "login"]

logger = logging.getLogger("elektronn2log")

DEFAULTS = dict(
    save_name=None, create_model=None, model_load_path=None, model_load_args=None, batch_size=None,
    preview_data_path=None, preview_kwargs=None, data_class=None, data_init_kwargs=None, data_batch_args=None,
    n_steps=None, max_runtime=None, history_freq=None, monitor_batch_size=None, optimiser=None, optimiser_params=None,
    schedules=None, class_weights=None,
)
REQUIRED = ("data_class", "n_steps", "max_runtime", "history_freq", "monitor_batch_size", "optimiser", "optimiser_params")
DICTS = ("model_load_args", "preview_kwargs", "data_init_kwargs", "data_batch_args", "optimiser_params", "schedules")
LIVE = ("preview_kwargs", "data_batch_args", "n_steps", "max_runtime", "history_freq", "monitor_batch_size", "optimiser",
        "optimiser_params", "schedules", "class_weights")  # may be changed while a run goes on
VARIABLES = (*HYPER, "mixing", "dropout_rates", "gradnet_rates")  # of a model, set by schedules and in the shell
OLD = {
    "lr_schedule": "schedules = {'lr': {...}}", "wd_schedule": "schedules = {'wd': {...}}",
    "mom_schedule": "schedules = {'mom': {...}}", "dropout_schedule": "schedules = {'dropout_rates': {...}}",
    "gradnet_schedule": "schedules = {'gradnet_rates': {...}}", "lazy_labels": "negative labels, which are ignored",
    "sequence_training": "a loop of your own over model.trainingstep",
}


def levenshtein(s1, s2):
    """Smallest number of letters to insert, delete or replace to turn one string into the other.

    >>> levenshtein('bacth_size', 'batch_size')
    2
    """
    row = list(range(len(s2) + 1))
    for i, a in enumerate(s1, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(s2, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def login():
    """Name of the user, also where the system knows none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "user"


class ExperimentConfig:
    """What a config file says, with defaults filled in, and the folder of the run (``save_path``).

    ``exp_file``: Python, executed with its own folder on the search path. Names that are known (those below and every
    setting of ``elektronn2.config.config``) are taken over, the latter into ``config``; ``namespace`` holds all names
    that the file defined. ``host_script_file``: a script to keep with the run. ``use_existing_dir``: the folder exists and
    is used as it is. ``save_path``: the folder of runs (default: that of the config).

    Raises one ValueError that lists everything that is missing, misspelled or of the wrong kind; FileExistsError if the
    folder of the run exists and ``overwrite`` is not set; PermissionError if it cannot be written. An error in the file
    itself is raised as it is, with the file and line in its traceback.
    """

    def __init__(self, exp_file, host_script_file=None, use_existing_dir=False, save_path=None):
        self.exp_file = Path(exp_file).expanduser().resolve()
        if not self.exp_file.is_file():
            raise FileNotFoundError(f"There is no config file {self.exp_file}.{suggest_file(self.exp_file)}")
        self.__dict__.update(DEFAULTS)
        self._problems = []
        self._read()
        self._check()
        if self._problems:
            n = len(self._problems)
            raise ValueError(f"{self.exp_file} has {n} problem{'s' * (n > 1)}:\n  " + "\n  ".join(self._problems))
        self._make_folder(host_script_file, use_existing_dir, save_path or config.save_path)
        self._running = True

    def __setattr__(self, name, value):
        if getattr(self, "_running", False):
            if name not in DEFAULTS:
                raise AttributeError(f"exp_config has no setting {name!r}.{suggest(name, DEFAULTS)}")
            if name not in LIVE:
                raise AttributeError(f"{name!r} is used when a run begins and cannot be changed in it. Leave with 'kill', "
                                     "edit the config, and go on from the saved model with model_load_path.")
            if problems := self._problems_of(name, value):
                raise ValueError("\n".join(problems))
        self.__dict__[name] = value

    # -- reading ---------------------------------------------------------------------------------
    def _read(self):
        self.namespace = {"__name__": self.exp_file.stem, "__file__": str(self.exp_file), "np": np}
        sys.path.insert(0, str(self.exp_file.parent))
        try:
            found = execute(self.exp_file, self.namespace)
        finally:
            sys.path.remove(str(self.exp_file.parent))
        found.update({name: self.namespace[name] for name in DEFAULTS if name in self.namespace})  # functions, too
        if isinstance(model := self.namespace.get("model"), Model) and "create_model" not in found:
            found["create_model"] = lambda: model  # the file built its model at top level
        tree = ast.walk(ast.parse(read_source(self.exp_file)))
        used = {n.id for n in tree if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        for name, value in found.items():
            if name in DEFAULTS:
                self.__dict__[name] = value
            elif name in config:
                try:
                    setattr(config, name, value)
                except ValueError as error:
                    self._problems.append(str(error))
            elif name in OLD:
                if value is not None:
                    logger.warning("Setting %r was never used and has no effect: use %s.", name, OLD[name])
            elif name not in used and name not in ("model", "np"):  # what the file reads itself is no mistake
                self._unknown(name, found)

    def _unknown(self, name, found):
        known = [*DEFAULTS, *vars(config)]
        nearest = min(known, key=lambda k: levenshtein(name, k))
        if nearest not in found and len(name) > 3 and levenshtein(name, nearest) <= 2:
            self._problems.append(f"{name!r} is not a setting. Did you mean {nearest!r}?")
        else:
            logger.warning("%s sets unknown %r, which has no effect.%s", self.exp_file.name, name, suggest(name, known))

    def _check(self):
        if not any(getattr(self, name) is not None for name in DEFAULTS):
            self._problems.append("It sets nothing that a config sets. If it is a script, run it with python; configs to "
                                  "start from are in examples/.")
            return
        try:
            resolve_device(config.device)
        except ValueError as error:
            self._problems.append(str(error))
        for name in DICTS:
            if getattr(self, name) is None and name not in REQUIRED:
                self.__dict__[name] = {}
        for name in DEFAULTS:
            value = getattr(self, name)
            if value is None and name in REQUIRED:
                self._problems.append(f"{name!r} is required.")
            elif value is not None:
                self._problems += self._problems_of(name, value)
        if self.create_model is None and self.model_load_path is None:
            self._problems.append("One of 'create_model' (a function that returns the model) and 'model_load_path' is "
                                  "required.")

    def _problems_of(self, name, value):
        """List of everything that is wrong with a value."""
        if name == "optimiser_params" and isinstance(value, dict) and self.optimiser in OPTIMISERS:
            return list(self._problems_of_params(value))
        if name == "schedules" and isinstance(value, dict):
            return list(_problems_of_schedules(value))
        problem = self._problem(name, value)
        return [problem] if problem else []

    def _problems_of_params(self, value):
        known = OPTIMISERS[self.optimiser].meta
        for key in value:
            if key not in known:
                yield (f"'optimiser_params': {self.optimiser} has no {key!r}, only {', '.join(known)}."
                       f"{suggest(key, known)}")
                continue
            try:
                check_hyper(key, value[key])
            except ValueError as error:
                yield f"'optimiser_params': {error}"
        if "lr" not in value:
            yield "'optimiser_params' must hold the learning rate, 'lr'."

    def _problem(self, name, value):
        """What is wrong with a value, or None."""
        if name in DICTS and not isinstance(value, dict):
            return f"{name!r} must be a dict; got {value!r}."
        if name == "save_name" and (not isinstance(value, str) or value in ("", ".", "..") or set(value) & set("/\\:")):
            return f"'save_name' must be the name of a folder, without / in it; got {value!r}."
        if name in ("n_steps", "history_freq", "monitor_batch_size", "batch_size"):
            least = 0 if name in ("n_steps", "history_freq") else 1
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                return f"{name!r} must be an integer of at least {least}; got {value!r}."
        if name == "max_runtime" and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
            return f"'max_runtime' must be a number of seconds above 0; got {value!r}."
        if name == "optimiser" and value not in OPTIMISERS:
            return f"'optimiser' must be one of {', '.join(OPTIMISERS)}; got {value!r}.{suggest(value, OPTIMISERS)}"
        if name == "create_model" and not callable(value):
            got = "a model: leave out the parentheses that call it" if isinstance(value, Model) else repr(value)
            return f"'create_model' must be a function that returns the model; got {got}."
        if name == "class_weights":
            if not isinstance(value, (list, tuple, np.ndarray)) or np.asarray(value).dtype.kind not in "iuf":
                return f"'class_weights' must be a list of numbers, one per class; got {value!r}."
        if name == "data_batch_args" and (taken := {"batch_size", "source"} & set(value)):
            return f"'data_batch_args' must not hold {sorted(taken)}: the trainer sets them."
        if name in ("preview_data_path", "model_load_path"):
            pair = isinstance(value, (tuple, list)) and len(value) == 2 and name == "preview_data_path"
            path = value[0] if pair else value
            if not isinstance(path, (str, Path)) or (pair and not isinstance(value[1], str)):
                form = " or (path, name of a data set)" if name == "preview_data_path" else ""
                return f"{name!r} must be a path{form}; got {value!r}."
            if name == "preview_data_path":
                if problem := preview_problem(value):
                    return problem
            elif not os.path.isfile(os.path.expanduser(path)):
                path = os.path.abspath(os.path.expanduser(path))
                return f"{name!r}: there is no file {path}.{suggest_file(path)}"
            self.__dict__[name] = ((os.path.expanduser(path), *value[1:]) if isinstance(value, (tuple, list))
                                   else os.path.expanduser(path))
            return None
        if name == "data_class":
            if not isinstance(value, (str, type)) and not (isinstance(value, (tuple, list)) and len(value) == 2):
                return ("'data_class' must be a name in elektronn2.data or (path of a Python file, class name); "
                        f"got {value!r}.")
            if isinstance(value, (tuple, list)) and not os.path.isfile(os.path.expanduser(value[0])):
                path = os.path.abspath(os.path.expanduser(value[0]))
                return f"'data_class': there is no file {path}.{suggest_file(path)}"
        return None

    # -- the folder ------------------------------------------------------------------------------
    def _make_folder(self, host_script_file, use_existing_dir, runs):
        if self.save_name is None:
            self.save_name = f"{self.exp_file.stem}__{time.strftime('%y-%m-%d_%H-%M-%S')}"
        self.save_path = os.path.join(os.path.expanduser(runs), self.save_name)
        folder = Path(self.save_path)
        try:
            if folder.exists() and not use_existing_dir:
                self._make_room(folder)
            self._made_folder = not folder.exists()
            (folder / "Backup").mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError("it is read-only")
        except FileExistsError:
            raise
        except OSError as error:
            raise type(error)(f"The folder of the run, {folder}, cannot be written ({error}). Set save_path to a folder of "
                              "your own.") from None
        try:
            shutil.copy(self.exp_file, folder / f"0-{self.exp_file.name}")
            if host_script_file:
                shutil.copy(host_script_file, folder / "Backup")
        except OSError as error:
            self.discard_folder()
            raise OSError(f"The folder of the run, {folder}, cannot be filled ({error.strerror}). Set save_path to a place "
                          "with more room.") from None
        if config.backupsrc:
            self._keep_source(folder / "Backup" / "src.tar.gz")
        self.log_file = folder / f"0-{self.save_name}.log"
        change_logging_file(logger, folder, self.log_file.name)
        logger.info("%s@%s, %s, %s", login(), socket.gethostname(), describe_device(), time.strftime("%Y-%m-%dT%H:%M:%S"))

    def _make_room(self, folder):
        if not config.overwrite:
            raise FileExistsError(f"There is a run in {folder} already. Set another save_name, or overwrite = True to "
                                  "delete what is there.")
        content = [p.name for p in folder.iterdir()]
        if content and f"0-{self.save_name}.log" not in content:
            raise FileExistsError(f"{folder} does not look like a training run (it has no 0-{self.save_name}.log), so it is "
                                  "not deleted. Set another save_name.")
        shutil.rmtree(folder)
        logger.warning("overwrite = True: the earlier run in %s was deleted.", folder)

    def discard_folder(self):
        """Delete the folder of the run, if this object made it and it holds no model."""
        folder = Path(self.save_path)
        if self._made_folder and not any(folder.rglob("*.mdl")):
            stop_logging_to_file(logger)
            shutil.rmtree(folder)

    @staticmethod
    def _keep_source(path):
        try:
            with tarfile.open(path, "w:gz") as archive:
                archive.add(Path(elektronn2.__file__).parent, "elektronn2",
                            filter=lambda f: None if "__pycache__" in f.name else f)
        except OSError as error:
            logger.warning("The library's source could not be kept in %s: %s", path, error)


def _problems_of_schedules(schedules):
    for name, description in schedules.items():
        if description is not None and not isinstance(description, dict):
            yield f"'schedules': {name!r} must be a dict such as {{'dec': 0.995}}; got {description!r}."
            continue
        try:
            Schedule(**(description or {"dec": 1.0}))
        except (ValueError, TypeError) as error:
            yield f"'schedules': {name!r}: {error}"


def preview_problem(path):
    """What is wrong with an address, or (file, key), of preview cubes; None if nothing."""
    try:
        if as_address(path).is_missing:
            location = as_address(path).location
            return f"'preview_data_path': there is no file {location}. {how_to_get([location])}"
        for volume in open_volumes(path):
            volume.close()
    except (OSError, ValueError, KeyError, ImportError) as error:
        return f"'preview_data_path': {error.args[0] if isinstance(error, KeyError) else error}"
    return None


def describe_device():
    """Where functions run: 'CPU' or 'GPU 0'."""
    device = resolve_device(config.device)
    return "CPU" if device == "cpu" else f"GPU {device.removeprefix('cuda:')}"
