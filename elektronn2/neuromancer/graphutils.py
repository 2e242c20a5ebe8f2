"""Names that existing scripts import from here."""
from elektronn2.config import config as _config
from elektronn2.neuromancer.computations import grad
from elektronn2.neuromancer.function import make_func
from elektronn2.neuromancer.graph import sources as _sources
from elektronn2.neuromancer.shape import TaggedShape
from elektronn2.neuromancer.variables import as_floatX

__all__ = ["TaggedShape", "as_floatX", "getinput_for_multioutput", "grad", "make_func"]


def __getattr__(name):
    if name == "floatX":
        return _config.floatX
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def getinput_for_multioutput(outputs):
    """Ordered union of the sources of several nodes, first seen first."""
    return _sources(*outputs)
