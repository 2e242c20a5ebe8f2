"""Shared variables: parameters that functions read and optimisers update in place."""
import numpy as np
import torch

from elektronn2.config import config
from elektronn2.neuromancer.computations import STD_ROUNDING, transpose
from elektronn2.neuromancer.init import initweights
from elektronn2.utils.validate import dtype_name, short


def as_floatX(x):
    """A contiguous array of the working float dtype; a scalar becomes a 0-d array."""
    return np.asarray(x, dtype=config.floatX, order="C")


def lossless(array, dtype):
    """``array`` in ``dtype``, or None if a value would change."""
    if array.dtype.kind not in "biuf" or str(array.dtype) == dtype:
        return array if str(array.dtype) == dtype else None
    if np.can_cast(array.dtype, dtype, "safe"):
        return array.astype(dtype)
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
        same = np.array_equal(converted.astype(array.dtype), array, equal_nan=array.dtype.kind == "f")
    return converted if same else None


def laid_out_like(values, tensors):
    """The values as tensors of the dtype, device and memory layout of others; those that are so already are not copied."""
    return [v if v.dtype == t.dtype and v.device == t.device and v.stride() == t.stride()
            else torch.empty_like(t, requires_grad=False).copy_(v) for v, t in zip(values, tensors)]


def debiased(values):
    """Parameters of a node (name -> array) whose running averages, ``mean`` and ``std``, have lost the share that their
    initial values 0 and 1 have by ``init_weight`` (which is then 0); all as it is if there is no other share yet.

    >>> debiased(dict(mean=np.array([1.0]), std=np.array([1.5]), init_weight=0.5))
    {'mean': array([2.]), 'std': array([2.]), 'init_weight': 0.0}
    """
    weight = float(values.get("init_weight", 0.0))
    if not 0 < weight < 1:
        return dict(values)
    starts = {"mean": 0.0, "std": 1.0}
    new = {k: (v - weight * starts[k]) / (1 - weight) if k in starts else v for k, v in values.items()}
    if "std" in new:
        new["std"] = np.maximum(new["std"], STD_ROUNDING / (1 - weight))
    return new | {"init_weight": 0.0}


class VariableParam:
    """A value shared by all functions that use it.

    ``value``: array or number. ``apply_train``: whether optimisers update it. ``apply_reg``: whether
    weight decay applies; a number above 1 multiplies the decay. ``dtype``: default the working float.
    ValueError for values that are NaN or infinite, or that ``dtype`` cannot hold (1.5 as an integer, say).

    >>> p = VariableParam(np.zeros(3), name='p')
    >>> p.set_value([1., 2., 3.])
    >>> p.get_value()
    array([1., 2., 3.], dtype=float32)
    """

    constant = False
    positive = False  # whether all values must be above 0
    owner = None  # the node that it was made for

    def __init__(self, value=None, name=None, apply_train=True, apply_reg=True, dtype=None):
        if value is None:
            raise ValueError(f"Parameter {name!r} needs a value.")
        self._name = name
        self.apply_train = bool(apply_train)
        self.apply_reg = apply_reg
        self._updates = None
        array = self._held(value, dtype_name(dtype or config.floatX))
        self.tensor = torch.nn.Parameter(torch.from_numpy(array), requires_grad=self.apply_train)

    @property
    def name(self):
        return self._name if self.apply_train or not self._name else f"{self._name}_noTrain"

    @property
    def shape(self):
        return tuple(self.tensor.shape)

    @property
    def dtype(self):
        return str(self.tensor.dtype).removeprefix("torch.")

    def get_value(self):
        """A copy of the value, as an array."""
        return self.tensor.detach().cpu().contiguous().numpy().copy()

    def set_value(self, value):
        """Replace the value in place; shape and dtype stay.

        Raises ValueError if the shape differs (a single number may fill a scalar parameter only), or if values are NaN,
        infinite, or none that its dtype can hold.
        """
        array = self._held(value, self.dtype, self.shape)
        with torch.no_grad():
            self.tensor.copy_(torch.from_numpy(array))

    def _held(self, value, dtype, shape=None):
        """An array of given values in ``dtype``: floating point numbers are rounded to it, whole numbers must fit."""
        try:
            array = np.asarray(value)
        except ValueError:  # lists of different lengths
            array = None
        if array is None or array.dtype.kind not in "biuf":
            raise ValueError(f"Parameter {self._name!r} takes numbers{f' of shape {shape}' if shape else ''}, got "
                             f"{short(value)}.")
        if shape is not None and array.shape != shape:
            raise ValueError(f"Parameter {self._name!r} has shape {shape}, the new value has {array.shape}.")
        with np.errstate(over="ignore"):
            held = array.astype(dtype, order="C") if dtype.startswith("float") else lossless(array, dtype)
        if held is None:
            raise ValueError(f"Parameter {self._name!r} of dtype {dtype} cannot hold {short(array.tolist())} without "
                             "change. Round the values, or choose another dtype.")
        bad = held.size - np.isfinite(held).sum()
        if bad:
            raise ValueError(f"Parameter {self._name!r} cannot be NaN or infinite; {bad} of {held.size} given values are.")
        if self.positive and held.min() <= 0:
            raise ValueError(f"Parameter {self._name!r} must be above 0, as features are divided by it; got "
                             f"{short(held.tolist())}. Give features that never change 1.")
        return np.array(held, order="C")

    @property
    def updates(self):
        """None, or the expression whose value every optimiser step stores here."""
        return self._updates

    @updates.setter
    def updates(self, expression):
        if self.apply_train or self.apply_reg:
            raise ValueError(f"Parameter {self.name!r} is trained or regularised: it is updated by the optimiser "
                             "and may not have an update of its own. Make it with apply_train=False, apply_reg=False.")
        self._updates = expression

    @property
    def T(self):
        """This parameter with its first two axes swapped, to be shared: ``w=other.w.T``."""
        return TransposedParam(self)

    def as_expression_of(self, graph):
        return graph.param(self)

    def __repr__(self):
        return f"<{self._name}{self.shape}>" + ("" if self.apply_train else "_noTrain")


