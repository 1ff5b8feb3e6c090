"""``milp`` finds what enumeration finds, and never claims more.

``benchmarks/brute_force.py`` does the same on hundreds of cases; its cases and its
oracle (``tests/oracles/brute_force.py``) share no code with the planner.
"""

import pytest

from planner.errors import InfeasibleError
from planner.evaluator import evaluate
from planner.strategies import base
from tests.oracles.brute_force import optimum, random_case
from tests.oracles.tiny_instances import instance_of

SEEDS = range(300, 330)


@pytest.mark.parametrize("seed", SEEDS)
def test_milp_closes_random_tiny_clusters(seed: int) -> None:
    """Law: plan and bound equal the enumerated optimum; infeasible where it is."""
    case = random_case(seed)
    best = optimum(case)
    instance = instance_of(case)
    solve, limits = base.STRATEGIES.get("milp"), base.Limits(seconds=20, threads=1)
    if best is None:
        with pytest.raises(InfeasibleError):
            solve(instance, limits)
        return
    result = solve(instance, limits)
    value = float(evaluate(instance, result.plan, instance.planning).value)
    assert result.bound is not None
    assert result.bound.value <= best.value * (1 + 1e-9)
    assert result.bound.value >= best.value * (1 - 1e-6)
    assert value == pytest.approx(best.value, rel=1e-6)


def test_some_of_the_cases_are_infeasible() -> None:
    """Law: the seeds above exercise both verdicts."""
    verdicts = [optimum(random_case(seed)) is None for seed in SEEDS]
    assert 0.05 < sum(verdicts) / len(verdicts) < 0.5
