"""The tables of docs/config.md say what the code says: no name is missing, none too many, and defaults are equal."""
import ast
import inspect
import re
from pathlib import Path

import pytest

from elektronn2 import config as settings
from elektronn2.data import BatchCreatorImage, MNISTData, sampling
from elektronn2.data.augmentations import AUGMENTATIONS, argument_names
from elektronn2.data.deformation import _random_drift
from elektronn2.data.targets import KINDS
from elektronn2.data.transformations import get_warped_slice
from elektronn2.neuromancer import optimiser, rebuild
from elektronn2.training import schedule, trainutils
from elektronn2.training.trainer import Trainer

PAGE = (Path(__file__).parents[2] / "docs" / "config.md").read_text()
REQUIRED = inspect.Parameter.empty


def rows(title):
    """The cells of the tables under a heading, and under lower ones within, but not within those that come next."""
    level, text = re.search(rf"^(#+) {re.escape(title)}$(.*)", PAGE, re.DOTALL | re.MULTILINE).groups()
    text = re.split(rf"^#{{1,{len(level)}}} ", text, flags=re.MULTILINE)[0]
    if "Names of the config" not in title:
        text = text.split("\n### ")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.split("\n") if line.startswith("| `")]


def value(cell):
    return REQUIRED if cell == "required" else ast.literal_eval(cell.strip("`"))


def told(title, column=2):
    """Name -> default, of a table with a row for each name."""
    names = [row[0].removesuffix(" *").replace("`", "") for row in rows(title)]
    assert len(set(names)) == len(names)
    return dict(zip(names, (value(row[column]) for row in rows(title))))


def listed(title):
    """Name -> arguments with their defaults, of a table with a row for each function."""
    found = {}
    for name, arguments in rows(title):
        pairs = re.findall(r"`(\w+)=([^`]+)`", arguments)
        found[name.strip("`")] = {k: ast.literal_eval(v) for k, v in pairs} | {
            k: REQUIRED for k in re.findall(r"`(\w+)` \(required\)", arguments)}
    return found


def defaults(function, left_out=()):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("self", *left_out) and p.kind is not p.VAR_KEYWORD}


def test_names_of_the_config():
    wanted = {name: REQUIRED if name in trainutils.REQUIRED else {} if name in trainutils.DICTS else None
              for name in trainutils.DEFAULTS}
    assert told("Names of the config") == wanted


def test_stars_are_what_may_be_changed_in_a_run():
    starred = {row[0].strip("` *") for row in rows("Names of the config") if row[0].endswith("*")}
    assert starred == set(trainutils.LIVE)


def test_settings_of_the_library():
    assert told("Settings of the library") == settings._DEFAULTS


def test_optimiser_params():
    assert told("optimiser_params") == optimiser.DEFAULTS | {"lr": REQUIRED}
    for name, _, _, rules, _ in rows("optimiser_params"):
        having = [rule for rule, kind in optimiser.OPTIMISERS.items() if name.strip("`") in kind.meta]
        assert having == list(optimiser.OPTIMISERS) if rules == "all" else having == rules.split(", ")


def test_schedules():
    assert {row[0].strip("`") for row in rows("schedules")} == set(schedule.KINDS)


@pytest.mark.parametrize("title, wanted", [
    ("data_init_kwargs of BatchCreatorImage", defaults(BatchCreatorImage, ("input_node", "target_node"))),
    ("data_batch_args of BatchCreatorImage", defaults(BatchCreatorImage.getbatch, ("batch_size", "source"))),
    ("warp_args", {k: v for k, v in defaults(get_warped_slice).items() if k in sampling.WARP_ARGS}),
    ("preview_kwargs", defaults(Trainer.preview_slice)),
    ("model_load_args", defaults(rebuild.modelload, ("file_name",)) | defaults(
        rebuild._Restorer, ("description", "tensors", "mfp", "changes", "quiet"))),
    ("data_init_kwargs of MNISTData", defaults(MNISTData, ("input_node", "target_node"))),
])
def test_arguments(title, wanted):
    assert told(title) == wanted


def test_elastic_and_misalignment():
    wanted = {f"elastic: {k}": REQUIRED for k in sampling.ELASTIC}
    wanted |= {f"misalignment: {k}": defaults(_random_drift)[k] for k in sampling.MISALIGNMENT}
    assert told("elastic and misalignment", 1) == wanted


def test_augmentations():
    assert listed("augmentations") == {name: {k: v for k, v in defaults(f).items() if k in argument_names(f)}
                                       for name, f in AUGMENTATIONS.items()}


def test_targets():
    assert listed("targets") == {name: dict(list(defaults(kind.make).items())[1:]) for name, kind in KINDS.items()}


def test_old_names():
    assert {row[0].strip("`") for row in rows("Names of the first ELEKTRONN2")} == {*trainutils.OLD, *settings._OLD}
