"""Which copy of an expert serves a token (rules 16-19).

Copies are ordered by slot: EP rank, then position on the GPU. A token uses the
copies in the EP set of its source GPU only.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit

from planner.arrays import IdArray, IntArray
from planner.errors import ManifestError
from planner.layout import ParallelLayout
from planner.plan import SplitWeights
from planner.workload.parts import TokenPart

KNUTH = np.uint64(2654435769)
LOW_32 = np.uint64(0xFFFFFFFF)
MAX_WEIGHT_SUM = 2**31


@dataclass(frozen=True, kw_only=True, eq=False)
class CopyTable:
    """EP ranks of every expert's copies: ``rank_EM`` padded with -1, ``count_E``."""

    rank_EM: IntArray
    count_E: IntArray


def copy_table(slots_GJ: IdArray, experts: int) -> CopyTable:
    """Return the copies of each expert in copy order."""
    flat = slots_GJ.ravel().astype(np.int64)
    slot = np.argsort(flat, kind="stable")
    slot = slot[flat[slot] >= 0]
    expert = flat[slot]
    count_E = np.bincount(expert, minlength=experts)
    first_E = np.cumsum(count_E) - count_E
    rank_EM = np.full((experts, max(1, int(count_E.max()))), -1, dtype=np.int64)
    rank_EM[expert, np.arange(expert.size) - first_E[expert]] = (
        slot // slots_GJ.shape[1]
    )
    return CopyTable(rank_EM=rank_EM, count_E=count_E)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _nearest(
    rank_EM: IntArray, count_E: IntArray, domain_G: IntArray, ep: int
) -> IntArray:
    gpus, experts = domain_G.size, count_E.size
    chosen_GE = np.full((gpus, experts), -1, dtype=np.int64)
    for base in range(0, gpus, ep):
        for expert in range(experts):
            copies, far = count_E[expert], 0
            for gpu in range(base, base + ep):
                own, local, first_local = False, 0, -1
                for j in range(copies):
                    holder = base + rank_EM[expert, j]
                    if holder == gpu:
                        own = True
                    if domain_G[holder] == domain_G[gpu]:
                        local += 1
                        if first_local < 0:
                            first_local = holder
                if copies == 0:
                    continue
                if copies == 1:
                    chosen_GE[gpu, expert] = base + rank_EM[expert, 0]
                elif own:
                    chosen_GE[gpu, expert] = gpu
                elif 0 < local < copies:
                    chosen_GE[gpu, expert] = first_local
                else:
                    j = (far + expert) % copies
                    chosen_GE[gpu, expert] = base + rank_EM[expert, j]
                    far += 1
    return chosen_GE


def nearest_GE(slots_GJ: IdArray, experts: int, layout: ParallelLayout) -> IntArray:
    """Return the GPU that serves each (source GPU, expert) under ``nearest``.

    Shape [G, E], int64; -1 where no copy exists (rule 17).
    """
    table = copy_table(slots_GJ, experts)
    chosen_GE: IntArray = _nearest(
        table.rank_EM, table.count_E, layout.domain_G, layout.ep
    )
    return chosen_GE


def weights_SEM(
    table: CopyTable, split: Mapping[int, SplitWeights], dp: int
) -> IntArray:
    """Return the integer weights of each copy by DP rank, [S, E, M].

    Missing entries mean equal weights; a rank's own entry comes before ``*``.

    Raises
    ------
    ManifestError
        For a negative weight, a sum of 0 or above 2³¹, or a wrong length.
    """
    width = table.rank_EM.shape[1]
    base = (np.arange(width)[None, :] < table.count_E[:, None]).astype(np.int64)
    weights = np.repeat(base[None], dp, axis=0)
    for expert, by_rank in split.items():
        for name, given in by_rank.items():
            _check_weights(expert, name, given, int(table.count_E[expert]))
        for rank in range(dp):
            chosen = by_rank.get(str(rank), by_rank.get("*"))
            if chosen is not None:
                weights[rank, expert, : len(chosen)] = chosen
    return weights


def _check_weights(expert: int, rank: str, given: tuple[int, ...], copies: int) -> None:
    where = f"split of expert {expert}, DP rank {rank}"
    if len(given) != copies:
        rule = f"needs one weight for each of the {copies} copies"
        raise ManifestError(rule, where=where, value=list(given))
    if min(given) < 0 or not 0 < sum(given) <= MAX_WEIGHT_SUM:
        rule = "weights must be >= 0 with a sum between 1 and 2^31"
        raise ManifestError(rule, where=where, value=list(given))


def chosen_targets(
    part: TokenPart,
    layer: int,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
    *,
    selection: str,
    layout: ParallelLayout,
    experts: int,
) -> IntArray:
    """Return the GPU that serves each (token, expert) of a layer, [T, K].

    -1 where the trace has no id. ``split`` is the layer's (rule 19).
    """
    ids_TK = part.experts_LTK[layer].astype(np.int64)
    null_TK = ids_TK < 0
    ids_TK = np.where(null_TK, 0, ids_TK)
    table = copy_table(slots_GJ, experts)
    several = int(table.count_E.max()) > 1
    if selection == "nearest" and several:
        near_GE = nearest_GE(slots_GJ, experts, layout)
        targets_TK = near_GE[part.source_T[:, None], ids_TK]
    else:
        if selection == "nearest":
            copy_TK = np.zeros_like(ids_TK)
        elif selection == "even":
            copy_TK = _even_copy(part.ordinal_T, table.count_E[ids_TK])
        else:
            weights = weights_SEM(table, split, layout.dp)
            copy_TK = _weighted_copy(part, ids_TK, weights)
        base_T = layout.set_G[part.source_T] * layout.ep
        rank_TK = table.rank_EM[ids_TK, copy_TK]
        targets_TK = np.where(rank_TK < 0, -1, base_T[:, None] + rank_TK)
    return np.where(null_TK, -1, targets_TK)


def _even_copy(ordinal_T: IntArray, count_TK: IntArray) -> IntArray:
    hashed_T = (ordinal_T.astype(np.uint64) * KNUTH) & LOW_32
    copies = np.maximum(count_TK, 1).astype(np.uint64)
    return (hashed_T[:, None] % copies).astype(np.int64)


def _weighted_copy(part: TokenPart, ids_TK: IntArray, weights: IntArray) -> IntArray:
    u_T = ((part.ordinal_T.astype(np.uint64) + np.uint64(1)) * KNUTH) & LOW_32
    upto = np.cumsum(weights, axis=2).astype(np.uint64)[part.rank_T[:, None], ids_TK]
    below = u_T[:, None, None] * upto[:, :, -1:] < upto << np.uint64(32)
    copy_TK: IntArray = np.argmax(below, axis=2)
    return copy_TK
