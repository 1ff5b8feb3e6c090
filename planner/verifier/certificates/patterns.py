"""Several slots per GPU, copies of equal load: no plan fits below a level.

Cut the level t into N cells and round every size down: a copy of size z is in cell
⌊z·N/t⌋. Give every cell an integer weight (``steps``: from a cell on, up to the next
one named). If a plan is within t, the cells of a GPU's J copies add up to at most N;
let M be the most that J copies of such cells can weigh. Then all copies of the plan
weigh at most G·M. So, if

    Σ_e min_r r · weight(cell of size[e, r]) > G·M,

with r over the numbers of copies that e can have, no plan is at t or below. M is found
by dynamic programming over the cells named: a copy in a cell between two of them
weighs what the lower one does, and takes no less room.
"""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from planner.arrays import BoolArray, ExactArray, IntArray
from planner.verifier.certificates.base import CHECKERS, Certificate, Evidence
from planner.verifier.certificates.threshold import (
    Sizes,
    all_cases,
    even_loads,
    least_sizes,
)

FINEST = 2**16
"""Most cells of a level."""
HEAVIEST = 2**40
"""Greatest weight; sums of J of them stay within 64 bits."""
NONE = -(2**61)


@CHECKERS.register("patterns")
def patterns(certificate: Certificate, evidence: Evidence) -> Fraction:
    """``gpu_tokens``, :func:`even_loads`."""
    level, grid = Fraction(certificate["level"]), int(certificate["grid"])
    weight_S = {int(cell): int(weight) for cell, weight in certificate["steps"].items()}
    fits = (
        even_loads(evidence)
        and level > 0
        and 0 < grid <= FINEST
        and evidence.slots_per_gpu < FINEST
        and all(0 <= cell <= grid for cell in weight_S)
        and all(abs(weight) <= HEAVIEST for weight in weight_S.values())
    )
    if not fits or not weight_S:
        return Fraction(0)
    sizes = least_sizes(evidence)
    can_ER = all_cases(evidence.experts, sizes.copies).can(sizes, level)
    if can_ER is None:
        return level
    least = _lightest(weight_S, _cells(sizes, level, grid, can_ER), can_ER)
    most = evidence.layout.ep * _heaviest(weight_S, grid, evidence.slots_per_gpu)
    return level if least is not None and least > most else Fraction(0)


def _cells(sizes: Sizes, level: Fraction, grid: int, can_ER: BoolArray) -> IntArray:
    """Return the cell of every size that can be; others do not matter."""
    cell_ER: ExactArray = (sizes.count_ER * (grid * level.denominator)) // (
        sizes.over_R * level.numerator
    )
    return np.where(can_ER, cell_ER, 0).astype(np.int64)


def _heaviest(weight_S: Mapping[int, int], grid: int, slots: int) -> int:
    """Return what ``slots`` copies of cells of sum at most ``grid`` weigh at most."""
    best = np.zeros(grid + 1, dtype=np.int64)
    for _ in range(slots):
        more = np.full(grid + 1, NONE, dtype=np.int64)
        for cell, weight in weight_S.items():
            np.maximum(more[cell:], best[: grid + 1 - cell] + weight, out=more[cell:])
        best = more
    return int(best[grid])


def _lightest(
    weight_S: Mapping[int, int], cell_ER: IntArray, can_ER: BoolArray
) -> int | None:
    """Return what all copies weigh at least; None if a size has no weight."""
    cell_S = np.asarray(sorted(weight_S), dtype=np.int64)
    whole_S = np.asarray([weight_S[cell] for cell in cell_S.tolist()], dtype=object)
    step_ER = np.searchsorted(cell_S, cell_ER, side="right") - 1
    if (step_ER[can_ER] < 0).any():
        return None
    cost_ER = whole_S[step_ER] * np.arange(1, cell_ER.shape[1] + 1).astype(object)
    return sum(int(row[can].min()) for row, can in zip(cost_ER, can_ER, strict=True))
