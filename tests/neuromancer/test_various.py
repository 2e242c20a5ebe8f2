"""Response normalisation and random nodes in double precision against slow numpy, and by their statistics."""
import numpy as np
import pytest
import torch
from helpers import check, source

from elektronn2 import neuromancer as nm

pytestmark = pytest.mark.usefixtures("float64")


# -- local response normalisation -----------------------------------------------------------------------
@pytest.mark.parametrize(("tags", "sizes", "box"), [("b,f,x", (5,), (3,)), ("b,f,y,x", (4, 5), (1, 3)),
                                                    ("b,f,z,x,y", (3, 4, 3), (3, 5, 1))])
def test_lrn_spatial(tags, sizes, box, rng):
    """Against a loop over voxels and the box around each."""
    node = nm.LRN(source((2, 2, *sizes), tags), box, alpha=0.5, k=2, beta=0.75, print_repr=False)
    x = rng.normal(size=(2, 2, *sizes))
    squares = np.zeros_like(x)
    for position in np.ndindex(sizes):
        window = tuple(slice(max(p - n // 2, 0), p + n // 2 + 1) for p, n in zip(position, box))
        squares[(..., *position)] = (x[(..., *window)] ** 2).sum(axis=tuple(range(2, x.ndim)))
    check(node, x / (2 + 0.5 * squares / np.prod(box)) ** 0.75, x)
    assert node.shape.fov == list(box) and not any(node.shape.centre)
    assert node.shape.padded == tuple(n // 2 for n in box)


@pytest.mark.parametrize(("tags", "axis"), [("b,f", 1), ("b,f,x", 1), ("b,x,f", 2), ("f,x", 0)])
@pytest.mark.parametrize("n", [1, 3, 7])
def test_lrn_channel(tags, axis, n, rng):
    """Against a loop over features and their neighbours, the first and last of which are repeated."""
    sizes = [dict(b=2, f=5, x=3)[t] for t in tags.split(",")]
    node = nm.LRN(source(sizes, tags), n, "channel", alpha=0.3, k=1.5, beta=2, print_repr=False)
    x = rng.normal(size=sizes)
    features = np.moveaxis(x, axis, 0)
    mean = np.stack([np.mean([features[min(max(i + k, 0), 4)] ** 2 for k in range(-(n // 2), n // 2 + 1)], axis=0)
                     for i in range(5)])
    check(node, x / (1.5 + 0.3 * np.moveaxis(mean, 0, axis)) ** 2, x)


def test_lrn_parameters():
    """alpha, k and beta are not trained, can be changed, and are saved."""
    node = nm.LRN(source((1, 2), "b,f"), 1, "channel", print_repr=False)
    x = np.array([[1.0, 2]])
    np.testing.assert_allclose(node(x), x / (1 + 1e-4 * x ** 2) ** 0.75)
    assert node.param_count == 0
    node.set_param_values(dict(alpha=2, k=0, beta=0.5))
    np.testing.assert_allclose(nm.model.rebuild_model(node.model)["LRN"](x), np.sqrt([[0.5, 0.5]]))


# -- faithless merge ------------------------------------------------------------------------------------
def test_faithless_merge(rng):
    """Values in both modes: nothing fails in prediction; in training one part at most is zero as a whole, the easy one in
    70 % of the failures, which are 40 % of the calls (within 5 standard deviations)."""
    node = nm.FaithlessMerge(source((1, 2), "b,f"), source((1, 3), "b,f"), failing_prob=0.4, hardeasy_ratio=0.7,
                             print_repr=False)
    hard, easy = rng.normal(size=(1, 2)), rng.normal(size=(1, 3))
    both = np.concatenate([hard, easy], 1)
    check(node, both, hard, easy)
    seen = dict(hard=0, easy=0, both=0)
    for _ in range(2000):
        value = node(hard, easy, mode="train")
        for name, wanted in (("hard", [hard, 0 * easy]), ("easy", [0 * hard, easy]), ("both", [hard, easy])):
            seen[name] += np.array_equal(value, np.concatenate(wanted, 1))
    assert sum(seen.values()) == 2000
    for name, p in (("hard", 0.4 * 0.7), ("easy", 0.4 * 0.3), ("both", 0.6)):
        assert abs(seen[name] / 2000 - p) < 5 * np.sqrt(p * (1 - p) / 2000)
    assert node.computational_cost == 0 and node.param_count == 0


def test_faithless_merge_rates_can_be_changed(rng):
    node = nm.FaithlessMerge(source((1, 2), "b,f"), source((1, 2), "b,f"), print_repr=False)
    node.set_param_values(dict(failing_prob=1, hardeasy_ratio=0))
    np.testing.assert_array_equal(node(np.ones((1, 2)), np.ones((1, 2)), mode="train"), [[0, 0, 1, 1]])


def test_faithless_merge_is_no_dense_prediction_along_space():
    x = source((1, 1, 4), "b,f,x")
    with pytest.raises(ValueError, match="joined along f"):
        nm.FaithlessMerge(x, x, axis="x", print_repr=False).predict_dense(np.ones((1, 9)))


# -- Gaussian random variables --------------------------------------------------------------------------
@pytest.mark.parametrize("n_samples", [0, 400])
def test_gaussian(n_samples):
    """Mean and standard deviation of 400 draws of 5 values, each within 5 standard errors; draws differ."""
    torch.manual_seed(0)
    mu, log_sig = np.array([[0, 1, -2, 3, 4.0]]), np.array([[0, -1, -3, 1, 2.0]])
    node = nm.GaussianRV(source((1, 5), "b,f"), source((1, 5), "b,f"), n_samples, print_repr=False)
    assert node.shape.tags == ["b", "s", "f"] if n_samples else ["b", "f"]
    assert node.computational_cost == 5 * max(1, n_samples)
    draws = node(mu, log_sig)[0] if n_samples else np.concatenate([node(mu, log_sig) for _ in range(400)])
    assert draws.shape == (400, 5) and len(np.unique(draws)) == 2000
    sig = np.exp(log_sig[0])
    assert (np.abs(draws.mean(0) - mu[0]) < 5 * sig / 20).all()
    assert (np.abs(draws.std(0) - sig) < 5 * sig / np.sqrt(800)).all()


@pytest.mark.parametrize("n_samples", [0, 3])
def test_gaussian_gradient(n_samples, monkeypatch, rng):
    """Value and gradients for known draws."""
    mu, log_sig = rng.normal(size=(2, 2, 4, 3))
    noise = rng.normal(size=(4, *[n_samples] * bool(n_samples), 3))
    node = nm.GaussianRV(source((4, 3), "b,f"), source((4, 3), "b,f"), n_samples, print_repr=False)
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.from_numpy(noise))
    wide = [v[:, None] if n_samples else v for v in (mu[0], log_sig[0])]
    check(node, wide[0] + np.exp(wide[1]) * noise, mu[0], log_sig[0])


@pytest.mark.parametrize("n_samples", [0, 3])
def test_prior(n_samples, rng):
    """Against the divergence of two normal distributions, integrated numerically."""
    variable = nm.GaussianRV(source((1, 2), "b,f"), source((1, 2), "b,f"), n_samples, name="latent", print_repr=False)
    node = variable.make_priorlayer()
    assert node.name == "latent_prior" and node.shape == variable.shape
    mu, log_sig = np.array([[0.5, -1]]), np.array([[0.3, -0.7]])
    t = np.linspace(-20, 20, 400001)

    def log_density(m, s):
        return -0.5 * ((t - m) / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))
    wanted = [np.sum(np.exp(log_density(m, s)) * (log_density(m, s) - log_density(0, 1))) * (t[1] - t[0])
              for m, s in zip(mu[0], np.exp(log_sig[0]))]
    wanted = np.array([wanted])
    check(node, np.repeat(wanted[:, None], n_samples, 1) if n_samples else wanted, mu, log_sig)
