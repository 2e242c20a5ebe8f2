"""Makes the gallery of the nodes: the page docs/gallery.md, and its pictures in docs/images/nodes.

    python docs/gallery.py

Every picture is drawn from a node: its values, its shape, and where it says that its voxels sit. CARDS says what is drawn.
"""
import ast
import logging
import re
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import to_hex, to_rgb

from elektronn2.neuromancer.init import reseed
from elektronn2.neuromancer.node import Node
from elektronn2.utils.plotting import BLUE, COLOURS, ORANGE

DOCS = Path(__file__).parent
PICTURES = DOCS / "images" / "nodes"

INPUTS = """\
import torch
from elektronn2 import neuromancer as nm

model = nm.model_manager.newmodel("gallery")
image = nm.Input((1, 1, 16), "b,f,x")            # grey values along x
maps = nm.Input((1, 2, 16), "b,f,x")             # two feature maps
others = nm.Input((1, 2, 16), "b,f,x")           # two more
coarse = nm.Pool(maps, 2)                        # at half the resolution
vector = nm.Input((1, 8), "b,f")                 # features without a place
memory = nm.Input((1, 3), "b,f")                 # of a GRU
memories = nm.Input((1, 6), "b,f")               # of an LSTM
sequence = nm.Input((12, 1, 2), "r,b,f")         # 12 elements
scores = nm.Input((1, 3, 16), "b,f,x")           # of three classes
probs = nm.Softmax(scores)
target = nm.Input_like(probs, "int16", override_f=1)  # class ids; negative: unlabelled
pred = nm.Input((1, 1, 16), "b,f,x")             # numbers that are predicted
truth = nm.Input_like(pred)                      # what they should be; NaN: unlabelled
between = nm.Input_like(pred)                    # from 0 to 1
above = nm.Input_like(pred)                      # above 0
ids = nm.Input_like(pred, "int16")               # of objects
"""

