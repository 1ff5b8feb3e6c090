"""The cluster as every other module sees it: GPUs, links, domains, relays.

A :class:`ClusterTopology` is a frozen view over a ``networkx.DiGraph``. GPUs are
numbered in file order, which is the EP rank order of a plan; links are directed
edges in file order, followed by the capacity groups (one more link each).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Self

import networkx as nx
import numpy as np

from planner.arrays import FloatArray, IntArray

SCALE_UP_KINDS = frozenset({"nvlink", "xgmi"})
HOST_KINDS = frozenset({"pcie", "upi", "c2c"})
MAX_GPUS = 16_384
"""More would not fit in memory: routes keep 13 bytes per GPU pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU that a plan may use."""

    id: str
    host: str
    memory_bytes: int
    reserved_bytes: int
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A directed edge (the whole bundle), or a capacity group.

    ``bytes_per_s`` is the effective bandwidth β of rule 8, an exact rational.
    ``members`` is empty for an edge; for a group it lists the link indices whose
    loads add up to the group's load. ``token_divisor`` is ``cables`` between two
    switches and 1 elsewhere (rule 10).
    """

    index: int
    source: str
    target: str
    kind: str
    link_class: str
    cables: int
    token_divisor: int
    nominal_bytes_per_s: Fraction
    bytes_per_s: Fraction
    latency_s: float
    members: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """``source -> target``, or ``group:<name>``."""
        return self.link_class if self.members else f"{self.source} -> {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kind:
    """Links of one class, speed and token divisor: of these the fullest is slowest."""

    link_class: str
    bytes_per_s: Fraction
    token_divisor: int
    index_k: IntArray


def kinds_of(links: Sequence[Link]) -> tuple[Kind, ...]:
    """Return the links by kind, each kind in file order."""
    found: dict[tuple[str, int, int, int], list[int]] = {}
    for link in links:
        speed = link.bytes_per_s
        key = link.link_class, speed.numerator, speed.denominator, link.token_divisor
        found.setdefault(key, []).append(link.index)
    return tuple(
        Kind(
            link_class=name,
            bytes_per_s=Fraction(top, bottom),
            token_divisor=divisor,
            index_k=np.asarray(index),
        )
        for (name, top, bottom, divisor), index in found.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """Exact factors by link (or GPU), and floats of them to look quickly."""

    exact: Sequence[Fraction]
    near_A: FloatArray

    @classmethod
    def of(cls, exact: Sequence[Fraction]) -> Self:
        """Return the factors with their floats."""
        return cls(exact=exact, near_A=np.asarray([float(each) for each in exact]))


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusterTopology:
    """A validated cluster.

    Attributes
    ----------
    graph
        Directed graph of all nodes and edges that are up; node and edge
        attributes are those of ``moe-topology/1``. Treat as read-only.
    gpus
        The plan GPUs in EP order.
    links
        Every directed edge in file order, then the capacity groups.
    domain_G
        Number of each GPU's scale-up domain, numbered by first appearance.
    routing, endpoint
        What ``graph.routing`` of the file asks for (rule 7).
    routing_tables
        Next node by switch and destination endpoint, for policy ``explicit``.
    workload
        ``model`` and ``trace`` named in the file (design §8).
    down
        Names of the nodes and edges left out because they are down.
    assumptions
        One sentence for every number that the file did not give.
    warnings
        What looks wrong but is legal.
    """

    name: str
    graph: nx.DiGraph
    gpus: tuple[Gpu, ...]
    links: tuple[Link, ...]
    domain_G: IntArray
    routing: str | None = None
    routing_tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    endpoint: str | None = None
    workload: dict[str, str] | None = None
    down: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def gpu_count(self) -> int:
        """G, the number of plan GPUs."""
        return len(self.gpus)

    @cached_property
    def domains(self) -> tuple[tuple[int, ...], ...]:
        """GPUs of each domain, in EP order."""
        count = int(self.domain_G.max()) + 1
        return tuple(
            tuple(np.flatnonzero(self.domain_G == domain).tolist())
            for domain in range(count)
        )

    @cached_property
    def seconds_per_byte(self) -> "Weights":
        """1/β of every link."""
        ratios = [link.bytes_per_s.as_integer_ratio() for link in self.links]
        known = {ratio: Fraction(ratio[1], ratio[0]) for ratio in set(ratios)}
        return Weights.of([known[ratio] for ratio in ratios])

    @cached_property
    def token_factors(self) -> tuple[IntArray, int]:
        """Common denominator / ``token_divisor`` by link, and that denominator."""
        common = lcm(*(link.token_divisor for link in self.links))
        factor_A = [common // link.token_divisor for link in self.links]
        return np.asarray(factor_A, dtype=np.int64), common

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The links by kind."""
        return kinds_of(self.links)

    @cached_property
    def groups(self) -> tuple[Link, ...]:
        """The links that are capacity groups."""
        return tuple(link for link in self.links if link.members)

    @cached_property
    def edge_index(self) -> dict[tuple[str, str], int]:
        """Link index of a directed edge (source id, target id)."""
        return {
            (link.source, link.target): link.index
            for link in self.links
            if not link.members
        }
