"""Place DP ranks and experts in turn: alike ranks together, experts, ranks, experts."""

from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from planner import clock
from planner.arrays import IntArray
from planner.errors import LimitError
from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import Limits, Progress, SolveResult, Strategy
from planner.strategies.grouping.loads import Kinds, loads_of_kinds, taste
from planner.strategies.grouping.moving import moved
from planner.strategies.grouping.swaps import least_loads, together
from planner.strategies.judging import excess_of

TRIAL_SHARE = 0.2
"""Share of the time for the experts of each first choice of places."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A plan, and the instance with the groups that it is for."""

    instance: PlacementInstance
    result: SolveResult


@dataclass(frozen=True, kw_only=True, eq=False)
class _Choice:
    """An instance with the best plan known for its groups."""

    instance: PlacementInstance
    plan: PlacementPlan

    @cached_property
    def rank(self) -> tuple[Fraction, Fraction]:
        """Order of preference: caps first, then the objective."""
        judged = evaluate_planning(self.instance, self.plan)
        layers = range(self.instance.layer_count)
        excess = sum(
            (excess_of(each, layer) for each in judged.each for layer in layers),
            Fraction(0),
        )
        return excess, judged.value


def place_ranks(
    instance: PlacementInstance,
    kind_S: IntArray,
    solve: Strategy,
    limits: Limits,
    progress: Progress | None = None,
) -> Placed:
    """Return the best plan met, on the best groups met.

    Groups as they are, and ranks alike in the experts they use brought together, each
    get a plan; from the better one ranks are exchanged where that lowers the loads of
    links. The time that is left goes to the experts of what is best then: its bound
    belongs to those groups.

    Parameters
    ----------
    kind_S
        Kind of every DP rank: ranks of one kind are alike.
    """
    if (kind_S == kind_S[0]).all():
        result = solve(instance, limits, (), progress)
        return Placed(instance=instance, result=_noted(result, instance, instance))
    begun = clock.now()
    trial = replace(limits, seconds=limits.seconds * TRIAL_SHARE)
    try:
        plan = solve(instance, trial).plan
    except LimitError:
        rest = replace(limits, seconds=limits.seconds - (clock.now() - begun))
        return Placed(instance=instance, result=solve(instance, rest, (), progress))
    best = _Choice(instance=instance, plan=plan)
    other = _gathered(instance, kind_S)
    if other is not None:
        # Caps that the trial does not meet in its time are no reason to stop.
        with suppress(LimitError):
            found = solve(other, trial, (plan,)).plan
            best = _better(best, _Choice(instance=other, plan=found))
    best = _better(best, _exchanged(best, kind_S))
    spent = clock.now() - begun
    rest = replace(limits, seconds=max(0.1, limits.seconds - spent))
    shifted = None if progress is None else _shifted(progress, spent)
    result = solve(best.instance, rest, (best.plan,), shifted)
    last = _better(best, _Choice(instance=best.instance, plan=result.plan))
    result = _noted(replace(result, plan=last.plan), instance, last.instance)
    return Placed(instance=last.instance, result=result)


def _better(one: _Choice, other: _Choice) -> _Choice:
    return other if other.rank < one.rank else one


def _gathered(
    instance: PlacementInstance, kind_S: IntArray
) -> PlacementInstance | None:
    """Return the instance with ranks of like taste in one domain, None if they are."""
    layout = instance.layout
    domain_P = layout.domain_G[[group[0] for group in layout.attention_groups]]
    kind_P = together(taste(instance, Kinds(kind_S=kind_S)), kind_S, domain_P)
    if (kind_P == kind_S).all():
        return None
    return moved(instance, _places(kind_S, kind_P))


def _exchanged(choice: _Choice, kind_S: IntArray) -> _Choice:
    """Return the choice with ranks where its plan loads links the least."""
    instance = choice.instance
    loads = loads_of_kinds(instance, choice.plan, Kinds(kind_S=kind_S))
    if loads is None:
        return choice
    worst_layer = instance.objective.layers == "worst_layer"
    kind_P = least_loads(loads, kind_S, worst_layer=worst_layer)
    return replace(choice, instance=moved(instance, _places(kind_S, kind_P)))


def _places(kind_S: IntArray, kind_P: IntArray) -> IntArray:
    """Return the place of every rank; who need not move does not."""
    place_S = np.arange(kind_S.size)
    left = kind_S != kind_P
    for kind in np.unique(kind_S[left]):
        place_S[left & (kind_S == kind)] = np.flatnonzero(left & (kind_P == kind))
    return place_S


def _noted(
    result: SolveResult, before: PlacementInstance, after: PlacementInstance
) -> SolveResult:
    """Say how many DP ranks attend elsewhere."""
    pairs = zip(
        before.layout.attention_groups, after.layout.attention_groups, strict=True
    )
    count = sum(one != other for one, other in pairs)
    note = (
        f"DP ranks placed together with experts: {count} of {before.layout.dp} attend "
        "on another group than by rank"
    )
    return replace(result, notes=(*result.notes, note))


def _shifted(progress: Progress, seconds: float) -> Progress:
    return lambda event: progress(replace(event, seconds=event.seconds + seconds))
