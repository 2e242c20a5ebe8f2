"""
2. A network of your own: a new node and a new loss
===================================================

In serial sections, brightness and contrast change from place to place: staining is uneven, the beam is not centred, a
detector drifts. A network that was trained on even sections then fails. One remedy is to tell each pixel's grey value
relative to its surroundings. The library has no such layer, so here it is written as a new kind of node, checked, and
tried out; and beside it a new loss.

::

    python docs/tutorials/own_network.py --out own_network     # half a minute to three on two cores

The nodes that come with the library are listed in :doc:`nodes </nodes>`; what sizes, offsets and strides are is told in
:doc:`/geometry`.
"""
# sphinx_gallery_thumbnail_path = "images/tutorial-own-network.png"
import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter

from elektronn2 import neuromancer as nm
from elektronn2.data import BatchCreatorImage
from elektronn2.data.synthetic import make_volume
from elektronn2.neuromancer.expression import op
from elektronn2.neuromancer.init import reseed
from elektronn2.neuromancer.probing import probe
from elektronn2.utils.evaluation import roc_auc

parser = argparse.ArgumentParser(description="A network of your own: a new node and a new loss")
parser.add_argument("--out", default="own_network", help="new folder for the picture and the model")
parser.add_argument("--quick", action="store_true", help="a few steps only, to see that it runs")
parser.add_argument("--seed", type=int, default=0, help="of initial weights and samples")
args = parser.parse_args()

out = Path(args.out).expanduser()
if out.exists():
    parser.error(f"{out} exists and is left as it is. Name a new folder with --out.")
out.mkdir(parents=True)
n_steps = 10 if args.quick else 600

# %%
# What the node computes
# ----------------------
#
# From each pixel subtract the mean of a window around it, and divide by the standard deviation in that window. Where
# nothing is to be seen, the deviation is that of noise, which must not be blown up to full contrast; so a *floor* is
# added to it. The floor is learnt, one for each feature.
#
# The computation is a plain function of torch tensors. ``op`` makes it one operation of the graph, so that it can also be
# called with the outputs of nodes, which have no values yet. It only uses the pixels for which the whole window is there:
# as a valid convolution does, it makes the image smaller.


@op
def local_contrast(x, floor, window):
    """Each pixel of x (b, f, x, y), relative to the ``window`` x ``window`` pixels around it; floor (f,)."""
    mean = F.avg_pool2d(x, window, stride=1)
    variance = F.avg_pool2d(x * x, window, stride=1) - mean ** 2
    deviation = torch.sqrt(variance.clamp_min(0) + floor[:, None, None] ** 2)
    edge = window // 2
    return (x[..., edge:-edge, edge:-edge] - mean) / deviation


# %%
# The node
# --------
#
# The constructor checks what it is given and makes the parameters: ``make_param`` takes the name, values if there are any,
# the shape, how to make values if there are none, and whether weight decay applies. An argument of the constructor with the
# name of the parameter, here ``floor``, is what the node gets its weights by when it is loaded from a file; the others, such
# as ``window``, are written into the file as they were given. Then there are four questions, each
# answered by a method that the library calls:
#
# ``_make_output``
#     What is computed? It sets ``self.output``, from ``self.parent.output`` and the parameters. These have no values yet,
#     only shapes; the values come when the node is called.
# ``_axis_size``
#     How many pixels are left along one spatial axis, ``k``, of so many that the parent has (one ``size`` for each parent,
#     if there are several)? It is also asked when other patch sizes are looked for, and raises an error for those that do
#     not fit. ``mfp`` tells whether max-fragment pooling is on, which matters to nodes that pool or have strides only.
#     Nodes that change no sizes need not have this method.
# ``_calc_shape``
#     Which shape has the output, and where do its pixels sit on the input? It sets ``self.shape``, from that of the parent:
#     ``with_spatial`` puts in the new sizes, and ``convolved`` is the rule for field of view and offsets of all windows that
#     move by one pixel.
# ``_calc_comp_cost``
#     How many multiplications and additions does it take? That is for the overview only.
#
# Defining the class also registers its name, by which model files refer to it.


