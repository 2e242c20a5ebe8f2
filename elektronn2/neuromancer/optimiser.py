"""Optimisers: one training step per call.

Hyper-parameters (``lr``, ``mom``, ``wd``, ...) belong to a model. Weight decay is decoupled: R(p) = wd * p
for regularised parameters (times ``apply_reg`` where that is above 1), added outside momentum and adaptation;
biases are never regularised. All right-hand sides use the values before the step.
"""
import numpy as np
import torch
from torch.optim.adamw import adamw

from elektronn2.neuromancer.averaging import Averages
from elektronn2.neuromancer.function import Function, to_numpy
from elektronn2.neuromancer.registry import Registry
from elektronn2.neuromancer.variables import laid_out_like
from elektronn2.utils.validate import short, suggest

OPTIMISERS = Registry("optimiser")

DEFAULTS = dict(lr=1.0, mom=0.9, wd=0.0, beta2=0.999, nesterov=False, clip_value=None, clip_norm=None, ema=None)
"""Hyper-parameters of a new model. None: not used."""


class Optimiser:
    """Base: computes loss and gradients, then updates ``params`` and stores ``extra_updates``.

    ``inputs``, ``loss``, ``additional_outputs``: expressions; ``grads``: expressions, or None for those of the loss;
    ``params``: parameters; ``extra_updates``: pairs (param, expression); ``meta_params``, a dict, and ``averages``: shared
    among the optimisers of a model. A call returns [loss before the step, *additional outputs] as arrays.

    Every rule has these hyper-parameters: ``lr``, ``mom``, ``wd`` (learning rate, momentum, weight decay); ``clip_value``:
    elements of gradients are cut to [-clip_value, clip_value]; ``clip_norm``: then gradients are scaled such that the norm
    of all of them together is at most that (``torch.nn.utils.clip_grad_norm_``); ``ema``: decay, such as 0.999, of averages
    of the parameters (:class:`~elektronn2.neuromancer.averaging.Averages`).

    A rule of your own: a subclass with ``accumulators`` (names of its state) and ``directions(params, grads, state)``,
    lists of tensors in and out; the step is ``-lr * (direction + decay)``. ``meta`` names its hyper-parameters, and
    ``own_defaults`` (a dict) has the values of those that no other rule has.
    """

    accumulators = ()
    meta = ("lr", "mom", "wd", "clip_value", "clip_norm", "ema")
    own_defaults = {}
    n_history = 3
    keep_history = False

    def __init__(self, inputs, loss, grads, params, extra_updates=(), additional_outputs=None, meta_params=None,
                 names=None, shapes=None, averages=None):
        self.params = list(params)
        self._given_grads = list(grads or ())
        outputs = [loss, *(additional_outputs or ()), *self._given_grads]
        self._n_outputs = len(outputs) - len(self._given_grads)
        self.function = Function(inputs, outputs, extra_updates, name=f"{type(self).__name__} step", mode="train",
                                 gradients=() if grads else self.params, names=names, shapes=shapes)
        self.meta_params = dict(DEFAULTS) if meta_params is None else meta_params
        for key, value in self.own_defaults.items():
            self.meta_params.setdefault(key, value)
        self.averages = Averages() if averages is None else averages
        self.state = {}
        self.t = 0
        self._history = []

    def set_opt_meta_params(self, value_dict):
        """Set hyper-parameters. KeyError for one that this rule does not have."""
        if not isinstance(value_dict, dict):
            raise TypeError(f"{type(self).__name__}: hyper-parameters are given as a dict, like dict(lr=0.001), got "
                            f"{short(value_dict)}.")
        for key in value_dict:
            if key not in self.meta:
                raise KeyError(f"{type(self).__name__} has no hyper-parameter {key!r}; it has {', '.join(self.meta)}."
                               f"{suggest(key, self.meta)}")
        self.meta_params.update({k: check_hyper(k, v) for k, v in value_dict.items()})

    def __call__(self, *values):
        return [to_numpy(t) for t in self.step(*values)]

    def step(self, *values):
        """One step on arrays or tensors that fit; returns [loss, *additional outputs] as tensors.

        If the loss or a gradient is NaN or infinite, nothing is changed; if the loss is finite, FloatingPointError says
        whose gradient is not.
        """
        results = self.function.tensors(*values, only_finite=True)
        outputs, grads = results[:self._n_outputs], list(results[self._n_outputs:])
        if self.function.finite:
            self.apply(grads)
        elif torch.isfinite(outputs[0]).all():
            bad = [p.name for p, norm in zip(self.params, torch._foreach_norm(grads)) if not torch.isfinite(norm)]
            raise FloatingPointError(f"The gradient of {', '.join(bad)} is NaN or infinite, although the loss is not "
                                     f"({float(outputs[0].reshape(-1)[0]):g}): this step changed nothing.")
        return outputs

    @torch.no_grad()
    def apply(self, grads):
        """Update the parameters from gradients in the order of ``params``."""
        if self.averages.active:
            raise RuntimeError("Training within averaged_weights() would be lost: leave it first.")
        tensors = [p.tensor for p in self.params]
        if not self.state:
            self.state = {k: [torch.zeros_like(t) for t in tensors] for k in self.accumulators}
        self.state = {k: laid_out_like(values, tensors) for k, values in self.state.items()}
        self._remember(tensors)
        self.t += 1
        self.update(tensors, self._clip(laid_out_like(grads, tensors)))
        if self.meta_params["ema"]:
            self.averages.update(self.params, self.meta_params["ema"])
        else:
            self.averages.clear()

    def _clip(self, grads):
        value, norm = self.meta_params["clip_value"], self.meta_params["clip_norm"]
        if value:
            grads = torch._foreach_clamp_max(torch._foreach_clamp_min(grads, -value), value)
        if norm:
            total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
            grads = torch._foreach_mul(grads, (norm / (total + 1e-6)).clamp(max=1))
        return grads

    def update(self, tensors, grads):
        lr, wd = self.meta_params["lr"], self.meta_params["wd"]
        directions = self.directions(tensors, grads, self.state)
        if wd:
            for t, p in zip(tensors, self.params):
                factor = decay_factor(p)
                if factor:
                    t.mul_(1 - lr * wd * factor)  # p - lr * (d + wd * p), with p before the step
        torch._foreach_add_(tensors, directions, alpha=-lr)

    def directions(self, tensors, grads, state):
        raise TypeError(f"{type(self).__name__} is no update rule; use one of {', '.join(OPTIMISERS)}.")

    # -- safety net ------------------------------------------------------------------------------
    def _remember(self, tensors):
        if self.keep_history:
            self._history = [*self._history[1 - self.n_history:], [t.clone() for t in tensors]]

    def repair(self):
        """Zero the state and go back to the parameters of up to three steps earlier; averages begin anew.

        Parameters are remembered once ``keep_history`` is True; ValueError before.
        """
        if not self._history:
            raise ValueError("No earlier parameters are remembered: set optimiser.keep_history = True before training.")
        with torch.no_grad():
            for p, old in zip(self.params, self._history[0]):
                p.tensor.copy_(old)
        self.reset()
        self.averages.clear()

    def reset(self):
        """Forget the state."""
        self.state, self.t, self._history = {}, 0, []

    def get_state(self):
        """Dict that :meth:`set_state` takes back: ``t``, the number of steps, and per accumulator a list of arrays in the
        order of ``params``."""
        return {"t": self.t, **{k: [t.cpu().contiguous().numpy().copy() for t in values]
                                for k, values in self.state.items()}}

    def set_state(self, state):
        self.reset()
        self.t = state["t"]
        if self.t:
            tensors = [p.tensor for p in self.params]
            self.state = {k: laid_out_like([torch.from_numpy(np.array(v)) for v in state[k]], tensors)
                          for k in self.accumulators}


