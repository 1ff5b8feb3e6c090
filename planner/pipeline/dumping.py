"""Write the model that strategy ``milp`` solves, for other solvers to read."""

from pathlib import Path

from planner.errors import UsageError
from planner.formulation.cut.whole import whole_model, why_not
from planner.formulation.mps import write_mps
from planner.pipeline.problem import Problem


def dump_model(problem: Problem, path: Path) -> None:
    """Write the cut formulation of all layers as MPS (docs/formulation.md).

    Raises
    ------
    UsageError
        If there is none, with the reason.
    """
    instance, reason = problem.instance, why_not(problem.instance)
    if instance.constraints is not None:
        reason = "the model has no constraints on placement: leave them out"
    if reason is not None:
        raise UsageError(f"--dump-model: {reason}")
    (model, value), objective = whole_model(instance), instance.objective
    unit = {"link_time": "seconds", "link_tokens": "tokens"}.get(
        objective.name, "(token, expert) pairs"
    )
    write_mps(
        model,
        path,
        says=(
            problem.headline,
            f"minimize {objective.name} ({objective.layers}); 1 is {value!r} {unit}",
            "copies share tokens freely: for selections but weighted a lower bound",
            "lN.: layer N; placed_E_R: expert E on EP rank R (docs/formulation.md)",
        ),
    )