class LocalContrast(nm.Node):
    """Input (b, f, x, y), output (b, f, x - window + 1, y - window + 1)."""

    def __init__(self, parent, window, floor=None, name="local_contrast", print_repr=True):
        super().__init__(parent, name, print_repr)
        if "".join(parent.shape.tags) != "bfxy":
            raise ValueError(f"LocalContrast {name!r}: the parent must have the axes b,f,x,y, it has {parent.shape}.")
        if not isinstance(window, int) or window < 3 or window % 2 == 0:
            raise ValueError(f"LocalContrast {name!r}: window must be an odd integer of at least 3, got {window!r}.")
        self.window = window
        self.sizes = [self._axis_size(k, n) for k, n in enumerate(parent.shape.spatial_shape)]
        self.make_param("floor", floor, (parent.shape["f"],), dict(mode="const", scale=0.05), apply_reg=False)

    def _make_output(self):
        self.output = local_contrast(self.parent.output, self.floor, self.window)

    def _axis_size(self, k, size, mfp=False):
        if size is None:  # left open
            return None
        if size < self.window:
            raise ValueError(f"LocalContrast {self.name!r}: a window of {self.window} pixels does not fit into {size}.")
        return size - self.window + 1

    def _calc_shape(self):
        self.shape = self.parent.shape.with_spatial(self.sizes).convolved((self.window, self.window))

    def _calc_comp_cost(self):
        self.computational_cost = 2 * self.window ** 2 * self.shape.stripnone_prod


# %%
# Is it right?
# ------------
#
# Four checks, of which the first three compare with something that knows nothing of our code. First its values, against a
# filter of scipy:

nm.model_manager.newmodel("checks")
image = nm.Input((1, 1, 40, 44), "b,f,x,y", name="image")
node = LocalContrast(image, 9)
rng = np.random.default_rng(0)
x = rng.random((1, 1, 40, 44)).astype(np.float32)

mean = uniform_filter(x[0, 0].astype(float), 9)
deviation = np.sqrt(uniform_filter(x[0, 0].astype(float) ** 2, 9) - mean ** 2 + 0.05 ** 2)
wanted = ((x[0, 0] - mean) / deviation)[4:-4, 4:-4]
difference = abs(node(x)[0, 0] - wanted).max()
print(f"values: the largest difference to scipy is {difference:.1e}")
assert difference < 1e-4

# %%
# Second, its gradients, against finite differences. ``gradcheck`` needs double precision, which the bare function can be
# given:

inputs = (torch.rand(1, 2, 7, 7, dtype=torch.float64, requires_grad=True),
          torch.tensor([0.1, 0.3], dtype=torch.float64, requires_grad=True))
assert torch.autograd.gradcheck(lambda x, floor: local_contrast(x, floor, 3), inputs)
print("gradients: agree with finite differences")

# %%
# Third, its geometry. The shape that a node declares is compared with the computed one when the node is made, and a wrong
# size is an error. That the *place* of the pixels is right, nobody checks. ``probe`` finds it out by trying: it puts NaN
# into the input and looks where it comes out. It is given the function, what length comes out of an input of length ``n``
# (8 pixels less, for a window of 9), the shape of an input, and the axis to look along, in the input and in the output.

seen = probe(lambda t: torch.from_numpy(node(t.numpy())), lambda n: n - 8, (1, 1, 40, 44), axis=2, out_axis=2)
print(f"geometry: window of {seen.fov} pixels, the first output sits at {seen.centre}, steps of {seen.stride}")
assert (seen.fov, seen.centre, seen.stride) == (node.shape.fov[0], node.shape.offsets[0], node.shape.strides[0])

# %%
# Fourth, mistakes. What cannot work should say so when the network is built:

try:
    LocalContrast(image, 41)
except ValueError as error:
    print("mistakes:", error)

# %%
# A loss
# ------
#
# A loss is a node with two parents. This one, ``(1 - p ** q) / q`` with ``p`` the probability of the right class, lies
# between the likelihood (``q`` near 0) and the share of errors (``q = 1``). It pushes less where a label contradicts
# everything else, so that wrong labels do less harm (Zhang and Sabuncu 2018, Generalized cross entropy loss).
#
# Two things are easily forgotten. Labels below 0 mean *unlabelled*: they must add nothing, and no gradient. And what they
# leave out must be made up for, or the mean over a patch with few labels would be small.


