"""A bound of chained traffic: what travels, less the most that can sit together.

In every leg the links of a class carry, in the mean over their rates, at least the
cheapest way of every transfer that leaves its GPU, and of every one that leaves its
domain. How many stay is bounded by transports between the two sides of a leg
(``docs/certificates.md``, kind ``walks``).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.instance import PlacementInstance, scope_of
from planner.strategies.base import LayerBound
from planner.strategies.flow.flows import Flows
from planner.strategies.flow.matching import Together, together


class _Rate(NamedTuple):
    """What a transfer of a leg costs at least, in the mean over a class of links."""

    link_class: str
    near: float
    far: float


class _Side(NamedTuple):
    """Transfers between two kinds of nodes, and how many of the other each may meet.

    ``gpu`` and ``domain`` are (columns a row meets, rows a column meets).
    """

    weight_UV: IntArray
    gpu: tuple[int, int]
    domain: tuple[int, int]


def layer_bounds(instance: PlacementInstance, flows: Flows) -> list[LayerBound]:
    """Return the bound of every layer, one copy of each expert given."""
    rates = [_rates(instance, leg) for leg in (0, 1)]
    bounds = []
    for layer in range(flows.legs // 2):
        value, legs = 0.0, []
        for leg in (0, 1):
            found, certificate = _leg(rates[leg], _sides(instance, flows, layer, leg))
            value += found
            legs.append(certificate)
        bounds.append(
            LayerBound(
                value=value,
                method="walks",
                of=f"{instance.traffic}/{instance.selection}",
                certificate={"kind": "walks", "legs": legs},
            )
        )
    return bounds


def _leg(
    rates: Sequence[_Rate], sides: Sequence[_Side]
) -> tuple[float, dict[str, Any]]:
    """Return a leg's bound under its best class of links, and its multipliers."""
    gpu = [together(side.weight_UV, *side.gpu) for side in sides]
    domain = [together(side.weight_UV, *side.domain) for side in sides]
    total = sum(int(side.weight_UV.sum()) for side in sides)
    apart = total - sum(found.saved for found in gpu)
    abroad = total - sum(found.saved for found in domain)
    best = max(rates, key=lambda rate: _value(rate, apart, abroad))
    return _value(best, apart, abroad), {
        "class": best.link_class,
        "gpu": [_plain(found) for found in gpu],
        "domain": [_plain(found) for found in domain],
    }


def _value(rate: _Rate, apart: int, abroad: int) -> float:
    near = min(rate.near, rate.far)
    return near * apart + (rate.far - near) * abroad


def _plain(found: Together) -> dict[str, list[int]]:
    return {"rows": found.row_U.tolist(), "columns": found.column_V.tolist()}


def _sides(
    instance: PlacementInstance, flows: Flows, layer: int, leg: int
) -> list[_Side]:
    """Return the transfers of a leg between neighbouring layers or one with itself."""
    ep, slots = flows.ep, instance.slots_per_gpu
    widest = _widest(instance)
    experts = (flows.first(layer), flows.first(layer) + flows.experts)
    homes = (0, ep)
    if leg == 1:
        inside = _Side(
            _between(flows, 2 * layer + 1, experts, experts),
            (slots - 1, slots - 1),
            (slots * widest - 1, slots * widest - 1),
        )
        if 2 * layer + 2 < flows.legs:
            return [inside]
        homeward = _between(flows, 2 * layer + 1, experts, homes)
        return [inside, _Side(homeward, (1, slots), (widest, slots * widest))]
    if layer == 0:
        outward = _between(flows, 0, homes, experts)
        return [_Side(outward, (slots, 1), (slots * widest, widest))]
    before = (experts[0] - flows.experts, experts[0])
    wide = slots * widest
    return [
        _Side(_between(flows, 2 * layer, before, experts), (slots, slots), (wide, wide))
    ]


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


def _widest(instance: PlacementInstance) -> int:
    """Return the most GPUs that one EP set has in one domain."""
    layout = instance.layout
    key_G = layout.set_G * layout.gpu_count + layout.domain_G
    return int(np.unique(key_G, return_counts=True)[1].max())


def _rates(instance: PlacementInstance, leg: int) -> list[_Rate]:
    """Return the rate of every class of links that the objective looks at."""
    links, layout = instance.topology.links, instance.layout
    gpus = layout.gpu_count
    first_P, link_Y, numerator_Y = instance.routes.incidence()
    pair_Y = np.repeat(np.arange(gpus * gpus), np.diff(first_P))
    share_Y = numerator_Y.astype(np.float64) / float(instance.routes.q)
    same_set = layout.set_G[:, None] == layout.set_G[None, :]
    same_domain = layout.domain_G[:, None] == layout.domain_G[None, :]
    near_GG = same_set & same_domain & ~np.eye(gpus, dtype=np.bool_)
    far_GG = same_set & ~same_domain
    timed = instance.objective.name == "link_time"
    scope_A = scope_of(links, instance.objective.link_classes)
    classes: dict[str, list[int]] = {}
    for link in links:
        if not link.members and (timed or scope_A[link.index]):
            classes.setdefault(link.link_class, []).append(link.index)
    rates = []
    for name, members in classes.items():
        if timed:
            together_rate = sum(float(links[at].bytes_per_s) for at in members)
            unit = instance.message_bytes[leg] / together_rate
        else:
            unit = 1.0 / sum(links[at].token_divisor for at in members)
        inside = np.isin(link_Y, members)
        crossed_P = np.bincount(
            pair_Y[inside], weights=share_Y[inside], minlength=gpus * gpus
        )
        crossed_GG = (unit * crossed_P.reshape(gpus, gpus)).astype(np.float64)
        near = _least(crossed_GG, near_GG)
        far = _least(crossed_GG, far_GG) if far_GG.any() else near
        rates.append(_Rate(name, near, far))
    return rates


def _least(cost_GG: FloatArray, chosen_GG: BoolArray) -> float:
    """Return the least cost of some pairs; 0 if there are none."""
    return float(cost_GG[chosen_GG].min()) if chosen_GG.any() else 0.0
