"""The interactive shell of a training run: IPython, with short commands for what is done most.

Whatever is typed that is no command is Python. In scope are the trainer's state (``self`` and ``trainer``, ``model``,
``data``, ``batch``, ``loss``, ``i``, ``exp_config``, ``config``), what the config file defined, and the nodes by name.
"""
import contextlib
import glob
import io
import logging
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from IPython.core.completer import SimpleCompletion, context_matcher
from IPython.terminal.embed import InteractiveShellEmbed
from IPython.terminal.prompts import Prompts, Token
from traitlets.config import Config as Settings

import elektronn2.neuromancer as nm
from elektronn2.config import config
from elektronn2.neuromancer.optimiser import OPTIMISERS
from elektronn2.training.preview import write_png
from elektronn2.training.trainutils import DEFAULTS, HYPER, VARIABLES, login
from elektronn2.utils import plotting
from elektronn2.utils.validate import suggest

logger = logging.getLogger("elektronn2log")

# a word, and what follows unless it makes the line a Python expression or assignment
_COMMAND = re.compile(r"\s*(\w+)(?:\s+(?![=(\[,:+*%<>!&|]|[-/]\s|(?:in|is|and|or|if|not)\s)(.*))?\s*$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
AT_START = ("seed", "save_path", "overwrite", "backupsrc", "background_processes", "use_ortho_init",
            "time_per_step_smoothing_length")  # settings of the library that a run reads once
COPIES = ("i", "loss", "batch", "t")  # of what the loop holds: binding them anew changes nothing


class _Prompts(Prompts):
    def in_prompt_tokens(self):
        return [(Token.Prompt, f"{login()}@ELEKTRONN2: ")]

    def continuation_prompt_tokens(self, width=None, **_):
        return [(Token.Prompt, " " * ((width or 5) - 5) + "...: ")]

    def out_prompt_tokens(self):
        return []


class _Tee(io.TextIOBase):
    """Passes text on and keeps what was written."""

    def __init__(self, stream):
        self.stream, self.text = stream, io.StringIO()

    def write(self, text):
        self.text.write(text)
        return self.stream.write(text)

    def flush(self):
        self.stream.flush()

    def isatty(self):
        return self.stream.isatty()

    def fileno(self):
        return self.stream.fileno()

    @property
    def encoding(self):
        return self.stream.encoding


class Shell:
    """The shell of one trainer; :meth:`interact` opens it. It keeps variables and history from one time to the next."""

    def __init__(self, trainer):
        self.trainer = trainer
        self.go_on = True
        self.commands = {name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")}
        settings = Settings()
        settings.HistoryManager.enabled = False  # no file for the history
        settings.TerminalInteractiveShell.confirm_exit = False
        settings.TerminalInteractiveShell.prompts_class = _Prompts
        settings.TerminalInteractiveShell.separate_in = ""
        settings.TerminalInteractiveShell.term_title = False
        settings.TerminalInteractiveShell.autosuggestions_provider = "AutoSuggestFromHistory"
        self._folder = tempfile.TemporaryDirectory(prefix="elektronn2-shell-")
        with _ipython_folder(self._folder.name):
            self.ip = InteractiveShellEmbed(config=settings, banner1="", banner2="", user_ns={})
        self.ip.input_transformers_cleanup.append(self._to_call)
        self.ip.Completer.custom_matchers.append(self._matcher())
        self.ip.events.register("pre_run_cell", self._before_cell)
        self.ip.events.register("post_run_cell", self._after_cell)
        plain = self.ip.display_formatter.formatters["text/plain"]
        plain.for_type(np.ndarray, _print_array)
        self._redirect, self._opened = None, False

    # -- scope -----------------------------------------------------------------------------------
    def make_scope(self):
        """Name -> object; the trainer's state goes before the config file's names, and these before nodes."""
        trainer, loop = self.trainer, self.trainer.loop
        exp, model = trainer.exp_config, trainer.model
        scope = {k: v for k, v in model.nodes.items() if k.isidentifier()}
        scope |= {k: v for k, v in trainer.created.items() if not k.startswith("_")}
        scope |= {k: v for k, v in exp.namespace.items() if not k.startswith("__")}
        scope |= self._current()
        scope |= dict(np=np, nm=nm, config=config, self=trainer, trainer=trainer, model=model, data=trainer.data,
                      exp_config=exp, __elektronn2__=self.command)
        if loop:
            scope |= dict(i=loop.step, loss=loop.loss, batch=loop.batch, t=loop.seconds)
        return scope

    def _current(self):
        """Settings of run, library and model as they are, by the names under which they can be assigned."""
        exp, model = self.trainer.exp_config, self.trainer.model
        return {**{k: getattr(exp, k) for k in DEFAULTS}, **vars(config),
                **{k: getattr(model, k) for k in VARIABLES if k != "mixing"}}

    def interact(self):
        """Read and run commands until the user leaves. Returns whether training shall go on."""
        self.go_on = True
        self.ip.user_ns.update(self.make_scope())
        self._before = self._values()
        if self._opened:
            self.say(f"\nELEKTRONN2 training shell >> {self.trainer.save_name} << (help: all commands)\n")
        else:
            self.do_help()
        self._opened = True
        self.ip.keep_running = True
        with _ipython_folder(self._folder.name):
            self.ip.mainloop(local_ns=self.ip.user_ns, module=self.ip.user_module)
        if self.go_on:
            self.say("Training goes on. (Ctrl+C opens the shell again; there, kill ends the run.)")
        return self.go_on

    # -- commands --------------------------------------------------------------------------------
    def _to_call(self, lines):
        """Turn a line that is a command into a call of it; leave Python alone."""
        match = _COMMAND.match(lines[0]) if len(lines) == 1 else None
        if match is None or match[1] not in self.commands:
            return lines
        return [f"__elektronn2__({match[1]!r}, {(match[2] or '').split()!r})\n"]

    def command(self, name, arguments):
        """Run a command; a wrong argument is explained and nothing else happens."""
        function = self.commands[name]
        wanted = function.__code__.co_argcount - 1
        least = wanted - len(function.__defaults__ or ())
        if not least <= len(arguments) <= wanted:
            self.say(f"Not done; the form is: {function.__doc__}")
            return
        try:
            function(*arguments)
        except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
            self.say(f"{name} {' '.join(arguments)}: {error.args[0] if isinstance(error, KeyError) else error}")

    @staticmethod
    def say(text):
        logger.info("%s", text)

    def do_help(self):
        """help -- this list"""
        width = max(len(f.__doc__.split(" -- ")[0]) for f in self.commands.values())
        rows = (f.__doc__.split(" -- ") for f in self.commands.values())
        table = "\n".join(f"  {left:<{width}}  {right}" for left, right in sorted(rows))
        title = "ELEKTRONN2 training shell"
        self.say(f"\n{'=' * 70}\n{title:^70}\n>> {self.trainer.save_name} <<\n{'=' * 70}\n{table}\n"
                 "Anything else is Python. In scope: self (the trainer), model, data, batch, exp_config, config,\n"
                 "what the config file defined, and the nodes by name. Ctrl-D and exit leave like q.\n")

    def do_q(self):
        """q -- leave the shell and go on training"""
        self.ip.ask_exit()

    def do_kill(self):
        """kill -- save the final model and end training"""
        self.go_on = False
        self.ip.ask_exit()

    def do_sethist(self, n):
        """sethist N -- monitor, save and plot every N steps"""
        self._set("history_freq", self._number(n, int))

    def do_setlr(self, value):
        """setlr X -- set the learning rate"""
        self._set("lr", self._number(value, float))

    def do_setmom(self, value):
        """setmom X -- set the momentum"""
        self._set("mom", self._number(value, float))

    def do_setwd(self, value):
        """setwd X -- set the weight decay"""
        self._set("wd", self._number(value, float))

    def do_sf(self, node=None):
        """sf NODE -- draw the filters of a node into filters_NODE.png"""
        model = self.trainer.model
        if node is not None and node not in model:
            raise KeyError(f"there is no node {node!r}.{suggest(node, model.nodes)} Nodes with filters: {self._filtered()}.")
        if node is None or "w" not in model[node].params:
            if node is not None:
                self.say(f"{node} has no filters; these have: {', '.join(self._filtered())}")
            node = self._filtered()[0]
        path = self.trainer.save_path / f"filters_{node}.png"
        tiles = plotting.embedfilters(model[node].params["w"].get_value(), normalize=True)
        size = max(1, 800 // max(tiles.shape[:2]))  # screen pixels per weight
        write_png(path, tiles.repeat(size, 0).repeat(size, 1).swapaxes(0, 1))
        self.say(f"Drew the filters of {node} into {path}")

    def do_preview(self):
        """preview -- predict the preview cubes and write images"""
        self.trainer.try_preview()

    def do_paramstats(self):
        """paramstats -- mean, deviation and size of each parameter"""
        self.trainer.model.paramstats()

    def do_gradstats(self):
        """gradstats -- the same of the gradients, for the last batch"""
        self.trainer.model.gradstats(*self._batch())

    def do_actstats(self):
        """actstats -- the same of the values of the nodes, for the last batch"""
        self.trainer.model.actstats(*self._batch())

    def do_findnan(self):
        """findnan -- where NaN and infinite values begin, for the last batch"""
        self.say(self.trainer.model.find_nonfinite(*self._batch()) or "Everything is finite.")

    def do_debugbatch(self):
        """debugbatch -- draw a training example into Batch_test_image.png"""
        self.trainer.debug_getcnnbatch()

    def do_load(self, file):
        """load FILE -- take the parameters from a model file"""
        path = os.path.expanduser(file.strip("'\""))
        path = path if os.path.exists(path) else self.trainer.save_path / path
        self.trainer.model.set_param_values(path, skip_const=True)
        self.trainer.model.reset_optimisers()
        self.say(f"Took the parameters from {path}; the optimiser begins without momentum")

    def do_save(self, file):
        """save FILE -- write the model into a new file, in the folder of the run"""
        path = self.trainer.save_path / Path(file.strip("'\"")).expanduser()
        if path.exists():
            raise FileExistsError(f"{path} exists. Name another file.")
        self.trainer.model.save(path, optimiser_state=True)
        self.say(f"Wrote the model and the state of the optimiser to {path}")

    def do_ip(self):
        """ip -- a plain IPython within, left with exit or Ctrl-D"""
        inner = InteractiveShellEmbed(banner1="IPython; exit or Ctrl-D returns to the training shell.\n", banner2="",
                                      config=self.ip.config.__class__(HistoryManager=dict(enabled=False)))
        inner(local_ns=self.ip.user_ns, stack_depth=1)

    @staticmethod
    def _number(text, kind):
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is no {'whole number' if kind is int else 'number'}") from None

    def _filtered(self):
        return [k for k, n in self.trainer.model.nodes.items() if "w" in n.params]

    def _batch(self):
        loop = self.trainer.loop
        return loop.batch if loop and loop.batch is not None else self.trainer.make_batch(0)

    # -- settings typed as variables --------------------------------------------------------------
    def _set(self, name, value):
        """Set a hyper-parameter of the model or a setting of the run, and say so."""
        self._assign(name, value)
        self.say(f"{name} = {value!r} from the next step on")

    def _values(self):
        """What can be set by assignment, with copies of dicts, to notice changes."""
        ns = self.ip.user_ns
        names = (*DEFAULTS, *vars(config), *VARIABLES, *COPIES)
        return {k: _copy(ns[k]) for k in names if k in ns}

    def _take_over(self):
        """Let assignments to settings take effect, or say why they do not; then show everything as it is."""
        ns, old = self.ip.user_ns, self._before
        for name in [k for k in self._values() if k not in old or not _same(ns[k], old[k])]:
            if name in COPIES:
                self.say(f"{name} is a copy of what the training loop holds; assigning to it changes nothing.")
                continue
            try:
                self._assign(name, ns[name])
                self.say(f"{name} = {ns[name]!r} from the next step on")
            except Exception as error:  # of whatever the setting leads to
                self._restore(name, ns[name], old.get(name))
                self.say(f"{name} was not changed: {error.args[0] if isinstance(error, KeyError) else error}")
        ns.update(self._current())
        self._before = self._values()

    def _assign(self, name, value):
        """Set one setting of the model, the run or the library, and all that follows from it."""
        trainer, exp = self.trainer, self.trainer.exp_config
        if name in HYPER:
            trainer.model.set_opt_meta_params(exp.optimiser, {name: value})
        elif name in VARIABLES:
            setattr(trainer.model, name, value)
        elif name in vars(config):
            if name in AT_START:
                raise ValueError(f"{name!r} is used when a run begins and cannot be changed in it")
            setattr(config, name, value)
        else:
            setattr(exp, name, value)
        if name == "optimiser":
            known = OPTIMISERS[value].meta
            exp.optimiser_params = {k: v for k, v in exp.optimiser_params.items() if k in known}
            trainer.model.set_opt_meta_params(value, {})
        elif name == "optimiser_params":
            trainer.model.set_opt_meta_params(exp.optimiser, value)
        elif name == "schedules":
            trainer.schedules = trainer.bind_schedules()
        elif name in ("data_batch_args", "class_weights"):
            trainer.check_batch()

    def _restore(self, name, value, old):
        """Take back an assignment, or a change within a dict, that was refused."""
        if isinstance(value, dict) and isinstance(old, dict):
            value.clear()
            value.update(old)
        if name in DEFAULTS:
            self.trainer.exp_config.__dict__[name] = value if isinstance(value, dict) and isinstance(old, dict) else old

    # -- events ----------------------------------------------------------------------------------
    def _before_cell(self, info):
        logger.debug("%s@ELEKTRONN2: %s", login(), info.raw_cell.rstrip() if info.raw_cell else "")
        self._out = _Tee(sys.stdout)
        self._redirect = contextlib.redirect_stdout(self._out)
        self._redirect.__enter__()

    def _after_cell(self, result):
        if self._redirect is None:
            return
        self._redirect.__exit__(None, None, None)
        self._redirect = None
        if text := _COLOUR.sub("", self._out.text.getvalue()).rstrip():
            logger.debug("%s", text)
        if isinstance(result.error_in_exec, KeyboardInterrupt):
            self.say("Interrupted. Type q to go on training, kill to end it.")
        self._take_over()

    # -- completion ------------------------------------------------------------------------------
    def _matcher(self):
        commands, nodes = self.commands, self.trainer.model.nodes

        @context_matcher()
        def elektronn2_matcher(context):
            words = context.line_with_cursor.lstrip().split(" ")
            found = []
            if len(words) == 1:
                found = [(c, "shortcut") for c in commands if c.startswith(context.token)]
            elif words[0] == "sf":
                found = [(n, "node") for n in nodes if n.startswith(context.token)]
            elif words[0] == "load":
                text = words[-1]
                paths = [p + os.sep * os.path.isdir(p) for p in glob.glob(glob.escape(os.path.expanduser(text)) + "*")]
                found = [(p[len(os.path.expanduser(text)) - len(context.token):], "file") for p in paths]
            return {"completions": [SimpleCompletion(t, type=k) for t, k in found],
                    "suppress": bool(found) and len(words) > 1}
        return elektronn2_matcher


@contextlib.contextmanager
def _ipython_folder(folder):
    """Let IPython keep its files in ``folder``, not in the user's home."""
    before = os.environ.get("IPYTHONDIR")
    os.environ["IPYTHONDIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["IPYTHONDIR"]
        else:
            os.environ["IPYTHONDIR"] = before


def _print_array(array, printer, cycle):
    """Large arrays by shape, type and range, small ones in full."""
    if array.size <= 100 or array.dtype.kind not in "iufb":
        printer.text(repr(array))
    else:
        printer.text(f"<array {array.shape} {array.dtype}, {array.min():.4g} to {array.max():.4g}>")


def _copy(value):
    """A copy of dicts, also nested, and lists; else the value."""
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _same(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    simple = (int, float, str, bool, type(None))
    return a is b or (isinstance(a, simple) and isinstance(b, simple) and a == b)