@op
def robust_nll(probs, target, q):
    """(1 - p ** q) / q for class probabilities (b, f, x, y) and class ids (b, 1, x, y); 0 where those are below 0."""
    labelled = target >= 0
    p = probs.gather(1, target.clamp_min(0).long())
    loss = (1 - p.clamp_min(1e-6) ** q) / q
    return torch.where(labelled, loss, 0) * (labelled.numel() / labelled.sum().clamp_min(1))


class RobustNLL(nm.Node):
    """Inputs (b, f, x, y) and (b, 1, x, y), output (b, 1, x, y)."""

    def __init__(self, probs, target, q=0.7, name="robust_nll", print_repr=True):
        super().__init__([probs, target], name, print_repr)
        if not 0 < q <= 1:
            raise ValueError(f"RobustNLL {name!r}: q must lie above 0 and up to 1, got {q!r}.")
        self.q = q

    def _make_output(self):
        probs, target = self.parents
        self.output = robust_nll(probs.output, target.output, self.q)

    def _calc_shape(self):
        self.shape = self.parents[0].shape.updateshape("f", 1)


# %%
# Its two ends are known, so they are the check:

probs = nm.Softmax(nm.Input((1, 3, 5, 5), "b,f,x,y", name="scores"))
target = nm.Input_like(probs, "int16", override_f=1, name="ids")
scores, ids = rng.normal(size=(1, 3, 5, 5)).astype(np.float32), rng.integers(-1, 3, (1, 1, 5, 5)).astype(np.int16)
p_right = np.take_along_axis(probs(scores), np.maximum(ids, 0), 1)
for q, known in ((1, 1 - p_right), (1e-3, -np.log(p_right))):
    wanted = known[ids >= 0].mean()
    print(f"loss at q = {q}: {RobustNLL(probs, target, q)(scores, ids).mean():.3f}, expected {wanted:.3f}")
    assert abs(RobustNLL(probs, target, q)(scores, ids).mean() - wanted) < 0.01

# %%
# The network
# -----------
#
# The new node is used as any other. The same network is built with and without it.


def create_model(window):
    """Barriers between cells in sections; ``window``: that of the local contrast, None: without it."""
    raw = nm.Input((2, 1, 129, 129), "b,f,x,y", name="raw")
    h = raw if window is None else LocalContrast(raw, window)
    h = nm.Conv(h, 12, (6, 6), (2, 2))
    h = nm.Conv(h, 24, (3, 3))
    h = nm.Conv(h, 24, (3, 3))
    h = nm.Conv(h, 24, (3, 3))
    probs = nm.Softmax(nm.Conv(h, 2, (1, 1), activation_func="lin"))
    target = nm.Input_like(probs, "int16", override_f=1, name="target")
    loss = nm.AggregateLoss(RobustNLL(probs, target), name="loss")
    errors = nm.Errors(probs, target, target_is_sparse=True)
    model = nm.model_manager.getmodel()
    model.designate_nodes(raw, target, loss, probs, [loss, errors, probs])
    return model


# %%
# The data
# --------
#
# Made volumes, one to train on and one to test on. The test is done twice: on the volume as it is, and with uneven
# brightness: a fall by two thirds from one side to the other, and a contrast that differs between sections.

train_shape, test_shape = ((8, 180, 180), (4, 180, 180)) if args.quick else ((30, 300, 300), (8, 300, 300))
train_raw, _, train_barrier = make_volume(train_shape, (args.seed, 1))
test_raw, _, test_barrier = make_volume(test_shape, (args.seed, 2))

fall = np.linspace(1, 1 / 3, test_raw.shape[1], dtype=np.float32)[:, None]
contrast = np.linspace(0.6, 1, len(test_raw), dtype=np.float32)[:, None, None]
uneven = np.clip(test_raw * contrast * fall, 0, 255).astype(np.uint8)

# %%
# Training
# --------
#
# The usual remedy for uneven brightness is to show a network many kinds of it: ``grey_augment_channels`` changes contrast,
# brightness and gamma of every sample at random. So there are three candidates: without any remedy, with augmentation, and
# with the new node.


