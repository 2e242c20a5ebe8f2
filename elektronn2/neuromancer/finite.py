"""Where values that are NaN or infinite come from."""
import numpy as np
import torch

from elektronn2.neuromancer import graph
from elektronn2.neuromancer.function import as_array


def nonfinite_params(nodes):
    """A text for each parameter of the nodes that holds NaN or infinite values, its own or a shared one."""
    return [f"parameter {k!r} of node {n.name!r} ({_count(p.get_value())})" for n in nodes
            for k, p in {**n.params, **n.shared}.items() if not torch.isfinite(p.tensor).all()]


def require_finite(*nodes):
    """Raise ValueError that names the parameters of the nodes and their ancestors that are not finite, if there are any."""
    bad = nonfinite_params(graph.ancestors(*nodes))
    if bad:
        raise ValueError(f"NaN or infinite weights in model {nodes[0].model.name!r}: {', '.join(bad)}. Load an earlier "
                         "model; train with a smaller learning rate, or with clip_norm.")


def find_nonfinite(model, *inputs):
    """See :meth:`Model.find_nonfinite`."""
    nodes = [n for n in graph.ancestors(model.loss_node) if not n.is_source]
    given = dict(zip(graph.sources(*nodes), map(as_array, inputs)))
    for node, values in zip(nodes, model.activations(*inputs, mode="train")):
        if not np.isfinite(values).all():
            causes = nonfinite_params([node])
            causes += [f"input {p.name!r} ({_count(given[p])})" for p in node.parents
                       if p in given and not np.isfinite(given[p]).all()]
            reason = f"because of {', '.join(causes)}" if causes else "although its inputs and parameters are finite"
            return f"node {node.name!r} ({_count(values)}), {reason}"
    params = nonfinite_params(nodes)
    if params:
        return params[0]
    for name, values in zip(model.loss_node.all_trainable_params, model.gradients(*inputs)):
        if not np.isfinite(values).all():
            return f"the gradient of {name} ({_count(values)})"
    return None


def _count(values):
    return f"{np.size(values) - np.isfinite(values).sum()} of {np.size(values)} values"
