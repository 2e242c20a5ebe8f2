"""The graph picture and page: what they contain, where things lie, what they look like."""
import json
import logging
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections import Counter
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from networks import docs_cnn

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer.shape import TaggedShape
from elektronn2.utils import d3viz
from elektronn2.utils.d3viz import visualise_model, visualize_model
from elektronn2.utils.graphlayout import layout

SHAPE = TaggedShape((1, 32, 23, 183, 183), "b,f,z,x,y", fov=(3, 5, 5))


def node(cls, name, *parents, shape=SHAPE, **more):
    """A stand-in for a node of a class of that name."""
    values = dict(name=name, parents=parents, children={}, shape=shape, computational_cost=1000, param_count=7, params={},
                  is_source=cls == "Input")
    plain = {k: getattr(object, k) for k in ("__eq__", "__hash__", "__repr__")}
    made = type(cls, (SimpleNamespace,), plain)(**values | more)
    for p in parents:
        p.children[name] = made
    return made


def model(*nodes, name="m"):
    return SimpleNamespace(name=name, nodes={n.name: n for n in nodes}, prediction_node=None, loss_node=None)


def chain(n):
    nodes = [node("Input", "raw")]
    for i in range(n - 1):
        nodes.append(node("Conv", f"conv{i}", nodes[-1]))
    return model(*nodes)


def unet(depth):
    nodes, skips = [node("Input", "raw")], []

    def add(cls, *parents):
        nodes.append(node(cls, f"n{len(nodes)}", *parents))
        return nodes[-1]
    x = nodes[0]
    for _ in range(depth):
        skips.append(add("Conv", x))
        x = add("Pool", skips[-1])
    for skip in reversed(skips):
        x = add("Conv", add("Concat", add("UpConv", x), add("Crop", skip)))
    return model(*nodes)


def tangle(n, seed):
    """Any graph of all kinds of nodes, some of them twice the parent of another."""
    rng = random.Random(seed)
    nodes = [node("Input", "raw"), node("ValueNode", "value")]
    for i in range(n - 2):
        parents = [nodes[max(0, len(nodes) - 1 - int(rng.expovariate(0.2)))] for _ in range(rng.randint(1, 3))]
        cls = rng.choice(["Conv", "UpConv", "Concat", "Add", "GRU", "SquaredLoss", "ScanN", "Perceptron"])
        nodes.append(node(cls, f"node {i}", *parents))
    return model(*nodes)


def tall_neighbour():
    """Edges from a flat box pass under the circle beside it."""
    raw, target = node("Input", "raw"), node("Input", "target")
    scan = node("Scan", "scan", raw)
    return model(raw, target, scan, *(node("SquaredLoss", f"loss{i}", scan, target) for i in range(3)))


MODELS = {"one node": lambda: chain(1), "chain": lambda: chain(12), "unet": lambda: unet(4), "tangle": lambda: tangle(60, 1),
          "another tangle": lambda: tangle(40, 2), "tall": tall_neighbour, "docs": docs_cnn}


@pytest.fixture(params=MODELS)
def graph(request):
    """A model, and the boxes and edges that are drawn for it."""
    m = MODELS[request.param]()
    return m, *d3viz._layout(d3viz._selected(m, None))


def corners(box):
    return np.add(box.outlines[0], (box.x, box.y))


def rectangle(box):
    return (*corners(box).min(0), *corners(box).max(0))


def points(boxes, edge):
    upper, lower = boxes[edge["upper"]], boxes[edge["lower"]]
    return [*np.add(edge["a"], (upper.x, upper.y)), *edge["via"], *np.add(edge["b"], (lower.x, lower.y))]


def polyline(boxes, edge):
    """Points densely along the curve of an edge."""
    return d3viz._curve(points(boxes, edge)).interpolated(1).to_polygons(closed_only=False)[0]


def read_page(file):
    html = file.read_text(encoding="utf-8")
    return html, json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.S)[1])


# -- what is drawn -------------------------------------------------------------------------------
def test_edges_are_the_parents(graph):
    m, boxes, edges = graph
    assert sorted(b.name for b in boxes) == sorted(m.nodes)
    drawn = Counter((boxes[e["upper"]].name, boxes[e["lower"]].name) for e in edges)
    assert drawn == Counter((p.name, n.name) for n in m.nodes.values() for p in n.parents)
    assert not any(e["up"] or e["loop"] for e in edges)


