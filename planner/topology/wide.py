"""Routes of very large clusters: bundles by GPU and by leaf, nothing by GPU pair.

Where every GPU enters the fabric by one NIC of its own and one cable, the route of a
pair is the way out to the source's leaf, the route between two leaves, and the way
in from the target's leaf. Leaves wired alike are one class, so that 464 leaves of 29
pods cost 29² routes.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from planner.arrays import BoolArray, ExactArray, IntArray
from planner.topology.bundles import BundleStore
from planner.topology.graph import ClusterTopology
from planner.topology.nics import Endpoints, Port
from planner.topology.pairs import PlaneUsers
from planner.topology.planes import Plane, build_plane
from planner.topology.sections import Hop, Section, hops_from
from planner.topology.tables import FABRIC_CASE, InsidePairs, PairTable, Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """One GPU's only way into (or out of) the fabric: links and leaf."""

    shares: dict[int, Fraction]
    leaf: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaves:
    """The leaves of a cluster and how each GPU is wired to one.

    ``out`` and ``back`` are None for a GPU without a way.
    """

    names: tuple[str, ...]
    plane: Plane
    out: tuple[_Way | None, ...]
    back: tuple[_Way | None, ...]

    def table(self, inside: InsidePairs, store: BundleStore) -> "WideTable":
        """Return the bundles of all pairs; adds those of the fabric to ``store``."""
        place = {name: number for number, name in enumerate(self.names)}
        between = PairTable.empty(len(self.names))
        ports = [
            (Port(node=name, share=Fraction(1), access=()),) for name in self.names
        ]
        known = [
            port if name in self.plane.class_of else ()
            for name, port in zip(self.names, ports, strict=True)
        ]
        PlaneUsers(self.plane, known, known, store, case=FABRIC_CASE).fill(between)

        def column(ways: tuple[_Way | None, ...]) -> tuple[IntArray, IntArray]:
            leaf = [-1 if way is None else place[way.leaf] for way in ways]
            bundle = [
                0 if way is None else store.add_shares(way.shares) for way in ways
            ]
            return np.asarray(leaf), np.asarray(bundle)

        leaf_out_G, out_G = column(self.out)
        leaf_back_G, back_G = column(self.back)
        return WideTable(
            inside=inside,
            between=between,
            leaf_out_G=leaf_out_G,
            out_G=out_G,
            leaf_back_G=leaf_back_G,
            back_G=back_G,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class WideTable:
    """Bundles of every pair, looked up by the GPUs' domains and leaves.

    Attributes
    ----------
    inside
        Pairs that need no fabric.
    between
        Bundles of pairs of leaves.
    leaf_out_G, leaf_back_G
        Leaf that a GPU sends to and receives from; -1 for none.
    out_G, back_G
        Bundle of the links between a GPU and its leaf.
    """

    inside: InsidePairs
    between: PairTable
    leaf_out_G: IntArray
    out_G: IntArray
    leaf_back_G: IntArray
    back_G: IntArray

    @property
    def _joined(self) -> BoolArray:
        """Which leaves are joined; a leaf turns round what enters by it."""
        joined = self.between.reachable_GG.copy()
        np.fill_diagonal(joined, True)
        return joined

    def _by_fabric(self, source_n: IntArray, target_n: IntArray) -> BoolArray:
        start, end = self.leaf_out_G[source_n], self.leaf_back_G[target_n]
        wired = (start >= 0) & (end >= 0) & (source_n != target_n)
        reached: BoolArray = wired & self._joined[start, end]
        return reached

    @property
    def reachable_GG(self) -> BoolArray:
        """Which ordered pairs have a path; a byte per pair of GPUs."""
        gpus = np.arange(self.leaf_out_G.size)
        reachable = self._by_fabric(gpus[:, None], gpus[None, :])
        reachable[self.inside.pairs] = True
        return reachable

    @property
    def reachable_pairs(self) -> int:
        """How many ordered pairs have a path."""
        leaves = len(self.between.exit_GG)
        out_V = np.bincount(self.leaf_out_G[self.leaf_out_G >= 0], minlength=leaves)
        back_V = np.bincount(self.leaf_back_G[self.leaf_back_G >= 0], minlength=leaves)
        gpus = np.arange(self.leaf_out_G.size)
        start, end = self.leaf_out_G, self.leaf_back_G
        itself = (start >= 0) & (end >= 0) & self._joined[start, end]
        only_inside = ~self._by_fabric(*self.inside.pairs)
        total = int(out_V @ self._joined @ back_V) - int(itself[gpus].sum())
        return total + int(only_inside.sum())

    @property
    def alone(self) -> IntArray:
        """The GPUs that reach no other."""
        leaves = len(self.between.exit_GG)
        back_V = np.bincount(self.leaf_back_G[self.leaf_back_G >= 0], minlength=leaves)
        start, end = self.leaf_out_G, self.leaf_back_G
        reach_G = np.where(start >= 0, (self._joined @ back_V)[start], 0)
        reach_G -= (start >= 0) & (end >= 0) & self._joined[start, end]
        reach_G[self.inside.pairs[0]] += 1
        return np.flatnonzero(reach_G <= 0)

    def columns(
        self, source_n: IntArray, target_n: IntArray
    ) -> tuple[IntArray, BoolArray]:
        """Return the bundles of these pairs [n, 8], and which have a path."""
        near_n3, near_n = self.inside.columns(source_n, target_n)
        far_n = ~near_n & self._by_fabric(source_n, target_n)
        start, end = self.leaf_out_G[source_n], self.leaf_back_G[target_n]
        between_n3, _ = self.between.columns(start, end)
        columns = [
            near_n3 * near_n[:, None],
            (self.out_G[source_n] * far_n)[:, None],
            between_n3 * (far_n & (start != end))[:, None],
            (self.back_G[target_n] * far_n)[:, None],
        ]
        return np.concatenate(columns, axis=1), near_n | far_n

    def add(
        self,
        amount_B: ExactArray,
        source_n: IntArray,
        target_n: IntArray,
        count_n: ExactArray,
    ) -> BoolArray:
        """Add the counts of these pairs to their bundles; return which have a path."""
        near_n3, near_n = self.inside.columns(source_n, target_n)
        reached_n = near_n | self._by_fabric(source_n, target_n)
        if not reached_n.all():
            return reached_n
        for column in near_n3[near_n].T:
            np.add.at(amount_B, column, count_n[near_n])
        source_f, target_f, count_f = (
            each[~near_n] for each in (source_n, target_n, count_n)
        )
        np.add.at(amount_B, self.out_G[source_f], count_f)
        np.add.at(amount_B, self.back_G[target_f], count_f)
        start, end = self.leaf_out_G[source_f], self.leaf_back_G[target_f]
        far = start != end
        self.between.add(amount_B, start[far], end[far], count_f[far])
        return reached_n

    def survey(self, bundles: int) -> Survey:
        """Return who uses every bundle, counted by leaf."""
        gpus, leaves = self.leaf_out_G.size, len(self.between.exit_GG)
        found = Survey.empty(bundles, gpus)
        source, target = self.inside.pairs
        near_n3, _ = self.inside.columns(source, target)
        for column in near_n3.T:
            found.add(column, np.ones_like(source), (source,) * 2, (target,) * 2)
        pairs_VV = np.zeros((leaves, leaves), dtype=np.int64)
        out, back = _ends(self.leaf_out_G, leaves), _ends(self.leaf_back_G, leaves)
        pairs_VV += out[0][:, None] * back[0][None, :] * self._joined
        # A GPU and itself, and pairs that stay inside, do not enter the fabric.
        every = np.arange(gpus)
        ends = np.concatenate([source, every]), np.concatenate([target, every])
        start, end = self.leaf_out_G[ends[0]], self.leaf_back_G[ends[1]]
        wired = (start >= 0) & (end >= 0) & self._joined[start, end]
        np.subtract.at(pairs_VV, (start[wired], end[wired]), 1)
        less_2G = np.zeros((2, gpus), dtype=np.int64)
        for row, side in enumerate(ends):
            np.add.at(less_2G[row], side[wired], 1)
        anyone = np.zeros(gpus, dtype=np.int64), np.full(gpus, gpus - 1)
        for row, (leaf_G, bundle_G, reach_V) in enumerate(
            (
                (self.leaf_out_G, self.out_G, self._joined @ back[0]),
                (self.leaf_back_G, self.back_G, out[0] @ self._joined),
            )
        ):
            amount_G = np.where(leaf_G >= 0, reach_V[leaf_G] - less_2G[row], 0)
            both = ((every, every), anyone)
            found.add(bundle_G, amount_G, both[row], both[1 - row])
        u, v = np.nonzero((pairs_VV > 0) & ~np.eye(leaves, dtype=np.bool_))
        for part in self.between.parts:
            found.add(
                part[u, v].astype(np.int64),
                pairs_VV[u, v],
                (out[1][u], out[2][u]),
                (back[1][v], back[2][v]),
            )
        return found

    def ways(self, domain_G: IntArray, *, leaving: bool) -> list[list[int]]:
        """Return by GPU the last (first) bundles of its routes to other domains."""
        source, target = self.inside.pairs
        crossing = domain_G[source] != domain_G[target]
        # A pair of different domains that needs no NIC passes none.
        mixed = set((source if leaving else target)[crossing].tolist())
        leaf_G = self.leaf_out_G if leaving else self.leaf_back_G
        bundle_G = self.out_G if leaving else self.back_G
        return [
            [] if leaf < 0 or gpu in mixed else [bundle]
            for gpu, (leaf, bundle) in enumerate(
                zip(leaf_G.tolist(), bundle_G.tolist(), strict=True)
            )
        ]


def _ends(leaf_G: IntArray, leaves: int) -> tuple[IntArray, IntArray, IntArray]:
    """How many GPUs a leaf has, the lowest and the highest of them."""
    gpu = np.flatnonzero(leaf_G >= 0)
    first_V = np.full(leaves, leaf_G.size, dtype=np.int64)
    last_V = np.full(leaves, -1, dtype=np.int64)
    np.minimum.at(first_V, leaf_G[gpu], gpu)
    np.maximum.at(last_V, leaf_G[gpu], gpu)
    return np.bincount(leaf_G[gpu], minlength=leaves), first_V, last_V


def leaves_of(topology: ClusterTopology, endpoints: Endpoints) -> Leaves | None:
    """Return the leaves, or None where a GPU has several ways or shares its NIC."""
    fabric, names = endpoints.fabric, [gpu.id for gpu in topology.gpus]
    sides = []
    for leaving, hops in ((True, fabric.out), (False, fabric.back)):
        ports = [endpoints.ports(name, leaving=leaving) for name in names]
        used = [port.node for each in ports for port in each]
        if len(set(used)) < len(used) or any(len(each) > 1 for each in ports):
            return None
        ways = [_way(each[0], hops, fabric) if each else None for each in ports]
        if any(each and way is None for each, way in zip(ports, ways, strict=True)):
            return None
        sides.append(ways)
    leaves = sorted({way.leaf for side in sides for way in side if way is not None})
    if not leaves:
        return None
    part = _switches(fabric, frozenset(leaves))
    plane = build_plane(part, leaves)
    if not _leaves_never_forward(plane, part):
        return None
    return Leaves(
        names=tuple(leaves), plane=plane, out=tuple(sides[0]), back=tuple(sides[1])
    )


def _way(port: Port, hops: dict[str, list[Hop]], fabric: Section) -> _Way | None:
    """The links from a GPU to its leaf; None unless there is just one cable."""
    own = hops[port.node]
    if len(own) != 1 or own[0][0] not in fabric.transit:
        return None
    shares = dict(port.access)
    shares[own[0][1]] = Fraction(1)
    return _Way(shares=shares, leaf=own[0][0])


def _switches(fabric: Section, leaves: frozenset[str]) -> Section:
    """The fabric without what hangs on it; leaves are its ends."""

    def only(steps: dict[str, list[Hop]]) -> dict[str, list[Hop]]:
        kept = {
            node: [hop for hop in hops if hop[0] in fabric.transit]
            for node, hops in steps.items()
            if node in fabric.transit
        }
        return {node: hops for node, hops in kept.items() if hops}

    return replace(
        fabric,
        out=only(fabric.out),
        back=only(fabric.back),
        transit=fabric.transit - leaves,
    )


def _leaves_never_forward(plane: Plane, part: Section) -> bool:
    """Whether every way through a third leaf is longer than the way without it."""
    classes = sorted(set(plane.class_of.values()))
    if not classes:
        return True
    far = 10**6
    sample = {number: node for node, number in reversed(plane.class_of.items())}
    hops_UV = np.full((len(classes), len(classes)), far, dtype=np.int64)
    for source in classes:
        for node, hops in hops_from(part, sample[source]).items():
            if node in plane.class_of and node != sample[source]:
                target = plane.class_of[node]
                hops_UV[source, target] = min(hops_UV[source, target], hops)
    through_UV = np.full_like(hops_UV, far)
    for third in classes:
        way_UV = hops_UV[:, third, None] + hops_UV[None, third, :]
        np.minimum(through_UV, way_UV, out=through_UV)
    shorter = (through_UV <= hops_UV) & (through_UV < far)
    return not bool(shorter.any())
