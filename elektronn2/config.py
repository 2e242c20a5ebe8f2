"""Global settings, in the object ``config``.

>>> from elektronn2.config import config
>>> config.precision
'float32'

A setting can be assigned at any time; compiled functions notice and are compiled again.
"""
from elektronn2.utils.validate import suggest

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
    seed=None,                # of initial weights; None: a new one for every process
    allow_floatX_downcast=True,
)

_CHOICES = dict(
    precision=("float32", "bfloat16", "float16", "float64"),
    memory_format=("auto", "channels_last", "contiguous"),
    compile_backend=("auto", "eager", "inductor"),
)


class Config:
    """Settings with checked names and values.

    Raises AttributeError for an unknown name and ValueError for a value that is not allowed.
    """

    def __init__(self):
        self.__dict__.update(_DEFAULTS)

    def __setattr__(self, name, value):
        if name not in _DEFAULTS:
            raise AttributeError(f"config has no setting {name!r}.{suggest(name, _DEFAULTS)}")
        allowed = _CHOICES.get(name)
        if allowed and value not in allowed:
            raise ValueError(f"config.{name} must be one of {', '.join(allowed)}; got {value!r}."
                             f"{suggest(value, allowed)}")
        self.__dict__[name] = value

    def __repr__(self):
        return "\n".join(f"{k} = {v!r}" for k, v in sorted(self.__dict__.items()))

    @property
    def floatX(self):
        """Name of the dtype of parameters and inputs: float64 in that precision, else float32."""
        return "float64" if self.precision == "float64" else "float32"


config = Config()
