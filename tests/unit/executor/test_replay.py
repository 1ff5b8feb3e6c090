"""The replay as a whole: back ends agree, links follow, mistakes are noticed."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.bundled import topology_path
from planner.errors import ReplayMismatch, UsageError, VerificationError
from planner.executor import replay as facade
from planner.executor.replay import replay
from planner.executor.result import Moved
from planner.plan import PlacementPlan
from planner.topology.paths import Routes, build_routes
from planner.topology.schema import load_topology
from planner.workload.model_spec import Attention, MoEModelSpec
from tests.unit.executor.placed import (
    layout_of,
    part_of,
    random_experts,
    random_slots,
)

EXPERTS, TOP_K, LAYERS = 8, 3, 2
SPEC = MoEModelSpec(
    name="small",
    layers=3,
    moe_layers=(1, 2),
    experts=EXPERTS,
    top_k=TOP_K,
    hidden=16,
    expert_ffn=4,
    shared_ffn=8,
    dense_ffn=12,
    ffn_matrices=3,
    attention=Attention(heads=2, kv_heads=2, head_dim=8),
    vocab=50,
    precision="fp16",
)


@pytest.fixture(scope="module")
def routes() -> Routes:
    return build_routes(load_topology(str(topology_path("toy-2x2"))))


@pytest.fixture
def job(routes: Routes) -> dict[str, Any]:
    """Everything a replay needs, on the four GPUs of ``toy-2x2``."""
    rng = np.random.default_rng(3)
    domains = routes.topology.domain_G.tolist()
    slots = np.stack([random_slots(EXPERTS, 4, 4, rng) for _ in range(LAYERS)])
    plan = PlacementPlan(
        layer_numbers=(1, 2),
        slots_LGJ=slots,
        split={(1, e): {"*": (1,) * int((slots[1] == e).sum())} for e in range(4)},
    )
    return {
        "plan": plan,
        "part": part_of(random_experts(LAYERS, 90, TOP_K, EXPERTS, rng), 4, rng),
        "layout": layout_of(domains),
        "model_spec": SPEC,
        "traffic": "dedup_domain",
        "selection": "weighted",
        "endpoint": "dest_forward",
        "message_bytes": (112, 32),
        "routes": routes,
    }


def links_by_hand(transfers: Any, routes: Routes) -> list[Fraction]:
    """Loads of all links, transfer by transfer."""
    loads = [Fraction(0)] * len(routes.topology.links)
    for source, target in np.argwhere(transfers).tolist():
        for link, share in zip(*routes.pair(source, target), strict=True):
            amount = int(transfers[source, target])
            loads[link] += Fraction(amount * int(share), routes.q)
    return loads


def test_the_counter_needs_no_torch() -> None:
    """Law: counting works where torch is not installed."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import planner.executor.replay, planner.executor.counter"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu", "dedup_domain"])
def test_link_loads_are_those_of_the_routes(job: dict[str, Any], traffic: str) -> None:
    """Law: each leg's transfers load the links of their own direction."""
    result = replay("counter", "forced", **{**job, "traffic": traffic})
    assert result.transfers_L2GG[0].sum() > 0
    for layer in range(LAYERS):
        for leg in range(2):
            transfers = result.transfers_L2GG[leg][layer]
            found = result.numerators_L2A[layer, leg].tolist()
            wanted = links_by_hand(transfers, job["routes"])
            assert [Fraction(load, result.q) for load in found] == wanted
            size = job["message_bytes"][leg]
            found = result.byte_numerators_L2A[layer, leg].tolist()
            assert [Fraction(load, result.q) for load in found] == [
                size * load for load in wanted
            ]


