"""Libraries that are installed on demand."""
import importlib


def need(name, extra):
    """The module ``name``. ImportError naming the extra of this package that brings it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"This needs the package {name.split('.')[0]}, which cannot be imported ({error}). Install it: "
                          f"pip install 'elektronn2[{extra}]'") from error
