"""``balance`` for several workloads: one placement that is even for all of them."""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from planner import clock
from planner.arrays import IdArray
from planner.engine import ENGINES
from planner.engine.base import Found, Share
from planner.evaluator.joint import combined, planning_tokens
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.balance.layer import Effort
from planner.strategies.balance.multi import SharedLayer, Workloads, solve_workloads
from planner.strategies.balance.placed import counted_value
from planner.strategies.base import (
    Event,
    LayerBound,
    Limits,
    Progress,
    SolveResult,
    whole_bound,
)
from planner.strategies.judging import judged_layer
from planner.workload.parts import CountsPart


class _Layer(NamedTuple):
    """A layer's slots, where they come from, and what bounds them."""

    slots_GJ: IdArray
    origin: str
    bound: LayerBound


def why_not_joint(instance: PlacementInstance) -> str | None:
    """Say why several workloads cannot be balanced at once, or None if they can."""
    counted = all(isinstance(load.planning, CountsPart) for load in instance.workloads)
    if counted and instance.selection == "even":
        return None
    return (
        "balance takes several workloads at once only as counts tables with selection "
        "even"
    )


def solve_joint(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Place every layer for the worst, or the mean, of the workloads.

    A layer keeps a start that is better.
    """
    begun = clock.now()
    history: list[Event] = []

    def work(layer: int, seconds: float) -> _Layer:
        return _best(instance, limits, starts, layer, seconds)

    def report(_: Found) -> None:
        history.append(Event(seconds=clock.now() - begun, objective=None, bound=None))
        if progress is not None:
            progress(history[-1])

    share = Share(
        workers=limits.threads, left=lambda: limits.seconds - (clock.now() - begun)
    )
    run = ENGINES.get(limits.engine)
    layers = run(work, range(instance.layer_count), share, report)
    return SolveResult(
        plan=PlacementPlan(
            layer_numbers=instance.model.moe_layers,
            slots_LGJ=np.stack([layer.slots_GJ for layer in layers]),
        ),
        reason="complete",
        bound=whole_bound([layer.bound for layer in layers], instance.objective.layers),
        history=tuple(history),
        layer_strategies=tuple(layer.origin for layer in layers),
    )


def _best(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan],
    layer: int,
    seconds: float,
) -> _Layer:
    """Place a layer; keep a start that is better."""
    found = _solved(instance, limits, layer, seconds)
    offers = [("balance", found.slots_GJ)]
    offers += [("start", start.slots_LGJ[layer]) for start in starts]
    values = [_value(instance, layer, slots_GJ) for _, slots_GJ in offers]
    origin, best_GJ = offers[values.index(min(values))]
    value = found.bound * _pairs_per_token(instance) / instance.layout.gpu_count
    bound = LayerBound(value=value, method="mean", of="gpu_tokens/even")
    return _Layer(slots_GJ=best_GJ, origin=origin, bound=bound)


def _value(
    instance: PlacementInstance, layer: int, slots_GJ: IdArray
) -> tuple[Fraction, Fraction]:
    """By how much the caps are exceeded, then the combined value.

    Without caps the tables need no routes.
    """
    caps = instance.caps
    if caps.gpu is not None or caps.domain is not None:
        value, excess = judged_layer(instance, layer, slots_GJ, {})
        return excess, value
    loads = [counted_value(view, layer, slots_GJ, {}) for view in instance.views]
    known = [load for load in loads if load is not None]
    return Fraction(0), combined(instance, known, planning_tokens(instance))


def _solved(
    instance: PlacementInstance, limits: Limits, layer: int, seconds: float
) -> SharedLayer:
    rows = [
        load.planning.tokens_LE[layer]
        for load in instance.workloads
        if isinstance(load.planning, CountsPart)
    ]
    workloads = Workloads(
        load_KE=np.stack(rows),
        weight_K=np.asarray([float(load.weight) for load in instance.workloads]),
        worst=instance.objective.combine == "worst",
    )
    effort = Effort(goal=limits.gap, seed=limits.seed * 1_000_003 + layer)
    return solve_workloads(
        workloads,
        instance.layout.ep,
        instance.slots_per_gpu,
        max(0.0, seconds),
        effort,
    )


def _pairs_per_token(instance: PlacementInstance) -> float:
    """(token, expert) pairs of a token and layer: K, unless a table counts fewer."""
    least = [
        int(load.planning.tokens_LE.sum()) / float(tokens) / instance.layer_count
        for load, tokens in zip(
            instance.workloads, planning_tokens(instance), strict=True
        )
        if isinstance(load.planning, CountsPart)
    ]
    return min(least)
