"""``auto``: every baseline, the MILP where traffic is linear, and the search.

Layers are separate problems under ``sequential`` and ``worst_layer``, so the best
layers of all plans are kept (:mod:`~planner.strategies.choosing`); the result is never
worse on the planning part than a baseline that keeps the caps and limits.
"""

from collections.abc import Sequence
from dataclasses import replace

from planner import clock
from planner.errors import LimitError
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
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
from planner.strategies.choosing import Portfolio
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
    instance, starts = share_moves(instance, limits, starts)
    run = _Run(instance, progress)
    run.all_members(starts, limits)
    return run.result()


class _Run:
    """One call of the portfolio: the best layers, bounds and history."""

    def __init__(self, instance: PlacementInstance, progress: Progress | None) -> None:
        self._instance, self._progress = instance, progress
        self._begun = clock.now()
        self._portfolio, self._bounds = Portfolio(instance), Bounds(instance)
        self._history: list[Event] = []
        self._notes: list[str] = []
        self._reason = "complete"

    def all_members(self, starts: Sequence[PlacementPlan], limits: Limits) -> None:
        """Run one member after the other, each from the best so far."""
        instance, portfolio = self._instance, self._portfolio
        seeds = _seeds(instance, starts, portfolio, limits.seconds)
        self._report()
        for view, name, share in _runs(instance):
            left = limits.seconds - (clock.now() - self._begun)
            if left <= 0:
                self._reason = "limit"
                return
            result = STRATEGIES.get(name)(
                view, replace(limits, seconds=left * share), [portfolio.plan(), *seeds]
            )
            plan = legalized(instance, result.plan)
            portfolio.offer(plan, (name,) * instance.layer_count)
            self._reason = result.reason
            self._notes.extend(result.notes)
            self._bounds.offer(view, result.bound)
            self._report()
            if self._closed:
                self._reason = "optimal"
                return

    @property
    def _closed(self) -> bool:
        bound = self._bounds.best
        value = float(self._portfolio.value)
        return bound is not None and value <= bound.value * (1 + 1e-9)

    def _report(self) -> None:
        event = Event(
            seconds=clock.now() - self._begun,
            objective=float(self._portfolio.value),
            bound=self._bounds.best.value if self._bounds.best else None,
        )
        self._history.append(event)
        if self._progress is not None:
            self._progress(event)

    def result(self) -> SolveResult:
        """Return the best layers with their evidence.

        Raises
        ------
        LimitError
            If no plan that keeps the caps was found.
        """
        choices = self._portfolio.choices
        if any(choice.excess > 0 for choice in choices):
            raise LimitError(
                "no plan within the imbalance caps was found before the limit; raise "
                "--time-limit, --imbalance-cap or --domain-imbalance-cap"
            )
        return SolveResult(
            plan=self._portfolio.plan(),
            reason=self._reason,
            limit=clock.limit_name() if self._reason == "limit" else None,
            bound=self._bounds.best,
            history=tuple(self._history),
            layer_strategies=tuple(choice.origin for choice in choices),
            notes=tuple(self._notes),
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
