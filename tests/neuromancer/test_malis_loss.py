"""MalisNLL: its formula, what it leaves out, and what following its gradient does."""
import numpy as np
import pytest
import torch
from helpers import check, source

from elektronn2 import malis
from elektronn2 import neuromancer as nm
from elektronn2.neuromancer.function import cut

NHOOD = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, -2, 0]])
QUIET = dict(print_repr=False)
pytestmark = pytest.mark.usefixtures("float64")


def net(shape=(2, 2, 3, 4), nhood=NHOOD, float_ids=False, **kwargs):
    """MalisNLL of predictions ``shape`` (b, *spatial), with affinities computed from its ids."""
    b, *spatial = shape
    tags = "b,f,z,x,y" if len(spatial) == 3 else "b,f,x,y"
    p = nm.Softmax(source((b, 2 * len(nhood), *spatial), tags), n_indep=len(nhood), **QUIET)
    seg = source((b, 1, *spatial), tags, dtype="float64" if float_ids else "int16", name="seg")
    return nm.MalisNLL(p, nm.Affinities(seg, nhood, **QUIET), seg, nhood, **kwargs, **QUIET)


def formula(x, seg, nhood, unrestrict=True, weights=1):
    """(loss, (pos, neg), affinities) edge by edge; pairs counted by the functions for arrays."""
    apart, connected = 1 / (1 + np.exp(x[:, 1::2] - x[:, ::2])), 1 / (1 + np.exp(x[:, ::2] - x[:, 1::2]))
    seg = np.maximum(seg, 0)[:, 0].astype(int)
    true = [malis.seg_to_affgraph(s, nhood) for s in seg]
    counts = [malis.malis_weights(a.astype("float32"), t, s, nhood, unrestrict) for a, t, s in zip(connected, true, seg)]
    pos, neg = (np.stack(c).astype(float) for c in zip(*counts))
    loss = -(pos * np.log(connected + 1e-5) + neg * np.log(apart + 1e-5)) * weights
    return loss * loss.size / (pos.sum() + neg.sum() + 1e-5), (pos, neg), connected


def values(rng, shape=(2, 2, 3, 4), n_edges=4):
    b, *spatial = shape
    return rng.normal(size=(b, 2 * n_edges, *spatial)), rng.integers(-1, 4, (b, 1, *spatial))


@pytest.mark.parametrize("float_ids", [False, True])
@pytest.mark.parametrize("unrestrict", [False, True])
def test_formula(rng, unrestrict, float_ids):
    """In a batch, with unlabelled voxels and background; the mean is that per pair."""
    node = net(unrestrict_neg=unrestrict, float_ids=float_ids)
    x, seg = values(rng)
    wanted, (pos, neg), connected = formula(x, seg, NHOOD, unrestrict)
    check(node, wanted, x, seg.astype("float64" if float_ids else "int16"), gradients=not float_ids)
    n = [np.sum(np.maximum(s, 0) > 0) for s in seg]
    assert pos.sum() + neg.sum() == sum(k * (k - 1) / 2 for k in n)
    got = node.get_debug_outputs(x, seg)
    splits, merges = np.sum(pos[connected < 0.5]), np.sum(neg[connected > 0.5])
    for value, want in zip(got, (pos, neg, [splits], [merges], [(splits + merges) / (pos + neg).sum()])):
        np.testing.assert_allclose(value, want, rtol=1e-6)
    assert splits > 0 and merges > 0


def test_weights(rng):
    """One factor per edge and one per voxel, as arrays and as sources; images as well as volumes."""
    nhood = malis.mknhood2d(2)
    x, seg = values(rng, (1, 5, 6), len(nhood))
    edges, voxels = rng.uniform(0.5, 2, len(nhood)), rng.uniform(0.5, 2, (1, 5, 6))
    wanted = formula(x, seg, nhood, weights=edges[:, None, None] * voxels[:, None])[0]
    node = net((1, 5, 6), nhood, class_weights=edges, example_weights=source((1, 5, 6), "b,x,y"))
    check(node, wanted, x, seg, voxels)
    assert not node.class_weights.apply_train
    node = net((1, 5, 6), nhood, class_weights=source((len(nhood),), "f"), example_weights=source((1, 5, 6), "b,x,y"))
    np.testing.assert_allclose(node(x, seg, edges, voxels), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("label", [0, -1])
def test_nothing_labelled(rng, label):
    node = net()
    x, seg = values(rng)
    np.testing.assert_array_equal(node(x, np.full_like(seg, label)), 0)
    assert node.get_debug_outputs(x, np.full_like(seg, label))[-1] == 0


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_compiled(rng):
    """torch.compile takes all of it as one graph, with the same value and gradient."""
    node = net()
    module, _, _ = cut([node.output.sum()], [n.output for n in node.input_nodes], "train")
    x, seg = values(rng)
    results = []
    for run in (module, torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=False)):
        a = torch.from_numpy(x).requires_grad_()
        value, = run(a, torch.from_numpy(seg.astype("int16")))
        results.append((value.item(), torch.autograd.grad(value, a)[0].numpy()))
    for got, wanted in zip(*results):
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_descent_repairs_a_merger_and_a_split():
    """Affinities of two objects that a tunnel merges, and of which a weak plane splits one: steps along the gradient close
    the tunnel and mend the split, and keep the rest."""
    nhood, shape = np.eye(3, dtype=int), (3, 6, 9)
    seg = np.ones((1, 1, *shape), "int16")
    seg[..., 4], seg[..., 5:] = 0, 2
    true = malis.seg_to_affgraph(seg[0, 0], nhood)
    logits = np.where(true, 2.0, -2.0)  # of being connected
    logits[2, 1, 2, 3:5] = 1.0          # a tunnel through the wall
    logits[1, :, 2, :4] = -0.5          # object 1 falls apart between x = 2 and 3
    x = np.stack([0 * logits, logits], 1).reshape(1, 6, *shape)
    node = net((1, *shape), nhood)
    step = nm.graphutils.make_func([n.output for n in node.input_nodes],
                                   [*node.debug_outputs.values(),
                                    nm.graphutils.grad(node.output.mean(), node.input_nodes[0].output)])
    rand, splits, merges = [], [], []
    for _ in range(40):
        *_, s, m, r, g = step(x, seg)
        rand.append(r.item()), splits.append(s.item()), merges.append(m.item())
        x = x - 0.2 * g / np.abs(g).max()
    halves = 3 * 3 * 4, 3 * 3 * 4
    assert splits[0] == halves[0] * halves[1] and merges[0] > 1000 and rand[0] > 0.3
    assert splits[-1] == merges[-1] == rand[-1] == 0
    kept = true == 1
    kept[1, :, 2, :4] = False  # of a plane, one mended edge is enough
    np.testing.assert_array_equal((x[0, 1::2] > x[0, ::2])[kept], True)
