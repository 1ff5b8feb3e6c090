"""Recorded routing of DeepSeek-V2-Lite: what the search reaches on unseen sequences.

    python -m benchmarks.v2lite [ROW ...] [--salt none 1 2] [--layers 5]

Prints one line per row and split: the value on the held-out sequences over that of the
best EPLB (rule 30: global, hierarchical, on domains, each with ``nearest`` and
``even``, whatever ``--selection`` is), the same on the planning part, the held-out
imbalance, and moves tried.
Rows of one box print distinct GPUs per token instead; in their cluster all ports share
one limit (a capacity group), so that their sum binds. ``--layers N`` keeps every
(L/N)-th layer; with ``--work`` the limit counts work (docs/deterministic.md), so that a
busy machine changes nothing. With ``--oracle`` plans are made on the held-out sequences
themselves: what no plan made on others can promise to beat. Needs the shared data
(``PLANNER_SHARED_DATA``).
"""

import argparse
import json
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from planner import clock
from planner.bundled import topology_path
from planner.evaluator import evaluate
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.pipeline import load
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
)
from planner.workload.parts import Part, TokenPart

SHARED = Path(os.environ.get("PLANNER_SHARED_DATA", "../shared/data"))
EPLB = tuple(name for name in BASELINES.names() if name.startswith("eplb"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case: where the experts go, how tokens travel, the caps planned with.

    Caps are tighter than what is to hold on unseen sequences.
    """

    topology: str
    homes: str = "by_token"
    slots: int = 0
    trace: str = "deepseek-v2-lite"
    box: bool = False
    gpu_cap: str | None = None
    domain_cap: str | None = None


RAIL_4, RAIL_8 = "h100-4x8-rail", "h100-8x8-rail"
ROWS = {
    "4x8": Row(topology=RAIL_4, domain_cap="1.10"),
    "8x8": Row(topology=RAIL_8, domain_cap="1.04"),
    "4x8-96": Row(topology=RAIL_4, slots=32, domain_cap="1.10"),
    "8x8-128": Row(topology=RAIL_8, slots=64, domain_cap="1.06"),
    "4x8-tag": Row(topology=RAIL_4, homes="by_tag", domain_cap="1.08"),
    "8x8-tag": Row(topology=RAIL_8, homes="by_tag", domain_cap="1.05"),
    "4x8-96-tag": Row(topology=RAIL_4, homes="by_tag", slots=32, domain_cap="1.10"),
    "8x8-128-tag": Row(topology=RAIL_8, homes="by_tag", slots=64, domain_cap="1.03"),
    "box": Row(topology="dgx-h100-1", box=True, gpu_cap="1.04"),
    "toy-box": Row(topology="dgx-h100-1", box=True, trace="toy-moe-64e-grouped"),
}


def main() -> None:
    """Print the table of the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--salt", nargs="*", default=["none"])
    parser.add_argument("--layers", type=int, default=0, help="0: all")
    parser.add_argument("--time-limit", type=float, default=60.0)
    parser.add_argument("--work", action="store_true", help="limit counts work")
    parser.add_argument("--selection", default="nearest")
    parser.add_argument("--plan-for", default="unseen", choices=("seen", "unseen"))
    parser.add_argument("--oracle", action="store_true", help="plan on the held-out")
    parser.add_argument("--cap", help="in place of the row's cap")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("row, split: held-out, planning, max/mean held-out (worst layer), search")
    for name in given.rows or ROWS:
        for salt in given.salt:
            print(f"{name}, {salt}: {_figures(ROWS[name], salt, given)}", flush=True)


def _figures(row: Row, salt: str, given: argparse.Namespace) -> str:
    problem = _some_layers(_instance(row, salt, given), given.layers)
    limits = Limits(seconds=given.time_limit, threads=given.threads, seed=given.seed)
    asked = _on_holdout(problem) if given.oracle else problem
    begun, cpu = time.perf_counter(), time.process_time()
    with clock.counting_work() if given.work else nullcontext():
        result = STRATEGIES.get("search")(asked, limits)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    work = f"{result.notes[0]} in {seconds:.1f} s, cpu {cpu:.1f} s ({result.reason})"
    held, seen = problem.holdout, problem.planning
    if held is None:
        raise SystemExit("the split leaves nothing held out")
    unseen = evaluate(problem, result.plan, held)
    imbalance = unseen.imbalance
    if row.box:
        spread = f"GPU {imbalance.mean:.4f} ({imbalance.worst:.3f})"
        return f"{_touched(problem, result.plan, held)}; {spread}; {work}"
    worst = imbalance.domain_worst
    spread = f"domain {imbalance.domain_mean:.4f} ({worst:.3f})"
    ratios = (
        unseen.value / _best_eplb(problem, held),
        evaluate(problem, result.plan, seen).value / _best_eplb(problem, seen),
    )
    shown = ", ".join(f"{float(Fraction(ratio)):.4f}" for ratio in ratios)
    return f"{shown}; {spread}; {work}"


def _instance(row: Row, salt: str, given: argparse.Namespace) -> PlacementInstance:
    options = SolveOptions(
        traffic="dedup_gpu" if row.box else "dedup_domain",
        selection=given.selection,
        homes=row.homes,
        redundant=str(row.slots),
        imbalance_cap=(given.cap or row.gpu_cap) if row.gpu_cap else None,
        domain_imbalance_cap=(given.cap or row.domain_cap) if row.domain_cap else None,
        holdout="0.5" if salt == "none" else f"0.5:{salt}",
        plan_for=given.plan_for,
    )
    trace = SHARED / f"traces/{row.trace}.parquet"
    topology = _shared_limit(row.topology) if row.box else row.topology
    return load(topology, trace=trace, options=options).instance


def _shared_limit(name: str) -> dict[str, Any]:
    """Return a bundled cluster in which all links share one limit."""
    document: dict[str, Any] = json.loads(topology_path(name).read_text())
    for edge in document["edges"]:
        edge["capacity_group"] = "all"
    return document


def _some_layers(problem: PlacementInstance, count: int) -> PlacementInstance:
    """Keep ``count`` layers, evenly spread; all if 0."""
    layers = problem.layer_count
    if not 0 < count < layers:
        return problem
    kept = np.arange(count) * layers // count

    def less(part: Part | None) -> TokenPart:
        if not isinstance(part, TokenPart):
            raise SystemExit("a trace of tokens with a held-out part is needed")
        return replace(part, experts_LTK=np.ascontiguousarray(part.experts_LTK[kept]))

    (workload,) = problem.workloads
    workload = replace(
        workload, planning=less(workload.planning), holdout=less(workload.holdout)
    )
    numbers = tuple(problem.model.moe_layers[at] for at in kept.tolist())
    model = replace(problem.model, moe_layers=numbers)
    return replace(problem, model=model, workloads=(workload,))


def _on_holdout(problem: PlacementInstance) -> PlacementInstance:
    """Return the instance whose planning part are the held-out sequences."""
    (workload,) = problem.workloads
    if workload.holdout is None:
        raise SystemExit("the split leaves nothing held out")
    workload = replace(workload, planning=workload.holdout)
    return replace(problem, workloads=(workload,), unseen=False)


def _best_eplb(problem: PlacementInstance, part: Part) -> Fraction:
    """Value on a part of the best EPLB, with either selection."""
    values = []
    for name in EPLB:
        try:
            plan = published_plan(problem, name)
        except AbsentBaselineError:
            continue
        for selection in ("nearest", "even"):
            other = replace(problem, selection=selection)
            values.append(evaluate(other, plan, part).value)
    return min(values)


def _touched(problem: PlacementInstance, plan: PlacementPlan, part: Part) -> str:
    """Distinct GPUs per token; contiguous beside it, and layers where it is better."""
    own = _distinct_L(problem, plan, part)
    other = _distinct_L(problem, published_plan(problem, "contiguous"), part)
    better = sum(a < b for a, b in zip(own, other, strict=True))
    worse = sum(a > b for a, b in zip(own, other, strict=True))
    return (
        f"{np.mean(own):.3f} GPUs per token, contiguous {np.mean(other):.3f} "
        f"({better} of {len(own)} layers better, {worse} worse)"
    )


def _distinct_L(
    problem: PlacementInstance, plan: PlacementPlan, part: Part
) -> list[float]:
    """Mean number of GPUs that serve a token, per layer; one copy per expert."""
    if not isinstance(part, TokenPart):
        raise SystemExit("a trace of tokens with a held-out part is needed")
    means = []
    for ids_TK, slots_GJ in zip(part.experts_LTK, plan.slots_LGJ, strict=True):
        gpu_E = np.zeros(problem.model.experts, dtype=np.int64)
        gpu, slot = np.nonzero(slots_GJ >= 0)
        gpu_E[slots_GJ[gpu, slot]] = gpu
        known_TK = ids_TK[(ids_TK >= 0).all(axis=1)]
        served_TK = np.sort(gpu_E[known_TK], axis=1)
        means.append(float(1 + (np.diff(served_TK, axis=1) > 0).sum(axis=1).mean()))
    return means


if __name__ == "__main__":
    main()