@pytest.mark.parametrize("name", ["docs", "unet"])
def test_the_page_is_one_file_with_the_whole_graph(name, tmp_path):
    m = MODELS[name]()
    visualise_model(m, tmp_path / "graph")
    html, data = read_page(tmp_path / "graph.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graph.html", "graph.png"]
    assert not re.search(r"https?:|//\w+\.|@import|url\(|src=|<link|\bimport\b|fetch", html)
    assert set(re.findall(r'href="(.*?)"', html)) == {"#scene"}
    assert set(re.findall(r'\$\("(\w+)"\)', html)) <= set(re.findall(r'\bid="(\w+)"', html))
    assert {n["name"] for n in data["nodes"]} == set(m.nodes)
    named = [(data["nodes"][e["upper"]]["name"], data["nodes"][e["lower"]]["name"]) for e in data["edges"]]
    assert sorted(named) == sorted((p.name, n.name) for n in m.nodes.values() for p in n.parents)


def test_details_of_a_node(tmp_path):
    m = docs_cnn()
    visualise_model(m, tmp_path / "graph")
    _, data = read_page(tmp_path / "graph.html")
    conv = next(n for n in data["nodes"] if n["name"] == "conv1")
    assert conv["label"] == "Conv - conv1" and conv["shape"] == "(10,b) (64,f) (10,z) (42,x) (42,y)"
    assert dict(conv["rows"]) == {
        "class": "Conv", "name": "conv1", "shape": "[(10,b), (64,f), (10,z), (42,x), (42,y)]", "field of view": "5, 19, 19",
        "offsets": "2, 9, 9", "strides": "2, 4, 4", "cost": "416.2 Giga Ops", "parameters": "294,976",
        "  w": "64 x 32 x 4 x 6 x 6", "  b": "64"}
    assert data["title"] == "Model default"
    assert data["facts"].split("  ·  ") == [
        "10 nodes", "307,109 parameters", "34.6 Mega Ops per pixel",
        "prediction: field of view 9, 27, 27; offsets 4, 13, 13; strides 2, 4, 4"]


def test_names_cannot_break_out_of_the_page(tmp_path):
    names = ["</script><script>alert(1)</script>", "a & b < c > d", "quote \" ' \\ and\u2028line", "$x^2$", "two\nlines"]
    parent = node("Input", names[0])
    nodes = [node("Conv", name, parent) for name in names[1:]]
    visualise_model(model(parent, *nodes, name="<!--<script>"), tmp_path / "graph")
    html, data = read_page(tmp_path / "graph.html")
    assert [n["name"] for n in data["nodes"]] == names
    assert data["title"] == "Model <!--<script>"
    assert html.count("<script") == html.count("</script") == 2 and html.count("<!--") == 0
    assert "innerHTML" not in html and "eval" not in html


def test_long_names_are_shortened_in_the_label_only():
    box = d3viz.Box(node("Conv", "x" * 300 + "\n" + "y" * 300), False)
    assert len(box.label) <= 44 and box.label.startswith("Conv - x") and box.label.endswith("y") and "…" in box.label
    assert dict(box.rows)["name"] == "x" * 300 + "\n" + "y" * 300


def test_selected_outputs_are_drawn_with_what_they_depend_on(tmp_path):
    m = docs_cnn()

    def drawn(**kwargs):
        visualise_model(m, tmp_path / "graph", **kwargs)
        data = read_page(tmp_path / "graph.html")[1]
        return {n["name"]: n["role"] for n in data["nodes"]}, data["facts"].split("  ·  ")[0]
    trunk = {"image": "input", "conv": "layer", "conv1": "output"}
    assert drawn(select_outputs="conv1") == (trunk, "3 of 10 nodes")
    assert drawn(select_outputs=m["conv1"])[0] == drawn(select_outputs=("conv1", m["conv"]))[0] == trunk
    roles, facts = drawn(select_outputs=["loss", "errors"])
    assert roles == drawn()[0] and facts == "10 nodes"


def test_loops_of_a_scan_are_red_and_lead_back():
    raw = node("Input", "raw")
    memory = node("InitialState_like", "memory", raw)
    step = node("Conv", "step", raw, memory)
    result = node("LSTM", "lstm", step)
    scan = node("ScanN", "scan", result, in_memory=[memory], out_memory=[result])
    end = node("Perceptron", "end", scan)
    boxes, edges = d3viz._layout(d3viz._selected(model(raw, memory, step, result, scan, end), None))
    back, = [e for e in edges if e["loop"]]
    assert [boxes[back[k]].name for k in ("upper", "lower")] == ["memory", "lstm"] and back["up"] and len(edges) == 7
    assert next(b for b in boxes if b.name == "scan").line == d3viz.RED


