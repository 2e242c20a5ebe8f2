"""Global settings, in the object ``config``.

>>> from elektronn2.config import config
>>> config.precision
'float32'

A setting can be assigned at any time; compiled functions notice and are compiled again. Every setting can also stand in
the file ``~/.elektronn2rc`` (Python, executed when the library is imported) or at the top of a training config.
"""
import logging
import os
import types
from pathlib import Path

from elektronn2.utils.log import change_logging_file, setup
from elektronn2.utils.validate import suggest

__all__ = ["change_logging_file", "config"]

logger = logging.getLogger("elektronn2log")

_DEFAULTS = dict(
    # where and how functions run
    device="auto",            # 'auto' (a GPU if there is one), 'cpu', 'cuda', 'cuda:1', GPU number
    precision="float32",      # 'float32', 'bfloat16', 'float16' (CUDA only), 'float64' (for tests)
    memory_format="auto",     # 'auto' and 'channels_last', or 'contiguous'
    compile_backend="auto",   # 'auto' (inductor on CUDA, else eager), 'eager', 'inductor'
    # models
    time_per_step_smoothing_length=50,
    loss_smoothing_length=200,
    use_ortho_init=False,
    seed=None,                # of initial weights, data and dropout; None: a new one for every process
    # training
    save_path="~/elektronn2_training/",
    plot_on=True,             # draw the history at every history step
    print_status=True,        # print the status line at every history step
    param_save_it=10000,      # iterations between models that are kept
    initial_prev_h=1.0,       # hours of training until the first preview
    prev_save_h=3.0,          # hours between later previews
    overwrite=False,          # delete an earlier run of the same name
    background_processes=False,  # workers that prepare batches: False, True (2), or a number (at least 2)
    background_kind="threads",   # or 'processes', for data in plain Python
    augmentation_device=None,    # 'cuda': images are warped and augmented there; None: where they are cut
    backupsrc=True,           # keep the library's source beside the run
)

# settings of the first ELEKTRONN2 without meaning here
_OLD = {
    "use_manual_cudnn_conv": "PyTorch chooses its convolutions itself",
    "use_manual_cudnn_conv_not_w1": "PyTorch chooses its convolutions itself",
    "use_manual_cudnn_pool": "PyTorch chooses its pooling itself",
    "allow_floatX_downcast": "inputs are converted when nothing is lost, else there is an error",
    "show_axis_order_warning": "axes are checked by their letters",
    "pad_b_warning_display": "batches are not padded",
    "param_save_h": "use param_save_it, in iterations",
    "inspection": "there is no tracing to inspect",
    "gui_plot": "pictures are written into the folder of the run",
}

_CHOICES = dict(
    precision=("float32", "bfloat16", "float16", "float64"),
    memory_format=("auto", "channels_last", "contiguous"),
    compile_backend=("auto", "eager", "inductor"),
    background_kind=("threads", "processes"),
)

_LEAST = dict(time_per_step_smoothing_length=1, loss_smoothing_length=1, param_save_it=1, initial_prev_h=0, prev_save_h=0,
              background_processes=0, seed=0)


class Config:
    """Settings with checked names and values.

    Raises AttributeError for an unknown name and ValueError for a value that is not allowed. Settings of the first
    ELEKTRONN2 that mean nothing here are accepted with one warning each.
    """

    def __init__(self):
        self.__dict__.update(_DEFAULTS, save_path=os.path.expanduser(_DEFAULTS["save_path"]))

    def __setattr__(self, name, value):
        if name in _OLD:
            if name not in _warned:
                logger.warning("Setting %r has no effect any more: %s.", name, _OLD[name])
                _warned.add(name)
            return
        self.check(name, value)
        self.__dict__[name] = os.path.expanduser(value) if name == "save_path" else value

    @staticmethod
    def check(name, value):
        """Raise AttributeError or ValueError if the setting cannot have that value."""
        if name not in _DEFAULTS:
            raise AttributeError(f"config has no setting {name!r}.{suggest(name, _DEFAULTS)}")
        allowed = _CHOICES.get(name)
        if allowed and value not in allowed:
            raise ValueError(f"config.{name} must be one of {', '.join(allowed)}; got {value!r}."
                             f"{suggest(value, allowed)}")
        default, least = _DEFAULTS[name], _LEAST.get(name)
        if least is not None and not (value is None and default is None):
            whole = name not in ("initial_prev_h", "prev_save_h")
            if not isinstance(value, int if whole else (int, float)) or not value >= least:
                raise ValueError(f"config.{name} must be {'an integer' if whole else 'a number'} of at least {least}; "
                                 f"got {value!r}.")
        elif isinstance(default, bool) and not isinstance(value, bool):
            raise ValueError(f"config.{name} must be True or False; got {value!r}.")
        elif name == "save_path" and not isinstance(value, (str, Path)):
            raise ValueError(f"config.save_path must be a folder; got {value!r}.")

    def __contains__(self, name):
        return name in _DEFAULTS or name in _OLD

    def __repr__(self):
        return "\n".join(f"{k} = {v!r}" for k, v in sorted(self.__dict__.items()))

    change_logging_file = staticmethod(change_logging_file)

    @property
    def floatX(self):
        """Name of the dtype of parameters and inputs: float64 in that precision, else float32."""
        return "float64" if self.precision == "float64" else "float32"


def read_source(path):
    """The text of a Python file. ValueError, naming it, if it is no text in UTF-8."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[:error.start].count(b"\n") + 1
        raise ValueError(f"{path} is no text in UTF-8 (byte {error.object[error.start]:#x} in line {line}). If it is a "
                         "Python file, save it as UTF-8 in your editor.") from None
    if "\0" in text:
        raise ValueError(f"{path} is no Python file: it is binary.")
    return text


def execute(path, namespace):
    """Run a file of settings as Python in ``namespace`` and return the names that it set.

    Left out are modules, functions, classes and names that begin with an underscore.
    """
    before = dict(namespace)
    exec(compile(read_source(path), str(path), "exec"), namespace)
    skipped = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
    return {k: v for k, v in namespace.items() if not k.startswith("_") and not isinstance(v, skipped)
            and (k not in before or before[k] is not v)}


def read_rc(path="~/.elektronn2rc"):
    """Take settings from the user's file, if there is one. RuntimeError, naming the file, if it fails."""
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        return
    try:
        for name, value in execute(path, {"__name__": "elektronn2rc", "__file__": path}).items():
            if name in config:
                setattr(config, name, value)
            else:
                logger.warning("%s sets unknown %r.%s", path, name, suggest(name, _DEFAULTS))
    except Exception as error:
        raise RuntimeError(f"The settings in {path} cannot be used: {type(error).__name__}: {error}. "
                           "Correct the file or remove it.") from error


_warned = set()
config = Config()
setup()
read_rc()
