"""Running averages of weights, which often predict better than the weights of the last step."""
import contextlib

import torch

from elektronn2.neuromancer.variables import laid_out_like


class Averages:
    """Exponential moving averages of parameters: a copy after the first step, then a = decay * a + (1 - decay) * p.

    Source: Polyak and Juditsky 1992; the rule is that of ``torch.optim.swa_utils`` with ``get_ema_multi_avg_fn``. It has a
    memory of about 1 / (1 - decay) steps: with 0.999, train some thousand steps before looking at the averages.

    >>> from elektronn2.neuromancer.variables import VariableParam
    >>> p, averages = VariableParam([1.0], name='p'), Averages()
    >>> averages.update([p], 0.75)
    >>> p.set_value([5.0])
    >>> averages.update([p], 0.75)
    >>> with averages.swapped():
    ...     p.get_value()
    array([2.], dtype=float32)
    >>> p.get_value()
    array([5.], dtype=float32)
    """

    def __init__(self):
        self.values = {}  # parameter -> tensor
        self.active = False

    def __bool__(self):
        return bool(self.values)

    @torch.no_grad()
    def update(self, params, decay):
        """After a step: take the parameters' values into their averages."""
        tensors = [p.tensor for p in params]
        if self.values.keys() != set(params):
            self.values = {p: p.tensor.detach().clone() for p in params}
            return
        averages = laid_out_like([self.values[p] for p in params], tensors)
        torch._foreach_lerp_(averages, tensors, 1 - decay)
        self.values = dict(zip(params, averages))

    def clear(self):
        """Forget the averages; the next step begins anew."""
        self.values = {}

    @contextlib.contextmanager
    def swapped(self):
        """Within, the parameters have their average values. ValueError if there are none."""
        if self.active:
            yield
            return
        if not self.values:
            raise ValueError("There are no averaged weights: set the hyper-parameter ema (such as 0.999) and train.")
        kept = {p: p.tensor.detach().clone() for p in self.values}
        self._write(self.values)
        self.active = True
        try:
            yield
        finally:
            self.active = False
            self._write(kept)

    @staticmethod
    @torch.no_grad()
    def _write(values):
        for param, value in values.items():
            param.tensor.copy_(value)
