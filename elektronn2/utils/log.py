"""The library's logger ``elektronn2log``: console at INFO, files only where a run asks for one."""
import logging
import sys
from pathlib import Path


class _Console(logging.StreamHandler):
    """Writes to what ``sys.stderr`` is at that moment, so that redirections are honoured."""

    def __init__(self):
        logging.Handler.__init__(self, logging.INFO)

    @property
    def stream(self):
        return sys.stderr


def setup():
    """Give ``elektronn2log`` its console handler, unless it already has handlers."""
    logger = logging.getLogger("elektronn2log")
    if not logger.handlers:
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        console = _Console()
        console.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(console)
    return logger


def change_logging_file(logger, save_path, file_name="elektronn2.log"):
    """Write what ``logger`` says, at DEBUG, also to ``save_path/file_name``, and no longer to an earlier file.

    The folder is made if it does not exist; an existing file is appended to.
    """
    folder = Path(save_path).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    stop_logging_to_file(logger)
    handler = logging.FileHandler(folder / file_name, encoding="utf-8")
    handler.setLevel(logging.DEBUG)
    handler.setFormatter(logging.Formatter("[%(asctime)s] [%(levelname)s]\t%(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)


def stop_logging_to_file(logger):
    """Close the files that ``logger`` writes to."""
    for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
        logger.removeHandler(handler)
        handler.close()
