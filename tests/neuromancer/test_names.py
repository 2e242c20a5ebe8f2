"""The names that scripts import, and the table of them in the documentation: all there, each compared with something."""
import inspect
import re
from functools import cache
from pathlib import Path
from types import FunctionType

import pytest
from test_family import BASES, CLASSES

from elektronn2 import neuromancer as nm
from elektronn2.neuromancer import computations as C

ROOT = Path(__file__).parents[2]
NODES_MD = (ROOT / "docs" / "nodes.md").read_text()

NAMES = {  # of the first ELEKTRONN2's neuromancer, by the module that scripts may also import them from
    "node_basic": "Node Input Input_like Concat ApplyFunc FromTensor split model_manager ValueNode MultMerge "
                  "InitialState_like Add",
    "neural": "Perceptron Conv UpConv Crop LSTM FragmentsToDense Pool Dot FaithlessMerge GRU LRN AutoMerge UpConvMerge Pad",
    "various": "GaussianRV Scan Reshape",
    "loss": "GaussianNLL BinaryNLL AggregateLoss SquaredLoss AbsLoss Softmax MultinoulliNLL MalisNLL Errors BetaNLL "
            "SobelizedLoss BlockedMultinoulliNLL OneHot EuclideanDistance RampLoss",
    "variables": "VariableParam VariableWeight ConstantParam initweights",
}
LEFT_OUT = "GenericInput SkelLoss SkelPrior SkelGetBatch SkelLossRec SkelGridUpdate".split()
OF_MODEL = "Model modelload kernel_lists_from_node_descr params_from_model_file rebuild_model simple_cnn".split()
MODULES = "model node_basic neural various loss variables graphutils graphmanager computations optimiser networks".split()
HIDDEN = {"Classification", "ScanN", "ScanOut"}  # made by Errors and Scan
SAID_AS = {  # how tests and recorded cases speak of it
    "TorchModule": "from_torch",
    "Dot": "Perceptron", "UpConvMerge": "AutoMerge", "Input": "source|Input", "GaussianAEVBPrior": "make_priorlayer",
    "Softmax": "Softmax|probs"}


@cache
def table():
    """Name -> the cell that says what it is compared with."""
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", NODES_MD[:NODES_MD.index("## Where ours")], re.MULTILINE)
    return {name: compared for names, _, compared in rows for name in re.findall(r"`(\w+)`", names)}


@cache
def files_of_test():
    """Name of a test -> text of the files that have one of that name."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE):
            found[name] = found.get(name, "") + text
    return found


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in NAMES.items() for n in names.split()])
def test_name_is_there(module, name):
    """In the package and in the module."""
    assert getattr(nm, name) is getattr(getattr(nm, module), name)
    assert name in nm.__all__


@pytest.mark.parametrize("name", OF_MODEL)
def test_name_of_model(name):
    assert callable(getattr(nm.model, name))


def test_modules():
    assert all(getattr(nm, m).__name__ == f"elektronn2.neuromancer.{m}" for m in MODULES)
    assert set(MODULES) <= set(nm.__all__)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_left_out(name):
    """An error that names it and says why."""
    with pytest.raises(AttributeError, match=f"{name}.*skeleton"):
        getattr(nm, name)
    assert name in NODES_MD


def test_table_is_complete():
    """The table against the names above, the registry, and what the package exports."""
    wanted = {n for names in NAMES.values() for n in names.split()}
    wanted |= {n for n in CLASSES if not n.startswith("_")} - BASES - HIDDEN | {"Node"}
    wanted |= set(nm.__all__) - set(MODULES)
    assert not wanted - table().keys(), f"add rows to docs/nodes.md: {wanted - table().keys()}"
    assert not table().keys() - wanted


@pytest.mark.parametrize("name", table())
def test_name_is_compared(name):
    """Each row of the table names a test that exists, in a file that speaks of the name, or a case that was recorded from
    the first ELEKTRONN2 and has it."""
    compared = re.findall(r"`(\w+)`", table()[name])
    assert compared
    for entry in compared:
        if entry.startswith("test_"):
            assert entry in files_of_test(), f"there is no test {entry}"
            said = SAID_AS.get(name, name)
            assert re.search(rf"\b({said})\b", files_of_test()[entry]), f"{entry} does not speak of {name}"
        else:
            text, = (p.read_text() for p in (ROOT / "tests" / "oracle").rglob(f"{entry}.json"))
            assert re.search(rf'"({SAID_AS.get(name, name)})"', text), f"the case {entry} has no {name}"


def test_every_difference_is_listed():
    """The cases that test_oracle treats differently against the list in the documentation."""
    import test_oracle
    cases = {case.split()[0] for case, _ in test_oracle.GEOMETRY} | {case for case, *_ in test_oracle.NUMBERS}
    cases |= set(test_oracle.REWRITTEN) | {c for c in test_oracle.NOT_COMPARABLE if (
        ROOT / "tests" / "oracle" / f"{c}.json").exists()}
    listed = NODES_MD[NODES_MD.index("## Where ours differs"):]
    missing = {c for c in cases if f"`{c}`" not in listed}
    assert missing <= {"mfp2d_nomultiple"}, missing


def documented(name):
    thing = getattr(nm, name)
    return inspect.getdoc(thing), inspect.signature(getattr(thing, "__init__", thing) if isinstance(thing, type) else thing)


@pytest.mark.parametrize("name", [n for n in nm.__all__ if isinstance(getattr(nm, n), (type, FunctionType))])
def test_docstring_has_an_example(name):
    assert ">>> " in documented("from_torch" if name == "TorchModule" else name)[0]


@pytest.mark.parametrize("name", "Perceptron Conv UpConv AutoMerge Pool Crop Pad Concat Input Input_like Softmax "
                                 "AggregateLoss Errors InitialState_like FragmentsToDense InstanceNorm LayerNorm".split())
def test_docstring_explains_every_argument(name):
    """As ``argument``, alone or in an expression; so it does the activation functions, for layers with weights."""
    doc, signature = documented(name)
    said = " ".join(re.findall(r"``.*?``", doc))
    arguments = signature.parameters.keys() - {"self", "parent", "name", "print_repr"}
    assert not {a for a in arguments if not re.search(rf"\b{a}\b", said)}
    if {"activation_func", "dropout_rate"} <= arguments:
        assert not {a for a in C.ACTIVATIONS if not re.search(rf"'{re.escape(a.split()[0])}[ ']", doc)}
