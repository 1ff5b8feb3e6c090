"""What a part demands: experts by source GPU, and distinct expert sets (design §4)."""

from dataclasses import dataclass

import numpy as np

from planner.arrays import IdArray, IntArray
from planner.workload.parts import TokenPart

_AFTER_ALL = np.int16(np.iinfo(np.int16).max)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DistinctSets:
    """The distinct (source GPU, set of experts) of one layer.

    Sorted by source, then by set. Tokens without a message are left out.

    Attributes
    ----------
    source_n
        Source GPU of each.
    experts_nK
        Its experts ascending, then -1 where fewer than K are known.
    weight_n
        How many tokens share it.
    """

    source_n: IntArray
    experts_nK: IdArray
    weight_n: IntArray


def expert_loads(experts_LTK: IdArray, experts: int) -> IntArray:
    """Return (token, expert) pairs by layer and expert, [L, E]."""
    loads = np.zeros((experts_LTK.shape[0], experts), dtype=np.int64)
    for layer, ids_TK in enumerate(experts_LTK):
        loads[layer] = np.bincount(ids_TK[ids_TK >= 0], minlength=experts)
    return loads


def demand_LSE(part: TokenPart, experts: int, gpus: int) -> IntArray:
    """Return (token, expert) pairs by layer, source GPU and expert, [L, G, E].

    Null ids demand nothing (rule 11).
    """
    demand = np.zeros((part.experts_LTK.shape[0], gpus, experts), dtype=np.int64)
    base_T1 = part.source_T[:, None] * experts
    for layer, ids_TK in enumerate(part.experts_LTK):
        flat = (base_T1 + ids_TK)[ids_TK >= 0]
        counts = np.bincount(flat, minlength=gpus * experts)
        demand[layer] = counts.reshape(gpus, experts)
    return demand


def distinct_sets(part: TokenPart, layer: int) -> DistinctSets:
    """Return the distinct (source GPU, expert set) of a layer with multiplicities.

    Two tokens share a row if they leave from the same GPU for the same experts, in
    whatever order: every ``dedup_*`` count that ignores ordinals depends on nothing
    else.
    """
    ids_TK = part.experts_LTK[layer]
    # Nulls must follow the ids: for the sort they are larger than any of them.
    ids_TK = np.sort(np.where(ids_TK < 0, _AFTER_ALL, ids_TK), axis=1)
    known = ids_TK[:, 0] != _AFTER_ALL
    rows = np.column_stack([part.source_T[known], ids_TK[known]]).astype(np.int64)
    found, weight_n = np.unique(rows, axis=0, return_counts=True)
    experts_nK = found[:, 1:].astype(np.int16)
    experts_nK[experts_nK == _AFTER_ALL] = -1
    return DistinctSets(
        source_n=found[:, 0], experts_nK=experts_nK, weight_n=weight_n.astype(np.int64)
    )