class VariableWeight(VariableParam):
    """A weight: given as ``value``, or made by ``initweights(shape, **init_kwargs)``.

    Raises ValueError if neither ``value`` nor both ``shape`` and ``init_kwargs`` are given, or if the
    shape of ``value`` is not ``shape`` (a number fills it). Other arguments are those of :class:`VariableParam`.

    >>> VariableWeight((2,), dict(mode='const', scale=0.5), name='w').get_value()
    array([0.5, 0.5], dtype=float32)
    """

    def __init__(self, shape=None, init_kwargs=None, value=None, name=None, apply_train=True, apply_reg=True,
                 dtype=None):
        if value is None:
            if shape is None or init_kwargs is None:
                raise ValueError(f"Weight {name!r} needs a value, or both shape and init_kwargs.")
            value = initweights(shape, **init_kwargs)
        elif shape is not None:
            value = np.asarray(value)
            if value.ndim == 0:
                value = np.full(shape, value)
            elif value.shape != tuple(shape):
                raise ValueError(f"Weight {name!r} must have shape {tuple(shape)}, the given value has {value.shape}.")
        super().__init__(value, name, apply_train, apply_reg, dtype)


class TransposedParam:
    """A parameter seen with its first two axes swapped: what ``param.T`` is. It has no value of its own.

    >>> p = VariableParam(np.ones((2, 3)), name='w')
    >>> p.T.shape, p.T.param is p
    ((3, 2), True)

    Raises ValueError for a parameter of fewer than two axes.
    """

    def __init__(self, param):
        if len(param.shape) < 2:
            raise ValueError(f"Parameter {param.name!r} with shape {param.shape} has no two axes to swap.")
        self.param = param
        self.shape = (param.shape[1], param.shape[0], *param.shape[2:])

    @property
    def T(self):
        """The parameter itself: swapped twice."""
        return self.param

    def get_value(self):
        """A copy of the value, as an array."""
        return self.param.get_value().swapaxes(0, 1)

    def as_expression_of(self, graph):
        return transpose(graph.param(self.param))

    def __repr__(self):
        return f"{self.param!r}.T"


class SwitchParam(VariableParam):
    """A rate, not trained, at 0 of which functions leave out what it is the rate of. ``on``: it has been set above 0.

    Once it is on it stays on, so that changing the rate does not compile functions anew.
    """

    def __init__(self, value, name=None):
        super().__init__(value, name, apply_train=False, apply_reg=False)
        self.on = bool(value)

    def set_value(self, value):
        super().set_value(value)
        self.on = self.on or bool(np.any(value))


class ConstantParam(VariableParam):
    """A parameter that is never trained and whose value cannot be set: ``value``, as ``dtype`` (default
    ``config.floatX``).

    >>> ConstantParam(2).get_value()
    array(2., dtype=float32)
    """

    constant = True

    def __init__(self, value, name=None, dtype=None):
        super().__init__(value, name, apply_train=False, apply_reg=False, dtype=dtype)

    def set_value(self, value):
        raise RuntimeError(f"Parameter {self.name!r} is constant. Rebuild the model with unlock_all_params=True "
                           "to make its weights trainable again.")
