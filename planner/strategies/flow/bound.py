"""Bounds of every leg: what must travel at all, and where the heaviest node sits.

In every leg the links of a class carry, in the mean over their rates, at least the
cheapest way of every transfer that leaves its GPU, and of every one that leaves its
domain; how many stay is bounded by transports (``matching.py``). And a domain's port
carries what its heaviest node cannot be spared (``seat.py``). Proofs are in
``docs/formulation.md``, the certificate is of kind ``walks``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from planner.arrays import IntArray
from planner.instance import PlacementInstance
from planner.strategies.base import Bound, LayerBound, whole_bound
from planner.strategies.flow.flows import Flows
from planner.strategies.flow.matching import Together, together
from planner.strategies.flow.rates import (
    Ports,
    Rate,
    class_rates,
    message,
    port_rates,
)
from planner.strategies.flow.seat import (
    MIX,
    Room,
    Seat,
    between,
    saved_by_homes,
    within,
)
from planner.strategies.flow.sides import Side, sides_of, widest_of


class _Proof(NamedTuple):
    value: float
    certificate: dict[str, Any]


def flow_bound(instance: PlacementInstance, flows: Flows) -> Bound:
    """Return the bound of all layers, one copy of each expert given."""
    prover = _Prover(instance, flows)
    legs = [
        [prover.leg(layer, leg) for leg in (0, 1)] for layer in range(flows.legs // 2)
    ]
    layers = [
        LayerBound(
            value=sum(proof.value for proof in both),
            method="walks",
            of=f"{instance.traffic}/{instance.selection}",
            certificate={
                "kind": "walks",
                "legs": [proof.certificate for proof in both],
            },
        )
        for both in legs
    ]
    whole = whole_bound(layers, instance.objective.layers)
    starts = prover.starts()
    if not starts:
        return whole
    lifted = [
        layer.value + max(0.0, start - both[0].value)
        for layer, both, start in zip(layers[1:], legs[1:], starts, strict=True)
    ]
    if instance.objective.layers == "worst_layer":
        value = max(whole.value, min(lifted))
    else:
        rises = zip(lifted, layers[1:], strict=True)
        value = whole.value + min(up - layer.value for up, layer in rises)
    return replace(whole, value=value, starts=prover.ports)


class _Prover:
    """Proves legs of one instance; what all legs share is looked up once."""

    def __init__(self, instance: PlacementInstance, flows: Flows) -> None:
        self._instance, self._flows = instance, flows
        self._rates = class_rates(instance)
        # The sets' domains differ: one node then sits in several at once.
        alone = instance.layout.sets == 1
        self._ports = port_rates(instance) if alone else None

    def leg(self, layer: int, leg: int) -> _Proof:
        """Return the better proof of a leg."""
        sides = sides_of(self._instance, self._flows, layer, leg)
        unit = message(self._instance, leg)
        proofs = [_spread(self._rates, sides, unit)]
        if self._ports is not None:
            proofs.append(_seated(self._instance, self._ports, sides, unit))
        return max(proofs, key=lambda proof: proof.value)

    @property
    def ports(self) -> tuple[str, ...]:
        """Link classes of the ports that bind, inward and outward."""
        return () if self._ports is None else self._ports[:2]

    def starts(self) -> list[float]:
        """Return what each dispatch carries if a domain has its first experts there.

        Of all layers but the first; empty unless some domain must go without an
        expert of the first layer and yet hold others.
        """
        instance, flows = self._instance, self._flows
        if self._ports is None or not (flows.chained and instance.single):
            return []
        layers, widest = flows.legs // 2, widest_of(instance)
        if -(-layers * flows.experts // widest) <= flows.experts or layers < 2:
            return []
        unit = message(instance, 0) * self._ports.rate
        return [
            unit * int(sides_of(instance, flows, layer, 0)[0].weight_UV.sum(0).min())
            for layer in range(1, layers)
        ]


def _spread(rates: Sequence[Rate], sides: Sequence[Side], unit: float) -> _Proof:
    """Bound a leg by what must travel, under its best class of links."""
    gpu = [together(side.weight_UV, *side.gpu) for side in sides]
    domain = [together(side.weight_UV, *side.domain) for side in sides]
    total = sum(int(side.weight_UV.sum()) for side in sides)
    apart = total - sum(found.saved for found in gpu)
    abroad = total - sum(found.saved for found in domain)
    best = max(rates, key=lambda rate: _value(rate, apart, abroad))
    certificate = {
        "class": best.link_class,
        "gpu": [_plain(found) for found in gpu],
        "domain": [_plain(found) for found in domain],
    }
    return _Proof(unit * _value(best, apart, abroad), certificate)


def _value(rate: Rate, apart: int, abroad: int) -> float:
    near = min(rate.near, rate.far)
    return near * apart + (rate.far - near) * abroad


def _plain(found: Together) -> dict[str, list[int]]:
    return {"rows": found.row_U.tolist(), "columns": found.column_V.tolist()}


def _seated(
    instance: PlacementInstance, ports: Ports, sides: Sequence[Side], unit: float
) -> _Proof:
    """Bound a leg by what a port carries for the domain of its heaviest node."""
    seat = _seat(instance, {side.kind: side.weight_UV for side in sides})
    certificate = {
        "ports": [ports.inward, ports.outward],
        **seat.certificate,
    }
    return _Proof(unit * ports.rate * seat.value / (2 * MIX), certificate)


def _seat(instance: PlacementInstance, weight: dict[str, IntArray]) -> Seat:
    widest, domain_H = widest_of(instance), instance.layout.domain_G
    if instance.single:
        room = Room(widest, widest)
    else:
        most = instance.slots_per_gpu * widest
        room = Room(most, 2 * most)
    if "between" in weight:
        return between(weight["between"], room)
    experts = instance.model.experts
    inside = weight.get("within", np.zeros((experts, experts), dtype=np.int64))
    entering, leaving = inside.sum(axis=0), inside.sum(axis=1)
    for kind, ends in (("out", entering), ("home", leaving)):
        if kind in weight:
            far_HU = weight[kind] if kind == "out" else weight[kind].T
            ends += far_HU.sum(axis=0) - saved_by_homes(far_HU, domain_H)
    return within(inside, entering, leaving, room)
