"""Where a function of tensors looks: field of view, stride and offset along one axis, found by trying.

NaN spreads through convolutions (also over weights that are zero), pooling and activations. So inputs that are NaN up
to a position, or from one on, show exactly which outputs look there; a few dozen runs give the windows of neighbouring
outputs, and those repeat with a period.
"""
import contextlib
from dataclasses import dataclass
from fractions import Fraction

import torch

LONGEST = 1500  # input voxels; a window that does not fit into this is taken for a global one
FAR = 80640     # a length that all usual strides divide
PERIOD = 64     # where sizes are rounded, geometry depends on the length; not if that changes by a multiple of this


@dataclass(frozen=True)
class Axis:
    """Geometry along one axis, in input voxels: output i looks at ``fov`` voxels around ``centre + i * stride``; shifting
    the input by ``grid`` shifts the output and changes nothing else; ``padded`` outputs at either end look beyond it."""
    fov: Fraction
    stride: Fraction
    centre: Fraction
    grid: int
    padded: int


class NotFound(ValueError):
    """The function looks everywhere, or differently at every place, or hides where it looks."""


def probe(run, length, shape, axis, out_axis):
    """Geometry of ``run`` along an axis.

    ``run``: tensor -> tensor, deterministic, in float32 on the processor; ``length``: input length -> output length along
    the axis, ValueError where there is none; ``shape``: an input that works, best with other axes as short as possible.
    Lengths that are tried differ from that in ``shape`` by multiples of 64.

    >>> probe(lambda x: torch.nn.functional.max_pool1d(x, 2), lambda n: n // 2, (1, 1, 8), 2, 2)
    Axis(fov=Fraction(2, 1), stride=Fraction(2, 1), centre=Fraction(1, 2), grid=2, padded=0)

    Raises :class:`NotFound`, a ValueError that says what is wrong.
    """
    for n in _lengths(length, shape[axis]):
        stride = _stride(length, n)
        trial = _Trial(run, shape, axis, out_axis, n)
        windows = trial.windows(stride)
        if windows is not None:
            i, los, his = windows
            mean = Fraction(sum(los) + sum(his), 2 * len(los))
            centre = mean - stride * (i + Fraction(len(los) - 1, 2))
            half = max(max(centre + (i + k) * stride - lo, hi - centre - (i + k) * stride)
                       for k, (lo, hi) in enumerate(zip(los, his)))
            grid = trial.grid(stride, centre, half, int(len(los) * stride))
            if grid is not None:
                trial.check_rest(i, los[0], his[0])
                return Axis(2 * half + 1, stride, centre, grid, trial.padded(i, los, his, int(len(los) * stride)))
    raise NotFound(f"the windows of neighbouring outputs do not repeat within {LONGEST} voxels")


def legal(length, n):
    """The first legal input length from ``n`` on, with an output of at least one voxel."""
    for m in range(n, n + 2 * LONGEST):
        try:
            if length(m) >= 1:
                return m
        except ValueError:
            continue
    raise NotFound(f"no input of {n} to {n + 2 * LONGEST} voxels works")


def _lengths(length, n):
    """Legal lengths like n, growing by a half or more."""
    last = 10
    for m in range(n % PERIOD, LONGEST, PERIOD):
        if m >= 1.5 * last:
            with contextlib.suppress(ValueError):
                if length(m) >= 1:
                    yield m
                    last = m


def _stride(length, n):
    try:
        longer = length(n + FAR)
    except ValueError as error:
        raise NotFound(f"it takes {n} voxels but not {n + FAR} ({error})") from None
    if longer == length(n):
        raise NotFound("its output does not grow with its input")
    return Fraction(FAR, longer - length(n))


