"""Modules of PyTorch as nodes: their weights are trained, saved and inspected like those of any other node."""
import copy
import functools
import logging
import time
import warnings
from fractions import Fraction
from math import ceil, floor

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from elektronn2.config import config
from elektronn2.neuromancer import computations as C
from elektronn2.neuromancer.expression import BATCH, OPEN, op
from elektronn2.neuromancer.node_basic import Node
from elektronn2.neuromancer.probing import legal, probe
from elektronn2.neuromancer.shape import SPATIAL, TaggedShape, parse_tags
from elektronn2.neuromancer.variables import VariableParam

logger = logging.getLogger("elektronn2log")

_NORMS = (torch.nn.GroupNorm, torch.nn.modules.instancenorm._InstanceNorm)


def from_torch(module, parent, args=(), kwargs=None, tags=None, fov=None, strides=None, offsets=None, grid=None,
               padded=None, trainable=True, name="torch", print_repr=True):
    """A ``torch.nn.Module`` after ``parent``, as a node; see :class:`TorchModule`.

    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> image = nm.Input((1, 1, 20, 20), 'b,f,x,y', print_repr=False)
    >>> y = nm.from_torch(torch.nn.Conv2d, image, (1, 8, 3), name='first', print_repr=False)
    >>> y.shape, y.shape.fov, list(y.params)
    ([(1,b), (8,f), (18,x), (18,y)], [3, 3], ['weight', 'bias'])
    """
    return TorchModule(parent, module, args, kwargs, tags, fov, strides, offsets, grid, padded, trainable, name=name,
                       print_repr=print_repr)


