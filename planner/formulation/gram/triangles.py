"""Triangle rows: experts that share a group with f share it with each other.

    Y[e, f] + Y[f, g] − Y[e, g] <= 1        with Y = Σ_n X_n

Multipliers [F, E, E] hold e < g; the middle expert f comes first.
"""

import numpy as np
from numba import njit

from planner.arrays import FloatArray, IntArray


def squared_norm(experts: int, groups: int) -> float:
    """Return the largest eigenvalue of the rows' Gram matrix, as a map of all M.

    Of the pairs of a complete graph it is 3E − 4; M holds each pair twice.
    """
    return groups * max(1.0, (3 * experts - 4) / 2)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def raise_prices(
    shared_EE: FloatArray, step: float, price_FEE: FloatArray, sum_EE: FloatArray
) -> None:
    """Move the multipliers by what the rows are exceeded; put their sum on pairs."""
    experts = shared_EE.shape[0]
    sum_EE[:] = 0.0
    for middle in range(experts):
        for one in range(experts):
            if one == middle:
                continue
            near = shared_EE[one, middle] - 1.0
            for other in range(one + 1, experts):
                if other == middle:
                    continue
                over = near + shared_EE[middle, other] - shared_EE[one, other]
                price = max(0.0, price_FEE[middle, one, other] + step * over)
                price_FEE[middle, one, other] = price
                if price > 0.0:
                    half = price / 2
                    sum_EE[one, middle] += half
                    sum_EE[middle, one] += half
                    sum_EE[middle, other] += half
                    sum_EE[other, middle] += half
                    sum_EE[one, other] -= half
                    sum_EE[other, one] -= half


def on_pairs(rows_R: IntArray, price_R: FloatArray, experts: int) -> FloatArray:
    """Return what the rows (f, e, g) put on pairs at these prices."""
    sum_EE = np.zeros((experts, experts))
    middle, one, other = rows_R
    for left, right, sign in ((one, middle, 1), (middle, other, 1), (one, other, -1)):
        np.add.at(sum_EE, (left, right), sign * price_R / 2)
        np.add.at(sum_EE, (right, left), sign * price_R / 2)
    return sum_EE
