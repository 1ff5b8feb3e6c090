"""From routes between classes to the bundles of every GPU pair (rules 4 and 5)."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import gcd, lcm

import networkx as nx
import numpy as np

from planner.arrays import IntArray
from planner.topology.bundles import BundleStore
from planner.topology.nics import Port
from planner.topology.planes import INT64_LIMIT, ClassRoute, Plane
from planner.topology.sections import Shares
from planner.topology.tables import PairTable, PairTarget

Profile = tuple[tuple[int, Fraction], ...]
"""Class and share of each port of a GPU: what its routes depend on."""
Crossing = tuple[int, int, Fraction, ClassRoute]
"""Places of the source's and the target's port, share of the pair, its route."""
Side = tuple[int, tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]]
"""Denominator, then per port: place, weight, steps over its own links."""


class PlaneUsers:
    """The GPUs that send through one plane, with the ports they use."""

    def __init__(
        self,
        plane: Plane,
        out: Sequence[tuple[Port, ...]],
        back: Sequence[tuple[Port, ...]],
        store: BundleStore,
        *,
        case: int,
    ) -> None:
        self._plane, self._out, self._back, self._store = plane, out, back, store
        self._case = case

    def fill(self, table: PairTarget, same_G: IntArray | None = None) -> None:
        """Write the bundles of all pairs that have a path through the plane.

        ``same_G`` restricts the pairs to GPUs of equal number in it.
        """
        for block in self._blocks():
            self._fill_block(table, np.asarray(block), same_G)

    def meet(self, source: int, target: int) -> bool:
        """Whether a pair leaves and arrives by one and the same NIC."""
        arriving = {port.node for port in self._back[target]}
        return any(port.node in arriving for port in self._out[source])

    def crossings(self, source: int, target: int) -> list[Crossing]:
        """Return the ways of a GPU pair: port, port, share, route between them.

        A transfer that enters the fabric by the very NIC that it leaves it by has
        no fabric to cross.
        """
        return _renormalised(
            [
                (p, r, out.share * back.share, route)
                for p, out in enumerate(self._out[source])
                for r, back in enumerate(self._back[target])
                if (route := self._between(out.node, back.node)) is not None
            ]
        )

    def fill_paths(
        self, table: PairTable, between: Callable[[str, str], Shares]
    ) -> None:
        """Write the pairs of this case again, ``between`` their ports as it says."""
        access: dict[Shares, int] = {}
        for source, target in np.argwhere(table.case_GG == self._case).tolist():
            out, back = self._out[source], self._back[target]
            if len(out) > 1 or len(back) > 1 or out[0].node == back[0].node:
                self.add_single(table, source, target, between)
                continue
            ends = [port.access for port in (out[0], back[0])]
            for shares in ends:
                if shares not in access:
                    access[shares] = self._store.add_shares(dict(shares))
            path = dict(between(out[0].node, back[0].node))
            table.exit_GG[source, target] = access[ends[0]]
            table.middle_GG[source, target] = self._store.add_shares(path)
            table.entry_GG[source, target] = access[ends[1]]

    def add_single(
        self,
        table: PairTable,
        source: int,
        target: int,
        between: Callable[[str, str], Shares] | None = None,
    ) -> None:
        """Write one pair's route as a bundle of its own.

        ``between`` gives the links from port to port; None: those of the plane.
        """
        shares: dict[int, Fraction] = {}
        for p, r, share, route in self.crossings(source, target):
            out, back = self._out[source][p], self._back[target][r]
            parts = [(link, part) for link, part in (*out.access, *back.access)]
            if out.node != back.node:
                if between is None:
                    parts += self._whole(route, out.node, back.node)
                else:
                    parts += between(out.node, back.node)
            for link, part in parts:
                shares[link] = shares.get(link, Fraction(0)) + share * part
        if shares:
            table.write_one(source, target, self._store.add_shares(shares), self._case)

    def _between(self, start: str, end: str) -> ClassRoute | None:
        if start == end:
            return _NOTHING
        classes = self._plane.class_of
        return self._plane.routes.get((classes[start], classes[end]))

    def _whole(
        self, route: ClassRoute, start: str, end: str
    ) -> list[tuple[int, Fraction]]:
        plane = self._plane
        pairs = [
            *((plane.out_links[start][place], n) for place, n in route.first),
            *zip(route.middle_A.tolist(), route.numerators_A.tolist(), strict=True),
            *((plane.back_links[end][place], n) for place, n in route.last),
        ]
        return [(link, Fraction(n, route.denominator)) for link, n in pairs]

    def _blocks(self) -> list[list[int]]:
        """GPUs that could reach each other: joined by a component of the plane."""
        joined = nx.Graph()
        for gpu, ports in enumerate(zip(self._out, self._back, strict=True)):
            for port in (*ports[0], *ports[1]):
                number = self._plane.class_of[port.node]
                joined.add_edge(gpu, ("component", self._plane.component_of[number]))
        return [
            sorted(node for node in block if isinstance(node, int))
            for block in nx.connected_components(joined)
        ]

    def _profiles(
        self, ports: Sequence[tuple[Port, ...]], gpus: IntArray
    ) -> tuple[dict[Profile, int], IntArray]:
        numbers: dict[Profile, int] = {}
        number_G = [
            numbers.setdefault(
                tuple((self._plane.class_of[p.node], p.share) for p in ports[gpu]),
                len(numbers),
            )
            for gpu in gpus
        ]
        return numbers, np.asarray(number_G, dtype=np.int64)

    def _fill_block(
        self, table: PairTarget, gpus: IntArray, same_G: IntArray | None
    ) -> None:
        outs, out_G = self._profiles(self._out, gpus)
        backs, back_G = self._profiles(self._back, gpus)
        shape = (len(outs), len(backs))
        exit_UV = np.full(shape, -1, dtype=np.int32)
        middle_UV = np.zeros(shape, dtype=np.int32)
        entry_UV = np.zeros(shape, dtype=np.int32)
        exits: list[dict[Side, int]] = [{} for _ in outs]
        entries: list[dict[Side, int]] = [{} for _ in backs]
        for u, out in enumerate(outs):
            for v, back in enumerate(backs):
                ways = self._class_crossings(out, back)
                if ways:
                    first, middle, last = self._cell(ways)
                    exit_UV[u, v] = exits[u].setdefault(first, len(exits[u]))
                    middle_UV[u, v] = middle
                    entry_UV[u, v] = entries[v].setdefault(last, len(entries[v]))
        exit_G = self._rows(gpus, out_G, exits, leaving=True)
        entry_G = self._rows(gpus, back_G, entries, leaving=False)
        cells = np.ix_(out_G, back_G)
        usable = exit_UV[cells] >= 0
        np.fill_diagonal(usable, False)
        if same_G is not None:
            usable &= same_G[gpus][:, None] == same_G[gpus][None, :]
        table.write(
            gpus,
            exit_G[:, None] + exit_UV[cells],
            middle_UV[cells],
            entry_G[None, :] + entry_UV[cells],
            usable,
            self._case,
        )

    def _class_crossings(self, out: Profile, back: Profile) -> list[Crossing]:
        routes = self._plane.routes
        return _renormalised(
            [
                (p, r, out_share * back_share, route)
                for p, (start, out_share) in enumerate(out)
                for r, (end, back_share) in enumerate(back)
                if (route := routes.get((start, end))) is not None
            ]
        )

    def _cell(self, ways: list[Crossing]) -> tuple[Side, int, Side]:
        """Return what a pair of profiles uses: way out, bundle between, way in."""
        common = lcm(
            *(share.denominator * route.denominator for _, _, share, route in ways)
        )
        scales = [
            int(common * share) // route.denominator for _, _, share, route in ways
        ]
        first: dict[int, tuple[int, dict[int, int]]] = {}
        last: dict[int, tuple[int, dict[int, int]]] = {}
        links, numerators = [], []
        for (p, r, _, route), scale in zip(ways, scales, strict=True):
            _collect(first, p, scale * route.denominator, route.first, scale)
            _collect(last, r, scale * route.denominator, route.last, scale)
            wide = common >= INT64_LIMIT
            values = route.numerators_A.astype(object) if wide else route.numerators_A
            links.append(route.middle_A)
            numerators.append(values * scale)
        middle = self._store.add(
            np.concatenate(links), np.concatenate(numerators), common
        )
        return _side(common, first), middle, _side(common, last)

    def _rows(
        self,
        gpus: IntArray,
        profile_G: IntArray,
        sides: list[dict[Side, int]],
        *,
        leaving: bool,
    ) -> IntArray:
        """Add every GPU's bundles for one end; return the first number of each."""
        ports = self._out if leaving else self._back
        own = self._plane.out_links if leaving else self._plane.back_links
        first = []
        for gpu, profile in zip(gpus.tolist(), profile_G.tolist(), strict=True):
            numbers = [
                self._store.add_shares(_shares(side, ports[gpu], own))
                for side in sides[profile]
            ]
            first.append(numbers[0] if numbers else 0)
        return np.asarray(first, dtype=np.int32)


