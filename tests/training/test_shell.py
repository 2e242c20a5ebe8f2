"""The shell: commands without a terminal, and a whole session driven through a pseudo-terminal."""
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from configs import write_config
from IPython.core.completer import provisionalcompleter

from elektronn2.config import config
from elektronn2.training import shell as shell_module
from elektronn2.training.shell import Shell
from elektronn2.training.trainer import Trainer
from elektronn2.training.trainutils import ExperimentConfig, login

pexpect = pytest.importorskip("pexpect")


@pytest.fixture
def trainer(tmp_path):
    return Trainer(ExperimentConfig(write_config(tmp_path)))


@pytest.fixture
def shell(trainer, monkeypatch):
    """A shell whose cells are run one by one, as if typed."""
    shell = Shell(trainer)
    said = []
    monkeypatch.setattr(shell_module.Shell, "say", staticmethod(said.append))
    monkeypatch.setattr(shell.ip, "mainloop", lambda **_: None)
    shell.interact()
    said.clear()

    def type_in(line):
        said.clear()
        shell.ip.run_cell(line)
        return "\n".join(said)
    shell.type = type_in
    return shell


def test_scope_holds_trainer_config_and_network(shell, trainer):
    ns = shell.ip.user_ns
    for name in ("self", "trainer", "model", "data", "exp_config", "config", "nm", "np"):
        assert name in ns
    assert ns["self"] is ns["trainer"] is trainer
    assert ns["voxel_loss"] is trainer.model["nll"]  # a local variable of create_model
    assert ns["conv2"] is trainer.model["conv2"]  # a node by name
    assert ns["n_steps"] == 12 and ns["data_batch_args"] is trainer.exp_config.data_batch_args


@pytest.mark.parametrize("line, value", [("setlr 1e-4", 1e-4), ("setmom 0.5", 0.5), ("setwd 2e-3", 2e-3)])
def test_hyper_parameters(shell, trainer, line, value):
    assert "from the next step on" in shell.type(line)
    assert getattr(trainer.model, line[3:].split()[0]) == value


@pytest.mark.parametrize("line, answer", [
    ("setlr", "the form is: setlr X"), ("setlr a", "'a' is no number"), ("setlr -1", "must be a number of at least 0"),
    ("sethist 2.5", "no whole number"), ("sethist -3", "integer of at least 0"), ("sf none", "there is no node 'none'"),
    ("load none.mdl", "none.mdl"), ("setlr 1 2", "the form is")])
def test_wrong_arguments_are_explained(shell, trainer, line, answer):
    before = trainer.model.lr
    assert answer in shell.type(line)
    assert trainer.model.lr == before and shell.go_on


def test_the_page_of_the_shell_has_all_commands(shell):
    page = (Path(__file__).parents[2] / "docs" / "shell.md").read_text()
    forms, effects = zip(*(f.__doc__.split(" -- ") for f in shell.commands.values()))
    table = page.split("## All commands")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == sorted(forms)
    for form, effect in zip(forms, effects):  # in the session that is shown
        assert re.search(rf"^  {form} +{re.escape(effect)}$", page, re.MULTILINE)


def test_the_page_of_the_shell_tells_what_is_in_scope(shell, trainer):
    page = (Path(__file__).parents[2] / "docs" / "shell.md").read_text()
    named = {name for row in re.findall(r"^\| (`.+?) \|", page.split("## What is in scope")[1], re.MULTILINE)
             for name in re.findall(r"`(\w+)`", row)}
    trainer.loop = type("Loop", (), dict(step=3, loss=0.5, batch=None, seconds=0.1))
    assert named == {"self", "trainer", "model", "data", "batch", "loss", "i", "t", "exp_config", "config", "np", "nm"}
    assert named <= set(shell.make_scope()) - set(trainer.exp_config.namespace) | {"np", "nm"}


def test_words_are_matched_exactly(shell, trainer):
    for line in ("loader = 1", "preview = 3", "q = 5", "setlr = 2", "help(len)", "killer = 2", "q + 1"):
        shell.type(line)
    ns = shell.ip.user_ns
    assert ns["loader"] == 1 and ns["preview"] == 3 and ns["q"] == 5 and ns["setlr"] == 2 and ns["killer"] == 2
    assert shell.go_on


