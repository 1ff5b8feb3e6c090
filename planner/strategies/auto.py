"""``auto``: every baseline, the MILP where traffic is linear, and the search.

Layers are separate problems under ``sequential`` and ``worst_layer``, so the best
layer of every plan is kept; the result is never worse on the planning part than a
baseline that keeps the caps and limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from planner import clock
from planner.errors import LimitError
from planner.evaluator.evaluation import layer_split
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan, SplitWeights
from planner.strategies.balance.strategy import why_not as balance_why_not
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
from planner.strategies.bounds import Bounds
from planner.strategies.judging import judged_layer
from planner.strategies.legal import legal_starts, legalized
from planner.strategies.matching.strategy import why_not as matching_why_not
from planner.strategies.milp import branches as milp_branches
from planner.strategies.priced.strategy import why_not as priced_why_not
from planner.strategies.search.sharing import share_moves
from planner.strategies.search.strategy import why_not as search_why_not
from planner.strategies.single.portfolio import solve_single_portfolio
from planner.traffic.base import TRAFFIC
from planner.workload.parts import CountsPart

MILP_SHARE = 0.5
"""Share of the time that the MILP gets where both it and the search apply."""
JOINT_SHARE = 0.5
"""Share of the time of the search for all workloads at once, after each its own."""
PRICED_SHARE = 0.8
"""Share of the time of the priced search; the MILP closes small layers after it."""
SMALL_SHARE = 0.25
"""Share of the time that the MILP gets first where it branches: it may close at once
what the priced search cannot know to be optimal."""

BOUND_SHARE = 0.3
"""Share of the time left that a strategy gets which knows no constraints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _LayerChoice:
    """The best layer so far and who made it."""

    value: Fraction
    excess: Fraction
    origin: str
    slots: np.ndarray[tuple[int, ...], np.dtype[np.int16]]
    split: dict[int, SplitWeights]

    @property
    def rank(self) -> tuple[Fraction, Fraction]:
        """Order of preference: caps first, then the objective."""
        return self.excess, self.value


class Portfolio:
    """The best layer of every plan offered so far."""

    def __init__(self, instance: PlacementInstance) -> None:
        self._instance = instance
        self._best: list[_LayerChoice | None] = [None] * instance.layer_count

    def offer(self, plan: PlacementPlan, origins: Sequence[str]) -> None:
        """Keep each layer of ``plan`` that beats the one held."""
        for layer, origin in enumerate(origins):
            slots, split = plan.slots_LGJ[layer], layer_split(plan, layer)
            value, excess = judged_layer(self._instance, layer, slots, split)
            offered = _LayerChoice(
                value=value, excess=excess, origin=origin, slots=slots, split=split
            )
            held = self._best[layer]
            if held is None or offered.rank < held.rank:
                self._best[layer] = offered

    @property
    def choices(self) -> list[_LayerChoice]:
        """The best layers; every layer has been offered."""
        return [choice for choice in self._best if choice is not None]

    @property
    def value(self) -> Fraction:
        """Objective of the best layers together."""
        values = [choice.value for choice in self.choices]
        if self._instance.objective.layers == "worst_layer":
            return max(values)
        return sum(values, Fraction(0))

    def plan(self) -> PlacementPlan:
        """Return the best layers as one plan."""
        return PlacementPlan(
            layer_numbers=self._instance.model.moe_layers,
            slots_LGJ=np.stack([choice.slots for choice in self.choices]),
            split={
                (layer, expert): weights
                for layer, choice in enumerate(self.choices)
                for expert, weights in choice.split.items()
            },
        )


