"""One plan for four workloads of DeepSeek-R1, scored on four others.

    python -m benchmarks.joint [--seconds 120]

EP32, 288 slots, copies share evenly; the plan is made for the worst of the four
(``--combine worst``). EPLB plans on their mean, once with every workload scaled to one
and once with the counts as they are, global, hierarchical and on domains, duplicates
kept; each line compares with the one of these six that is best on that line. Figures
are max/mean of (token, expert) pairs per GPU. Needs the shared data
(``PLANNER_SHARED_DATA``).
"""

import argparse
import time
from dataclasses import replace
from fractions import Fraction

from benchmarks.r1_balance import CASES, counts, imbalance, problem, row
from planner.arrays import IntArray
from planner.instance import Objective, PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.balance.strategy import solve_balance
from planner.strategies.base import Limits
from planner.strategies.baselines.base import AbsentBaselineError, published_plan

SEEN = (
    "prefill_in512",
    "prefill_in2000out100",
    "decode_in1000out1000",
    "decode_in2000out100",
)
UNSEEN = (
    "prefill_in1024",
    "prefill_in1000out1000",
    "prefill_in1800out100",
    "decode_in1800out100",
)
HEADER = (
    "workload",
    "ours, mean / worst layer",
    "EPLB, mean / worst layer",
    "ratio of the means",
    "of the worst",
)


def main() -> None:
    """Print the table, the unseen workloads first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tables = {name: counts(name).tokens_LE for name in (*UNSEEN, *SEEN)}
    shared = together([tables[name] for name in SEEN])
    summed = problem(*CASES["ep32"], sum(tables[name] for name in SEEN))
    limits = Limits(seconds=given.seconds, seed=given.seed)
    begun = time.perf_counter()
    ours = solve_balance(shared, limits).plan
    print(f"planned on {', '.join(SEEN)} in {time.perf_counter() - begun:.0f} s\n")
    rivals = [*baselines(shared), *baselines(summed)]
    row(HEADER)
    row(["---"] * len(HEADER))
    for name, tokens_LE in tables.items():
        score(name, tokens_LE, ours, rivals)


def together(tables: list[IntArray]) -> PlacementInstance:
    """Return the problem of all these workloads, the worst of which counts."""
    each = [problem(*CASES["ep32"], tokens_LE) for tokens_LE in tables]
    return replace(
        each[0],
        objective=Objective(name="gpu_tokens", combine="worst"),
        workloads=tuple(
            replace(one.workloads[0], weight=Fraction(1, len(each))) for one in each
        ),
    )


def baselines(instance: PlacementInstance) -> list[PlacementPlan]:
    """Return EPLB's plans as published."""
    plans = []
    for name in ("eplb_global", "eplb_hierarchical", "eplb_domains"):
        try:
            plans.append(published_plan(instance, name))
        except AbsentBaselineError:
            continue
    return plans


def score(
    name: str, tokens_LE: IntArray, ours: PlacementPlan, rivals: list[PlacementPlan]
) -> None:
    """Print the line of one workload."""
    instance = problem(*CASES["ep32"], tokens_LE)
    mine = summary(imbalance(instance, ours))
    theirs = [summary(imbalance(instance, plan)) for plan in rivals]
    mean, worst = (min(figures) for figures in zip(*theirs, strict=True))
    row(
        [
            name if name in UNSEEN else f"{name} (planned on)",
            f"{mine[0]:.4f} / {mine[1]:.4f}",
            f"{mean:.4f} / {worst:.4f}",
            f"{mine[0] / mean:.3f}",
            f"{mine[1] / worst:.3f}",
        ]
    )


def summary(ratios: tuple[Fraction, ...]) -> tuple[float, float]:
    """Return the mean over the layers and the worst layer."""
    return float(sum(ratios) / len(ratios)), float(max(ratios))


if __name__ == "__main__":
    main()
