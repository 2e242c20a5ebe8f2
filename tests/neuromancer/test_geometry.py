"""Declared size, stride, offset and field of view of random graphs against what impulses find in the compiled function."""
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from random_graphs import SETTINGS, build, legal_size, pads, recipes, trace

from elektronn2 import neuromancer as nm

pytestmark = pytest.mark.usefixtures("float64")


def positive(model):
    """Weights that let every impulse through, and no bias."""
    rng = np.random.default_rng(1)
    for node in model.nodes.values():
        for name, p in node.params.items():
            p.set_value(rng.uniform(0.5, 1, p.shape) if name == "w" else np.zeros(p.shape))


def seen(model, k):
    """Boolean (outputs, inputs) on axis k: which an impulse (all voxels there at once) changes."""
    sizes = model.input_node.shape.spatial_shape
    changed = []
    for v in range(sizes[k]):
        x = np.zeros((1, 1, *sizes))
        x[(0, 0, *(slice(None) if i != k else v for i in range(len(sizes))))] = 1
        y = model.predict(x)
        y = np.abs(y).max(tuple(i for i in range(y.ndim) if i != k + 2))
        changed.append(y)
    changed = np.stack(changed, axis=1)
    return changed > 1e-11 * changed.max()


def upsampling_of(node, k):
    """(product of the factors before a node, whether something strides after one of them) on axis k."""
    factor, strides = 1, False
    for p in node.all_parents.values():
        own = getattr(p, "factor", p.pool_shape if isinstance(p, nm.UpConv) else None)
        if own is not None:
            factor *= own[k]
        elif p.parents and any(p.shape.strides[k] > q.shape.strides[k] for q in p.parents):
            strides = strides or upsampling_of(p.parents[0], k)[0] > 1
    return factor, strides


@pytest.mark.parametrize("n", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_random_graphs(n):
    """Sizes, strides and centres as ``trace`` works them out. Every output sees within its window. Without upsampling it
    sees up to both ends of it, which lie on the image, but for the ``padded`` outermost ones. With
    upsampling all phases together fill the window, unless something strides after it."""
    exact = filled = 0

    @settings(SETTINGS, max_examples=n)
    @given(recipes())
    def check(recipe):
        nonlocal exact, filled
        nm.model_manager.models.clear()
        size = legal_size(recipe, [12] * recipe[0])
        model = build(recipe, size, linear=True)
        positive(model)
        node, s = model.prediction_node, model.prediction_node.shape
        assert [(n, Fraction(t), c) for n, t, c in zip(s.spatial_shape, s.strides, s.centre)] == trace(recipe, size)
        assert s.offsets == [int(np.floor(float(c))) for c in s.centre]
        for k in range(recipe[0]):
            window = seen(model, k)
            length, stride, half = size[k], Fraction(s.strides[k]), (Fraction(s.fov[k]) - 1) / 2
            low = [s.centre[k] + i * stride - half for i in range(len(window))]
            high = [a + 2 * half for a in low]
            hits = [np.flatnonzero(w) for w in window]
            assert all(h.size == 0 or (a <= h[0] and h[-1] <= b) for a, b, h in zip(low, high, hits)), k
            factor, strides_after = upsampling_of(node, k)
            inner = range(s.padded[k], len(window) - s.padded[k])
            whole = [i for i in inner if low[i] >= 0 and high[i] < length]
            if factor == 1:
                assert whole == list(inner), k
                assert all((hits[i][0], hits[i][-1]) == (low[i], high[i]) for i in whole), k
                exact += bool(whole)
            elif not strides_after and len(whole) >= factor:
                reach = [(hits[i][0] - low[i], high[i] - hits[i][-1]) for i in whole]
                assert (min(a for a, _ in reach), min(b for _, b in reach)) == (0, 0), k
                filled += 1
    check()
    nm.model_manager.models.clear()
    assert exact >= n // 2 and filled >= n // 4


@settings(SETTINGS, max_examples=20)
@given(recipes(upsampling=False, padding=False))
def test_without_padding_nothing_is_padded(recipe):
    assert not pads(recipe)
    model = build(recipe, legal_size(recipe, [8] * recipe[0], False), False)
    assert model.prediction_node.shape.padded == (0,) * recipe[0]
    nm.model_manager.models.clear()
