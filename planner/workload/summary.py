"""What is in a trace file, in figures: ``planner trace info``."""

from pathlib import Path
from typing import Any

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.workload.counts import CountsTable
from planner.workload.demand import expert_loads
from planner.workload.homes import HOMES, assign_homes
from planner.workload.presets import fits, known_fits, load_model, ranges
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import list_workloads, load_trace


def summarize(path: Path, *, dp: int, model: str | None = None) -> dict[str, Any]:
    """Return the figures of a trace as plain JSON data.

    Parameters
    ----------
    dp
        Number of DP ranks that homes are tried with.
    model
        A known model or model file to compare with; None compares with all known.

    Raises
    ------
    TraceError
        If the file breaks a rule.
    ModelError
        If there is no such model.
    """
    workloads = list_workloads(path)
    if not workloads:
        trace = load_trace(path)
        if isinstance(trace, CountsTable):  # a counts table without a workload
            return _shape(trace, model) | {"kind": "counts", "workloads": []}
        return _shape(trace, model) | _token_figures(trace, dp)
    tables = [load_trace(path, workload=name) for name in workloads]
    found = [_workload(table) for table in tables if isinstance(table, CountsTable)]
    return _shape(tables[0], model) | {"kind": "counts", "workloads": found}


def skew(tokens_LE: IntArray) -> dict[str, float]:
    """Return median, least and greatest max/mean load over the layers."""
    totals = tokens_LE.sum(axis=1)
    loaded = tokens_LE[totals > 0]
    if not loaded.size:
        return {"median": 1.0, "min": 1.0, "max": 1.0}
    ratios: FloatArray = loaded.max(axis=1) / loaded.mean(axis=1)
    return {
        "median": float(np.median(ratios)),
        "min": float(ratios.min()),
        "max": float(ratios.max()),
    }


def _shape(trace: RoutingTrace | CountsTable, model: str | None) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "file": str(trace.path),
        "model": trace.model,
        "synthetic": trace.metadata.get("synthetic"),
        "num_experts": trace.num_experts,
        "top_k": trace.top_k,
        "layers": len(trace.layer_numbers),
        "layer_numbers": ranges(trace.layer_numbers),
        "fits": known_fits(trace),
    }
    if model is not None:
        spec = load_model(model)
        shape["compared_with"] = {"model": spec.name, "differs": fits(trace, spec)}
    return shape


def _workload(table: CountsTable) -> dict[str, Any]:
    pairs = table.tokens_LE.sum(axis=1) / table.top_k
    return {
        "workload": table.workload,
        "phase": table.phase,
        "tokens": float(pairs.mean()),
        "skew": skew(table.tokens_LE),
    }


def _token_figures(trace: RoutingTrace, dp: int) -> dict[str, Any]:
    missing = trace.experts_LTK < 0
    policies = [name for name in HOMES if name != "trace" or trace.rank_T is not None]
    homes: dict[str, float] = {}
    for name in policies:
        homes[name] = assign_homes(trace, name, dp).ratio
    return {
        "kind": "tokens",
        "tokens": trace.token_count,
        "sequences": trace.sequence_count,
        "longest_sequence": int(np.bincount(trace.sequence_T).max()),
        "tags": _by_code(trace, trace.tag_T, trace.tags),
        "phases": _by_code(trace, trace.phase_T, trace.phases),
        "order": trace.order,
        "null_rows": int(missing.all(axis=2).sum()),
        "null_ids": int(missing.sum()),
        "skew": skew(expert_loads(trace.experts_LTK, trace.num_experts)),
        "dp": dp,
        "homes_max_over_mean": homes,
    }


def _by_code(
    trace: RoutingTrace, code_T: IntArray, names: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    return {
        name: {
            "tokens": int((code_T == code).sum()),
            "sequences": int(np.unique(trace.sequence_T[code_T == code]).size),
        }
        for code, name in enumerate(names)
    }
