"""Deduplicated traffic of DeepSeek-V2-Lite: the certified gap of every layer.

    python -m benchmarks.dedup_bound [--topology h100-4x8-rail] [--cap 1.05] ...

Plans without redundant experts (``search``, as ``planner solve`` would), bounds every
layer (or every ``--every``-th) again to the end of its steps, has the bound checked in
integers, and prints per layer the gap (value - proven)/value and the excess
value/proven - 1, seconds of the bound and of the check, and the size of the
certificate. Needs the shared data (``PLANNER_SHARED_DATA``).
"""

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.formulation.gram.certificate import certificate_of
from planner.formulation.gram.problem import nets_of, visits_of
from planner.formulation.gram.solve import solve_nets
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.pipeline import load
from planner.pipeline.certifying import evidence
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.judging import judged_layer
from planner.strategies.search.bound import MOST_STEPS
from planner.verifier.certificates import proven

SHARED = Path(os.environ.get("PLANNER_SHARED_DATA", "../shared/data"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured on one layer."""

    gap: float
    excess: float
    bounded_s: float
    checked_s: float
    kilobytes: float


def measured(instance: PlacementInstance, plan: PlacementPlan, layer: int) -> Row:
    """Bound and check one layer of a plan."""
    begun = time.process_time()
    nets = nets_of(instance, layer, visits_of(instance))
    found = solve_nets(nets, seconds=600.0, steps=MOST_STEPS)
    rounded = certificate_of(nets, found)
    bounded = time.process_time()
    assert rounded is not None
    exact = proven(rounded[1], evidence(instance, layer))
    checked = time.process_time()
    value, _ = judged_layer(instance, layer, plan.slots_LGJ[layer], {})
    return Row(
        gap=float(1 - exact / value),
        excess=float(value / exact - 1),
        bounded_s=bounded - begun,
        checked_s=checked - bounded,
        kilobytes=len(json.dumps(rounded[1])) / 1000,
    )


def main() -> None:
    """Plan once, then print one line per layer and their summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="h100-4x8-rail")
    parser.add_argument("--trace", default=SHARED / "traces/deepseek-v2-lite.parquet")
    parser.add_argument("--traffic", default="dedup_domain")
    parser.add_argument("--cap", default=None, help="domain imbalance cap")
    parser.add_argument("--seconds", type=float, default=240.0, help="of the search")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="bound each n-th layer")
    given = parser.parse_args()
    options = SolveOptions(
        traffic=given.traffic,
        homes="by_token",
        redundant="0",
        domain_imbalance_cap=given.cap,
    )
    instance = load(given.topology, trace=given.trace, options=options).instance
    limits = Limits(seconds=given.seconds, threads=given.threads)
    plan = STRATEGIES.get("search")(instance, limits).plan
    rows = []
    for layer in range(0, instance.layer_count, given.every):
        row = measured(instance, plan, layer)
        rows.append(row)
        print(
            f"layer {layer:3d}: gap {row.gap:.2%}, excess {row.excess:.2%}, bound "
            f"{row.bounded_s:.1f} s, check {row.checked_s:.3f} s, "
            f"{row.kilobytes:.0f} kB",
            flush=True,
        )
    gap_L = np.asarray([row.gap for row in rows])
    excess_L = np.asarray([row.excess for row in rows])
    slowest = max(row.bounded_s for row in rows), max(row.checked_s for row in rows)
    print(
        f"{given.topology}, {given.traffic}, cap {given.cap}: gap mean "
        f"{gap_L.mean():.2%}, least {gap_L.min():.2%}, worst {gap_L.max():.2%}; "
        f"excess mean {excess_L.mean():.2%}, worst {excess_L.max():.2%}; at most "
        f"{slowest[0]:.1f} s to bound and {slowest[1]:.3f} s to check a layer"
    )


if __name__ == "__main__":
    main()
