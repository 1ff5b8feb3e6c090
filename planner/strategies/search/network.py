"""What all layers share: which links a touched column loads, and what it costs.

A *column* is one GPU of an EP set (by EP rank) or, for ``dedup_domain``, one domain
of it (a *cell*). A token that touches a column causes at most two transfers that
depend on nothing but its source, so the load of every link is a fixed linear
function of the numbers of tokens by (column, source).
"""

from typing import NamedTuple

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.instance import PlacementInstance, scope_of
from planner.layout import ParallelLayout
from planner.strategies.search.serving import Homes, homes_of, sources_decide

NO_PAIR = -1


class Network(NamedTuple):
    """Fixed arrays of an instance (C columns, X places where load adds up).

    ``by_source`` says that who serves a token depends on its source alone: by the rule
    of ``nearest`` or, where there are ``homes``, by what the plan says of them.
    ``cell_CR`` is the column of the cell of each EP rank in each EP set, -1 where
    cells do not matter; ``alike`` says that all sets have the same. ``first_K``,
    ``place_Y`` and ``share_Y`` list, for every key column · classes + class, the
    places that one token adds to (in the evaluator's network every source GPU is a
    class); with ``cells_only`` GPUs load none. ``cost_X`` turns a load into the
    objective's unit; places of leg ``i`` lie from ``leg_start[i]`` on, those of the
    second of several ``draws`` after those of the first.
    """

    linear: bool
    by_source: bool
    homes: Homes
    ep: int
    columns: int
    domain_G: IntArray
    cell_CR: IntArray
    alike: bool
    cells_only: bool
    classes: int
    first_K: IntArray
    place_Y: IntArray
    share_Y: FloatArray
    cost_X: FloatArray
    leg_start: IntArray
    counts_pairs: bool
    draws: int


class Classes(NamedTuple):
    """Sources taken together: a token of a class leaves from each by its share."""

    class_S: IntArray
    share_S: FloatArray


class _Entries(NamedTuple):
    """One token of a key (column · classes + class) adds ``share`` at ``place``."""

    key_Z: IntArray
    place_Z: IntArray
    share_Z: FloatArray

    def take(self, chosen: BoolArray | IntArray) -> "_Entries":
        return _Entries(self.key_Z[chosen], self.place_Z[chosen], self.share_Z[chosen])


