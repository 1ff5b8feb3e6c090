"""Constraints on placement: what they go with, whether a plan keeps them at all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from planner.errors import Cause, InfeasibleError, Repair, UsageError
from planner.instance import PlacementInstance
from planner.manifest import read_manifest
from planner.pipeline.problem import Problem
from planner.plan import PlacementPlan
from planner.strategies.baselines.base import BASELINES
from planner.strategies.legal import first_plan
from planner.traffic.base import TRAFFIC

KEEPING = ("auto", "search")
"""Strategies that keep constraints, beside the baselines, which are repaired."""


def read_previous(path: Path) -> dict[str, Any]:
    """Return what counts of an earlier plan: its GPUs and its slots.

    Raises
    ------
    ManifestError
        If the file is no manifest.
    """
    manifest = read_manifest(path)
    return {
        "gpus": list(manifest.gpus),
        "layers": [
            {"layer": layer.layer, "slots": [list(row) for row in layer.slots]}
            for layer in manifest.layers
        ],
    }


def check_constraints(instance: PlacementInstance, strategy: str) -> None:
    """Refuse what constraints do not go with.

    Raises
    ------
    UsageError
        With the reason and the way out.
    """
    if instance.constraints is None:
        return
    keeping = (*KEEPING, *BASELINES.names())
    if strategy not in keeping:
        raise UsageError(
            f"--constraints and --previous do not go with --strategy {strategy}, which "
            f"places experts anywhere; choose from {', '.join(keeping)}"
        )
    chained = any(TRAFFIC.get(view.traffic).chained for view in instance.views)
    for holds, what in (
        (chained, "--traffic direct, which ties all layers together"),
        (instance.single, "--policy one_expert_per_gpu_total"),
        (bool(instance.nested_groups), "--routing-groups nest"),
    ):
        if holds:
            raise UsageError(f"--constraints and --previous do not go with {what}")


def with_moves(problem: Problem) -> tuple[Problem, list[PlacementPlan]]:
    """Share the moves out among the layers; return a plan that keeps everything.

    Every layer gets the moves that its rules cost it, and an equal part of the rest.

    Raises
    ------
    InfeasibleError
        If no plan keeps the constraints, or none does in so few moves.
    """
    instance = problem.instance
    constraints = instance.constraints
    if constraints is None:
        return problem, []
    plan, needed_L = first_plan(instance)
    if constraints.max_moves is None:
        return problem, [plan]
    spare = constraints.max_moves - sum(needed_L)
    if spare < 0:
        raise _too_few(constraints.max_moves, sum(needed_L))
    each, more = divmod(spare, len(needed_L))
    most_L = [need + each + (at < more) for at, need in enumerate(needed_L)]
    shared = replace(instance, constraints=constraints.shared_out(most_L))
    return replace(problem, instance=shared), [plan]


def _too_few(most: int, needed: int) -> InfeasibleError:
    text = (
        f"the slots and constraints need {needed} moves from the previous plan, "
        f"--max-moves allows {most}"
    )
    repair = Repair(what=f"--max-moves {needed}", options={"max_moves": needed})
    cause = Cause(
        name="max_moves",
        says=text,
        numbers={"needed": needed, "max_moves": most},
        repairs=(repair,),
    )
    return InfeasibleError(f"{text}; cheapest repair: {repair.what}", (cause,))
