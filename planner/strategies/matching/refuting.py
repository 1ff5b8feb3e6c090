"""Why no matching is cheaper than a level: what the verifier checks again.

Below the level the costliest dispatch lies between two of its values; in each such
interval some experts may take too few positions (König), which are written down for
the longest intervals that one such set refutes.
"""

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from planner.arrays import BoolArray, IntArray
from planner.strategies.matching.pairing import Costs, largest_matching


class _Ranked(NamedTuple):
    """A unit's dispatch costs as places among all steps, and its combine costs."""

    step_EP: IntArray
    combine: Costs


def refutations(
    units: Sequence[tuple[Costs, Costs]], level: Fraction
) -> list[dict[str, Any]]:
    """Return the refuted intervals, ascending; none of the plans is below ``level``."""
    steps = sorted({cost for unit in units for row in unit[0] for cost in row})
    place = {step: number for number, step in enumerate(steps)}
    ranked = [
        _Ranked(
            step_EP=np.asarray([[place[cost] for cost in row] for row in first]),
            combine=second,
        )
        for first, second in units
    ]
    found, begin = [], 0
    while begin < len(steps):
        cheap = [_below(unit.combine, level - steps[begin]) for unit in ranked]
        last, claim = _longest(ranked, cheap, begin, len(steps) - 1)
        ends = last == len(steps) - 1
        found.append({"upto": None if ends else str(steps[last]), **claim})
        begin = last + 1
    return found


def _below(costs: Costs, most: Fraction) -> BoolArray:
    values = sorted({cost for row in costs for cost in row})
    place = {value: number for number, value in enumerate(values)}
    number_EP = np.asarray([[place[cost] for cost in row] for row in costs])
    below_EP: BoolArray = number_EP < bisect_left(values, most)
    return below_EP


def _longest(
    ranked: Sequence[_Ranked], cheap: Sequence[BoolArray], begin: int, end: int
) -> tuple[int, dict[str, Any]]:
    """Return the last step up to which one set refutes all, and the set."""
    low, kept = begin, _blocked(ranked, cheap, begin)
    if kept is None:
        raise ValueError("a plan is below the level that is to be refuted")
    high = end
    while low < high:
        middle = (low + high + 1) // 2
        claim = _blocked(ranked, cheap, middle)
        if claim is None:
            high = middle - 1
        else:
            low, kept = middle, claim
    return low, kept


def _blocked(
    ranked: Sequence[_Ranked], cheap: Sequence[BoolArray], last: int
) -> dict[str, Any] | None:
    """Return experts and places of a unit without an open pair, too many to match."""
    for number, (unit, cheap_EP) in enumerate(zip(ranked, cheap, strict=True)):
        open_EP = cheap_EP & (unit.step_EP <= last)
        position_E = largest_matching(open_EP)
        if (position_E >= 0).all():
            continue
        experts, places = _reached(open_EP, position_E)
        barred = np.flatnonzero(~np.isin(np.arange(position_E.size), places))
        return {"unit": number, "experts": experts, "places": barred.tolist()}
    return None


def _reached(open_EP: BoolArray, position_E: IntArray) -> tuple[list[int], list[int]]:
    """Return what alternating paths reach from an expert that has no position."""
    holder = {position: expert for expert, position in enumerate(position_E.tolist())}
    experts, places = [int(np.argmin(position_E))], set[int]()
    for expert in experts:
        for position in np.flatnonzero(open_EP[expert]).tolist():
            if position not in places:
                places.add(position)
                experts.append(holder[position])
    return sorted(experts), sorted(places)
