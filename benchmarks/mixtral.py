"""Synthetic `mixtral` routing on one and two boxes of eight GPUs, `dedup_gpu`.

    python -m benchmarks.mixtral [--tokens 20000] [--seed 1]

Two boxes hold 16 slots: one EP set of 16 GPUs, and two sets of 8. Prints the status,
the gap and the seconds of a plan of all 32 layers under `auto`.
"""

import argparse
import tempfile
import time
from pathlib import Path

from planner.options import SolveOptions
from planner.pipeline import solve
from planner.workload.synth import CalibratedTrace, write_calibrated

TWO_BOXES = Path(__file__).parent / "cases" / "topologies" / "rail-2x8.json"


def main() -> None:
    """Print one line per cluster."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "mixtral.parquet"
        wanted = CalibratedTrace(preset="mixtral", tokens=args.tokens, seed=args.seed)
        write_calibrated(trace, wanted)
        for name, topology, redundant in (
            ("1x8", "dgx-h100-1", "0"),
            ("2x8, 16 slots", TWO_BOXES, "8"),
            ("2x8, two sets of 8", TWO_BOXES, "0"),
        ):
            options = SolveOptions(
                traffic="dedup_gpu", redundant=redundant, time_limit=10.0
            )
            begun = time.perf_counter()
            plan = solve(topology, trace=trace, options=options)
            seconds = time.perf_counter() - begun
            print(
                f"{name:<20} {plan.status:<16} gap {max(plan.gap, 0):.2%}  "
                f"{plan.objective.value * 1e3:.4f} ms  {seconds:.1f} s"
            )


if __name__ == "__main__":
    main()
