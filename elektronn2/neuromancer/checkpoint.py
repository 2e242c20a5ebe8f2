"""What a model needs, beside its parameters, to go on training where it was: as part of a model file.

The description of a file then has the entry ``training``: ``hyper`` (name -> hyper-parameter), ``iterations``,
``elapsed_time``, ``times`` and ``losses`` (of the last steps) and ``steps`` (optimiser -> number of steps). Tensors are
called ``training:<optimiser>/<accumulator>/<node>/<param>`` and ``training:ema/<node>/<param>``.
"""
import logging

import numpy as np
import torch

from elektronn2.neuromancer.optimiser import OPTIMISERS, check_hyper
from elektronn2.neuromancer.serialize import TRAINING
from elektronn2.neuromancer.variables import laid_out_like

logger = logging.getLogger("elektronn2log")


def _names(model):
    """Parameter -> ``<node>/<param>``."""
    return {p: f"{node.name}/{k}" for node in model.nodes.values() for k, p in node.params.items()}


def describe(model):
    """(entry of the description, tensors) of a model. ValueError within ``averaged_weights()``."""
    if model.averages.active:
        raise ValueError("Within averaged_weights() a model is saved without optimiser_state.")
    names, tensors, steps = _names(model), {}, {}
    for rule, optimiser in model.used_optimisers.items():
        state = optimiser.get_state()
        steps[rule] = state.pop("t")
        for accumulator, arrays in state.items():
            tensors.update({f"{TRAINING}{rule}/{accumulator}/{names[p]}": a for p, a in zip(optimiser.params, arrays)})
    tensors.update({f"{TRAINING}ema/{names[p]}": t.cpu().contiguous().numpy() for p, t in model.averages.values.items()})
    return dict(hyper=model.meta_params, iterations=model.iterations, elapsed_time=model.elapsed_time,
                times=list(model._times), losses=list(model._losses), steps=steps), tensors


def restore(model, training, tensors):
    """Let a model go on from what :func:`describe` gave.

    State of an optimiser, or averages, of other parameters than are trained now (because some were locked, say) is left
    out with a note. KeyError, ValueError or TypeError for a damaged entry.
    """
    model.meta_params.update({k: check_hyper(k, v) for k, v in training["hyper"].items()})
    model.iterations, model.elapsed_time = int(training["iterations"]), float(training["elapsed_time"])
    model._times.extend(map(float, training["times"]))
    model._losses.extend(map(float, training["losses"]))
    names, params = _names(model), [] if model.loss_node is None else model.trainable_params
    trained = {names[p]: p.shape for p in params}
    for rule, steps in training["steps"].items():
        accumulators = OPTIMISERS[rule].accumulators if rule in OPTIMISERS else ()
        groups = {k: _group(tensors, f"{rule}/{k}", trained) for k in accumulators}
        if rule not in OPTIMISERS or not trained or not all(groups.values()):
            logger.info("The state of %s was not taken over: it belongs to other parameters than are trained now.", rule)
        else:
            model.optimiser(rule).set_state({"t": int(steps), **groups})
    averages = _group(tensors, "ema", trained)
    if averages:
        tensors = map(torch.from_numpy, averages)
        model.averages.values = dict(zip(params, laid_out_like(tensors, [p.tensor for p in params])))


def _group(tensors, prefix, trained):
    """The arrays of one kind in the order of the parameters; [] if they are not exactly those of these."""
    prefix = f"{TRAINING}{prefix}/"
    group = {k.removeprefix(prefix): np.array(v) for k, v in tensors.items() if k.startswith(prefix)}
    same = {k: v.shape for k, v in group.items()} == trained
    return [group[name] for name in trained] if same else []
