"""``--groups placed``: DP ranks are given their groups together with the experts."""

from dataclasses import replace

import numpy as np

from planner.arrays import IntArray
from planner.errors import UsageError
from planner.pipeline.problem import Problem
from planner.strategies.base import Limits, Progress, SolveResult, Strategy
from planner.strategies.grouping.place import place_ranks
from planner.traffic.base import TRAFFIC


def planned(
    problem: Problem, strategy: Strategy, limits: Limits, progress: Progress | None
) -> tuple[Problem, SolveResult]:
    """Return what a strategy finds, and the problem with the groups it is for."""
    if problem.options.groups == "auto":
        return problem, strategy(problem.instance, limits, progress=progress)
    placed = place_ranks(
        problem.instance, kinds_of_ranks(problem), strategy, limits, progress
    )
    return replace(problem, instance=placed.instance), placed.result


def check_placing(problem: Problem, *, dumped: bool = False) -> None:
    """Refuse ``--groups placed`` where no choice of groups can matter.

    Parameters
    ----------
    dumped
        Whether a model is written, which has to know the groups.

    Raises
    ------
    UsageError
        With the reason and the way out.
    """
    if problem.options.groups == "auto":
        return
    if dumped:
        raise UsageError(
            "--dump-model writes the model of groups that are known: leave out "
            "--groups placed"
        )
    policy = problem.homes[0].policy
    if any(report.tags_S is None for report in problem.homes):
        raise UsageError(
            "--groups placed goes with --homes by_tag: under homes "
            f"{policy} nothing says which experts a DP rank will use"
        )
    instance = problem.instance
    if instance.objective.name == "gpu_tokens":
        raise UsageError(
            "--groups placed changes what links carry, which --objective gpu_tokens "
            "does not look at: use link_time or link_tokens"
        )
    if any(TRAFFIC.get(view.traffic).chained for view in instance.views):
        raise UsageError(
            f"--groups placed does not go with --traffic {instance.traffic}: tokens "
            "attend where their experts are"
        )


def kinds_of_ranks(problem: Problem) -> IntArray:
    """Return the kind of every DP rank: of one kind are those of the same tags."""
    sets = np.stack([r.tags_S for r in problem.homes if r.tags_S is not None])
    kind_S: IntArray = np.unique(sets, axis=1, return_inverse=True)[1].reshape(-1)
    return kind_S
