"""Placements that others publish, on recorded routing: how far below EPLB they are.

    python -m benchmarks.published [--topology h100-4x8-rail ...] [--homes by_token ...]
                                   [--traffic dedup_domain ...] [--layers 0]

DeepSeek-V2-Lite without redundant experts. Prints, for ``sglang_swap`` and
``partition`` (docs/baselines.md), the link time of all layers on the held-out
sequences, and that over the best EPLB's of ``eplb_global``, ``eplb_hierarchical`` and
``eplb_domains``. The partition keeps 1.1 of the mean load per domain. Needs the shared
data (``PLANNER_SHARED_DATA``), and for ``partition`` the extra of that name.
"""

import argparse
import itertools
from fractions import Fraction

from benchmarks.v2lite import EPLB, SHARED, _some_layers
from planner.evaluator import evaluate
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.pipeline import load
from planner.strategies.baselines.base import (
    AbsentBaselineError,
    published_plan,
    repaired,
)

CAP = "1.1"
TRACE = SHARED / "traces/deepseek-v2-lite.parquet"
PUBLISHED = ("sglang_swap", "partition")


def main() -> None:
    """Print one line per cluster, homes and traffic."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--topology", nargs="+", default=["h100-4x8-rail"])
    parser.add_argument("--homes", nargs="+", default=["by_token", "by_tag"])
    parser.add_argument("--traffic", nargs="+", default=["dedup_domain"])
    parser.add_argument("--layers", type=int, default=0, help="0: all")
    given = parser.parse_args()
    for topology, homes, traffic in itertools.product(
        given.topology, given.homes, given.traffic
    ):
        options = SolveOptions(
            traffic=traffic, homes=homes, redundant="0", domain_imbalance_cap=CAP
        )
        problem = load(topology, trace=TRACE, options=options).instance
        problem = _some_layers(problem, given.layers)
        print(f"{topology}, {homes}, {traffic}: {_figures(problem)}", flush=True)


def _figures(problem: PlacementInstance) -> str:
    best = min(_held_out(problem, name) for name in EPLB)
    texts = [f"EPLB {float(best) * 1e3:.3f} ms"]
    for name in PUBLISHED:
        try:
            value = _held_out(problem, name)
        except AbsentBaselineError as absent:
            texts.append(f"{name}: {absent}")
            continue
        texts.append(f"{name} {float(value) * 1e3:.3f} ms ({float(value / best):.3f})")
    return "; ".join(texts)


def _held_out(problem: PlacementInstance, name: str) -> Fraction:
    """Return the objective of the published slots on the unseen sequences."""
    assert problem.holdout is not None
    plan = repaired(problem, published_plan(problem, name))
    return evaluate(problem, plan, problem.holdout).value


if __name__ == "__main__":
    main()
