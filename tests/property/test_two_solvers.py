"""``milp`` (SCIP) finds exactly what CP-SAT proves on an integer model written apart.

``benchmarks/two_solvers.py`` does the same on hundreds of cases.
"""

import pytest

from planner import clock
from planner.evaluator import evaluate
from planner.strategies import base
from tests.oracles.brute_force import optimum
from tests.oracles.integer_model import integer_optimum, single_case
from tests.oracles.tiny_instances import instance_of

SEEDS = range(500, 520)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_solvers_and_two_formulations_agree(seed: int) -> None:
    """Law: the plan's exact value is the integer optimum, and the bound meets it."""
    case = single_case(seed)
    best = integer_optimum(case)
    problem = instance_of(case)
    with clock.counting_work():
        limits = base.Limits(seconds=60, threads=1)
        result = base.STRATEGIES.get("milp")(problem, limits)
    assert evaluate(problem, result.plan, problem.planning).value == best
    assert result.bound is not None
    bound = result.bound.value
    assert float(best) * (1 - 1e-6) <= bound <= float(best) * (1 + 1e-9)


def test_the_integer_model_finds_what_enumeration_finds() -> None:
    """Law: of the two oracles each is held by the other."""
    for seed in range(520, 526):
        case = single_case(seed)
        best = optimum(case)
        assert best is not None
        assert float(integer_optimum(case)) == pytest.approx(best.value, rel=1e-9)