class TorchModule(Node):
    """A ``torch.nn.Module``: input (b, f, \\*L), output (b, n_f, \\*out), or whatever ``tags`` says.

    ``module``: what makes the module, a class or function at the top of a file, called with ``args`` and ``kwargs``; or a
    module, which works just as well but cannot be saved (ModelFileError then). The node works on a copy: its parameters
    (under the module's names; trained if they require gradients, with weight decay from two axes on) start with the
    values of the module, and :meth:`to_torch` gives a module with the present ones. Training mode and evaluation mode are
    those of the functions of the model; buffers that the module changes in training, like the statistics of batch
    normalisation, are stored after each training step. ``trainable=False`` keeps all parameters as they are.

    ``tags``: axes of the output, default those of ``parent``; spatial ones must be among them.

    Field of view, stride and offset are found by trying (see ``probing.py``; seconds, for large networks minutes, once:
    files hold what was found), with random weights, and statistics over space (group and instance normalisation) left out.
    Or they are given, in voxels of the module's input, one value per spatial axis of the output: ``fov``, ``strides``
    (default 1), ``offsets`` (position of output voxel 0; default (fov - 1) / 2), ``grid`` (shift of the input that only
    shifts the output: for U-Nets their total downsampling; default ``strides``) and ``padded`` (number of outermost outputs
    per side that see padding of the module; default: those whose field of view reaches beyond the input).

    ``phases``: per spatial axis, by how many input voxels tiles must move for the module not to notice (1: any).

    Raises TypeError if that is no module, ValueError if it does not fit its input, or looks everywhere.
    """

    def __init__(self, parent, module, args=(), kwargs=None, tags=None, fov=None, strides=None, offsets=None, grid=None,
                 padded=None, trainable=True, name="torch", print_repr=True):
        super().__init__(parent, name, print_repr)
        self.where = f"TorchModule {name!r}"
        module = _made(module, args, kwargs or {}, self.where)
        self._tags = parent.shape.tags if tags is None else list(parse_tags(tags))
        foreign = [t for t in self._tags if t in SPATIAL and t not in parent.shape.tags]
        if foreign:
            raise ValueError(f"{self.where}: its output cannot have axis {foreign[0]!r}, which its input {parent.shape} "
                             "lacks.")
        if fov is None and any(v is not None for v in (strides, offsets, grid, padded)):
            raise ValueError(f"{self.where}: strides, offsets, grid and padded are only taken together with fov.")
        self._given = fov, strides, offsets, grid, padded
        self._module = copy.deepcopy(module).cpu()  # for probing; forgotten when the node is made
        self._training, self._evaluation = (copy.deepcopy(self._module).to("meta").train(m) for m in (True, False))
        self._names, self._values, kept = [], [], {}
        persistent = self._module.state_dict(keep_vars=True).keys()
        for key, tensor in _tensors(self._module):
            if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
                raise ValueError(f"{self.where}: {key!r} has no shape yet. Run the module once before it becomes a node.")
            if id(tensor) not in kept:
                kept[id(tensor)] = self._keep(key, tensor, key in persistent, trainable)
            self._names.append(key)
            self._values.append(kept[id(tensor)])
        self.patch_statistics = any(isinstance(m, _NORMS) or _batch_statistics(m) for m in self._module.modules())
        self._lengths = functools.lru_cache(None)(self._sizes)

    def _keep(self, key, tensor, persistent, trainable):
        """A parameter of the node, or a plain tensor for a buffer that is not part of the module's state."""
        learnt = trainable and tensor.requires_grad
        tensor = tensor.detach()
        tensor = tensor.to(getattr(torch, config.floatX)) if tensor.is_floating_point() else tensor
        if not persistent:
            return tensor.clone()
        param = VariableParam(tensor.numpy(), f"{self.name}_{key}", learnt, learnt and tensor.ndim > 1,
                              str(tensor.dtype).removeprefix("torch."))
        self.params[key] = param
        return param

    # -- computing -------------------------------------------------------------------------------
    def _make_output(self):
        x, graph = self.parent.output, self.model.graph
        values = [graph.param(v) if isinstance(v, VariableParam) else v for v in self._values]
        buffers = [k for k, _ in self._training.named_buffers()]
        changing = [k for k in buffers if k in self.params]
        try:
            predicted = op(functools.partial(_evaluate, self._evaluation, self._names))(x, *values)
            trained = op(functools.partial(_train, self._training, self._names, buffers, changing))(x, *values)
        except Exception as error:
            raise ValueError(f"{self.where} cannot be computed for an input {self.parent.shape}: {error}") from error
        for i, key in enumerate(changing, start=1):
            self.params[key].updates = trained[i]
        self.output = C.by_mode(trained[0], predicted)

    def _meta(self, shape):
        """Shape of the output for an input of that shape."""
        values = {k: torch.empty(v.shape, dtype=v.tensor.dtype if isinstance(v, VariableParam) else v.dtype, device="meta")
                  for k, v in zip(self._names, self._values)}
        x = torch.empty(shape, dtype=self.parent.output.meta.dtype, device="meta")
        with torch.no_grad():
            return torch.func.functional_call(self._evaluation, values, (x,)).shape

    # -- geometry --------------------------------------------------------------------------------
    def _stand_in(self, **lengths):
        """Shape of the input with some lengths (by letter) other than declared, and something for None."""
        return [lengths.get(t, (BATCH if t == "b" else OPEN) if n is None else n)
                for t, n in zip(self.parent.shape.tags, self.parent.shape)]

    def _sizes(self, tag, n, *others):
        """Shape of the output if the input has length n on an axis; ValueError if it cannot."""
        try:
            return tuple(self._meta(self._stand_in(**{tag: n}, **dict(others))))
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{self.where} cannot take {n} voxels on axis {tag!r}: {reason}") from None

    def _axis_size(self, k, *sizes, mfp=False):
        tag = self.shape.spatial_tags[k]
        return None if sizes[0] is None else self._lengths(tag, sizes[0])[self._tags.index(tag)]

    def _calc_shape(self):
        s, meta = self.parent.shape, list(self.output.meta.shape)
        if len(meta) != len(self._tags):
            raise ValueError(f"{self.where} turns {s} into {meta}, which has not the axes {','.join(self._tags)}; "
                             "say tags='b,f,...'.")
        for t, n in zip(s.tags, s):
            if n is None:  # what changes with an open length is open
                other = self._sizes(t, {"b": BATCH + 1}.get(t, 2 * OPEN))
                meta = [None if m != o else m for m, o in zip(meta, other)]
        tags = [t for t in self._tags if t in SPATIAL]
        fov, strides, offsets, grid, padded = self._geometry(tags)
        kept = [s.spatial_tags.index(t) for t in tags]
        if len(s.mfp_offsets) > 1 and any(v != 1 for v in (*strides, *grid)):
            raise ValueError(f"{self.where} cannot follow max-fragment pooling, as it pools or upsamples itself.")
        self.phases = [g * int(s._strides[j]) if g > v else 1 for g, v, j in zip(grid, strides, kept)]
        self.upsamples = any(t < 1 for t in strides)
        first = [(s._strides[j], s.centre[j], s._fov[j]) for j in kept]
        self.shape = TaggedShape(
            meta, self._tags, [p * t for (p, _, _), t in zip(first, strides)], s.mfp_offsets[:, kept],
            [v + (f - 1) * p for (p, _, v), f in zip(first, fov)],
            [c + o * p for (p, c, _), o in zip(first, offsets)],
            [max(p, self._reaching(t, s.padded[j], *g) if s.padded[j] else 0)
             for t, j, p, g in zip(tags, kept, padded, zip(fov, strides, offsets))])
        self.model.arguments[self.name].update(fov=fov, strides=strides, offsets=offsets, grid=grid, padded=padded)
        del self._module

    def _geometry(self, tags):
        """(fov, strides, offsets, grid, padded) per axis, in voxels of the module's input."""
        fov, strides, offsets, grid, padded = self._given
        if fov is None:
            axes = self._probe(tags)
            return tuple([getattr(a, k) for a in axes] for k in ("fov", "stride", "centre", "grid", "padded"))
        strides = [1] * len(tags) if strides is None else strides
        fov, strides = ([Fraction(v).limit_denominator(10**6) for v in values] for values in (fov, strides))
        offsets = [(v - 1) / 2 for v in fov] if offsets is None else [Fraction(v).limit_denominator(10**6) for v in offsets]
        grid = [max(int(s), 1) for s in strides] if grid is None else [int(g) for g in grid]
        if padded is None:
            padded = [self._reaching(t, 0, *g) for t, g in zip(tags, zip(fov, strides, offsets))]
        for what, values in (("fov", fov), ("strides", strides), ("offsets", offsets), ("grid", grid), ("padded", padded)):
            if len(values) != len(tags):
                raise ValueError(f"{self.where}: {what} needs one value for each of {tags}, got {len(values)}.")
        return fov, strides, offsets, grid, [int(p) for p in padded]

    def _probe(self, tags):
        start = time.perf_counter()
        module, s = _for_probing(self._module), self.parent.shape

        def run(x):
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with torch.backends.mkldnn.flags(enabled=False):  # its fast kernels may mix what is computed together
                    return module(x)
        axes = []
        shortest = {}
        try:
            for t in s.spatial_tags:
                shortest[t] = legal(lambda n, t=t: min(self._lengths(t, n)), 1)
            for t in tags:
                others = tuple((k, n) for k, n in shortest.items() if k != t)
                out = self._tags.index(t)
                axes.append(probe(run, lambda n, t=t, others=others, out=out: self._lengths(t, n, *others)[out],
                                  self._stand_in(b=1, **dict(others)), s.tag2index(t), out))
        except ValueError as error:
            raise ValueError(f"{self.where}: its field of view cannot be found: {error}. Give fov, strides, offsets, grid "
                             "and padded.") from error
        seconds = time.perf_counter() - start
        if seconds > 5:
            found = (", ".join(str(getattr(a, k)) for a in axes) for k in ("fov", "stride", "centre", "grid", "padded"))
            logger.info("%s: finding its field of view took %.0f s; fov=[%s], strides=[%s], offsets=[%s], grid=[%s], "
                        "padded=[%s] will save that.", self.where, seconds, *found)
        return axes

    def _reaching(self, tag, padded, fov, stride, offset):
        """Outermost outputs per side that look beyond the input, or at its outermost ``padded`` voxels."""
        n = self._stand_in()[self.parent.shape.tag2index(tag)]
        n_out = self.output.meta.shape[self._tags.index(tag)]
        half = (fov - 1) / 2
        first = [ceil(offset + i * stride - half) < padded for i in range(n_out)]
        last = [floor(offset + i * stride + half) > n - 1 - padded for i in range(n_out)]
        return max(sum(first), sum(last))

    # -- what else nodes have --------------------------------------------------------------------
    def _calc_comp_cost(self):
        counter = FlopCounterMode(display=False)
        with counter:
            self._meta(self._stand_in(b=self.parent.shape["b"] or 1) if self.parent.shape.hastag("b") else self._stand_in())
        self.computational_cost = counter.get_total_flops() // 2

    def to_torch(self):
        """A module with the present parameters, in evaluation mode, on the processor."""
        module = copy.deepcopy(self._evaluation).to_empty(device="cpu")
        values = {k: torch.from_numpy(v.get_value()) if isinstance(v, VariableParam) else v.cpu()
                  for k, v in zip(self._names, self._values)}
        with torch.no_grad():
            for key, tensor in _tensors(module):
                tensor.copy_(values[key])
        return module

    @property
    def normalises_batches(self):
        """Whether there is batch normalisation in the module."""
        return any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in self._evaluation.modules())

    def _repr_details(self):
        return f"{type(self._evaluation).__name__}, "


