"""The terms of a GPU's memory (design §5), one small function each, in bytes.

Weights stand at the model's precision. Router, norms, embeddings and the KV cache
stay at two bytes or more: no engine keeps them in eight bits unasked. What
attention shares between heads (MLA's down-projections and its latent cache) is
held whole by every GPU of an attention group, as engines do; the rest of attention
and the dense layers is divided over the group. Scales of fp8 weights (4 bytes per
128 x 128 block, 0.02 %) are left out.
"""

from planner.workload.model_spec import BYTES_PER_VALUE, MoEModelSpec

ACTIVATION_BYTES = 2


def attention_bytes(model: MoEModelSpec, tp: int) -> int:
    """Projections of all layers on one GPU of an attention group."""
    at, hidden = model.attention, model.hidden
    heads = _ceil(at.heads, tp)
    if at.kv_lora_rank:
        key = at.head_dim + at.rope_head_dim
        shared = hidden * (at.q_lora_rank + at.kv_lora_rank + at.rope_head_dim)
        query = (at.q_lora_rank or hidden) * heads * key
        up = at.kv_lora_rank * heads * (at.head_dim + at.v_head_dim)
        out = heads * at.v_head_dim * hidden
        return model.layers * (shared + query + up + out) * _weight(model)
    # With more GPUs than KV heads, each GPU keeps one head's projections.
    kv_heads = _ceil(at.kv_heads, tp)
    per_layer = 2 * hidden * (heads + kv_heads) * at.head_dim
    return model.layers * per_layer * _weight(model)


def dense_bytes(model: MoEModelSpec, tp: int) -> int:
    """Feed-forward weights of the dense layers on one GPU of the group."""
    layers = model.layers - len(model.moe_layers)
    width = _ceil(model.dense_ffn, tp)
    return layers * model.ffn_matrices * model.hidden * width * _weight(model)


def shared_bytes(model: MoEModelSpec) -> int:
    """Shared experts of all MoE layers, whole on every GPU."""
    per_layer = model.ffn_matrices * model.hidden * model.shared_ffn
    return len(model.moe_layers) * per_layer * _weight(model)


def router_bytes(model: MoEModelSpec) -> int:
    """Routers of all MoE layers, one row and one bias per expert."""
    per_layer = model.experts * (model.hidden + 1)
    return len(model.moe_layers) * per_layer * _wide(model)


def norm_bytes(model: MoEModelSpec) -> int:
    """Two norms per layer, the final one, and MLA's norms of latents."""
    at = model.attention
    latents = at.q_lora_rank + at.kv_lora_rank
    values = model.layers * (2 * model.hidden + latents) + model.hidden
    return values * _wide(model)


def embedding_bytes(model: MoEModelSpec) -> int:
    """Input and output embeddings, one table if tied."""
    tables = 1 if model.tied_embeddings else 2
    return tables * model.vocab * model.hidden * _wide(model)


def kv_token_bytes(model: MoEModelSpec, tp: int) -> int:
    """KV cache of one token in all layers on one GPU of the group."""
    at = model.attention
    if at.kv_lora_rank:
        values = at.kv_lora_rank + at.rope_head_dim
    else:
        values = 2 * _ceil(at.kv_heads, tp) * at.head_dim
    return model.layers * values * _wide(model)


def dedup_buffer_bytes(
    batch_tokens: int, domains: int, messages: tuple[int, int]
) -> int:
    """Buffers of ``dedup_*``: 2·B·N·(dispatch + combine bytes)."""
    return 2 * batch_tokens * domains * sum(messages)


def copies_buffer_bytes(
    batch_tokens: int, slots: int, messages: tuple[int, int]
) -> int:
    """Buffers of ``copies``, as DeepEP's low-latency layout (engines.md §4.2).

    Two halves, each with a send and a receive part:
    2·(max(B·dispatch, P·B·combine) + P·B·max(dispatch, combine)) over all P slots
    of an EP set. Message sizes are those of rule 22, without DeepEP's padding of a
    combine slot (14560 for 14336 bytes).
    """
    dispatch, combine = messages
    send = max(batch_tokens * dispatch, slots * batch_tokens * combine)
    receive = slots * batch_tokens * max(dispatch, combine)
    return 2 * (send + receive)


def all_reduce_bytes(model: MoEModelSpec, tp: int, tokens: int) -> int:
    """Bytes an attention group moves over NVLink to all-reduce ``tokens`` tokens.

    A ring moves 2·(t − 1) times the tensor in total; one all-reduce of D values in
    bf16 follows the attention of every layer and the feed-forward of a dense one.
    """
    reduces = model.layers + model.layers - len(model.moe_layers)
    return 2 * (tp - 1) * tokens * model.hidden * ACTIVATION_BYTES * reduces


def _weight(model: MoEModelSpec) -> int:
    return BYTES_PER_VALUE[model.precision]


def _wide(model: MoEModelSpec) -> int:
    return max(2, _weight(model))


def _ceil(count: int, divisor: int) -> int:
    return -(-count // divisor)
