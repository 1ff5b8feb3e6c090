"""``--redundant auto``: one more slot per GPU while it gains 1 % and memory allows.

The fewest slots that hold every expert come first. Every number of slots is planned
for a share of the time limit, from the plan before with its new slots filled; what is
left of the limit goes on with the number that was taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from planner import clock
from planner.errors import InfeasibleError, LimitError, UsageError
from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.manifest.figures import UNITS
from planner.options import AUTO, SolveOptions
from planner.pipeline.problem import Problem
from planner.pipeline.resolve import FREE
from planner.plan import PlacementPlan
from planner.strategies.base import Event, Limits, Progress, SolveResult, Strategy
from planner.strategies.baselines.base import BASELINES, repaired
from planner.units import show_objective

GAIN = Fraction(1, 100)
"""A slot more per GPU is taken if it lowers the objective by as much."""
SHARES = 8
"""Into how many parts the time limit is divided; each number of slots gets one."""

Build = Callable[[SolveOptions], Problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A number of slots, the best plan with it, and its exact objective."""

    problem: Problem
    result: SolveResult
    value: Fraction

    @property
    def slots(self) -> int:
        """Slots per GPU."""
        return self.problem.instance.slots_per_gpu

    @property
    def says(self) -> str:
        """Slots and objective, for the reader."""
        unit = UNITS[self.problem.instance.objective.name]
        return f"{self.slots}: {show_objective(float(self.value), unit)}"


def settled(problem: Problem, *, dumped: bool = False) -> Problem:
    """Return the problem with its number of slots where no more are to be tried.

    The reason is noted, unless the policy is one.

    Parameters
    ----------
    dumped
        Whether the model of one number of slots is written.
    """
    if problem.options.redundant != AUTO:
        return problem
    instance, notes = problem.instance, problem.notes
    if problem.options.policy == FREE:
        return problem
    if problem.options.policy == "uniform":
        why = _why_fewest(problem, dumped=dumped)
        if why is None:
            says = f"{problem.headline}; more slots are tried while each gains 1 %"
            return replace(problem, headline=says)
        slots = instance.slots_per_gpu
        notes = (*notes, f"slots per GPU and layer: {slots}, the fewest: {why}")
    number = str(instance.slot_count - instance.model.experts)
    options = replace(problem.options, redundant=number)
    return replace(problem, options=options, notes=notes)


def _why_fewest(problem: Problem, *, dumped: bool) -> str | None:
    options = problem.options
    if options.mem_fraction is not None:
        return "under --mem-fraction the KV cache takes what slots leave"
    if problem.instance.constraints is not None:
        return "--constraints and --previous are about one number of slots"
    if options.groups != "auto":
        return "--groups placed moves ranks under one number of slots"
    if dumped:
        return "--dump-model writes the model of one number of slots"
    if options.strategy in BASELINES.names():
        return f"{options.strategy} plans one number of slots"
    return None


class Growth:
    """Plans one number of slots after the other within one limit."""

    def __init__(
        self, strategy: Strategy, limits: Limits, progress: Progress | None
    ) -> None:
        self.strategy, self._limits, self._progress = strategy, limits, progress
        self._begun = clock.now()
        self._least: Fraction | None = None

    @property
    def left(self) -> float:
        """Seconds of the limit that are left."""
        return self._limits.seconds - (clock.now() - self._begun)

    @property
    def share(self) -> float:
        """Seconds that a number of slots gets now."""
        return min(self.left, self._limits.seconds / SHARES)

    def step(
        self, problem: Problem, seconds: float, starts: Sequence[PlacementPlan] = ()
    ) -> Step:
        """Plan with the problem's number of slots."""
        offset = clock.now() - self._begun
        result = self.strategy(
            problem.instance,
            replace(self._limits, seconds=seconds),
            starts,
            self._progress and self._floored(shifted(self._progress, offset)),
        )
        history = tuple(_later(event, offset) for event in result.history)
        value = evaluate_planning(problem.instance, result.plan).value
        self._least = value if self._least is None else min(value, self._least)
        return Step(
            problem=problem, result=replace(result, history=history), value=value
        )

    def _floored(self, progress: Progress) -> Progress:
        """Show the best of all numbers of slots; a bound is that of one number."""
        if self._least is None:
            return progress
        least = float(self._least)

        def show(event: Event) -> None:
            if event.objective is None or event.objective > least:
                event = replace(event, objective=least, bound=None)
            progress(event)

        return show