class _Trial:
    """Runs with an input of length ``n``."""

    def __init__(self, run, shape, axis, out_axis, n):
        self.run, self.axis, self.out_axis, self.n = run, axis, out_axis, n
        generator = torch.Generator().manual_seed(0)
        self.random = lambda: torch.rand([n if i == axis else m for i, m in enumerate(shape)], generator=generator)
        self.x = self.random()
        self.y = self._rows(run(self.x))
        self.before, self.after = {}, {}

    def _rows(self, y):
        return y.movedim(self.out_axis, 0).flatten(1)

    def _same(self, a, b):
        return torch.allclose(a, b, rtol=1e-4, atol=1e-5 * self.y.abs().max().item())

    def _seen(self, first, last):
        """Which outputs look at inputs from ``first`` to before ``last``."""
        x = self.x.clone()
        x.narrow(self.axis, first, last - first).fill_(float("nan"))
        return self._rows(self.run(x)).isnan().any(1).tolist()

    def _window(self, i):
        """First and last input that output i looks at."""
        for j, known, ends in ((self.n, self.before, (0, self.n)), (0, self.after, (0, self.n))):
            if j not in known:
                known[j] = self._seen(*ends)
        if not self.before[self.n][i]:
            raise NotFound("NaN in its input does not show in its output")
        first = self._bisect(i, self.before, lambda j: self._seen(0, j), growing=True) - 1
        return first, self._bisect(i, self.after, lambda j: self._seen(j, self.n), growing=False)

    def _bisect(self, i, known, seen, growing):
        """The smallest j at which output i is reached by NaN before j, or the largest at which it is by NaN from j on."""
        reached = [j for j, v in known.items() if v[i]]
        missed = [j for j, v in known.items() if not v[i]]
        a, b = (max(missed, default=0), min(reached)) if growing else (max(reached), min(missed, default=self.n))
        while b - a > 1:
            j = (a + b) // 2
            known[j] = seen(j)
            if known[j][i] == growing:
                b = j
            else:
                a = j
        return b if growing else a

    def windows(self, stride):
        """(i, first inputs, last inputs) of outputs i, i + 1, ... until the pattern repeats; None if n is too small."""
        count = 6
        while count <= len(self.y):
            start = (len(self.y) - count) // 2
            los, his = zip(*(self._window(i) for i in range(start, start + count)))
            if min(los) == 0 or max(his) == self.n - 1:  # cut off by the ends of the input, perhaps
                return None
            for period in range(stride.denominator, count // 3 + 1, stride.denominator):
                if self._repeats(start, los[:period], his[:period], int(period * stride)):
                    return start, los[:period], his[:period]
            count *= 2
        return None

    def _repeats(self, start, los, his, step):
        """Whether windows that go on like this explain all that has been seen."""
        firsts, lasts = self._continued(start, los, step), self._continued(start, his, step)
        return (all(v == [first < j for first in firsts] for j, v in self.before.items() if j)
                and all(v == [last >= j for last in lasts] for j, v in self.after.items() if j < self.n))

    def _continued(self, start, values, step):
        """For all outputs, what ``values`` are from output ``start`` on, growing by ``step`` each time they repeat."""
        return [values[(i - start) % len(values)] + (i - start) // len(values) * step for i in range(len(self.y))]

    def padded(self, start, los, his, step):
        """Outputs at either end that look beyond the input."""
        return max(sum(first < 0 for first in self._continued(start, los, step)),
                   sum(last >= self.n for last in self._continued(start, his, step)))

    def grid(self, stride, centre, half, step):
        """The smallest multiple of ``step`` by which the input can be shifted; None if n is too small to tell."""
        for shift in range(step, min(64 * step, self.n) + 1, step):
            x = self.random()
            x.narrow(self.axis, 0, self.n - shift).copy_(self.x.narrow(self.axis, shift, self.n - shift))
            y, moved = self._rows(self.run(x)), int(shift / stride)
            inner = [i for i in range(len(y) - moved)
                     if centre + i * stride >= half and centre + i * stride + half <= self.n - shift - 1]
            if len(inner) < 2:
                return None
            if self._same(y[inner], self.y[[i + moved for i in inner]]):
                return shift
        raise NotFound("its output depends on the position in the input")

    def check_rest(self, i, first, last):
        """NotFound if output i looks beyond its window, by ways that NaN does not go."""
        for low in (-3, -1, 1):
            x = 3 * self.random() + low
            x.narrow(self.axis, first, last - first + 1).copy_(self.x.narrow(self.axis, first, last - first + 1))
            if not self._same(self._rows(self.run(x))[i], self.y[i]):
                raise NotFound("its output depends on inputs that NaN does not show (a comparison?)")
