"""Two slots per GPU, copies of equal load: no plan fits below a level.

Let a plan fill every GPU with two copies and load at most t, expert e having r_e
copies of size w_e/r_e. A copy of at least t − s has a partner of at most s, so for
every s < t/2 the slots with size >= t − s number at most those with size <= s. Copies
of size above t do not occur. Adding these rows with multipliers y_s >= 0 and Σ r = P
with λ: if

    Σ_e min_r r · (Σ_s y_s · ([size >= t − s] − [size <= s]) − λ) + λ · P > 0,

with r over the numbers of copies that e can have, no plan is at t or below. A proof
may split cases: some expert has at most k copies, or more. Axes: E experts, R numbers
of copies 1, 2, ….
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np

from planner.arrays import BoolArray, ExactArray, IntArray
from planner.verifier.certificates.base import CHECKERS, Certificate, Evidence
from planner.workload.parts import TokenPart

_KNUTH = np.uint64(2654435769)
_LOW = np.uint64(0xFFFFFFFF)


@CHECKERS.register("threshold")
def threshold(certificate: Certificate, evidence: Evidence) -> Fraction:
    """``gpu_tokens``, two slots, :func:`even_loads`."""
    level = Fraction(certificate["level"])
    if not even_loads(evidence) or evidence.slots_per_gpu != 2 or level <= 0:
        return Fraction(0)
    sizes = least_sizes(evidence)
    case = all_cases(evidence.experts, sizes.copies)
    return level if _refuted(certificate, sizes, level, case) else Fraction(0)


def even_loads(evidence: Evidence) -> bool:
    """Whether copies carry what :func:`least_sizes` counts, on every GPU.

    An expert's only copy carries all of it, whatever chooses among copies.
    """
    counted = not isinstance(evidence.part, TokenPart)
    single = evidence.slot_count == evidence.experts
    return (
        evidence.objective == "gpu_tokens"
        and (evidence.selection == "even" or single)
        and (evidence.layout.sets == 1 or counted)
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sizes:
    """The least that a copy carries: ``count_ER`` / ``over_R``, P slots in all."""

    count_ER: ExactArray
    over_R: ExactArray
    slots: int

    @property
    def copies(self) -> int:
        """R."""
        return int(self.over_R.size)

    def at_most(self, limit: Fraction) -> BoolArray:
        """Whether a size is at most ``limit``."""
        most: BoolArray = self.count_ER * limit.denominator <= (
            self.over_R * limit.numerator
        )
        return np.asarray(most, dtype=np.bool_)

    def at_least(self, limit: Fraction) -> BoolArray:
        """Whether a size is at least ``limit``."""
        least: BoolArray = self.count_ER * limit.denominator >= (
            self.over_R * limit.numerator
        )
        return np.asarray(least, dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """Copies that each expert may have."""

    low_E: IntArray
    high_E: IntArray

    def can(self, sizes: Sizes, level: Fraction) -> BoolArray | None:
        """Return the numbers of copies of plans within the level; None without one."""
        number_R = np.arange(1, sizes.copies + 1)
        can_ER = sizes.at_most(level) & (number_R >= self.low_E[:, None])
        can_ER &= number_R <= self.high_E[:, None]
        if not can_ER.any(axis=1).all():
            return None
        # The others need their least, so an expert has at most that and what is left.
        least_E = 1 + can_ER.argmax(axis=1)
        left = sizes.slots - int(least_E.sum())
        can_ER &= number_R <= (least_E + left)[:, None]
        return None if left < 0 else can_ER


def all_cases(experts: int, copies: int) -> Case:
    """Return 1 … R copies for every expert."""
    whole = np.ones(experts, dtype=np.int64)
    return Case(low_E=whole, high_E=whole * copies)


def least_sizes(evidence: Evidence) -> Sizes:
    """Return the least pairs that any of r copies can get (rule 28).

    Counts give each copy an equal share; tokens go to copy
    ((i · 2654435769) mod 2³²) mod r by ordinal i (rule 18).
    """
    slots, part = evidence.slot_count, evidence.part
    most = min(slots - evidence.experts + 1, evidence.layout.ep)
    number_R = np.arange(1, most + 1)
    if not isinstance(part, TokenPart):
        loads = evidence.load_SE[0]
        common = lcm(*(load.denominator for load in loads))
        whole_E = np.asarray([int(load * common) for load in loads], dtype=object)
        count_ER = np.repeat(whole_E[:, None], most, axis=1)
        return Sizes(
            count_ER=count_ER, over_R=number_R.astype(object) * common, slots=slots
        )
    count_ER = np.zeros((evidence.experts, most), dtype=object)
    for expert in range(evidence.experts):
        chose_T = (part.experts_LTK[evidence.layer] == expert).any(axis=1)
        hashed = (part.ordinal_T[chose_T].astype(np.uint64) * _KNUTH) & _LOW
        for copies in number_R.tolist():
            copy = (hashed % np.uint64(copies)).astype(np.int64)
            count_ER[expert, copies - 1] = int(
                np.bincount(copy, minlength=copies).min()
            )
    return Sizes(count_ER=count_ER, over_R=np.ones(most, dtype=object), slots=slots)


def _refuted(
    proof: Mapping[str, Any], sizes: Sizes, level: Fraction, case: Case
) -> bool:
    """Whether the proof shows that no plan of this case stays within the level."""
    if "expert" not in proof:
        return _leaf(proof, sizes, level, case)
    expert, most = int(proof["expert"]), int(proof["at_most"])
    few_E, many_E = case.high_E.copy(), case.low_E.copy()
    few_E[expert] = min(few_E[expert], most)
    many_E[expert] = max(many_E[expert], most + 1)
    few = Case(low_E=case.low_E, high_E=few_E)
    many = Case(low_E=many_E, high_E=case.high_E)
    return _refuted(proof["low"], sizes, level, few) and _refuted(
        proof["high"], sizes, level, many
    )


def _leaf(proof: Mapping[str, Any], sizes: Sizes, level: Fraction, case: Case) -> bool:
    rows = [(Fraction(s), Fraction(y)) for s, y in proof["rows"].items()]
    if any(y < 0 or s < 0 or 2 * s >= level for s, y in rows):
        return False
    copies = Fraction(proof["copies"])
    common = lcm(copies.denominator, *(y.denominator for _, y in rows))
    can_ER = case.can(sizes, level)
    if can_ER is None:
        return True
    number_R = np.arange(1, sizes.copies + 1)
    price_ER = np.full(can_ER.shape, -int(copies * common), dtype=object)
    for s, y in rows:
        sign_ER = sizes.at_least(level - s).astype(int) - sizes.at_most(s).astype(int)
        price_ER += int(y * common) * sign_ER.astype(object)
    cost_ER = price_ER * number_R.astype(object)
    cheapest = sum(
        int(row[can].min()) for row, can in zip(cost_ER, can_ER, strict=True)
    )
    return cheapest + int(copies * common) * sizes.slots > 0
