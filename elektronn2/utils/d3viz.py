"""The graph of a model: a picture, and a page for the browser with zoom, dragging and details of every node.

Lengths are points (1/72 inch), y points down.
"""
import json
import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch, Polygon
from matplotlib.path import Path as Curve
from matplotlib.textpath import text_to_path

from elektronn2.utils.basic import atomic_write, pretty_string_ops
from elektronn2.utils.graphlayout import layout
from elektronn2.utils.validate import suggest

__all__ = ["visualise_model", "visualize_model"]

logger = logging.getLogger("elektronn2log")

FORMATS = ("png", "svg", "pdf")
FORMS = {"Conv": "invtrapezium", "UpConv": "trapezium", "Perceptron": "octagon", "Dot": "octagon",
         "GRU": "doubleoctagon", "LSTM": "doubleoctagon", "Concat": "house", "ValueNode": "box"}
FILL = {"input": "#f7e57d", "output": "#9fd0f2", "layer": "#cfe8c4", "loss": "#f5b267", "scan": "#fbdcd6"}
DARK, RED, GREY = "#33393f", "#c4281c", "#5c6670"

FONT = "DejaVu Sans"  # comes with matplotlib; its letters are wide, so other fonts fit into its boxes too
SIZE, SMALL = 10, 7.5  # of the two lines of a node
ARROW = 8
MAX_PIXELS = 30_000, 2.5e7  # per side, and in all


def visualise_model(model, outfile, select_outputs=None, image_format="png", *, copy_deps=None):
    """Draw the nodes of ``model`` to ``<outfile>.<image_format>``, and to ``<outfile>.html`` as a page to explore.

    The page is one file that needs no network: the wheel zooms, dragging moves the view or a node, and pointing at a
    node shows its shape, field of view, cost and parameters. Inputs are yellow boxes, nodes without children blue
    ones, losses orange diamonds, everything else is green; some classes have a shape of their own.

    ``outfile``: path, with or without one of the two endings; existing files are overwritten, since a graph is made
    anew by every run. ``select_outputs``: nodes or names, one or a list; only they and what they depend on are drawn.
    ``image_format``: 'png', 'svg' or 'pdf'. ``copy_deps`` belongs to older versions, whose page needed other files.

    Raises ValueError (a format that is none of these, or not that of the ending; a model without nodes), KeyError (a
    name that the model lacks), TypeError (``select_outputs`` of another kind), FileNotFoundError (no such folder).

    >>> import tempfile
    >>> from elektronn2 import neuromancer as nm
    >>> model = nm.model_manager.newmodel(None)
    >>> y = nm.Conv(nm.Input((1, 1, 9, 9), 'b,f,x,y', print_repr=False), 4, (3, 3), print_repr=False)
    >>> folder = Path(tempfile.mkdtemp())
    >>> visualise_model(model, folder / 'graph')
    >>> sorted(p.name for p in folder.iterdir())
    ['graph.html', 'graph.png']
    """
    base = _base(outfile, image_format)
    if copy_deps is not None:
        logger.info("visualise_model: the page is one file that needs no others, so copy_deps=%r has no effect.", copy_deps)
    nodes = _selected(model, select_outputs)
    boxes, edges = _layout(nodes)
    title, facts = _title(model, nodes)
    with atomic_write(f"{base}.{image_format}") as temporary:
        _picture(title, facts, boxes, edges, temporary, image_format)
    with atomic_write(f"{base}.html") as temporary:
        Path(temporary).write_text(_page(title, facts, boxes, edges), encoding="utf-8")
    logger.info("Graph of model %r written to %s.%s and .html", model.name, base, image_format)


visualize_model = visualise_model


def _base(outfile, image_format):
    """The path without ending."""
    if image_format not in FORMATS:
        raise ValueError(f"visualise_model: image_format must be one of {', '.join(FORMATS)}, got {image_format!r}."
                         f"{suggest(image_format, FORMATS)}")
    path = Path(outfile).expanduser()
    ending = path.suffix[1:].lower()
    if ending in FORMATS and ending != image_format:
        raise ValueError(f"visualise_model: outfile {str(outfile)!r} ends in .{ending} but image_format is "
                         f"{image_format!r}. Pass image_format={ending!r}, or leave the ending off.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"visualise_model: there is no folder {str(path.parent)!r} to write {path.name!r} to. "
                                "Make it, or choose another outfile.")
    return path.with_suffix("") if ending in (*FORMATS, "html") else path