def network_of(instance: PlacementInstance, classes: Classes | None = None) -> Network:
    """Return the fixed arrays of an instance.

    Without ``classes`` every source is its own and the loads are the evaluator's.

    Raises
    ------
    ValueError
        If the cluster is too large to write all its routes out.
    """
    if classes is None:
        gpus = instance.layout.gpu_count
        classes = Classes(class_S=np.arange(gpus), share_S=np.ones(gpus))
    count = int(classes.class_S.max()) + 1
    layout, by_cell = instance.layout, instance.traffic == "dedup_domain"
    cell_CR = _cells(layout) if by_cell else np.full((layout.sets, layout.ep), NO_PAIR)
    columns = max(layout.ep, int(cell_CR.max()) + 1)
    homes = homes_of(instance)
    entries, cost_X = _loads(instance, _hops(instance, cell_CR), classes)
    used = np.unique(entries.place_Z)
    entries = entries.take(np.argsort(entries.key_Z, kind="stable"))
    keys = np.arange(columns * count + 1)
    legs = int(used.max(initial=0) >= cost_X.size // 2) + 1
    ends = np.searchsorted(used, [0, cost_X.size // 2, cost_X.size])
    return Network(
        linear=instance.traffic == "copies",
        by_source=sources_decide(instance, homes),
        homes=homes,
        ep=layout.ep,
        columns=columns,
        domain_G=np.ascontiguousarray(layout.domain_G, dtype=np.int64),
        cell_CR=cell_CR,
        alike=bool((cell_CR == cell_CR[0]).all()),
        cells_only=False,
        classes=count,
        first_K=np.searchsorted(entries.key_Z, keys),
        place_Y=np.searchsorted(used, entries.place_Z),
        share_Y=entries.share_Z,
        cost_X=cost_X[used],
        leg_start=ends[: legs + 1].astype(np.int64),
        counts_pairs=instance.objective.name == "gpu_tokens",
        draws=1,
    )


def _cells(layout: ParallelLayout) -> IntArray:
    """Number the domains of each EP set after its ranks, [sets, ep]."""
    cell_CR = np.zeros((layout.sets, layout.ep), dtype=np.int64)
    for row, domain_R in zip(
        cell_CR, layout.domain_G.reshape(layout.sets, layout.ep), strict=True
    ):
        row[:] = layout.ep + np.unique(domain_R, return_inverse=True)[1]
    return cell_CR


def _hops(
    instance: PlacementInstance, cell_CR: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Return (column, source, GPU pair) of every transfer a column causes (rule 20)."""
    layout, gpus = instance.layout, instance.layout.gpu_count
    source = np.repeat(np.arange(gpus), layout.ep)
    rank = np.tile(np.arange(layout.ep), gpus)
    target = layout.set_G[source] * layout.ep + rank
    relay = layout.relays(source, target)
    far = layout.domain_G[source] != layout.domain_G[target]
    if instance.traffic == "dedup_domain":
        cell = cell_CR[layout.set_G[source], rank]
        cell_source = np.where(far, cell * gpus + source, -1)
        crossing, first = np.unique(cell_source, return_index=True)
        first = first[crossing >= 0]
        legs = [
            (cell[first], source[first], source[first], relay[first]),
            (rank, source, np.where(far, relay, source), target),
        ]
    else:
        stop = layout.first_stops(source, target, instance.endpoint)
        legs = [(rank, source, source, stop), (rank, source, stop, target)]
    column, source, start, end = (
        np.concatenate(part) for part in zip(*legs, strict=True)
    )
    moved = start != end
    return column[moved], source[moved], (start * gpus + end)[moved]


def _loads(
    instance: PlacementInstance,
    hops: tuple[IntArray, IntArray, IntArray],
    classes: Classes,
) -> tuple[_Entries, FloatArray]:
    """Carry the transfers to the links; combine's places follow dispatch's."""
    gpus, links = instance.layout.gpu_count, len(instance.topology.links)
    indptr, link_Y, numerator_Y = instance.routes.incidence()
    column, source, pair = hops
    key = column * (int(classes.class_S.max()) + 1) + classes.class_S[source]
    mirrored = pair % gpus * gpus + pair // gpus
    parts = []
    for leg, way in enumerate((pair, mirrored)):
        size = indptr[way + 1] - indptr[way]
        at = np.repeat(indptr[way] - np.cumsum(size) + size, size)
        at = at + np.arange(at.size)
        share = numerator_Y[at] * np.repeat(classes.share_S[source], size)
        found = _Entries(np.repeat(key, size), link_Y[at], share)
        if instance.objective.name == "link_tokens":
            found = _as_tokens(found, instance)
        found = found.take(found.share_Z > 0)
        parts.append(found._replace(place_Z=found.place_Z + leg * links))
    entries = _Entries(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return _without_dominated(_merged(entries), _costs(instance))


def _as_tokens(entries: _Entries, instance: PlacementInstance) -> _Entries:
    """Divide by cables; a group has the sum of its members' tokens (rule 10)."""
    links = instance.topology.links
    divisor_A = np.asarray([link.token_divisor for link in links], dtype=np.float64)
    inner_A = np.asarray([not link.members for link in links])
    edges = entries.take(inner_A[entries.place_Z])
    edges = edges._replace(share_Z=edges.share_Z / divisor_A[edges.place_Z])
    parts = [edges]
    for group in links:
        if group.members:
            inside = edges.take(np.isin(edges.place_Z, group.members))
            place_Z = np.full_like(inside.place_Z, group.index)
            parts.append(inside._replace(place_Z=place_Z))
    return _Entries(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _merged(entries: _Entries) -> _Entries:
    """Sort by place, then key; add up what one token adds twice."""
    # Keys are below columns · G and places below 2 · A: the product fits in 63 bits.
    width = 1 + int(entries.key_Z.max(initial=0))
    code, where = np.unique(
        entries.place_Z * width + entries.key_Z, return_inverse=True
    )
    share: FloatArray = np.bincount(
        where, weights=entries.share_Z, minlength=code.size
    ).astype(np.float64)
    return _Entries(code % width, code // width, share)


def _without_dominated(
    entries: _Entries, cost_X: FloatArray
) -> tuple[_Entries, FloatArray]:
    """Keep the costliest of the places of a leg whose loads are always proportional.

    A port, its cable and the cable's far end see one flow: only the slowest binds.
    Where combine loads the same flows as dispatch at proportional cost, as on
    symmetric fabrics, it is dropped and dispatch's cost scaled. Neither changes the
    objective.
    """
    half = cost_X.size // 2
    ends = np.searchsorted(entries.place_Z, np.arange(cost_X.size + 1))
    entries, cost_X = _in_units(entries, cost_X, ends)
    kept: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
    for place in np.flatnonzero((np.diff(ends) > 0) & (cost_X > 0)).tolist():
        inside = slice(ends[place], ends[place + 1])
        flow = entries.key_Z[inside].tobytes() + entries.share_Z[inside].tobytes()
        leg = kept[place // half]
        if flow not in leg or cost_X[place] > cost_X[leg[flow]]:
            leg[flow] = place
    places = [*kept[0].values(), *kept[1].values()]
    if kept[0].keys() == kept[1].keys() and places:
        ratios = [cost_X[kept[1][flow]] / cost_X[at] for flow, at in kept[0].items()]
        if max(ratios) <= min(ratios) * (1 + 1e-12):
            cost_X = cost_X * (1 + ratios[0])
            places = list(kept[0].values())
    return entries.take(np.isin(entries.place_Z, places)), cost_X


def _in_units(
    entries: _Entries, cost_X: FloatArray, ends: IntArray
) -> tuple[_Entries, FloatArray]:
    """Count each place's load in units of its first share, so that equals show."""
    used = np.flatnonzero(np.diff(ends) > 0)
    unit_X = np.ones(cost_X.size)
    unit_X[used] = entries.share_Z[ends[used]]
    # Forty bits: proportional shares come out of different divisions.
    digits, power = np.frexp(entries.share_Z / unit_X[entries.place_Z])
    share_Z = np.ldexp(np.round(np.ldexp(digits, 40)), power - 40)
    return entries._replace(share_Z=share_Z), cost_X * unit_X


def _costs(instance: PlacementInstance) -> FloatArray:
    """Return the objective's unit per unit of load, dispatch then combine, [2·A]."""
    links, q = instance.topology.links, float(instance.routes.q)
    name = instance.objective.name
    if name == "gpu_tokens":
        return np.zeros(2 * len(links))
    if name == "link_tokens":
        scope_A = scope_of(links, instance.objective.link_classes).astype(np.float64)
        return np.tile(scope_A, 2) / q
    seconds_A = 1.0 / np.asarray([float(link.bytes_per_s) for link in links])
    return np.outer(instance.message_bytes, seconds_A).ravel() / q