# -- where it is drawn ---------------------------------------------------------------------------
def test_parents_are_above_their_children(graph):
    _, boxes, edges = graph
    for e in edges:
        assert rectangle(boxes[e["upper"]])[3] + 20 < rectangle(boxes[e["lower"]])[1]


def test_nodes_do_not_overlap(graph):
    for a, b in combinations(map(rectangle, graph[1]), 2):
        assert a[2] + 10 < b[0] or b[2] + 10 < a[0] or a[3] + 10 < b[1] or b[3] + 10 < a[1]


def test_edges_touch_their_nodes_and_pass_all_others(graph):
    _, boxes, edges = graph
    for e in edges:
        line = polyline(boxes, e)
        for end, box in ((line[0], boxes[e["upper"]]), (line[-1], boxes[e["lower"]])):
            outline = Path(corners(box))
            inward = end + 0.5 * np.sign((box.x, box.y) - end)
            assert outline.contains_point(inward) and not outline.contains_point(2 * end - inward)
        for i, box in enumerate(boxes):
            if i not in (e["upper"], e["lower"]):
                x0, y0, x1, y1 = rectangle(box)
                inside = (line > (x0, y0)).all(1) & (line < (x1, y1)).all(1)
                assert not inside.any(), f"{boxes[e['upper']].name} -> {boxes[e['lower']].name} crosses {box.name}"


def test_chains_are_straight_and_compact():
    boxes, edges = d3viz._layout(d3viz._selected(chain(20), None))
    assert np.ptp([b.x for b in boxes]) < 1e-6
    assert np.diff([b.y for b in boxes]).max() < 90
    assert all(np.ptp([p[0] for p in points(boxes, e)]) < 1e-6 for e in edges)


def crossings(boxes, edges):
    """Pairs of edges whose curves cross, without counting those that touch at a node."""
    lines, count = [polyline(boxes, e) for e in edges], 0
    for a, b in combinations(lines, 2):
        (p, r), (q, s) = ((c[:-1], np.diff(c, axis=0)) for c in (a, b))
        d = q[None] - p[:, None]
        cross = r[:, None, 0] * s[None, :, 1] - r[:, None, 1] * s[None, :, 0]
        with np.errstate(all="ignore"):
            t = (d[..., 0] * s[None, :, 1] - d[..., 1] * s[None, :, 0]) / cross
            u = (d[..., 0] * r[:, None, 1] - d[..., 1] * r[:, None, 0]) / cross
        count += bool(((t > 0) & (t < 1) & (u > 0) & (u < 1) & (cross != 0)).any())
    return count


def test_skip_connections_of_a_unet_cross_nothing():
    boxes, edges = d3viz._layout(d3viz._selected(unet(5), None))
    assert crossings(boxes, edges) == 0
    lowest = max((b for b in boxes if "Pool" in b.label), key=lambda b: b.y)
    lowest.x += 2000 if lowest.x < np.mean([b.x for b in boxes]) else -2000  # beyond the skip connections
    assert crossings(boxes, edges) > 0


def test_skip_connections_are_straight():
    boxes, edges = d3viz._layout(d3viz._selected(unet(5), None))
    skips = [e for e in edges if e["via"]]
    assert len(skips) == 5 and all(np.ptp([p[0] for p in points(boxes, e)]) < 1e-6 for e in skips)


def test_arrow_heads_at_one_node_stay_apart(graph):
    _, boxes, edges = graph
    for i in range(len(boxes)):
        tips = sorted(points(boxes, e)[-1][0] for e in edges if e["lower"] == i)
        assert (np.diff(tips) > d3viz.ARROW * 0.9).all()


def test_order_untangles_what_was_built_crosswise():
    """Two rows of ten, joined in reverse."""
    _, routes = layout([20] * 20, [5] * 20, [5] * 20, [(i, 19 - i) for i in range(10)])
    upper, lower = np.array([[r[0][0], r[-1][0]] for r in routes]).T
    assert (np.argsort(upper) == np.argsort(lower)).all()
    assert np.allclose(upper, lower)


def test_inputs_stand_next_to_what_they_feed():
    nodes = list(chain(8).nodes.values())
    target = node("Input", "target")
    boxes, _ = d3viz._layout(d3viz._selected(model(*nodes, target, node("SquaredLoss", "loss", nodes[-1], target)), None))
    y = {b.name: b.y for b in boxes}
    assert y["target"] == y[nodes[-1].name]