def _selected(model, select_outputs):
    """The nodes to draw, parents before children."""
    if not model.nodes:
        raise ValueError(f"visualise_model: model {model.name!r} has no nodes to draw.")
    if select_outputs is None:
        return _ancestors(model.nodes.values())
    wanted = _as_list(select_outputs)
    names = [w if isinstance(w, str) else getattr(w, "name", None) for w in wanted]
    if not names or None in names:
        raise TypeError("visualise_model: select_outputs takes nodes or names of nodes, one or a list of at least one, "
                        f"got {select_outputs!r}.")
    for name, given in zip(names, wanted):
        if name not in model.nodes or given not in (name, model.nodes[name]):
            raise KeyError(f"visualise_model: model {model.name!r} has no node {name!r}.{suggest(name, model.nodes)}")
    return _ancestors([model.nodes[name] for name in names])


def _as_list(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _ancestors(nodes):
    """``nodes`` and all that they depend on, parents before children."""
    order, seen, stack = [], set(), [(n, False) for n in reversed(list(nodes))]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack += [(node, True)] + [(p, False) for p in reversed(node.parents)]
    return order


# -- what a node looks like ----------------------------------------------------------------------
class Box:
    """A node as it is drawn: two lines of text, the outlines around them, colours and details."""

    def __init__(self, node, is_terminal):
        name = type(node).__name__
        self.role, self.form = _style(node, is_terminal)
        self.fill, self.line = FILL[self.role], RED if self.role == "scan" else DARK
        self.label = _shortened(f"{name} - {node.name}", 44)
        self.shape = _shortened(repr(node.shape).strip("[]").replace("), (", ") ("), 50)
        self.name, self.rows = node.name, _rows(node)
        self.text_width = max(_text_width(self.label, SIZE), _text_width(self.shape, SMALL))
        self.outlines = _outlines(self.form, self.text_width, 2.5 * SIZE)
        xs, ys = np.transpose(self.outlines[0])
        self.half, self.top, self.bottom = float(max(xs)), float(-min(ys)), float(max(ys))
        self.x = self.y = 0.0

    def border(self, dx, side):
        """Height of the outline above (``side`` -1) or below (+1) the centre, at ``dx`` from it."""
        closed = [*self.outlines[0], self.outlines[0][0]]
        hits = [y0 + (dx - x0) / (x1 - x0) * (y1 - y0) for (x0, y0), (x1, y1) in pairwise(closed)
                if x0 != x1 and min(x0, x1) <= dx <= max(x0, x1)]
        return max(hits, key=lambda y: side * y)


def _style(node, is_terminal):
    """(role, form): what colour and shape a node has."""
    name = type(node).__name__
    if node.is_source:
        return "input", "box"
    if is_terminal:
        return "output", "box"
    if "nll" in name.lower() or "loss" in name.lower():
        return "loss", "diamond"
    if name.startswith("Scan"):
        return "scan", "doublecircle"
    return "layer", FORMS.get(name, "ellipse")


def _outlines(form, w, h):
    """Outlines (each a list of corners x, y) of a form around text of ``w`` times ``h``, whose centre is (0, 0)."""
    double = form.startswith("double")
    x, y = w / 2 + (10 if double else 7), h / 2 + (7 if double else 3 if form in ("ellipse", "diamond") else 5)
    if form in ("ellipse", "doublecircle"):
        rx, ry = (np.hypot(x, y),) * 2 if double else (1.3 * x, 1.57 * y)  # the text's corners lie within
        points = [(rx * np.cos(a), ry * np.sin(a)) for a in np.arange(64) * np.pi / 32]
    else:
        s = y / 2
        points = {
            "box": [(-x, -y), (x, -y), (x, y), (-x, y)],
            "trapezium": [(-x, -y), (x, -y), (x + y, y), (-x - y, y)],
            "invtrapezium": [(-x - y, -y), (x + y, -y), (x, y), (-x, y)],
            "house": [(-x, y), (-x, -y), (0, -2 * y), (x, -y), (x, y)],
            "diamond": [(-1.7 * x, 0), (0, -2.43 * y), (1.7 * x, 0), (0, 2.43 * y)],
            "octagon": [(-x - s, -s), (-x, -y), (x, -y), (x + s, -s), (x + s, s), (x, y), (-x, y), (-x - s, s)],
        }[form.removeprefix("double")]
    outlines = [[(float(a), float(b)) for a, b in points]]
    if double:
        width, height = np.max(points, axis=0)
        outlines.append([(a * (1 - 4 / float(width)), b * (1 - 4 / float(height))) for a, b in outlines[0]])
    return outlines


def _text_width(text, size, weight="normal"):
    return text_to_path.get_text_width_height_descent(text, _font(size, weight), ismath=False)[0]


def _font(size, weight="normal"):
    return FontProperties(family=FONT, size=size, weight=weight)


def _shortened(text, n):
    text = " ".join(text.split())
    return text if len(text) <= n else f"{text[:n // 2]}…{text[len(text) - n // 2 + 1:]}"


def _numbers(values):
    return ", ".join(f"{float(v):g}" for v in values)


def _rows(node):
    """Pairs (what, value) that tell about a node, as text."""
    shape = node.shape
    rows = [("class", type(node).__name__), ("name", node.name), ("shape", repr(shape))]
    if len(shape.fov):
        rows += [("field of view", _numbers(shape.fov)), ("offsets", _numbers(shape.offsets)),
                 ("strides", _numbers(shape.strides))]
    rows += [("cost", pretty_string_ops(node.computational_cost) if node.computational_cost else "0"),
             ("parameters", f"{node.param_count:,}")]
    return rows + [(f"  {k}", " x ".join(map(str, p.shape)) or "one number") for k, p in node.params.items()]


def _title(model, nodes):
    """Name of the model, and a line of facts about it."""
    n = f"{len(nodes)} of {len(model.nodes)} nodes" if len(nodes) < len(model.nodes) else f"{len(nodes)} nodes"
    facts = [n, f"{sum(node.param_count for node in model.nodes.values()):,} parameters"]
    prediction = getattr(model, "prediction_node", None)
    if prediction is not None:
        shape = prediction.shape
        cost = sum(node.computational_cost for node in _ancestors([model.loss_node or prediction]))
        facts.append(f"{pretty_string_ops(cost / shape.spatial_size)} per pixel")
        if len(shape.fov):
            facts.append(f"prediction: field of view {_numbers(shape.fov)}; offsets {_numbers(shape.offsets)}; "
                         f"strides {_numbers(shape.strides)}")
    return f"Model {_shortened(model.name, 80)}", "  ·  ".join(facts)


# -- where things are drawn ----------------------------------------------------------------------
def _layout(nodes):
    """Placed boxes, and edges as dicts: ``upper`` and ``lower`` are indices of boxes, ``a`` and ``b`` the first and
    last points relative to their centres, ``via`` the points between, ``up`` tells that the arrow is at the upper end,
    ``loop`` that it closes the loop of a scan."""
    index = {id(n): i for i, n in enumerate(nodes)}
    pairs = [(index[id(p)], i) for i, n in enumerate(nodes) for p in n.parents]
    loops = [(index[id(a)], index[id(b)]) for a, b in _loops(nodes) if id(a) in index and id(b) in index]
    inner = {a for a, _ in pairs}
    boxes = [Box(n, is_terminal=i not in inner) for i, n in enumerate(nodes)]
    centres, routes = layout(*np.transpose([(b.half, b.top, b.bottom) for b in boxes]), pairs, loops)
    for box, (x, y) in zip(boxes, centres.tolist()):
        box.x, box.y = x, y
    edges = []
    for i, ((a, b), route) in enumerate(zip(pairs + loops, routes)):
        up = boxes[b].y < boxes[a].y
        upper, lower = (b, a) if up else (a, b)
        top, bottom = boxes[upper], boxes[lower]
        (x0, y0), *via, (x1, y1) = route
        edges.append(dict(upper=upper, lower=lower, up=up, loop=i >= len(pairs), via=via,
                          a=[(x0 - top.x, top.border(x0 - top.x, 1)), (x0 - top.x, y0 - top.y)],
                          b=[(x1 - bottom.x, y1 - bottom.y), (x1 - bottom.x, bottom.border(x1 - bottom.x, -1))]))
    return boxes, edges


def _loops(nodes):
    """Pairs of nodes: what a scan computes in one step (its ``out_memory``) is its ``in_memory`` in the next."""
    for node in nodes:
        yield from zip(_as_list(getattr(node, "out_memory", ())), _as_list(getattr(node, "in_memory", ())))


# -- drawing -------------------------------------------------------------------------------------
def _picture(title, facts, boxes, edges, file, image_format):
    """Write the picture; white paper as large as the graph and its title need."""
    margin, head = 16, 44
    corners = np.array([(b.x + side * b.half, b.y + y) for b in boxes for side in (-1, 1) for y in (-b.top, b.bottom)]
                       + [p for e in edges for p in e["via"]])
    low, high = corners.min(0) - margin, corners.max(0) + margin
    low[1] -= head
    room = max(_text_width(title, 13, "bold"), _text_width(facts, 8)) + 2 * margin - (high[0] - low[0])
    if room > 0:
        low[0], high[0] = low[0] - room / 2, high[0] + room / 2
    size = high - low
    dpi = min(144, 72 * MAX_PIXELS[0] / size.max(), 72 * np.sqrt(MAX_PIXELS[1] / size.prod()))
    figure = Figure(figsize=size / 72, dpi=dpi, facecolor="white")
    axes = figure.add_axes([0, 0, 1, 1], xlim=(low[0], high[0]), ylim=(high[1], low[1]))
    axes.set_axis_off()

    def write(x, y, text, size, **kwargs):
        axes.text(x, y, text, parse_math=False, usetex=False, color="black",
                  fontproperties=_font(size, kwargs.pop("weight", "normal")), **kwargs)

    write(low[0] + margin, low[1] + margin, title, 13, weight="bold", va="top")
    write(low[0] + margin, low[1] + margin + 20, facts, 8, va="top")
    for edge in edges:
        colour = RED if edge["loop"] else GREY
        upper, lower = boxes[edge["upper"]], boxes[edge["lower"]]
        points = [*np.add(edge["a"], (upper.x, upper.y)), *edge["via"], *np.add(edge["b"], (lower.x, lower.y))]
        tip, away = (points[0], 1) if edge["up"] else (points[-1], -1)
        points[0 if edge["up"] else -1] = (tip[0], tip[1] + away * ARROW * 0.8)
        axes.add_artist(PathPatch(_curve(points), fill=False, edgecolor=colour, linewidth=1.2))
        axes.add_artist(Polygon([tip, (tip[0] - ARROW * 0.45, tip[1] + away * ARROW),
                                 (tip[0] + ARROW * 0.45, tip[1] + away * ARROW)], color=colour, linewidth=0))
    for box in boxes:
        for i, outline in enumerate(box.outlines):
            axes.add_artist(Polygon(np.add(outline, (box.x, box.y)), facecolor=box.fill if i == 0 else "none",
                                    edgecolor=box.line, linewidth=1.0, joinstyle="round"))
        write(box.x, box.y - 1.5, box.label, SIZE, ha="center", va="baseline")
        write(box.x, box.y + 10.5, box.shape, SMALL, ha="center", va="baseline")
    figure.savefig(file, format=image_format, dpi=dpi)


def _curve(points):
    """Smooth line that is vertical at every point."""
    vertices, codes = [points[0]], [Curve.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(points):
        k = max((y1 - y0) / 2, min(abs(x1 - x0) / 4, 12))
        vertices += [(x0, y0 + k), (x1, y1 - k), (x1, y1)]
        codes += [Curve.CURVE4] * 3
    return Curve(vertices, codes)


def _page(title, facts, boxes, edges):
    """The page as text: the template with the graph as JSON in it."""
    graph = dict(title=title, facts=facts,
                 nodes=[dict(name=b.name, role=b.role, label=b.label, shape=b.shape, fill=b.fill, line=b.line,
                             x=round(b.x, 1), y=round(b.y, 1), text=round(b.text_width, 1), rows=b.rows,
                             outlines=[np.round(o, 1).tolist() for o in b.outlines]) for b in boxes],
                 edges=[{k: np.round(v, 1).tolist() if k in ("a", "b", "via") else v for k, v in e.items()}
                        for e in edges])
    data = json.dumps(graph).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Path(__file__).with_name("d3viz_page.html").read_text(encoding="utf-8").replace("{{graph}}", data)
