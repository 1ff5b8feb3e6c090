"""More experts than blocks hold: which experts share a block, by annealing.

By the theorem of :mod:`~planner.strategies.balance.weighted_fill`, what is sought is
a partition of E experts into K = E - (J-1)·G blocks of v_b = (J-1)·g_b + 1
experts, g_b ≥ 1, with the least max W_b/g_b. Annealed is what blocks carry above a
level, Σ_b max(0, W_b - level·g_b), for one level after the other: a plain maximum
would be blind to all blocks but one.

Axes: E experts, K blocks.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numba import njit

from planner.arrays import FloatArray, IntArray
from planner.strategies.balance.weighted_fill import Block
from planner.strategies.search.compiling import inner

HEAT = (0.01, 0.0001)
"""First and last temperature, in mean loads of a GPU."""
PRECISION = 2e-4
"""Levels closer together than this are not told apart."""
DIRECTED = 0.3
"""Share of the moves that take an expert of the block furthest above the level."""
NOTHING = 1e-12


def block_count(experts: int, gpus: int, slots_per_gpu: int) -> int:
    """Return K, the number of blocks that is enough and that is needed."""
    return max(1, experts - (slots_per_gpu - 1) * gpus)


def block_value(blocks: Sequence[Block], load_E: Sequence[int]) -> Fraction:
    """Return the busiest load of a partition: max W_b/g_b."""
    return max(
        Fraction(sum(load_E[expert] for expert in block.experts), block.gpus)
        for block in blocks
    )


def packed_blocks(load_E: Sequence[int], gpus: int, slots_per_gpu: int) -> list[Block]:
    """Return a partition: one of the least experts each, then heaviest first.

    Experts come J - 1 at a time, each lot with a GPU, to the block that then has
    the least mean; blocks without a GPU first as soon as no others may come.
    """
    order = sorted(range(len(load_E)), key=lambda expert: load_E[expert])
    count = block_count(len(load_E), gpus, slots_per_gpu)
    members = [[expert] for expert in order[:count]]
    carried, held = [load_E[expert] for expert in order[:count]], [0] * count
    lots = _lots(order[count:], slots_per_gpu - 1)
    for lot in lots:
        added = sum(load_E[expert] for expert in lot)
        open_blocks = range(count)
        if held.count(0) == gpus - sum(held):
            open_blocks = [block for block in range(count) if not held[block]]
        chosen = min(open_blocks, key=lambda b: (carried[b] + added) / (held[b] + 1))
        members[chosen].extend(lot)
        carried[chosen] += added
        held[chosen] += 1
    return [
        Block(experts=tuple(experts), gpus=number)
        for experts, number in zip(members, held, strict=True)
    ]


def _lots(ascending: list[int], size: int) -> list[list[int]]:
    """Deal experts into lots of ``size``: each lot's heaviest with light ones."""
    count = len(ascending) // size
    heavy, light = ascending[len(ascending) - count :], ascending[:-count]
    lots = [[expert] for expert in reversed(heavy)]
    for place, expert in enumerate(light):
        lots[place % count].append(expert)
    return lots


def searched_blocks(
    start: Sequence[Block],
    load_E: Sequence[int],
    *,
    floor: Fraction,
    ceiling: Fraction,
    proposals: int,
    seed: int = 0,
) -> list[Block]:
    """Return the best partition found from ``start``, by bisection of the level.

    Parameters
    ----------
    floor, ceiling
        A lower bound, and the value to improve upon.
    proposals
        Moves proposed at each level; a level that is reached needs fewer.
    """
    mean = Fraction(sum(load_E), sum(block.gpus for block in start))
    best = list(start)
    if not mean:
        return best
    size_E = np.asarray(load_E, dtype=np.float64) / float(mean)
    value = block_value(best, load_E)
    low, high = float(floor / mean), float(min(value, ceiling) / mean)
    while high - low > PRECISION * high:
        level = (low + high) / 2
        block_E, gpus_K = _as_arrays(best, len(load_E))
        _anneal(size_E, block_E, gpus_K, level, HEAT, proposals, seed)
        found = _as_blocks(block_E, gpus_K)
        reached = block_value(found, load_E)
        if reached < value:
            best, value = found, reached
        high = min(high, float(value / mean))
        if high > level * (1 + NOTHING):
            low = level
    return best


