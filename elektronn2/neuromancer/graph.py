"""Walks over nodes: anything with ``parents`` (a tuple of nodes)."""


def ancestors(*nodes):
    """All nodes that ``nodes`` depend on and themselves, parents before children.

    >>> class N:
    ...     def __init__(self, *parents): self.parents = parents
    >>> a = N(); b = N(a); c = N(a, b)
    >>> ancestors(c) == [a, b, c]
    True
    """
    order, seen, stack = [], set(), [(n, False) for n in reversed(nodes)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((p, False) for p in reversed(node.parents))
    return order


def sources(*nodes):
    """The inputs that ``nodes`` need, first seen first."""
    return [n for n in ancestors(*nodes) if n.is_source]


def descendants(node, among):
    """The nodes of ``among`` (in building order) that depend on ``node``."""
    reached, found = {id(node)}, []
    for other in among:
        if any(id(p) in reached for p in other.parents):
            reached.add(id(other))
            found.append(other)
    return found
