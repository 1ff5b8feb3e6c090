"""What traffic ``direct`` costs beside its transfers: every token's context everywhere.

Attention needs the keys and values of a token's sequence where the token stands.
Under ``direct`` that is any attention group of its EP set, so all groups of a set
hold the context of all of them, and what one group computes is sent to the others.
"""

from dataclasses import dataclass

from planner.arrays import IntArray
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
    *,
    groups: int,
    tp: int,
    tokens: int,
    kv_tokens: int,
    free_G: IntArray,
) -> ContextCost:
    """Return what replicating the context of all groups of an EP set costs.

    Parameters
    ----------
    groups, tp
        Attention groups of an EP set, and GPUs of a group.
    tokens
        Planned tokens.
    kv_tokens
        Tokens in the cache of every DP rank.
    free_G
        Bytes each GPU has left under the plan; negative if it has too few.
    """
    each = kv_token_bytes(model, tp)
    memory = (groups - 1) * kv_tokens * each
    return ContextCost(
        groups=groups,
        token_bytes=each,
        memory_bytes=memory,
        missing_bytes=max(0, memory - int(free_G.min())),
        transfer_bytes=tokens * (groups - 1) * tp * each,
    )
