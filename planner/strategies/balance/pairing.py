"""Two slots per GPU: numbers of copies by annealing, and their pairs.

For given numbers of copies, the largest with the smallest is the best pairing, so
the numbers are all there is to search; one costs a walk over the sorted sizes. What
is annealed is not the greatest load but the squares of what pairs have above a level.
"""

from typing import Any

import numpy as np
from numba import njit

from planner.arrays import FloatArray, IdArray, IntArray
from planner.strategies.balance.chance import seeded, taken
from planner.strategies.search.anneal import draw
from planner.strategies.search.compiling import inner


@inner  # type: ignore[untyped-decorator]
def _walk(size_E: Any, order_E: Any, copies_E: Any, level: float) -> Any:
    """Return the greatest pair and the squared excess of all pairs above ``level``.

    Copies left in the middle would pair with their own expert; they count as traded
    with the last pair made before either end came to that expert.
    """
    low, high = 0, order_E.size - 1
    left_low, left_high = copies_E[order_E[low]], copies_E[order_E[high]]
    greatest, excess, above_low, above_high = 0.0, 0.0, 0.0, 0.0
    while low <= high:
        larger = size_E[order_E[high]]
        if low == high:
            pairs, larger = left_low // 2, max(larger, above_low, above_high)
        else:
            pairs = min(left_low, left_high)
        load = size_E[order_E[low]] + larger
        if pairs > 0:
            greatest = max(greatest, load)
            if load > level:
                excess += pairs * (load - level) * (load - level)
        if low == high:
            break
        left_low -= pairs
        left_high -= pairs
        if left_low == 0:
            above_low = larger
            low += 1
            left_low = left_high if low == high else copies_E[order_E[low]]
        if left_high == 0 and low <= high:
            above_high = larger
            high -= 1
            left_high = left_low if low >= high else copies_E[order_E[high]]
    return greatest, excess


@inner  # type: ignore[untyped-decorator]
def _resort(order_E: Any, size_E: Any, expert: int) -> None:
    """Move one expert whose size changed to its place."""
    at, last = 0, order_E.size - 1
    while order_E[at] != expert:
        at += 1
    while at > 0 and size_E[order_E[at - 1]] > size_E[expert]:
        order_E[at] = order_E[at - 1]
        at -= 1
    while at < last and size_E[order_E[at + 1]] < size_E[expert]:
        order_E[at] = order_E[at + 1]
        at += 1
    order_E[at] = expert


@inner  # type: ignore[untyped-decorator]
def _alike(
    random_1: Any, rank_E: Any, sorted_E: Any, copies_E: Any, expert: int
) -> Any:
    """Return an expert of similar load that has one copy more or less, or -1."""
    for _ in range(20):
        at = rank_E[expert] + draw(random_1, 11) - 5
        if 0 <= at < sorted_E.size:
            other = sorted_E[at]
            if abs(copies_E[other] - copies_E[expert]) == 1:
                return other
    return -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _anneal(
    size_ER: Any,
    copies_E: Any,
    level: float,
    heat: tuple[float, float],
    proposals: int,
    random_1: Any,
) -> Any:
    experts, most = size_ER.shape
    copies_E = copies_E.copy()
    size_E = np.empty(experts)
    for expert in range(experts):
        size_E[expert] = size_ER[expert, copies_E[expert] - 1]
    order_E = np.argsort(size_E)
    sorted_E = np.argsort(size_ER[:, 0])
    rank_E = np.argsort(sorted_E)
    best, excess = _walk(size_E, order_E, copies_E, level)
    best_E, before_E = copies_E.copy(), order_E.copy()
    temperature, cooling = heat[0], (heat[1] / heat[0]) ** (1.0 / proposals)
    for _ in range(proposals):
        temperature *= cooling
        gains = draw(random_1, experts)
        if draw(random_1, 2) == 0:
            loses = _alike(random_1, rank_E, sorted_E, copies_E, gains)
            if loses >= 0 and copies_E[loses] < copies_E[gains]:
                gains, loses = loses, gains
        else:
            loses = draw(random_1, experts)
        if loses < 0 or loses == gains or copies_E[loses] == 1:
            continue
        if copies_E[gains] == most:
            continue
        larger = size_ER[loses, copies_E[loses] - 2]
        if larger > level and larger > best:
            continue
        before_E[:] = order_E
        copies_E[gains] += 1
        copies_E[loses] -= 1
        was_gaining, was_losing = size_E[gains], size_E[loses]
        size_E[gains], size_E[loses] = size_ER[gains, copies_E[gains] - 1], larger
        _resort(order_E, size_E, gains)
        _resort(order_E, size_E, loses)
        greatest, after = _walk(size_E, order_E, copies_E, level)
        if greatest < best:
            best = greatest
            best_E[:] = copies_E
        if taken(random_1, after - excess, temperature):
            excess = after
            if excess == 0.0:
                break
        else:
            copies_E[gains] -= 1
            copies_E[loses] += 1
            size_E[gains], size_E[loses] = was_gaining, was_losing
            order_E[:] = before_E
    return best, best_E


def anneal_counts(
    size_ER: FloatArray,
    copies_E: IntArray,
    level: float,
    heat: tuple[float, float],
    proposals: int,
    seed: int,
) -> tuple[float, IntArray]:
    """Anneal from ``copies_E``; return the least greatest pair seen and its copies.

    A move takes a copy from one expert and gives it to another: half the time any
    two, half the time two of similar load, which exchange their numbers and so leave
    most of the sorted sizes in place. ``heat`` are the first and last temperatures,
    in squares of the unit of sizes.
    """
    greatest, best_E = _anneal(size_ER, copies_E, level, heat, proposals, seeded(seed))
    return float(greatest), best_E


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def greedy_counts(size_ER: FloatArray, slots: int) -> IntArray:
    """Return one copy each, then always one more to the expert of greatest size."""
    experts, most = size_ER.shape
    copies_E = np.ones(experts, dtype=np.int64)
    for _ in range(slots - experts):
        chosen, greatest = -1, -1.0
        for expert in range(experts):
            size = size_ER[expert, copies_E[expert] - 1]
            if copies_E[expert] < most and size > greatest:
                chosen, greatest = expert, size
        copies_E[chosen] += 1
    return copies_E


def paired_slots(size_ER: FloatArray, copies_E: IntArray) -> IdArray:
    """Return slots [G, 2]: the largest with the smallest, no expert with itself.

    Where that pairs an expert with itself, the pair trades with the one that makes
    the lesser greatest load of the two.
    """
    experts = np.arange(copies_E.size)
    size_E = size_ER[experts, copies_E - 1]
    expert_P = np.repeat(experts, copies_E)
    expert_P = expert_P[np.argsort(-size_E[expert_P], kind="stable")]
    gpus = expert_P.size // 2
    slots_GJ = np.stack([expert_P[:gpus], expert_P[::-1][:gpus]], axis=1)
    for gpu in np.flatnonzero(slots_GJ[:, 0] == slots_GJ[:, 1]).tolist():
        twin = slots_GJ[gpu, 0]
        size_GJ = size_E[slots_GJ]
        made_G = size_E[twin] + size_GJ.max(axis=1)
        made_G[(slots_GJ == twin).any(axis=1)] = np.inf
        other = int(np.argmin(made_G))
        slots_GJ[gpu, 1], slots_GJ[other, 1] = slots_GJ[other, 1], twin
    return slots_GJ.astype(np.int16)