def check_hyper(name, value):
    """A hyper-parameter, numbers as float. ValueError if it is not allowed: numbers are at least 0, ``mom``, ``beta2`` and
    ``ema`` are also below 1; ``ema``, ``clip_norm`` and ``clip_value`` are None (not used) or above 0; ``nesterov`` is True
    or False."""
    if name == "nesterov":
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"Hyper-parameter 'nesterov' must be True or False, got {value!r}.")
        return bool(value)
    optional, fraction = name in ("ema", "clip_norm", "clip_value"), name in ("mom", "beta2", "ema")
    if optional and value is None:
        return None
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not np.isfinite(value) or value < 0 or (optional and value == 0) or (fraction and value >= 1):
        limits = ("above 0" if optional else "at least 0") + " and below 1" * fraction
        raise ValueError(f"Hyper-parameter {name!r} must be a number {'' if optional else 'of '}{limits}"
                         f"{', or None' * optional}, got {value!r}.")
    return float(value)


def decay_factor(param):
    """By what weight decay of a parameter is multiplied: 0 where it is not regularised."""
    if not param.apply_reg:
        return 0.0
    return max(float(param.apply_reg), 1.0)


@OPTIMISERS
class SGD(Optimiser):
    """Gradient descent with momentum: d = g + mom * d; p -= lr * (d + R).

    With ``nesterov`` = True the step is along g + mom * d (with the new d), as in ``torch.optim.SGD``. Source: Nesterov
    1983, in the form of Sutskever et al. 2013, On the importance of initialization and momentum in deep learning.
    """

    accumulators = ("direction",)
    meta = (*Optimiser.meta, "nesterov")

    def directions(self, tensors, grads, state):
        mom = self.meta_params["mom"]
        torch._foreach_mul_(state["direction"], mom)
        torch._foreach_add_(state["direction"], grads)
        if self.meta_params["nesterov"]:
            return torch._foreach_add(grads, state["direction"], alpha=mom)
        return state["direction"]


