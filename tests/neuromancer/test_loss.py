"""Every loss in double precision against loops over its elements, with gradients against finite differences; what is
unlabelled, missing, weighted or masked; and what losses must refuse when they are computed.

The first losses (Softmax, MultinoulliNLL, Errors, AggregateLoss) are in test_nodes.py, those that the original has
are compared with it in test_oracle.py.
"""
from itertools import product

import numpy as np
import pytest
import reference as R
import torch
from scipy import ndimage, special, stats
from test_nodes import check, source

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer import loss_functions as L

pytestmark = pytest.mark.usefixtures("float64")

EPS = 1e-5
UNLABELLED = [-1, -666]


# -- losses of class probabilities ----------------------------------------------------------------------
SIZES = (2, 3)
EXTRAS = dict(  # masks are no numbers that could be differentiated by
    class_weights=lambda b, f: source((f,), "f"), example_weights=lambda b, f: source((b, *SIZES), "b,x,y"),
    mask_class_labeled=lambda b, f: source((b, f), "b,f", dtype="int16"),
    mask_class_not_present=lambda b, f: source((b, f), "b,f", dtype="int16"))


def net(cls, n_indep=1, sparse=True, extras=(), n_class=3, batch=2, **kwargs):
    """A loss node of 2-D predictions; ``extras`` become sources."""
    f = n_class * n_indep
    p = nm.Softmax(source((batch, f, *SIZES), "b,f,x,y"), n_indep=n_indep, print_repr=False)
    t = source((batch, n_indep if sparse else f, *SIZES), "b,f,x,y", dtype="int16" if sparse else "float64", name="lab")
    nodes = {k: EXTRAS[k](batch, f) for k in extras}
    return cls(p, t, target_is_sparse=sparse, **nodes, **kwargs, print_repr=False)


def values(rng, n_indep=1, sparse=True, extras=(), hard=False):
    """(predictions before the softmax, target, dict of weights and masks) for 3 classes, some elements unlabelled."""
    f = 3 * n_indep
    x = rng.normal(size=(2, f, *SIZES))
    t = rng.integers(0, 3, (2, n_indep, *SIZES)).astype("int16")
    t[0, :, 0, 1], t[1, 0, 1, 2] = UNLABELLED
    if not sparse:
        ids = t
        t = R.naive_softmax(rng.normal(size=(2, f, *SIZES)), n_indep)
        if hard:
            t = np.concatenate([ids[:, i:i + 1] == np.arange(3).reshape(3, 1, 1) for i in range(n_indep)], 1) * 1.0
        t[0, :, 0, 1], t[1, :3, 1, 2] = -666, np.nan
    given = dict(class_weights=rng.uniform(0.5, 2, f), example_weights=rng.uniform(0.5, 2, (2, *SIZES)),
                 mask_class_labeled=np.ones((2, f), "int16"), mask_class_not_present=np.zeros((2, f), "int16"))
    given["mask_class_labeled"][0, 1] = given["mask_class_labeled"][1, 2] = 0
    given["mask_class_not_present"][0, 1] = 1
    return x, t, {k: given[k] for k in extras}


def elements(p, target, n_indep, sparse, example_weights=None, mask_class_labeled=None, mask_class_not_present=None):
    """Per feature a list of (p, t, weight) of the elements whose target is known."""
    found = [[] for _ in range(p.shape[1])]
    for i, block in product(range(len(p)), range(n_indep)):
        for position in np.ndindex(p.shape[2:]):
            features = range(3 * block, 3 * block + 3)
            if sparse:
                t = {f: float(target[(i, block, *position)] == f - 3 * block) for f in features}
            else:
                t = {f: target[(i, f, *position)] for f in features}
                t = {f: v if v >= 0 else 0 for f, v in t.items()}  # NaN >= 0 is false
            if mask_class_labeled is not None:
                t = {f: v * mask_class_labeled[i, f] for f, v in t.items()}
            for f in features:
                absent = mask_class_not_present is not None and mask_class_not_present[i, f]
                if sum(t.values()) > 0 or absent:
                    weight = 1 if example_weights is None else example_weights[(i, *position)]
                    found[f].append((p[(i, f, *position)], t[f], weight))
    return found


def naive_tversky(found, alpha, beta, gamma=1, smooth=EPS, class_weights=None):
    losses = []
    for entries in found:
        tp = sum(w * p * t for p, t, w in entries)
        fp = sum(w * p * (1 - t) for p, t, w in entries)
        fn = sum(w * (1 - p) * t for p, t, w in entries)
        losses.append((1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)) ** gamma)
    return np.average(losses, weights=class_weights, keepdims=True)


def naive_dice(found, smooth=EPS, class_weights=None):
    losses = []
    for entries in found:
        overlap, sizes = sum(w * p * t for p, t, w in entries), sum(w * (p + t) for p, t, w in entries)
        losses.append(1 - (2 * overlap + smooth) / (sizes + smooth))
    return np.average(losses, weights=class_weights, keepdims=True)


