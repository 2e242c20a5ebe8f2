"""Scan: a step of the network that was built once, repeated along a sequence. docs/recurrent.md explains it."""
from elektronn2.neuromancer import computations, graph
from elektronn2.neuromancer.loops import Step, loop
from elektronn2.neuromancer.node import Node
from elektronn2.utils.validate import as_int

__all__ = ["Scan"]


class ScanN(Node):
    """The loop of :func:`Scan`, which makes it; its own value is that of the first result. Output (r, b, f, *L)."""

    def __init__(self, step_results, in_memory, out_memory, in_iterate, in_iterate_0, n_steps=None, unroll_scan=True,
                 last_only=False, name="scan", print_repr=True):
        parents = [*step_results, *out_memory, *in_iterate]
        super().__init__(list(dict.fromkeys(parents)), name, print_repr)
        self.where = f"Scan {name!r}"
        self.step_results, self.out_memory, self.in_iterate = list(step_results), list(out_memory), list(in_iterate)
        self.in_memory, self.in_iterate_0 = list(in_memory), list(in_iterate_0)
        self.unroll_scan, self.last_only = bool(unroll_scan), bool(last_only)
        self._check_nodes()
        self.n_steps = self._count_steps(n_steps)

    def _check_nodes(self):
        for node in (*self.in_memory, *self.in_iterate_0):
            if not isinstance(node, Node):
                raise TypeError(f"{self.where}: in_memory and in_iterate_0 must be nodes, got {node!r}.")
        if not self.step_results or not self.in_memory:
            raise ValueError(f"{self.where} needs at least one step_result and one in_memory.")
        for what, a, b in (("in_memory and out_memory (by default the step_results)", self.in_memory, self.out_memory),
                           ("in_iterate and in_iterate_0", self.in_iterate, self.in_iterate_0)):
            if len(a) != len(b):
                raise ValueError(f"{self.where}: {what} must be as many nodes, got {[n.name for n in a]} and "
                                 f"{[n.name for n in b]}.")
        for node in self.step_results:
            if node.shape.hastag("r"):
                raise ValueError(f"{self.where}: the step result {node.name!r} {node.shape} has an axis r already.")
        for old, new in zip(self.in_memory, self.out_memory):
            a, b = old.shape, new.shape
            if a.tags != b.tags or any(n != m and n != 1 for n, m in zip(a, b)):
                raise ValueError(f"{self.where}: {new.name!r} {b} cannot take the place of the memory {old.name!r} {a}: "
                                 "axes and sizes must be equal (or 1 in the first memory).")
        for sequence, element in zip(self.in_iterate, self.in_iterate_0):
            a, b = sequence.shape, element.shape
            if a.tags[:1] != ["r"] or a.tags[1:] != b.tags or a.shape[1:] != b.shape:
                raise ValueError(f"{self.where}: the sequence {sequence.name!r} {a} must have axis r first, then the axes "
                                 f"of its first element {element.name!r} {b}.")
        values = [n.output.node for n in self.starts]
        used = {n for mode in ("train", "predict") for n in self._step(mode).inside}
        for i, node in enumerate(self.starts):
            if values[i] in values[:i]:
                same = self.starts[values.index(values[i])]
                raise ValueError(f"{self.where}: {node.name!r} is the same value as {same.name!r}; each memory and each "
                                 "first element must be a value of its own.")
            if values[i] not in used:
                raise ValueError(f"{self.where}: the step does not depend on {node.name!r}; it computes "
                                 f"{[g.name for g in self.goals]}.")

    @property
    def starts(self):
        """What each step begins with: memory, then elements of the sequences."""
        return [*self.in_memory, *self.in_iterate_0]

    @property
    def goals(self):
        """What each step computes: results, then the memory of the next step."""
        return [*self.step_results, *self.out_memory]

    def _step(self, mode):
        return Step([n.output for n in self.starts], [n.output for n in self.goals], len(self.in_memory), mode)

    def _count_steps(self, n_steps):
        """Number of steps; None if it is decided by the sequences that are given."""
        sizes = {n.shape["r"] for n in self.in_iterate} - {None}
        if n_steps is None:
            if not self.in_iterate:
                raise ValueError(f"{self.where}: without in_iterate, n_steps must be given.")
        else:
            n_steps = as_int(n_steps, f"n_steps of {self.where}")
            sizes.add(n_steps)
        if len(sizes) > 1:
            raise ValueError(f"{self.where}: n_steps and the lengths of the sequences must agree, got n_steps={n_steps} and "
                             f"{[f'{n.name!r} {n.shape}' for n in self.in_iterate]}.")
        return sizes.pop() if sizes else None

    def _make_output(self):
        first, memory, sequences = (tuple(n.output for n in nodes)
                                    for nodes in (self.step_results, self.out_memory, self.in_iterate))
        steps = [self._step(mode) for mode in ("train", "predict")]
        self.values = computations.by_mode(*(
            loop(step, self.n_steps, self.unroll_scan, self.last_only, self.where)(first, memory, sequences, step.others)
            for step in steps))
        self.output = self.values[0]

    def shape_of(self, i):
        """Shape of result ``i`` over all steps."""
        shape = self.step_results[i].shape
        return shape if self.last_only else shape.addaxis(0, self.n_steps, "r")

    def _calc_shape(self):
        self.shape = self.shape_of(0)

    def _calc_comp_cost(self):
        starts = set(self.starts)
        inside, stack = set(), list(self.goals)
        while stack:
            node = stack.pop()
            if node not in inside and node not in starts:
                inside.add(node)
                stack.extend(node.parents)
        once = sum(n.computational_cost for n in inside if not starts.isdisjoint(graph.ancestors(n)))
        self.computational_cost = ((self.n_steps or 1) - 1) * once


