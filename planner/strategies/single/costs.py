"""What an expert with one copy costs at least in every domain.

Its tokens come in from outside by the ports of one GPU, or, where they are forwarded,
by those of the busiest relay; results go back the same way. Axes: E experts, N domains.
"""

from dataclasses import dataclass

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.instance import PlacementInstance
from planner.workload.parts import CountsPart, Part

MERGED = ("dedup_gpu", "dedup_domain")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ports:
    """Objective per transfer on a GPU's own ports, both legs; least of each domain."""

    unit_N: FloatArray

    @classmethod
    def of(cls, instance: PlacementInstance) -> "Ports":
        """Return the units of every domain."""
        domain_G = instance.layout.domain_G
        unit_N = np.full(int(domain_G.max()) + 1, np.inf)
        cost_G = np.zeros(domain_G.size)
        for leg, leaving in enumerate((False, True)):
            unit_A = _units(instance, leg)
            shares = instance.routes.least_shares(domain_G, leaving=leaving)
            q = instance.routes.q
            cost_G += [
                max(
                    (share / q * unit_A[link] for link, share in own.items()), default=0
                )
                for own in shares
            ]
        np.minimum.at(unit_N, domain_G, cost_G)
        return cls(unit_N=unit_N)


def _units(instance: PlacementInstance, leg: int) -> FloatArray:
    if instance.objective.name == "link_time":
        near_A = instance.topology.seconds_per_byte.near_A
        return near_A * instance.message_bytes[leg]
    factor_A, common = instance.topology.token_factors
    units_A: FloatArray = instance.in_scope.near_A * factor_A / common
    for link in instance.topology.groups:
        units_A[link.index] = 0.0
    return units_A


def least_costs(instance: PlacementInstance, ports: Ports, layer: int) -> FloatArray:
    """Return the least that an expert costs the layer in each domain [E, N]."""
    part, experts = instance.planning, instance.model.experts
    merged = instance.traffic in MERGED
    demand = _demand(part, layer, experts, merged=merged)
    relayed = instance.traffic == "dedup_domain" or instance.endpoint == "dest_forward"
    far_EN = far_pairs(instance, demand, relayed=relayed)
    return far_EN * ports.unit_N


def far_pairs(
    instance: PlacementInstance,
    demand: tuple[IntArray, IntArray],
    *,
    relayed: bool,
) -> FloatArray:
    """Return pairs from outside each domain [E, N]; of the busiest rail if relayed."""
    layout, experts = instance.layout, instance.model.experts
    expert_x, source_x = demand
    size_N = np.bincount(layout.domain_G)
    far_EN = np.zeros((experts, size_N.size))
    for rails in np.unique(size_N).tolist() if relayed else [1]:
        inside_N = (
            (size_N == rails) if relayed else np.ones(size_N.size, dtype=np.bool_)
        )
        rail_x = layout.rail_G[source_x] % rails
        key_x = expert_x * rails + rail_x
        total = np.bincount(key_x, minlength=experts * rails)
        place_x = (expert_x * size_N.size + layout.domain_G[source_x]) * rails + rail_x
        own = np.bincount(place_x, minlength=experts * size_N.size * rails)
        far_ENR = total.reshape(experts, 1, rails) - own.reshape(
            experts, size_N.size, rails
        )
        far_EN[:, inside_N] = far_ENR.max(axis=2)[:, inside_N]
    return far_EN


def _demand(
    part: Part, layer: int, experts: int, *, merged: bool
) -> tuple[IntArray, IntArray]:
    """Return expert and source GPU of every pair; ``merged``: once per token."""
    if isinstance(part, CountsPart):
        raise TypeError("a counts table has no tokens to place by")
    ids_TK = part.experts_LTK[layer]
    token_x, place_x = np.nonzero(ids_TK >= 0)
    expert_x = ids_TK[token_x, place_x].astype(np.int64)
    if merged:
        key_x = np.unique(token_x * experts + expert_x)
        token_x, expert_x = key_x // experts, key_x % experts
    return expert_x, part.source_T[token_x]
