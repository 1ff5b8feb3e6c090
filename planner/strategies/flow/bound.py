"""Bounds of every leg: what must travel at all, and where the heaviest node sits.

In every leg the links of a class carry, in the mean over their rates, at least the
cheapest way of every transfer that leaves its GPU, and of every one that leaves its
domain; how many stay is bounded by transports (``matching.py``). And a domain's port
carries what its heaviest node cannot be spared (``room.py``, both legs of a layer
together too; where sets are too many, ``seat.py``). Where every expert has a GPU of its
own, ``chain.py`` bounds all layers at once by the GPUs' ports. Proofs are in
``docs/formulation.md``, certificates are of kind ``walks``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from planner.arrays import IntArray
from planner.instance import PlacementInstance
from planner.strategies.base import Bound, LayerBound, whole_bound
from planner.strategies.flow.chain import SECONDS, chain_bound
from planner.strategies.flow.flows import Flows
from planner.strategies.flow.matching import Together, together
from planner.strategies.flow.rates import (
    Ports,
    Rate,
    class_rates,
    gpu_port_rates,
    message,
    port_rates,
)
from planner.strategies.flow.room import Table, applies, kept
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


class _LayerProof(NamedTuple):
    """What a layer takes at least, and what its combine leg does."""

    value: float
    combine: float
    certificate: dict[str, Any]


def flow_bound(
    instance: PlacementInstance, flows: Flows, seconds: float = SECONDS
) -> Bound:
    """Return the bound of all layers, one copy of each expert given.

    ``seconds`` limit what only makes it better.
    """
    prover = _Prover(instance, flows)
    proofs = [prover.layer(layer) for layer in range(flows.legs // 2)]
    layers = [
        LayerBound(
            value=proof.value,
            method="walks",
            of=f"{instance.traffic}/{instance.selection}",
            certificate=proof.certificate,
        )
        for proof in proofs
    ]
    whole = whole_bound(layers, instance.objective.layers)
    whole = _lifted(whole, proofs, prover)
    return _chained(instance, flows, whole, seconds)


def _lifted(whole: Bound, proofs: Sequence[_LayerProof], prover: "_Prover") -> Bound:
    """Add what a domain that begins with a later layer must carry besides."""
    starts = prover.starts()
    if not starts:
        return whole
    lifted = [
        max(proof.value, start + proof.combine)
        for proof, start in zip(proofs[1:], starts, strict=True)
    ]
    if prover.worst_layer:
        value = max(whole.value, min(lifted))
    else:
        rises = zip(lifted, whole.layers[1:], strict=True)
        value = whole.value + min(up - layer.value for up, layer in rises)
    return replace(whole, value=value, starts=prover.ports)


def _chained(
    instance: PlacementInstance, flows: Flows, whole: Bound, seconds: float
) -> Bound:
    """Take the bound by the ports of single GPUs where it is better."""
    alone = flows.chained and instance.single and instance.layout.sets == 1
    if not alone or instance.objective.layers == "pipelined":
        return whole
    ports = gpu_port_rates(instance)
    if ports is None:
        return whole
    found = chain_bound(instance, flows, ports, whole.value, seconds)
    if found is None:
        return whole
    return replace(whole, value=found.value, chain=found.certificate)


class _Prover:
    """Proves legs of one instance; what all legs share is looked up once."""

    def __init__(self, instance: PlacementInstance, flows: Flows) -> None:
        self._instance, self._flows = instance, flows
        self._rates = class_rates(instance)
        # The sets' domains differ: one node then sits in several at once.
        alone = instance.layout.sets == 1
        self._ports = port_rates(instance) if alone else None

    def layer(self, layer: int) -> _LayerProof:
        """Return the better of both legs' proofs and one of both together."""
        sides = [sides_of(self._instance, self._flows, layer, leg) for leg in (0, 1)]
        legs = [self._leg(sides[leg], leg) for leg in (0, 1)]
        value = sum(proof.value for proof in legs)
        certificate: dict[str, Any] = {
            "kind": "walks",
            "legs": [proof.certificate for proof in legs],
        }
        both = self._together(sides)
        if both is not None and both.value > value * (1 + 1e-9):
            value, certificate["together"] = both.value, both.certificate
        return _LayerProof(value, legs[1].value, certificate)

    def _together(self, sides: list[list[Side]]) -> _Proof | None:
        """Bound both legs by the domain of one expert."""
        instance, ports = self._instance, self._ports
        if ports is None:
            return None
        tables = [_table(instance, sides[leg], leg) for leg in (0, 1)]
        if not _fits(instance, tables):
            return None
        found = kept(tables, _room(instance))
        names = [ports.inward, ports.outward]
        certificate = {"ports": names, "anchor": found.anchor}
        return _Proof(ports.rate * found.value, certificate)

    def _leg(self, sides: list[Side], leg: int) -> _Proof:
        """Return the best proof of a leg alone."""
        unit = message(self._instance, leg)
        proofs = [_spread(self._rates, sides, unit)]
        if self._ports is not None:
            table = _table(self._instance, sides, leg)
            if _fits(self._instance, [table]):
                proofs += _kept(self._instance, self._ports, table)
            else:
                proofs.append(_seated(self._instance, self._ports, sides, unit))
        return max(proofs, key=lambda proof: proof.value)

    @property
    def worst_layer(self) -> bool:
        """Whether the costliest layer is the value."""
        return self._instance.objective.layers == "worst_layer"

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


