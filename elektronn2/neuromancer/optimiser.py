"""Optimisers: one training step per call.

Hyper-parameters (``lr``, ``mom``, ``wd``, ``beta2``) belong to a model. Weight decay is decoupled: R(p) = wd * p
for regularised parameters (times ``apply_reg`` where that is above 1), added outside momentum and adaptation;
biases are never regularised. All right-hand sides use the values before the step.
"""
import numpy as np
import torch

from elektronn2.neuromancer.function import Function, to_numpy
from elektronn2.neuromancer.registry import Registry
from elektronn2.utils.validate import suggest

OPTIMISERS = Registry("optimiser")

DEFAULTS = dict(lr=1.0, mom=0.9, wd=0.0)


class Optimiser:
    """Base: computes loss and gradients, then updates ``params`` and stores ``extra_updates``.

    ``inputs``, ``loss``, ``additional_outputs``: expressions; ``grads``: expressions, or None for those of the loss;
    ``params``: parameters; ``extra_updates``: pairs (param, expression); ``meta_params``: a dict that a model shares
    among its optimisers. A call returns [loss before the step, *additional outputs] as arrays.

    A rule of your own: a subclass with ``accumulators`` (names of its state) and ``directions(params, grads, state)``,
    lists of tensors in and out; the step is ``-lr * (direction + decay)``.
    """

    accumulators = ()
    meta = ("lr", "mom", "wd")
    n_history = 3
    keep_history = False

    def __init__(self, inputs, loss, grads, params, extra_updates=(), additional_outputs=None, meta_params=None,
                 names=None, shapes=None):
        self.params = list(params)
        self._given_grads = list(grads or ())
        outputs = [loss, *(additional_outputs or ()), *self._given_grads]
        self._n_outputs = len(outputs) - len(self._given_grads)
        self.function = Function(inputs, outputs, extra_updates, name=f"{type(self).__name__} step", mode="train",
                                 gradients=() if grads else self.params, names=names, shapes=shapes)
        self.meta_params = dict(DEFAULTS) if meta_params is None else meta_params
        for key, value in self.own_defaults().items():
            self.meta_params.setdefault(key, value)
        self.state = {}
        self.t = 0
        self._history = []

    @classmethod
    def own_defaults(cls):
        return {}

    def set_opt_meta_params(self, value_dict):
        """Set hyper-parameters. KeyError for one that this rule does not have."""
        for key in value_dict:
            if key not in self.meta:
                raise KeyError(f"{type(self).__name__} has no hyper-parameter {key!r}; it has {', '.join(self.meta)}."
                               f"{suggest(key, self.meta)}")
        self.meta_params.update({k: check_hyper(k, v) for k, v in value_dict.items()})

    def __call__(self, *values):
        return [to_numpy(t) for t in self.step(*values)]

    def step(self, *values):
        """One step on arrays or tensors that fit; returns [loss, *additional outputs] as tensors.

        If the loss is NaN or infinite, nothing is changed."""
        results = self.function.tensors(*values, only_finite=True)
        if torch.isfinite(results[0]).all():
            self.apply(results[self._n_outputs:])
        return results[:self._n_outputs]

    @torch.no_grad()
    def apply(self, grads):
        """Update the parameters from gradients in the order of ``params``."""
        tensors = [p.tensor for p in self.params]
        if not self.state:
            self.state = {k: [torch.zeros_like(t) for t in tensors] for k in self.accumulators}
        self._remember(tensors)
        self.t += 1
        grads = [g if g.stride() == t.stride() and g.dtype == t.dtype else torch.empty_like(t).copy_(g)
                 for g, t in zip(grads, tensors)]
        self.update(tensors, grads)

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
        """Zero the state and go back to the parameters of up to three steps earlier.

        Parameters are remembered once ``keep_history`` is True; ValueError before.
        """
        if not self._history:
            raise ValueError("No earlier parameters are remembered: set optimiser.keep_history = True before training.")
        with torch.no_grad():
            for p, old in zip(self.params, self._history[0]):
                p.tensor.copy_(old)
        self.reset()

    def reset(self):
        """Forget the state."""
        self.state, self.t, self._history = {}, 0, []

    def get_state(self):
        """Dict of arrays that :meth:`set_state` takes back."""
        state = {f"{k}/{i}": t.cpu().numpy() for k, ts in self.state.items() for i, t in enumerate(ts)}
        return {"t": self.t, **{k: v.copy() for k, v in state.items()}}

    def set_state(self, state):
        self.t = int(state["t"])
        self.state = {k: [torch.empty_like(p.tensor).copy_(torch.as_tensor(state[f"{k}/{i}"]))
                          for i, p in enumerate(self.params)] for k in self.accumulators} if self.t else {}


