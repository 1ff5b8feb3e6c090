"""What ``--routing-groups nest`` goes with."""

from planner.errors import UsageError
from planner.evaluator.nesting import group_count
from planner.instance import PlacementInstance
from planner.layout import ParallelLayout
from planner.options import SolveOptions
from planner.strategies.balance.strategy import why_not
from planner.workload.model_spec import MoEModelSpec

KEEPING = ("auto", "balance")
"""Strategies that keep routing groups together."""


def nested_groups(
    options: SolveOptions, model: MoEModelSpec, layout: ParallelLayout
) -> int:
    """Return how many groups must stay in one domain each; 0 for none."""
    if options.routing_groups == "free":
        return 0
    return group_count(model.routing_groups, layout.domain_G[: layout.ep])


def check_nesting(instance: PlacementInstance, strategy: str) -> None:
    """Refuse what no strategy can do with groups that stay together.

    Raises
    ------
    UsageError
        With the reason.
    """
    if not instance.nested_groups:
        return
    if strategy not in KEEPING:
        raise UsageError(
            f"--routing-groups nest goes with --strategy {' or '.join(KEEPING)}: "
            f"{strategy} does not keep routing groups together"
        )
    reason = why_not(instance)
    if reason is not None:
        prefix = "" if reason.startswith("--") else "--routing-groups nest: "
        raise UsageError(prefix + reason)
