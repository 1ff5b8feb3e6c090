"""Memory of every GPU a second time, tensor by tensor (design §5).

Read here as: weights at the model's precision; router (with one bias per expert),
norms, embeddings and KV cache at two bytes at least; heads and dense widths shared
out over the attention group, rounded up; what MLA shares between heads, shared
experts, router, norms and embeddings whole on every GPU of a group. A GPU in no
attention group holds routed experts and buffers only.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

import numpy as np

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.topology.graph import ClusterTopology
from planner.workload.model_spec import Attention, MoEModelSpec

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
USUAL_KV_TOKENS = 65536


def memory_of_gpus(
    model: MoEModelSpec,
    topology: ClusterTopology,
    layout: ParallelLayout,
    *,
    slots_per_layer: Sequence[int],
    physical: int | None = None,
    traffic: str,
    message: tuple[int, int],
    batch_tokens: int,
    kv_tokens: int | None,
    mem_fraction: float | None,
) -> tuple[IntArray, IntArray]:
    """Return the bytes every GPU needs, and the bytes it may use.

    Parameters
    ----------
    slots_per_layer
        Slots of a GPU in each MoE layer; one of all layers together is ``[1]``.
    physical
        Copies of experts in the EP set in one layer; None: all slots are full.
    kv_tokens, mem_fraction
        KV cache per DP rank in tokens, the usual number if None; with
        ``mem_fraction`` it fills what the fullest GPU has left instead.
    """
    everywhere = sum(slots_per_layer) * expert_bytes(model)
    everywhere += buffer_bytes(
        traffic,
        batch_tokens,
        len(topology.domains),
        physical or layout.ep * max(slots_per_layer),
        message,
    )
    # Only a GPU of an attention group computes anything but experts.
    attending = {gpu for group in layout.attention_groups for gpu in group}
    own = sum(weights(model, layout.tp).values())
    needs = [
        gpu.reserved_bytes + everywhere + (own if index in attending else 0)
        for index, gpu in enumerate(topology.gpus)
    ]
    share = Fraction(str(mem_fraction or 1))
    has = [floor(gpu.memory_bytes * share) for gpu in topology.gpus]
    per_token = cache_bytes(model, layout.tp)
    if mem_fraction is not None:
        left = min(has[index] - needs[index] for index in attending)
        kv_tokens = max(1, left // per_token)
    elif kv_tokens is None:
        kv_tokens = USUAL_KV_TOKENS
    for index in attending:
        needs[index] += kv_tokens * per_token
    return np.asarray(needs, dtype=np.int64), np.asarray(has, dtype=np.int64)


def weights(model: MoEModelSpec, tp: int) -> dict[str, int]:
    """Return the bytes of all weights of a GPU but its routed experts."""
    narrow, wide = BYTES[model.precision], max(2, BYTES[model.precision])
    moe = len(model.moe_layers)
    dense = model.layers - moe
    hidden, at = model.hidden, model.attention
    width = ceil(Fraction(model.dense_ffn, tp))
    norms = model.layers * 2 * hidden + hidden
    norms += model.layers * (at.q_lora_rank + at.kv_lora_rank)
    tables = (
        [model.vocab * hidden]
        if model.tied_embeddings
        else [model.vocab * hidden, model.vocab * hidden]
    )
    return {
        "attention": model.layers * sum(projections(at, hidden, tp).values()) * narrow,
        "dense": dense * model.ffn_matrices * (hidden * width) * narrow,
        "shared": moe * model.ffn_matrices * (hidden * model.shared_ffn) * narrow,
        "router": moe * (hidden * model.experts + model.experts) * wide,
        "norms": norms * wide,
        "embeddings": sum(tables) * wide,
    }


def projections(at: Attention, hidden: int, tp: int) -> dict[str, int]:
    """Return the values of each projection of one layer on one GPU of a group."""
    heads = ceil(Fraction(at.heads, tp))
    if at.kv_lora_rank == 0:
        kv_heads = ceil(Fraction(at.kv_heads, tp))
        return {
            "q": hidden * heads * at.head_dim,
            "k": hidden * kv_heads * at.head_dim,
            "v": hidden * kv_heads * at.head_dim,
            "o": heads * at.head_dim * hidden,
        }
    q_head = at.head_dim + at.rope_head_dim
    query = {"q": hidden * heads * q_head}
    if at.q_lora_rank:
        query = {
            "q_down": hidden * at.q_lora_rank,
            "q_up": at.q_lora_rank * heads * q_head,
        }
    return {
        **query,
        "kv_down": hidden * (at.kv_lora_rank + at.rope_head_dim),
        "k_up": at.kv_lora_rank * heads * at.head_dim,
        "v_up": at.kv_lora_rank * heads * at.v_head_dim,
        "o": heads * at.v_head_dim * hidden,
    }


def expert_bytes(model: MoEModelSpec) -> int:
    """Return the bytes of one routed expert."""
    matrix = model.hidden * model.expert_ffn
    return model.ffn_matrices * matrix * BYTES[model.precision]


def cache_bytes(model: MoEModelSpec, tp: int) -> int:
    """Return the KV cache of one token on one GPU, all layers."""
    at = model.attention
    if at.kv_lora_rank:
        per_layer = at.kv_lora_rank + at.rope_head_dim
    else:
        per_layer = 2 * at.head_dim * ceil(Fraction(at.kv_heads, tp))
    return per_layer * model.layers * max(2, BYTES[model.precision])


def buffer_bytes(
    traffic: str, batch: int, domains: int, physical: int, message: tuple[int, int]
) -> int:
    """Return the communication buffers of one GPU.

    ``dedup_*``: 2·B·N·(dispatch + combine). ``copies``, DeepEP low latency: twice a
    send part, the larger of B·dispatch and P·B·combine, and a receive part
    P·B·(the larger message), P being the physical experts of an EP set.
    """
    dispatch, combine = message
    if traffic not in ("copies", "direct"):
        return 2 * batch * domains * (dispatch + combine)
    send = max(batch * dispatch, physical * batch * combine)
    return 2 * (send + physical * batch * max(message))
