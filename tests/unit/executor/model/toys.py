"""Decoders of every attention kind at toy size, and texts for them."""

from typing import Any

import numpy as np

from planner.executor.gating.gate import Gate
from planner.executor.model.config import (
    AttentionDims,
    DecoderConfig,
    GroupedDims,
    LatentDims,
)

KINDS: dict[str, AttentionDims] = {
    "multi-head": GroupedDims(heads=4, kv_heads=4, head_dim=8),
    "grouped": GroupedDims(heads=6, kv_heads=2, head_dim=6),
    "multi-query": GroupedDims(heads=3, kv_heads=1, head_dim=4),
    "latent": LatentDims(
        heads=3, kv_lora_rank=10, rope_head_dim=4, head_dim=6, v_head_dim=5
    ),
    "latent with query rank": LatentDims(
        heads=2,
        q_lora_rank=7,
        kv_lora_rank=8,
        rope_head_dim=6,
        head_dim=3,
        v_head_dim=4,
    ),
}


def config_of(attention: AttentionDims, **changes: Any) -> DecoderConfig:
    """A small decoder with one dense layer."""
    dims: dict[str, Any] = {
        "vocab": 50, "context": 64, "hidden": 32, "layers": 3, "dense_layers": 1,
        "gate": Gate(experts=8, top_k=2), "expert_ffn": 8, "shared_ffn": 8,
        "dense_ffn": 16,
    }  # fmt: skip
    return DecoderConfig(attention=attention, **{**dims, **changes})


def left_padded(lengths: list[int], rng: np.random.Generator) -> tuple[Any, Any]:
    """Random texts of these lengths, padded on the left: ids and mask, [B, S]."""
    width = max(lengths)
    tokens = rng.integers(50, size=(len(lengths), width))
    return tokens, np.arange(width) >= width - np.array(lengths)[:, None]
