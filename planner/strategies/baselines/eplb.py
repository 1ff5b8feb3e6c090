"""DeepSeek's expert-parallel load balancer, in its three published readings.

Loads are float32, sorts are stable by descending load, ties go to the lower id
(rule 30). References: deepseek-ai/EPLB ``eplb.py``.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.arrays import IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    expert_loads,
)

LoadArray: TypeAlias = NDArray[np.float32]


def balanced_packing(load_X: LoadArray, packs: int) -> tuple[IntArray, IntArray]:
    """Return pack and place in the pack of each item; packs hold equally many.

    Heaviest first, each into the lightest pack that has room.
    """
    items = load_X.size
    room = items // packs
    if room == 1:
        return np.arange(items), np.zeros(items, dtype=np.int64)
    pack_X = np.zeros(items, dtype=np.int64)
    place_X = np.zeros(items, dtype=np.int64)
    total = np.zeros(packs, dtype=np.float32)
    used = np.zeros(packs, dtype=np.int64)
    for item in np.argsort(-load_X, kind="stable"):
        pack = int(np.argmin(np.where(used < room, total, np.float32(np.inf))))
        pack_X[item], place_X[item] = pack, used[pack]
        total[pack] += load_X[item]
        used[pack] += 1
    return pack_X, place_X


def per_copy(load_E: LoadArray, copies_E: IntArray) -> LoadArray:
    """Return the load of one copy of each expert, split evenly, in float32."""
    shared: LoadArray = np.divide(load_E, copies_E, dtype=np.float32)
    return shared


def replicate(load_E: LoadArray, slots: int) -> tuple[IntArray, IntArray]:
    """Return the expert of each of ``slots`` copies and the copies per expert.

    Every expert once, then a copy to the greatest load/copies.
    """
    experts = load_E.size
    expert_P = np.arange(slots)
    copies_E = np.ones(experts, dtype=np.int64)
    for slot in range(experts, slots):
        expert = int(np.argmax(per_copy(load_E, copies_E)))
        expert_P[slot] = expert
        copies_E[expert] += 1
    return expert_P, copies_E


def pack_copies(load_E: LoadArray, slots: int, packs: int) -> list[IntArray]:
    """Replicate the experts and pack the copies; return the experts per pack."""
    expert_P, copies_E = replicate(load_E, slots)
    load_P = per_copy(load_E, copies_E)[expert_P]
    pack_P, place_P = balanced_packing(load_P, packs)
    order = np.lexsort((place_P, pack_P))
    return np.split(expert_P[order], packs)


def _float32(instance: PlacementInstance) -> LoadArray:
    return expert_loads(instance).astype(np.float32)


def _need_uniform(instance: PlacementInstance) -> None:
    """EPLB fills as many slots of every GPU in every layer."""
    if instance.single:
        raise AbsentBaselineError("EPLB puts experts of every layer on every GPU")


@BASELINES.register("eplb_global")
def eplb_global(instance: PlacementInstance) -> IdArray:
    """Replicate and pack over all GPUs; domains are invisible."""
    _need_uniform(instance)
    layers = [
        np.stack(pack_copies(load_E, instance.slot_count, instance.layout.ep))
        for load_E in _float32(instance)
    ]
    return np.stack(layers).astype(np.int16)


@BASELINES.register("eplb_hierarchical")
def eplb_hierarchical(instance: PlacementInstance) -> IdArray:
    """Pack expert groups on domains, then replicate and pack inside each domain."""
    _need_uniform(instance)
    domains = equal_domains(instance)
    experts = instance.model.experts
    groups = instance.model.routing_groups
    groups = groups if groups > 1 else domains
    if experts % groups or groups % domains:
        raise AbsentBaselineError(
            f"{experts} experts in {groups} groups do not divide over {domains} domains"
        )
    layers = [
        _hierarchical_layer(load_E, instance, groups, domains)
        for load_E in _float32(instance)
    ]
    return np.stack(layers).astype(np.int16)


def _hierarchical_layer(
    load_E: LoadArray, instance: PlacementInstance, groups: int, domains: int
) -> NDArray[Any]:
    members_RE = np.arange(load_E.size).reshape(groups, -1)
    load_R = load_E[members_RE].sum(axis=1, dtype=np.float32)
    domain_R, place_R = balanced_packing(load_R, domains)
    gpus = instance.layout.ep // domains
    rows: list[IntArray] = []
    for domain in range(domains):
        inside = np.flatnonzero(domain_R == domain)
        inside = inside[np.argsort(place_R[inside])]
        experts = members_RE[inside].ravel()
        packs = pack_copies(load_E[experts], instance.slot_count // domains, gpus)
        rows.extend(experts[pack] for pack in packs)
    return np.stack(rows)


@BASELINES.register("eplb_domains")
def eplb_domains(instance: PlacementInstance) -> IdArray:
    """Balance the domains as if each were one GPU, then the GPUs inside."""
    _need_uniform(instance)
    domains = equal_domains(instance)
    gpus = instance.layout.ep // domains
    layers = []
    for load_E in _float32(instance):
        expert_P, copies_E = replicate(load_E, instance.slot_count)
        load_P = per_copy(load_E, copies_E)[expert_P]
        domain_P, _ = balanced_packing(load_P, domains)
        rows: list[IntArray] = []
        for domain in range(domains):
            inside = np.flatnonzero(domain_P == domain)
            gpu_P, place_P = balanced_packing(load_P[inside], gpus)
            order = np.lexsort((place_P, gpu_P))
            rows.extend(np.split(expert_P[inside][order], gpus))
        layers.append(np.stack(rows))
    return np.stack(layers).astype(np.int16)


def equal_domains(instance: PlacementInstance) -> int:
    """Return the number of domains in an EP set.

    Raises
    ------
    AbsentBaselineError
        If they are not equal and consecutive in EP order.
    """
    domain_G = instance.layout.domain_G[: instance.layout.ep]
    changes = 1 + np.flatnonzero(np.diff(domain_G))
    runs = np.diff(np.concatenate([[0], changes, [domain_G.size]]))
    if len(set(domain_G.tolist())) != runs.size:
        raise AbsentBaselineError("domains are not consecutive in EP order")
    if len(set(runs.tolist())) != 1:
        raise AbsentBaselineError("domains have different sizes")
    return int(runs.size)
