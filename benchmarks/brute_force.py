"""Hold ``milp`` against enumeration on random tiny clusters.

    python -m benchmarks.brute_force [COUNT [FIRST_SEED]]

Every case is a counts table on 3 or 4 GPUs in at least two domains with unequal
links, copies, and memory that just suffices or does not. Prints how many feasible
cases ``milp`` closes (plan and bound within 1e-6 of the optimum), bounds above the
optimum, infeasible cases, and where no baseline is optimal. Exit code 1 if a claim
of the strategy is wrong.
"""

import sys
import time
from dataclasses import dataclass

from planner import clock
from planner.errors import InfeasibleError
from planner.evaluator import evaluate
from planner.instance import PlacementInstance
from planner.strategies import base
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
)
from tests.oracles.brute_force import Case, even_value, optimum, random_case
from tests.oracles.tiny_instances import instance_of, placement_of_plan

TOLERANCE = 1e-6
SECONDS = 60.0
"""Of counted work: how busy the machine is changes no verdict."""


@dataclass(frozen=True)
class Verdict:
    """What one case showed; every field False for an infeasible one."""

    infeasible: bool = False
    closed: bool = False
    wrong_bound: bool = False
    wrong_verdict: bool = False
    baseline_optimal: bool = False


def judge(case: Case) -> Verdict:
    """Solve one case both ways."""
    best = optimum(case)
    instance = instance_of(case)
    try:
        with clock.counting_work():
            limits = base.Limits(seconds=SECONDS, threads=1)
            result = base.STRATEGIES.get("milp")(instance, limits)
    except InfeasibleError:
        return Verdict(infeasible=True, wrong_verdict=best is not None)
    if best is None or result.bound is None:
        return Verdict(wrong_verdict=True)
    value = float(evaluate(instance, result.plan, instance.planning).value)
    bound = result.bound.value
    near = best.value * (1 - TOLERANCE) <= bound
    return Verdict(
        closed=near and value <= best.value * (1 + TOLERANCE),
        wrong_bound=bound > best.value * (1 + 1e-9),
        wrong_verdict=value < best.value * (1 - TOLERANCE),
        baseline_optimal=baseline_value(case, instance) <= best.value * (1 + TOLERANCE),
    )


def baseline_value(case: Case, instance: PlacementInstance) -> float:
    """Return the value of the best baseline, as published, with equal shares."""
    values = [float("inf")]
    for name in BASELINES.names():
        try:
            slots_LGJ = published_plan(instance, name).slots_LGJ
        except AbsentBaselineError:
            continue
        values.append(even_value(case, placement_of_plan(slots_LGJ[0])))
    return min(values)


def main(count: int, first: int) -> int:
    """Judge ``count`` cases and print the figures."""
    begun = time.process_time()
    verdicts = [judge(random_case(seed)) for seed in range(first, first + count)]
    seconds = time.process_time() - begun
    infeasible = sum(verdict.infeasible for verdict in verdicts)
    feasible = count - infeasible
    closed = sum(verdict.closed for verdict in verdicts)
    bounds = sum(verdict.wrong_bound for verdict in verdicts)
    wrong = sum(verdict.wrong_verdict for verdict in verdicts)
    missed = feasible - sum(verdict.baseline_optimal for verdict in verdicts)
    print(f"instances               {count} (seeds {first}..{first + count - 1})")
    print(f"infeasible              {infeasible} ({infeasible / count:.0%})")
    print(f"closed by milp          {closed} of {feasible} ({closed / feasible:.1%})")
    print(f"bounds above optimum    {bounds}")
    print(f"wrong verdicts          {wrong}")
    print(f"no baseline optimal     {missed} of {feasible} ({missed / feasible:.0%})")
    print(f"CPU seconds             {seconds:.0f}")
    return int(bounds + wrong > 0)


if __name__ == "__main__":
    arguments = [int(text) for text in sys.argv[1:3]]
    sys.exit(main(*[*arguments, *(250, 0)[len(arguments) :]]))
