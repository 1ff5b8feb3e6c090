"""More experts than blocks hold: which experts share a block, by annealing.

By the theorem of :mod:`~planner.strategies.balance.weighted.fill`, what is sought is
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

from planner import clock
from planner.arrays import IntArray
from planner.strategies.balance.chance import seeded, taken
from planner.strategies.balance.weighted.fill import Block
from planner.strategies.search.anneal import draw
from planner.strategies.search.compiling import inner

HEAT = (0.01, 0.0001)
"""First and last temperature, in mean loads of a GPU."""
PRECISION = 2e-4
"""Levels closer together than this are not told apart."""
TENTHS = 10
DIRECTED, GIVING = 3, 3
"""Tenths of the moves that start at the block furthest above the level; that give."""
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
        open_blocks = list(range(count))
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


MOVES_PER_SECOND = 5_000_000
"""Rate of counted work."""


def searched_blocks(
    start: Sequence[Block],
    load_E: Sequence[int],
    *,
    floor: Fraction,
    ceiling: Fraction,
    proposals: int,
    seed: int,
    deadline: float,
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
    random_1 = seeded(seed)
    while high - low > PRECISION * high and clock.now() < deadline:
        level = (low + high) / 2
        block_E, gpus_K = _as_arrays(best, len(load_E))
        _anneal(size_E, block_E, gpus_K, level, HEAT, proposals, random_1)
        clock.spend(proposals / MOVES_PER_SECOND)
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


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _members(size_E: Any, block_E: Any, blocks: int) -> Any:
    """Return loads and numbers of blocks, their experts, and where each stands."""
    experts = size_E.size
    load_K, count_K = np.zeros(blocks), np.zeros(blocks, dtype=np.int64)
    member_KE = np.zeros((blocks, experts), dtype=np.int64)
    place_E = np.zeros(experts, dtype=np.int64)
    for expert in range(experts):
        block = block_E[expert]
        load_K[block] += size_E[expert]
        place_E[expert] = count_K[block]
        member_KE[block, count_K[block]] = expert
        count_K[block] += 1
    return load_K, count_K, member_KE, place_E


@inner  # type: ignore[untyped-decorator]
def _picked(
    random_1: Any, member_E: Any, place_E: Any, size_E: Any, count: int, lot: int
) -> Any:
    """Bring ``lot`` random members of a block to its end; return what they carry."""
    carried = 0.0
    for last in range(count - 1, count - 1 - lot, -1):
        place = draw(random_1, last + 1)
        one, two = member_E[place], member_E[last]
        member_E[place], member_E[last] = two, one
        place_E[one], place_E[two] = last, place
        carried += size_E[one]
    return carried


@inner  # type: ignore[untyped-decorator]
def _give(
    block_E: Any, count_K: Any, member_KE: Any, place_E: Any, a: int, b: int, lot: int
) -> None:
    """Move the last ``lot`` members of block ``a`` to block ``b``."""
    for _ in range(lot):
        count_K[a] -= 1
        expert = member_KE[a, count_K[a]]
        member_KE[b, count_K[b]], place_E[expert] = expert, count_K[b]
        count_K[b] += 1
        block_E[expert] = b


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _anneal(
    size_E: Any,
    block_E: Any,
    gpus_K: Any,
    level: float,
    heat: tuple[float, float],
    proposals: int,
    random_1: Any,
) -> None:
    """Anneal in place until no block is above the level.

    A move exchanges two experts, or gives a lot of J - 1 experts with one GPU to
    another block.
    """
    experts, blocks = size_E.size, gpus_K.size
    load_K, count_K, member_KE, place_E = _members(size_E, block_E, blocks)
    lot = (experts - blocks) // gpus_K.sum()
    excess = 0.0
    for block in range(blocks):
        excess += _above(load_K[block], gpus_K[block], level)
    temperature, cooling = heat[0], (heat[1] / heat[0]) ** (1.0 / proposals)
    worst = np.int64(0)
    for turn in range(proposals):
        if excess < NOTHING:
            return
        temperature *= cooling
        if turn % blocks == 0:
            worst = np.argmax(load_K - level * gpus_K)
        one, two = draw(random_1, experts), draw(random_1, experts)
        if draw(random_1, TENTHS) < DIRECTED:
            one = member_KE[worst, draw(random_1, count_K[worst])]
            if draw(random_1, 2) == 0:
                one, two = two, one
        a, b = block_E[one], block_E[two]
        gives = draw(random_1, TENTHS) < GIVING
        if a == b or (gives and gpus_K[a] < 2):
            continue
        moved, gpus = size_E[one] - size_E[two], 0
        if gives:
            gpus = 1
            moved = _picked(random_1, member_KE[a], place_E, size_E, count_K[a], lot)
        change = (
            _above(load_K[a] - moved, gpus_K[a] - gpus, level)
            + _above(load_K[b] + moved, gpus_K[b] + gpus, level)
            - _above(load_K[a], gpus_K[a], level)
            - _above(load_K[b], gpus_K[b], level)
        )
        if not taken(random_1, change, temperature):
            continue
        excess += change
        load_K[a] -= moved
        load_K[b] += moved
        gpus_K[a] -= gpus
        gpus_K[b] += gpus
        if gives:
            _give(block_E, count_K, member_KE, place_E, a, b, lot)
        else:
            member_KE[a, place_E[one]], member_KE[b, place_E[two]] = two, one
            place_E[one], place_E[two] = place_E[two], place_E[one]
            block_E[one], block_E[two] = b, a
