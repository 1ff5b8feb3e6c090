"""The strategy ``flow``: all layers of chained traffic annealed together."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import (
    STRATEGIES,
    Event,
    Limits,
    Progress,
    SolveResult,
)
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
    repaired,
)
from planner.strategies.flow.anneal import annealed
from planner.traffic.base import TRAFFIC
from planner.workload.parts import TokenPart

RESERVE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A plan as the evaluator sees it: excess over the caps, value, origin."""

    plan: PlacementPlan
    excess: Fraction
    value: Fraction
    origin: str

    @property
    def rank(self) -> tuple[Fraction, Fraction]:
        """Order of preference: caps first, then the objective."""
        return self.excess, self.value


def judged_plan(
    instance: PlacementInstance, plan: PlacementPlan, origin: str
) -> Judged:
    """Judge a whole plan on the planning parts."""
    found = evaluate_planning(instance, plan)
    excess = Fraction(0)
    for each in found.each:
        for cap, reached_L in (
            (instance.caps.gpu, each.gpu_imbalance_L),
            (instance.caps.domain, each.domain_imbalance_L),
        ):
            if cap is not None:
                most = Fraction(str(cap))
                excess += sum(
                    (max(Fraction(0), reached - most) for reached in reached_L),
                    Fraction(0),
                )
    return Judged(plan=plan, excess=excess, value=found.value, origin=origin)


@STRATEGIES.register("flow")
def solve_flow(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Return the best of all baselines and of annealing from the best start.

    Never worse on the planning part than a start that keeps the caps.
    """
    begun = time.perf_counter()
    history: list[Event] = []
    held = [judged_plan(instance, plan, "start") for plan in starts]
    held += _baselines(instance)
    best = min(held, key=lambda each: each.rank)

    def report() -> None:
        seconds = time.perf_counter() - begun
        history.append(Event(seconds=seconds, objective=float(best.value), bound=None))
        if progress is not None:
            progress(history[-1])

    report()
    notes, reason = [], "complete"
    view = next((v for v in instance.views if TRAFFIC.get(v.traffic).chained), None)
    blocked = why_not(view)
    if blocked is not None or view is None:
        notes.append(f"flow kept the best baseline: {blocked}")
    else:
        left = limits.seconds - (time.perf_counter() - begun) - RESERVE_SECONDS
        one_copy = [each for each in held if _one_copy(view, each.plan)]
        start = min(one_copy, key=lambda each: each.rank)
        found = annealed(view, start.plan, seconds=left, seed=limits.seed)
        offered = judged_plan(instance, found.plan, "flow")
        best = min(best, offered, key=lambda each: each.rank)
        notes.append(f"flow tried {found.proposals:,} swaps")
        reason = "complete" if found.finished else "limit"
        report()
    return SolveResult(
        plan=best.plan,
        reason=reason,
        limit="seconds" if reason == "limit" else None,
        history=tuple(history),
        layer_strategies=(best.origin,) * instance.layer_count,
        notes=tuple(notes),
    )


def why_not(instance: PlacementInstance | None) -> str | None:
    """Return why walks cannot be added up here; None if they can."""
    if instance is None or not isinstance(instance.planning, TokenPart):
        return "no workload has chained traffic"
    if instance.objective.name == "gpu_tokens":
        return "GPU loads do not depend on where tokens come from"
    if instance.slot_count != instance.model.experts:
        return "experts have several copies"
    return None


def _one_copy(instance: PlacementInstance, plan: PlacementPlan) -> bool:
    return all(
        (np.bincount(s[s >= 0], minlength=instance.model.experts) == 1).all()
        for s in plan.slots_LGJ
    )


def _baselines(instance: PlacementInstance) -> list[Judged]:
    found = []
    for name in BASELINES.names():
        try:
            plan = repaired(instance, published_plan(instance, name))
        except AbsentBaselineError:
            continue
        found.append(judged_plan(instance, plan, name))
    return found
