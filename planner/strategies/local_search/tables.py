"""Arrays the kernel works on: what stays fixed for a layer, and its state."""

from typing import Any, NamedTuple

import numpy as np

from planner.arrays import BoolArray, FloatArray, IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.local_search.incidence import incidence_of
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

    ``place_Y`` and ``share_Y`` list, for every GPU pair, the places x of ``load_X``
    that one dispatch transfer (and its mirrored combine transfer) adds to.
    ``cost_X`` turns a load into the objective's unit, ``leg_X`` says which maximum
    it competes in; ``unit`` is the greatest cost of one load.
    """

    mode: int
    selection: int
    relayed: bool
    ep: int
    domain_G: IntArray
    relay_GG: IntArray
    indptr_P: IntArray
    place_Y: IntArray
    share_Y: FloatArray
    cost_X: FloatArray
    leg_X: IntArray
    legs: int
    counts_pairs: bool
    unit: float


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
    incidence = incidence_of(instance)
    return Network(
        mode=MODES[instance.traffic],
        selection=SELECTIONS[instance.selection],
        relayed=instance.endpoint == "dest_forward"
        and instance.traffic != "dedup_domain",
        ep=instance.layout.ep,
        domain_G=np.ascontiguousarray(instance.layout.domain_G),
        relay_GG=np.ascontiguousarray(instance.layout.relay_GG),
        indptr_P=incidence.indptr_P,
        place_Y=incidence.place_Y,
        share_Y=incidence.share_Y,
        cost_X=incidence.cost_X,
        leg_X=incidence.leg_X,
        legs=1 + int(incidence.leg_X.max(initial=0)),
        counts_pairs=objective == "gpu_tokens",
        unit=float(incidence.cost_X.max(initial=0.0)) or 1.0,
    )


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
