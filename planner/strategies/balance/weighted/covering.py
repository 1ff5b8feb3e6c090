"""The bound that the blocks prove: multipliers of the covering relaxation, rounded.

Covers are found as they are needed: the multipliers that suffice for the covers known
are rounded up to n/N, and dynamic programming over their sums finds covers that cost
too little. When there are none, the rounded multipliers are a certificate, and what
:func:`~planner.strategies.balance.weighted.check.covering_holds` confirms is claimed.

Axes: E experts by ascending load, C classes of a set's length, I sums of multipliers.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numba import njit

from planner import clock
from planner.arrays import FloatArray, IntArray
from planner.formulation.bin_covering import covering_model
from planner.formulation.mathopt import solve_linear
from planner.strategies.balance.bound import LayerBound, ratio_text
from planner.strategies.balance.weighted.check import (
    INT64_LIMIT,
    covering_holds,
    following,
    greatest_size,
    item_sizes,
)
from planner.strategies.balance.weighted.search import block_count

UNIT = 2048
"""N: rounding costs at most E/N of one of K blocks."""
LEVEL_BITS = 30
FIRST_STEP = Fraction(1, 500)
FIRST_LENGTHS = 4
SOLVER_NOISE = 1e-7
NEVER = -(2**62)

Cover = frozenset[int]
COVERS_SECONDS = 5e-3
"""Rate of counted work: looking for covers once."""


def covering_bound(
    load_E: Sequence[int],
    gpus: int,
    slots_per_gpu: int,
    *,
    value: Fraction,
    floor: Fraction,
    precision: Fraction,
    deadline: float,
) -> LayerBound | None:
    """Return the best bound above ``floor`` found for a plan of this ``value``.

    Levels go down from the value in growing steps until one is proven; then the
    interval is halved, to a relative width of ``precision``. None if nothing above
    the floor was proven.
    """
    if slots_per_gpu < 2 or block_count(len(load_E), gpus, slots_per_gpu) < 2:
        return None
    prover = _Prover(load_E, gpus, slots_per_gpu)
    best, low, high, step = None, floor, value, FIRST_STEP
    while high - low > precision * value and clock.now() < deadline:
        aim = (low + high) / 2 if best else max(low, value * (1 - step))
        level = short_level(max(aim, (low * 3 + high) / 4))
        found = prover.proof(level, deadline) if level > low else None
        if found is None:
            high, step = min(high, level), step * 2
            if level <= low:
                break
        else:
            best, low = found, level
    return best


def short_level(level: Fraction) -> Fraction:
    """Return a level of few digits slightly below."""
    bits = max(0, LEVEL_BITS - int(level).bit_length())
    return Fraction((level * 2**bits).__floor__(), 2**bits)


class _Prover:
    """One layer's covers, kept from level to level."""

    def __init__(self, load_E: Sequence[int], gpus: int, slots_per_gpu: int) -> None:
        self._given = tuple(load_E)
        self._order = sorted(range(len(load_E)), key=lambda expert: load_E[expert])
        self._load_E = tuple(load_E[expert] for expert in self._order)
        self._gpus, self._slots = gpus, slots_per_gpu
        self._blocks = block_count(len(load_E), gpus, slots_per_gpu)
        self._covers: dict[Cover, None] = {}

    def proof(self, level: Fraction, deadline: float) -> LayerBound | None:
        """Return the bound by ``level`` if the relaxation proves it."""
        size_E = item_sizes(self._load_E, level, self._slots)
        if sum(abs(size) for size in size_E) >= INT64_LIMIT:
            return None
        number_E = self._numbers(np.asarray(size_E), level.numerator, deadline)
        if number_E is None:
            return None
        by_expert = [0] * len(self._order)
        for expert, number in zip(self._order, number_E.tolist(), strict=True):
            by_expert[expert] = number
        certificate = {
            "kind": "covering",
            "level": ratio_text(level),
            "unit": UNIT,
            "multipliers": by_expert,
        }
        if not covering_holds(self._given, self._gpus, self._slots, certificate):
            return None
        return LayerBound(value=level, method="covering", certificate=certificate)

    def _numbers(
        self, size_E: IntArray, needed: int, deadline: float
    ) -> IntArray | None:
        """Return rounded multipliers that are enough for every cover."""
        for cover in _first_covers(size_E, needed, self._slots):
            self._covers[cover] = None
        valid = {
            cover: None
            for cover in self._covers
            if int(size_E[list(cover)].sum()) >= needed
        }
        # A heavy expert needs about two light ones for every load of a GPU it has.
        lower_E = np.where(size_E < 0, 2.0 * size_E / needed - 4.0, 0.0)
        upper_E = np.ones(size_E.size)
        while clock.now() < deadline:
            solved = solve_linear(
                covering_model(lower_E, upper_E, valid.keys()),
                deadline - clock.now(),
                simplex=True,
            )
            if not solved.solutions or solved.reason != "optimal":
                return None
            number_E = _rounded_up(solved.solutions[0])
            if solved.solutions[0].sum() >= self._blocks:
                return None
            clock.spend(COVERS_SECONDS)
            found = _cheap_covers(size_E, needed, number_E, self._slots) - valid.keys()
            if not found:
                return self._if_enough(number_E)
            self._covers.update(dict.fromkeys(found))
            valid.update(dict.fromkeys(found))
        return None

    def _if_enough(self, number_E: IntArray) -> IntArray | None:
        enough = int(number_E.sum()) < self._blocks * UNIT
        return number_E if enough else None


