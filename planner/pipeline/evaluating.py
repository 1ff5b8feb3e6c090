"""Score a plan on any trace."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.errors import ManifestError
from planner.evaluator import Evaluation
from planner.evaluator import evaluate as judge
from planner.instance import PlacementInstance
from planner.manifest import Manifest, read_manifest, slots_array
from planner.options import SolveOptions
from planner.pipeline.problem import (
    Sources,
    TraceLike,
    build_problem,
    trace_list,
)
from planner.pipeline.sources import Source
from planner.plan import PlacementPlan
from planner.topology.paths import build_routes
from planner.workload.parts import Part


def plan_of(manifest: Manifest) -> PlacementPlan:
    """Return the placement a manifest holds."""
    width = max(len(row) for layer in manifest.layers for row in layer.slots)
    slots_LGJ = np.stack([slots_array(at.slots, width) for at in manifest.layers])
    split = {}
    for index, layer in enumerate(manifest.layers):
        for expert, by_rank in (layer.split or {}).items():
            split[index, int(expert)] = dict(by_rank)
    return PlacementPlan(
        layer_numbers=tuple(layer.layer for layer in manifest.layers),
        slots_LGJ=slots_LGJ,
        split=split,
    )


def evaluate(
    topology: Source,
    *,
    plan: str | Path,
    trace: TraceLike | None = None,
    model: Source | None = None,
    options: SolveOptions | None = None,
    routing_draws: int = 0,
) -> dict[str, Any]:
    """Score a plan on a trace, planning and held-out part each.

    Parameters
    ----------
    routing_draws
        Score under this many seeds of ``ecmp_hash`` too (a flow per pair).

    Returns
    -------
    dict
        ``parts`` → part → ``tokens``, ``values`` (objective → layer mode → value),
        ``imbalance`` and ``inter_domain_bytes``; values in seconds, tokens, pairs.

    Raises
    ------
    ManifestError
        If the plan does not fit the topology or the model.
    """
    manifest = read_manifest(plan)
    placed = plan_of(manifest)
    problem = build_problem(
        Sources(
            topology=topology,
            model=model,
            traces=trace_list(trace),
            base=Path.cwd(),
        ),
        options or SolveOptions(),
        slots=placed.slots_LGJ.shape[2],
        groups=[group.gpus for group in manifest.groups.attention],
    )
    instance = problem.instance
    if placed.slots_LGJ.shape[1] != instance.layout.ep:
        raise ManifestError(
            f"holds slots of {placed.slots_LGJ.shape[1]} GPUs, the EP group here has "
            f"{instance.layout.ep}",
            where=str(plan),
            fix="give the topology it was planned for, or --layout ep=N",
        )
    if placed.layer_numbers != instance.model.moe_layers:
        raise ManifestError("has other layers than the model", where=str(plan))
    parts = {"planning": instance.planning, "holdout": instance.holdout}
    return {
        "plan": str(plan),
        "objective": instance.objective.name,
        "layers": instance.objective.layers,
        "traffic": instance.traffic,
        "selection": instance.selection,
        "endpoint": instance.endpoint,
        "routing": problem.routing,
        "homes": problem.homes[0].policy,
        "parts": {
            name: _scores(judge(instance, placed, part))
            | _over_draws(instance, placed, part, routing_draws)
            for name, part in parts.items()
            if part is not None
        },
    }


def _over_draws(
    instance: PlacementInstance, placed: PlacementPlan, part: Part, draws: int
) -> dict[str, Any]:
    """Link time under several seeds of the switches' hash functions."""
    if draws < 1:
        return {}
    mode = instance.objective.layers
    times = [
        float(
            judge(
                replace(instance, routes=build_routes(instance.topology, policy)),
                placed,
                part,
            ).values["link_time"][mode]
        )
        for policy in (f"ecmp_hash({seed})" for seed in range(draws))
    ]
    return {
        "ecmp_hash": {
            "draws": draws,
            "layers": mode,
            "p50_s": float(np.percentile(times, 50)),
            "p99_s": float(np.percentile(times, 99)),
        }
    }


def _scores(evaluation: Evaluation) -> dict[str, Any]:
    summary = evaluation.imbalance
    return {
        "tokens": float(evaluation.tokens),
        "values": {
            name: {mode: float(value) for mode, value in modes.items()}
            for name, modes in evaluation.values.items()
        },
        "imbalance": {
            "mean": summary.mean,
            "worst": summary.worst,
            "domain_mean": summary.domain_mean,
            "domain_worst": summary.domain_worst,
        },
        "inter_domain_bytes": float(evaluation.inter_domain_bytes),
    }
