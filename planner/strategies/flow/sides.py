"""Which nodes send to which in a leg, and how many of each other they can meet."""

from typing import NamedTuple

import numpy as np

from planner.arrays import IntArray
from planner.instance import PlacementInstance
from planner.strategies.flow.flows import Flows

Limit = tuple[int, int]
"""How many columns a row meets at most, and how many rows a column."""


class Side(NamedTuple):
    """Transfers between two kinds of nodes, and who may meet how many.

    ``kind`` is ``out`` (homes to experts), ``between`` (two layers), ``within`` (one)
    or ``home`` (experts to homes).
    """

    kind: str
    weight_UV: IntArray
    gpu: Limit
    domain: Limit


class _Sizes(NamedTuple):
    """Experts of one layer on a GPU and in a domain, and of the next beside one."""

    slots: int
    wide: int
    next_gpu: int
    next_domain: int
    homes: int


def sides_of(
    instance: PlacementInstance, flows: Flows, layer: int, leg: int
) -> list[Side]:
    """Return the transfers of a leg that are between neighbours, or in one layer."""
    own = (flows.first(layer), flows.first(layer) + flows.experts)
    homes, number, size = (0, flows.ep), 2 * layer + leg, _sizes(instance)
    between = (size.next_gpu, size.next_gpu), (size.next_domain, size.next_domain)
    inside = (size.slots - 1, size.slots - 1), (size.wide - 1, size.wide - 1)
    ends = {
        "out": (homes, own, (size.slots, 1), (size.wide, size.homes)),
        "between": ((own[0] - flows.experts, own[0]), own, *between),
        "within": (own, own, *inside),
        "home": (own, homes, (1, size.slots), (size.homes, size.wide)),
    }
    return [
        Side(kind, _between(flows, number, *ends[kind][:2]), *ends[kind][2:])
        for kind in _kinds(flows, layer, leg)
    ]


def _kinds(flows: Flows, layer: int, leg: int) -> tuple[str, ...]:
    if leg == 0:
        return ("between",) if flows.chained and layer else ("out",)
    if not flows.chained:
        return ("home",)
    last = 2 * layer + 2 == flows.legs
    return ("within", "home") if last else ("within",)


def _sizes(instance: PlacementInstance) -> _Sizes:
    slots, widest = instance.slots_per_gpu, widest_of(instance)
    if instance.single:
        return _Sizes(1, widest, 0, widest - 1, widest)
    return _Sizes(slots, slots * widest, slots, slots * widest, widest)


def widest_of(instance: PlacementInstance) -> int:
    """Return the most GPUs that one EP set has in one domain."""
    layout = instance.layout
    key_G = layout.set_G * layout.gpu_count + layout.domain_G
    return int(np.unique(key_G, return_counts=True)[1].max())


def _between(
    flows: Flows, leg: int, tails: tuple[int, int], heads: tuple[int, int]
) -> IntArray:
    """Return the transfers of a leg from one range of nodes to another, all sets."""
    chosen = (
        (flows.leg_Y == leg)
        & (flows.tail_Y >= tails[0])
        & (flows.tail_Y < tails[1])
        & (flows.head_Y >= heads[0])
        & (flows.head_Y < heads[1])
    )
    weight_UV = np.zeros((tails[1] - tails[0], heads[1] - heads[0]), dtype=np.int64)
    tail_Y, head_Y = flows.tail_Y[chosen] - tails[0], flows.head_Y[chosen] - heads[0]
    np.add.at(weight_UV, (tail_Y, head_Y), flows.count_Y[chosen])
    return weight_UV
