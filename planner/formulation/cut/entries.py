"""Link shares as sparse rows over pairs, one per distinct direction.

For each leg, the load of link a is Σ over pairs (s, d) of share·transfers(s → d),
where the pair is always (source, serving GPU): combine runs d → s, and with
``dest_forward`` and ``pxn`` a far pair takes two routes through its relay (rules 7
and 21).
Axes: X entries, G GPUs, A links; a pair is numbered s·G + d.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.instance import PlacementInstance, scope_of
from planner.topology.graph import Link

_INT64_SAFE = 2**60


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """Integer shares of one direction and the factor that makes them a load.

    The load in seconds (or tokens) is ``factor`` · Σ value · transfers.
    """

    pair_X: IntArray
    value_X: ExactArray
    factor: Fraction
    link: str

    def dense(self, gpus: int) -> ExactArray:
        """Return the shares as [G, G]."""
        share = np.zeros(gpus * gpus, dtype=self.value_X.dtype)
        share[self.pair_X] = self.value_X
        return share.reshape(gpus, gpus)


Rows = dict[bytes, Row]
"""Rows by direction: two links of one direction keep the tighter."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entries:
    """Shares of all links, sorted by link then pair."""

    link_X: IntArray
    pair_X: IntArray
    value_X: ExactArray


def leg_rows(instance: PlacementInstance, *, combine: bool) -> Rows:
    """Return the rows of one leg of ``link_time`` or ``link_tokens``."""
    entries, links = _routed(instance, combine=combine), instance.topology.links
    if instance.objective.name == "link_time":
        size = instance.message_bytes[int(combine)]
        unit_A = [Fraction(size) / link.bytes_per_s for link in links]
    else:
        entries, common = _as_tokens(entries, links)
        scope_A = scope_of(links, instance.objective.link_classes)
        unit_A = [Fraction(int(inside), common) for inside in scope_A]
    starts = np.searchsorted(entries.link_X, np.arange(len(links) + 1))
    rows: Rows = {}
    for link in links:
        place = slice(starts[link.index], starts[link.index + 1])
        factor = unit_A[link.index] / instance.routes.q
        if factor and starts[link.index] < starts[link.index + 1]:
            row = Row(
                pair_X=entries.pair_X[place],
                value_X=entries.value_X[place],
                factor=factor,
                link=link.name,
            )
            _keep_tighter(rows, row)
    return rows


def common_ratio(dispatch: Rows, combine: Rows) -> Fraction | None:
    """Return r if every combine row is r times a dispatch row, and back."""
    if dispatch.keys() != combine.keys():
        return None
    ratios = {combine[key].factor / row.factor for key, row in dispatch.items()}
    return ratios.pop() if len(ratios) == 1 else None


def route_lengths(instance: PlacementInstance) -> ExactArray:
    """Return the mean number of links of every pair's route, times Q, [G, G]."""
    indptr, links_X, value_X = instance.routes.incidence()
    members = [bool(link.members) for link in instance.topology.links]
    counted = np.where(np.asarray(members)[links_X], 0, value_X)
    total = np.concatenate([[0], np.cumsum(counted)])
    gpus = instance.layout.gpu_count
    lengths: ExactArray = (total[indptr[1:]] - total[indptr[:-1]]).reshape(gpus, gpus)
    return lengths


def _routed(instance: PlacementInstance, *, combine: bool) -> Entries:
    """Entries of every pair inside an EP set, along the routes of one leg."""
    layout = instance.layout
    gpus = layout.gpu_count
    source, target = np.nonzero(
        (layout.set_G[:, None] == layout.set_G[None, :]) & ~np.eye(gpus, dtype=bool)
    )
    stop = layout.first_stops(source, target, instance.endpoint)
    hops = [(source, stop), (stop, target)]
    pair = source * gpus + target
    indptr, links_X, value_X = instance.routes.incidence()
    parts = []
    for start, end in hops:
        route = end * gpus + start if combine else start * gpus + end
        sizes = np.diff(indptr)[route]
        ends = np.cumsum(sizes)
        place = np.arange(int(sizes.sum())) + np.repeat(
            indptr[route] - ends + sizes, sizes
        )
        parts.append((links_X[place], np.repeat(pair, sizes), value_X[place]))
    link_X, pair_X, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _merged(link_X, pair_X, values, gpus * gpus)


def _merged(
    link_X: IntArray, pair_X: IntArray, value_X: ExactArray, pairs: int
) -> Entries:
    key = link_X * pairs + pair_X
    order = np.argsort(key, kind="stable")
    key, value_X = key[order], value_X[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    summed = np.add.reduceat(value_X, first) if first.size else value_X
    link, pair = np.divmod(key[first], pairs)
    return Entries(link_X=link, pair_X=pair, value_X=summed)


def _as_tokens(entries: Entries, links: Sequence[Link]) -> tuple[Entries, int]:
    """Divide by cables; a group sums its members after division (rule 10)."""
    common = lcm(*(link.token_divisor for link in links))
    factor_A = np.asarray([common // link.token_divisor for link in links])
    edge_A = np.asarray([not link.members for link in links])
    kept = edge_A[entries.link_X]
    link_X, pair_X = entries.link_X[kept], entries.pair_X[kept]
    value_X = entries.value_X[kept] * factor_A[link_X]
    parts = [(link_X, pair_X, value_X)]
    for link in links:
        for member in link.members:
            there = link_X == member
            group = np.full(int(there.sum()), link.index)
            parts.append((group, pair_X[there], value_X[there]))
    joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
    pairs = int(entries.pair_X.max(initial=0)) + 1
    return _merged(joined[0], joined[1], joined[2], pairs), common


def _keep_tighter(rows: Rows, row: Row) -> None:
    """Add a row in lowest terms, unless its direction is there with more load."""
    divisor = gcd(*row.value_X.tolist())
    value_X = row.value_X // divisor
    if int(value_X.max()) < _INT64_SAFE:
        value_X = value_X.astype(np.int64)
        shown = value_X.tobytes()
    else:
        shown = repr(value_X.tolist()).encode()
    key = row.pair_X.astype(np.int64).tobytes() + shown
    factor = row.factor * divisor
    if key not in rows or rows[key].factor < factor:
        rows[key] = Row(
            pair_X=row.pair_X, value_X=value_X, factor=factor, link=row.link
        )
