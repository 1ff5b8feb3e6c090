"""The example of EPLB's README: 12 experts, 16 slots, 4 groups, 2 nodes, 8 GPUs.

    python -m benchmarks.eplb_readme

Prints the greatest load of a GPU, layer by layer, of plans that are proven optimal:
groups nested in nodes or free, copies sharing evenly or freely; beside them EPLB's own
(hierarchical and global), which share evenly.
"""

import time
from fractions import Fraction
from typing import Any

import planner
from planner.manifest import Manifest
from planner.options import SolveOptions

LOADS = (
    (90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86),
    (20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27),
)
CASES = (
    ("nest", "even"),
    ("nest", "weighted"),
    ("free", "even"),
    ("free", "weighted"),
)
CLUSTER: dict[str, Any] = {
    "schema": "moe-topology/1",
    "graph": {
        "name": "two-nodes-of-four",
        "profiles": {"gpu": {"memory_bytes": 80_000_000_000}},
    },
    "generator": {
        "kind": "rail_fat_tree",
        "nodes": 2,
        "gpus_per_node": 4,
        "profile": "gpu",
        "nvlink": {"bandwidth_gbs": 450, "cables": 18, "planes": 4},
        "pcie_gbs": 64,
        "nic_gbs": 50,
        "su_nodes": 2,
        "spines": 2,
    },
}
MODEL: dict[str, Any] = {
    "schema": "moe-model/1",
    "name": "eplb-readme",
    "layers": 1,
    "moe_layers": [0],
    "experts": 12,
    "top_k": 2,
    "hidden": 512,
    "expert_ffn": 256,
    "vocab": 1024,
    "routing_groups": 4,
    "attention": {"heads": 8, "kv_heads": 8, "head_dim": 64},
    "source": "the README of EPLB names no model",
}


def main() -> None:
    """Print the table."""
    print("| groups | shares | layer 0 | layer 1 | status | seconds |")
    print("|---|---|---|---|---|---|")
    for groups, selection in CASES:
        begun = time.perf_counter()
        plans = [solved(loads, groups, selection) for loads in LOADS]
        seconds = time.perf_counter() - begun
        values = " | ".join(f"{float(value(plan)):g}" for plan in plans)
        status = ", ".join(plan.status for plan in plans)
        print(f"| {groups} | {selection} | {values} | {status} | {seconds:.1f} |")
    plans = [solved(loads, "free", "even") for loads in LOADS]
    for name in ("eplb_hierarchical", "eplb_global"):
        known = " | ".join(
            f"{plan.baselines[name].objective.value:g}" for plan in plans
        )
        print(f"| {name} | even | {known} | | |")


def solved(loads: tuple[int, ...], groups: str, selection: str) -> Manifest:
    """Plan one layer of the example."""
    return planner.solve(
        CLUSTER,
        model=MODEL,
        trace={"layers": [0], "top_k": 2, "tokens": [list(loads)]},
        options=SolveOptions(
            objective="gpu_tokens",
            selection=selection,
            routing_groups=groups,
            redundant="4",
            threads=1,
        ),
    )


def value(manifest: Manifest) -> Fraction:
    """Return the greatest load of a GPU."""
    return Fraction(manifest.objective.value_exact)


if __name__ == "__main__":
    main()
