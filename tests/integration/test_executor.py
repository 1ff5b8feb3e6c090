"""The executor on the bundled model's text and on a trace of a real model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner import bundled
from planner.executor.replay import replay
from planner.executor.result import OUTPUT_TOLERANCE, ReplayResult
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan
from planner.topology.paths import Routes, build_routes
from planner.topology.schema import load_topology
from planner.workload.parts import TokenPart
from planner.workload.presets import load_model
from planner.workload.trace import RoutingTrace, load_trace

pytest.importorskip("torch")
pytestmark = pytest.mark.torch
WAYS = [
    ("copies", "local_nic", "nearest"),
    ("copies", "dest_forward", "weighted"),
    ("dedup_gpu", "local_nic", "even"),
    ("dedup_gpu", "local_nic", "weighted"),
    ("dedup_domain", "dest_forward", "nearest"),
    ("dedup_domain", "dest_forward", "even"),
    ("direct", "local_nic", "nearest"),
    ("direct", "local_nic", "even"),
    ("direct", "local_nic", "weighted"),
]


def routes_of(name: str) -> Routes:
    return build_routes(load_topology(str(bundled.topology_path(name))))


def job(trace: RoutingTrace, rows: int, layers: int, routes: Routes) -> dict[str, Any]:
    """A random plan with a redundant slot per GPU, for the first rows and layers."""
    rng = np.random.default_rng(0)
    gpus = routes.topology.gpu_count
    own = -(-trace.num_experts // gpus)
    slots = np.full((layers, gpus, own + 1), -1, dtype=np.int16)
    for layer in range(layers):
        order = rng.permutation(gpus * own).reshape(gpus, own)
        slots[layer, :, :own] = np.where(order < trace.num_experts, order, -1)
        for gpu in range(gpus):
            others = np.setdiff1d(np.arange(trace.num_experts), slots[layer, gpu])
            slots[layer, gpu, own] = rng.choice(others)
    numbers = trace.layer_numbers[:layers]
    source = np.arange(rows) % gpus
    split = {
        (0, e): {"*": tuple(range(1, 1 + int((slots[0] == e).sum())))} for e in range(9)
    }
    return {
        "plan": PlacementPlan(layer_numbers=numbers, slots_LGJ=slots, split=split),
        "part": TokenPart(
            experts_LTK=trace.experts_LTK[:layers, :rows],
            source_T=source,
            rank_T=source,
            ordinal_T=np.arange(rows) // gpus,
            row_T=np.arange(rows),
        ),
        "layout": ParallelLayout(
            domain_G=routes.topology.domain_G,
            ep=gpus,
            attention_groups=tuple((gpu,) for gpu in range(gpus)),
        ),
        "message_bytes": (3, 2),
        "routes": routes,
    }


def assert_same(moved: ReplayResult, counted: ReplayResult) -> None:
    """Law: what moved is what was counted, per GPU pair and per link."""
    for name in ("dispatch_LGG", "combine_LGG", "gpu_pairs_LG", "slot_bytes_G"):
        assert np.array_equal(getattr(moved.moved, name), getattr(counted.moved, name))
    assert np.array_equal(moved.numerators_L2A, counted.numerators_L2A)
    assert moved.max_relative_error is not None
    assert moved.max_relative_error <= OUTPUT_TOLERANCE


@pytest.fixture(scope="module")
def text() -> RoutingTrace:
    trace = load_trace(bundled.tiny_moe_trace())
    assert isinstance(trace, RoutingTrace)
    return trace


@pytest.mark.parametrize("topology", ["toy-2x2", "h100-4x8-rail"])
@pytest.mark.parametrize(("traffic", "endpoint", "selection"), WAYS)
def test_the_bundled_model_routes_and_moves_as_recorded(
    text: RoutingTrace, topology: str, traffic: str, endpoint: str, selection: str
) -> None:
    """Law: real gating chooses what the trace says, and placing it is invisible."""
    assert text.token_id_T is not None
    ends = np.flatnonzero(np.diff(text.sequence_T, append=-1)) + 1
    rows = int(ends[ends <= 2500].max())
    options = {
        **job(text, rows, len(text.layer_numbers), routes_of(topology)),
        "model_spec": load_model("tiny-moe"),
        "traffic": traffic,
        "endpoint": endpoint,
        "selection": selection,
    }
    moved = replay(
        "local",
        "real",
        weights=bundled.tiny_moe_weights(),
        token_ids=text.token_id_T,
        seq_ids=text.sequence_T,
        **options,
    )
    assert moved.ids_agreeing == 1.0
    assert_same(moved, replay("counter", "forced", **options))


@pytest.mark.parametrize(("traffic", "endpoint", "selection"), WAYS[:6])
def test_a_real_trace_is_moved_as_counted(
    shared_data: Path, traffic: str, endpoint: str, selection: str
) -> None:
    """Law: forced routing moves any trace; outputs are the unsharded ones."""
    trace = load_trace(shared_data / "traces" / "deepseek-v2-lite.parquet")
    assert isinstance(trace, RoutingTrace)
    options = {
        **job(trace, 6000, 3, routes_of("h100-4x8-rail")),
        "model_spec": load_model("deepseek-v2-lite"),
        "traffic": traffic,
        "endpoint": endpoint,
        "selection": selection,
    }
    moved = replay("local", "forced", **options)
    assert_same(moved, replay("counter", "forced", **options))


def test_the_preset_is_the_model_of_the_weights() -> None:
    """Law: the planner plans for the very dimensions that the executor runs."""
    card = bundled.tiny_moe_weights().with_suffix(".json")
    dims = json.loads(card.read_text(encoding="utf-8"))["spec"]
    preset = load_model("tiny-moe")
    assert preset.moe_layers == tuple(range(dims["dense_layers"], dims["layers"]))
    assert preset.attention.heads == dims["heads"]
    assert preset.attention.head_dim * dims["heads"] == dims["hidden"]
    for name in ("layers", "experts", "top_k", "hidden", "vocab"):
        assert getattr(preset, name) == dims[name], name
    for name in ("expert_ffn", "shared_ffn", "dense_ffn"):
        assert getattr(preset, name) == dims[name], name
