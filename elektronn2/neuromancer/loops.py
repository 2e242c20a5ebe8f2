"""Loops in the expression graph: a part of it as a program, and an operation that repeats the program."""
import torch
from torch import fx

from elektronn2.neuromancer import computations
from elektronn2.neuromancer.expression import op
from elektronn2.neuromancer.function import cut

AT_ONCE = 8  # steps that make one program where a loop is unrolled


class Step:
    """The part of the graph between some expressions, ``starts`` and ``goals``.

    ``starts``: memory (the first ``n_memory``), then elements of sequences. ``goals``: results, then (``n_memory``) the
    memory of the next step. ``mode``: which side is taken where training and prediction differ. Attributes: ``inside``,
    the nodes of the graph that depend on the starts and matter to the goals; ``others``, expressions that the step needs
    besides the starts and that do not depend on them, parameters among them.
    """

    def __init__(self, starts, goals, n_memory, mode):
        self.starts, self.goals, self.n_memory, self.mode = list(starts), list(goals), n_memory, mode
        self.graph = self.goals[0].tracer
        self._from = {e.node for e in self.starts}
        inputs = self._walk()
        self.inside = inputs.keys() & self._from
        others = {}
        for node in sorted(inputs, key=lambda n: n._sort_key):
            if node in self.inside or self.inside.intersection(inputs[node]):
                self.inside.add(node)
                others.update(dict.fromkeys(n for n in inputs[node] if n not in self.inside))
        others.update(dict.fromkeys(n for n in map(self._taken, self.goals) if n not in self.inside))
        self.others = tuple(self.graph.proxy(n) for n in others)
        self._programs = {}

    def _taken(self, expression):
        """The graph's node for an expression, or that of the side that ``mode`` takes."""
        node = expression.node
        while node.target is computations.by_mode and node not in self._from:
            node = (*node.args, *node.kwargs.values())[0 if self.mode == "train" else 1]
        return node

    def _walk(self):
        """Node -> its inputs, of all nodes that the goals are computed from; the starts have none."""
        inputs, stack = {}, list(map(self._taken, self.goals))
        while stack:
            node = stack.pop()
            if node not in inputs:
                before = () if node in self._from else node.all_input_nodes
                inputs[node] = [self._taken(self.graph.proxy(n)) for n in before]
                stack.extend(inputs[node])
        return inputs

    @property
    def takes_gradients(self):
        return any(getattr(n.target, "takes_gradients", False) for n in self.inside)

    def program(self, n=1):
        """GraphModule of ``n`` steps in a row: (memory, n elements of each sequence, others) -> (results of each, memory).

        It is made once for each state of the switches among the parameters (see ``computations.if_on``).
        """
        params = [self.graph.params[e.node.target] for e in self.others if e.node.op == "get_attr"]
        key = n, tuple(p.on for p in params if hasattr(p, "on"))
        if key not in self._programs:
            one = cut(self.goals, [*self.starts, *self.others], self.mode)[0]
            self._programs[key] = one if n == 1 else self._chain(one, n)
        return self._programs[key]

    def _chain(self, one, n):
        together, given = fx.Graph(), [p for p in one.graph.nodes if p.op == "placeholder"]
        before, n_starts = self.n_memory, len(self.starts)
        memory = [together.placeholder(f"memory{i}") for i in range(before)]
        elements = [[together.placeholder(f"element{i}_{t}") for t in range(n)] for i in range(n_starts - before)]
        others = [together.placeholder(p.name) for p in given[n_starts:]]
        results = []
        for t in range(n):
            values = together.graph_copy(one.graph, dict(zip(given, [*memory, *[e[t] for e in elements], *others])))
            results.extend(values[:-before])
            memory = values[-before:]
        together.output((*results, *memory))
        return fx.GraphModule(one, together)


class _OnMeta(fx.Interpreter):
    """Runs a program on tensors without data, as the graph does when it is built."""

    def call_function(self, target, args, kwargs):
        return getattr(target, "meta", target)(*args, **kwargs)


def loop(step, n_steps, unroll, last_only, where):
    """An operation of the graph that repeats a :class:`Step`, going on from the values of the step that was built.

    Its arguments are tuples: ``first`` (results of that step), ``memory`` (what it leaves to the next one), ``sequences``
    (along their first axis; element 0 is behind us) and ``others``. Its value is a tuple: of each result all steps on a
    new first axis, or the last one. ``n_steps`` None: as many as the sequences have elements. The loop itself stays Python
    where functions are compiled: a compiler is given the programs of the step, whatever the number of steps.
    """
    def scan(first, memory, sequences, others):  # no comprehension: a compiler would take each for a program of its own
        n = n_steps or len(sequences[0])
        lengths = set(map(len, sequences))
        if lengths - {n}:
            raise ValueError(f"{where}: {n} steps need sequences of length {n} on axis r, got {sorted(lengths)}.")
        sequences = list(map(torch.unbind, sequences))
        steps, t = [first], 1
        while t < n:
            k = AT_ONCE if unroll and n - t >= AT_ONCE else 1
            elements = []
            for elements_of_one in sequences:
                elements.extend(elements_of_one[t:t + k])
            values = step.program(k)(*memory, *elements, *others)
            memory = values[-len(memory):]
            if last_only:
                steps.clear()
            for i in range(0, k * len(first), len(first)):
                steps.append(values[i:i + len(first)])
            t += k
        return tuple(steps[-1]) if last_only else tuple(map(torch.stack, zip(*steps)))

    def on_meta(first, memory, sequences, others):
        values = _OnMeta(step.program()).run(*memory, *[x[0] for x in sequences], *others)
        for before, after in zip((*first, *memory), values):
            if (before.shape, before.dtype) != (after.shape, after.dtype):
                raise ValueError(f"{where}: the step cannot be repeated: it turns {tuple(before.shape)} {before.dtype} into "
                                 f"{tuple(after.shape)} {after.dtype}, but results and memory must stay of one kind.")
        n = n_steps or len(sequences[0])
        return tuple(torch.empty(v.shape if last_only else (n, *v.shape), dtype=v.dtype, device="meta") for v in first)

    operation = op(scan, meta=on_meta)
    operation.in_python = scan
    operation.takes_gradients = step.takes_gradients
    return operation
