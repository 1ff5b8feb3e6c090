"""Hold ``milp`` (SCIP) against CP-SAT on an integer model written apart.

    python -m benchmarks.two_solvers [COUNT [FIRST_SEED]]

Every case is a random tiny cluster whose slots hold every expert once; then all loads
are sums of integers, and CP-SAT proves the optimum without tolerances
(``tests/oracles/integer_model.py``). Prints how often the plan's exact value is that
optimum, how often ``milp`` proved it, and bounds above it. Exit code 1 if a plan is
better than the optimum, or a bound above it.
"""

import sys
import time
from dataclasses import dataclass

from planner import clock
from planner.evaluator import evaluate
from planner.strategies import base
from tests.oracles.brute_force import Case
from tests.oracles.integer_model import integer_optimum, single_case
from tests.oracles.tiny_instances import instance_of

TOLERANCE = 1e-6
SECONDS = 60.0


@dataclass(frozen=True)
class Verdict:
    """What one case showed."""

    equal: bool
    proven: bool
    wrong: bool


def judge(case: Case) -> Verdict:
    """Solve one case both ways."""
    best = integer_optimum(case)
    instance = instance_of(case)
    limits = base.Limits(seconds=SECONDS, threads=1)
    with clock.counting_work():
        result = base.STRATEGIES.get("milp")(instance, limits)
    if result.bound is None:
        raise RuntimeError("milp gave no bound")
    value = evaluate(instance, result.plan, instance.planning).value
    bound = result.bound.value
    return Verdict(
        equal=value == best,
        proven=bound >= float(best) * (1 - TOLERANCE),
        wrong=value < best or bound > float(best) * (1 + 1e-9),
    )


def main(count: int, first: int) -> int:
    """Judge ``count`` cases and print the figures."""
    begun = time.process_time()
    verdicts = [judge(single_case(seed)) for seed in range(first, first + count)]
    wrong = sum(verdict.wrong for verdict in verdicts)
    print(f"instances               {count} (seeds {first}..{first + count - 1})")
    print(f"equal, exactly          {sum(each.equal for each in verdicts)}")
    print(f"proven within 1e-6      {sum(each.proven for each in verdicts)}")
    print(f"wrong                   {wrong}")
    print(f"CPU seconds             {time.process_time() - begun:.0f}")
    return int(wrong > 0)


if __name__ == "__main__":
    arguments = [int(text) for text in sys.argv[1:3]]
    sys.exit(main(*[*arguments, *(200, 0)[len(arguments) :]]))
