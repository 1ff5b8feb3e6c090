"""Matchings whose costliest place is cheapest, in one leg and in two together."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf

import numpy as np

from planner import clock
from planner.arrays import BoolArray, IntArray

Costs = list[list[Fraction]]
"""By expert and position."""

CELL_SECONDS = 4e-7
"""Counted per expert and position of a largest matching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """The best pair of legs found, the least of any, and each unit's positions."""

    value: Fraction
    least: Fraction
    placed: list[IntArray]


def least_sum(units: Sequence[tuple[Costs, Costs]], until: float = inf) -> Paired:
    """Return the least sum of both legs' largest costs, and each unit's positions.

    One leg's largest cost is raised step by step; below it the other leg is matched
    as cheaply as can be. It stops where even the other leg's own least cannot help,
    or ``until`` is past on the clock in force: ``least`` then holds for the steps
    that were not taken.
    """
    least = [max(bottleneck(unit[leg])[0] for unit in units) for leg in (0, 1)]
    steps = sorted({cost for unit in units for row in unit[0] for cost in row})
    best: tuple[Fraction, list[IntArray]] | None = None
    for most in steps[bisect_left(steps, least[0]) :]:
        if best is not None and most + least[1] >= best[0]:
            break
        if best is not None and clock.now() >= until:
            return Paired(value=best[0], least=most + least[1], placed=best[1])
        found = [bottleneck(second, _up_to(first, most)) for first, second in units]
        value = most + max(cost for cost, _ in found)
        if best is None or value < best[0]:
            best = value, [position_E for _, position_E in found]
    assert best is not None  # the least of the first leg is a step
    return Paired(value=best[0], least=best[0], placed=best[1])


def bottleneck(
    costs: Costs, allowed: BoolArray | None = None
) -> tuple[Fraction, IntArray]:
    """Return the least largest cost of a perfect matching, and the matching.

    ``allowed`` has one.
    """
    values = sorted({cost for row in costs for cost in row})
    low, high = 0, len(values) - 1
    found = largest_matching(_masked(costs, values[high], allowed))
    while low < high:
        middle = (low + high) // 2
        matched = largest_matching(_masked(costs, values[middle], allowed))
        if (matched >= 0).all():
            high, found = middle, matched
        else:
            low = middle + 1
    return values[high], found


def _masked(costs: Costs, most: Fraction, allowed: BoolArray | None) -> BoolArray:
    mask = _up_to(costs, most)
    return mask if allowed is None else mask & allowed


def _up_to(costs: Costs, most: Fraction) -> BoolArray:
    return np.asarray([[cost <= most for cost in row] for row in costs], dtype=np.bool_)


def largest_matching(mask: BoolArray) -> IntArray:
    """Return each expert's position in a largest matching, -1 where unmatched."""
    clock.spend(mask.size * CELL_SECONDS)
    holder = [-1] * mask.shape[1]
    open_to = [np.flatnonzero(row).tolist() for row in mask]
    for expert in range(len(open_to)):
        _seat(expert, open_to, holder, set())
    position_E = np.full(len(open_to), -1, dtype=np.int64)
    for position, expert in enumerate(holder):
        if expert >= 0:
            position_E[expert] = position
    return position_E


def _seat(
    expert: int, open_to: list[list[int]], holder: list[int], seen: set[int]
) -> bool:
    """Seat an expert, moving others along where that frees a position."""
    for position in open_to[expert]:
        if position in seen:
            continue
        seen.add(position)
        if holder[position] < 0 or _seat(holder[position], open_to, holder, seen):
            holder[position] = expert
            return True
    return False
