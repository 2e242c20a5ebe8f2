"""Names of node classes: what a model file may contain."""
from elektronn2.utils.validate import suggest


class Registry(dict):
    """Name -> class; used as a decorator to register one.

    Raises ValueError if another class has the name, KeyError (with a suggestion) for an unknown name.
    """

    def __init__(self, kind, likeness=0.6, advice=""):
        super().__init__()
        self.kind, self.likeness, self.advice = kind, likeness, advice

    def __call__(self, cls):
        known = self.setdefault(cls.__name__, cls)
        if known is not cls and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{self.kind} {cls.__name__!r} is registered twice: in {known.__module__} "
                             f"and in {cls.__module__}. Give your class another name.")
        self[cls.__name__] = cls
        return cls

    def __missing__(self, name):
        if name in LEFT_OUT:
            raise KeyError(why_left_out(name))
        raise KeyError(f"Unknown {self.kind} {name!r}.{suggest(name, self, self.likeness)}{self.advice}")


LEFT_OUT = ("GenericInput", "SkelGetBatch", "SkelGridUpdate", "SkelLoss", "SkelLossRec", "SkelPrior")
"""Node classes of the first ELEKTRONN2 that traced skeletons, and that this library leaves out on purpose."""


def why_left_out(name):
    return (f"{name} is left out on purpose: it belonged to an experiment that traced skeletons, and needed Python objects "
            "as inputs, which can be neither differentiated nor saved. Use ApplyFunc, or a Node class of your own.")


NODES = Registry("node class", 0.8, " If it is a class of your own, import the file that defines it first "
                 "(elektronn2-predict: --nodes FILE.py).")
