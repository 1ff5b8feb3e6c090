"""Share the moves from a previous plan out among the layers (``docs/constraints.md``).

Every layer is searched shortly with few, then more and more moves; which number each
layer gets is the best choice by those values (a knapsack over the layers).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from planner.engine import ENGINES
from planner.engine.base import Share
from planner.evaluator.evaluation import layer_split
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import Limits
from planner.strategies.judging import judged_layer
from planner.strategies.knapsack import best_choices
from planner.strategies.legal import first_plan, keeps, moves_by_layer
from planner.strategies.search.layer import (
    Placed,
    Problem,
    problem_of,
    search_layer,
)
from planner.workload.parts import CountsPart

SHARE = 0.3
"""Share of the time that trying takes."""
PROPOSALS_PER_SLOT = 6_000
MOST_RUNGS = 10
CAP_PENALTY = 1e3
"""What a cap exceeded by 1 counts, in shares of the value."""


class _Rung(NamedTuple):
    """A number of moves, the value reached with it, and the plan of the layer."""

    moves: int
    value: float
    placed: Placed


def share_moves(
    instance: PlacementInstance, limits: Limits, starts: Sequence[PlacementPlan]
) -> tuple[PlacementInstance, list[PlacementPlan]]:
    """Return the instance with the most moves of every layer, and plans that fit.

    Both as they are where moves have no limit, or are shared out already.
    """
    constraints = instance.constraints
    if (
        constraints is None
        or constraints.max_moves is None
        or constraints.most_L is not None
    ):
        return instance, list(starts)
    plan = next((plan for plan in starts if keeps(instance, plan)), None)
    plan = first_plan(instance) if plan is None else plan
    needed_L = moves_by_layer(instance, plan)
    most = instance.layer_count * instance.layout.sets * instance.slot_count
    spare = min(constraints.max_moves, most) - sum(needed_L)
    rungs = _rungs(min(spare, instance.slot_count))
    tried = _tried(instance, limits, plan, rungs)
    chosen = _chosen(tried, spare, worst=instance.objective.layers == "worst_layer")
    each, rest = divmod((spare - sum(rung.moves for rung in chosen)) // 2, len(chosen))
    most_L = [
        need + rung.moves + 2 * (each + (at < rest))
        for at, (need, rung) in enumerate(zip(needed_L, chosen, strict=True))
    ]
    best = replace(
        plan,
        slots_LGJ=np.stack([rung.placed.slots_GJ for rung in chosen]),
        split={
            (layer, expert): weights
            for layer, rung in enumerate(chosen)
            for expert, weights in rung.placed.split.items()
        },
    )
    shared = replace(instance, constraints=constraints.shared_out(most_L))
    return shared, [plan, best]


def _rungs(most: int) -> list[int]:
    """Return 0 and steps of a third to a half up to ``most``, the largest."""
    steps = {2**power for power in range(most.bit_length())}
    steps |= {3 * step // 2 for step in steps if step > 1} | {most}
    return [0, *sorted(step for step in steps if 0 < step <= most)[-MOST_RUNGS:]]


def _tried(
    instance: PlacementInstance,
    limits: Limits,
    plan: PlacementPlan,
    rungs: Sequence[int],
) -> list[list[_Rung]]:
    """Return, for every layer, what rising numbers of moves more reach."""
    fewest = moves_by_layer(instance, plan)
    # A rung has this part of a layer's share of the limit, whatever the threads.
    share_of_one = (
        SHARE * limits.seconds / instance.layer_count / max(1, len(rungs) - 1)
    )
    problems = _problems(instance, fewest, rungs[1:], share_of_one)
    tries = instance.layer_count * max(1, len(problems))
    seconds = SHARE * limits.seconds * max(1, limits.threads) / tries

    def climb(layer: int, _: float) -> list[_Rung]:
        placed = Placed(plan.slots_LGJ[layer], layer_split(plan, layer))
        found = [_Rung(0, _value(instance, layer, placed), placed)]
        for rung, problem in zip(rungs[1:], problems, strict=False):
            placed = search_layer(
                problem,
                layer,
                placed,
                seconds=seconds,
                seed=limits.seed * 1_000_003 + layer,
                most_proposals=PROPOSALS_PER_SLOT * instance.slot_count,
            ).placed
            found.append(_Rung(rung, _value(instance, layer, placed), placed))
        return found

    share = Share(workers=limits.threads, left=lambda: SHARE * limits.seconds)
    run = ENGINES.get(limits.engine)
    return run(climb, range(instance.layer_count), share)


def _problems(
    instance: PlacementInstance,
    needed_L: Sequence[int],
    rungs: Sequence[int],
    seconds: float,
) -> list[Problem]:
    """Return what to search for every number of moves; nothing where none can be.

    ``seconds`` is the limit's share of a layer and number.
    """
    constraints = instance.constraints
    assert constraints is not None
    counts = any(isinstance(view.planning, CountsPart) for view in instance.views)
    if counts or instance.layout.ep == 1:
        return []
    try:
        problem = problem_of(instance, seconds)
    except ValueError:
        return []
    shared = (constraints.shared_out([n + rung for n in needed_L]) for rung in rungs)
    return [
        problem._replace(instance=replace(instance, constraints=each))
        for each in shared
    ]


def _value(instance: PlacementInstance, layer: int, placed: Placed) -> float:
    value, excess = judged_layer(instance, layer, *placed)
    return float(value) * (1 + CAP_PENALTY * float(excess))


def _chosen(
    tried: Sequence[Sequence[_Rung]], spare: int, *, worst: bool
) -> list[_Rung]:
    """Return a rung for every layer, together the best that ``spare`` moves reach."""
    layers = [[(rung.moves, rung.value) for rung in rungs] for rungs in tried]
    chosen = best_choices(layers, spare, worst=worst)
    return [rungs[pick] for rungs, pick in zip(tried, chosen, strict=True)]