def check_hyper(name, value):
    """A hyper-parameter as float. ValueError unless it is a number of at least 0, and below 1 for mom and beta2."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not np.isfinite(value) or value < 0 or (name in ("mom", "beta2") and value >= 1):
        limits = "at least 0 and below 1" if name in ("mom", "beta2") else "at least 0"
        raise ValueError(f"Hyper-parameter {name!r} must be a number of {limits}, got {value!r}.")
    return float(value)


def decay_factor(param):
    """By what weight decay of a parameter is multiplied: 0 where it is not regularised."""
    if not param.apply_reg:
        return 0.0
    return max(float(param.apply_reg), 1.0)


@OPTIMISERS
class SGD(Optimiser):
    """Gradient descent with momentum: d = g + mom * d; p -= lr * (d + R)."""

    accumulators = ("direction",)

    def directions(self, tensors, grads, state):
        torch._foreach_mul_(state["direction"], self.meta_params["mom"])
        torch._foreach_add_(state["direction"], grads)
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
    meta = ("lr", "mom", "wd", "beta2")

    @classmethod
    def own_defaults(cls):
        return dict(beta2=0.999)

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

    meta = ("lr", "mom", "wd", "beta2")
    _torch = None

    @classmethod
    def own_defaults(cls):
        return dict(beta2=0.999)

    def _make(self):
        groups = {}
        for p in self.params:
            groups.setdefault(decay_factor(p), []).append(p.tensor)
        self._torch = torch.optim.AdamW([dict(params=v, factor=k) for k, v in groups.items()], fused=True)

    def update(self, tensors, grads):
        if self._torch is None:
            self._make()
        for group in self._torch.param_groups:
            group.update(lr=self.meta_params["lr"], betas=(self.meta_params["mom"], self.meta_params["beta2"]),
                         weight_decay=self.meta_params["wd"] * group["factor"])
        for t, g in zip(tensors, grads):
            t.grad = g
            own = self._torch.state[t]
            for key, value in own.items():  # the fused step walks memory: parameter and state must be laid out alike
                if value.shape == t.shape and value.stride() != t.stride():
                    own[key] = torch.empty_like(t).copy_(value)
        self._torch.step()
        for t in tensors:
            t.grad = None

    def reset(self):
        super().reset()
        self._torch = None

    def get_state(self):
        state = {"t": self.t}
        for i, p in enumerate(self.params):
            for key, value in (self._torch.state[p.tensor] if self._torch else {}).items():
                state[f"{key}/{i}"] = torch.as_tensor(value).cpu().numpy().copy()
        return state

    def set_state(self, state):
        self.reset()
        self.t = int(state["t"])
        if self.t:
            self._make()
            for i, p in enumerate(self.params):
                own = {k.split("/")[0]: torch.as_tensor(v) for k, v in state.items() if k.endswith(f"/{i}")}
                self._torch.state[p.tensor] = {
                    k: v.to(p.tensor.device) if k == "step" else torch.empty_like(p.tensor).copy_(v) for k, v in own.items()}
