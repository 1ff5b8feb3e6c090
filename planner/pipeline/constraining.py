"""Constraints on placement: what they go with, whether a plan keeps them at all."""

from pathlib import Path
from typing import Any

from planner.errors import Cause, InfeasibleError, Repair, UsageError
from planner.instance import PlacementInstance
from planner.manifest import read_manifest
from planner.plan import PlacementPlan
from planner.strategies.baselines.base import BASELINES
from planner.strategies.legal import first_plan, moves_by_layer
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
    moves = instance.constraints.max_moves is not None
    if moves and strategy not in KEEPING:
        raise UsageError(
            f"--max-moves does not go with --strategy {strategy}, which starts anew; "
            f"choose from {', '.join(KEEPING)}"
        )
    chained = any(TRAFFIC.get(view.traffic).chained for view in instance.views)
    for holds, what in (
        (chained, "--traffic direct, which ties all layers together"),
        (instance.single, "--policy one_expert_per_gpu_total"),
        (bool(instance.nested_groups), "--routing-groups nest"),
    ):
        if holds:
            raise UsageError(f"--constraints and --previous do not go with {what}")


def legal_plan(instance: PlacementInstance) -> list[PlacementPlan]:
    """Return a plan that keeps the constraints with the fewest moves; none if free.

    Raises
    ------
    InfeasibleError
        If no plan keeps the constraints, or none does in so few moves.
    """
    constraints = instance.constraints
    if constraints is None:
        return []
    plan = first_plan(instance)
    needed = sum(moves_by_layer(instance, plan))
    if constraints.max_moves is not None and needed > constraints.max_moves:
        raise _too_few(constraints.max_moves, needed)
    return [plan]


def constraint_notes(instance: PlacementInstance, plan: PlacementPlan) -> list[str]:
    """Return what a reader should know of the constraints of a plan."""
    constraints = instance.constraints
    if constraints is None:
        return []
    notes = [f"constraint kept: {rule.says}" for rule in constraints.rules]
    if constraints.before_LGJ is not None:
        most = constraints.max_moves
        limit = "" if most is None else f", at most {most} were allowed"
        moved = sum(moves_by_layer(instance, plan))
        notes.append(f"{moved} experts moved from the previous plan{limit}")
    return notes


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
