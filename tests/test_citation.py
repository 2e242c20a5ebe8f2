"""CITATION.cff has the fields that form 1.2.0 asks for, and says what the package says."""
import re
import tomllib
from pathlib import Path

import elektronn2

ROOT = Path(__file__).parents[1]
ALLOWED = {"cff-version", "message", "type", "title", "abstract", "version", "license", "authors", "keywords"}


def test_fields():
    text = (ROOT / "CITATION.cff").read_text()
    fields = dict(re.findall(r"^([\w-]+):[ ]?(.*)$", text, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(fields) <= ALLOWED
    assert fields["cff-version"] == "1.2.0" and fields["type"] == "software"
    assert fields["version"] == elektronn2.__version__ and fields["license"] == project["license"]
    assert fields["abstract"] == project["description"]
    assert re.findall(r"^  - name: (.+)$", text, re.MULTILINE) == [a["name"] for a in project["authors"]]