CARDS = {  # group -> name -> examples; the nodes that the last line of one names are drawn above its result
    "Inputs, joins and pieces": {
        "Input": ["nm.Input((1, 1, 16), 'b,f,x')"],
        "Input_like": ["nm.Input_like(coarse, override_f=1)"],
        "Node": ["nm.Node(maps)"],
        "Concat": ["nm.Concat([image, maps])"],
        "Add": ["nm.Add(maps, others)"],
        "MultMerge": ["nm.MultMerge(maps, others)"],
        "ApplyFunc": ["nm.ApplyFunc(maps, torch.abs)"],
        "split": ["nm.split(maps, 'f', index=1)"],
        "FromTensor": ["nm.FromTensor(maps.output.sigmoid(), maps.shape, maps)"],
        "Reshape": ["nm.Reshape(vector, (1, 2, 4), 'b,f,x')"],
        "ValueNode": ["nm.ValueNode((1, 4), 'b,f', apply_train=True, init_kwargs=dict(mode='normal'))"],
        "InitialState_like": ["nm.InitialState_like(maps, override_f=3, init_kwargs=dict(mode='fix-uni', scale=1))"],
        "from_torch": ["nm.from_torch(torch.nn.Conv1d(2, 3, 5), maps)"],
    },
    "Layers": {
        "Perceptron": ["nm.Perceptron(vector, 4)", "nm.Perceptron(maps, 3)"],
        "Conv": ["nm.Conv(maps, 3, 5)", "nm.Conv(maps, 3, 5, pool_shape=2)", "nm.Conv(maps, 3, 3, dilation=3)",
                 "nm.Conv(maps, 3, 5, conv_mode='same')", "nm.Conv(maps, 3, 4, pool_shape=2, mfp=True)"],
        "Activation": ["nm.Activation(maps, 'leaky_relu 0.3')"],
        "ResidualAdd": ["branch = nm.Conv(maps, 2, 5)\nnm.ResidualAdd(branch, maps)"],
        "SqueezeExcitation": ["nm.SqueezeExcitation(maps, reduction=1)"],
    },
    "Resolution and size": {
        "Pool": ["nm.Pool(maps, 2)", "nm.Pool(maps, 4, stride=2, mode='average')"],
        "FragmentsToDense": ["fragments = nm.Conv(maps, 2, 4, pool_shape=2, mfp=True)\nnm.FragmentsToDense(fragments)"],
        "UpConv": ["nm.UpConv(coarse, 3, 2)", "nm.UpConv(coarse, 3, 2, filter_shape=4)"],
        "Upsample": ["nm.Upsample(coarse, 2)", "nm.Upsample(coarse, 2, 'linear')"],
        "UpConvMerge": ["nm.UpConvMerge(maps, coarse, upconv_n_f=2)"],
        "AutoMerge": ["nm.AutoMerge(maps, coarse, upconv_n_f=2, upsampling='linear')"],
        "Crop": ["nm.Crop(maps, 3)"],
        "Pad": ["nm.Pad(maps, 2)"],
    },
    "Normalisation": {
        "InstanceNorm": ["nm.InstanceNorm(maps)"],
        "GroupNorm": ["nm.GroupNorm(maps, n_groups=1)"],
        "LayerNorm": ["nm.LayerNorm(maps)"],
        "LRN": ["nm.LRN(maps, 5, alpha=1)"],
    },
    "Random variables": {
        "GaussianRV": ["nm.GaussianRV(maps, others)"],
        "GaussianAEVBPrior": ["nm.GaussianAEVBPrior(maps, others)"],
        "FaithlessMerge": ["nm.FaithlessMerge(maps, others)"],
    },
    "Recurrent networks": {
        "GRU": ["nm.GRU(vector, memory, 3)"],
        "LSTM": ["nm.LSTM(vector, memories, 3)"],
        "Scan": ["first, = nm.split(sequence, 'r', index=1, strip_singleton_dims=True)[:1]\n"
                 "start = nm.InitialState_like(first, 3, init_kwargs=dict(mode='fix-uni', scale=1))\n"
                 "step = nm.GRU(first, start, 3)\n"
                 "nm.Scan(step, start, step, sequence, first)"],
    },
    "Classes and their losses": {
        "Softmax": ["nm.Softmax(maps)"],
        "OneHot": ["nm.OneHot(target, 3)"],
        "MultinoulliNLL": ["nm.MultinoulliNLL(probs, target, target_is_sparse=True)"],
        "BlockedMultinoulliNLL": ["nm.BlockedMultinoulliNLL(probs, target, target_is_sparse=True)"],
        "FocalLoss": ["nm.FocalLoss(probs, target, target_is_sparse=True)"],
        "DiceLoss": ["nm.DiceLoss(probs, target, target_is_sparse=True)"],
        "DiceCELoss": ["nm.DiceCELoss(probs, target, target_is_sparse=True)"],
        "TverskyLoss": ["nm.TverskyLoss(probs, target, target_is_sparse=True)"],
        "LovaszSoftmax": ["nm.LovaszSoftmax(probs, target, target_is_sparse=True)"],
        "Errors": ["nm.Errors(probs, target, target_is_sparse=True)"],
    },
    "Losses of numbers": {
        "SquaredLoss": ["nm.SquaredLoss(pred, truth)"],
        "AbsLoss": ["nm.AbsLoss(pred, truth)"],
        "BinaryNLL": ["nm.BinaryNLL(between, truth)"],
        "GaussianNLL": ["nm.GaussianNLL(pred, above, truth)"],
        "BetaNLL": ["nm.BetaNLL(between, above, truth)"],
        "EuclideanDistance": ["nm.EuclideanDistance(maps, others)"],
        "RampLoss": ["nm.RampLoss(pred, above)"],
        "SobelizedLoss": ["nm.SobelizedLoss(pred, truth)"],
    },
    "Objects and borders": {
        "SignedDistance": ["nm.SignedDistance(target, 3)"],
        "BoundaryLoss": ["distance = nm.SignedDistance(target, 3)\nnm.BoundaryLoss(probs, distance)"],
        "Affinities": ["nm.Affinities(ids, [[1], [4]])"],
        "AffinityLoss": ["same = nm.Affinities(ids, [[1]])\nnm.AffinityLoss(between, same)"],
        "MalisNLL": ["plane = nm.Input((1, 1, 16, 2), 'b,f,x,y', dtype='int16')\n"
                     "edges = nm.Softmax(nm.Input((1, 2, 16, 2), 'b,f,x,y'))\n"
                     "same = nm.Affinities(plane, [[1, 0]])\n"
                     "nm.MalisNLL(edges, same, plane, [[1, 0]])"],
    },
    "The loss that is trained on": {
        "AggregateLoss": ["nll = nm.MultinoulliNLL(probs, target, target_is_sparse=True)\nnm.AggregateLoss(nll)"],
    },
}



