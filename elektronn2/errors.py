"""Exceptions of the library. Mistakes in arguments are ValueError or TypeError."""


class ModelFileError(ValueError):
    """A model file is truncated, damaged, foreign, or not allowed to be opened."""
