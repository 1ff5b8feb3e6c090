"""Sections of a transfer and shortest paths inside one of them (rules 4 and 6).

A *section* is what a transfer may use at once: edges of some kinds, transit nodes
of some kinds. Traffic takes the fewest hops and divides at every node over its
next hops in proportion to nominal bandwidth; shares are exact rationals.
"""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

from planner.topology.graph import HOST_KINDS, SCALE_UP_KINDS, ClusterTopology

Hop = tuple[str, int, Fraction]
"""Neighbour, link index, nominal bandwidth."""
Shares = tuple[tuple[int, Fraction], ...]
"""Links with the share of a transfer on each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a section may use.

    ``edges`` are kinds (None: all); ``transit`` the kinds of node that forward;
    ``ends`` those between which a section runs; ``direct`` those of them that an
    edge may join without anything between.
    """

    edges: frozenset[str] | None
    transit: frozenset[str]
    ends: frozenset[str]
    direct: frozenset[str]


_GPU, _NIC = frozenset({"gpu"}), frozenset({"nic"})
_INSIDE = frozenset({"pcie_switch", "cpu"})
SCALE_UP = Rules(
    edges=SCALE_UP_KINDS, transit=frozenset({"nvswitch"}), ends=_GPU, direct=_GPU
)
HOST = Rules(edges=HOST_KINDS, transit=_INSIDE, ends=_GPU, direct=_GPU)
ACCESS = Rules(edges=None, transit=_INSIDE, ends=_GPU | _NIC, direct=_GPU | _NIC)
FABRIC = Rules(edges=None, transit=frozenset({"switch"}), ends=_GPU | _NIC, direct=_NIC)


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """The part of a cluster that one section may use.

    Attributes
    ----------
    out, back
        Hops away from and towards each endpoint and transit node.
    transit
        Nodes that forward.
    """

    out: dict[str, list[Hop]]
    back: dict[str, list[Hop]]
    transit: frozenset[str]


def section(topology: ClusterTopology, rules: Rules) -> Section:
    """Return the part of the cluster that ``rules`` allow."""
    kinds = {node: data["kind"] for node, data in topology.graph.nodes(data=True)}
    out: dict[str, list[Hop]] = {}
    back: dict[str, list[Hop]] = {}
    for link in topology.links:
        if link.members or (rules.edges is not None and link.kind not in rules.edges):
            continue
        ends = {kinds[link.source], kinds[link.target]}
        through = ends <= rules.transit | rules.ends and ends & rules.transit
        if through or ends <= rules.direct:
            weight = link.nominal_bytes_per_s
            out.setdefault(link.source, []).append((link.target, link.index, weight))
            back.setdefault(link.target, []).append((link.source, link.index, weight))
    transit = frozenset(node for node, kind in kinds.items() if kind in rules.transit)
    return Section(out=out, back=back, transit=transit)


def hops_from(part: Section, start: str, forward: bool = True) -> dict[str, int]:
    """Return the hops from ``start`` to every node it reaches (or that reach it)."""
    steps = part.out if forward else part.back
    hops = {start: 0}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        if node != start and node not in part.transit:
            continue
        for other, _, _ in steps.get(node, ()):
            if other not in hops:
                hops[other] = hops[node] + 1
                queue.append(other)
    return hops


def shortest_shares(part: Section, start: str, end: str) -> Shares | None:
    """Return the shares of a transfer on every link, or None without a path."""
    hops = hops_from(part, end, forward=False)
    if start not in hops:
        return None
    flow = {start: Fraction(1)}
    shares: list[tuple[int, Fraction]] = []
    # Nodes are met in order of decreasing distance, so their flow is complete.
    queue = deque([start])
    while queue:
        node = queue.popleft()
        nexts = [
            hop
            for hop in part.out.get(node, ())
            if hops.get(hop[0]) == hops[node] - 1
            and (hop[0] == end or hop[0] in part.transit)
        ]
        total = sum((weight for _, _, weight in nexts), Fraction(0))
        for other, link, weight in nexts:
            share = flow[node] * weight / total
            shares.append((link, share))
            if other not in flow:
                flow[other] = Fraction(0)
                queue.append(other)
            flow[other] += share
    return tuple(shares)
