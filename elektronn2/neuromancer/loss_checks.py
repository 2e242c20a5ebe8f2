"""Checks of what losses are given, with errors that name the nodes; and how they take optional weights."""

from numbers import Real

import numpy as np

from elektronn2.neuromancer import loss_functions as L
from elektronn2.neuromancer.node import Node
from elektronn2.neuromancer.shape import TaggedShape
from elektronn2.utils.validate import short

SCALAR = TaggedShape((1,), "f")
SPARSE = "Sparse targets hold class ids: use override_f=1."


def what(node):
    """How errors call a node: class and name."""
    return f"{type(node).__name__.removeprefix('_')} {node.name!r}"


def feature_axis(node, parent):
    """Index of axis f of a parent. ValueError naming both nodes if there is none."""
    if not parent.shape.hastag("f"):
        raise ValueError(f"{what(node)}: {parent.name!r} has shape {parent.shape}, an axis f is needed.")
    return parent.shape.tag2index("f")


def differ(shape, sizes):
    """Whether any two known sizes differ."""
    return len(shape) != len(sizes) or any(n is not None and m is not None and n != m for n, m in zip(shape, sizes))


def check_target(node, pred, target, f=None, hint=""):
    """The target must have the axes of ``pred``, with ``f`` features (None: as many)."""
    wanted = pred.shape if f is None else pred.shape.updateshape("f", f)
    if wanted.tags != target.shape.tags or differ(wanted, target.shape):
        raise ValueError(f"{what(node)}: {target.name!r} has shape {target.shape}, needed is {wanted} to go with "
                         f"{pred.name!r}. {hint}".rstrip())
    node.joined = (pred, target), wanted.tag2index("f") if wanted.hastag("f") else None


def target_of(node, pred, target):
    """Expression of a target that must have the shape of ``pred``; axis s may be missing: then all samples share it."""
    if pred.shape.hastag("s") and not target.shape.hastag("s"):
        i = pred.shape.tag2index("s")
        one = pred.shape.delaxis(i)
        if one.tags != target.shape.tags or differ(one, target.shape):
            raise ValueError(f"{what(node)}: {target.name!r} has shape {target.shape}, needed is {pred.shape}, with or "
                             f"without axis s, to go with {pred.name!r}.")
        return target.output.unsqueeze(i)
    check_target(node, pred, target)
    return target.output


def check_shape(node, argument, given, wanted):
    """A node given as ``argument`` must have the axes and sizes of the TaggedShape ``wanted`` (None: any size)."""
    if isinstance(given, Node) and (given.shape.tags != wanted.tags or differ(given.shape, wanted)):
        raise ValueError(f"{what(node)}: {argument} {given.name!r} has shape {given.shape}, needed is {wanted}.")


def check_ids_node(node, target, axis="f"):
    """Index of the axis of a node of ids, which must have size 1."""
    if not target.shape.hastag(axis) or target.shape[axis] != 1:
        raise ValueError(f"{what(node)}: {target.name!r} has shape {target.shape}, but ids are needed: size 1 on axis "
                         f"{axis}.")
    return target.shape.tag2index(axis)


def checked_ids(node, target, n_class):
    """Expression of the ids of ``target``; ids that are no whole number below ``n_class`` are a ValueError when computed."""
    return L.checked_ids(target.output, n_class, f"{what(node)}: {target.name!r}")


def weight_class(node, class_weights, n, per):
    """Make the parameter ``class_weights`` of ``n`` values, one per ``per``, unless they are a node, or None."""
    check_shape(node, "class_weights", class_weights, TaggedShape((n,), "f"))
    node.class_weights = class_weights
    if class_weights is None or isinstance(class_weights, Node):
        return
    value = factors(node, "class_weights", class_weights, n, per)
    if value.min() < 0:
        raise ValueError(f"{what(node)}: class_weights must not be negative, got {class_weights!r}.")
    node.make_param("class_weights", value, (n,), None, apply_train=False, apply_reg=False)


def factors(node, argument, given, n, per):
    """An argument as an array of ``n`` numbers, one per ``per``."""
    try:
        value = np.asarray(given, float)
    except (TypeError, ValueError):
        value = None
    if value is None or value.shape != (n,) or not np.isfinite(value).all():
        raise ValueError(f"{what(node)}: {argument} must be a list of {n} numbers, one per {per}, got {short(given)}.")
    return value


def weighting_nodes(where, **given):
    """Those of the arguments that are nodes; they may also be None, and class_weights values. TypeError for others."""
    for name, value in given.items():
        if value is not None and not isinstance(value, Node) and name != "class_weights":
            raise TypeError(f"{where}: {name} must be a node or None, got {short(value)}. Make an Input for what changes "
                            "with each batch, a ValueNode for what does not.")
    return [value for value in given.values() if isinstance(value, Node)]


def expression(given):
    """What stands for a node in expressions; parameters and None stand for themselves."""
    return given.output if isinstance(given, Node) else given


def not_negative(node, **argument):
    """The value of an argument, if it is a number from 0 on."""
    (name, value), = argument.items()
    if not isinstance(value, Real) or not value >= 0:
        raise ValueError(f"{what(node)}: {name} must be a number from 0 on, got {value!r}.")
    return value


def positive(node, **argument):
    """The value of an argument, if it is a number above 0."""
    (name, value), = argument.items()
    if not isinstance(value, Real) or not value > 0:
        raise ValueError(f"{what(node)}: {name} must be a number above 0, got {value!r}.")
    return value
