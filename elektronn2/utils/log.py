"""The library's logger ``elektronn2log``: console at INFO, files only where a run asks for one."""
import logging
import sys


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
