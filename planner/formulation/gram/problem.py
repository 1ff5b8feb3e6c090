"""One layer of deduplicated traffic as nets, groups and the price of every visit.

A *group* is what a token visits at most once: a scale-up domain under
``dedup_domain``, a GPU under ``dedup_gpu`` or where there is one domain only. A
*visit* (s, n) is a token from GPU s that has an expert in group n, which s itself is
not in. Axes: T tokens, K choices, S source GPUs, N groups, A links, E experts.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.instance import PlacementInstance, scope_of
from planner.workload.parts import TokenPart

MOST_EXPERTS = 160
MOST_CELLS = 300_000
MOST_ROUTES = 20_000_000
_DIGITS = 9


@dataclass(frozen=True, kw_only=True, eq=False)
class Visits:
    """What the visits of tokens cost on every link; the same for all layers.

    Attributes
    ----------
    groups
        GPUs of each group.
    load_ASN
        By leg (dispatch, combine): objective per visit on the links that can be the
        busiest.
    names
        By leg the names of these links.
    """

    groups: tuple[tuple[int, ...], ...]
    load_ASN: tuple[FloatArray, FloatArray]
    names: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Nets:
    """Tokens of one layer and what groups may hold.

    Attributes
    ----------
    experts_TK
        Distinct experts of each token, -1 for none.
    source_T
        GPU that each token leaves from.
    pairs_E
        (token, expert) pairs of each expert.
    slots_N
        Experts that each group holds.
    limit_N
        Pairs that a group may compute under the caps; None without.
    """

    experts_TK: IntArray
    source_T: IntArray
    pairs_E: IntArray
    slots_N: IntArray
    limit_N: IntArray | None
    visits: Visits


def why_not(instance: PlacementInstance) -> str | None:
    """Say why no such bound can be had, or None if it can."""
    layout = instance.layout
    if len(instance.views) > 1 or not isinstance(instance.planning, TokenPart):
        return "only the tokens of one workload are bounded"
    deduplicated = instance.traffic in ("dedup_domain", "dedup_gpu")
    if not deduplicated or instance.objective.name == "gpu_tokens":
        return "only deduplicated link loads are bounded"
    if instance.objective.layers == "pipelined":
        return "a pipelined sum of layers is not bounded"
    if layout.sets != 1 or instance.slot_count != instance.model.experts:
        return "experts with several copies are not bounded"
    count = len(groups_of(instance))
    experts = instance.model.experts
    routes = len(instance.topology.links) * layout.gpu_count * count
    if (
        count < 2
        or experts > MOST_EXPERTS
        or count * experts**2 > MOST_CELLS
        or routes > MOST_ROUTES
    ):
        return "too large, or too small, for the bound"
    return None


def groups_of(instance: PlacementInstance) -> tuple[tuple[int, ...], ...]:
    """Return the groups that a token visits at most once."""
    cells = instance.layout.cell_members
    if instance.traffic == "dedup_domain" and len(cells) > 1:
        return cells
    return tuple((gpu,) for gpu in range(instance.layout.gpu_count))


def visits_of(instance: PlacementInstance) -> Visits:
    """Return what visits cost on the links that can be the busiest."""
    groups = groups_of(instance)
    out_VP = _hops(instance, groups)
    gpus = instance.layout.gpu_count
    back_VP = tuple((cell, target, source) for cell, source, target in out_VP)
    legs = [
        _loads(instance, leg, hops, gpus * len(groups))
        for leg, hops in enumerate((out_VP, back_VP))
    ]
    links = instance.topology.links
    kept = [_kept_rows(load_AV) for load_AV in legs]
    shape = (-1, gpus, len(groups))
    first, second = (
        (load_AV[rows].reshape(shape), tuple(links[row].name for row in rows.tolist()))
        for load_AV, rows in zip(legs, kept, strict=True)
    )
    return Visits(
        groups=groups, load_ASN=(first[0], second[0]), names=(first[1], second[1])
    )


Hops = tuple[tuple[IntArray, IntArray, IntArray], ...]
"""Cells s·N + n with the GPUs that a transfer of their visit runs between."""


def _hops(instance: PlacementInstance, groups: tuple[tuple[int, ...], ...]) -> Hops:
    """Return the transfers that every visit causes; others only add to them."""
    layout, count = instance.layout, len(groups)
    source, group = (
        axis.ravel() for axis in np.indices((layout.gpu_count, count), dtype=np.int64)
    )
    first_N = np.asarray([members[0] for members in groups], dtype=np.int64)
    group_G = np.empty(layout.gpu_count, dtype=np.int64)
    for number, members in enumerate(groups):
        group_G[list(members)] = number
    away = group_G[source] != group
    source, group = source[away], group[away]
    cell, target = source * count + group, first_N[group]
    far = layout.domain_G[source] != layout.domain_G[target]
    if instance.traffic == "dedup_domain" or instance.endpoint == "dest_forward":
        stop = np.where(far, layout.relays(source, target), target)
    else:
        stop = target
    onward = stop != target
    if instance.traffic == "dedup_domain":
        onward &= False
    return (
        (cell, source, stop),
        (cell[onward], stop[onward], target[onward]),
    )


def _loads(instance: PlacementInstance, leg: int, hops: Hops, cells: int) -> FloatArray:
    """Return the objective per visit on every link [A, V]."""
    links, gpus = instance.topology.links, instance.layout.gpu_count
    indptr, links_X, value_X = instance.routes.incidence()
    load_AV = np.zeros((len(links), cells))
    for cell_P, source_P, target_P in hops:
        pair_P = source_P * gpus + target_P
        size_P = np.diff(indptr)[pair_P]
        ends = np.cumsum(size_P)
        place = np.arange(int(size_P.sum())) - np.repeat(ends - size_P, size_P)
        entry = np.repeat(indptr[pair_P], size_P) + place
        share = value_X[entry].astype(np.float64) / float(instance.routes.q)
        np.add.at(load_AV, (links_X[entry], np.repeat(cell_P, size_P)), share)
    if instance.objective.name == "link_time":
        size = instance.message_bytes[leg]
        seconds_A = [float(size / link.bytes_per_s) for link in links]
        return np.asarray(load_AV * np.asarray(seconds_A)[:, None])
    divided_AV = load_AV / np.asarray([[float(link.token_divisor)] for link in links])
    for link in links:
        if link.members:
            divided_AV[link.index] = divided_AV[list(link.members)].sum(axis=0)
    inside_A = scope_of(links, instance.objective.link_classes)
    return np.where(inside_A[:, None], divided_AV, 0.0)


def _kept_rows(load_AV: FloatArray) -> IntArray:
    """Return the slowest link of all that carry the same visits, in link order.

    Where no link counts, the first stands for a load of 0.
    """
    peak_A = load_AV.max(axis=1)
    used = np.flatnonzero(peak_A > 0)
    if not used.size:
        return np.zeros(1, dtype=np.int64)
    pattern = np.round(load_AV[used] / peak_A[used, None], _DIGITS)
    kept: dict[bytes, int] = {}
    for row, link in enumerate(used.tolist()):
        key = pattern[row].tobytes()
        if key not in kept or peak_A[link] > peak_A[kept[key]]:
            kept[key] = link
    return np.asarray(sorted(kept.values()), dtype=np.int64)


def nets_of(instance: PlacementInstance, layer: int, visits: Visits) -> Nets:
    """Return one layer of the planning part."""
    part = instance.planning
    assert isinstance(part, TokenPart)
    experts_TK = part.experts_LTK[layer].astype(np.int64)
    raw_E = np.bincount(experts_TK[experts_TK >= 0], minlength=instance.model.experts)
    for later in range(1, experts_TK.shape[1]):
        again_T = _repeated(experts_TK, later)
        experts_TK[again_T, later] = -1
    sizes = [len(members) for members in visits.groups]
    return Nets(
        experts_TK=np.ascontiguousarray(experts_TK),
        source_T=part.source_T.astype(np.int64),
        pairs_E=raw_E.astype(np.int64),
        slots_N=np.asarray(sizes, dtype=np.int64) * instance.slots_per_gpu,
        limit_N=_limits(instance, visits, layer, int(raw_E.sum())),
        visits=visits,
    )


def _limits(
    instance: PlacementInstance, visits: Visits, layer: int, pairs: int
) -> IntArray | None:
    """Return the pairs that each group may compute (rule 26), None without caps."""
    gpus, caps = instance.layout.gpu_count, instance.caps
    of_gpu, of_domain = caps.gpu_at(layer), caps.domain_at(layer)
    domains = {tuple(members) for members in instance.topology.domains}
    limits = []
    for members in visits.groups:
        most = [pairs]
        if of_gpu is not None:
            most.append(floor(of_gpu * pairs / gpus) * len(members))
        if of_domain is not None and members in domains:
            most.append(floor(of_domain * Fraction(pairs * len(members), gpus)))
        limits.append(min(most))
    if min(limits) >= pairs:
        return None
    return np.asarray(limits, dtype=np.int64)


def _repeated(experts_TK: IntArray, later: int) -> BoolArray:
    same: BoolArray = experts_TK[:, :later] == experts_TK[:, later, None]
    return np.asarray(same.any(axis=1), dtype=np.bool_)