def grown(
    problem: Problem,
    build: Build,
    strategy: Strategy,
    limits: Limits,
    progress: Progress | None = None,
) -> tuple[Problem, SolveResult]:
    """Return the number of slots that is worth its memory, as a problem, and its plan.

    Parameters
    ----------
    problem
        That of the fewest slots.
    build
        Makes the same problem with other options.

    Raises
    ------
    LimitError
        If no plan that keeps the caps was found with the fewest slots.
    """
    growth = Growth(strategy, limits, progress)
    best = growth.step(problem, growth.share)
    tried = [best.says]
    while True:
        wider, why = _wider(best, build)
        if wider is None or growth.left <= 0:
            why = why or "the time limit"
            break
        try:
            found = growth.step(wider, growth.share, filled(wider.instance, best))
        except (InfeasibleError, LimitError):
            why = "no plan within the imbalance caps was found with one more"
            break
        except UsageError as error:
            why = str(error)
            break
        tried.append(found.says)
        if found.value > best.value * (1 - GAIN):
            why = "one more gains less than 1 %"
            break
        best = found
    best = _continued(growth, best)
    note = (
        f"slots per GPU and layer: {best.slots} taken ({'; '.join(tried)}); it ended "
        f"there because of: {why}"
    )
    return best.problem, replace(best.result, notes=(*best.result.notes, note))


def _wider(best: Step, build: Build) -> tuple[Problem | None, str]:
    """Return the problem with one slot more per GPU, or why there is none."""
    given, model = best.problem, best.problem.instance.model
    if best.value == 0:
        return None, "nothing is left to gain"
    if best.slots >= model.experts:
        return None, "every GPU holds every expert"
    slots = given.instance.layout.ep * (best.slots + 1)
    options = replace(
        given.options,
        redundant=str(slots - model.experts),
        layout=str(given.option_values["layout"]),
    )
    try:
        return build(options), ""
    except InfeasibleError as error:
        names = ", ".join(cause.name for cause in error.causes)
        return None, names or str(error)


def filled(instance: PlacementInstance, best: Step) -> tuple[PlacementPlan, ...]:
    """Return the plan before, its new slots filled by load per copy."""
    if instance.nested_groups:
        return ()
    slots_LGJ = best.result.plan.slots_LGJ
    wider_LGJ = np.concatenate([slots_LGJ, slots_LGJ[:, :, :1]], axis=2)
    plan = PlacementPlan(
        layer_numbers=best.result.plan.layer_numbers, slots_LGJ=wider_LGJ
    )
    return (repaired(instance, plan),)


def _continued(growth: Growth, best: Step) -> Step:
    """Go on with the time that is left, if a limit ended the search."""
    if best.result.reason != "limit" or growth.left <= growth.share / 2:
        return best
    again = growth.step(best.problem, growth.left, [best.result.plan])
    if again.value >= best.value:
        return best
    held = best.result.layer_strategies
    origins = tuple(
        before if now == "start" else now
        for now, before in zip(again.result.layer_strategies, held, strict=True)
    )
    bounds = [each.result.bound for each in (best, again) if each.result.bound]
    result = replace(
        again.result,
        bound=max(bounds, key=lambda bound: bound.value, default=None),
        history=best.result.history + again.result.history,
        layer_strategies=origins,
    )
    return replace(again, result=result)


def shifted(progress: Progress, seconds: float) -> Progress:
    """Count seconds that went by before into what the reader sees."""
    return lambda event: progress(_later(event, seconds))


def _later(event: Event, seconds: float) -> Event:
    return replace(event, seconds=event.seconds + seconds)
