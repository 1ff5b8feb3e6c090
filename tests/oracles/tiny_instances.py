"""Placement instances from the brute force's cases, and back from a plan."""

from typing import Any

import numpy as np

from planner.instance import Caps, Objective, PlacementInstance, Workload
from planner.layout import ParallelLayout
from planner.topology.paths import build_routes
from planner.topology.schema import load_topology
from planner.workload.model_spec import Attention, MoEModelSpec
from planner.workload.parts import CountsPart, Part
from tests.oracles.brute_force import EXPERT_BYTES, RESERVED_BYTES, Case

WORKLOAD = ("traffic", "endpoint", "message_bytes", "planning", "holdout")


def tiny_model(experts: int, layers: int = 1, top_k: int = 1) -> MoEModelSpec:
    """Return a model of which only the MoE shape matters."""
    return MoEModelSpec(
        name="tiny",
        layers=layers,
        moe_layers=tuple(range(layers)),
        experts=experts,
        top_k=top_k,
        hidden=16,
        expert_ffn=16,
        shared_ffn=0,
        dense_ffn=0,
        ffn_matrices=3,
        attention=Attention(heads=1, kv_heads=1, head_dim=16),
        vocab=16,
    )


def instance_of(case: Case, **changes: Any) -> PlacementInstance:
    """Return the case as an instance; ``changes`` replace its fields."""
    part = CountsPart(tokens_LE=np.asarray([case.counts], dtype=np.int64), top_k=1)
    values: dict[str, Any] = {
        "objective": Objective(name=case.objective),
        "message_bytes": case.message_bytes,
        "memory_limit_G": np.asarray(case.memory, dtype=np.int64),
    }
    return tiny_instance(
        case.topology, part, experts=len(case.counts), slots=case.slots,
        **(values | changes),
    )  # fmt: skip


def tiny_instance(
    topology: Any, part: Part, *, experts: int, slots: int, **changes: Any
) -> PlacementInstance:
    """Return an instance of ``copies`` under ``weighted`` on a small cluster."""
    cluster = load_topology(topology)
    gpus = cluster.gpu_count
    layers = (
        part.tokens_LE if isinstance(part, CountsPart) else part.experts_LTK
    ).shape[0]
    need = slots * EXPERT_BYTES + RESERVED_BYTES
    values: dict[str, Any] = {
        "topology": cluster,
        "routes": build_routes(cluster),
        "model": tiny_model(experts, layers),
        "layout": ParallelLayout(
            domain_G=cluster.domain_G,
            ep=gpus,
            attention_groups=tuple((gpu,) for gpu in range(gpus)),
        ),
        "traffic": "copies",
        "selection": "weighted",
        "endpoint": "local_nic",
        "objective": Objective(),
        "caps": Caps(),
        "slots_per_gpu": slots,
        "message_bytes": (1, 2),
        "planning": part,
        "holdout": None,
        "memory_bytes_G": np.full(gpus, need, dtype=np.int64),
        "memory_limit_G": np.full(gpus, need, dtype=np.int64),
    }
    values |= changes
    workload = Workload(**{name: values.pop(name) for name in WORKLOAD})
    return PlacementInstance(workloads=(workload,), **values)


def placement_of_plan(slots_GJ: Any) -> tuple[tuple[int, ...], ...]:
    """Return the experts of every GPU."""
    return tuple(tuple(int(expert) for expert in held) for held in slots_GJ)