def _made(module, args, kwargs, where):
    if isinstance(module, torch.nn.Module):
        if args or kwargs:
            raise TypeError(f"{where}: args and kwargs are for what makes a module, but {type(module).__name__} is one.")
        return module
    if not callable(module):
        raise TypeError(f"{where}: module must be a torch.nn.Module, or a class or function that makes one, got {module!r}.")
    made = module(*args, **kwargs)
    if not isinstance(made, torch.nn.Module):
        raise TypeError(f"{where}: {module!r} must make a torch.nn.Module, it made {made!r}.")
    return made


def _tensors(module):
    """Names and parameters, then buffers; what has several names comes under each."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _batch_statistics(module):
    return isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is None


def _for_probing(module):
    """A copy with random weights, none of which is zero, and without statistics over space."""
    module = copy.deepcopy(module).float().eval()
    for key, child in list(module.named_modules()):
        if key and (isinstance(child, _NORMS) or _batch_statistics(child)):
            owner, _, name = key.rpartition(".")
            setattr(module.get_submodule(owner), name, torch.nn.Identity())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            fan_in = int(np.prod(p.shape[1:])) if p.ndim > 1 else 1
            value = torch.randn(p.shape, generator=generator) if p.ndim > 1 else torch.rand(p.shape, generator=generator)
            p.copy_(value * (2 / fan_in) ** 0.5 + 1e-3)
    return module


def _evaluate(module, names, x, *values):
    y = torch.func.functional_call(module, dict(zip(names, values)), (x,))
    if not isinstance(y, torch.Tensor):
        raise TypeError(f"it returns {type(y).__name__}; wrap it in a module that returns one tensor")
    return y


def _train(module, names, buffers, changing, x, *values):
    """(output, new values of those named ``changing``); ``buffers`` are what a module may change in place."""
    new = {k: v.clone() if k in buffers else v for k, v in zip(names, values)}
    y = _evaluate(module, new.keys(), x, *new.values())
    return (y, *(new[k] for k in changing))