UNIT, ROW, GAP, LEFT, MARGIN = 16, 12, 20, 62, 2  # pixels, and voxels that are drawn beyond the ends of the inputs
WIDTH = LEFT + (16 + 2 * MARGIN) * UNIT
UNKNOWN = "#aaaaaa"
WHOLE = {"Affinities", "SignedDistance", "MalisNLL"}  # look at labels elsewhere, too, which is no field of view


def arrays():
    """Name of an input in INPUTS -> its values."""
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, 16)
    classes = np.repeat([0, 1, 0, 2, -1], [4, 2, 4, 4, 2])
    smooth = np.sin(6 * t)
    return {
        "image": np.array([0.8, 0.7, 0.8, 0.3, 0.1, 0.6, 0.8, 0.9, 0.8, 0.7, 0.3, 0.2, 0.7, 0.9, 0.8, 0.8]),
        "maps": np.array([np.sin(7 * t), np.cos(5 * t)]),
        "others": np.array([0.6 - t, np.sin(12 * t)]),
        "vector": rng.normal(size=8),
        "memory": np.array([0.5, -0.5, 1]),
        "memories": rng.normal(size=6),
        "sequence": np.transpose([np.sin(np.arange(12)), np.cos(np.arange(12))]),
        "scores": 2 * np.array([classes == k for k in range(3)]) + rng.normal(size=(3, 16)),
        "target": classes,
        "pred": smooth + 0.3 * rng.normal(size=16),
        "truth": np.where(t < 0.85, smooth, np.nan),
        "between": 0.5 + 0.45 * np.sin(9 * t),
        "above": 0.2 + t,
        "ids": np.repeat([1, 2, 0, 3], [5, 6, 1, 4]),
        "plane": np.repeat([1, 1, 2, 2, 3, 3, 3, 3], 4),
    }