def test_assignments_take_effect_or_say_why_not(shell, trainer):
    assert "history_freq = 3 from the next step on" in shell.type("history_freq = 3")
    assert trainer.exp_config.history_freq == 3
    assert "lr = 0.25" in shell.type("lr = 0.25") and trainer.model.lr == 0.25
    shell.type("model.lr = 0.5")
    assert trainer.model.lr == 0.5
    shell.type("data_batch_args['warp'] = 0.0")
    assert trainer.exp_config.data_batch_args["warp"] == 0.0
    assert "optimiser_params" in shell.type("optimiser_params['lr'] = 0.125") and trainer.model.lr == 0.125
    assert "was not changed: 'batch_size' is used when a run begins" in shell.type("batch_size = 4")
    assert "was not changed: 'n_steps' must be an integer" in shell.type("n_steps = 'a'")
    assert shell.ip.user_ns["n_steps"] == 12
    shell.type("schedules = {'lr': {'dec': 0.5}}")
    assert "0.5" in repr(trainer.schedules["lr"])
    assert "was not changed" in shell.type("schedules = {'lr': {'deck': 0.5}}")
    trainer.loop = type("Loop", (), dict(step=3, loss=0.5, batch=None, seconds=0.1))
    shell.interact()
    assert "is a copy" in shell.type("i = 100")


def test_refused_changes_are_taken_back(shell, trainer):
    exp = trainer.exp_config
    shell.type("schedules = {'lr': {'dec': .5}}")
    assert "was not changed" in shell.type("schedules['lr'] = {'cosine': -3}")
    assert exp.schedules == shell.ip.user_ns["schedules"] == {"lr": {"dec": 0.5}}
    before = dict(exp.data_batch_args)
    assert "was not changed: getbatch has no argument 'warpp'" in shell.type("data_batch_args['warpp'] = .2")
    assert exp.data_batch_args == before and shell.ip.user_ns["data_batch_args"] is exp.data_batch_args
    assert "was not changed" in shell.type("data_init_kwargs['aniso_factor'] = 9")
    assert exp.data_init_kwargs["aniso_factor"] == 1
    assert "was not changed" in shell.type("class_weights = [1, 2]") and exp.class_weights is None
    assert "was not changed" in shell.type("mom = 2")


def test_what_is_shown_is_what_is(shell, trainer):
    shell.type("lr = 1e-3")
    shell.type("model.lr = 3e-4")
    assert shell.ip.user_ns["lr"] == 3e-4
    assert "lr = 0.001" in shell.type("lr = 1e-3") and trainer.model.lr == 1e-3


def test_settings_of_the_library(shell):
    assert "plot_on = False" in shell.type("plot_on = False") and config.plot_on is False
    assert "param_save_it must be an integer" in shell.type("param_save_it = 0") and config.param_save_it == 10000
    assert "'seed' is used when a run begins" in shell.type("seed = 4")


def test_another_optimiser_keeps_the_hyper_parameters_that_it_has(shell, trainer):
    shell.type("optimiser = 'SGD'")
    assert trainer.exp_config.optimiser == "SGD" and set(trainer.exp_config.optimiser_params) == {"lr", "mom", "wd"}
    assert "optimiser_params" in shell.type("optimiser_params['lr'] = 0.5") and trainer.model.lr == 0.5


def test_all_hyper_parameters_of_the_optimiser_can_be_assigned(shell, trainer):
    for line in ("ema = 0.9", "clip_norm = 2.0", "clip_value = None", "beta2 = 0.95"):
        shell.type(line)
    model = trainer.model
    assert (model.ema, model.clip_norm, model.clip_value, model.beta2) == (0.9, 2.0, None, 0.95)
    assert "ema was not changed: Hyper-parameter 'ema' must be" in shell.type("ema = 2") and model.ema == 0.9
    assert "nesterov was not changed: AdamW has no hyper-parameter 'nesterov'" in shell.type("nesterov = True")
    assert shell.ip.user_ns["nesterov"] is False is model.nesterov


def test_findnan(shell, trainer):
    assert shell.type("findnan") == "Everything is finite."
    trainer.model["conv2"].b.tensor.data[0] = float("nan")
    assert "because of parameter 'b' of node 'conv2' (1 of 4 values)" in shell.type("findnan")


def test_large_arrays_are_summarised(shell, capsys):
    shell.type("np.zeros((50, 50)), np.ones(2)")
    out = capsys.readouterr().out
    assert "<array (50, 50) float64, 0 to 0>" in out and "array([1., 1.])" in out


def test_commands_write_what_they_promise(shell, trainer):
    folder = trainer.save_path
    shell.type("sf conv2")
    shell.type("preview")
    shell.type("debugbatch")
    names = [p.name for p in folder.iterdir()]
    assert "filters_conv2.png" in names and "Batch_test_image.png" in names
    assert "run-pred-0-z0-c1-0hrs.png" in names and "run-raw-0-z1.png" in names
    for line in ("paramstats", "gradstats", "actstats", "help"):
        shell.type(line)
    shell.type("save a.mdl")
    assert "a.mdl exists" in shell.type("save a.mdl")
    before = trainer.model["conv2"].params["w"].get_value()
    trainer.model["conv2"].params["w"].set_value(0 * before)
    shell.type("load a.mdl")
    np.testing.assert_array_equal(trainer.model["conv2"].params["w"].get_value(), before)


