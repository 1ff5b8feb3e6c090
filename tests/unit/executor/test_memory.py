"""What a model's tensors hold, by term."""

from dataclasses import replace

import pytest

from planner.executor.model.config import GroupedDims, LatentDims
from planner.executor.model.tiny import TinyMoESpec
from planner.workload import memory_terms
from planner.workload.model_spec import Attention, MoEModelSpec

torch = pytest.importorskip("torch")

from planner.executor.memory import held_bytes  # noqa: E402
from planner.executor.model.decoder import Decoder  # noqa: E402

pytestmark = pytest.mark.torch
SMALL = TinyMoESpec(
    vocab=50, context=32, hidden=16, layers=3, heads=2, experts=8, top_k=3,
    expert_ffn=4, shared_ffn=8, dense_ffn=12,
)  # fmt: skip
SPEC = MoEModelSpec(
    name="small", layers=3, moe_layers=(1, 2), experts=8, top_k=3, hidden=16,
    expert_ffn=4, shared_ffn=8, dense_ffn=12, ffn_matrices=3, vocab=50,
    attention=Attention(heads=2, kv_heads=2, head_dim=8), tied_embeddings=True,
    precision="fp32",
)  # fmt: skip


def test_terms_of_a_small_model_by_hand() -> None:
    """By hand, in float32: four bytes a value."""
    assert held_bytes(Decoder(SMALL.config)) == {
        "attention": 4 * 3 * (4 * 16 * 16),
        "dense": 4 * 3 * 16 * 12,
        "shared_experts": 4 * 2 * 3 * 16 * 8,
        "router": 4 * 2 * (16 * 8 + 8),
        "norms": 4 * (2 * 3 + 1) * 16,
        "embeddings": 4 * 50 * 16,
        "kv_cache": 4 * 3 * 2 * 16,
    }


@pytest.mark.parametrize("kind", ["grouped", "latent", "untied"])
def test_plans_promise_what_tensors_hold(kind: str) -> None:
    """Law: the plan's terms and the tensors of the same model are equal."""
    config, spec = SMALL.config, SPEC
    if kind == "grouped":
        config = replace(config, attention=GroupedDims(heads=4, kv_heads=2, head_dim=6))
        spec = replace(spec, attention=Attention(heads=4, kv_heads=2, head_dim=6))
    if kind == "latent":
        sizes = {
            "heads": 2, "q_lora_rank": 5, "kv_lora_rank": 6, "rope_head_dim": 4,
            "head_dim": 8, "v_head_dim": 7,
        }  # fmt: skip
        config = replace(config, attention=LatentDims(**sizes))
        spec = replace(spec, attention=Attention(kv_heads=2, **sizes))
    if kind == "untied":
        config = replace(config, tied=False)
        spec = replace(spec, tied_embeddings=False)
    assert held_bytes(Decoder(config)) == {
        "attention": memory_terms.attention_bytes(spec, 1),
        "dense": memory_terms.dense_bytes(spec, 1),
        "shared_experts": memory_terms.shared_bytes(spec),
        "router": memory_terms.router_bytes(spec),
        "norms": memory_terms.norm_bytes(spec),
        "embeddings": memory_terms.embedding_bytes(spec),
        "kv_cache": memory_terms.kv_token_bytes(spec, 1),
    }
