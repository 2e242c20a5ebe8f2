"""The gallery of the nodes has all of them, and is what docs/gallery.py makes."""
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from test_family import CLASSES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def gallery():
    spec = spec_from_file_location("gallery", DOCS / "gallery.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.gallery()


def test_every_class_is_there(gallery):
    """As a node that is drawn, one that it is made of, or a base of these."""
    _, _, drawn = gallery
    nodes = {node for result in drawn for node in (result, *result.all_parents.values())}
    missing = set(CLASSES.values()) - {base for node in nodes for base in type(node).__mro__}
    assert not missing, f"add examples to CARDS in docs/gallery.py, and run it: {missing}"


def places(svg):
    """Where cells, frames and texts are; colours may differ in the last digit of a value."""
    return sorted(re.findall(r"M[^M]*z|<text.*", svg))


def test_page_and_pictures_are_up_to_date(gallery):
    page, pictures, _ = gallery
    assert (DOCS / "gallery.md").read_text() == page, "run docs/gallery.py"
    assert {p.name for p in (DOCS / "images" / "nodes").iterdir()} == set(pictures)
    for name, svg in pictures.items():
        assert places((DOCS / "images" / "nodes" / name).read_text()) == places(svg), f"{name}: run docs/gallery.py"
