"""docs/licences.md names each package that pyproject.toml asks for, with the licence that its metadata declare."""
import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "licences.md").read_text()
ROWS = {name: (licence, extra) for name, licence, extra in
        re.findall(r"^\| `([\w.-]+)` \| ([^|]+) \| (?:`(\w+)` \|)?", PAGE, re.MULTILINE)}
IDS = r"(?:Apache-2\.0|BSD-[23]-Clause|BSL-1\.0|MIT|MPL-2\.0|ISC|0BSD|Zlib|CC0-1\.0|PSF-2\.0)"
KINDS = ("Apache", "BSD", "MIT", "MPL", "ISC", "Python Software Foundation")


def packages(requirements):
    names = [re.match(r"[\w.-]+", requirement)[0] for requirement in requirements]
    return {name for name in names if name != "elektronn2"}


def test_all_packages_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: packages(wanted) for name, wanted in project["optional-dependencies"].items()}
    assert {name for name, (_, extra) in ROWS.items() if not extra} == packages(project["dependencies"])
    assert {(name, extra) for name, (_, extra) in ROWS.items() if extra} == {
        (name, extra) for extra, names in extras.items() for name in names}


@pytest.mark.parametrize("name", ROWS)
def test_licences_are_those_that_the_packages_declare(name):
    try:
        declared = metadata(name)
    except PackageNotFoundError:
        pytest.skip("not installed")
    ours = ROWS[name][0]
    expression = declared["License-Expression"] or (declared["License"] if "\n" not in (declared["License"] or "\n") else "")
    if theirs := set(re.findall(IDS, expression or "")):
        assert re.findall(IDS, ours)[0] in theirs and theirs <= set(re.findall(IDS, ours))
        return
    classifiers = [c for c in declared.get_all("Classifier") or () if c.startswith("License ::")]
    text = " ".join(classifiers) or (declared["License"] or "")[:200]
    if not text:
        pytest.skip("it declares none; its licence is in a file")
    kind = next(k for k in KINDS if k in text)
    assert kind.replace("Python Software Foundation", "PSF") in ours