class ScanOut(Node):
    """One result of a loop; made by :func:`Scan`. Output (r, b, f, *L), or (b, f, *L) with ``last_only``."""

    def __init__(self, scan, index=0, name="scan_out", print_repr=True):
        super().__init__(scan, name, print_repr)
        if not isinstance(scan, ScanN):
            raise TypeError(f"ScanOut {name!r}: scan must be the loop of a Scan, got {scan!r}.")
        if index not in range(len(scan.step_results)):
            raise ValueError(f"ScanOut {name!r}: {scan.name!r} has {len(scan.step_results)} results, so index {index!r} is "
                             "none of them.")
        self.index = index

    def _make_output(self):
        self.output = self.parent.values[self.index]

    def _calc_shape(self):
        self.shape = self.parent.shape_of(self.index)

    def _calc_comp_cost(self):
        self.computational_cost = 0


def Scan(step_result, in_memory, out_memory=None, in_iterate=None, in_iterate_0=None, n_steps=None, unroll_scan=True,
         last_only=False, name="scan", print_repr=True):
    """Make a loop of a step: what was built for the first element of a sequence is repeated for all others.

    ``step_result``: node or list of nodes that the step computes. ``in_memory``: the nodes that hold the state before the
    step; ``out_memory``: as many nodes that hold it after the step (default: the step results). ``in_iterate``: sequences
    (r, b, f, *L), and ``in_iterate_0`` the nodes that the step takes for their first elements (b, f, *L).
    In step t > 0 ``in_memory`` is replaced by ``out_memory`` of step t - 1 and ``in_iterate_0`` by element t. All that
    depends on neither keeps its value; parameters are shared by all steps; dropout draws anew at each one; batch
    normalisation in training uses statistics of each step, and its running averages are those of the first.

    ``n_steps``: default (and at most a check) the length of the sequences, which may be open: then it is that of what is
    given. ``last_only``: values of the last step instead of all. ``unroll_scan``: where functions are compiled,
    eight steps become one program, which runs faster and takes longer to compile than a single step (the alternative);
    the numbers are the same, and the time to compile does not depend on ``n_steps``.

    Returns a node ``scan_out_<name>`` for each step result, (r, b, f, *L) or with ``last_only`` (b, f, *L): a bare node
    for one, a tuple for a list. Raises ValueError, naming the nodes, if shapes, lengths or dependencies do not fit.

    >>> import numpy as np
    >>> from elektronn2 import neuromancer as nm
    >>> m = nm.model_manager.newmodel(None)
    >>> x = nm.Input((4, 1, 1), 'r,b,f', name='x', print_repr=False)
    >>> first, _ = nm.split(x, 'r', index=1, strip_singleton_dims=True)
    >>> before = nm.ValueNode((1, 1), 'b,f', name='before', print_repr=False)  # zero
    >>> total = nm.Add(before, first, name='total', print_repr=False)
    >>> sums = nm.Scan(total, before, in_iterate=x, in_iterate_0=first, print_repr=False)
    >>> sums.name, sums.shape
    ('scan_out_total', [(4,r), (1,b), (1,f)])
    >>> sums(np.array([1, 2, 3, 4]).reshape(4, 1, 1)).ravel()
    array([ 1.,  3.,  6., 10.], dtype=float32)
    """
    def listed(value):
        return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
    results = listed(step_result)
    loop = ScanN(results, listed(in_memory), results if out_memory is None else listed(out_memory), listed(in_iterate),
                 listed(in_iterate_0), n_steps, unroll_scan, last_only, name=name, print_repr=print_repr)
    nodes = tuple(ScanOut(loop, i, name=f"scan_out_{r.name}", print_repr=print_repr) for i, r in enumerate(results))
    return nodes if isinstance(step_result, (list, tuple)) else nodes[0]
