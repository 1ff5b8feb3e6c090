"""Routes of transfers between plan GPUs as exact shares of every link.

φ_a(s, d) = numerator / Q is the share of a transfer s → d that link a carries.
Routes are data, not decisions: they come from the topology by rules 4 to 6 and
are kept factorised (see ``bundles``), so thousands of GPUs fit in memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import permutations
from typing import NoReturn

import numpy as np

from planner.arrays import BoolArray, ExactArray, FloatArray, IntArray
from planner.errors import TopologyError
from planner.pair_counts import PairCounts
from planner.topology.bundles import Bundles, BundleStore
from planner.topology.flow_paths import FlowPaths
from planner.topology.graph import ClusterTopology
from planner.topology.kernel import accumulate, spread
from planner.topology.nics import Endpoints, Port
from planner.topology.pairs import PlaneUsers
from planner.topology.planes import build_plane
from planner.topology.policies.base import path_policy
from planner.topology.sections import HOST, SCALE_UP, Rules, section
from planner.topology.tables import (
    FABRIC_CASE,
    HOST_CASE,
    SCALE_UP_CASE,
    InsidePairs,
    PairTable,
    PairTarget,
    Table,
)
from planner.topology.wide import WideTable, leaves_of

_EXACT_LIMIT = 2.0**61
WIDE_GPUS = 4_096
"""Above so many GPUs nothing is kept per pair of them, where that is possible."""
_INCIDENCE_LIMIT = 2**28


@dataclass(frozen=True, kw_only=True, eq=False)
class Routes:
    """φ_a(s, d) = numerator / Q: the share of a transfer s → d on link a.

    A capacity group is a link too: its share is the sum of its members'. Pairs
    without a path are legal until a transfer needs one.

    Attributes
    ----------
    q
        Q, the common denominator of all shares; may exceed 64 bits.
    """

    topology: ClusterTopology
    q: int
    bundles: Bundles
    table: Table

    @property
    def reachable_GG(self) -> BoolArray:
        """Which ordered pairs have a path; the diagonal is False."""
        return self.table.reachable_GG

    def pair(self, source: int, target: int) -> tuple[IntArray, ExactArray]:
        """Link indices, ascending, and numerators over Q of one GPU pair.

        Empty if source = target. Raises TopologyError if there is no path.
        """
        numerators: dict[int, int] = {}
        for bundle in self._bundles_of(source, target):
            for link, numerator in self._entries(bundle):
                numerators[link] = numerators.get(link, 0) + numerator
        links = sorted(numerators)
        return (
            np.asarray(links, dtype=np.int64),
            np.asarray(
                [numerators[link] for link in links],
                dtype=self.bundles.numerators_X.dtype,
            ),
        )

    def loads(self, transfers_GG: ExactArray | PairCounts) -> ExactArray:
        """Exact numerators over Q [..., A] of the loads of transfers [..., G, G].

        Transfers may be given sparsely, as the counts of one layer and leg.

        int64 where a proven bound allows it, Python integers otherwise. Groups
        sum their members; the diagonal moves nothing.

        Raises
        ------
        TopologyError
            A transfer between GPUs without a path.
        """
        if isinstance(transfers_GG, PairCounts):
            return self._loads_of(transfers_GG)
        transfers = np.asarray(transfers_GG)
        if transfers.dtype.kind not in "iuO":
            raise TypeError(f"transfers must be integers, not {transfers.dtype}")
        count = self.topology.gpu_count
        flat = transfers.reshape(-1, count, count)
        whole = isinstance(self.table, PairTable) and self._fits(
            np.abs(flat).sum(axis=(1, 2), dtype=np.float64).max(initial=0)
        )
        add = self._add_int64 if whole else self._add_matrix
        loads = np.stack([add(matrix) for matrix in flat])
        return loads.reshape(*transfers.shape[:-2], len(self.topology.links))

    def incidence(self) -> tuple[IntArray, IntArray, ExactArray]:
        """CSR over pairs s·G + d: (indptr [G·G+1], links, numerators).

        Rows are sorted by link; rows of pairs without a path are empty. int64
        unless Q exceeds 64 bits. For clusters of some hundred GPUs: the size is
        that of all routes written out.
        """
        return self._incidence

    @cached_property
    def _incidence(self) -> tuple[IntArray, IntArray, ExactArray]:
        pairs = self.topology.gpu_count**2
        if not isinstance(self.table, PairTable):
            raise ValueError("too many routes to write out; use loads()")
        columns = [part.reshape(-1) for part in self.table.parts]
        used = np.flatnonzero(columns[0] >= 0)
        bundle_X = np.stack([column[used] for column in columns], axis=1).reshape(-1)
        sizes = np.diff(self.bundles.indptr)[bundle_X]
        if sizes.sum() > _INCIDENCE_LIMIT:
            raise ValueError("too many routes to write out; use loads()")
        starts = self.bundles.indptr[bundle_X]
        ends = np.cumsum(sizes)
        place = np.arange(int(sizes.sum())) - np.repeat(ends - sizes - starts, sizes)
        row = np.repeat(np.repeat(used, 3), sizes)
        width = len(self.topology.links)
        key = row * width + self.bundles.links_X[place]
        order = np.argsort(key, kind="stable")
        key, values = key[order], self.bundles.numerators_X[place][order]
        # A link on both the way out and the way in is met twice: add it up.
        first = np.flatnonzero(np.diff(key, prepend=-1))
        summed = np.add.reduceat(values, first) if first.size else values
        key = key[first]
        indptr = np.searchsorted(key // width, np.arange(pairs + 1))
        return indptr.astype(np.int64), key % width, summed

    @cached_property
    def _largest(self) -> float:
        """Bound of any numerator of a pair: eight bundles of the largest entry."""
        numerators = self.bundles.numerators_X
        return 8.0 * float(max(numerators.max(initial=0), 1))

    def _fits(self, total: float) -> bool:
        """Whether the loads of so many transfers are proven to fit in int64."""
        if self.bundles.numerators_X.dtype == object:
            return False
        return float(total) * self._largest < _EXACT_LIMIT

    def _add_int64(self, transfers_GG: ExactArray) -> ExactArray:
        matrix = np.ascontiguousarray(transfers_GG.astype(np.int64))
        loads_A = np.zeros(len(self.topology.links), dtype=np.int64)
        bundles = self.bundles
        missing = accumulate(
            matrix,
            *self.table.parts,  # type: ignore[attr-defined]
            bundles.indptr,
            bundles.links_X,
            bundles.numerators_X,
            loads_A,
        )
        if missing >= 0:
            self._no_path(*divmod(int(missing), self.topology.gpu_count))
        return loads_A

    def _add_matrix(self, transfers_GG: ExactArray) -> ExactArray:
        return self._loads_of(PairCounts.of_matrix(transfers_GG))

    def _loads_of(self, moved: PairCounts) -> ExactArray:
        apart = moved.source_n != moved.target_n
        source_n, target_n = moved.source_n[apart], moved.target_n[apart]
        count_n = moved.count_n[apart]
        bundles = self.bundles
        fits = self._fits(np.abs(count_n).sum(dtype=np.float64))
        dtype = np.int64 if fits else object
        amount_B = np.zeros(bundles.indptr.size - 1, dtype=dtype)
        reached_n = self.table.add(amount_B, source_n, target_n, count_n.astype(dtype))
        if not reached_n.all():
            first = int(np.argmin(reached_n))
            self._no_path(int(source_n[first]), int(target_n[first]))
        loads_A = np.zeros(len(self.topology.links), dtype=dtype)
        if fits:
            indptr, links_X = bundles.indptr, bundles.links_X
            spread(amount_B, indptr, links_X, bundles.numerators_X, loads_A)
            return loads_A
        for bundle in np.flatnonzero(amount_B).tolist():
            for link, numerator in self._entries(bundle):
                loads_A[link] += amount_B[bundle] * numerator
        return loads_A

    def _bundles_of(self, source: int, target: int) -> list[int]:
        if source == target:
            return []
        bundles, reached = self.table.columns(
            np.asarray([source]), np.asarray([target])
        )
        if not reached[0]:
            self._no_path(source, target)
        return [int(bundle) for bundle in bundles[0]]

    def all_to_all(self) -> tuple[FloatArray, BoolArray]:
        """Return what one transfer of every GPU pair loads each link with.

        And which links serve one source or one target only, or nobody: ports.
        """
        bundles, links = self.bundles, len(self.topology.links)
        seen = self.table.survey(bundles.indptr.size - 1)
        row_X = np.repeat(np.arange(seen.amount_B.size), np.diff(bundles.indptr))
        used = seen.amount_B[row_X] > 0
        row_X, link_X = row_X[used], bundles.links_X[used]
        share_X = bundles.numerators_X[used].astype(np.float64) / float(self.q)
        weight_X = (seen.amount_B[row_X] * share_X).astype(np.float64)
        load_A = np.bincount(link_X, weights=weight_X, minlength=links)
        port_A = np.zeros(links, dtype=np.bool_)
        for first_B, last_B in zip(seen.first_2B, seen.last_2B, strict=True):
            first_A = np.full(links, self.topology.gpu_count)
            last_A = np.full(links, -1)
            np.minimum.at(first_A, link_X, first_B[row_X])
            np.maximum.at(last_A, link_X, last_B[row_X])
            port_A |= first_A >= last_A
        return load_A.astype(np.float64), port_A

    def least_shares(
        self, domain_G: IntArray, *, leaving: bool
    ) -> tuple[Mapping[int, int], ...]:
        """Links by GPU that everything to (from) other domains passes.

        Each with the least numerator over Q of any of these transfers: what a GPU's
        own ports carry wherever its tokens come from.
        """
        found = []
        for bundles in self.table.ways(domain_G, leaving=leaving):
            least = dict(self._entries(bundles[0])) if bundles else {}
            for bundle in bundles[1:]:
                other = dict(self._entries(bundle))
                least = {
                    link: min(share, other[link])
                    for link, share in least.items()
                    if link in other
                }
            found.append(least)
        return tuple(found)

    def _entries(self, bundle: int) -> Iterator[tuple[int, int]]:
        start, end = self.bundles.indptr[bundle : bundle + 2]
        links = self.bundles.links_X[start:end].tolist()
        return zip(links, self.bundles.numerators_X[start:end].tolist(), strict=True)

    def _no_path(self, source: int, target: int) -> NoReturn:
        gpus = self.topology.gpus
        raise TopologyError(
            f"has no path to {gpus[target].id}, and transfers between them are wanted",
            where=self.topology.name,
            value=gpus[source].id,
            fix="connect them, or choose an endpoint mode that stays on the rail",
        )


def build_routes(topology: ClusterTopology, policy: str = "ecmp_fractional") -> Routes:
    """Return the routes of every pair of plan GPUs (rules 4-6).

    Parameters
    ----------
    policy
        ``ecmp_fractional``, ``dmodk``, ``ecmp_hash(SEED[,FLOWS])`` or ``explicit``.
        The latter three choose paths through the fabric, pair by pair; scale-up
        links and the inside of a host divide as ever.

    Raises
    ------
    UsageError
        An unknown policy, or one that lacks what it needs.
    TopologyError
        A GPU that reaches no other GPU; tables that lead nowhere.
    """
    choosing = path_policy(policy, topology)
    store = BundleStore()
    host_G = _numbers([gpu.host for gpu in topology.gpus])
    endpoints = Endpoints(topology)
    if choosing is None and topology.gpu_count > WIDE_GPUS:
        wide = _wide_table(topology, endpoints, store)
        if wide is not None:
            return _checked(topology, store, wide)
    table = PairTable.empty(topology.gpu_count)
    fabric = _fabric_users(topology, endpoints, store)
    # Later fills overwrite earlier ones: the wanted case comes last (rule 4).
    fabric.fill(table)
    _fill_inside(topology, HOST, host_G, store, table)
    _fill_inside(topology, SCALE_UP, topology.domain_G, store, table)
    _fill_shared_nics(topology, fabric, host_G, table)
    if choosing is not None:
        paths = FlowPaths(topology, choosing)
        fabric.fill_paths(table, paths.between)
    return _checked(topology, store, table)


def wide_routes(topology: ClusterTopology) -> Routes | None:
    """Return the routes with nothing kept per GPU pair, whatever the size.

    None where a GPU has several ways into the fabric or shares one.
    """
    store = BundleStore()
    table = _wide_table(topology, Endpoints(topology), store)
    return None if table is None else _checked(topology, store, table)


def _wide_table(
    topology: ClusterTopology, endpoints: Endpoints, store: BundleStore
) -> WideTable | None:
    leaves = leaves_of(topology, endpoints)
    if leaves is None:
        return None
    inside = InsidePairs(topology.gpu_count)
    _fill_inside(
        topology, HOST, _numbers([g.host for g in topology.gpus]), store, inside
    )
    _fill_inside(topology, SCALE_UP, topology.domain_G, store, inside)
    inside.finish()
    return leaves.table(inside, store)


def _checked(topology: ClusterTopology, store: BundleStore, table: Table) -> Routes:
    bundles = store.finish(topology.links)
    routes = Routes(topology=topology, q=bundles.q, bundles=bundles, table=table)
    _check_reach(routes)
    return routes


def _fabric_users(
    topology: ClusterTopology, endpoints: Endpoints, store: BundleStore
) -> PlaneUsers:
    names = [gpu.id for gpu in topology.gpus]
    out = [endpoints.ports(name, leaving=True) for name in names]
    back = [endpoints.ports(name, leaving=False) for name in names]
    nodes = {port.node for ports in (*out, *back) for port in ports}
    plane = build_plane(endpoints.fabric, sorted(nodes))
    return PlaneUsers(plane, out, back, store, case=FABRIC_CASE)


def _fill_inside(
    topology: ClusterTopology,
    rules: Rules,
    same_G: IntArray,
    store: BundleStore,
    table: PairTarget,
) -> None:
    """Route the pairs that need no NIC: every GPU is its own port."""
    names = [gpu.id for gpu in topology.gpus]
    plane = build_plane(section(topology, rules), names)
    ports = [
        (Port(node=name, share=Fraction(1), access=()),)
        if name in plane.class_of
        else ()
        for name in names
    ]
    case = SCALE_UP_CASE if rules is SCALE_UP else HOST_CASE
    PlaneUsers(plane, ports, ports, store, case=case).fill(table, same_G)


def _fill_shared_nics(
    topology: ClusterTopology, fabric: PlaneUsers, host_G: IntArray, table: PairTable
) -> None:
    """Route GPUs of one host that meet at a NIC: they do not cross the fabric."""
    hosts: dict[int, list[int]] = {}
    for gpu, host in enumerate(host_G.tolist()):
        hosts.setdefault(host, []).append(gpu)
    for gpus in hosts.values():
        for source, target in permutations(gpus, 2):
            inside = table.case_GG[source, target] in (SCALE_UP_CASE, HOST_CASE)
            if not inside and fabric.meet(source, target):
                fabric.add_single(table, source, target)


def _numbers(names: list[str]) -> IntArray:
    numbers: dict[str, int] = {}
    return np.asarray([numbers.setdefault(name, len(numbers)) for name in names])


def _check_reach(routes: Routes) -> None:
    alone = routes.table.alone
    if alone.size:
        raise TopologyError(
            "has no path to another GPU by the rules of transit (GPUs, NICs and "
            "hosts do not forward)",
            where=routes.topology.name,
            value=routes.topology.gpus[int(alone[0])].id,
            fix="wire it to an nvswitch, a NIC of its host or a switch",
        )
