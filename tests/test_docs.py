"""The pages: what they show as code runs, what they tell to type exists, where they lead is there, and the site builds.

``>>>`` examples are run by pytest itself; those of mistakes.md by test_mistakes, texts that are printed by test_printed and
test_shell.
"""
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from html.parser import HTMLParser
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from elektronn2 import neuromancer as nm
from elektronn2.data import BatchCreatorImage
from elektronn2.data.synthetic import write_neuro_data
from elektronn2.training import trainutils

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {str(p.relative_to(ROOT)): p.read_text() for p in [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]
         if "_build" not in p.parts and "tutorials_pages" not in p.parts}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.M | re.S)
TEXTS = {"README.md", "docs/first_network.md", "docs/neuro3d.md", "docs/mistakes.md", "docs/shell.md"}  # shown as printed


def blocks(page, kind):
    """The texts of the blocks of a kind."""
    return [inspect.cleandoc(text) for _, k, text in FENCE.findall(PAGES[page]) if k == kind]


def having(kind):
    return [page for page in PAGES if blocks(page, kind)]


def prose(page):
    """The page without its blocks."""
    return FENCE.sub("", PAGES[page])


# -- every block is of a kind that is tested -------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES)
def test_kinds_of_blocks(page):
    kinds = {kind for _, kind, _ in FENCE.findall(PAGES[page])}
    directives = {kind for kind in kinds if kind.startswith("{")}
    assert {kind.split()[0] for kind in directives} <= {"{toctree}", "{include}"}
    assert kinds - directives <= {"python", "sh"} | ({"text"} if page in TEXTS else set()) | (
        {"py", "diff"} if page == "docs/mistakes.md" else set())
    assert PAGES[page].count("```") == 2 * len(FENCE.findall(PAGES[page]))


@pytest.mark.parametrize("page", [page for page in PAGES if ">>>" in PAGES[page]])
def test_examples_are_found_by_pytest(page):
    settings = PROJECT["tool"]["pytest"]["ini_options"]
    assert page.split("/")[0] in settings["testpaths"] and "--doctest-glob=*.md" in settings["addopts"]
    assert all(">>>" not in text or kind == "python" for _, kind, text in FENCE.findall(PAGES[page]))


# -- Python ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with the data that pages take for granted."""
    home = tmp_path_factory.mktemp("home")
    write_neuro_data(home / "made", (16, 130, 130), (10, 100, 100), 3, (12, 120, 120))
    cubes = home / "j0126" / "em_mag1"
    for x, y, z in np.ndindex(2, 2, 1):
        cube = cubes / f"x{x:04d}" / f"y{y:04d}" / f"z{z:04d}"
        cube.mkdir(parents=True)
        (cube / f"em_mag1_x{x:04d}_y{y:04d}_z{z:04d}.raw").write_bytes(bytes(128 ** 3))
    (cubes / "knossos.conf").write_text('experiment name "em_mag1";\n' + "".join(
        f"boundary {axis} {n};\nscale {axis} 10.0;\n" for axis, n in zip("xyz", (256, 256, 128))))
    return home


def plain(page):
    """Blocks of Python that are no ``>>>`` examples."""
    return [code for code in blocks(page, "python") if ">>>" not in code]


