"""Where to draw the nodes and edges of a directed graph: in layers, from top to bottom.

The steps are those of Sugiyama, Tagawa and Toda (1981): a layer per node; an order within every layer with few
crossings; then positions that keep edges straight (Gansner et al. 1993, here as a linear program). An edge that passes
layers has a slot of its own in each of them, so it runs between nodes. Nodes are numbers 0 ... n-1, parents smaller
than their children, and the slots of edges the numbers from n on. y points down.
"""
from itertools import pairwise

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

GAP_X, GAP_Y, LANE = 26, 34, 16  # between nodes, between layers, around an edge that passes a layer
PORT = 16  # between edges at the same side of a node


def layout(half, top, bottom, edges, loops=()):
    """Centres of nodes, and routes of edges between them.

    ``half``, ``top``, ``bottom``: per node how far it reaches from its centre sideways, up and down. ``edges``: pairs
    (parent, child); ``loops``: pairs that say nothing of layers and may lead upwards.

    Returns an array (n, 2) of x, y, and per edge and loop a list of points: from below its upper node to above its
    lower node, at the border of the layers; curves between them that do not leave their height meet no node.

    >>> centres, routes = layout([20, 20], [5, 5], [5, 5], [(0, 1)])
    >>> centres.tolist(), routes
    ([[0.0, 5.0], [0.0, 49.0]], [[(0.0, 10.0), (0.0, 44.0)]])
    """
    layer = _layers(len(half), edges)
    edges = [(a, b) if layer[a] <= layer[b] else (b, a) for a, b in [*edges, *loops]]
    ranks, chains = _slots(layer, edges)
    _order(ranks, [link for chain in chains for link in pairwise(chain)])
    n_slots = sum(map(len, ranks))
    x, ports = _positions(ranks, chains, np.r_[half, np.zeros(n_slots - len(half))], len(half))

    y, centres, borders = 0.0, np.zeros((len(half), 2)), []
    for rank in ranks:
        nodes = [s for s in rank if s < len(half)]
        middle = y + max(top[i] for i in nodes)
        end = middle + max(bottom[i] for i in nodes)
        centres[nodes] = np.transpose([x[nodes], np.full(len(nodes), middle)])
        borders.append((y, end))
        y = end + GAP_Y
    routes = []
    for (a, b), chain, (start, stop) in zip(edges, chains, ports):
        passed = [(float(x[s]), border) for s, k in zip(chain[1:-1], range(layer[a] + 1, layer[b])) for border in borders[k]]
        routes.append([(float(x[a] + start), borders[layer[a]][1]), *passed, (float(x[b] + stop), borders[layer[b]][0])])
    return centres, routes


def _layers(n, edges):
    """Layer per node: each below its parents; those with at most one parent as low as their children allow."""
    parents, children = [[] for _ in range(n)], [[] for _ in range(n)]
    for a, b in edges:
        parents[b].append(a)
        children[a].append(b)
    layer = [0] * n
    for i in range(n):
        layer[i] = max((layer[a] + 1 for a in parents[i]), default=0)
    for i in reversed(range(n)):
        if len(parents[i]) < 2 and children[i]:
            layer[i] = min(layer[b] for b in children[i]) - 1
    return layer


def _slots(layer, edges):
    """Lists of slots per layer, and per edge its chain of slots: node, one more per layer that it passes, node."""
    ranks = [[] for _ in range(max(layer) + 1)]
    for i, k in enumerate(layer):
        ranks[k].append(i)
    chains, n = [], len(layer)
    for a, b in edges:
        passed = range(layer[a] + 1, layer[b])
        for slot, k in enumerate(passed, n):
            ranks[k].append(slot)
        chains.append([a, *range(n, n + len(passed)), b])
        n += len(passed)
    return ranks, chains


def _order(ranks, links, sweeps=16):
    """Sort the slots of every layer so that few links cross: by the mean place of their neighbours, down and up."""
    n = sum(map(len, ranks))
    above, below = [[] for _ in range(n)], [[] for _ in range(n)]
    for a, b in links:
        below[a].append(b)
        above[b].append(a)
    place = np.zeros(n)
    for rank in ranks:
        place[rank] = range(len(rank))

    def crossings():
        total = 0
        for rank in ranks:
            ends = np.array([(place[a], place[b]) for a in rank for b in below[a]]).reshape(-1, 2).T
            less = ends[:, :, None] < ends[:, None, :]
            total += int((less[0] & less[1].T).sum())
        return total

    best, fewest = [list(r) for r in ranks], crossings()
    for sweep in range(sweeps):
        near, turn = (above, ranks) if sweep % 2 == 0 else (below, ranks[::-1])
        for rank in turn:
            rank.sort(key=lambda s: np.mean(place[near[s]]) if near[s] else place[s])
            place[rank] = range(len(rank))
        if (now := crossings()) < fewest:
            best, fewest = [list(r) for r in ranks], now
    ranks[:] = best


def _ports(ranks, chains, half):
    """Per edge where it leaves its upper and enters its lower node, as x relative to their centres."""
    place = {s: i for rank in ranks for i, s in enumerate(rank)}
    ports = [[0.0, 0.0] for _ in chains]
    for end, neighbour in ((0, 1), (-1, -2)):  # the upper end, the lower end
        at = {}
        for e, chain in enumerate(chains):
            at.setdefault(chain[end], []).append((place[chain[neighbour]], e))
        for node, there in at.items():
            step = min(PORT, half[node] / len(there))
            for i, (_, e) in enumerate(sorted(there)):
                ports[e][end] = float((i - (len(there) - 1) / 2) * step)
    return ports


def _positions(ranks, chains, half, n_nodes):
    """x of every slot, and the ports: orders and distances are kept, and the weighted sum of the sideways steps of
    all edges is smallest (longer edges weigh more)."""
    ports, links = _ports(ranks, chains, half), []
    for chain, (a, b) in zip(chains, ports):
        for k, (s, t) in enumerate(pairwise(chain)):  # straight if x[t] - x[s] == shift
            shift = (a if k == 0 else 0) - (b if k == len(chain) - 2 else 0)
            links.append((s, t, shift, 1 + 2 * (s >= n_nodes) + 2 * (t >= n_nodes)))
    n, entries, limits = len(half), [], []  # of the inequalities: (row, column, factor), limit
    for i, (s, t, shift, _) in enumerate(links):
        for sign in (1, -1):  # |x[t] - x[s] - shift| <= step[i]
            entries += [(len(limits), t, sign), (len(limits), s, -sign), (len(limits), n + i, -1)]
            limits.append(sign * shift)
    for rank in ranks:
        for s, t in pairwise(rank):  # x[t] - x[s] >= half[s] + half[t] + gap
            entries += [(len(limits), s, 1), (len(limits), t, -1)]
            limits.append(-(half[s] + half[t] + (GAP_X if max(s, t) < n_nodes else LANE)))
    if not limits:
        return np.zeros(n), ports
    rows, columns, factors = zip(*entries)
    matrix = coo_array((factors, (rows, columns)), shape=(len(limits), n + len(links))).tocsr()
    cost = np.r_[np.zeros(n), [weight for *_, weight in links]]
    return linprog(cost, matrix, limits, method="highs-ds").x[:n] + 0.0, ports  # + 0.0: no -0.0
