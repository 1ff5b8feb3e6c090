"""Directed links and capacity groups with their classes and β (rules 8-10)."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from planner.topology.graph import Link
from planner.topology.models import Edge, Graph, Node
from planner.units import bytes_per_s, seconds

DEFAULT_EFFICIENCY: dict[str, Fraction] = {
    "nvlink": Fraction(82, 100),
    "xgmi": Fraction(80, 100),
    "pcie": Fraction(75, 100),
    "ib": Fraction(90, 100),
    "roce": Fraction(85, 100),
    "efa": Fraction(90, 100),
}
DirectedEdge = tuple[str, str, Edge, str]
"""Start, end, the record it comes from, and its kind."""


def directed_edges(
    edges: Sequence[Edge], nodes: Mapping[str, Node], up: set[str]
) -> list[DirectedEdge]:
    """Return the edges that are up in file order; duplex ones as there and back."""
    directed: list[DirectedEdge] = []
    for edge in edges:
        if edge.state == "down" or edge.source not in up or edge.target not in up:
            continue
        kind = edge.kind or _inferred_kind(nodes[edge.source], nodes[edge.target])
        directed.append((edge.source, edge.target, edge, kind))
        if edge.duplex:
            directed.append((edge.target, edge.source, edge, kind))
    return directed


def make_links(
    graph: Graph, directed: Sequence[DirectedEdge], nodes: Mapping[str, Node]
) -> tuple[Link, ...]:
    """Return a link per directed edge, then one per capacity group."""
    links: list[Link] = []
    efficiency: list[Fraction] = []
    groups: dict[str, list[int]] = {}
    speeds = _Speeds(graph)
    for index, (start, end, edge, kind) in enumerate(directed):
        ends = nodes[start], nodes[end]
        speed = speeds.of(edge, kind)
        efficiency.append(speed.efficiency)
        between_switches = all(node.kind == "switch" for node in ends)
        links.append(
            Link(
                index=index,
                source=start,
                target=end,
                kind=kind,
                link_class=f"{kind}:{_shown(ends[0])}>{_shown(ends[1])}",
                cables=edge.cables,
                token_divisor=edge.cables if between_switches else 1,
                nominal_bytes_per_s=speed.nominal,
                bytes_per_s=speed.effective,
                latency_s=speed.latency_s,
            )
        )
        group = edge.capacity_group
        if group is None and edge.duplex == "half":
            group = f"{edge.source} - {edge.target}"
        if group is not None:
            groups.setdefault(group, []).append(index)
    for name, members in groups.items():
        links.append(_group(graph, name, members, links, efficiency))
    return tuple(links)


def _group(
    graph: Graph,
    name: str,
    members: list[int],
    links: list[Link],
    efficiency: list[Fraction],
) -> Link:
    given = graph.capacity_groups.get(name)
    capacity = given.bandwidth_gbs if given else None
    nominal = (
        min(links[member].nominal_bytes_per_s for member in members)
        if capacity is None
        else bytes_per_s(capacity)
    )
    return Link(
        index=len(links),
        source="",
        target="",
        kind="group",
        link_class=f"group:{name}",
        cables=1,
        token_divisor=1,
        nominal_bytes_per_s=nominal,
        bytes_per_s=nominal * min(efficiency[member] for member in members),
        latency_s=0.0,
        members=tuple(members),
    )


class _Speed(NamedTuple):
    """What an edge's numbers come to."""

    efficiency: Fraction
    nominal: Fraction
    effective: Fraction
    latency_s: float


class _Speeds:
    """Speeds by the numbers of an edge: thousands of edges share a few."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[tuple[object, ...], _Speed] = {}

    def of(self, edge: Edge, kind: str) -> _Speed:
        """Return what an edge carries."""
        given = (edge.bandwidth_gbs, edge.efficiency, edge.latency_us)
        key = (
            kind,
            *(each and (each.numerator, each.denominator) for each in given),
        )
        if key not in self._known:
            share = _efficiency(self._graph, edge, kind)
            nominal = bytes_per_s(edge.bandwidth_gbs)
            late = seconds(edge.latency_us or Fraction(0))
            self._known[key] = _Speed(share, nominal, nominal * share, late)
        return self._known[key]


def _efficiency(graph: Graph, edge: Edge, kind: str) -> Fraction:
    if edge.efficiency is not None:
        return edge.efficiency
    if graph.bandwidth_basis == "effective":
        return Fraction(1)
    given = dict[str, Fraction](graph.efficiency.items())
    return given.get(kind, DEFAULT_EFFICIENCY.get(kind, Fraction(1)))


def _shown(node: Node) -> str:
    return f"switch{node.tier or 0}" if node.kind == "switch" else node.kind


def _inferred_kind(start: Node, end: Node) -> str:
    """Guess the kind of an edge that has none; listed among the assumptions."""
    kinds = {start.kind, end.kind}
    if "nvswitch" in kinds or kinds == {"gpu"}:
        return "nvlink"
    if "switch" in kinds or kinds == {"nic"}:
        return "generic"
    return "upi" if kinds == {"cpu"} else "pcie"
