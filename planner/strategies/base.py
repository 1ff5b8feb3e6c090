"""What a strategy is given and what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When to stop: seconds, relative gap, threads; and the seed."""

    seconds: float = 60.0
    gap: float = 0.0
    threads: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A valid lower bound of the objective.

    ``of`` names the problem it belongs to (rule 28: ``copies/weighted``);
    ``branching`` is True where the proof needed it (``solver_claimed``).
    """

    value: float
    method: str
    of: str
    branching: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One step of the search: seconds since start, incumbent, bound."""

    seconds: float
    objective: float | None
    bound: float | None


Progress = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class SolveResult:
    """A plan with its evidence.

    ``reason`` is why the search stopped: ``optimal``, ``gap``, ``limit``,
    ``complete`` (a heuristic that ran to its end) or ``interrupted``; ``limit``
    names the limit that was hit.
    """

    plan: PlacementPlan
    reason: str
    limit: str | None = None
    bound: Bound | None = None
    layer_bounds: tuple[float, ...] | None = None
    history: tuple[Event, ...] = ()
    layer_strategies: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


class Strategy(Protocol):
    """A way to make a plan.

    ``starts`` are legal plans (no duplicates) to begin from; may be empty.
    """

    def __call__(
        self,
        instance: PlacementInstance,
        limits: Limits,
        starts: Sequence[PlacementPlan] = (),
        progress: Progress | None = None,
    ) -> SolveResult:
        """Return the best plan found within the limits."""
        ...


STRATEGIES: Registry[Strategy] = Registry("strategy")
Exact = Fraction
