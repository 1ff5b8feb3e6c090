"""One expert per GPU altogether: from the facade to the verifier and the replay."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planner
from planner.errors import InfeasibleError, ManifestError, UsageError, VerificationError
from planner.manifest import Manifest, write_manifest
from planner.options import SolveOptions
from planner.pipeline.solving import solve
from planner.verifier import verify_manifest
from planner.workload.trace_writer import write_trace
from tests.instances import cluster

MODEL = {
    "schema": "moe-model/1",
    "name": "two-by-four",
    "layers": 2,
    "moe_layers": [0, 1],
    "experts": 4,
    "top_k": 2,
    "hidden": 128,
    "expert_ffn": 64,
    "vocab": 100,
    "attention": {"heads": 2, "kv_heads": 2, "head_dim": 64},
}


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trace of 400 tokens, best expert first."""
    path = tmp_path_factory.mktemp("single") / "walks.parquet"
    rng = np.random.default_rng(0)
    write_trace(
        path,
        metadata={"num_experts": 4, "top_k": 2, "order": "router"},
        seq_id=np.arange(400) // 10,
        pos=np.arange(400) % 10,
        tag="walks",
        phase="prefill",
        experts={
            layer: rng.permuted(np.tile(np.arange(4), (400, 1)), axis=1)[:, :2]
            for layer in (0, 1)
        },
    )
    return path


def planned(trace: Path, options: SolveOptions, gpus: int = 8) -> Manifest:
    """Plan on hosts of two GPUs."""
    hosts = cluster([2] * (gpus // 2))
    return solve(hosts, model=MODEL, trace=trace, options=options, base=trace.parent)


@pytest.fixture(scope="module", params=["direct", "copies"])
def plan(request: pytest.FixtureRequest, trace: Path) -> Manifest:
    """Return a plan of either traffic on ten GPUs: two stay empty."""
    options = SolveOptions(
        traffic=request.param,
        policy="one_expert_per_gpu_total",
        time_limit=2.0,
        kv_tokens=10,
        batch_tokens=10,
    )
    return planned(trace, options, gpus=10)


def test_every_gpu_holds_one_expert_at_most(plan: Manifest) -> None:
    """Law: over all layers together, and every expert somewhere."""
    held = [sum(len(layer.slots[gpu]) for layer in plan.layers) for gpu in range(10)]
    assert sorted(held) == [0, 0] + [1] * 8
    for layer in plan.layers:
        assert sorted(e for row in layer.slots for e in row) == [0, 1, 2, 3]


def test_it_is_verified_and_replayed(plan: Manifest, trace: Path) -> None:
    """Law: predicted = counted = moved, bound certified."""
    path = trace.parent / "plan.json"
    write_manifest(plan, path)
    assert planner.verify(path).comparisons > 0
    assert planner.replay(path).parts
    assert plan.bound is not None
    assert plan.bound.certified_exact is not None
    assert plan.baselines["eplb_global"].reason is not None


@pytest.fixture(scope="module")
def by_ports(trace: Path) -> dict[str, Any]:
    """Return a manifest whose bound is that of all layers' ports at once."""
    options = SolveOptions(
        traffic="direct",
        policy="one_expert_per_gpu_total",
        time_limit=1.0,
        kv_tokens=10,
        batch_tokens=10,
    )
    data = planned(trace, options).model_dump(mode="json", by_alias=True)
    verify_manifest(data, folder=trace.parent)
    return data


@pytest.mark.parametrize(
    "change",
    [
        {"unit": 1},
        {"seats": [[0] * 4] * 2, "triangles": []},
        {"layers": [{}, {}]},
    ],
)
def test_a_tampered_proof_by_ports_is_refused(
    by_ports: dict[str, Any], trace: Path, change: dict[str, Any]
) -> None:
    """Law: what the multipliers of all layers prove is worked out again; exit 6."""
    data = deepcopy(by_ports)
    data["bound"]["certificate"]["chain"].update(change)
    with pytest.raises(VerificationError, match="certified_exact") as refused:
        verify_manifest(data, folder=trace.parent)
    assert refused.value.exit_code == 6


def test_a_proof_by_ports_of_another_shape_is_refused(
    by_ports: dict[str, Any], trace: Path
) -> None:
    """Law: one error that names the place."""
    data = deepcopy(by_ports)
    data["bound"]["certificate"]["chain"] = {"unit": 4}
    with pytest.raises(ManifestError, match="/bound/certificate/chain"):
        verify_manifest(data, folder=trace.parent)


def test_a_second_expert_on_a_gpu_is_found(plan: Manifest, trace: Path) -> None:
    """Law: the policy binds over layers."""
    data: dict[str, Any] = plan.model_dump(mode="json", by_alias=True)
    slots = data["layers"][1]["slots"]
    here = next(gpu for gpu, row in enumerate(slots) if row)
    there = next(gpu for gpu, row in enumerate(data["layers"][0]["slots"]) if row)
    slots[here], slots[there] = slots[there], slots[here]
    with pytest.raises(VerificationError, match="holds 2 experts of all layers"):
        verify_manifest(data, folder=trace.parent)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"traffic": "dedup_gpu", "strategy": "flow"}, "--traffic dedup_gpu"),
        ({"objective": "gpu_tokens"}, "--objective gpu_tokens"),
        ({"strategy": "search"}, "--strategy search"),
        ({"layout": "ep=4"}, "all 8 GPUs are one EP set"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    trace: Path, changes: dict[str, str], match: str
) -> None:
    """Law: one clear error that names what it does not go with."""
    given = {
        "traffic": "direct",
        "policy": "one_expert_per_gpu_total",
        "kv_tokens": 10,
        "batch_tokens": 10,
        **changes,
    }
    with pytest.raises(UsageError, match=match):
        planned(trace, SolveOptions(**given))


def test_too_few_gpus_are_infeasible(trace: Path) -> None:
    """Law: the error says how many are needed."""
    with pytest.raises(InfeasibleError, match="8 experts of all layers and has 6"):
        planned(trace, SolveOptions(policy="one_expert_per_gpu_total"), gpus=6)