@pytest.mark.torch
@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu", "dedup_domain", "direct"])
@pytest.mark.parametrize("selection", ["nearest", "even", "weighted"])
def test_tensors_move_as_the_counter_counts(
    job: dict[str, Any], traffic: str, selection: str
) -> None:
    """Law: two back ends, one count; and forced outputs are the unsharded ones."""
    pytest.importorskip("torch")
    endpoint = "local_nic" if traffic == "direct" else "dest_forward"
    job |= {"traffic": traffic, "selection": selection, "endpoint": endpoint}
    counted = replay("counter", "forced", **job)
    moved = replay("local", "forced", **job)
    for name in ("dispatch_LGG", "combine_LGG", "gpu_pairs_LG", "slot_bytes_G"):
        assert np.array_equal(getattr(moved.moved, name), getattr(counted.moved, name))
    assert np.array_equal(moved.numerators_L2A, counted.numerators_L2A)
    assert counted.max_relative_error is None
    assert moved.max_relative_error is not None
    assert 0 < moved.max_relative_error <= 1e-5


def test_slots_are_paid_at_the_size_of_the_model(job: dict[str, Any]) -> None:
    """Law: slot memory = slots held, over all layers, times one expert's bytes."""
    result = replay("counter", "forced", **job)
    held = [(job["plan"].slots_LGJ[:, gpu] >= 0).sum() for gpu in range(4)]
    assert result.moved.slot_bytes_G.tolist() == [n * 3 * 16 * 4 * 2 for n in held]


@pytest.mark.torch
def test_forced_replay_repeats_by_seed(job: dict[str, Any]) -> None:
    """Law: the same seed gives the same outputs, another seed others."""
    pytest.importorskip("torch")
    errors = [
        replay("local", "forced", **job, seed=seed).moved.outputs for seed in (5, 5, 6)
    ]
    values = [e.error_L.tolist() for e in errors if e is not None]
    assert values[0] == values[1] != values[2]


def test_an_expert_without_a_slot_fails(job: dict[str, Any]) -> None:
    """Law: a plan that does not cover an expert cannot be replayed."""
    slots = job["plan"].slots_LGJ.copy()
    slots[0][slots[0] == 2] = -1
    job["plan"] = replace(job["plan"], slots_LGJ=slots)
    with pytest.raises(VerificationError, match="expert 2"):
        replay("counter", "forced", **job)


def test_one_slot_changed_changes_the_count(job: dict[str, Any]) -> None:
    """Law: the count belongs to the plan, slot by slot."""
    before = replay("counter", "forced", **job)
    slots = job["plan"].slots_LGJ.copy()
    first, second = slots[0, 0, 0], slots[0, 3, 0]
    slots[0, 0, 0], slots[0, 3, 0] = second, first
    job |= {"plan": replace(job["plan"], slots_LGJ=slots), "selection": "even"}
    after = replay("counter", "forced", **job)
    assert not np.array_equal(before.moved.dispatch_LGG, after.moved.dispatch_LGG)


def test_legs_that_do_not_mirror_each_other_fail(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: every dispatch transfer comes back."""
    honest = facade.count

    def forgetful(*args: Any, **options: Any) -> Moved:
        moved = honest(*args, **options)
        combine = moved.combine_LGG.copy()
        combine[1, 2, 0] += 1
        return replace(moved, combine_LGG=combine)

    monkeypatch.setattr(facade, "count", forgetful)
    with pytest.raises(ReplayMismatch, match=r"layer 1: .* from GPU 2 to 0"):
        replay("counter", "forced", **job)


@pytest.mark.parametrize(
    ("backend", "gating"), [("counter", "real"), ("mpi", "forced"), ("local", "none")]
)
def test_combinations_that_do_not_exist_are_refused(
    job: dict[str, Any], backend: str, gating: str
) -> None:
    """Law: no silent fallback to another back end or gating."""
    with pytest.raises(UsageError):
        replay(backend, gating, **job)


@pytest.mark.torch
def test_real_gating_needs_the_text(job: dict[str, Any]) -> None:
    """Law: without weights and text there is nothing to route."""
    pytest.importorskip("torch")
    with pytest.raises(UsageError, match="token_id"):
        replay("local", "real", **job, weights=Path("model.npz"))