def _kept(instance: PlacementInstance, ports: Ports, table: Table) -> list[_Proof]:
    """Bound a leg by the domain of one node, everything that fits beside it tried."""
    tables = {"within" if table.partners_VU is None else "head": table}
    if table.partners_VU is not None:
        tables["tail"] = _paired(table.weight, table.partners_VU.T)
    proofs = []
    for side, each in tables.items():
        found = kept([each], _room(instance))
        certificate = {
            "ports": [ports.inward, ports.outward],
            "side": side,
            "anchor": found.anchor,
        }
        proofs.append(_Proof(ports.rate * found.value, certificate))
    return proofs


def _fits(instance: PlacementInstance, tables: list[Table]) -> bool:
    """Whether all sets of nodes that share a domain can be tried."""
    size = tables[0].entering_U.size
    partners = [0 if t.partners_VU is None else len(t.partners_VU) for t in tables]
    return applies(size, max(partners), _room(instance))


def _table(instance: PlacementInstance, sides: list[Side], leg: int) -> Table:
    """Return a leg as the experts of its layer see it."""
    weight = {side.kind: side.weight_UV for side in sides}
    bytes_2 = instance.message_bytes
    each = bytes_2[leg] if instance.objective.name == "link_time" else 1
    if "between" in weight:
        return _paired(each, weight["between"])
    return Table(each, *_inside(instance, weight))


def _paired(each: int, sent_VU: IntArray) -> Table:
    size = sent_VU.shape[1]
    none_UU = np.zeros((size, size), dtype=np.int64)
    return Table(each, sent_VU.sum(axis=0), none_UU[0], none_UU, sent_VU)


def _room(instance: PlacementInstance) -> Room:
    widest = widest_of(instance)
    if instance.single:
        return Room(widest, widest)
    most = instance.slots_per_gpu * widest
    return Room(most, 2 * most)


def _seat(instance: PlacementInstance, weight: dict[str, IntArray]) -> Seat:
    if "between" in weight:
        return between(weight["between"], _room(instance))
    entering, leaving, inside = _inside(instance, weight)
    return within(inside, entering, leaving, _room(instance))


def _inside(
    instance: PlacementInstance, weight: dict[str, IntArray]
) -> tuple[IntArray, IntArray, IntArray]:
    """Return what enters and leaves experts, less what homes save, and what stays."""
    experts, domain_H = instance.model.experts, instance.layout.domain_G
    inside = weight.get("within", np.zeros((experts, experts), dtype=np.int64))
    entering, leaving = inside.sum(axis=0), inside.sum(axis=1)
    for kind, ends in (("out", entering), ("home", leaving)):
        if kind in weight:
            far_HU = weight[kind] if kind == "out" else weight[kind].T
            ends += far_HU.sum(axis=0) - saved_by_homes(far_HU, domain_H)
    return entering, leaving, inside