@pytest.mark.parametrize("page", [page for page in PAGES if plain(page)])
def test_python(page, home, tmp_path, monkeypatch):
    """The blocks of a page one after the other; what they set that belongs into a config is accepted in one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    namespace = {}
    for code in plain(page):
        exec(compile(code, page, "exec"), namespace)
    settings = {name: namespace[name] for name in trainutils.DEFAULTS if name in namespace}
    if settings:
        monkeypatch.setenv("ELEKTRONN2_DATA", str(home / "made"))
        text = (ROOT / "examples" / "laptop.py").read_text()
        Path("page.py").write_text("\n".join([text, *plain(page)]))
        accepted = trainutils.ExperimentConfig("page.py", save_path=tmp_path)
        assert {name: getattr(accepted, name) for name in settings if name != "create_model"} == {
            name: value for name, value in settings.items() if name != "create_model"}
        inspect.signature(BatchCreatorImage).bind(None, None, **accepted.data_init_kwargs)
        getbatch_accepts(accepted.data_batch_args, home / "made")
    if page == "docs/neuro3d.md":
        example = trainutils.execute(ROOT / "examples" / "neuro3d.py", {"__name__": "neuro3d", "np": np})
        assert {name: example[name] for name in settings} == settings


def getbatch_accepts(arguments, folder):
    """All of them are checked, whether a sample is warped or not; not to warp saves the time to compile it."""
    nm.model_manager.newmodel(None)
    image = nm.Input((1, 1, 5, 23, 23), "b,f,z,x,y")
    model = nm.networks.classifier(nm.Conv(image, 2, (3, 5, 5), activation_func="lin"))
    data = BatchCreatorImage(image, model.target_node, folder, folder, [("raw_0.h5", "raw")],
                             [("barrier_int16_0.h5", "lab")])
    data.getbatch(2, **{**arguments, "warp": 0})


def test_session_of_the_readme():
    """The node that is looked at there says what is printed there."""
    trainutils.execute(ROOT / "examples" / "neuro3d_lite.py", namespace := {"__name__": "neuro3d_lite", "np": np})
    namespace["create_model"]()
    session, = blocks("README.md", "text")
    assert repr(nm.model_manager.current["conv2"].shape.ext_repr) in session.splitlines()


# -- commands -------------------------------------------------------------------------------------------
COMMANDS = {entry.name: entry.value.split(":")[0] for entry in entry_points(group="console_scripts")
            if entry.value.startswith("elektronn2.")}
TARGETS = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
VARIABLES = set(re.findall(r"^(\w+) \??=", (ROOT / "Makefile").read_text(), re.M))


def options(words):
    return [word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]


def check_command(words, capsys):
    """That such a command can be typed: programs, options, targets and files are there."""
    name, words = words[0].removeprefix(".venv/bin/"), words[1:]
    if name in COMMANDS:
        try:
            importlib.import_module(COMMANDS[name]).parser().parse_args(words)
        except SystemExit as end:
            assert not end.code, capsys.readouterr().err
    elif name == "make":
        assert {word for word in words if "=" not in word} <= TARGETS
        assert {word.split("=")[0] for word in words if "=" in word} <= VARIABLES
    elif name == "cd":
        assert (ROOT / words[0]).is_dir()
    elif name == ".":
        assert words[0].endswith("/bin/activate")
    elif name == "pip":
        extras = {e for word in words for part in re.findall(r"\[(.+)\]", word) for e in part.split(",")}
        assert words[0] == "install" and extras <= set(PROJECT["project"]["optional-dependencies"])
    elif name in ("python", "python3") and words[0] == "-c":
        compile(words[1], "command", "exec")
    elif name in ("python", "python3") and words[0] == "-m":
        if words[1].startswith("elektronn2."):
            with pytest.raises(SystemExit):
                importlib.import_module(words[1]).main([*(w for w in words[2:3] if w.isidentifier()), "--help"])
            assert set(options(words[2:])) <= set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        else:
            assert importlib.util.find_spec(words[1]), words[1]
    elif name in ("python", "python3"):
        script = next((p for p in (ROOT / words[0], ROOT / "examples" / words[0]) if p.is_file()), None)
        assert script or words == ["FILE"], f"there is no {words[0]}"
        assert all(f'"{option}"' in script.read_text() for option in options(words[1:]))
    else:
        assert name == "ruff", f"unknown program {name}"


@pytest.mark.parametrize("page", [page for page in having("sh") if page != "docs/mistakes.md"])
def test_commands(page, capsys):
    lines = [shlex.split(line, comments=True) for text in blocks(page, "sh") for line in text.splitlines()]
    assert lines
    for words in filter(None, lines):
        check_command(words, capsys)


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text(page, capsys):
    """Between backticks, where arguments may be left out, and names of files."""
    for code in re.findall(r"`([^`\n]+)`", prose(page).replace("``", "")):
        name, *words = code.split()
        name = name.rstrip(":")
        if name.startswith("elektronn2-") and name != "elektronn2-profile":  # which is told to be gone
            known = importlib.import_module(COMMANDS[name]).parser().format_help()
            assert set(options(words)) <= set(re.findall(r"--[\w-]+", known)), code
        elif re.fullmatch(r"make|(\.venv/bin/)?python3?|pip", name) and words and "..." not in code:
            check_command(shlex.split(code), capsys)
        elif re.match(r"(examples|benchmarks|docs|tests|elektronn2)/[\w/]+\.\w+", name):
            assert (ROOT / name).is_file() or name == "docs/_build/html/index.html", f"there is no {name}"
            assert all(f'"{option}"' in (ROOT / name).read_text() for option in options(words)), code


# -- links and pictures ---------------------------------------------------------------------------------
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


@cache
def anchors(path):
    """Of the headings of a page, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures(page):
    for picture, text, target in LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        if target.startswith("#elektronn2."):  # an entry of the interface
            module, name = target[1:].rsplit(".", 1)
            assert hasattr(importlib.import_module(module), name), target
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        path = Path(os.path.normpath(str(path).replace("tutorials_pages/index.rst", "tutorials/README.rst")))
        assert path.exists(), f"{page} leads to {target}"
        assert not anchor or anchor in anchors(path), f"{page} leads to {target}, which has only {sorted(anchors(path))}"
        if picture:
            assert len(text.split()) > 3, f"{target} needs a text for those who do not see it"
            assert path.stat().st_size < 250_000, f"{target} is too large for a page"


