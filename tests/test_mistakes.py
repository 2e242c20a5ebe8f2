"""Every mistake in docs/mistakes.md is made, and the library must say what the page says that it does; so are some more.

A block ``py`` is run; a ``diff`` is applied to examples/laptop.py, which is then trained; a ``sh`` is one command.
The ``text`` block after it is the message, in which ``...`` stands for what differs between machines.
"""
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import h5py
import pytest
import torch

from elektronn2.config import config
from elektronn2.scripts import train
from elektronn2.training.trainer import memory_advice
from elektronn2.utils.basic import h5load, out_of_memory

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


MORE = [
    # names of files, and files of another kind
    ("py", "nm.model.modelload('em/raw_0.h5')", "em/raw_0.h5 is no model file of this library, but an h5 file."),
    ("py", "model.save('net-FINAL.mdl'); nm.model.modelload('net-FINLA.mdl')",
     "net-FINLA.mdl. Did you mean 'net-FINAL.mdl'?"),
    ("py", "nm.model.modelload('em')", "There is no model file em. It is a folder: name a file in it."),
    ("py", "nm.model.modelload('runs/a.mdl')", "There is no model file runs/a.mdl. There is no folder runs either."),
    ("sh", "elektronn2-train em/raw_0.h5", "em/raw_0.h5 is no text in UTF-8 (byte 0x89 in line 1). If it is a Python file"),
    ("sh", "elektronn2-predict net.mdl net-FINAL.mdl out.h5", "net-FINAL.mdl is a model, not a volume. The order is"),
    ("sh", "elektronn2-predict net.mdl em/raw_0.h5:raw out.tif",
     "out.tif: the output is an h5 file; give it the suffix .h5."),
    # configs
    ("diff", "+create_model = create_model()\n", "must be a function that returns the model; got a model: leave out"),
    ("diff", '-optimiser = "AdamW"\n+optimiser = "AdamW"\n+device = "cuda:99"\n',
     "has 1 problem: config.device = 'cuda:99': PyTorch can use ... GPUs on this machine"),
    ("diff", "+model_load_path = 'my_confg.py'\n", f"no file {HOME}/my_confg.py. Did you mean 'my_config.py'?"),
    ("diff", "+class_weights = [1, 2]\n",
     "loss needs 2 inputs (raw, target), but 3 were given. The last input is class_weights"),
    ("diff", "-    out = nm.Conv(inp, 16, (1, 4, 4), (1, 2, 2))\n+    out = nm.Conv3d(inp, 16, (1, 4, 4), (1, 2, 2))\n",
     "no attribute 'Conv3d'. Did you mean 'Conv'? my_config.py, line N: out = nm.Conv3d(inp"),
    ("diff", "-    out = nm.Conv(inp, 16, (1, 4, 4), (1, 2, 2))\n+    out = nm.Conv(imp, 16, (1, 4, 4), (1, 2, 2))\n",
     f'Traceback (most recent call last): File "{HOME}/my_config.py", line N, in create_model'),
    # nodes
    ("py", "nm.Conv(raw, 8, (1, 4, 4))", "its parent must be one node, got an array of shape (16, 130, 130)."),
    ("py", "nm.Concat(scores, scores)", "Concat needs a list of nodes, got one node, 'conv1'. Write Concat([a, b])."),
    ("py", "x = nm.Input((1, 1, None, None), 'b,f,x,y')\n"
     "nm.networks.classifier(nm.Conv(x, 2, 3, activation_func='lin'))",
     "the sizes of 'probs1', 'target1' on axes x,y are open, so they cannot be told to go together. Give the input a size"),
    ("py", "model.predict(raw[:5, :23, :23].astype('float32'))", "does not fit (axes are missing; x[None, None] adds them"),
    # data
    ("py", "BatchCreatorImage(model.input_node, model.target_node, 'em', 'em', ('raw_0.h5', 'raw'), [('ids_0.h5', 'ids')])",
     "d_files must be a list of pairs; of one pair it is [('raw_0.h5', 'raw')]."),
    ("py", "BatchCreatorImage(model, None, 'em', 'em', [('raw_0.h5', 'raw')], [('ids_0.h5', 'ids')])",
     "BatchCreatorImage needs target_node. A model has one after model.designate_nodes(target_node=...)"),
    ("py", "read().getbatch('train')", "batch_size must be one integer, got 'train'."),
    ("py", "model.predict_dense(raw[None, :6, :30, :30].astype('float32'))",
     "the image holds values like ... Integers are scaled to 0..1, floats are taken as they are"),
]


@pytest.mark.parametrize("kind, code, message", MORE)
def test_more_mistakes(kind, code, message, folder, capsys):
    test_mistake(kind, code, message, folder, capsys)


def test_a_config_for_a_device_that_is_not_there_leaves_no_folder(folder, capsys):
    run_config("+device = 'cuda:99'\n", capsys)
    assert [p.name for p in (folder / "elektronn2_training").iterdir()] == ["first_try"]


def test_a_full_disk_leaves_no_folder(folder, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("elektronn2.training.trainutils.shutil.copy", full)
    said = run_config("+save_name = 'second'\n", capsys)
    assert "elektronn2_training/second, cannot be filled (No space left on device). Set save_path to a place " in said
    assert [p.name for p in (folder / "elektronn2_training").iterdir()] == ["first_try"]


def test_an_h5_file_that_is_open_for_writing(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = [1]
        file.flush()
        code = f"from elektronn2.utils import h5load; h5load({str(tmp_path / 'a.h5')!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        assert "a.h5 is open for writing in another program, such as a notebook. Close it there." in other.stderr
    assert h5load(tmp_path / "a.h5") == [1]


def test_memory_that_runs_out(folder, monkeypatch, capsys):
    """Errors of torch are known; training and prediction say how to do with less."""
    with pytest.raises(RuntimeError) as error:
        torch.empty(2 ** 50)
    assert out_of_memory(error.value) and not out_of_memory(RuntimeError("shapes differ"))
    assert "lower batch_size" in memory_advice(error.value) and memory_advice(ValueError("no")) == ""

    def lacking(*_, **__):
        raise error.value
    monkeypatch.setattr("elektronn2.neuromancer.function.Function.tensors", lacking)
    assert "predict tiles of (5, 23, 23) voxels. Load the model with a smaller imposed_patch_size" in run_python(
        "model.predict_dense(raw[None])", capsys)
    said = plain(run_config("+history_freq = 0\n", capsys))
    assert "too little memory: lower batch_size, or make the input patch or the network smaller. Training ended." in said


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
