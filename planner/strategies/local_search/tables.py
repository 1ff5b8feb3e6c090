"""Arrays the kernel works on: what stays fixed for a layer, and its state."""

from typing import Any, NamedTuple

import numpy as np

from planner.arrays import BoolArray, FloatArray, IdArray, IntArray
from planner.evaluate.objective import scope_of
from planner.instance import PlacementInstance
from planner.strategies.local_search.kernel import (
    COPIES,
    DEDUP_DOMAIN,
    DEDUP_GPU,
    EVEN,
    NEAREST,
    WEIGHTED,
)
from planner.workload.demand import distinct_sets
from planner.workload.parts import CountsPart, TokenPart

MODES = {"copies": COPIES, "dedup_gpu": DEDUP_GPU, "dedup_domain": DEDUP_DOMAIN}
SELECTIONS = {"nearest": NEAREST, "even": EVEN, "weighted": WEIGHTED}
KNUTH = np.uint64(2654435769)
LOW_32 = np.uint64(0xFFFFFFFF)


class Network(NamedTuple):
    """What all layers share: modes, groups, and where a transfer adds load.

    ``link_Y`` and ``share_Y`` list, for every GPU pair, the places x of ``load_X``
    that one dispatch transfer (and its mirrored combine transfer) adds to.
    ``cost_X`` turns a load into the objective's unit, ``leg_X`` says which maximum
    it competes in (-1: none).
    """

    mode: int
    selection: int
    relayed: bool
    ep: int
    domain_G: IntArray
    relay_GG: IntArray
    indptr_P: IntArray
    link_Y: IntArray
    share_Y: FloatArray
    cost_X: FloatArray
    leg_X: IntArray
    legs: int
    counts_pairs: bool


class Rows(NamedTuple):
    """The rows of one layer, and which rows chose each expert."""

    source_R: IntArray
    weight_R: IntArray
    mixed_R: IntArray
    experts_RK: IdArray
    first_E: IntArray
    row_Z: IntArray
    has_RE: BoolArray
    load_CE: IntArray
    caps_G: FloatArray
    caps_N: FloatArray


def network_of(instance: PlacementInstance) -> Network:
    """Return what all layers of an instance share."""
    objective = instance.objective.name
    indptr_P, link_Y, share_Y, cost_X, leg_X = _incidence(instance)
    return Network(
        mode=MODES[instance.traffic],
        selection=SELECTIONS[instance.selection],
        relayed=instance.endpoint == "dest_forward"
        and instance.traffic != "dedup_domain",
        ep=instance.layout.ep,
        domain_G=np.ascontiguousarray(instance.layout.domain_G),
        relay_GG=np.ascontiguousarray(instance.layout.relay_GG),
        indptr_P=indptr_P,
        link_Y=link_Y,
        share_Y=share_Y,
        cost_X=cost_X,
        leg_X=leg_X,
        legs=1 + int(leg_X.max(initial=0)),
        counts_pairs=objective == "gpu_tokens",
    )


def _incidence(
    instance: PlacementInstance,
) -> tuple[IntArray, IntArray, FloatArray, FloatArray, IntArray]:
    """Combine both legs: the mirrored pair's links, shifted by A, follow."""
    gpus, links = instance.layout.gpu_count, instance.topology.links
    count = len(links)
    indptr, link, numerator = instance.routes.incidence()
    pair = np.repeat(np.arange(gpus * gpus), np.diff(indptr))
    group_of: dict[int, list[int]] = {}
    for each in links:
        for member in each.members:
            group_of.setdefault(member, []).append(each.index)
    divisor_A = np.asarray([each.token_divisor for each in links], dtype=np.float64)
    by_tokens = instance.objective.name == "link_tokens"
    share = numerator / (divisor_A[link] if by_tokens else 1.0)
    pieces = [(pair, link, share)]
    for member, groups in group_of.items():
        at = np.flatnonzero(link == member)
        for group in groups:
            pieces.append((pair[at], np.full(at.size, group), share[at]))
    pair_Z, link_Z, share_Z = (
        np.concatenate([piece[at] for piece in pieces]) for at in range(3)
    )
    mirrored = pair_Z % gpus * gpus + pair_Z // gpus
    incidence = _without_dominated(
        np.concatenate([pair_Z, mirrored]),
        np.concatenate([link_Z, link_Z + count]),
        np.concatenate([share_Z, share_Z]).astype(np.float64),
        _costs(instance).reshape(-1),
    )
    return _by_pair(*incidence, gpus=gpus, links=count)


