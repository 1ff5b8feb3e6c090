"""Rows by tag of DeepSeek-V2-Lite: what both halves share, and what is chance.

    python -m benchmarks.v2lite_tags [--salt none 1 2] [--layer 0] [--time-limit 5]

Prints by tag, in the planning and the held-out part: domains that a token touches
beyond its own on 4 x 8 GPUs with 96 slots, as one layer of the row ``4x8-96-tag`` of
``benchmarks.v2lite`` is planned (counted work); and the most tokens of one tag that
have their home on one GPU. Needs the shared data (``PLANNER_SHARED_DATA``).
"""

import argparse

import numpy as np

from benchmarks.v2lite import ROWS, SHARED
from planner import clock
from planner.arrays import IntArray
from planner.evaluator.evaluation import layer_split
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.pipeline import load
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.some_layers import some_layers
from planner.traffic.selection import chosen_targets
from planner.workload.parts import TokenPart
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import load_trace

ROW = ROWS["4x8-96-tag"]
TRACE = SHARED / f"traces/{ROW.trace}.parquet"


def main() -> None:
    """Print two lines per part of every split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--salt", nargs="*", default=["none"])
    parser.add_argument("--layer", type=int, default=0)
    parser.add_argument("--time-limit", type=float, default=5.0)
    given = parser.parse_args()
    trace = load_trace(TRACE)
    assert isinstance(trace, RoutingTrace)
    print(f"tags: {', '.join(trace.tags)}")
    for salt in given.salt:
        problem = some_layers(_problem(salt), [given.layer])
        with clock.counting_work():
            limits = Limits(seconds=given.time_limit, threads=1)
            plan = STRATEGIES.get("search")(problem, limits).plan
        parts = {"planning": problem.planning, "held-out": problem.holdout}
        for name, part in parts.items():
            assert isinstance(part, TokenPart)
            tag_T = trace.tag_T[part.row_T]
            beyond = _means(_domains_beyond_T(problem, plan, part), tag_T)
            most = _most_on_one_gpu(part, tag_T)
            print(f"{salt}, {name}: {', '.join(f'{each:.2f}' for each in beyond)}")
            print(f"{salt}, {name}: {', '.join(f'{each:,}' for each in most)} tokens")


def _problem(salt: str) -> PlacementInstance:
    options = SolveOptions(
        traffic="dedup_domain",
        selection="weighted",
        homes=ROW.homes,
        redundant=str(ROW.slots),
        domain_imbalance_cap=ROW.domain_cap,
        holdout="0.5" if salt == "none" else f"0.5:{salt}",
        plan_for="unseen",
    )
    return load(ROW.topology, trace=TRACE, options=options).instance


def _domains_beyond_T(
    problem: PlacementInstance, plan: PlacementPlan, part: TokenPart
) -> IntArray:
    """Return how many domains other than its own each token touches [T]."""
    targets_TK = chosen_targets(
        part,
        0,
        plan.slots_LGJ[0],
        layer_split(plan, 0),
        selection=problem.selection,
        layout=problem.layout,
        experts=problem.model.experts,
    )
    domain_G = problem.layout.domain_G
    touched_TN = np.zeros((part.token_count, int(domain_G.max()) + 1), dtype=np.bool_)
    row_T = np.arange(part.token_count)
    for targets_T in targets_TK.T:
        touched_TN[row_T, domain_G[targets_T]] = True
    touched_TN[row_T, domain_G[part.source_T]] = False
    beyond_T: IntArray = touched_TN.sum(axis=1)
    return beyond_T


def _means(value_T: IntArray, tag_T: IntArray) -> list[float]:
    """Return the mean of every tag."""
    return [float(value_T[tag_T == tag].mean()) for tag in np.unique(tag_T)]


def _most_on_one_gpu(part: TokenPart, tag_T: IntArray) -> list[int]:
    """Return of every tag the most tokens whose home is one GPU."""
    return [
        int(np.bincount(part.source_T[tag_T == tag]).max()) for tag in np.unique(tag_T)
    ]


if __name__ == "__main__":
    main()