def naive_lovasz(found, absent=(), class_weights=None):
    """For targets 0 and 1: the elements with the largest errors join the wrong ones, one after the other, and the loss
    of the Jaccard index is weight(wrong) / weight(class or wrong)."""
    losses, weights = [], []
    for f, entries in enumerate(found):
        order = sorted(entries, key=lambda e: -abs(e[1] - e[0]))
        loss = before = wrong = 0
        either = sum(w for _, t, w in entries if t)
        occurs = either > 0
        for p, t, w in order:
            wrong += w
            either += 0 if t else w
            loss += abs(t - p) * (wrong / either - before)
            before = wrong / either
        if occurs or f in absent:
            losses.append(loss)
            weights.append(1 if class_weights is None else class_weights[f])
    return np.average(losses, weights=weights, keepdims=True)


def naive_focal(p, t, gamma, n_indep, sparse, class_weights=None, example_weights=None, mask_class_labeled=None,
                mask_class_not_present=None):
    loss, total = np.zeros((len(p), 1, *p.shape[2:])), 0.0
    for i in range(len(p)):
        for f, position in product(range(p.shape[1]), np.ndindex(p.shape[2:])):
            y = t[(i, f // 3, *position)] == f % 3 if sparse else t[(i, f, *position)]
            y = y if y >= 0 else 0
            y *= 1 if mask_class_labeled is None else mask_class_labeled[i, f]
            m = 0 if mask_class_not_present is None else mask_class_not_present[i, f]
            q = p[(i, f, *position)]
            w = 1 if class_weights is None else class_weights[f]
            w *= 1 if example_weights is None else example_weights[(i, *position)]
            loss[(i, 0, *position)] -= w * (y * (1 - q) ** gamma * np.log(q + EPS) + m * q ** gamma * np.log(1 - q + EPS))
            total += y + m
    return loss * loss.size / (total + EPS)


CASES = [(n, s, e) for n, s in product((1, 2), (True, False)) for e in ((), tuple(EXTRAS))]
CASES += [(1, True, (k,)) for k in EXTRAS]
cases = pytest.mark.parametrize(("n_indep", "sparse", "extras"), CASES, ids=[
    f"{n} {'sparse' if s else 'dense'} {'+'.join(e) or 'plain'}" for n, s, e in CASES])


def split_extras(given):
    """(class weights, what else is given)."""
    return given.get("class_weights"), {k: v for k, v in given.items() if k != "class_weights"}


@cases
@pytest.mark.parametrize("gamma", [2.0, 0.5])
def test_focal(gamma, n_indep, sparse, extras, rng):
    node = net(nm.FocalLoss, n_indep, sparse, extras, gamma=gamma)
    x, t, given = values(rng, n_indep, sparse, extras)
    check(node, naive_focal(R.naive_softmax(x, n_indep), t, gamma, n_indep, sparse, **given), x, t, *given.values(),
          gradients=sparse)


def test_focal_without_gamma_is_nll(rng):
    """gamma=0 gives the negative log-likelihood."""
    x, t, given = values(rng, extras=tuple(EXTRAS))
    nll, focal = (net(cls, extras=tuple(EXTRAS), **kwargs) for cls, kwargs in (
        (nm.MultinoulliNLL, {}), (nm.FocalLoss, dict(gamma=0))))
    np.testing.assert_array_equal(focal(x, t, *given.values()), nll(x, t, *given.values()))


@cases
def test_blocked(n_indep, sparse, extras, rng):
    """Probabilities but the first of each block raised, then the likelihood of test_focal with gamma 0."""
    node = net(nm.BlockedMultinoulliNLL, n_indep, sparse, extras, blocking_factor=0.7)
    x, t, given = values(rng, n_indep, sparse, extras)
    p = R.naive_softmax(x, n_indep)
    for block in np.split(p, n_indep, 1):  # views
        for i, position in product(range(len(p)), np.ndindex(p.shape[2:])):
            foreground = block[(i, slice(1, None), *position)]
            foreground[foreground < 0.7 * max(foreground)] = 0.7 * max(foreground)
    assert (p.sum(1) > n_indep + 1e-3).any()
    check(node, naive_focal(p, t, 0, n_indep, sparse, **given), x, t, *given.values(), gradients=sparse)


@cases
@pytest.mark.parametrize("alpha,beta,gamma,smooth", [(0.3, 0.7, 1, EPS), (1, 0.2, 0.75, 2.0)])
def test_tversky(alpha, beta, gamma, smooth, n_indep, sparse, extras, rng):
    node = net(nm.TverskyLoss, n_indep, sparse, extras, alpha=alpha, beta=beta, gamma=gamma, smooth=smooth)
    x, t, given = values(rng, n_indep, sparse, extras)
    class_weights, others = split_extras(given)
    found = elements(R.naive_softmax(x, n_indep), t, n_indep, sparse, **others)
    check(node, naive_tversky(found, alpha, beta, gamma, smooth, class_weights), x, t, *given.values(), gradients=sparse)


@cases
def test_dice(n_indep, sparse, extras, rng):
    node = net(nm.DiceLoss, n_indep, sparse, extras, smooth=0.1)
    x, t, given = values(rng, n_indep, sparse, extras)
    class_weights, others = split_extras(given)
    found = elements(R.naive_softmax(x, n_indep), t, n_indep, sparse, **others)
    check(node, naive_dice(found, 0.1, class_weights), x, t, *given.values(), gradients=sparse)


@cases
def test_dice_ce(n_indep, sparse, extras, rng):
    """The weighted sum of the two."""
    node = net(nm.DiceCELoss, n_indep, sparse, extras, ce_weight=0.4, dice_weight=3)
    x, t, given = values(rng, n_indep, sparse, extras)
    class_weights, others = split_extras(given)
    p = R.naive_softmax(x, n_indep)
    wanted = 0.4 * naive_focal(p, t, 0, n_indep, sparse, **given).mean()
    wanted += 3 * naive_dice(elements(p, t, n_indep, sparse, **others), EPS, class_weights)
    check(node, wanted, x, t, *given.values(), gradients=sparse)


@cases
def test_lovasz(n_indep, sparse, extras, rng):
    node = net(nm.LovaszSoftmax, n_indep, sparse, extras)
    x, t, given = values(rng, n_indep, sparse, extras, hard=True)
    class_weights, others = split_extras(given)
    found = elements(R.naive_softmax(x, n_indep), t, n_indep, sparse, **others)
    absent = np.flatnonzero(given.get("mask_class_not_present", np.zeros((2, 1))).any(0))
    check(node, naive_lovasz(found, absent, class_weights), x, t, *given.values(), gradients=sparse)


def test_lovasz_of_decided_predictions_is_jaccard(rng):
    """For probabilities 0 and 1 it is one minus the intersection over the union; classes that do not occur are left
    out."""
    pred, target = rng.integers(0, 3, (2, 1, 40)), rng.integers(0, 2, (2, 1, 40))
    p = (pred == np.arange(3).reshape(3, 1)) * 1.0
    got = L.lovasz_softmax(torch.from_numpy(p), torch.from_numpy(target), n_class=3, sparse=True)
    iou = [np.sum((pred == c) & (target == c)) / np.sum((pred == c) | (target == c)) for c in (0, 1)]
    np.testing.assert_allclose(got, [1 - np.mean(iou)], rtol=0, atol=1e-12)


CLASS_LOSSES = [nm.MultinoulliNLL, nm.BlockedMultinoulliNLL, nm.FocalLoss, nm.TverskyLoss, nm.DiceLoss, nm.DiceCELoss,
                nm.LovaszSoftmax]
class_losses = pytest.mark.parametrize("cls", CLASS_LOSSES, ids=lambda c: c.__name__)


def errors(pred, target, target_is_sparse, print_repr):
    return nm.Errors(pred, target, target_is_sparse, print_repr=print_repr)


@pytest.mark.parametrize("computed", [False, True], ids=["input", "computed"])
@pytest.mark.parametrize("n_indep", [1, 2])
@pytest.mark.parametrize("cls", [*CLASS_LOSSES, errors], ids=lambda c: c.__name__)
def test_unknown_id(cls, n_indep, computed, rng):
    """An id of n_class is an error that names loss, target, id and classes; one less is none."""
    p = nm.Softmax(source((2, 3 * n_indep, *SIZES), "b,f,x,y"), n_indep=n_indep, print_repr=False)
    lab = source((2, n_indep, *SIZES), "b,f,x,y", dtype="int16", name="source" if computed else "lab")
    if computed:
        lab = nm.ApplyFunc(nm.ApplyFunc(lab, torch.neg), torch.neg, name="lab")
    node = cls(p, lab, target_is_sparse=True, print_repr=False)
    x, t, _ = values(rng, n_indep)
    t[1, -1, 0, 0] = 2
    assert np.isfinite(node(x, t)).all()
    t[1, -1, 0, 0] = 7
    with pytest.raises(ValueError, match=f"{type(node).__name__.strip('_')} '{node.name}': 'lab' holds the id 7, .* "
                                         "3 classes"):
        node(x, t)


@pytest.mark.parametrize("cls", [*CLASS_LOSSES, errors], ids=lambda c: c.__name__)
def test_fractional_id(cls, rng):
    """A fraction is no id, and an error; whole numbers, negative ones and NaN in floats are none."""
    p = nm.Softmax(source((2, 3, *SIZES), "b,f,x,y"), print_repr=False)
    node = cls(p, source((2, 1, *SIZES), "b,f,x,y", name="lab"), target_is_sparse=True, print_repr=False)
    x, t, _ = values(rng, 1)
    t = t.astype(float)
    t[0, 0, 0, :3] = -1, -0.5, np.nan
    assert np.isfinite(node(x, t)).all()
    t[1, 0, 0, 0] = 0.5
    with pytest.raises(ValueError, match=f"'{node.name}': 'lab' holds 0.5, but class ids are whole"):
        node(x, t)


def test_unknown_id_changes_nothing(rng):
    """A training step with an id that is no class raises before any weight changes, and says no more with good ids."""
    model = nm.model_manager.newmodel(None)
    x = source((1, 3), "b,f")
    p = nm.Softmax(nm.Perceptron(x, 2, "lin", print_repr=False), print_repr=False)
    t = source((1, 1), "b,f", dtype="int16", name="lab")
    loss = nm.AggregateLoss(nm.MultinoulliNLL(p, t, True, print_repr=False), print_repr=False)
    model.designate_nodes(input_node=x, target_node=t, loss_node=loss, prediction_node=p)
    a, before = rng.normal(size=(1, 3)), p.parent.get_param_values()
    with pytest.raises(ValueError, match="'lab' holds the id 2"):
        model.trainingstep(a, np.array([[2]], "int16"))
    for key, value in p.parent.get_param_values().items():
        np.testing.assert_array_equal(value, before[key])
    assert np.isfinite(model.trainingstep(a, np.array([[1]], "int16"))[0])


# -- pieces of a softmax ---------------------------------------------------------------------------------
@class_losses
def test_blocks_of_a_softmax(cls, rng):
    """A piece made of whole blocks, cut out in two steps, is as good as a softmax of these features alone."""
    x = source((2, 12, 4), "b,f,x")
    t = source((2, 2, 2), "b,f,x", dtype="int16", name="lab")
    p = nm.Softmax(x, n_indep=4, print_repr=False)
    left = nm.split(p, "x", 2)[0]
    piece = nm.split(nm.split(left, "f", 9)[0], "f", 3)[1]
    node = cls(piece, t, target_is_sparse=True, print_repr=False)
    assert (node.n_class, node.n_indep) == (3, 2)
    alone = cls(nm.Softmax(source((2, 6, 2), "b,f,x"), n_indep=2, print_repr=False), t, target_is_sparse=True,
                print_repr=False)
    a, target = rng.normal(size=(2, 12, 4)), rng.integers(-1, 3, (2, 2, 2)).astype("int16")
    np.testing.assert_allclose(node(a, target), alone(a[:, 3:9, :2], target), rtol=0, atol=1e-12)
    assert nm.Errors(piece, t, True, print_repr=False)(a, target) == nm.Errors(alone.parents[0], t, True, print_repr=False)(
        a[:, 3:9, :2], target)


@pytest.mark.parametrize("index", [1, 4])
def test_parts_of_blocks_are_no_softmax(index):
    """Pieces that cut a block are refused where a softmax is needed, and taken as probabilities where these do."""
    p = nm.Softmax(source((1, 6, 4), "b,f,x"), n_indep=2, print_repr=False)
    for piece in nm.split(p, "f", index):
        t = nm.Input_like(piece, "int16", override_f=2, print_repr=False)
        with pytest.raises(ValueError, match=f"MultinoulliNLL .* got FromTensor '{piece.name}'"):
            nm.MultinoulliNLL(piece, t, True, print_repr=False)
        t = nm.Input_like(piece, "int16", print_repr=False)
        assert nm.AffinityLoss(piece, t, print_repr=False).shape == piece.shape.updateshape("f", 1)


@class_losses
@pytest.mark.parametrize("unlabelled", UNLABELLED)
def test_nothing_labelled(cls, unlabelled, rng):
    """0, and no gradient."""
    node = net(cls)
    x, t, _ = values(rng)
    t[...] = unlabelled
    np.testing.assert_array_equal(node(x, t), 0)
    np.testing.assert_array_equal(gradient(node, x, t), 0)


@class_losses
def test_unlabelled_elements_do_not_matter(cls, rng):
    """Value and gradient are the same whatever is predicted there, and their own gradient is 0."""
    node = net(cls)
    x, t, _ = values(rng)
    other = np.where(t < 0, rng.normal(size=x.shape), x)
    assert (other != x).any()
    np.testing.assert_array_equal(node(other, t), node(x, t))
    got = gradient(node, x, t)
    np.testing.assert_array_equal(gradient(node, other, t), got)
    assert (got[:, :1][t < 0] == 0).all() and (got[:, :1][t >= 0] != 0).any()


def gradient(node, *arrays):
    """Gradient of the sum of a node with respect to its first input."""
    first = node.input_nodes[0].output
    return nm.graphutils.make_func([n.output for n in node.input_nodes], nm.graphutils.grad(node.output, first))(*arrays)


@pytest.mark.parametrize(("cls", "kwargs"), [(cls, {}) for cls in CLASS_LOSSES] + [
    (nm.FocalLoss, dict(gamma=0.5)), (nm.TverskyLoss, dict(gamma=0.5))], ids=lambda v: getattr(v, "__name__", str(v)))
def test_sure_predictions_have_finite_gradients(cls, kwargs, rng):
    """Probabilities of exactly 0 and 1, right and wrong."""
    node = net(cls, **kwargs)
    _, t, _ = values(rng)
    right = 2000.0 * (t == np.arange(3).reshape(3, 1, 1))
    for x in (right, right[:, ::-1].copy()):
        assert np.isfinite(node(x, t)).all() and np.isfinite(gradient(node, x, t)).all()
    assert node(right, t).mean() < 1e-4


@class_losses
def test_descent_finds_the_labels(cls, rng):
    """Following the gradient, the most probable class becomes that of the label."""
    node = net(cls)
    x, t, _ = values(rng)
    step = nm.graphutils.make_func([n.output for n in node.input_nodes],
                                   [node.output, nm.graphutils.grad(node.output.mean(), node.input_nodes[0].output)])
    x *= 0.1
    first = None
    for _ in range(300):
        loss, g = step(x, t)
        first = loss.mean() if first is None else first
        x = x - 0.1 * g / (np.abs(g).max() + 1e-12)
    assert (x.argmax(1) == t[:, 0])[t[:, 0] >= 0].all()
    assert loss.mean() < first


def test_classes_can_be_left_out(rng):
    """Weight 0 of a class in the mean over classes: the prediction of the others decides alone."""
    x, t, _ = values(rng)
    found = elements(R.naive_softmax(x), t, 1, True)
    node = net(nm.DiceLoss, class_weights=[0, 1, 3])
    check(node, naive_dice(found, class_weights=[0, 1, 3]), x, t)
    assert not node.class_weights.apply_train


@pytest.mark.parametrize("tags", ["b,x,f,y", "f,b,x"])
@class_losses
def test_features_on_any_axis(cls, tags, rng):
    """The same network with its axes in another order gives the same, with weights along the features."""
    order = ["bfxy"[:len(tags.split(","))].index(a) for a in tags.split(",")]

    def build(names, permute):
        shape = permute((2, 3, 4, 2)[:len(order)])
        p = nm.Softmax(source(shape, names), print_repr=False)
        t = nm.Input_like(p, "int16", override_f=1, print_repr=False)
        return cls(p, t, target_is_sparse=True, class_weights=[1, 2, 3], print_repr=False)
    plain = build("b,f,x,y"[:2 * len(order) - 1], tuple)
    moved = build(tags, lambda s: tuple(s[i] for i in order))
    x = rng.normal(size=plain.input_nodes[0].shape.shape)
    t = rng.integers(-1, 3, plain.input_nodes[1].shape.shape).astype("int16")
    wanted = plain(x, t)
    got = moved(x.transpose(order), t.transpose(order))
    np.testing.assert_allclose(got, wanted if wanted.ndim == 1 else wanted.transpose(order), rtol=0, atol=1e-12)


# -- losses of numbers ----------------------------------------------------------------------------------
def pair(cls, shape, tags, n=2, **kwargs):
    return cls(*[source(shape, tags) for _ in range(n)], **kwargs, print_repr=False)


SHAPES = [((3, 2), "b,f"), ((2, 3, 4), "b,f,x"), ((2, 4, 3), "b,x,f"), ((1, 2, 2, 3, 2), "b,f,z,x,y")]
shapes = pytest.mark.parametrize(("shape", "tags"), SHAPES, ids=[t for _, t in SHAPES])
MISSING = [-666, np.nan]


def with_missing(t):
    t.flat[1], t.flat[3] = MISSING
    return t


@shapes
@pytest.mark.parametrize("entropy", [False, True])
def test_binary_nll(shape, tags, entropy, rng):
    node = pair(nm.BinaryNLL, shape, tags, subtract_label_entropy=entropy)
    p, t = rng.uniform(0.05, 0.95, shape), with_missing(rng.uniform(0.05, 0.95, shape))
    t.flat[0] = -1
    wanted = np.zeros(shape)
    for i in np.ndindex(shape):
        if t[i] >= 0:
            wanted[i] = -t[i] * np.log(p[i] + EPS) - (1 - t[i]) * np.log(1 - p[i] + EPS)
            if entropy:
                wanted[i] -= -t[i] * np.log(t[i] + EPS) - (1 - t[i]) * np.log(1 - t[i] + EPS)
    check(node, wanted * p.size / ((t >= 0).sum() + 1), p, t)


def test_label_entropy_makes_zero_the_minimum():
    """Predicting the soft labels themselves costs nothing, and any other prediction costs something."""
    node = pair(nm.BinaryNLL, (1, 3), "b,f", subtract_label_entropy=True)
    t = np.array([[0.2, 0.5, 0.9]])
    np.testing.assert_allclose(node(t, t), 0, rtol=0, atol=1e-12)
    assert (node(t + 0.05, t) > 0).all() and (node(t - 0.05, t) > 0).all()


@shapes
@pytest.mark.parametrize("correction", [None, 1.5])
@pytest.mark.parametrize("margin", [None, 0.6])
@pytest.mark.parametrize("cls", [nm.SquaredLoss, nm.AbsLoss], ids=["squared", "abs"])
def test_difference(cls, margin, correction, shape, tags, rng):
    node = pair(cls, shape, tags, margin=margin, scale_correction=correction)
    p, t = rng.normal(size=shape), with_missing(rng.normal(size=shape))
    loss = np.zeros(shape)
    known = 0
    for i in np.ndindex(shape):
        if np.isnan(t[i]) or t[i] == -666:
            continue
        known += 1
        d = abs(t[i] - p[i])
        if margin is None or d >= margin:
            loss[i] = d if cls is nm.AbsLoss else 0.5 * d ** 2
        if correction is not None:
            loss[i] *= correction * abs(t[i]) + 1 if cls is nm.AbsLoss else correction / (abs(t[i]) + correction)
    wanted = (loss * p.size / (known + 1)).mean(tags.split(",").index("f"), keepdims=True)
    check(node, wanted, p, t)
    assert list(node.params) == [k for k, v in (("margin", margin), ("scale_correction", correction)) if v is not None]
    assert not any(q.apply_train or q.apply_reg for q in node.params.values())


def test_margin_can_be_changed(rng):
    """It is a parameter; 0 is none."""
    node = pair(nm.AbsLoss, (1, 1, 4), "b,f,x", margin=0.5)
    p, t = np.zeros((1, 1, 4)), np.array([[[0.2, 0.4, 0.6, 0.8]]])
    for margin, count in ((0.5, 2), (0.3, 3)):
        node.margin.set_value(margin)
        assert (node(p, t) > 0).sum() == count
    assert not pair(nm.AbsLoss, (1, 1, 4), "b,f,x", margin=0).params


def test_integer_targets():
    """Targets of integers, where only -666 is missing."""
    p, t = source((1, 1, 3), "b,f,x"), source((1, 1, 3), "b,f,x", dtype="int16")
    node = nm.AbsLoss(p, t, print_repr=False)
    np.testing.assert_array_equal(node(np.zeros((1, 1, 3)), [[[-2, -666, 4]]]), [[[2, 0, 4]]])


@shapes
@pytest.mark.parametrize("is_log", [False, True])
def test_gaussian_nll(shape, tags, is_log, rng):
    node = pair(nm.GaussianNLL, shape, tags, 3, sig_is_log=is_log)
    mu, sig, t = rng.normal(size=shape), rng.uniform(0.5, 2, shape), with_missing(rng.normal(size=shape))
    known = ~np.isnan(t) & (t != -666)
    wanted = np.where(known, -stats.norm.logpdf(t, mu, sig), 0) * t.size / known.sum()
    check(node, wanted, mu, np.log(sig) if is_log else sig, t)


@shapes
def test_beta_nll(shape, tags, rng):
    """Against the density of scipy (without 1e-5 in the logarithms), and with it against the formula."""
    node = pair(nm.BetaNLL, shape, tags, 3)
    mode, c = rng.uniform(0.1, 0.9, shape), rng.uniform(3, 8, shape)
    t = with_missing(rng.uniform(0.1, 0.9, shape))
    known = ~np.isnan(t) & (t != -666)
    a, b = mode * (c - 2) + 1, (1 - mode) * (c - 2) + 1
    with np.errstate(invalid="ignore"):
        density = np.log(t + EPS) * (a - 1) + np.log(1 - t + EPS) * (b - 1) - special.betaln(a, b)
    scale = t.size / known.sum()
    check(node, np.where(known, -density + np.log(1 + np.exp(-c)), 0) * scale, mode, c, t)
    likelihood = stats.beta.logpdf(t, a, b)
    got = node(mode, c, t) / scale - np.log(1 + np.exp(-c))
    np.testing.assert_allclose(got[known], -likelihood[known], rtol=0, atol=1e-3)


@pytest.mark.parametrize("cls,n", [(nm.BinaryNLL, 1), (nm.SquaredLoss, 1), (nm.AbsLoss, 1), (nm.GaussianNLL, 2),
                                   (nm.BetaNLL, 2), (nm.EuclideanDistance, 1)], ids=lambda v: getattr(v, "__name__", ""))
def test_samples_share_the_target(cls, n, rng):
    """Predictions (b, s, f, x) and a target (b, f, x), against the target repeated along s."""
    shape = (2, 3, 2, 4)
    inputs = [source(shape, "b,s,f,x") for _ in range(n)]
    node = cls(*inputs, source((2, 2, 4), "b,f,x"), print_repr=False)
    full = cls(*inputs, source(shape, "b,s,f,x"), print_repr=False)
    arrays = [rng.uniform(0.1, 0.9, shape), rng.uniform(3, 8, shape)][:n]
    t = rng.uniform(0.1, 0.9, (2, 2, 4))
    t[0, 0, 1] = -666
    check(node, full(*arrays, np.repeat(t[:, None], 3, 1)), *arrays, t)


@shapes
def test_euclidean(shape, tags, rng):
    node = pair(nm.EuclideanDistance, shape, tags)
    axis = tags.split(",").index("f")
    p, t = rng.normal(size=shape), with_missing(rng.normal(size=shape))
    d = np.moveaxis(np.where(t == -666, np.nan, t) - p, axis, -1)
    wanted = np.zeros(d.shape[:-1])
    for i in np.ndindex(wanted.shape):
        wanted[i] = 0 if np.isnan(d[i]).any() else np.sqrt(sum(v * v for v in d[i]))
    check(node, np.expand_dims(wanted, axis), p, t)
    np.testing.assert_array_equal(gradient(node, p, p), 0)  # no NaN where both are the same


@shapes
@pytest.mark.parametrize("margin", [None, 0.3])
def test_ramp(shape, tags, margin, rng):
    node = pair(nm.RampLoss, shape, tags, margin=margin)
    low, big = rng.uniform(0, 2, shape), rng.uniform(0, 2, shape)
    low.flat[2] = big.flat[0] = np.nan
    ramps = np.zeros(shape)
    for i in np.ndindex(shape):
        if not np.isnan(low[i] - big[i]):
            ramps[i] = max(0, low[i] - big[i] + (margin or 0))
    check(node, ramps.mean(tags.split(",").index("f"), keepdims=True), low, big, gradients=False)
    low, big = rng.uniform(0, 2, shape), rng.uniform(0, 2, shape)
    check(node, np.maximum(0, low - big + (margin or 0)).mean(tags.split(",").index("f"), keepdims=True), low, big)


@pytest.mark.parametrize("tags,axis", [("b,f", "f"), ("b,f,x", "f"), ("b,x,f", "f"), ("b,x,f", "x")])
def test_one_hot(tags, axis, rng):
    letters = tags.split(",")
    shape = [1 if a == axis else 4 for a in letters]
    node = nm.OneHot(source(shape, tags, dtype="int16", name="lab"), 3, axis, print_repr=False)
    t = rng.integers(-2, 3, shape).astype("int16")
    k = letters.index(axis)
    wanted = np.zeros([3 if a == axis else 4 for a in letters])
    for i in np.ndindex(*shape):
        if t[i] >= 0:
            wanted[(*i[:k], t[i], *i[k + 1:])] = 1
    check(node, wanted, t, gradients=False)
    t.flat[0] = 3
    with pytest.raises(ValueError, match="OneHot 'onehot': 'lab' holds the id 3"):
        node(t)


@pytest.mark.parametrize("sizes", [(5,), (4, 5), (3, 4, 4)], ids=["1d", "2d", "3d"])
@pytest.mark.parametrize("missing", [False, True])
def test_sobelized(sizes, missing, rng):
    """Against filtering with scipy; elements whose derivative touches a missing one do not count."""
    shape, tags = (2, 2, *sizes), ",".join(["b", "f", *"zxy"[:len(sizes)]])
    p, t = (source(shape, tags) for _ in range(2))
    node = nm.SobelizedLoss(p, t, print_repr=False)
    assert isinstance(node, nm.loss.AbsLoss) and node.shape == p.shape.updateshape("f", 1).shifted(
        [-1] * len(sizes)).convolved([3] * len(sizes))
    a, b = rng.normal(size=shape), rng.normal(size=shape)
    if missing:
        b[(0, 1, *(1,) * len(sizes))] = -666

    def derivatives(v):
        result = []
        for direction in range(len(sizes)):
            w = v
            for k in range(len(sizes)):
                taps = [1, 0, -1] if k == direction else [0.3, 0.4, 0.3]
                w = ndimage.correlate1d(w, taps, k + 2, mode="constant")
            result.append(w)
        return np.concatenate(result, 1)
    gone = np.abs(np.where(b == -666, 1, 0))
    touched = []
    for direction in range(len(sizes)):
        w = gone.astype(float)
        for k in range(len(sizes)):
            w = ndimage.correlate1d(w, [1, 0, 1] if k == direction else [1, 1, 1], k + 2, mode="constant")
        touched.append(w > 0)
    touched = np.concatenate(touched, 1)
    assert touched.any() == missing
    d = np.where(touched, 0, np.abs(derivatives(a) - derivatives(np.where(b == -666, 0, b))))
    check(node, (d * d.size / ((~touched).sum() + 1)).mean(1, keepdims=True), a, b)


def test_sobelized_takes_arguments():
    """Those of AbsLoss; other kinds of loss are refused."""
    p, t = (source((1, 1, 4), "b,f,x") for _ in range(2))
    node = nm.SobelizedLoss(p, t, loss_kwargs=dict(margin=0.5), name="edges", print_repr=False)
    assert node.name == "edges" and float(node.margin.get_value()) == 0.5
    with pytest.raises(NotImplementedError, match="'squared'"):
        nm.SobelizedLoss(p, t, loss_type="squared")


# -- distances ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", [None, 2.5])
@pytest.mark.parametrize("sizes,spacing", [((9,), 1), ((6, 7), (2.0, 1)), ((4, 5, 6), (10, 4, 4))])
def test_signed_distance(sizes, spacing, scale, rng):
    """Against the distance transform of scipy, per example and class."""
    tags = ",".join(["b", "f", *"zxy"[:len(sizes)]])
    node = nm.SignedDistance(source((3, 1, *sizes), tags, dtype="int16", name="lab"), 3, spacing, scale, print_repr=False)
    t = rng.choice([0, 0, 0, 0, 0, 0, 1, -1], (3, 1, *sizes)).astype("int16")
    t[1] = np.where(t[1] == 1, 0, t[1])  # nothing of class 1, all of class 0; class 2 is nowhere
    steps = np.broadcast_to(spacing, len(sizes))
    wanted = np.zeros((3, 3, *sizes))
    for b, c in product(range(3), range(3)):
        inside, outside = t[b, 0] == c, (t[b, 0] != c) & (t[b, 0] >= 0)
        if inside.any() and outside.any():
            wanted[b, c] = (ndimage.distance_transform_edt(~inside, steps)
                            - ndimage.distance_transform_edt(~outside, steps))
        if scale:
            wanted[b, c] = np.tanh(wanted[b, c] / scale)
        wanted[b, c][t[b, 0] < 0] = np.nan
    assert (wanted[0] < 0).any() and not wanted[1][t[1, 0][None].repeat(3, 0) >= 0].any()
    check(node, wanted, t, gradients=False)
    t.flat[0] = 3
    with pytest.raises(ValueError, match="SignedDistance 'distance': 'lab' holds the id 3"):
        node(t)


def test_distances_of_many_lines(rng):
    """More lines than are computed at once."""
    t = rng.integers(0, 2, (1, 1, 40, 90, 30)).astype("int16")
    t[..., :60, :] = 0
    node = nm.SignedDistance(source(t.shape, "b,f,z,x,y", dtype="int16"), 2, print_repr=False)
    wanted = ndimage.distance_transform_edt(t[0, 0] == 0) - ndimage.distance_transform_edt(t[0, 0] == 1)
    np.testing.assert_allclose(node(t)[0, 1], wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
@shapes
def test_boundary(shape, tags, weighted, rng):
    letters = tags.split(",")
    axis, n = letters.index("f"), shape[letters.index("f")]
    p, d = (source(shape, tags) for _ in range(2))
    rest = [a for a in letters if a != "f"]
    others = [shape[letters.index(a)] for a in rest]
    extra = dict(class_weights=source((n,), "f"), example_weights=source(others, ",".join(rest))) if weighted else {}
    node = nm.BoundaryLoss(p, d, **extra, print_repr=False)
    a, b = rng.uniform(size=shape), with_missing(rng.normal(size=shape))
    w, e = rng.uniform(size=n), rng.uniform(size=others)
    known = ~np.isnan(b) & (b != -666)
    product_ = np.where(known, a * b, 0)
    if weighted:
        product_ = product_ * R.along(w, a, axis) * np.expand_dims(e, axis)
    wanted = product_.sum(axis, keepdims=True) * b.size / known.sum()
    check(node, wanted, a, b, *((w, e) if weighted else ()))


def test_boundary_prefers_the_true_region():
    """The mean distance is lowest for the labels themselves, higher for them dilated or eroded."""
    x, y = np.mgrid[:15, :15]
    disc = np.hypot(x - 7, y - 7) < 4
    node = nm.BoundaryLoss(p := source((1, 2, 15, 15), "b,f,x,y"),
                           nm.SignedDistance(nm.Input_like(p, "int16", override_f=1, print_repr=False), 2,
                                             print_repr=False), print_repr=False)

    def loss(region):
        return node(np.stack([~region, region])[None] * 1.0, disc[None, None].astype("int16")).mean()
    assert loss(disc) < min(loss(ndimage.binary_dilation(disc)), loss(ndimage.binary_erosion(disc)))


# -- affinities -----------------------------------------------------------------------------------------
NHOODS = [(((7,), "b,f,x"), None), (((7,), "b,f,x"), [[-2], [9]]), (((4, 5), "b,f,x,y"), [[0, 1], [-1, 2], [3, 0]]),
          (((3, 4, 4), "b,f,z,x,y"), [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-2, 3, 0]]), (((4, 3, 3), "b,x,f,z,y"), None)]


def naive_affinities(t, nhood, axis):
    """Voxel by voxel and edge by edge; t with the features on ``axis``."""
    t = np.moveaxis(t, axis, 1)
    aff = np.full((len(t), len(nhood), *t.shape[2:]), -1, "int16")
    for b, e in product(range(len(t)), range(len(nhood))):
        for v in np.ndindex(t.shape[2:]):
            u = np.add(v, nhood[e])
            if (u < 0).any() or (u >= t.shape[2:]).any():
                continue
            here, there = t[(b, 0, *v)], t[(b, 0, *u)]
            if here >= 0 and there >= 0:
                aff[(b, e, *v)] = here == there and here > 0
    return np.moveaxis(aff, 1, axis)


@pytest.mark.parametrize(("where", "nhood"), NHOODS, ids=[f"{w[1]} {n}" for w, n in NHOODS])
def test_affinities(where, nhood, rng):
    sizes, tags = where
    axis = tags.split(",").index("f")
    shape = np.insert((2, *sizes), axis, 1)
    node = nm.Affinities(source(shape, tags, dtype="int16"), nhood, print_repr=False)
    t = rng.integers(-1, 3, shape).astype("int16")
    wanted = naive_affinities(t, np.eye(len(sizes), dtype=int) if nhood is None else nhood, axis)
    assert {-1, 0, 1} == set(np.unique(wanted))
    check(node, wanted, t, gradients=False)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("blocks", [False, True], ids=["sigmoid", "softmax"])
def test_affinity_loss(blocks, balance, weighted, rng):
    """Edge by edge, for sigmoids and for blocks (not connected, connected)."""
    shape, n = (2, 2, 3, 4), 2
    x = source((2, 2 * n, 3, 4) if blocks else shape, "b,f,x,y")
    pred = nm.Softmax(x, n_indep=n, print_repr=False) if blocks else x
    t = source(shape, "b,f,x,y", dtype="int16")
    extra = dict(class_weights=source((n,), "f"), example_weights=source((2, 3, 4), "b,x,y")) if weighted else {}
    node = nm.AffinityLoss(pred, t, balance, **extra, print_repr=False)
    a = rng.normal(size=x.shape.shape) if blocks else rng.uniform(0.05, 0.95, shape)
    p = R.naive_softmax(a, n)[:, 1::2] if blocks else a
    target = rng.choice([0, 0, 0, 1, -1], shape).astype("int16")
    target[:, 1] = np.minimum(target[:, 1], 0)  # nothing connected: the share is clipped
    w, e = rng.uniform(size=n), rng.uniform(size=(2, 3, 4))
    loss = np.zeros(shape)
    for i in np.ndindex(shape):
        if target[i] < 0:
            continue
        loss[i] = -np.log(p[i] + EPS) if target[i] else -np.log(1 - p[i] + EPS)
        if balance:
            known = target[:, i[1]][target[:, i[1]] >= 0]
            share = np.clip(known.mean(), 0.05, 0.95)
            loss[i] /= 2 * (share if target[i] else 1 - share)
        if weighted:
            loss[i] *= w[i[1]] * e[i[0], i[2], i[3]]
    wanted = loss.mean(1, keepdims=True) * target.size / (target >= 0).sum()
    check(node, wanted, a, target, *((w, e) if weighted else ()))


def test_affinity_loss_without_edges():
    """Edges that all leave the patch: 0."""
    p = source((1, 1, 3), "b,f,x")
    t = nm.Affinities(source((1, 1, 3), "b,f,x", dtype="int16"), [[5]], print_repr=False)
    node = nm.AffinityLoss(p, t, print_repr=False)
    np.testing.assert_array_equal(node(np.full((1, 1, 3), 0.5), np.ones((1, 1, 3), "int16")), 0)