def test_kill_and_q(shell):
    shell.type("kill")
    assert not shell.go_on
    shell.interact()
    shell.type("q")
    assert shell.go_on


def completed(shell, text):
    """The line after each completion that is offered at its end."""
    with provisionalcompleter():
        return [text[:c.start] + c.text + text[c.end:] for c in shell.ip.Completer.completions(text, len(text))]


@pytest.mark.parametrize("text, wanted", [("setl", "setlr"), ("sf con", "sf conv2"), ("sethi", "sethist"), ("hel", "help"),
                                          ("model.design", "model.designate_nodes"), ("voxel", "voxel_loss")])
def test_completion(shell, text, wanted):
    assert any(wanted in line for line in completed(shell, text))


def test_completion_of_files(shell, tmp_path):
    (tmp_path / "weights.mdl").write_text("")
    assert f"load {tmp_path}/weights.mdl" in completed(shell, f"load {tmp_path}/wei")
    assert f"x = '{tmp_path}/weights.mdl" in completed(shell, f"x = '{tmp_path}/wei")


@pytest.fixture
def session(tmp_path):
    """A training run in a pseudo-terminal."""
    path = write_config(tmp_path, change={"n_steps = 12": "n_steps = 10**6", "history_freq = 5": "history_freq = 200"})
    child = pexpect.spawn(sys.executable, ["-m", "elektronn2.scripts.train", str(path), "--gpu=none"], timeout=90,
                          encoding="utf-8", dimensions=(40, 120),
                          env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm",
                               "PROMPT_TOOLKIT_NO_CPR": "1"})  # else it waits for an answer that no terminal gives
    child.folder = tmp_path / "runs" / "run"
    child.log = child.folder / "0-run.log"
    child.prompt = re.escape(f"{login()}@ELEKTRONN2: ")
    yield child
    child.close(force=True)


def enter(child):
    child.sendintr()
    child.expect(child.prompt)


def test_a_session_in_a_terminal(session):
    """Train, Ctrl+C, setlr, preview, debug_getcnnbatch, Ctrl+C, a mistake, q, mended, q, train on, Ctrl+C, Ctrl-D, train on,
    Ctrl+C, kill."""
    session.expect("00200, L_m=")
    enter(session)
    for line, answer in (("setlr 1e-4", r"lr = 0.0001 from the next step on"), ("preview", r"Wrote \d+ preview images"),
                         ("self.debug_getcnnbatch()", r"Drew .*Batch_test_image.png"),
                         ("conv2.shape.ext_repr", r"\(4,f\)"), ("voxel_loss", "MultinoulliNLL-Node"),
                         ("print('four', 2 + 2)", "four 4"), ("1 / 0", "ZeroDivisionError")):
        session.sendline(line)
        session.expect(answer)
        session.expect(session.prompt)
    # Ctrl+C at the prompt leaves the shell open
    session.sendintr()
    session.sendline("6 * 7")
    session.expect(r"\D42\D")
    session.expect(session.prompt)
    # what is refused, is said; a step that fails opens the shell again
    for line, answer in (("data_batch_args['wrap'] = 1", "was not changed: getbatch has no argument 'wrap'"),
                         ("model.trainingstep = lambda *_, **__: [][3]; print('bro' 'ken')", "broken"),
                         ("q", "IndexError: list index out of range"),
                         ("del model.trainingstep; print('men' 'ded')", "mended")):
        session.sendline(line)
        session.expect(answer)
        session.expect(session.prompt)
    session.sendline("q")
    session.expect(r"00\d00, L_m=.*LR=1\.00e-04")
    enter(session)
    session.sendcontrol("d")
    session.expect("Training goes on. .* kill ends the run")
    session.expect(r"L_m=")
    enter(session)
    session.sendline("kill")
    session.expect("Ended by the user")
    session.expect(pexpect.EOF)
    session.close()
    assert session.exitstatus == 0
    names = {p.name for p in session.folder.iterdir()}
    assert {"run-FINAL.mdl", "run-LAST.mdl", "Batch_test_image.png", "1-model-graph.png", "1-model-graph.html", "0-small.py",
            "0-run.log", "0-EVAL-needed", "0-run.timeline.png", "0-run.history.png"} <= names
    log = session.log.read_text()
    for part in ("setlr 1e-4", "four 4", "ZeroDivisionError", "L_m=", "ELEKTRONN2: kill", "<Conv-Node> 'conv2'"):
        assert part in log, part
