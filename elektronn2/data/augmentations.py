"""All augmentations of grey values by name, as the argument ``augmentations`` of ``getbatch`` lists them."""
import inspect

import numpy as np

from elektronn2.data import grey_noise, non_geometric_augmentation, section_defects
from elektronn2.data.edits import Recipe
from elektronn2.utils.validate import suggest

AUGMENTATIONS = {name: getattr(module, name) for module in (non_geometric_augmentation, grey_noise, section_defects)
                 for name in module.__all__ if name.islower()}


def augment(image, augmentations, rng, applied=None):
    """A new image, after each of the ``augmentations`` was applied with its probability, in order.

    ``image``: (f, z, x, y) or (f, x, y), float in 0..1. ``augmentations``: a dict, or a list of pairs, of names and
    dicts of arguments, among which there may be ``probability``, that of the whole (default 1). ``rng``: a
    np.random.Generator. ``applied``: a list that gets the names of those that were.

    >>> image = np.ones((1, 9, 8, 8), np.float32)
    >>> new = augment(image, [("missing_sections", dict(section_probability=0.5))], np.random.default_rng(0))
    >>> bool(new.min() == 0), bool(new.max() == 1)
    (True, True)
    """
    for name, probability, arguments in as_augmentations(augmentations):
        if rng.random() < probability:
            image = _call(name, image, arguments, rng)
            if applied is not None:
                applied.append(name)
    return image


def as_augmentations(given):
    """List of (name, probability, arguments). TypeError for an unknown name, with a suggestion; ValueError for bad values.

    >>> as_augmentations({"missing_section": {}})
    Traceback (most recent call last):
    TypeError: augmentations: there is no 'missing_section'. Did you mean 'missing_sections'? Known: blur_augment, ...
    """
    try:
        pairs = [(name, dict(arguments or {})) for name, arguments in (given.items() if hasattr(given, "items") else given)]
    except (TypeError, ValueError):
        raise TypeError("augmentations must be a dict, or a list of pairs, of names and dicts of arguments, such as "
                        f"[('gaussian_noise', dict(probability=0.5))]; got {given!r}.") from None
    checked = []
    for name, arguments in pairs:
        if name not in AUGMENTATIONS:
            raise TypeError(f"augmentations: there is no {name!r}.{suggest(str(name), AUGMENTATIONS)} Known: "
                            f"{', '.join(AUGMENTATIONS)}.")
        known = ["probability", *argument_names(AUGMENTATIONS[name])]
        for key in arguments:
            if key not in known:
                raise TypeError(f"augmentations: {name} has no argument {key!r}.{suggest(str(key), known)} Known: "
                                f"{', '.join(known)}.")
        if missing := [key for key in required_arguments(AUGMENTATIONS[name]) if key not in arguments]:
            raise TypeError(f"augmentations: {name} needs {' and '.join(missing)}, as in "
                            f"({name!r}, dict({missing[0]}=...)).")
        probability = arguments.pop("probability", 1)
        if not isinstance(probability, (bool, int, float, np.number)) or not 0 <= probability <= 1:
            raise ValueError(f"augmentations: probability of {name} must be a number in 0..1, got {probability!r}.")
        checked.append((name, probability, arguments))
    return checked


def check_augmentations(given, shape):
    """Raise what :func:`augment` would raise for images of this shape, without any work."""
    for name, _, arguments in as_augmentations(given):
        try:
            _call(name, Recipe(shape), arguments, np.random.default_rng(0))
        except (TypeError, ValueError) as error:
            raise type(error)(f"augmentations: {name}: {error}") from None


def _call(name, image, arguments, rng):
    function = AUGMENTATIONS[name]
    given = dict(rng=rng) if "rng" in inspect.signature(function).parameters else {}
    return function(image, **arguments, **given)


def argument_names(function):
    """The arguments of an augmentation that can be given: all but the image and the generator.

    >>> argument_names(non_geometric_augmentation.noise_augment)
    ['level']
    """
    return [k for k in inspect.signature(function).parameters if k not in ("data", "image", "data_overwrite", "rng")]


def required_arguments(function):
    """Those of :func:`argument_names` that have no default.

    >>> required_arguments(non_geometric_augmentation.grey_augment)
    ['channels']
    """
    known = inspect.signature(function).parameters
    return [name for name in argument_names(function) if known[name].default is inspect.Parameter.empty]
