"""The strategy ``flow``: all layers of chained traffic annealed together."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner import clock
from planner.errors import LimitError
from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import (
    STRATEGIES,
    Bound,
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
from planner.strategies.flow.apart import apart
from planner.strategies.flow.bound import flow_bound
from planner.strategies.flow.flows import Flows, flows_of
from planner.strategies.flow.woven import woven
from planner.strategies.judging import excess_of
from planner.traffic.base import TRAFFIC
from planner.workload.parts import TokenPart

RESERVE_SECONDS = 0.2
BOUND_SHARE = 0.25
"""Share of the time limit after which the bound is not improved further."""


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
    excess = sum(
        (
            excess_of(each, layer)
            for each in found.each
            for layer in range(instance.layer_count)
        ),
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
    begun = clock.now()
    held = [judged_plan(instance, plan, "start") for plan in starts]
    held += baselines_judged(instance)
    run = _Run(begun, min(held, key=lambda each: each.rank), progress)
    run.report()
    view = next((view for view in instance.views if _has_walks(view)), None)
    blocked = why_not(view)
    if blocked is not None or view is None:
        return run.result(instance, "complete", f"flow kept the best start: {blocked}")
    part = view.planning
    assert isinstance(part, TokenPart)
    chained = TRAFFIC.get(view.traffic).chained
    flows = flows_of(part, view.layout, view.model.experts, chained=chained)
    if view is instance:
        run.bound = flow_bound(view, flows, BOUND_SHARE * limits.seconds)
        run.report()
    held += _constructed(instance, view, flows)
    run.best = min(held, key=lambda each: each.rank)
    one_copy = [each for each in held if _one_copy(view, each.plan)]
    start = min(one_copy, key=lambda each: each.rank).plan
    left = limits.seconds - (clock.now() - begun) - RESERVE_SECONDS
    found = annealed(
        view, flows, start, seconds=left, seed=limits.seed, enough=run.enough
    )
    offered = judged_plan(instance, found.plan, "flow")
    run.best = min(run.best, offered, key=lambda each: each.rank)
    run.report()
    reason = "complete" if found.finished else "limit"
    if float(run.best.value) <= run.enough:
        reason = "optimal"
    note = f"flow tried {found.proposals:,} swaps"
    if view is not instance:
        note += f" for the walks of {view.workloads[0].name}; all workloads judge"
    return run.result(instance, reason, note)


class _Run:
    """The best plan so far, the bound, and what was reported."""

    def __init__(self, begun: float, best: Judged, progress: Progress | None) -> None:
        self._begun, self._progress = begun, progress
        self._history: list[Event] = []
        self.best = best
        self.bound: Bound | None = None

    @property
    def enough(self) -> float:
        """A value that no plan can beat."""
        return 0.0 if self.bound is None else self.bound.value * (1 + 1e-9)

    def report(self) -> None:
        """Tell what is known now."""
        event = Event(
            seconds=clock.now() - self._begun,
            objective=float(self.best.value),
            bound=None if self.bound is None else self.bound.value,
        )
        self._history.append(event)
        if self._progress is not None:
            self._progress(event)

    def result(
        self, instance: PlacementInstance, reason: str, note: str
    ) -> SolveResult:
        """Return the best plan.

        Raises
        ------
        LimitError
            If it exceeds a cap.
        """
        if self.best.excess > 0:
            raise LimitError(
                "no plan within the imbalance caps was found before the limit; raise "
                "--time-limit, --imbalance-cap or --domain-imbalance-cap"
            )
        return SolveResult(
            plan=self.best.plan,
            reason=reason,
            limit=clock.limit_name() if reason == "limit" else None,
            bound=self.bound,
            history=tuple(self._history),
            layer_strategies=(self.best.origin,) * instance.layer_count,
            notes=(note,),
        )


def why_not(instance: PlacementInstance | None) -> str | None:
    """Return why walks cannot be added up here; None if they can."""
    if instance is None or not isinstance(instance.planning, TokenPart):
        return "no workload has tokens whose walks tie layers together"
    if instance.objective.name == "gpu_tokens":
        return "GPU loads do not depend on where tokens come from"
    if instance.slot_count != instance.model.experts:
        return "experts have several copies"
    return None


def _has_walks(instance: PlacementInstance) -> bool:
    return TRAFFIC.get(instance.traffic).chained or instance.single


def _one_copy(instance: PlacementInstance, plan: PlacementPlan) -> bool:
    return all(
        (np.bincount(s[s >= 0], minlength=instance.model.experts) == 1).all()
        for s in plan.slots_LGJ
    )


def _constructed(
    instance: PlacementInstance, view: PlacementInstance, flows: Flows
) -> list[Judged]:
    """Return plans made for one expert per GPU altogether."""
    found = []
    for name, made in (("apart", apart), ("woven", woven)):
        slots_LGJ = made(view, flows)
        if slots_LGJ is not None:
            numbers = instance.model.moe_layers
            plan = PlacementPlan(layer_numbers=numbers, slots_LGJ=slots_LGJ)
            found.append(judged_plan(instance, plan, name))
    return found


def baselines_judged(instance: PlacementInstance) -> list[Judged]:
    """Judge every baseline that exists, without its duplicates."""
    found = []
    for name in BASELINES.names():
        try:
            plan = repaired(instance, published_plan(instance, name))
        except AbsentBaselineError:
            continue
        found.append(judged_plan(instance, plan, name))
    return found