def _without_dominated(
    pair_Z: IntArray, place_Z: IntArray, share_Z: FloatArray, cost_X: FloatArray
) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """Keep the costliest of the places of a leg that always carry the same load.

    A port, its cable and the cable's far end all see one flow: only the slowest can
    bind. Where both legs load the same flows at proportional cost, as on symmetric
    fabrics, dispatch decides combine too: its costs are scaled and the other leg is
    dropped. Both steps leave the objective exactly as it is.
    """
    order = np.lexsort((pair_Z, place_Z))
    pair_Z, place_Z, share_Z = pair_Z[order], place_Z[order], share_Z[order]
    ends = np.searchsorted(place_Z, np.arange(cost_X.size + 1))
    kept: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
    for place in range(cost_X.size):
        inside = slice(ends[place], ends[place + 1])
        if ends[place] == ends[place + 1] or cost_X[place] <= 0:
            continue
        flow = pair_Z[inside].tobytes() + share_Z[inside].tobytes()
        leg = kept[int(place >= cost_X.size // 2)]
        if flow not in leg or cost_X[place] > cost_X[leg[flow]]:
            leg[flow] = place
    places = [*kept[0].values(), *kept[1].values()]
    if kept[0].keys() == kept[1].keys() and kept[0]:
        ratios = [cost_X[kept[1][flow]] / cost_X[at] for flow, at in kept[0].items()]
        if max(ratios) <= min(ratios) * (1 + 1e-12):
            cost_X = cost_X * (1 + ratios[0])
            places = list(kept[0].values())
    keep = np.isin(place_Z, places)
    return pair_Z[keep], place_Z[keep], share_Z[keep], cost_X


def _by_pair(
    pair_Z: IntArray,
    place_Z: IntArray,
    share_Z: FloatArray,
    cost_X: FloatArray,
    *,
    gpus: int,
    links: int,
) -> tuple[IntArray, IntArray, FloatArray, FloatArray, IntArray]:
    """Number the places that are left and order the entries by GPU pair."""
    used = np.unique(place_Z)
    order = np.argsort(pair_Z, kind="stable")
    indptr_P = np.searchsorted(pair_Z[order], np.arange(gpus * gpus + 1))
    return (
        indptr_P.astype(np.int64),
        np.searchsorted(used, place_Z[order]).astype(np.int64),
        share_Z[order],
        cost_X[used],
        (used // links).astype(np.int64),
    )


def _costs(instance: PlacementInstance) -> FloatArray:
    """Return the objective's unit per numerator of load, [2, A]."""
    links, q = instance.topology.links, float(instance.routes.q)
    name = instance.objective.name
    if name == "gpu_tokens":
        return np.zeros((2, len(links)))
    if name == "link_tokens":
        scope_A = scope_of(links, instance.objective.link_classes).astype(np.float64)
        return np.stack([scope_A, scope_A]) / q
    seconds_A = 1.0 / np.asarray([float(each.bytes_per_s) for each in links])
    return np.outer(np.asarray(instance.message_bytes), seconds_A) / q


def rows_of(instance: PlacementInstance, layer: int) -> Rows:
    """Return the rows of a layer of the planning part.

    Under ``nearest`` a copy follows from the source alone, so tokens of one source
    with the same experts become one row with a weight.
    """
    part = instance.planning
    if isinstance(part, CountsPart):
        raise TypeError("a counts table has no rows")
    experts = instance.model.experts
    if instance.selection == "nearest":
        sets = distinct_sets(part, layer)
        source_R, experts_RK, weight_R = sets.source_n, sets.experts_nK, sets.weight_n
        mixed_R = np.zeros(source_R.size, dtype=np.int64)
    else:
        source_R, experts_RK = part.source_T, part.experts_LTK[layer]
        weight_R = np.ones(source_R.size, dtype=np.int64)
        mixed_R = _mixed(part, instance.selection)
    flat = experts_RK.reshape(-1).astype(np.int64)
    row_Z = np.repeat(np.arange(source_R.size), experts_RK.shape[1])
    kept = flat >= 0
    order = np.argsort(flat[kept], kind="stable")
    first_E = np.searchsorted(flat[kept][order], np.arange(experts + 1))
    has_RE = np.zeros((source_R.size, experts), dtype=np.bool_)
    has_RE[row_Z[kept], flat[kept]] = True
    set_Z = np.asarray(source_R)[row_Z] // instance.layout.ep
    load_CE = np.zeros((instance.layout.sets, experts), dtype=np.int64)
    np.add.at(load_CE, (set_Z[kept], flat[kept]), np.asarray(weight_R)[row_Z][kept])
    caps_G, caps_N = _caps(instance, float((weight_R @ (experts_RK >= 0)).sum()))
    return Rows(
        source_R=np.ascontiguousarray(source_R, dtype=np.int64),
        weight_R=np.ascontiguousarray(weight_R, dtype=np.int64),
        mixed_R=mixed_R,
        experts_RK=np.ascontiguousarray(experts_RK, dtype=np.int16),
        first_E=first_E.astype(np.int64),
        row_Z=row_Z[kept][order],
        has_RE=has_RE,
        load_CE=load_CE,
        caps_G=caps_G,
        caps_N=caps_N,
    )


def _mixed(part: TokenPart, selection: str) -> IntArray:
    """The hash of rule 18, or u of rule 19."""
    ordinal = part.ordinal_T.astype(np.uint64)
    if selection == "weighted":
        ordinal = ordinal + np.uint64(1)
    return ((ordinal * KNUTH) & LOW_32).astype(np.int64)


def _caps(instance: PlacementInstance, pairs: float) -> tuple[FloatArray, FloatArray]:
    """Most pairs that each GPU and each domain may serve (rule 26)."""
    gpus = instance.layout.gpu_count
    sizes = np.asarray([len(members) for members in instance.topology.domains])
    mean, caps = pairs / gpus, instance.caps
    gpu_cap = np.inf if caps.gpu is None else caps.gpu * mean
    domain_cap = np.inf if caps.domain is None else caps.domain * mean
    return np.full(gpus, gpu_cap), domain_cap * sizes.astype(np.float64)


class State(NamedTuple):
    """What a move changes."""

    slots_GJ: IdArray
    held_RG: Any
    held_RN: Any
    load_X: FloatArray
    trial_X: FloatArray
    pairs_G: FloatArray
    delta_P: IntArray
    touched: IntArray


def empty_state(network: Network, rows: Rows, slots_GJ: IdArray) -> State:
    """Return a state in which nothing is served yet."""
    gpus, count = network.domain_G.size, rows.source_R.size
    return State(
        slots_GJ=slots_GJ.astype(np.int16).copy(),
        held_RG=np.zeros((count, gpus), dtype=np.uint8),
        held_RN=np.zeros((count, int(network.domain_G.max()) + 1), dtype=np.uint8),
        load_X=np.zeros(network.cost_X.size),
        trial_X=np.zeros(network.cost_X.size),
        pairs_G=np.zeros(gpus),
        delta_P=np.zeros((gpus * gpus, 2), dtype=np.int64),
        touched=np.zeros(gpus * gpus, dtype=np.int64),
    )
