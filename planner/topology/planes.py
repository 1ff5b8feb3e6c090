"""Routes through one section between classes of equivalent endpoints.

Endpoints wired to the same switches at the same bandwidths are one *class*: only
their own links differ. Routes are computed per pair of classes, so 4,096 NICs on
128 leaves cost 128² routes. A route has three parts: the first hops (links of the
source), the links between switches, and the last hops (links of the target).

Numerators are integers over the ``denominator`` of the route: int64, or Python
integers in object arrays where that could overflow.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd, lcm

import networkx as nx
import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.topology.sections import Hop, Section

Steps = tuple[tuple[int, int], ...]
"""(place in an endpoint's list of own links, numerator) of the links used."""
INT64_LIMIT = 2**62


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassRoute:
    """Route between two classes: own links of both ends and the links between."""

    first: Steps
    last: Steps
    middle_A: IntArray
    numerators_A: ExactArray
    denominator: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """All routes of one section.

    Attributes
    ----------
    class_of
        Class of every endpoint that has links in this section.
    component_of
        Connected component of every class.
    out_links, back_links
        An endpoint's own links in the order that :data:`Steps` count.
    routes
        By (source class, target class); absent without a path.
    """

    class_of: dict[str, int] = field(default_factory=dict)
    component_of: dict[int, int] = field(default_factory=dict)
    out_links: dict[str, tuple[int, ...]] = field(default_factory=dict)
    back_links: dict[str, tuple[int, ...]] = field(default_factory=dict)
    routes: dict[tuple[int, int], ClassRoute] = field(default_factory=dict)


def build_plane(part: Section, endpoints: Iterable[str]) -> Plane:
    """Return the routes between all classes of ``endpoints``."""
    plane = Plane()
    members: dict[object, list[str]] = {}
    for node in endpoints:
        out, back = _own(part.out, node), _own(part.back, node)
        if out or back:
            plane.out_links[node] = tuple(link for _, link, _ in out)
            plane.back_links[node] = tuple(link for _, link, _ in back)
            members.setdefault(_class_key(part, node, out, back), []).append(node)
    samples = []
    for number, nodes in enumerate(members.values()):
        plane.class_of.update(dict.fromkeys(nodes, number))
        samples.append((nodes[0], len(nodes)))
    for number, component in enumerate(_components(part)):
        classes = sorted({plane.class_of[n] for n in component if n in plane.class_of})
        if classes:
            plane.component_of.update(dict.fromkeys(classes, number))
            _Component(plane, part, component, classes, samples).route()
    return plane


def _own(hops: Mapping[str, list[Hop]], node: str) -> list[Hop]:
    return sorted(hops.get(node, ()), key=lambda hop: hop[0])


def _class_key(
    part: Section, node: str, out: Sequence[Hop], back: Sequence[Hop]
) -> object:
    # An endpoint wired straight to another one is like no other.
    lone = any(other not in part.transit for other, _, _ in (*out, *back))
    sides = tuple(tuple((other, w) for other, _, w in side) for side in (out, back))
    return (node, sides) if lone else sides


def _components(part: Section) -> Iterable[set[str]]:
    joined = nx.Graph()
    for node, hops in part.out.items():
        joined.add_edges_from((node, other) for other, _, _ in hops)
    found: Iterable[set[str]] = nx.connected_components(joined)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """First hops of a source class that lie on shortest paths, and their shares."""

    steps: tuple[tuple[int, int], ...]
    shares: tuple[Fraction, ...]
    direct: bool


class _Component:
    """One connected part of a section: its switches, edges and classes."""

    def __init__(
        self,
        plane: Plane,
        part: Section,
        nodes: set[str],
        classes: list[int],
        samples: list[tuple[str, int]],
    ) -> None:
        self._plane, self._part = plane, part
        self._classes, self._samples = classes, samples
        switches = sorted(nodes & part.transit)
        self._place = {node: place for place, node in enumerate(switches)}
        hops = [
            (self._place[node], self._place[other], link, weight)
            for node in switches
            for other, link, weight in part.out.get(node, ())
            if other in self._place
        ]
        self._from = np.asarray([hop[0] for hop in hops], dtype=np.int64)
        self._to = np.asarray([hop[1] for hop in hops], dtype=np.int64)
        self._link = np.asarray([hop[2] for hop in hops], dtype=np.int64)
        self._weight = _integers([hop[3] for hop in hops])

    def route(self) -> None:
        """Fill in the routes of every pair of classes of this component."""
        for target in self._classes:
            self._route_to(target)

    def _route_to(self, target: int) -> None:
        hops_M = self._hops_to(target)
        starts = self._starts(target, hops_M)
        flowing = [c for c, start in starts.items() if not start.direct]
        for source in starts.keys() - set(flowing):
            self._add_direct(source, target, starts[source])
        if not flowing:
            return
        levels, spread = self._splits(hops_M)
        shares = [share for c in flowing for share in starts[c].shares]
        denominator = lcm(*(share.denominator for share in shares)) * spread
        dtype = np.int64 if denominator < INT64_LIMIT else object
        flow_CM = np.zeros((len(flowing), hops_M.size), dtype=dtype)
        for row, source in enumerate(flowing):
            start = starts[source]
            for (_, node), share in zip(start.steps, start.shares, strict=True):
                flow_CM[row, node] = int(share * denominator)
        used: list[IntArray] = [np.zeros(0, dtype=np.int64)]
        parts: list[ExactArray] = [np.zeros((len(flowing), 0), dtype=dtype)]
        for edges, numerator_E, denominator_E in levels:
            part_CE = flow_CM[:, self._from[edges]] // denominator_E * numerator_E
            used.append(self._link[edges])
            parts.append(part_CE)
            # Several edges may end at one switch: add.at counts each of them.
            np.add.at(flow_CM.T, self._to[edges], part_CE.T)
        between = np.concatenate(used), np.concatenate(parts, axis=1)
        self._store(target, flowing, starts, flow_CM, between, denominator)

    def _hops_to(self, target: int) -> IntArray:
        """Hops from every switch to the target class; -1 where there is no path."""
        hops_M = np.full(len(self._place), -1, dtype=np.int64)
        last = self._part.back.get(self._samples[target][0], ())
        near = [self._place[node] for node, _, _ in last if node in self._place]
        hops_M[near] = 1
        distance = 1
        while len(near):
            before = hops_M[self._to] == distance
            near = np.unique(self._from[before & (hops_M[self._from] < 0)]).tolist()
            distance += 1
            hops_M[near] = distance
        return hops_M

    def _starts(self, target: int, hops_M: IntArray) -> dict[int, _Start]:
        """Return the first hops of every class that has a path to the target."""
        found: dict[int, _Start] = {}
        sample, size = self._samples[target]
        for source in self._classes:
            if source == target and size == 1:
                continue
            own = _own(self._part.out, self._samples[source][0])
            if any(other == sample for other, _, _ in own):
                place = [other for other, _, _ in own].index(sample)
                found[source] = _Start(steps=((place, -1),), shares=(), direct=True)
                continue
            ways = [
                (int(hops_M[self._place[other]]), place, self._place[other], weight)
                for place, (other, _, weight) in enumerate(own)
                if other in self._place and hops_M[self._place[other]] > 0
            ]
            if ways:
                fewest = min(ways)[0]
                used = [way for way in ways if way[0] == fewest]
                total = sum((way[3] for way in used), Fraction(0))
                found[source] = _Start(
                    steps=tuple((way[1], way[2]) for way in used),
                    shares=tuple(way[3] / total for way in used),
                    direct=False,
                )
        return found

    def _splits(
        self, hops_M: IntArray
    ) -> tuple[list[tuple[IntArray, ExactArray, ExactArray]], int]:
        """Edges on shortest paths with their shares, far to near; their common Q."""
        ahead = hops_M[self._to] if self._to.size else self._to
        used = np.flatnonzero((ahead > 0) & (hops_M[self._from] == ahead + 1))
        total_M = np.zeros(hops_M.size, dtype=self._weight.dtype)
        np.add.at(total_M, self._from[used], self._weight[used])
        levels, spread = [], 1
        distance_E = hops_M[self._from[used]]
        for distance in sorted(set(distance_E.tolist()), reverse=True):
            edges = used[distance_E == distance]
            whole_E, part_E = total_M[self._from[edges]], self._weight[edges]
            common_E = np.gcd(whole_E, part_E)
            levels.append((edges, part_E // common_E, whole_E // common_E))
            spread *= lcm(*{int(value) for value in whole_E // common_E})
        return levels, spread

    def _add_direct(self, source: int, target: int, start: _Start) -> None:
        node = self._samples[source][0]
        link = self._plane.out_links[node][start.steps[0][0]]
        self._plane.routes[source, target] = ClassRoute(
            first=(),
            last=(),
            middle_A=np.asarray([link], dtype=np.int64),
            numerators_A=np.ones(1, dtype=np.int64),
            denominator=1,
        )

    def _store(
        self,
        target: int,
        flowing: list[int],
        starts: dict[int, _Start],
        flow_CM: ExactArray,
        between: tuple[IntArray, ExactArray],
        denominator: int,
    ) -> None:
        ends = [
            (place, self._place[other])
            for place, (other, _, _) in enumerate(
                _own(self._part.back, self._samples[target][0])
            )
            if other in self._place
        ]
        link_E, flow_CE = between
        rows, columns = np.nonzero(flow_CE)
        cuts = np.searchsorted(rows, np.arange(len(flowing) + 1))
        link_X, numerator_X = link_E[columns], flow_CE[rows, columns]
        for row, source in enumerate(flowing):
            start, here = starts[source], slice(cuts[row], cuts[row + 1])
            arrivals = [(place, int(flow_CM[row, node])) for place, node in ends]
            self._plane.routes[source, target] = ClassRoute(
                first=tuple(
                    (place, int(share * denominator))
                    for (place, _), share in zip(start.steps, start.shares, strict=True)
                ),
                last=tuple(step for step in arrivals if step[1]),
                middle_A=link_X[here],
                numerators_A=numerator_X[here],
                denominator=denominator,
            )


def _integers(weights: Sequence[Fraction]) -> ExactArray:
    """Return whole numbers in the proportions of ``weights``."""
    scale = lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * scale) for weight in weights]
    common = gcd(*whole) or 1
    whole = [value // common for value in whole]
    small = sum(whole) < INT64_LIMIT
    return np.asarray(whole, dtype=np.int64 if small else object)
