"""Imports point down: the layers of the library, from the bottom up."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = """
utils errors
config malis data graph computations init shape registry manager expression utils.unpickle probing
variables utils.gpu utils.legacy loss_functions malis.malisop
function averaging
dense loops
node optimiser serialize
node_basic loss_checks
class_loss number_loss distance_loss recurrent resampling scan
overlap_loss affinity_loss various
neural loss graphutils graphmanager
normalisation residual legacy checkpoint finite torch_module
rebuild networks bioimageio
export
model
neuromancer
training
scripts"""
RANK = {name: i for i, row in enumerate(LAYERS.strip().split("\n")) for name in row.split()}
# computations are written with expressions; init reads settings
SIDEWAYS = {("computations", "expression"), ("init", "config")}
WITHOUT_TORCH = ("shape", "graph", "registry", "manager", "init", "data", "malis", "config")


def unit(module):
    """'elektronn2.neuromancer.shape.TaggedShape' -> 'shape', 'elektronn2.data.io' -> 'data'."""
    _, *parts = module.split(".")
    if ".".join(parts[:2]) in RANK:
        return ".".join(parts[:2])
    if parts[:1] == ["neuromancer"] and parts[1:2] and parts[1] in RANK:
        return parts[1]
    return parts[0] if parts else "elektronn2"


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(path.parent.parts[:len(path.parent.parts) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, [base, node.module]))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def files():
    return [p.relative_to(ROOT) for p in sorted((ROOT / "elektronn2").glob("*/**/*.py"))]


def violations(path, names):
    me = unit(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    for name in names:
        it = unit(name)
        if name.split(".")[0] == "elektronn2" and it not in (me, "elektronn2") and (me, it) not in SIDEWAYS:
            if RANK[it] >= RANK[me]:
                yield f"{path} may not import {name}"
            if it == "data" and me not in ("training", "scripts"):
                yield f"{path} may not import {name}"
        if name.split(".")[0] == "torch" and me in WITHOUT_TORCH:
            yield f"{path} may not import torch"


@pytest.mark.parametrize("path", files(), ids=str)
def test_imports_point_down(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert list(violations(path, imported(path))) == []


@pytest.mark.parametrize("path, name", [
    ("elektronn2/neuromancer/node_basic.py", "elektronn2.neuromancer.model.Model"),
    ("elektronn2/neuromancer/loss.py", "elektronn2.data.cnndata"),
    ("elektronn2/data/cnndata.py", "elektronn2.neuromancer.Node"),
    ("elektronn2/utils/dense.py", "elektronn2.config.config"),
    ("elektronn2/data/cnndata.py", "torch"),
])
def test_planted_faults_are_seen(path, name):
    assert list(violations(Path(path), [name]))


def test_functions_of_the_walk_are_imported_at_the_top():
    """An import inside a function hides a cycle. Commands are above everything, and answer --help without torch."""
    hidden = []
    for path in files():
        if path.parts[1] == "scripts":
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.FunctionDef):
                hidden += [f"{path}:{n.lineno}" for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)
                           and "elektronn2" in ast.unparse(n)]
    assert hidden == []