def _as_arrays(blocks: Sequence[Block], experts: int) -> tuple[IntArray, IntArray]:
    block_E = np.empty(experts, dtype=np.int64)
    for number, block in enumerate(blocks):
        block_E[list(block.experts)] = number
    return block_E, np.asarray([block.gpus for block in blocks], dtype=np.int64)


def _as_blocks(block_E: IntArray, gpus_K: IntArray) -> list[Block]:
    return [
        Block(experts=tuple(np.flatnonzero(block_E == block).tolist()), gpus=gpus)
        for block, gpus in enumerate(gpus_K.tolist())
    ]


@inner  # type: ignore[untyped-decorator]
def _above(load: float, gpus: int, level: float) -> float:
    return max(0.0, load - level * gpus)


@inner  # type: ignore[untyped-decorator]
def _pick(member_KE: Any, place_E: Any, block: int, size: int, lot: int) -> None:
    """Bring ``lot`` random members of a block to the end of its list."""
    for last in range(size - 1, size - 1 - lot, -1):
        place = np.random.randint(last + 1)
        one, two = member_KE[block, place], member_KE[block, last]
        member_KE[block, place], member_KE[block, last] = two, one
        place_E[one], place_E[two] = last, place


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _anneal(
    size_E: FloatArray,
    block_E: IntArray,
    gpus_K: IntArray,
    level: float,
    heat: tuple[float, float],
    proposals: int,
    seed: int,
) -> None:
    """Anneal in place until no block is above the level.

    A move exchanges two experts, or gives a lot of J - 1 experts with one GPU to
    another block.
    """
    np.random.seed(seed)
    experts, blocks = size_E.size, gpus_K.size
    load_K, count_K = np.zeros(blocks), np.zeros(blocks, dtype=np.int64)
    member_KE = np.zeros((blocks, experts), dtype=np.int64)
    place_E = np.zeros(experts, dtype=np.int64)
    for expert in range(experts):
        block = block_E[expert]
        load_K[block] += size_E[expert]
        place_E[expert] = count_K[block]
        member_KE[block, count_K[block]] = expert
        count_K[block] += 1
    lot = (experts - blocks) // gpus_K.sum()
    excess = 0.0
    for block in range(blocks):
        excess += _above(load_K[block], gpus_K[block], level)
    heat_now, cooling = heat[0], (heat[1] / heat[0]) ** (1.0 / proposals)
    worst = 0
    for turn in range(proposals):
        if excess < NOTHING:
            return
        heat_now *= cooling
        if turn % blocks == 0:
            worst = np.argmax(load_K - level * gpus_K)
        one, two = np.random.randint(experts), np.random.randint(experts)
        if np.random.random() < DIRECTED:
            one = member_KE[worst, np.random.randint(count_K[worst])]
            if np.random.random() < 0.5:
                one, two = two, one
        a, b = block_E[one], block_E[two]
        if a == b:
            continue
        gives = np.random.random() < 0.3
        if gives and gpus_K[a] < 2:
            continue
        moved, gpus = size_E[one] - size_E[two], 0
        if gives:
            _pick(member_KE, place_E, a, count_K[a], lot)
            moved, gpus = 0.0, 1
            for place in range(count_K[a] - lot, count_K[a]):
                moved += size_E[member_KE[a, place]]
        change = (
            _above(load_K[a] - moved, gpus_K[a] - gpus, level)
            + _above(load_K[b] + moved, gpus_K[b] + gpus, level)
            - _above(load_K[a], gpus_K[a], level)
            - _above(load_K[b], gpus_K[b], level)
        )
        if change > 0 and np.random.random() >= np.exp(-change / heat_now):
            continue
        excess += change
        load_K[a] -= moved
        load_K[b] += moved
        if gives:
            for _ in range(lot):
                count_K[a] -= 1
                expert = member_KE[a, count_K[a]]
                member_KE[b, count_K[b]], place_E[expert] = expert, count_K[b]
                count_K[b] += 1
                block_E[expert] = b
            gpus_K[a] -= 1
            gpus_K[b] += 1
        else:
            member_KE[a, place_E[one]], member_KE[b, place_E[two]] = two, one
            place_E[one], place_E[two] = place_E[two], place_E[one]
            block_E[one], block_E[two] = b, a
