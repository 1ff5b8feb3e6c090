"""Memory by hand: every term of design §5 on sizes that fit in the head."""

from fractions import Fraction

import networkx as nx
import numpy as np
import pytest

from planner.layout import ParallelLayout
from planner.topology.graph import ClusterTopology, Gpu
from planner.witness.memory import (
    buffer_bytes,
    cache_bytes,
    expert_bytes,
    memory_of_gpus,
    projections,
    weights,
)
from planner.workload.model_spec import Attention, MoEModelSpec

GROUPED = Attention(heads=4, kv_heads=2, head_dim=8)
LATENT = Attention(
    heads=4, kv_heads=4, head_dim=8, kv_lora_rank=16, rope_head_dim=3, v_head_dim=5
)


def model(**changes: object) -> MoEModelSpec:
    """Three layers, one dense; hidden 10."""
    given = {
        "name": "m",
        "layers": 3,
        "moe_layers": (1, 2),
        "experts": 6,
        "top_k": 2,
        "hidden": 10,
        "expert_ffn": 7,
        "shared_ffn": 3,
        "dense_ffn": 11,
        "ffn_matrices": 3,
        "attention": GROUPED,
        "vocab": 100,
        "precision": "bf16",
        **changes,
    }
    return MoEModelSpec(**given)


def cluster(memory: int, reserved: list[int]) -> ClusterTopology:
    """GPUs in two domains."""
    gpus = tuple(
        Gpu(id=f"g{i}", host="h", memory_bytes=memory, reserved_bytes=r, profile="p")
        for i, r in enumerate(reserved)
    )
    domains = np.arange(len(gpus)) * 2 // len(gpus)
    return ClusterTopology(
        name="t", graph=nx.DiGraph(), gpus=gpus, links=(), domain_G=domains
    )


def needs(topology: ClusterTopology, spec: MoEModelSpec, **changes: object):
    """Needs and limits with one DP rank per GPU."""
    count = topology.gpu_count
    layout = ParallelLayout(
        domain_G=topology.domain_G,
        ep=count,
        attention_groups=tuple((gpu,) for gpu in range(count)),
    )
    given = {
        "slots_per_layer": [2, 2],
        "traffic": "dedup_domain",
        "message": (100, 200),
        "batch_tokens": 5,
        "kv_tokens": 9,
        "mem_fraction": None,
        **changes,
    }
    return memory_of_gpus(spec, topology, layout, **given)


def test_grouped_query_attention_by_hand() -> None:
    """q and o: 10 x 4 heads x 8; k and v: 10 x 2 heads x 8."""
    assert projections(GROUPED, 10, 1) == {"q": 320, "k": 160, "v": 160, "o": 320}
    assert projections(GROUPED, 10, 3) == {"q": 160, "k": 80, "v": 80, "o": 160}


def test_latent_attention_by_hand() -> None:
    """Head of 8 + 3 for q, 8 for k, 5 for v; latents of 16 + 3 are shared."""
    assert projections(LATENT, 10, 2) == {
        "q": 10 * 2 * 11,
        "kv_down": 10 * 19,
        "k_up": 16 * 2 * 8,
        "v_up": 16 * 2 * 5,
        "o": 2 * 5 * 10,
    }


def test_a_query_latent_replaces_the_query_projection() -> None:
    """DeepSeek-V3 style: down to 6, up to heads."""
    at = Attention(
        heads=4,
        kv_heads=4,
        head_dim=8,
        q_lora_rank=6,
        kv_lora_rank=16,
        rope_head_dim=3,
        v_head_dim=5,
    )
    found = projections(at, 10, 1)
    assert (found["q_down"], found["q_up"]) == (60, 6 * 4 * 11)
    assert "q" not in found


def test_weights_by_hand() -> None:
    """bf16, attention group of two: widths are shared out and rounded up."""
    assert weights(model(), 2) == {
        "attention": 3 * (10 * 16 + 2 * 10 * 8 + 160) * 2,
        "dense": 1 * 3 * 10 * 6 * 2,
        "shared": 2 * 3 * 10 * 3 * 2,
        "router": 2 * 6 * 11 * 2,
        "norms": (3 * 20 + 10) * 2,
        "embeddings": 2 * 1000 * 2,
    }


