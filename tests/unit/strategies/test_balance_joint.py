"""``balance`` for several workloads at once."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.strategies.base import STRATEGIES, Limits
from planner.workload.parts import CountsPart
from tests import instances

EARLY = [[90, 10, 10, 10, 40, 20, 30, 70]]
LATE = [[10, 80, 20, 10, 60, 70, 20, 10]]


def joint(combine: str) -> PlacementInstance:
    """Return two counts tables on 4 GPUs of 3 slots, weights 1/4 and 3/4."""
    one = instances.instance(
        [2, 2],
        experts=8,
        slots=3,
        traffic="copies",
        selection="even",
        objective="gpu_tokens",
        counts=EARLY,
    )
    (first,) = one.workloads
    late = CountsPart(tokens_LE=np.asarray(LATE), top_k=2)
    return replace(
        one,
        objective=replace(one.objective, combine=combine),
        workloads=(
            replace(first, name="early", weight=Fraction(1, 4)),
            replace(first, name="late", weight=Fraction(3, 4), planning=late),
        ),
    )


@pytest.mark.parametrize("combine", ["mean", "worst"])
def test_one_placement_is_better_than_either_workloads_own(combine: str) -> None:
    """Law: the shared plan is no worse than plans made for one workload."""
    instance = joint(combine)
    solve, limits = STRATEGIES.get("balance"), Limits(seconds=4, threads=1)
    shared = solve(instance, limits)
    value = evaluate_planning(instance, shared.plan).value
    assert shared.bound is not None
    assert shared.bound.value <= float(value) * (1 + 1e-9)
    for view in instance.views:
        own = solve(view, limits)
        assert value <= evaluate_planning(instance, own.plan).value


def test_traces_cannot_be_balanced_together_yet() -> None:
    """Law: what does not apply is said, with why."""
    instance = replace(joint("mean"), selection="nearest")
    with pytest.raises(Exception, match="selection even"):
        STRATEGIES.get("balance")(instance, Limits(seconds=1))