def test_layout_is_the_same_every_time():
    first, again = (d3viz._layout(d3viz._selected(tangle(50, 3), None)) for _ in range(2))
    assert [(b.x, b.y) for b in first[0]] == [(b.x, b.y) for b in again[0]] and first[1] == again[1]


def test_unconnected_nodes_are_placed_too():
    centres, routes = layout([10] * 3, [5] * 3, [5] * 3, [])
    assert routes == [] and np.diff(np.sort(centres[:, 0])).min() > 20 and np.ptp(centres[:, 1]) == 0


# -- what it looks like --------------------------------------------------------------------------
def widths(outline):
    """Width of an outline near its top, in the middle and near its bottom, relative to the widest."""
    low, high = outline[:, 1].min(), outline[:, 1].max()
    xs = np.linspace(outline[:, 0].min(), outline[:, 0].max(), 2001)
    ys = (low + f * (high - low) for f in (0.03, 0.5, 0.97))
    return np.array([Path(outline).contains_points(np.c_[xs, np.full(len(xs), y)]).mean() for y in ys])


STYLES = [  # class, terminal, role, number of outlines, width at top, middle, bottom
    ("Input", False, "input", 1, (1, 1, 1)), ("Input", True, "input", 1, (1, 1, 1)),
    ("Conv", True, "output", 1, (1, 1, 1)), ("AggregateLoss", True, "output", 1, (1, 1, 1)),
    ("ValueNode", False, "layer", 1, (1, 1, 1)), ("Conv", False, "layer", 1, (1, 0.9, 0.8)),
    ("UpConv", False, "layer", 1, (0.8, 0.9, 1)), ("Perceptron", False, "layer", 1, (0.9, 1, 0.9)),
    ("Dot", False, "layer", 1, (0.9, 1, 0.9)), ("GRU", False, "layer", 2, (0.9, 1, 0.9)),
    ("LSTM", False, "layer", 2, (0.9, 1, 0.9)), ("Concat", False, "layer", 1, (0.1, 1, 1)),
    ("MultinoulliNLL", False, "loss", 1, (0.06, 1, 0.06)), ("SquaredLoss", False, "loss", 1, (0.06, 1, 0.06)),
    ("my_loss", False, "loss", 1, (0.06, 1, 0.06)), ("Scan", False, "scan", 2, (0.34, 1, 0.34)),
    ("ScanN", False, "scan", 2, (0.34, 1, 0.34)), ("Softmax", False, "layer", 1, (0.34, 1, 0.34)),
]


@pytest.mark.parametrize("cls, terminal, role, n_outlines, expected", STYLES)
def test_style_of_a_class(cls, terminal, role, n_outlines, expected):
    box = d3viz.Box(node(cls, "some name"), terminal)
    assert (box.role, len(box.outlines)) == (role, n_outlines)
    assert np.allclose(widths(np.array(box.outlines[0])), expected, atol=0.07)
    if role == "scan":
        assert box.line == d3viz.RED and np.allclose(np.hypot(*np.transpose(box.outlines[0])), box.half)


@pytest.mark.parametrize("cls", sorted({row[0] for row in STYLES}))
@pytest.mark.parametrize("name", ["a", "a name of some length"])
def test_text_lies_within_the_innermost_outline(cls, name):
    box = d3viz.Box(node(cls, name), False)
    inner = Path(box.outlines[-1])
    for text, size, y in ((box.label, 10, -1.5), (box.shape, 7.5, 10.5)):
        extent = TextPath((0, 0), text, size=size, prop=d3viz._font(size)).get_extents()
        x0 = -extent.width / 2
        assert inner.contains_points([(x, y - v) for x in (x0, -x0) for v in (extent.y0, extent.y1)]).all()