@OPTIMISERS
class AdaGrad(Optimiser):
    """h += g^2; p -= lr * (g + R) / (sqrt(h) + 1e-10), with h seeded by the square of the first gradient.

    Source: Duchi et al. 2011. The epsilon keeps parameters without gradient from becoming NaN.
    """

    accumulators = ("squares",)

    def update(self, tensors, grads):
        lr, wd = self.meta_params["lr"], self.meta_params["wd"]
        squares = torch._foreach_mul(grads, grads)
        if self.t == 1:
            torch._foreach_add_(self.state["squares"], squares)
        torch._foreach_add_(self.state["squares"], squares)
        for t, g, h, p in zip(tensors, grads, self.state["squares"], self.params):
            r = wd * t if wd and p.apply_reg else 0
            t.sub_(lr * (g + r) / (h.sqrt() + 1e-10))


@OPTIMISERS
class AdaDelta(Optimiser):
    """dir = g * sqrt(d + e) / sqrt(s + e) with the old s, d; s, d are running averages of g^2 and dir^2; e = 1e-5.

    p -= lr * (dir + R). Source: Zeiler 2012, ADADELTA.
    """

    accumulators = ("squares", "deltas")

    def directions(self, tensors, grads, state):
        mom, e = self.meta_params["mom"], 1e-5
        directions = []
        for g, s, d in zip(grads, state["squares"], state["deltas"]):
            step = g * (d + e).sqrt() / (s + e).sqrt()
            s.mul_(mom).addcmul_(g, g, value=1 - mom)
            d.mul_(mom).addcmul_(step, step, value=1 - mom)
            directions.append(step)
        return directions


@OPTIMISERS
class Adam(Optimiser):
    """Adam with its epsilon (1e-5) inside the root, as in the first ELEKTRONN2.

    m = mom*m + (1-mom)*g; v = beta2*v + (1-beta2)*g^2; dir = sqrt(1-beta2^t)/(1-mom^t) * m / sqrt(v + 1e-5);
    p -= lr * (dir + R). Source: Kingma and Ba 2014. :class:`AdamW` learns faster where gradients are small.
    """

    accumulators = ("means", "squares")
    meta = (*Optimiser.meta, "beta2")

    def directions(self, tensors, grads, state):
        mom, beta2 = self.meta_params["mom"], self.meta_params["beta2"]
        torch._foreach_lerp_(state["means"], grads, 1 - mom)
        torch._foreach_mul_(state["squares"], beta2)
        torch._foreach_addcmul_(state["squares"], grads, grads, value=1 - beta2)
        scale = (1 - beta2 ** self.t) ** 0.5 / (1 - mom ** self.t)
        roots = torch._foreach_add(state["squares"], 1e-5)
        torch._foreach_sqrt_(roots)
        directions = torch._foreach_div(state["means"], roots)
        torch._foreach_mul_(directions, scale)
        return directions


@OPTIMISERS
class AdamW(Optimiser):
    """``torch.optim.AdamW``: Adam with decoupled weight decay, epsilon 1e-8 outside the root.

    ``mom`` and ``beta2`` are its betas. Source: Loshchilov and Hutter 2017, Decoupled weight decay regularization.
    """

    accumulators = ("means", "squares")
    meta = (*Optimiser.meta, "beta2")

    def update(self, tensors, grads):
        hyper, factors = self.meta_params, [decay_factor(p) for p in self.params]
        for factor in set(factors):
            members = [i for i, own in enumerate(factors) if own == factor]
            values, gradients, means, squares = ([each[i] for i in members] for each in (
                tensors, grads, self.state["means"], self.state["squares"]))
            steps = list(torch.full((len(members),), self.t - 1.0, device=values[0].device).unbind())
            adamw(values, gradients, means, squares, [], steps, fused=True, amsgrad=False, maximize=False, lr=hyper["lr"],
                  beta1=hyper["mom"], beta2=hyper["beta2"], weight_decay=hyper["wd"] * factor, eps=1e-8)
