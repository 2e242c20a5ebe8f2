"""What the commands share."""
import logging

logger = logging.getLogger("elektronn2log")

MISTAKES = (ValueError, TypeError, OSError, KeyError, ImportError, MemoryError)  # of users: their message is enough


def exit_status(work, *args):
    """Exit status of a command that does ``work(*args)``: 0, or 2 after a message about a mistake of the user."""
    try:
        work(*args)
    except MISTAKES as error:
        logger.error("%s", error.args[0] if isinstance(error, KeyError) else error)
        return 2
    return 0
