"""A baseline used as a strategy: its slots, repaired, and nothing searched."""

from collections.abc import Sequence

from planner.errors import UsageError
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import (
    STRATEGIES,
    Limits,
    Progress,
    SolveResult,
    Strategy,
)
from planner.strategies.baselines.base import (
    AbsentBaselineError,
    published_plan,
    repaired,
)
from planner.strategies.legal import legalized


def register_as_strategies(names: Sequence[str]) -> None:
    """Register every baseline under its own name."""
    for name in names:
        STRATEGIES.register(name)(_strategy(name))


def _strategy(name: str) -> Strategy:
    def solve(
        instance: PlacementInstance,
        limits: Limits,
        starts: Sequence[PlacementPlan] = (),
        progress: Progress | None = None,
    ) -> SolveResult:
        try:
            plan = repaired(instance, published_plan(instance, name))
            plan = legalized(instance, plan)
        except AbsentBaselineError as absent:
            raise UsageError(f"strategy {name} does not exist here: {absent}") from None
        return SolveResult(
            plan=plan,
            reason="complete",
            layer_strategies=(name,) * instance.layer_count,
        )

    return solve