def test_colours_differ_for_the_colour_blind():
    """Deuteranopia and protanopia as in Viénot, Brettel and Mollon 1999: roles that share a form stay apart."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    for missing in (protan, deutan):
        see = np.linalg.inv(to_lms) @ missing @ to_lms
        seen = {role: see @ np.array(to_rgb(colour)) ** 2.2 for role, colour in d3viz.FILL.items()}
        for a, b in (("input", "output"), ("input", "layer"), ("output", "layer"), ("loss", "layer"), ("loss", "output")):
            assert np.abs(seen[a] - seen[b]).max() > 0.1


def test_the_picture_shows_all_roles_and_grows_with_the_graph(tmp_path):
    visualise_model(docs_cnn(), tmp_path / "docs")
    image = imread(tmp_path / "docs.png")
    assert (image[:3] == 1).all() and (image[-3:] == 1).all() and (image[:, :3] == 1).all()  # a white margin
    for role in ("input", "output", "layer", "loss"):
        pixels = (np.abs(image[..., :3] - to_rgb(d3viz.FILL[role])) < 1 / 255).all(-1)
        assert 1e4 < pixels.sum() < image[..., 0].size / 2
    visualise_model(chain(40), tmp_path / "chain")
    assert len(imread(tmp_path / "chain.png")) > 2.5 * len(image)


@pytest.mark.parametrize("side, area", [(900, 1e9), (10**6, 2e5)])
def test_huge_graphs_fit_a_picture(side, area, tmp_path, monkeypatch):
    monkeypatch.setattr(d3viz, "MAX_PIXELS", (side, area))
    visualise_model(chain(40), tmp_path / "g")
    image = imread(tmp_path / "g.png")
    assert 0.95 < max(max(image.shape) / side, image[..., 0].size / area) <= 1.01


@pytest.mark.parametrize("image_format, start", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_formats(image_format, start, tmp_path):
    visualise_model(unet(2), tmp_path / "g", image_format=image_format)
    written = tmp_path / f"g.{image_format}"
    assert written.read_bytes().startswith(start) and written.stat().st_size > 5000
    if image_format == "svg":
        assert len(list(xml.parse(written).iter("{http://www.w3.org/2000/svg}path"))) > 30


# -- the call ------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", ["", ".png", ".html"])
def test_endings_and_overwriting(ending, tmp_path):
    (tmp_path / "g.v1.png").write_text("old")
    (tmp_path / "g.v1.html").write_text("old")
    visualize_model(chain(2), str(tmp_path / f"g.v1{ending}"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.v1.html", "g.v1.png"]
    assert (tmp_path / "g.v1.html").read_text().startswith("<!DOCTYPE html>")
    assert imread(tmp_path / "g.v1.png").ndim == 3


def test_wrong_calls(tmp_path):
    m = docs_cnn()
    nm.model_manager.newmodel(None)
    foreign = nm.Input((1, 1), "b,f", name="conv", print_repr=False)
    cases = [
        (dict(image_format="gif"), ValueError, "image_format must be one of png, svg, pdf, got 'gif'"),
        (dict(outfile=tmp_path / "g.svg"), ValueError, r"ends in \.svg but image_format is 'png'"),
        (dict(outfile=tmp_path / "no" / "g"), FileNotFoundError, "there is no folder .*no' to write 'g' to"),
        (dict(select_outputs="conv11"), KeyError, "no node 'conv11'. Did you mean 'conv1'"),
        (dict(select_outputs=["conv", foreign]), KeyError, "no node 'conv'"),
        (dict(select_outputs=True), TypeError, "takes nodes or names of nodes, .* got True"),
        (dict(select_outputs=[]), TypeError, r"at least one, got \[\]"),
        (dict(model=nm.model_manager.newmodel(None)), ValueError, "has no nodes to draw"),
    ]
    for change, error, message in cases:
        with pytest.raises(error, match=message):
            visualise_model(**dict(model=m, outfile=tmp_path / "g") | change)
    assert list(tmp_path.iterdir()) == []


def test_copy_deps_is_explained(tmp_path):
    records, handler = [], logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("elektronn2log")
    logger.addHandler(handler)
    try:
        visualise_model(chain(2), tmp_path / "g")
        before = [r.getMessage() for r in records]
        visualise_model(chain(2), tmp_path / "g", copy_deps=True)
    finally:
        logger.removeHandler(handler)
    assert not any("no effect" in text for text in before)
    assert any("copy_deps=True has no effect" in r.getMessage() and r.levelno == logging.INFO for r in records)


def test_no_backend_is_chosen(tmp_path):
    """Drawing works without a display, and leaves pyplot and its backend alone."""
    code = ("import sys; from types import SimpleNamespace as S; from elektronn2.utils.d3viz import visualise_model\n"
            "from elektronn2.neuromancer.shape import TaggedShape\n"
            "n = S(name='n', parents=(), shape=TaggedShape((1,), 'f'), computational_cost=0, param_count=0, params={}, "
            "is_source=True)\n"
            f"visualise_model(S(name='m', nodes=dict(n=n)), {str(tmp_path / 'g')!r})\n"
            "assert 'matplotlib.pyplot' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "g.png").exists()
