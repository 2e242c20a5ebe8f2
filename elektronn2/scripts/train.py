"""``elektronn2-train``: train the network of a config file."""
import argparse
import logging
import os
import sys
import traceback
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

logger = logging.getLogger("elektronn2log")


def parser():
    p = argparse.ArgumentParser(
        prog="elektronn2-train", description="Train the network that a config file describes. Ctrl+C opens a shell in which "
        "everything can be looked at and changed.")
    p.add_argument("config", help="config file (Python)")
    p.add_argument("--gpu", default="auto", metavar="{auto|none|N}",
                   help="auto: the first free GPU, or the CPU if there is none; none: the CPU; N: that GPU (default: auto)")
    p.add_argument("--func", default="train", choices=("train",), help="what to do (only training is offered)")
    p.add_argument("--mpl-backend", default="auto", metavar="{auto|NAME|force-NAME|agg}",
                   help="for windows of plots: auto: matplotlib's choice where there is a screen, else none (default: auto)")
    return p


def choose_backend(name):
    """Set matplotlib's backend; plots that are written to files need none."""
    import matplotlib
    forced = name.startswith("force-")
    name = name.removeprefix("force-")
    screen = forced or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("darwin", "win32")
    if name == "agg" or not screen:
        matplotlib.use("agg")
    elif name != "auto":
        matplotlib.use(name)


def main(argv=None):
    """Exit status 0 if the run ended as meant, 1 if not, 2 for wrong arguments or settings."""
    args = parser().parse_args(argv)
    from elektronn2.config import config
    from elektronn2.training.trainutils import ExperimentConfig
    from elektronn2.utils.gpu import initgpu
    choose_backend(args.mpl_backend)
    try:
        initgpu(args.gpu)
        device = config.device
        exp_config = ExperimentConfig(args.config, host_script_file=__file__)
    except (ValueError, OSError) as error:
        logger.error("%s", error)
        return 2
    except Exception as error:  # raised by the code of the config
        logger.error("%s cannot be used:\n%s", args.config, explain(error, args.config))
        return 2
    if config.device != device:
        logger.info("The config sets device = %r, which goes before --gpu=%s.", config.device, args.gpu)
    trainer, good = None, False
    try:
        trainer = prepare(exp_config)
        good = trainer.run()
    except KeyboardInterrupt:
        logger.error("Interrupted.")
    except Exception as error:
        logger.error("%s\nTraining ended.", explain(error, args.config))
    if not good and (trainer is None or trainer.loop is None or not trainer.loop.step):
        exp_config.discard_folder()  # nothing has been trained; the name stays free
    elif good:
        (trainer.save_path / "0-EVAL-needed").touch()
    return 0 if good else 1


def prepare(exp_config):
    """The trainer, with the network and a batch drawn into the folder of the run."""
    from elektronn2.training.trainer import Trainer
    from elektronn2.utils.d3viz import visualise_model
    trainer = Trainer(exp_config)
    try:
        visualise_model(trainer.model, str(trainer.save_path / "1-model-graph"))
    except Exception as error:  # a picture is no reason not to train
        logger.warning("The model graph could not be drawn (%s: %s).", type(error).__name__, error)
    trainer.check_batch()
    trainer.debug_getcnnbatch()
    return trainer


def explain(error, config_file):
    """What went wrong: a message that the library meant to give, and the line of the config that led to it; for other
    errors the traceback, from the config on."""
    from elektronn2.training.trainer import memory_advice
    logger.debug("%s", "".join(traceback.format_exception(error)).rstrip())
    config_file = Path(config_file).expanduser().resolve()
    frames = traceback.extract_tb(error.__traceback__)
    own = [i for i, frame in enumerate(frames) if Path(frame.filename) == config_file]
    meant = (ValueError, TypeError, KeyError, AttributeError, OSError, FloatingPointError, MemoryError)
    last = frames[-1]
    if isinstance(error, meant) and PACKAGE in Path(last.filename).parents and last.line and last.line.startswith("raise "):
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        where = [f"{config_file.name}, line {frames[i].lineno}: {frames[i].line}" for i in own[-1:]]
        return "\n".join([text, *getattr(error, "__notes__", ()), *where])
    if advice := memory_advice(error):
        return f"{type(error).__name__}: {error}{advice}"
    if isinstance(error, SyntaxError):
        return "".join(traceback.format_exception_only(error)).rstrip()
    begin = error.__traceback__
    for _ in range(own[0] if own else 0):
        begin = begin.tb_next
    return "".join(traceback.format_exception(type(error), error, begin)).rstrip()


if __name__ == "__main__":
    sys.exit(main())
