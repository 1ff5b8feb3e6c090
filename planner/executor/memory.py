"""What ranks hold as tensors, by the terms of a plan's memory."""

import torch

from planner.executor.model.context import KVCache
from planner.executor.model.decoder import Decoder
from planner.executor.stepping import finish

_PREFILL = 8
"""Tokens of the sequence that the cache is measured with."""


@torch.no_grad()
def held_bytes(model: Decoder) -> dict[str, int]:
    """Return the bytes of a model's own tensors, its routed experts left out.

    ``kv_cache`` is what the cache holds after reading a sequence, per token.
    """
    held: dict[str, int] = {}
    routed = {f"blocks.{layer}.ffn" for layer in model.config.moe_layers}
    for name, tensor in model.state_dict().items():
        owner, _, last = name.rpartition(".")
        if owner in routed and last in ("w_in", "w_out"):
            continue
        term = _term(name, owner in routed)
        held[term] = held.get(term, 0) + tensor.nbytes
    cache = KVCache()
    tokens_BS = torch.zeros((1, _PREFILL), dtype=torch.long, device=model.embed.device)
    positions_BS = torch.arange(_PREFILL, device=model.embed.device)[None]
    finish(
        model.steps(
            tokens_BS,
            positions_BS=positions_BS,
            context=cache,
        )
    )
    held["kv_cache"] = cache.nbytes // _PREFILL
    return held


def _term(name: str, in_moe: bool) -> str:
    if "norm" in name:
        return "norms"
    if name in ("embed", "head"):
        return "embeddings"
    if ".attn." in name:
        return "attention"
    if ".shared." in name:
        return "shared_experts"
    return "router" if in_moe else "dense"
