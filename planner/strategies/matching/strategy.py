"""The strategy ``matching``: one expert per GPU, every expert in every domain.

With one slot per GPU a token sends one transfer per expert whether copies are merged
or not, so ``dedup_gpu`` is ``copies``; where every domain holds every expert once and
``nearest`` serves, nothing leaves a domain, and a layer is a matching of experts to
GPUs (``docs/matching.md``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from planner import clock
from planner.arrays import IdArray, IntArray
from planner.errors import UsageError
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import (
    STRATEGIES,
    Bound,
    Event,
    LayerBound,
    Limits,
    Progress,
    SolveResult,
    whole_bound,
)
from planner.strategies.matching.away import (
    NetworkPorts,
    least_away,
    network_ports,
)
from planner.strategies.matching.pairing import least_sum
from planner.strategies.matching.refuting import refutations
from planner.strategies.matching.units import (
    Port,
    SharedLinkError,
    Unit,
    costs_of,
    ports_of,
    units_of,
)
from planner.workload.demand import demand_LSE
from planner.workload.parts import TokenPart


@STRATEGIES.register("matching")
def solve_matching(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Match the experts of every layer; starts are not needed.

    Raises
    ------
    UsageError
        If the instance is no matching.
    """
    begun = clock.now()
    reason = why_not(instance)
    if reason is not None:
        raise UsageError(reason)
    matcher = _Matcher(instance)
    layers = [
        matcher.layer(demand_SE, begun + limits.seconds)
        for demand_SE in matcher.demand_LSE
    ]
    bound = _bound(instance, layers)
    values = [layer.value for layer in layers]
    worst = instance.objective.layers == "worst_layer"
    event = Event(
        seconds=clock.now() - begun,
        objective=float(max(values) if worst else sum(values, Fraction(0))),
        bound=bound.value if bound else None,
    )
    if progress is not None:
        progress(event)
    limited = any(layer.cut for layer in layers)
    closed = all(layer.value == layer.least for layer in layers)
    return SolveResult(
        plan=PlacementPlan(
            layer_numbers=instance.model.moe_layers,
            slots_LGJ=np.stack([layer.slots_GJ for layer in layers]),
        ),
        reason="optimal" if closed else "limit" if limited else "complete",
        limit=clock.limit_name() if limited else None,
        bound=bound,
        history=(event,),
        layer_strategies=("matching",) * len(layers),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """A matched layer: its seconds, the least of any plan, whether time cut it."""

    slots_GJ: IdArray
    value: Fraction
    least: Fraction | None
    certificate: dict[str, Any]
    cut: bool


def _bound(instance: PlacementInstance, layers: Sequence[_Layer]) -> Bound | None:
    """Return the bound of all layers; None if one has none."""
    each = [
        LayerBound(
            value=float(layer.least),
            method="matching",
            of=f"{instance.traffic}/{instance.selection}",
            certificate=layer.certificate,
        )
        for layer in layers
        if layer.least is not None
    ]
    if len(each) < len(layers):
        return None
    return whole_bound(each, instance.objective.layers)


def why_not(instance: PlacementInstance) -> str | None:
    """Say why this strategy does not apply, or None if it does."""
    reason = _obstacle(instance)
    if reason is None:
        return None
    return (
        "strategy matching places one expert per GPU where every domain can hold "
        f"every expert, but here: {reason}; use --strategy auto"
    )


def _obstacle(instance: PlacementInstance) -> str | None:
    """Return the first thing that a matching does not model."""
    several_domains = len(instance.layout.cell_members) > 1
    rules = (
        (
            instance.traffic in ("copies", "dedup_gpu"),
            f"traffic {instance.traffic} is sent through relays or chained",
        ),
        (isinstance(instance.planning, TokenPart), "counts do not say who sends"),
        (len(instance.views) == 1, "several workloads share the plan"),
        (
            instance.objective.name == "link_time"
            and instance.objective.layers != "pipelined",
            f"{instance.objective.name} {instance.objective.layers} is no sum of two "
            "largest loads",
        ),
        (instance.caps.gpu is None and instance.caps.domain is None, "imbalance caps"),
        (bool(units_of(instance)), "a domain has another number of slots than experts"),
        (
            not several_domains
            or (instance.selection == "nearest" and instance.endpoint == "local_nic"),
            "copies in other domains serve too, or relays do",
        ),
    )
    for holds, reason in rules:
        if not holds:
            return reason
    try:
        ports_of(instance, 0)
        ports_of(instance, 1)
    except SharedLinkError as shared:
        return f"{shared} carries what several GPUs' experts decide"
    return None


class _Matcher:
    """What all layers of an instance share."""

    def __init__(self, instance: PlacementInstance) -> None:
        self._instance = instance
        self._units: tuple[Unit, ...] = units_of(instance)
        self._ports: list[list[list[Port]]] = [
            ports_of(instance, leg) for leg in (0, 1)
        ]
        self._network: NetworkPorts | None = None
        if self._far_plans:
            self._network = network_ports(instance)
        part = instance.planning
        assert isinstance(part, TokenPart)  # why_not has looked
        gpus = instance.layout.gpu_count
        self.demand_LSE: IntArray = demand_LSE(part, instance.model.experts, gpus)

    @property
    def _far_plans(self) -> bool:
        """Whether a plan may leave an expert out of a domain."""
        return len(self._units) > 1

    def layer(self, demand_SE: IntArray, until: float) -> _Layer:
        """Return a layer matched as well as the clock allows."""
        costs = [
            (
                costs_of(unit, self._ports[0], demand_SE),
                costs_of(unit, self._ports[1], demand_SE),
            )
            for unit in self._units
        ]
        paired = least_sum(costs, until)
        slots_GJ = np.zeros((self._instance.layout.ep, 1), dtype=np.int16)
        for unit, position_E in zip(self._units, paired.placed, strict=True):
            for expert, position in enumerate(position_E.tolist()):
                slots_GJ[unit[position][0], 0] = expert
        least: Fraction | None = paired.least
        if self._far_plans:
            least = None
            if self._network is not None:
                away = least_away(self._instance, self._network, demand_SE)
                least = min(paired.least, away)
        return _Layer(
            slots_GJ=slots_GJ,
            value=paired.value,
            least=least,
            certificate={
                "kind": "matching",
                "level": str(paired.least),
                "refuted": refutations(costs, paired.least),
            },
            cut=paired.least < paired.value,
        )