def _rounded_up(y_E: FloatArray) -> IntArray:
    return np.ceil(y_E * UNIT - SOLVER_NOISE).astype(np.int64)


def _first_covers(size_E: IntArray, needed: int, slots: int) -> list[Cover]:
    """Return covers of one expert and a run of experts of similar load.

    Sizes descend. Of each of the first lengths that are possible, the run of the
    least sizes.
    """
    total_E = np.concatenate([[0], np.cumsum(size_E)])
    covers = []
    for expert, size in enumerate(size_E.tolist()):
        found = 0
        for length in range(slots - 1, size_E.size, slots - 1):
            run_E = total_E[length:] - total_E[:-length]
            last = int(np.searchsorted(-run_E, size - needed, side="right")) - 1
            run = frozenset(range(last, last + length))
            if last >= 0 and expert not in run:
                covers.append(run | {expert})
                found += 1
            if found == (1 if size >= 0 else FIRST_LENGTHS):
                break
    return covers


def _cheap_covers(
    size_E: IntArray, needed: int, number_E: IntArray, slots: int
) -> set[Cover]:
    """Return covers whose numbers add up to less than N; none: there are none.

    First those with at most one number below zero; if there are none, any.
    """
    light = int((number_E >= 0).sum())
    follow_C = following(slots)
    width = UNIT - min(0, int(number_E.min()))
    search = _Sums(size_E[:light], number_E[:light], 0, width, follow_C)
    covers: set[Cover] = set()
    for at in search.reaching(needed, UNIT, (slots,)):
        covers.add(search.traced(*at))
    before = tuple(np.flatnonzero(follow_C == slots).tolist())
    for heavy in range(light, size_E.size):
        limit = UNIT - int(number_E[heavy])
        for at in search.reaching(needed - int(size_E[heavy]), limit, before)[:1]:
            covers.add(search.traced(*at) | {heavy})
    if covers:
        return covers
    most = greatest_size(size_E.tolist(), number_E, UNIT, slots)
    if most is None or most < needed:
        return set()
    below = -int(number_E[number_E < 0].sum())
    search = _Sums(size_E, number_E, below, below + UNIT, follow_C)
    found = search.reaching(needed, below + UNIT, (slots,))[:1]
    return {search.traced(*at) for at in found}


class _Sums:
    """The greatest size for every class of length and sum of numbers."""

    def __init__(
        self,
        size_E: IntArray,
        number_E: IntArray,
        below: int,
        width: int,
        follow_C: IntArray,
    ) -> None:
        self._order = np.argsort(number_E, kind="stable")
        self._number_E, self._follow_C = number_E, follow_C
        self.best_CI, self._from_ECI = _greatest(
            size_E[self._order], number_E[self._order], below, width, follow_C
        )

    def reaching(
        self, needed: int, limit: int, classes: tuple[int, ...]
    ) -> list[tuple[int, int]]:
        """Return a few (class, sum) below ``limit`` that reach ``needed``.

        The least sum comes first.
        """
        found: list[tuple[int, int]] = []
        for length in classes:
            sums = np.flatnonzero(self.best_CI[length, :limit] >= needed)
            if sums.size:
                chosen = {int(sums[0]), int(sums[sums.size // 2]), int(sums[-1])}
                found.extend((at, length) for at in chosen)
        return [(length, at) for at, length in sorted(found)]

    def traced(self, length: int, at: int) -> Cover:
        """Return the set behind an entry."""
        cover = []
        for place in range(self._order.size - 1, -1, -1):
            before = int(self._from_ECI[place, length, at])
            if before >= 0:
                expert = int(self._order[place])
                cover.append(expert)
                at -= int(self._number_E[expert])
                length = before
        return frozenset(cover)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _greatest(
    size_E: IntArray, number_E: IntArray, below: int, width: int, follow_C: IntArray
) -> tuple[IntArray, Any]:
    """Return the greatest sizes [C, I], and whence each expert came there or -1."""
    classes = follow_C.size
    best_CI = np.full((classes, width), NEVER, dtype=np.int64)
    from_ECI = np.full((size_E.size, classes, width), -1, dtype=np.int16)
    best_CI[0, below] = 0
    for expert in range(size_E.size):
        number, size = number_E[expert], size_E[expert]
        before_CI = best_CI.copy()
        for length in range(classes):
            after = follow_C[length]
            for at in range(max(0, number), min(width, width + number)):
                grown = before_CI[length, at - number] + size
                if grown > best_CI[after, at]:
                    best_CI[after, at] = grown
                    from_ECI[expert, after, at] = length
    return best_CI, from_ECI