def test_pictures_of_the_tutorials_have_a_text():
    for path in (DOCS / "tutorials").glob("*.py"):
        for name, text in re.findall(r"^# \.\. (?:image|figure):: (\S+)\n((?:#   .*\n)*)", path.read_text(), re.M):
            assert (DOCS / name.lstrip("/")).exists() and ":alt: " in text, f"{path.name}: {name}"


def test_every_picture_is_shown():
    shown = {Path(target).name for page in PAGES for picture, _, target in LINK.findall(PAGES[page]) if picture}
    shown |= {Path(name).name for path in (DOCS / "tutorials").glob("*.py")
              for name in re.findall(r":: (\S+\.png)", path.read_text())}
    assert {p.name for p in (DOCS / "images").rglob("*") if p.is_file()} == shown


# -- the site -------------------------------------------------------------------------------------------
def sphinx(*arguments):
    pytest.importorskip("sphinx", reason="needs what builds the site: pip install 'elektronn2[docs]'")
    result = subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", *map(str, arguments)], cwd=ROOT,
                            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr


def test_site_builds_without_a_warning(tmp_path):
    sphinx("-b", "dummy", "-d", tmp_path / "read", DOCS, tmp_path / "site")


class Page(HTMLParser):
    """What an HTML page refers to, and the anchors that it has."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.targets = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        self.targets += [attrs[name] for name in ("href", "src") if attrs.get(name)]


@pytest.mark.slow
def test_links_of_the_site(tmp_path):
    """Every link and picture of the built pages leads to a file, and to an anchor that this has."""
    sphinx("-d", tmp_path / "read", DOCS, tmp_path / "site")
    pages = {path: Page(path) for path in (tmp_path / "site").rglob("*.html")}
    assert len(pages) > 60
    for path, page in pages.items():
        for target in page.targets:
            url = urlsplit(target)
            if url.scheme in ("http", "https", "data") or target == "#":
                continue
            file = path.parent / unquote(url.path) if url.path else path
            file = Path(os.path.normpath(file / "index.html" if file.is_dir() else file))
            assert file.is_file(), f"{path.name} leads to {target}"
            assert not url.fragment or file not in pages or unquote(url.fragment) in pages[file].ids, (
                f"{path.name} leads to {target}")
