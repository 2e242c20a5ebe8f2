"""The training loop; everything but the updates is done by hooks."""
import logging

logger = logging.getLogger("elektronn2log")


class StopTraining(Exception):
    """Raised by a hook to end training; the message says why. ``failed``: the run did not reach what it was meant to."""

    def __init__(self, reason, failed=False):
        super().__init__(reason)
        self.failed = failed


class Hook:
    """Something that is done beside the updates. Hooks are called in the order in which they are given, with the loop;
    they do not call each other."""

    def on_start(self, loop):
        """Before the first update."""

    def on_step(self, loop):
        """After each update; ``loop.step`` counts them from 1."""

    def on_end(self, loop):
        """After the last update, also if an error ends training."""


class Loop:
    """Updates a model with one batch after the other.

    ``next_batch``: function that returns the arrays for ``model.trainingstep``. ``options``: anything with the attributes
    ``n_steps`` and ``optimiser``, read anew at every step. ``on_error``: called with an exception that a batch or step
    raised; True means go on.

    While it runs, ``step``, ``batch``, ``loss``, ``seconds`` and ``debug`` are those of the last update; ``failure`` is the
    exception that ended training, if one did.
    """

    def __init__(self, model, next_batch, options, hooks, on_error=None):
        self.model, self.next_batch, self.options, self.hooks = model, next_batch, options, list(hooks)
        self.on_error = on_error or (lambda error: False)
        self.step, self.batch, self.loss, self.seconds, self.debug = 0, None, float("nan"), 0.0, None
        self.failure = None

    def _tell(self, event):
        for hook in self.hooks:
            getattr(hook, event)(self)

    def run(self):
        """Train for ``options.n_steps`` updates, or until a hook raises :class:`StopTraining`."""
        try:
            self._tell("on_start")
            while self.step < self.options.n_steps:
                try:
                    self.batch = self.next_batch()
                    self.loss, self.seconds, self.debug = self.model.trainingstep(
                        *self.batch, optimiser=self.options.optimiser)
                except Exception as error:
                    if not self.on_error(error):
                        raise
                    continue
                self.step += 1
                self._tell("on_step")
        except StopTraining as stop:
            self.failure = stop if stop.failed else None
            logger.log(logging.ERROR if stop.failed else logging.INFO, "%s", stop)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self._tell("on_end")
