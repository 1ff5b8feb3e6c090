"""Small placement instances that tests build in one line.

Clusters are written out here, edge by edge, so that a reader can count by hand.
"""

from typing import Any

import numpy as np

from planner.instance import Caps, Objective, PlacementInstance, Workload
from planner.layout import ParallelLayout
from planner.topology.graph import ClusterTopology
from planner.topology.paths import build_routes
from planner.topology.schema import load_topology
from planner.traffic.base import TRAFFIC
from planner.workload.homes import running_index
from planner.workload.model_spec import Attention, MoEModelSpec
from planner.workload.parts import CountsPart, Part, TokenPart


def cluster(
    domains: list[int], *, nvlink: float = 400, nic: list[float] | None = None
) -> dict[str, Any]:
    """Return one host per entry of ``domains`` with that many GPUs.

    Every GPU has a port to its host's NVSwitch and a NIC of its own on one switch;
    ``nic`` gives each host's NIC speed. Efficiencies are 1, so speeds are as given.
    """
    speeds = nic or [50.0] * len(domains)
    nodes: list[dict[str, Any]] = [{"id": "leaf", "kind": "switch", "tier": 0}]
    edges: list[dict[str, Any]] = []

    def join(source: str, target: str, kind: str, gbs: float) -> None:
        edges.append(
            {
                "source": source,
                "target": target,
                "kind": kind,
                "duplex": "full",
                "bandwidth_gbs": gbs,
                "efficiency": 1,
                "latency_us": 1,
            }
        )

    for host, count in enumerate(domains):
        name = f"h{host}"
        nodes.append({"id": f"{name}/nvs", "kind": "nvswitch", "host": name})
        for index in range(count):
            gpu, card = f"{name}/g{index}", f"{name}/n{index}"
            nodes.append(
                {
                    "id": gpu,
                    "kind": "gpu",
                    "host": name,
                    "nvlink_domain": name,
                    "memory_bytes": 10**9,
                }
            )
            nodes.append({"id": card, "kind": "nic", "host": name})
            join(gpu, f"{name}/nvs", "nvlink", nvlink)
            join(gpu, card, "pcie", 64)
            join(card, "leaf", "ib", speeds[host])
    return {
        "schema": "moe-topology/1",
        "directed": True,
        "multigraph": False,
        "graph": {"name": "test-cluster"},
        "nodes": nodes,
        "edges": edges,
    }


def small_model(experts: int) -> dict[str, Any]:
    """Return a document: one MoE layer whose experts take 196,608 bytes each."""
    return {
        "schema": "moe-model/1",
        "name": "small",
        "layers": 1,
        "moe_layers": [0],
        "experts": experts,
        "top_k": 1,
        "hidden": 256,
        "expert_ffn": 128,
        "shared_ffn": 0,
        "dense_ffn": 0,
        "ffn_matrices": 3,
        "attention": {"heads": 2, "kv_heads": 2, "head_dim": 128},
        "vocab": 100,
    }


def model(*, layers: int, experts: int, top_k: int) -> MoEModelSpec:
    """Return a model of which only the MoE shape matters."""
    return MoEModelSpec(
        name="test-model",
        layers=layers,
        moe_layers=tuple(range(layers)),
        experts=experts,
        top_k=top_k,
        hidden=128,
        expert_ffn=64,
        shared_ffn=0,
        dense_ffn=0,
        ffn_matrices=2,
        attention=Attention(heads=2, kv_heads=2, head_dim=64),
        vocab=100,
    )


def token_part(
    *, layers: int, experts: int, top_k: int, tokens: int, gpus: int, seed: int
) -> TokenPart:
    """Return tokens with skewed, correlated choices and a few nulls."""
    rng = np.random.default_rng(seed)
    popularity = rng.lognormal(0, 0.7, experts)
    taste = rng.lognormal(0, 0.8, (4, experts))
    kind_T = rng.integers(0, 4, tokens)
    ids = np.empty((layers, tokens, top_k), dtype=np.int16)
    for layer in range(layers):
        noise = rng.gumbel(size=(tokens, experts))
        score = np.log(popularity * taste[kind_T]) + noise
        ids[layer] = np.argsort(-score, axis=1)[:, :top_k]
    ids[rng.random(ids.shape) < 0.02] = -1
    source_T = rng.integers(0, gpus, tokens)
    return TokenPart(
        experts_LTK=ids,
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=running_index(source_T),
        row_T=np.arange(tokens),
    )


def instance(
    domains: list[int],
    *,
    experts: int,
    slots: int,
    traffic: str = "dedup_domain",
    selection: str = "nearest",
    endpoint: str | None = None,
    objective: str = "link_time",
    layers: int = 1,
    top_k: int = 2,
    tokens: int = 200,
    ep: int | None = None,
    caps: Caps | None = None,
    counts: list[list[int]] | None = None,
    nic: list[float] | None = None,
    nvlink: float = 400,
    seed: int = 0,
) -> PlacementInstance:
    """Return an instance on :func:`cluster` with random tokens, or given counts."""
    topology = load_topology(cluster(domains, nic=nic, nvlink=nvlink))
    gpus = topology.gpu_count
    spec = model(layers=layers, experts=experts, top_k=top_k)
    planning: Part = token_part(
        layers=layers,
        experts=experts,
        top_k=top_k,
        tokens=tokens,
        gpus=gpus,
        seed=seed,
    )
    if counts is not None:
        planning = CountsPart(tokens_LE=np.asarray(counts), top_k=top_k)
    return PlacementInstance(
        topology=topology,
        routes=build_routes(topology),
        model=spec,
        layout=ParallelLayout(
            domain_G=topology.domain_G,
            ep=ep or gpus,
            attention_groups=tuple((gpu,) for gpu in range(gpus)),
        ),
        selection=selection,
        objective=Objective(name=objective),
        caps=caps or Caps(),
        slots_per_gpu=slots,
        workloads=(
            Workload(
                traffic=traffic,
                endpoint=endpoint or TRAFFIC.get(traffic).endpoints[0],
                message_bytes=(100, 200),
                planning=planning,
                holdout=None,
            ),
        ),
        memory_bytes_G=np.zeros(gpus, dtype=np.int64),
        memory_limit_G=np.full(gpus, 10**9),
    )


def placed_on(
    topology: ClusterTopology,
    spec: MoEModelSpec,
    part: TokenPart,
    *,
    slots: int,
    traffic: str,
    selection: str,
) -> PlacementInstance:
    """Return an instance of given tokens, one DP rank per GPU and one EP set."""
    gpus = topology.gpu_count
    return PlacementInstance(
        topology=topology,
        routes=build_routes(topology),
        model=spec,
        layout=ParallelLayout(
            domain_G=topology.domain_G,
            ep=gpus,
            attention_groups=tuple((gpu,) for gpu in range(gpus)),
        ),
        selection=selection,
        objective=Objective(),
        caps=Caps(),
        slots_per_gpu=slots,
        workloads=(
            Workload(
                traffic=traffic,
                endpoint=TRAFFIC.get(traffic).endpoints[0],
                message_bytes=(3, 2),
                planning=part,
                holdout=None,
            ),
        ),
        memory_bytes_G=np.zeros(gpus, dtype=np.int64),
        memory_limit_G=np.full(gpus, 10**9),
    )