class Stack:
    """The values of a node as rows of cells, at the places on the input where the node says that they sit."""

    def __init__(self, label, node, value):
        shape, self.label, self.node = node.shape, label, node
        self.axis = next(t for t in "xrf" if shape.hastag(t))
        value = np.moveaxis(value, shape.tag2index(self.axis), -1)
        self.cells = value.reshape(-1, value.shape[-1])
        self.width, self.starts = 1, np.zeros(len(self.cells))  # of cells, and of rows, in voxels of the input
        if self.axis == "x":
            k = shape.spatial_tags.index("x")
            self.width, self.fov = float(shape.strides[k]), float(shape.fov[k])
            fragments = shape.mfp_offsets[:, k]
            centres = float(shape.centre[k]) + np.repeat(fragments, len(self.cells) // len(fragments))
            self.starts = centres + 0.5 - self.width / 2

    def ends(self):
        """Left and right of all cells."""
        return self.starts.min(), self.starts.max() + self.width * self.cells.shape[1]


def colour(value, largest, is_id):
    if value != value or (is_id and value < 0):
        return UNKNOWN
    if is_id:
        return "#ffffff" if value == 0 else to_hex(0.5 + 0.5 * np.array(to_rgb(COLOURS[(int(value) - 1) % len(COLOURS)])))
    share = round(5 * abs(value) / largest) / 5 if largest else 0
    return to_hex(1 - share * (1 - np.array(to_rgb(BLUE if value > 0 else ORANGE))))


def pixel(position):
    return f"{LEFT + (MARGIN + position) * UNIT:g}"


def drawn(stack, top):
    """SVG of the cells, and of the name to the left of them."""
    is_id = stack.cells.dtype.kind == "i"
    largest = np.nanmax(np.abs(stack.cells), initial=0)
    paths = {}
    for k, (row, start) in enumerate(zip(stack.cells, stack.starts)):
        for i, value in enumerate(row):
            path = f"M{pixel(start + i * stack.width)} {top + k * ROW}h{stack.width * UNIT:g}v{ROW}h-{stack.width * UNIT:g}z"
            paths.setdefault(colour(value, largest, is_id), []).append(path)
    lines = [f'<path fill="{fill}" d="{"".join(path)}"/>' for fill, path in paths.items()]
    if is_id:
        for k, (row, start) in enumerate(zip(stack.cells, stack.starts)):
            lines += [f'<text class="id" x="{pixel(start + (i + 0.5) * stack.width)}" y="{top + k * ROW + 9}">{value}</text>'
                      for i, value in enumerate(row) if value >= 0]
    y = top + len(stack.cells) * ROW / 2 + 4
    return [*lines, f'<text x="{LEFT - 4}" y="{y:g}" text-anchor="end">{stack.label}</text>'] if stack.label else lines


def picture(sources, results):
    """SVG: inputs above, results below, and from which cells of the inputs the middle one of a result comes."""
    top, parts, windows, bottoms = 4, [], [], []
    for stack in sources + results:
        if stack is results[0] and sources:
            top += GAP - 6
        parts += drawn(stack, top)
        bottoms.append((top, top + len(stack.cells) * ROW))
        top = bottoms[-1][1] + 6
    result = results[0]
    if sources and result.node.parents:
        beneath = bottoms[len(sources)][0]
        local = result.axis == "x" and not getattr(result.node, "patch_statistics", False)
        local = local and type(result.node).__name__ not in WHOLE
        left, right = result.ends()
        if local:
            left = result.starts[0] + (result.cells.shape[1] // 2) * result.width
            right = left + result.width
        for stack, (above, below) in zip(sources, bottoms):
            start, end = stack.ends()
            if local and stack.axis == "x":
                reach = (result.fov - stack.fov + stack.width) / 2
                start, end = (left + right) / 2 - reach, (left + right) / 2 + reach
                windows.append(f'<path class="window" d="M{pixel(start)} {above}H{pixel(end)}V{below}H{pixel(start)}z"/>')
        windows.append(f'<path class="from" d="M{pixel(start)} {below}H{pixel(end)}L{pixel(right)} {beneath}'
                       f'H{pixel(left)}z"/>')
    style = ("path{stroke:#666;stroke-width:.5}text{font:11px sans-serif}.id{font-size:9px;text-anchor:middle}"
             ".window{fill:none;stroke:#000;stroke-width:1.5}.from{fill:#000;fill-opacity:.12;stroke:none}")
    height = bottoms[-1][1] + 4
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"><style>{style}</style>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, *windows, "</svg>", ""])


def make(code, namespace):
    """The node, or the tuple of nodes, that the last line of ``code`` makes, and the names of nodes in that line."""
    reseed(0)
    *lines, last = code.split("\n")
    exec("\n".join(lines), namespace)
    result = eval(last, namespace)
    names = {n.id for n in ast.walk(ast.parse(last)) if isinstance(n, ast.Name) and isinstance(namespace.get(n.id), Node)}
    return (result if isinstance(result, (tuple, list)) else (result,)), sorted(names, key=last.index)


def value_of(node, namespace):
    """Its value for the arrays above; inputs without a name get random numbers."""
    known = {id(namespace[name]): value for name, value in arrays().items() if name in namespace}
    rng = np.random.default_rng(1)
    given = [known[id(s)] if id(s) in known else rng.normal(size=s.shape.shape) for s in node.input_nodes]
    torch.manual_seed(0)
    return node(*(np.reshape(a, s.shape.shape).astype(s.output.dtype) for a, s in zip(given, node.input_nodes)))


def said(name):
    """What docs/nodes.md says of it in one line."""
    row = re.search(rf"^\| [^|]*`{name}`[^|]* \| ([^|]+) \|", (DOCS / "nodes.md").read_text(), re.MULTILINE)
    return row[1]


def gallery():
    """The text of the page, name of a file -> SVG, and the nodes that are drawn."""
    namespace = {}
    exec(INPUTS, namespace)
    groups, pictures, nodes = [], {}, []
    for title, cards in CARDS.items():
        groups.append(f"## {title}\n\n| node | picture |\n| --- | --- |")
        for name, examples in cards.items():
            for k, code in enumerate(examples):
                results, names = make(code, namespace)
                nodes += results
                sources = [Stack(n, namespace[n], value_of(namespace[n], namespace)) for n in names]
                pictures[f"{name}-{k}.svg"] = picture(sources, [Stack("", r, value_of(r, namespace)) for r in results])
                head = f"[**{name}**](#elektronn2.neuromancer.{name}): {said(name)}<br>" if k == 0 else ""
                above = "".join(f"{n} ({sizes(namespace[n])}), " for n in names)
                alt = f"{above}below the result ({' and '.join(map(sizes, results))})"
                groups[-1] += f"\n| {head}{described(code, results)} | ![{alt}](images/nodes/{name}-{k}.svg) |"
    return PAGE.format(inputs=INPUTS, groups="\n\n".join(groups)), pictures, nodes


def sizes(node):
    """Such as ``1 b, 2 f, 16 x``: without brackets, which would end an alternative text."""
    return ", ".join(f"{n} {t}" for n, t in zip(node.shape, node.shape.tags))


def described(code, results):
    """The code, and what the nodes say of their shape."""
    shape = results[0].shape
    lines = [f"`{line}`" for line in code.split("\n")] + [" and ".join(str(r.shape) for r in results)]
    if shape.ndim:
        fov, offsets, strides = (", ".join(map(str, v)) for v in (shape.fov, shape.offsets, shape.strides))
        lines.append(f"fov {fov}, offset {offsets}, stride {strides}")
    return "<br>".join(lines)


PAGE = """\
# Gallery of the nodes

Every kind of node, drawn from a small example along one axis. What goes in is above, what comes out below. Each square is
a value, in the row of its feature and at the place on the input where it sits: blue is above 0, orange below, white 0,
the darker the larger, and grey is unlabelled. Class ids and the ids of objects are written as numbers. A frame shows the
*field of view* of the middle one of the results, that is the values it is made of. Below the code stand the shape of the
result and, along x, its field of view, offset and stride ([what these are](introduction.md#patch-output-field-of-view)).
In three dimensions it is the same along each axis.

The names lead to the arguments; what the numbers of a node are tested against is listed in [nodes.md](nodes.md). All
examples begin with this:

```python
{inputs}```

{groups}
"""


def main():
    logging.getLogger("elektronn2log").setLevel(logging.ERROR)
    page, pictures, _ = gallery()
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob("*.svg"):
        old.unlink()
    for name, text in pictures.items():
        (PICTURES / name).write_text(text)
    (DOCS / "gallery.md").write_text(page)


if __name__ == "__main__":
    main()