@STRATEGIES.register("auto")
def solve_auto(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Run the portfolio; see the module docstring.

    Raises
    ------
    LimitError
        If no plan that keeps the caps was found.
    """
    instance = without_chains(instance)
    if any(TRAFFIC.get(view.traffic).chained for view in instance.views):
        return STRATEGIES.get("flow")(instance, limits, starts, progress)
    if instance.single:
        return solve_single_portfolio(instance, limits, starts, progress)
    if instance.nested_groups:
        return STRATEGIES.get("balance")(instance, limits, starts, progress)
    begun = clock.now()
    instance, starts = share_moves(instance, limits, starts)
    portfolio = Portfolio(instance)
    history: list[Event] = []
    bounds = Bounds(instance)
    notes: list[str] = []
    reasons: list[str] = []

    def report() -> None:
        event = Event(
            seconds=clock.now() - begun,
            objective=float(portfolio.value),
            bound=bounds.best.value if bounds.best else None,
        )
        history.append(event)
        if progress is not None:
            progress(event)

    seeds = _seeds(instance, starts, portfolio, limits.seconds)
    report()
    for view, name, share in _runs(instance):
        left = limits.seconds - (clock.now() - begun)
        if left <= 0:
            reasons.append("limit")
            break
        result = STRATEGIES.get(name)(
            view, replace(limits, seconds=left * share), [portfolio.plan(), *seeds]
        )
        plan = legalized(instance, result.plan)
        portfolio.offer(plan, (name,) * instance.layer_count)
        reasons.append(result.reason)
        notes.extend(result.notes)
        bounds.offer(view, result.bound)
        report()
        bound = bounds.best
        if bound is not None and float(portfolio.value) <= bound.value * (1 + 1e-9):
            reasons = ["optimal"]
            break
    if any(choice.excess > 0 for choice in portfolio.choices):
        raise LimitError(
            "no plan within the imbalance caps was found before the limit; raise "
            "--time-limit, --imbalance-cap or --domain-imbalance-cap"
        )
    reason = reasons[-1] if reasons else "complete"
    return SolveResult(
        plan=portfolio.plan(),
        reason=reason,
        limit=clock.limit_name() if reason == "limit" else None,
        bound=bounds.best,
        history=tuple(history),
        layer_strategies=tuple(choice.origin for choice in portfolio.choices),
        notes=tuple(notes),
    )


def without_chains(instance: PlacementInstance) -> PlacementInstance:
    """Return the instance with layers apart where their ties cannot matter.

    GPUs compute the same pairs wherever tokens come from, unless ``nearest`` chooses
    among copies.
    """
    near_copies = (
        instance.selection == "nearest" and instance.slot_count > instance.model.experts
    )
    if instance.objective.name != "gpu_tokens" or near_copies:
        return instance
    workloads = tuple(
        replace(each, traffic="copies") if TRAFFIC.get(each.traffic).chained else each
        for each in instance.workloads
    )
    return replace(instance, workloads=workloads)


def _seeds(
    instance: PlacementInstance,
    starts: Sequence[PlacementPlan],
    portfolio: Portfolio,
    seconds: float,
) -> list[PlacementPlan]:
    """Offer starts and baselines; return them, made to keep the constraints."""
    named = [("start", start) for start in starts]
    for name in BASELINES.names():
        try:
            plan = repaired(instance, published_plan(instance, name, seconds))
        except AbsentBaselineError:
            continue
        named.append((name, plan))
    seeds = legal_starts(instance, [plan for _, plan in named])
    for plan in seeds:
        name = next((name for name, other in named if other is plan), "start")
        portfolio.offer(plan, (name,) * instance.layer_count)
    return seeds


def _runs(
    instance: PlacementInstance,
) -> list[tuple[PlacementInstance, str, float]]:
    """Return what to run: of several workloads, the members of each in its turn.

    A plan made for one workload is judged on all of them; the search then goes on for
    all at once.
    """
    if len(instance.views) == 1 or _balanced(instance):
        return [(instance, name, share) for name, share in _members(instance)]
    members = [(view, name) for view in instance.views for name, _ in _members(view)]
    joint = search_why_not(instance) is None
    share = (1.0 - JOINT_SHARE if joint else 1.0) / len(members)
    runs = [
        (view, name, share / (1.0 - at * share))
        for at, (view, name) in enumerate(members)
    ]
    return [*runs, (instance, "search", 1.0)] if joint else runs


def _balanced(instance: PlacementInstance) -> bool:
    """Whether balance alone answers, for all workloads at once."""
    return instance.objective.name == "gpu_tokens" and balance_why_not(instance) is None


def _members(instance: PlacementInstance) -> list[tuple[str, float]]:
    """Strategies to run, with the share of the time left that each gets.

    The search places with equal weights; under ``weighted`` the MILP comes last and
    splits what the search placed.
    """
    if _balanced(instance) and instance.constraints is None:
        return [("balance", 1.0)]
    exact = [("matching", 1.0)] if matching_why_not(instance) is None else []
    if instance.constraints is not None:
        return _bounding(instance, exact)
    return exact + _searching(instance)


def _bounding(
    instance: PlacementInstance, exact: list[tuple[str, float]]
) -> list[tuple[str, float]]:
    """Strategies under constraints: the search keeps them, others only bound.

    Their plans are made to keep the constraints and improved by the search.
    """
    if _balanced(instance):
        first = [("balance", BOUND_SHARE)]
    else:
        members = [*exact, *_searching(instance)]
        first = [(name, BOUND_SHARE) for name, _ in members if name != "search"]
    return [*first, ("search", 1.0)]


def _searching(instance: PlacementInstance) -> list[tuple[str, float]]:
    """Strategies for what no closed form answers."""
    if not TRAFFIC.get(instance.traffic).linear:
        return [("search", 1.0)]
    if priced_why_not(instance) is None:
        first = [("milp", SMALL_SHARE)] if milp_branches(instance) else []
        return [*first, ("priced", PRICED_SHARE), ("milp", 1.0)]
    if isinstance(instance.planning, CountsPart):
        return [("milp", 1.0)]
    if instance.selection == "weighted":
        return [("search", 1.0 - MILP_SHARE), ("milp", 1.0)]
    return [("milp", MILP_SHARE), ("search", 1.0)]
