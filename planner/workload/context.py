"""What traffic ``direct`` costs beside its transfers: every token's context everywhere.

Attention needs the keys and values of a token's sequence where the token stands.
Under ``direct`` that is any attention group of its EP set, so all groups of a set
hold the context of all of them, and what one group computes is sent to the others.
"""

from dataclasses import dataclass

import numpy as np

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.workload.memory_terms import kv_token_bytes
from planner.workload.model_spec import MoEModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextCost:
    """The price of replicated context, in bytes.

    Attributes
    ----------
    groups
        Attention groups that hold every token's context.
    token_bytes
        Keys and values of one token in all layers on one GPU.
    memory_bytes
        What each GPU holds on top of its own group's cache.
    missing_bytes
        What the fullest GPU then lacks; 0 if it all fits.
    transfer_bytes
        What is sent so that the planned tokens' context is everywhere.
    """

    groups: int
    token_bytes: int
    memory_bytes: int
    missing_bytes: int
    transfer_bytes: int


def context_cost(
    model: MoEModelSpec,
    layout: ParallelLayout,
    *,
    tokens: int,
    kv_tokens: int,
    free_G: IntArray,
) -> ContextCost:
    """Return what replicating the context of all groups of an EP set costs.

    Parameters
    ----------
    tokens
        Planned tokens.
    kv_tokens
        Tokens in the cache of every DP rank.
    free_G
        Bytes each GPU has left under the plan; negative if it has too few.
    """
    groups = _groups_of_a_set(layout)
    each = kv_token_bytes(model, layout.tp)
    memory = (groups - 1) * kv_tokens * each
    return ContextCost(
        groups=groups,
        token_bytes=each,
        memory_bytes=memory,
        missing_bytes=max(0, memory - int(free_G.min())),
        transfer_bytes=tokens * (groups - 1) * layout.tp * each,
    )


def _groups_of_a_set(layout: ParallelLayout) -> int:
    """Return the most attention groups with a GPU in one EP set."""
    seen = np.zeros((layout.sets, layout.dp), dtype=np.bool_)
    for number, group in enumerate(layout.attention_groups):
        seen[layout.set_G[list(group)], number] = True
    return int(seen.sum(axis=1).max())