def train(window, augment):
    """A trained model."""
    reseed(args.seed)
    nm.model_manager.newmodel(f"window {window}, augmented: {augment}")
    model = create_model(window)
    data = BatchCreatorImage(model.input_node, model.target_node, d_files=[train_raw], l_files=[train_barrier],
                             seed=args.seed)
    for step in range(n_steps):
        model.lr = 2e-3 * (1 - step / n_steps)
        model.trainingstep(*data.getbatch(2, grey_augment_channels=[0] if augment else []), optimiser="AdamW")
        if step % 200 == 199:
            print(f"{model.name}: step {step + 1}, loss {model.loss_smooth:.3f}", flush=True)
    print(f"{model.name}: {model.iterations} steps, {model.elapsed_time:.0f} s, loss {model.loss_smooth:.3f}")
    return model


models = {"neither": train(None, False), "grey augmentation": train(None, True), "local contrast": train(15, False)}

# %%
# Results
# -------
#
# The area under the ROC curve is the probability that a barrier pixel gets a higher value than another pixel: 1 is perfect,
# 0.5 is chance. ``rebuild_model`` makes a model with larger patches and max-fragment pooling of the trained one, which
# predicts every pixel in less time; that works since our node tells how sizes and places go through it.


def predict(model, raw):
    """Barrier probability (z, x, y), at every pixel of a volume (z, x, y)."""
    dense = nm.model.rebuild_model(model, override_mfp_to_active=True, imposed_patch_size=(200, 200), imposed_batch_size=1)
    return dense.predict_dense(raw[None], pad_raw=True)[1]


predictions = {name: [predict(model, raw) for raw in (test_raw, uneven)] for name, model in models.items()}
auc = {name: [roc_auc(test_barrier, p) for p in both] for name, both in predictions.items()}
print("ROC AUC                even    uneven")
for name, values in auc.items():
    print(f"{name:<20} {values[0]:6.3f} {values[1]:9.3f}")

# %%
# With the seed 0 this prints::
#
#     ROC AUC                even    uneven
#     neither               0.960     0.917
#     grey augmentation     0.954     0.924
#     local contrast        0.974     0.974
#
# or, on another processor, which rounds differently, nearly so; with other seeds the order on uneven sections is the same.
# The network with the new node does not care how bright it is. On even sections the three are close, and which is best
# depends on the seed. The two remedies do not exclude each other. The price of the node is time: an update takes nearly
# twice as long.
#
# .. image:: /images/tutorial-own-network.png
#    :alt: A section that becomes dark towards one side, its barriers, and three predictions: without any remedy and with
#          grey augmentation many barriers in the dark part are missing; with local contrast they are found there as
#          elsewhere, and so are the edges of some organelles, which are none.
#
# The picture is drawn by:

z = 1
panels = {"uneven section": uneven[z], "barriers": test_barrier[z], **{n: p[1][z] for n, p in predictions.items()}}
figure = Figure((15, 3.35), layout="constrained")
for ax, (title, panel) in zip(figure.subplots(1, len(panels)), panels.items()):
    ax.imshow(panel.T, cmap="gray", vmin=0, vmax=255 if panel.dtype == np.uint8 else 1)
    ax.set_title(title)
    ax.set_axis_off()
figure.savefig(out / "own_network.png", dpi=75)

# %%
# Saved and loaded
# ----------------
#
# The file holds the graph, with the names of the classes, and the weights, but not the classes themselves. Who loads it must
# have imported them; else loading says which one is unknown. So when you are done with trying, put the two classes and their
# functions into a file of their own, say ``my_nodes.py``, with the imports that they need, and write ``import my_nodes`` at
# the top of scripts and configs. In a shell, a volume is then predicted (:doc:`/prediction`) by::
#
#     elektronn2-predict --nodes my_nodes.py own_network.mdl volume.h5:raw out.h5:probs

models["local contrast"].save(out / "own_network.mdl")
again = nm.model.modelload(out / "own_network.mdl")
batch = np.random.default_rng(1).random(again.input_node.shape.shape).astype(np.float32)
assert np.array_equal(again.predict(batch), models["local contrast"].predict(batch))
print(f"loaded again, it predicts the same; learnt floor: {again['local_contrast'].floor.get_value()}")
print(f"Written to {out}: {', '.join(sorted(p.name for p in out.iterdir()))}")
