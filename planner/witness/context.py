"""The price of replicated context a second time (traffic ``direct``)."""

from collections.abc import Mapping

from planner.layout import ParallelLayout
from planner.witness.memory import USUAL_KV_TOKENS, cache_bytes
from planner.workload.model_spec import MoEModelSpec


def context_bytes(
    model: MoEModelSpec, layout: ParallelLayout, tokens: int, kv_tokens: int | None
) -> Mapping[str, int]:
    """Return what holding every token's keys and values in all groups costs.

    All attention groups with a GPU in a token's EP set hold its context: the groups
    beyond its own are ``groups`` - 1, each of ``layout.tp`` GPUs.
    """
    sets: dict[int, set[int]] = {}
    for rank, members in enumerate(layout.attention_groups):
        for gpu in members:
            sets.setdefault(gpu // layout.ep, set()).add(rank)
    groups = max(len(ranks) for ranks in sets.values())
    each = cache_bytes(model, layout.tp)
    cached = USUAL_KV_TOKENS if kv_tokens is None else kv_tokens
    return {
        "groups": groups,
        "token_bytes": each,
        "memory_bytes": cached * each * (groups - 1),
        "transfer_bytes": tokens * each * layout.tp * (groups - 1),
    }
