"""How far bf16 and fp8 take a placed model's outputs from the unsharded float32 one's.

    python -m benchmarks.precision [--seeds 2] [--trace FILE] [--layers 58]

The bundled model under its own router, and under forced routing seeded hidden states,
gates and weights; experts lie one run after the other on four GPUs in two domains.
Each line has the greatest error of any token in the routed experts' outputs of the
first, worst and last layer, and in what leaves the last layer (logits, or the
residual stream): greatest difference over greatest value, both passes on their own
through all layers; of a layer the token's greatest value, or the layer's mean one if
that is more. ``--trace`` forces the ids of another trace as well, ``--layers`` its
layers over and over again.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from planner import bundled
from planner.executor.replay import replay
from planner.executor.result import ReplayResult
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan
from planner.topology.paths import build_routes
from planner.topology.schema import load_topology
from planner.workload.parts import TokenPart
from planner.workload.presets import load_model
from planner.workload.trace import RoutingTrace, load_trace

WAYS = (
    ("copies", "local_nic"),
    ("dedup_domain", "dest_forward"),
    ("direct", "local_nic"),
)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--model", default="deepseek-v2-lite")
    parser.add_argument("--layers", type=int)
    given = parser.parse_args()
    text = load_trace(bundled.tiny_moe_trace())
    assert isinstance(text, RoutingTrace)
    ends = np.flatnonzero(np.diff(text.sequence_T, append=-1)) + 1
    whole = int(ends[ends <= given.tokens].max())
    print(f"tiny-moe, {whole} tokens, its own router")
    table(text, "tiny-moe", "real", whole, [0])
    seeds = list(range(given.seeds))
    print(f"tiny-moe, {whole} tokens, forced, worst of {given.seeds} seeds")
    table(text, "tiny-moe", "forced", whole, seeds)
    if given.trace is not None:
        other = load_trace(given.trace)
        assert isinstance(other, RoutingTrace)
        rows = min(given.tokens, len(other.sequence_T))
        if given.layers is not None:
            other = repeated(other, given.layers)
        print(
            f"{given.model}, {len(other.layer_numbers)} layers, {rows} tokens, forced, "
            f"worst of {given.seeds} seeds"
        )
        table(other, given.model, "forced", rows, seeds)


def table(
    trace: RoutingTrace, model: str, gating: str, rows: int, seeds: list[int]
) -> None:
    """Print one line for each precision and traffic mode."""
    print("| precision | traffic | first layer | worst | last | out | same choices |")
    print("|---|---|---|---|---|---|---|")
    for precision in ("fp32", "bf16", "fp8"):
        for traffic, endpoint in WAYS:
            options = job(trace, model, rows) | {
                "traffic": traffic,
                "endpoint": endpoint,
                "precision": precision,
            }
            if gating == "real":
                options |= {
                    "weights": bundled.tiny_moe_weights(),
                    "token_ids": trace.token_id_T,
                    "seq_ids": trace.sequence_T,
                }
            found = [replay("local", gating, seed=seed, **options) for seed in seeds]
            print(f"| {precision} | {traffic} | {line(found)} |", flush=True)
    print()


def repeated(trace: RoutingTrace, layers: int) -> RoutingTrace:
    """Return a trace with its layers over and over again."""
    at_L = np.arange(layers) % len(trace.layer_numbers)
    return replace(
        trace,
        layer_numbers=tuple(range(layers)),
        experts_LTK=trace.experts_LTK[at_L],
    )


def line(found: list[ReplayResult]) -> str:
    """Return the worst figures of some runs."""
    checks = [result.moved.outputs for result in found if result.moved.outputs]
    error_L = np.max([check.error_L for check in checks], axis=0)
    final = max(check.final_error for check in checks)
    shown = [error_L[0], error_L.max(), error_L[-1], final]
    agreeing = found[0].ids_agreeing
    same = "-" if agreeing is None else f"{agreeing:.3%}"
    return " | ".join([*(f"{error:.1e}" for error in shown), same])


def job(trace: RoutingTrace, model: str, rows: int) -> dict[str, Any]:
    """Return what a replay needs."""
    routes = build_routes(load_topology(str(bundled.topology_path("toy-2x2"))))
    gpus, layers = routes.topology.gpu_count, len(trace.layer_numbers)
    own = -(-trace.num_experts // gpus)
    order = np.arange(gpus * own).reshape(gpus, own)
    slots_GJ = np.where(order < trace.num_experts, order, -1).astype(np.int16)
    source_T = np.arange(rows) % gpus
    return {
        "plan": PlacementPlan(
            layer_numbers=trace.layer_numbers,
            slots_LGJ=np.repeat(slots_GJ[None], layers, axis=0),
        ),
        "part": TokenPart(
            experts_LTK=trace.experts_LTK[:, :rows],
            source_T=source_T,
            rank_T=source_T,
            ordinal_T=np.arange(rows) // gpus,
            row_T=np.arange(rows),
        ),
        "layout": ParallelLayout(
            domain_G=routes.topology.domain_G,
            ep=gpus,
            attention_groups=tuple((gpu,) for gpu in range(gpus)),
        ),
        "model_spec": load_model(model),
        "selection": "nearest",
        "message_bytes": (1, 1),
        "routes": routes,
    }


if __name__ == "__main__":
    main()
