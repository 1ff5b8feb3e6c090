"""One expert per GPU altogether under ``auto``: the closed form, then the search.

Where the bound of ``single`` is reached nothing is left to do. Otherwise ``flow``
goes on from its plan, if routes can be written out and transfers add up by pairs;
else the best baseline is compared.
"""

from collections.abc import Sequence
from dataclasses import replace

from planner import clock
from planner.errors import LimitError
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import (
    STRATEGIES,
    Bound,
    Event,
    Limits,
    Progress,
    SolveResult,
    whole_bound,
)
from planner.strategies.flow.strategy import Judged, baselines_judged, judged_plan
from planner.topology.paths import WIDE_GPUS
from planner.traffic.base import TRAFFIC
from planner.workload.parts import CountsPart

CLOSE = 1 + 1e-9


def solve_single_portfolio(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Return the best of ``single``, the starts, the baselines and ``flow``.

    Raises
    ------
    LimitError
        If no plan that keeps the caps was found.
    """
    begun = clock.now()
    if _searched(instance) and isinstance(instance.planning, CountsPart):
        return STRATEGIES.get("flow")(instance, limits, starts, progress)
    found = STRATEGIES.get("single")(instance, limits, starts)
    best = judged_plan(instance, found.plan, "single")
    found = _told(found, best, begun, progress)
    if _closed(best, found.bound):
        return replace(found, reason="optimal")
    if _searched(instance):
        left = replace(limits, seconds=limits.seconds - (clock.now() - begun))
        result = STRATEGIES.get("flow")(instance, left, [best.plan, *starts], progress)
        return _joined(found, result, instance.objective.layers)
    held = [judged_plan(instance, start, "start") for start in starts]
    best = min([best, *held, *baselines_judged(instance)], key=lambda each: each.rank)
    if best.excess > 0:
        raise LimitError(
            "no plan within the imbalance caps was found; raise --imbalance-cap or "
            "--domain-imbalance-cap"
        )
    origins = (best.origin,) * instance.layer_count
    return _told(
        replace(found, plan=best.plan, layer_strategies=origins), best, begun, progress
    )


def _searched(instance: PlacementInstance) -> bool:
    """Whether ``flow`` can go on: pairs add up, and all routes fit in memory."""
    linear = all(TRAFFIC.get(view.traffic).linear for view in instance.views)
    return linear and instance.layout.gpu_count <= WIDE_GPUS


def _closed(best: Judged, bound: Bound | None) -> bool:
    reached = bound is not None and float(best.value) <= bound.value * CLOSE
    return reached and best.excess == 0


def _told(
    found: SolveResult, best: Judged, begun: float, progress: Progress | None
) -> SolveResult:
    """Add what is known now to the history."""
    event = Event(
        seconds=clock.now() - begun,
        objective=float(best.value),
        bound=None if found.bound is None else found.bound.value,
    )
    if progress is not None:
        progress(event)
    return replace(found, history=(*found.history, event))


def _joined(found: SolveResult, later: SolveResult, layer_mode: str) -> SolveResult:
    """Return the later result with the better bound of every layer."""
    origins = tuple(
        "single" if origin == "start" and later.plan is found.plan else origin
        for origin in later.layer_strategies
    )
    bound = found.bound if later.bound is None else later.bound
    if found.bound is not None and later.bound is not None:
        pairs = zip(found.bound.layers, later.bound.layers, strict=True)
        best = [max(pair, key=lambda layer: layer.value) for pair in pairs]
        bound = whole_bound(best, layer_mode)
    return replace(
        later,
        bound=bound,
        history=found.history + later.history,
        layer_strategies=origins,
        notes=found.notes + later.notes,
    )
