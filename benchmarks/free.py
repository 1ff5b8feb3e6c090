"""Layers that share memory: `--policy free` beside `uniform`, equal counted work.

    python -m benchmarks.free [ROW ...] [--time-limit 60]

Prints a Markdown line per row: the objective with as many slots in every layer and with
as many in the mean, free over uniform (on the planning part, and on the held-out part
where the trace has one), how many layers have how many slots per GPU, and the processor
seconds of either. Limits count work (docs/deterministic.md). All rows but the first
need the shared data (``PLANNER_SHARED_DATA``).
"""

import argparse
import os
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.r1_balance import cluster
from planner.manifest import Manifest
from planner.options import SolveOptions
from planner.pipeline import solve
from planner.pipeline.problem import TraceLike
from planner.pipeline.sources import Source
from planner.units import show_objective

SHARED = Path(os.environ.get("PLANNER_SHARED_DATA", "../shared/data"))
RAIL = "h100-4x8-rail"
R1 = f"{SHARED / 'traces/deepseek-r1_counts.parquet'}#prefill_in1024"
PAIRS = SolveOptions(
    objective="gpu_tokens", selection="even", redundant="32", batch_tokens=128
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One problem: where, with which trace, with how many slots in the mean."""

    topology: Source
    trace: TraceLike | None
    options: SolveOptions


ROWS = {
    "bundled": Row(topology=RAIL, trace=None, options=SolveOptions(redundant="96")),
    "r1-ep32": Row(topology=RAIL, trace=R1, options=PAIRS),
    "r1-ep144": Row(topology=cluster(144), trace=R1, options=PAIRS),
    "v2lite": Row(
        topology=RAIL,
        trace=SHARED / "traces/deepseek-v2-lite.parquet",
        options=SolveOptions(redundant="32", traffic="dedup_domain"),
    ),
}


def main() -> None:
    """Print the table of the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--time-limit", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(
        "| row | `uniform` | `free` | free / uniform | held-out | layers of slots | s |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in given.rows or ROWS:
        row = ROWS[name]
        options = replace(
            row.options,
            deterministic=True,
            time_limit=given.time_limit,
            seed=given.seed,
            threads=1,
        )
        cells = _cells(replace(row, options=options))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _cells(row: Row) -> list[str]:
    (uniform, before), (free, after) = (
        _planned(row, policy) for policy in ("uniform", "free")
    )
    ratio = free.objective.value / uniform.objective.value
    unseen = "-"
    if uniform.holdout is not None and free.holdout is not None:
        held = free.holdout.objective.value / uniform.holdout.objective.value
        unseen = f"{held:.5f}"
    slots = Counter(len(layer.slots[0]) for layer in free.layers)
    return [
        *(
            show_objective(plan.objective.value, plan.objective.unit)
            for plan in (uniform, free)
        ),
        f"{ratio:.6f}",
        unseen,
        ", ".join(f"{layers} of {each}" for each, layers in sorted(slots.items())),
        f"{before:.0f} / {after:.0f}",
    ]


def _planned(row: Row, policy: str) -> tuple[Manifest, float]:
    """Return the plan and the processor seconds that it took."""
    begun = time.process_time()
    plan = solve(
        row.topology, trace=row.trace, options=replace(row.options, policy=policy)
    )
    return plan, time.process_time() - begun


if __name__ == "__main__":
    main()
