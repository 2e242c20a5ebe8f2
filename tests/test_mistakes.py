"""Every mistake in docs/mistakes.md is made, and the library must say what the page says that it does.

A block ``py`` is run; a ``diff`` is applied to examples/laptop.py, which is then trained; a ``sh`` is one command.
The ``text`` block after it is the message, in which ``...`` stands for what differs between machines.
"""
import logging
import os
import re
import shlex
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from elektronn2.config import config
from elektronn2.scripts import train

ROOT = Path(__file__).resolve().parents[1]
HOME = "/home/you"  # of whom the page shows
PAGE = (ROOT / "docs" / "mistakes.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^### (?P<title>[^\n]*)$|^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


def read_page():
    """The code that the page begins with, and a list of (title, kind, code, message)."""
    setup, mistakes, title, code = "", [], None, None
    for block in BLOCK.finditer(PAGE):
        if block["title"]:
            title = block["title"]
        elif title is None:
            setup += block["text"]
        elif block["kind"] == "text":
            mistakes.append((title, *code, block["text"]))
        else:
            code = block["kind"], block["text"]
    return setup, mistakes


SETUP, MISTAKES = read_page()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with what the page takes for granted."""
    folder = tmp_path_factory.mktemp("you")
    here = os.getcwd()
    os.chdir(folder)
    try:
        exec(SETUP, {})
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def folder(data, monkeypatch):
    monkeypatch.chdir(data)
    monkeypatch.setattr(config, "save_path", str(data / "elektronn2_training"))
    monkeypatch.setenv("ELEKTRONN2_DATA", str(data / "em"))
    shutil.copy(ROOT / "examples" / "laptop.py", "my_config.py")
    (data / "elektronn2_training" / "first_try").mkdir(parents=True)
    yield data
    shutil.rmtree(data / "elektronn2_training", ignore_errors=True)


def test_there_are_thirty_and_each_has_its_message():
    assert len(MISTAKES) == len({title for title, *_ in MISTAKES}) == PAGE.count("\n### ") == 30
    assert {kind for _, kind, *_ in MISTAKES} == {"py", "diff", "sh"}


@pytest.mark.parametrize("kind, code, message", [pytest.param(*m[1:], id=m[0]) for m in MISTAKES])
def test_mistake(kind, code, message, folder, capsys):
    logging.getLogger("elektronn2log").setLevel(logging.INFO)
    said = {"py": run_python, "diff": run_config, "sh": run_command}[kind](code, capsys)
    said, wanted = plain(said.replace(str(folder), HOME)), plain(message)
    assert re.search(".*".join(map(re.escape, wanted.split("..."))), said), said


def plain(text):
    """A text in one line, without the numbers of lines, which change whenever an example is edited."""
    return re.sub(r"line \d+", "line N", " ".join(text.split()))


def run_python(code, capsys):
    """What the last line raises, or logs."""
    namespace = {}
    exec(SETUP, namespace)
    capsys.readouterr()
    try:
        exec(code, namespace)
    except Exception as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        return "\n".join([f"{type(error).__name__}: {text}", *getattr(error, "__notes__", ())])
    return capsys.readouterr().err


def run_config(changes, capsys):
    """What a training says whose config has the lines with + instead of those with -."""
    path = Path("my_config.py")
    text, old, new = path.read_text(), "", ""
    for line in [*changes.splitlines(), " "]:
        if line[:1] == "-":
            old += f"{line[1:]}\n"
        elif line[:1] == "+":
            new += f"{line[1:]}\n"
        elif old or new:
            assert not old or text.count(old) == 1, old
            text, old, new = (text.replace(old, new) if old else f"{text}\n{new}"), "", ""
    path.write_text(text)
    assert train.main(["my_config.py", "--gpu=none"]) in (1, 2)
    return capsys.readouterr().err


def run_command(line, capsys):
    """What a command says that fails."""
    name, *arguments = shlex.split(line)
    command, = (e for e in entry_points(group="console_scripts") if e.name == name)
    assert command.load()(arguments) == 2
    return capsys.readouterr().err
