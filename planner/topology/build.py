"""From the records of a file to a :class:`ClusterTopology`, with every hard check.

What one record cannot know is checked here: references, duplicates, memory, NIC
rates, connection. Rules are numbered as in the exact rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import networkx as nx

from planner.errors import TopologyError
from planner.topology.graph import (
    MAX_GPUS,
    ClusterTopology,
    Gpu,
    Link,
)
from planner.topology.joined import domains, first_alone
from planner.topology.links import DEFAULT_EFFICIENCY, directed_edges, make_links
from planner.topology.models import Edge, Node, TopologyFile

NIC_LIMIT_GBS = 400
"""3.2 Tb/s: no NIC is faster; a file that says so has mixed up its units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a cluster comes from, for messages: file, and its key for edges."""

    where: str
    edges_key: str
    fallback_name: str

    def error(self, pointer: str, rule: str, value: object, fix: str) -> TopologyError:
        """Return the error of one place in the file."""
        return TopologyError(
            rule, where=f"{self.where} {pointer}", value=value, fix=fix
        )

    def edge(self, index: int, field: str = "") -> str:
        """Return the pointer of an edge or of one of its fields."""
        return f"/{self.edges_key}/{index}" + (f"/{field}" if field else "")


def build(
    record: TopologyFile, edges: Sequence[Edge], source: Source
) -> ClusterTopology:
    """Return the cluster of a validated file.

    Raises
    ------
    TopologyError
        The first broken rule, with file and JSON pointer.
    """
    nodes = _index_nodes(record.nodes, source)
    _check_edges(edges, nodes, source)
    _check_nics(edges, nodes, source)
    up = {node.id for node in record.nodes if node.state != "down"}
    gpus = _gpus(record, up, source)
    directed = directed_edges(edges, nodes, up)
    links = make_links(record.graph, directed, nodes)
    graph = _digraph(record, up, directed)
    alone = first_alone(graph, gpus)
    if alone is not None:
        place = [node.id for node in record.nodes].index(alone)
        raise source.error(
            f"/nodes/{place}",
            "has no path to another GPU",
            alone,
            "connect it, or set its state to down",
        )
    workload = record.workload
    return ClusterTopology(
        name=record.graph.name or source.fallback_name,
        graph=graph,
        gpus=gpus,
        links=links,
        domain_G=domains(record.nodes, gpus, links),
        routing=record.graph.routing.policy,
        routing_tables=record.graph.routing.tables,
        endpoint=record.graph.routing.endpoint,
        workload=workload.model_dump(exclude_none=True) if workload else None,
        down=_down(record.nodes, edges, up),
        assumptions=_assumptions(record, edges, links),
    )


def _index_nodes(nodes: Sequence[Node], source: Source) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for place, node in enumerate(nodes):
        if node.id in found:
            raise source.error(
                f"/nodes/{place}/id",
                "is used twice",
                node.id,
                "give every node its own id",
            )
        if node.kind in ("gpu", "nic") and node.host is None:
            raise source.error(
                f"/nodes/{place}/host",
                f"is required for a {node.kind} ({node.id})",
                None,
                "name the machine it sits in",
            )
        found[node.id] = node
    return found


def _check_edges(edges: Sequence[Edge], nodes: dict[str, Node], source: Source) -> None:
    if not edges:
        raise source.error(
            f"/{source.edges_key}",
            "holds no edge",
            [],
            "a cluster without links cannot be planned; networkx before 3.6 wrote "
            "them under `links`, later versions under `edges`: both are read",
        )
    seen: set[tuple[str, str]] = set()
    for place, edge in enumerate(edges):
        for field, end in (("source", edge.source), ("target", edge.target)):
            if end not in nodes:
                raise source.error(
                    source.edge(place, field),
                    "names no node of the file",
                    end,
                    "correct the id or add the node",
                )
        if edge.source == edge.target:
            raise source.error(
                source.edge(place), "joins a node to itself", edge.source, "remove it"
            )
        if edge.kind == "ici":
            raise source.error(
                source.edge(place, "kind"),
                "is refused: no routing policy for a torus exists yet",
                "ici",
                "plan for a switched cluster",
            )
        ways = [(edge.source, edge.target)]
        if edge.duplex:
            ways.append((edge.target, edge.source))
        for way in ways:
            if way in seen:
                raise source.error(
                    source.edge(place),
                    "is given twice",
                    " -> ".join(way),
                    "add the bandwidths up in one edge and count its cables",
                )
            seen.add(way)


def _check_nics(edges: Sequence[Edge], nodes: dict[str, Node], source: Source) -> None:
    rate: dict[str, Fraction] = {}
    for place, edge in enumerate(edges):
        ends = {edge.source: edge.target, edge.target: edge.source}
        for nic, other in ends.items():
            if nodes[nic].kind != "nic" or nodes[other].kind not in ("switch", "nic"):
                continue
            if nic == edge.target and edge.duplex is None:
                continue
            rate[nic] = rate.get(nic, Fraction(0)) + edge.bandwidth_gbs
            if rate[nic] > NIC_LIMIT_GBS:
                raise source.error(
                    source.edge(place, "bandwidth_gbs"),
                    f"gives NIC {nic} more than {NIC_LIMIT_GBS} GB/s (3.2 Tb/s)",
                    float(edge.bandwidth_gbs),
                    "bandwidth_gbs is in gigabytes per second: 400 Gb/s is 50",
                )


def _gpus(record: TopologyFile, up: set[str], source: Source) -> tuple[Gpu, ...]:
    gpus = []
    for place, node in enumerate(record.nodes):
        if node.kind != "gpu" or node.id not in up:
            continue
        memory = _memory(record, node, place, source)
        if node.reserved_bytes >= memory:
            raise source.error(
                f"/nodes/{place}/reserved_bytes",
                f"leaves nothing of the {memory} bytes of {node.id}",
                node.reserved_bytes,
                "reserve less",
            )
        gpus.append(
            Gpu(
                id=node.id,
                host=node.host or "",
                memory_bytes=memory,
                reserved_bytes=node.reserved_bytes,
                profile=node.profile or "",
            )
        )
    if not gpus:
        raise source.error(
            "/nodes", "hold no GPU that is up", None, "add nodes of kind gpu"
        )
    if len(gpus) > MAX_GPUS:
        raise source.error(
            "/nodes", f"hold more than {MAX_GPUS} GPUs", len(gpus), "plan for a part"
        )
    return tuple(gpus)


def _memory(record: TopologyFile, node: Node, place: int, source: Source) -> int:
    profiles = record.graph.profiles
    if node.profile is not None and node.profile not in profiles:
        raise source.error(
            f"/nodes/{place}/profile",
            "is not in graph.profiles",
            node.profile,
            f"choose from {', '.join(sorted(profiles)) or 'none: add the profile'}",
        )
    profile = profiles[node.profile] if node.profile else None
    memory = node.memory_bytes or (profile.memory_bytes if profile else None)
    if memory is None:
        raise source.error(
            f"/nodes/{place}/memory_bytes",
            f"is missing for GPU {node.id}",
            None,
            "give memory_bytes, or a profile that has it",
        )
    return memory


def _digraph(
    record: TopologyFile,
    up: set[str],
    directed: Sequence[tuple[str, str, Edge, str]],
) -> nx.DiGraph:
    graph = nx.DiGraph(**record.graph.model_dump(exclude_none=True))
    for node in record.nodes:
        if node.id in up:
            graph.add_node(
                node.id, **node.model_dump(exclude={"id"}, exclude_none=True)
            )
    for start, end, edge, kind in directed:
        given = edge.model_dump(
            exclude={"source", "target", "duplex", "kind"}, exclude_none=True
        )
        graph.add_edge(start, end, kind=kind, **given)
    return graph


def _down(
    nodes: Sequence[Node], edges: Sequence[Edge], up: set[str]
) -> tuple[str, ...]:
    return tuple(node.id for node in nodes if node.id not in up) + tuple(
        f"{edge.source} -> {edge.target}" for edge in edges if edge.state == "down"
    )


def _assumptions(
    record: TopologyFile, edges: Sequence[Edge], links: tuple[Link, ...]
) -> tuple[str, ...]:
    said = []
    without = sum(edge.kind is None for edge in edges)
    if without:
        said.append(f"kind of {without} edges: inferred from the nodes they join")
    if record.graph.bandwidth_basis == "nominal":
        used = {link.kind for link in links if not link.members}
        given = record.graph.efficiency
        for kind in sorted(used - set(given)):
            if kind in DEFAULT_EFFICIENCY:
                share = float(DEFAULT_EFFICIENCY[kind])
                said.append(f"efficiency of {kind}: {share:g} of nominal")
    silent = sum(edge.latency_us is None for edge in edges)
    if silent:
        said.append(f"latency of {silent} edges: 0")
    said.extend(
        f"{entry.field}: {entry.source}"
        for entry in record.graph.provenance
        if entry.basis == "assumed"
    )
    return tuple(said)
