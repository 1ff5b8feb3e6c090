"""Small layers under a free split, exactly: the best partition into blocks.

By the theorem of :mod:`~planner.strategies.balance.weighted.fill` the least busiest
load is the least max W_b/g_b over partitions into K = E - (J-1)·G blocks of
v_b = (J-1)·g_b + 1 experts, g_b ≥ 1. Dynamic programming over sets of experts: the
block of a set's first expert is any of its subsets, and the rest is a smaller set.
About 3ᴱ/2 pairs of sets; loads are multiplied by the least common multiple of the g_b.
"""

from collections.abc import Sequence
from math import lcm

import numpy as np
from numba import njit

from planner.arrays import IntArray
from planner.errors import SolverError
from planner.strategies.balance.weighted.fill import Block
from planner.strategies.balance.weighted.search import block_count

MOST_EXPERTS = 16
INT64_LIMIT = 2**62


def best_blocks(load_E: Sequence[int], gpus: int, slots_per_gpu: int) -> list[Block]:
    """Return a partition of least max W_b/g_b, for J ≥ 2.

    Raises
    ------
    SolverError
        For more than 16 experts, or loads too large for 64 bits.
    """
    experts, lot = len(load_E), slots_per_gpu - 1
    count = block_count(experts, gpus, slots_per_gpu)
    if count == 1:
        return [Block(experts=tuple(range(experts)), gpus=gpus)]
    if experts > MOST_EXPERTS:
        raise SolverError(f"more than {MOST_EXPERTS} experts")
    unit = lcm(*range(1, (experts - 1) // lot + 1))
    if sum(load_E) * unit >= INT64_LIMIT:
        raise SolverError("loads are too large to be compared exactly")
    first_S = _block_of_first(np.asarray(load_E, dtype=np.int64) * unit, lot, count)
    blocks, left = [], 2**experts - 1
    for blocks_left in range(count, 0, -1):
        inside = int(first_S[blocks_left, left])
        members = tuple(e for e in range(experts) if inside >> e & 1)
        blocks.append(Block(experts=members, gpus=(len(members) - 1) // lot))
        left ^= inside
    return blocks


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _block_of_first(load_E: IntArray, lot: int, count: int) -> IntArray:
    """Return, by number of blocks and set, the best block of the set's first expert."""
    sets = 1 << load_E.size
    size_S, load_S = np.zeros(sets, dtype=np.int64), np.zeros(sets, dtype=np.int64)
    for mask in range(1, sets):
        last = 0
        while not mask >> last & 1:
            last += 1
        size_S[mask] = size_S[mask & (mask - 1)] + 1
        load_S[mask] = load_S[mask & (mask - 1)] + load_E[last]
    never = np.int64(2) ** 62
    best_KS = np.full((count + 1, sets), never, dtype=np.int64)
    first_KS = np.zeros((count + 1, sets), dtype=np.int64)
    best_KS[0, 0] = 0
    for mask in range(1, sets):
        others = mask & (mask - 1)
        inside = others
        while True:
            block = inside | (mask ^ others)
            if size_S[block] > lot and (size_S[block] - 1) % lot == 0:
                mean = load_S[block] // ((size_S[block] - 1) // lot)
                for number in range(1, count + 1):
                    worst = max(mean, best_KS[number - 1, mask ^ block])
                    if worst < best_KS[number, mask]:
                        best_KS[number, mask] = worst
                        first_KS[number, mask] = block
            if inside == 0:
                break
            inside = (inside - 1) & others
    return first_KS
