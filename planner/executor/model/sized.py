"""A model that the planner knows, as a decoder of a size that runs anywhere."""

from collections.abc import Mapping
from typing import Any

from planner.errors import ModelError
from planner.executor.gating.gate import Gate
from planner.executor.model.config import (
    AttentionDims,
    DecoderConfig,
    GroupedDims,
    LatentDims,
)
from planner.workload.model_spec import Attention, MoEModelSpec

MOST_HEADS = 4

_DEEPSEEK_V3: dict[str, Any] = {
    "scores": "sigmoid",
    "kept_groups": 4,
    "group_score": "best_two",
    "scale": 2.5,
}
_GATES: Mapping[str, Mapping[str, Any]] = {
    "tiny-moe": {"scores": "sigmoid"},
    "deepseek-v2-lite": {"normalise": False},
    "deepseek-v3": _DEEPSEEK_V3,
    "deepseek-r1": _DEEPSEEK_V3,
    "paper-61x256": _DEEPSEEK_V3,
    "mixtral-8x7b": {"scores": "softmax_of_chosen"},
    "toy-moe-64e-grouped": {**_DEEPSEEK_V3, "kept_groups": 3, "scale": 1.0},
}
"""What the models' published configs say beyond softmax over all experts: scores,
groups kept, whether gates are normalised, ``routed_scaling_factor``."""


def gate_of(spec: MoEModelSpec) -> Gate:
    """Return how a model's router chooses.

    A model that is not known by name gets normalised softmax scores, and all of its
    groups are within reach.
    """
    groups = {"groups": spec.routing_groups, "kept_groups": spec.routing_groups}
    known = _GATES.get(spec.name, {})
    return Gate(experts=spec.experts, top_k=spec.top_k, **{**groups, **known})


def decoder_config(
    spec: MoEModelSpec,
    *,
    hidden: int = 64,
    layers: int | None = None,
    vocab: int = 256,
    context: int = 256,
    unrouted_ids: tuple[int, ...] = (),
) -> DecoderConfig:
    """Return a model's decoder at another size.

    Its kinds stay: attention, gate, activation, dense first layers, shared experts,
    number of experts, experts per token, tied embeddings. Widths go down in
    proportion to ``hidden``; heads go down to ``MOST_HEADS`` (and widths per head up
    for it), with as many query heads per head of keys and values as before. At the
    model's own ``hidden``, every width and head is the model's own.

    Parameters
    ----------
    layers
        All layers, dense ones included; None: the model's.
    vocab, context
        Size of the vocabulary and most tokens of a sequence.
    unrouted_ids
        Token ids that no routed expert sees.

    Raises
    ------
    ModelError
        If dense layers are not the first, or a size is out of range.
    """
    dense = spec.layers - len(spec.moe_layers)
    if spec.moe_layers != tuple(range(dense, spec.layers)):
        raise ModelError(
            "must be the last layers of the model", where=f"{spec.name}: moe_layers"
        )
    if type(hidden) is not int or hidden < 1:
        raise ModelError("must be an integer >= 1", where="hidden", value=hidden)
    if spec.ffn_matrices not in (2, 3):
        raise ModelError(
            "must be 2 (GELU) or 3 (SwiGLU)",
            where=f"{spec.name}: ffn_matrices",
            value=spec.ffn_matrices,
        )
    layers = spec.layers if layers is None else layers
    return DecoderConfig(
        vocab=vocab,
        context=context,
        hidden=hidden,
        layers=layers,
        dense_layers=min(dense, layers),
        expert_ffn=_scaled(spec.expert_ffn, hidden, spec.hidden),
        shared_ffn=_scaled(spec.shared_ffn, hidden, spec.hidden),
        dense_ffn=_scaled(spec.dense_ffn, hidden, spec.hidden),
        attention=_attention(spec.attention, hidden, spec.hidden),
        gate=gate_of(spec),
        activation="swiglu" if spec.ffn_matrices == 3 else "gelu",
        tied=spec.tied_embeddings,
        unrouted_ids=unrouted_ids,
    )


def _attention(dims: Attention, hidden: int, full: int) -> AttentionDims:
    """Return a model's attention at another hidden size."""
    group = dims.heads // dims.kv_heads
    most = dims.kv_heads if hidden == full else max(1, MOST_HEADS // group)
    kv_heads = min(dims.kv_heads, most)
    wide, narrow = dims.kv_heads * hidden, kv_heads * full
    head_dim = _scaled(dims.head_dim, wide, narrow)
    if not dims.kv_lora_rank:
        return GroupedDims(heads=kv_heads * group, kv_heads=kv_heads, head_dim=head_dim)
    return LatentDims(
        heads=kv_heads * group,
        q_lora_rank=_scaled(dims.q_lora_rank, hidden, full),
        kv_lora_rank=_scaled(dims.kv_lora_rank, hidden, full),
        rope_head_dim=_scaled(dims.rope_head_dim, wide, narrow),
        head_dim=head_dim,
        v_head_dim=_scaled(dims.v_head_dim, wide, narrow),
    )


def _scaled(width: int, numerator: int, denominator: int) -> int:
    """Return a width in proportion, even and at least 2; 0 stays 0."""
    if numerator == denominator:
        return width
    return width and max(2, 2 * round(width * numerator / denominator / 2))