_NOTHING = ClassRoute(
    first=(),
    last=(),
    middle_A=np.zeros(0, dtype=np.int64),
    numerators_A=np.zeros(0, dtype=np.int64),
    denominator=1,
)


def _renormalised(ways: list[Crossing]) -> list[Crossing]:
    """Port pairs without a path are dropped; the rest shares the whole (rule 5)."""
    total = sum((share for _, _, share, _ in ways), Fraction(0))
    return [(p, r, share / total, route) for p, r, share, route in ways]


def _collect(
    side: dict[int, tuple[int, dict[int, int]]],
    port: int,
    weight: int,
    steps: tuple[tuple[int, int], ...],
    scale: int,
) -> None:
    before, taken = side.get(port, (0, {}))
    for place, numerator in steps:
        taken[place] = taken.get(place, 0) + numerator * scale
    side[port] = (before + weight, taken)


def _side(common: int, side: dict[int, tuple[int, dict[int, int]]]) -> Side:
    """Return a side in lowest terms, so that equal ones are recognised."""
    least = gcd(
        common,
        *(n for weight, taken in side.values() for n in (weight, *taken.values())),
    )
    ports = tuple(
        (
            port,
            weight // least,
            tuple((place, n // least) for place, n in sorted(taken.items())),
        )
        for port, (weight, taken) in sorted(side.items())
    )
    return common // least, ports


def _shares(
    side: Side, ports: tuple[Port, ...], own: dict[str, tuple[int, ...]]
) -> dict[int, Fraction]:
    common, used = side
    shares: dict[int, Fraction] = {}
    for place, weight, steps in used:
        port = ports[place]
        parts = [(link, Fraction(weight, common) * part) for link, part in port.access]
        parts += [(own[port.node][step], Fraction(n, common)) for step, n in steps]
        for link, part in parts:
            shares[link] = shares.get(link, Fraction(0)) + part
    return shares
