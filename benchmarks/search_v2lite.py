"""Search on DeepSeek-V2-Lite's recorded routing: what it reaches and how fast.

    python benchmarks/search_v2lite.py [--seconds 120] [--redundant 0] ...

Prints link time on the planning and on the held-out part relative to the better
EPLB (rule 30), the held-out imbalance of domains, and moves tried per second. Needs
the shared data (``PLANNER_SHARED_DATA``).
"""

import argparse
import os
import time
from fractions import Fraction
from pathlib import Path

from planner.evaluator import Evaluation, evaluate
from planner.options import SolveOptions
from planner.pipeline import load
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
)

SHARED = Path(os.environ.get("PLANNER_SHARED_DATA", "../shared/data"))


def main() -> None:
    """Plan once and print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="h100-4x8-rail")
    parser.add_argument("--trace", default=SHARED / "traces/deepseek-v2-lite.parquet")
    parser.add_argument("--traffic", default="dedup_domain")
    parser.add_argument("--selection", default="nearest")
    parser.add_argument("--redundant", default="0")
    parser.add_argument("--cap", default="1.05", help="domain imbalance cap")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    options = SolveOptions(
        traffic=given.traffic,
        selection=given.selection,
        homes="by_token",
        redundant=given.redundant,
        domain_imbalance_cap=given.cap,
    )
    problem = load(given.topology, trace=given.trace, options=options).instance
    begun = time.perf_counter()
    result = STRATEGIES.get("search")(
        problem,
        Limits(seconds=given.seconds, threads=given.threads, seed=given.seed),
    )
    seconds = time.perf_counter() - begun
    print(f"{result.notes[0]} in {seconds:.1f} s; stopped: {result.reason}")
    baselines = []
    for name in BASELINES.names():
        if name.startswith("eplb"):
            try:
                baselines.append(published_plan(problem, name))
            except AbsentBaselineError:
                continue
    for part_name, part in (
        ("planning", problem.planning),
        ("held-out", problem.holdout),
    ):
        if part is None:
            continue

        def judged(plan: PlacementPlan, part: object = part) -> Evaluation:
            return evaluate(problem, plan, part)  # type: ignore[arg-type]

        found = judged(result.plan)
        better = min(judged(plan).value for plan in baselines)
        imbalance = found.imbalance
        print(
            f"{part_name}: {float(found.value / Fraction(better)):.4f} of the better "
            f"EPLB; GPU max/mean {imbalance.mean:.3f}, domain max/mean "
            f"{imbalance.domain_mean:.3f} (worst layer {imbalance.domain_worst:.3f})"
        )


if __name__ == "__main__":
    main()
