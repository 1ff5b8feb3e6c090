"""Balance of DeepSeek-R1's experts: what is reached, what is proven, how fast.

    python -m benchmarks.r1_balance [CASE ...] [--workload NAME ...] [--threads 2]

Prints a Markdown table per case: max/mean of (token, expert) pairs per GPU, mean and
worst over the 58 layers, as the evaluator judges it; the certified gap
(value - bound)/value; and the better EPLB (rule 30: global, hierarchical, on domains,
duplicates kept) on the same slots. Needs the shared data (``PLANNER_SHARED_DATA``).
"""

import argparse
import os
import time
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from planner.arrays import IntArray
from planner.evaluator import evaluate
from planner.instance import Caps, Objective, PlacementInstance, Workload
from planner.layout import ParallelLayout
from planner.pipeline.certifying import certified_layers
from planner.plan import PlacementPlan
from planner.strategies.balance.strategy import solve_balance
from planner.strategies.base import Limits, SolveResult
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
)
from planner.topology.paths import build_routes
from planner.topology.schema import load_topology
from planner.workload.model_spec import Attention, MoEModelSpec
from planner.workload.parts import CountsPart
from planner.workload.trace import CountsTable, load_trace

SHARED = Path(os.environ.get("PLANNER_SHARED_DATA", "../shared/data"))
TABLE = SHARED / "traces/deepseek-r1_counts.parquet"
CASES = {
    "ep32": (32, 9),
    "ep72": (72, 4),
    "ep96": (96, 3),
    "ep144": (144, 2),
    "ep320": (320, 1),
    "ep256x2": (256, 2),
}
WORKLOADS = ("prefill_in1024", "decode_in2000out100")
HEADER = (
    "workload",
    "selection",
    "ours, mean / worst layer",
    "mean gap",
    "worst gap",
    "proven",
    "seconds (processor)",
    "EPLB, mean / worst layer",
)
R1 = MoEModelSpec(
    name="deepseek-r1",
    layers=61,
    moe_layers=tuple(range(3, 61)),
    experts=256,
    top_k=8,
    hidden=7168,
    expert_ffn=2048,
    shared_ffn=2048,
    dense_ffn=18432,
    ffn_matrices=3,
    attention=Attention(heads=128, kv_heads=128, head_dim=128),
    vocab=129280,
    routing_groups=8,
)


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=[*CASES])
    parser.add_argument("--workload", action="append")
    parser.add_argument("--selection", action="append", choices=("even", "weighted"))
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    limits = Limits(seconds=given.seconds, threads=given.threads, seed=given.seed)
    for case in given.cases:
        print(f"\n**{case}**: {CASES[case][0]} GPUs of {CASES[case][1]} slots\n")
        row(HEADER)
        row(["---"] * len(HEADER))
        for workload in given.workload or WORKLOADS:
            for selection in given.selection or ("even",):
                one_workload(case, workload, selection, limits)


def row(cells: Iterable[object]) -> None:
    """Print one line of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def counts(workload: str) -> CountsTable:
    """Return one workload of the table."""
    table = load_trace(TABLE, workload=workload)
    assert isinstance(table, CountsTable)
    return table


def problem(
    gpus: int, slots: int, tokens_LE: IntArray, selection: str = "even"
) -> PlacementInstance:
    """Return the placement problem on hosts of eight GPUs with an NVSwitch each."""
    topology = load_topology(cluster(gpus))
    return PlacementInstance(
        topology=topology,
        routes=build_routes(topology),
        model=R1,
        layout=ParallelLayout(
            domain_G=topology.domain_G,
            ep=gpus,
            attention_groups=tuple((gpu,) for gpu in range(gpus)),
        ),
        selection=selection,
        objective=Objective(name="gpu_tokens"),
        caps=Caps(),
        slots_per_gpu=slots,
        workloads=(
            Workload(
                traffic="copies",
                endpoint="local_nic",
                message_bytes=(7408, 14336),
                planning=CountsPart(tokens_LE=tokens_LE, top_k=R1.top_k),
                holdout=None,
            ),
        ),
        memory_bytes_G=np.zeros(gpus, dtype=np.int64),
        memory_limit_G=np.ones(gpus, dtype=np.int64),
    )


def cluster(gpus: int) -> dict[str, object]:
    """Return hosts of eight GPUs with an NVSwitch each, all on one rail fabric."""
    return {
        "schema": "moe-topology/1",
        "graph": {
            "name": f"rail-{gpus}",
            "profiles": {"gpu": {"memory_bytes": 80_000_000_000}},
        },
        "generator": {
            "kind": "rail_fat_tree",
            "nodes": gpus // 8,
            "gpus_per_node": 8,
            "profile": "gpu",
            "nvlink": {"bandwidth_gbs": 450, "cables": 18, "planes": 4},
            "pcie_gbs": 64,
            "nic_gbs": 50,
            "su_nodes": gpus // 8,
            "spines": 4,
        },
    }


def one_workload(case: str, workload: str, selection: str, limits: Limits) -> None:
    """Plan one workload and print its line."""
    instance = problem(*CASES[case], counts(workload).tokens_LE, selection)
    # Kernels are compiled once and cached; that is not what is measured.
    solve_balance(instance, Limits(seconds=0.0, threads=1))
    begun, used = time.perf_counter(), time.process_time()
    result = solve_balance(instance, limits)
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    ours = imbalance(instance, result.plan)
    gaps = _gaps(instance, ours, result)
    found = {}
    for name in ("eplb_global", "eplb_hierarchical", "eplb_domains"):
        assert name in BASELINES.names()
        try:
            found[name] = imbalance(instance, published_plan(instance, name))
        except AbsentBaselineError:
            continue
    best = min(found, key=lambda name: sum(found[name]))
    proven = sum(gap <= Fraction(1, 10**9) for gap in gaps)
    row(
        [
            workload,
            selection,
            _pair(ours),
            f"{100 * float(sum(gaps) / len(gaps)):.4f} %",
            f"{100 * float(max(gaps)):.4f} %",
            f"{proven}/{len(gaps)}",
            f"{seconds:.1f} ({used:.1f})",
            f"{_pair(found[best])} ({best})",
        ]
    )


def imbalance(instance: PlacementInstance, plan: PlacementPlan) -> tuple[Fraction, ...]:
    """Return max/mean of every layer, exact."""
    return evaluate(instance, plan, instance.planning).gpu_imbalance_L


def _gaps(
    instance: PlacementInstance, ours: Sequence[Fraction], result: SolveResult
) -> list[Fraction]:
    part = instance.planning
    assert isinstance(part, CountsPart)
    means = [
        Fraction(int(tokens_E.sum()), instance.layout.gpu_count)
        for tokens_E in part.tokens_LE
    ]
    # What the verifier's checkers prove, not what the strategy says.
    proven = certified_layers(instance, result.bound)
    assert proven is not None
    return [
        1 - value / (ratio * mean)
        for ratio, mean, value in zip(ours, means, proven, strict=True)
    ]


def _pair(ratios: Sequence[Fraction]) -> str:
    return f"{float(sum(ratios) / len(ratios)):.5f} / {float(max(ratios)):.5f}"


if __name__ == "__main__":
    main()
