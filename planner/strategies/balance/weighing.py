"""Weights of copies by size: no placement stays within a level, checked exactly.

Sizes are rounded down to cells of level/N. If J copies on a GPU that together stay
within the level never weigh more than M, and all copies together, whatever their
numbers, weigh more than G·M, no placement stays within the level. A weight belongs to
all cells from its own to the next one given. Only integers are compared here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numba import njit

from planner.arrays import BoolArray, IntArray
from planner.strategies.balance.problem import BalanceLayer

NEVER = -(2**60)
LARGEST_WEIGHT = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Integer weights by the first cell that they belong to, of ``grid`` cells (N)."""

    grid: int
    steps: Mapping[int, int]


def cells(layer: BalanceLayer, level: Fraction, grid: int) -> IntArray:
    """Return ⌊size·N/level⌋ [E, R], N + 1 for all above N."""
    count_ER = layer.least_ER.astype(object) * (grid * level.denominator)
    over_R = layer.divisor_R.astype(object) * level.numerator
    cell_ER: IntArray = np.minimum(count_ER // over_R, grid + 1).astype(np.int64)
    return cell_ER


def outweighs(
    layer: BalanceLayer, level: Fraction, weights: Weights, usable_ER: BoolArray
) -> bool:
    """Tell whether the usable numbers of copies weigh more than G GPUs can hold."""
    cell_S = np.asarray(sorted(weights.steps), dtype=np.int64)
    weight_S = np.asarray([weights.steps[cell] for cell in cell_S.tolist()])
    if not cell_S.size or abs(weight_S).max() > LARGEST_WEIGHT or cell_S[0] < 0:
        return False
    cell_ER = cells(layer, level, weights.grid)
    step_ER = np.searchsorted(cell_S, cell_ER, side="right") - 1
    if (step_ER[usable_ER] < 0).any():
        return False
    numbers_R = np.arange(1, layer.most_copies + 1)
    weight_ER = np.where(usable_ER, weight_S[step_ER] * numbers_R, -NEVER)
    best_JC, _ = most_weight(cell_S, weight_S, weights.grid, layer.slots_per_gpu)
    most = int(best_JC[-1, -1])
    least = sum(weight_ER.min(axis=1).tolist())
    return most <= NEVER // 2 or least > layer.gpus * most


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def most_weight(cell_S: Any, weight_S: Any, grid: int, slots: int) -> Any:
    """Return what 0 … J copies of cells of sum ≤ c weigh at most, and the last step.

    Of integers for proofs, of floats where patterns are looked for.
    """
    best_JC = np.zeros((slots + 1, grid + 1), dtype=weight_S.dtype)
    step_JC = np.full((slots + 1, grid + 1), -1, dtype=np.int64)
    for count in range(1, slots + 1):
        best_JC[count, :] = NEVER
        for step in range(cell_S.size):
            cell, weight = cell_S[step], weight_S[step]
            for total in range(cell, grid + 1):
                value = best_JC[count - 1, total - cell] + weight
                if value > best_JC[count, total]:
                    best_JC[count, total] = value
                    step_JC[count, total] = step
    return best_JC, step_JC