def test_fp8_keeps_router_norms_embeddings_and_cache_at_two_bytes() -> None:
    """No engine narrows these unasked."""
    wide, narrow = weights(model(), 1), weights(model(precision="fp8"), 1)
    for name in ("router", "norms", "embeddings"):
        assert narrow[name] == wide[name]
    for name in ("attention", "dense", "shared"):
        assert 2 * narrow[name] == wide[name]
    assert cache_bytes(model(precision="fp8"), 1) == cache_bytes(model(), 1)
    assert 2 * expert_bytes(model(precision="fp8")) == expert_bytes(model()) == 420


def test_tied_embeddings_are_one_table() -> None:
    """One vocabulary table."""
    assert weights(model(tied_embeddings=True), 1)["embeddings"] == 2000


def test_the_cache_of_a_token_by_hand() -> None:
    """Grouped: K and V of 2 heads of 8; latent: 16 + 3, whole on every GPU."""
    assert cache_bytes(model(), 1) == 3 * 2 * 2 * 8 * 2
    assert cache_bytes(model(), 2) == 3 * 2 * 1 * 8 * 2
    assert cache_bytes(model(attention=LATENT), 4) == 3 * 19 * 2


def test_buffers_by_hand() -> None:
    """2·5·2·(100 + 200); low latency: 2·(max(500, 8000) + 8000)."""
    assert buffer_bytes("dedup_domain", 5, 2, 8, (100, 200)) == 6000
    assert buffer_bytes("dedup_gpu", 5, 2, 8, (100, 200)) == 6000
    assert buffer_bytes("copies", 5, 2, 8, (100, 200)) == 2 * (8000 + 8000)


def test_low_latency_buffers_are_those_published_for_deepseek_v3() -> None:
    """128 tokens, 288 physical experts, slots of 14560 bytes: 2.1 GB."""
    published = buffer_bytes("copies", 128, 1, 288, (7408, 14560))
    assert published == 2 * 2 * 288 * 128 * 14560
    assert round(published / 1e9, 1) == 2.1


def test_everything_adds_up_on_every_gpu() -> None:
    """Reserved bytes differ, the rest is alike; slots of both layers count."""
    found, limit = needs(cluster(10**6, [0, 7]), model())
    rest = sum(weights(model(), 1).values()) + 4 * 420 + 6000 + 9 * 192
    assert found.tolist() == [rest, rest + 7]
    assert limit.tolist() == [10**6, 10**6]


def test_without_a_number_the_cache_is_the_usual_one() -> None:
    """65,536 tokens per DP rank."""
    some, _ = needs(cluster(10**9, [0, 0]), model())
    usual, _ = needs(cluster(10**9, [0, 0]), model(), kv_tokens=None)
    assert (usual - some).tolist() == [(65536 - 9) * 192] * 2


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_memory_fraction_fills_the_fullest_gpu_with_cache(share: float) -> None:
    """The cache takes whole tokens of what is left, on all GPUs alike."""
    found, limit = needs(
        cluster(100_000, [0, 1000]), model(), kv_tokens=None, mem_fraction=share
    )
    assert limit.tolist() == [int(100_000 * Fraction(str(share)))] * 2
    assert 0 <= limit[1] - found[1] < 192
    assert found[1] - found[0] == 1000


def test_a_fraction_that_leaves_nothing_still_asks_for_one_token() -> None:
    """So that a plan that cannot serve is seen not to fit."""
    found, limit = needs(
        cluster(8000, [0, 0]), model(), kv_tokens=None, mem_fraction=0.5
    )
    assert (found > limit).all()


def test_a_gpu_in_no_attention_group_holds_experts_and_buffers_only() -> None:
    """Four GPUs, the first and third attend as one group of two."""
    topology = cluster(10**9, [7, 7, 7, 7])
    layout = ParallelLayout(
        domain_G=np.zeros(4, dtype=np.int64), ep=4, attention_groups=((0, 2),)
    )
    needs_G, _ = memory_of_gpus(
        model(),
        topology,
        layout,
        slots_per_layer=[2, 2],
        traffic="dedup_domain",
        message=(100, 200),
        batch_tokens=5,
        kv_tokens=9,
        mem_fraction=None,
    )
    experts = 7 + 4 * expert_bytes(model()) + 2 * 5 * 2 * 300
    own = sum(weights(model(), 2).values()) + 9 * cache_bytes(model(), 2)
    assert needs_G.tolist() == [experts + own, experts, experts + own, experts]
