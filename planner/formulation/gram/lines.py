"""Which lines under 1/c stand for every (token, expert), and their sums.

If c experts of a token share a group, each of them brings 1/c of the visit, and

    1/c >= (2k + 1 − c) / (k·(k + 1))        for whole c, k >= 1,

with equality at k and k + 1. The line is chosen at a guide, an expected c; near a
knot two lines are mixed, which keeps the choice smooth.
"""

import numpy as np
from numba import njit

from planner.arrays import FloatArray, IntArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sum_lines(
    experts_TK: IntArray,
    source_T: IntArray,
    guide_EE: FloatArray,
    soft: float,
    sums: tuple[FloatArray, FloatArray],
) -> None:
    """Sum intercepts [S, E] and slopes [S, E, E] of all lines, by source.

    A visit costs at least intercept · x[e] minus slope · X[e, f] summed over the
    token's experts e and the others f; ``guide_EE`` holds 1 on its diagonal.
    """
    alone_SE, pair_SEE = sums
    alone_SE[:] = 0.0
    pair_SEE[:] = 0.0
    tokens, choices = experts_TK.shape
    for token in range(tokens):
        source = source_T[token]
        for i in range(choices):
            expert = experts_TK[token, i]
            if expert < 0:
                continue
            expected = 0.0
            for j in range(choices):
                if experts_TK[token, j] >= 0:
                    expected += guide_EE[expert, experts_TK[token, j]]
            expected = max(expected, 1.0)
            knot = int(np.floor(expected + 0.5))
            upper = min(1.0, max(0.0, 0.5 + (expected - knot) / (2.0 * soft)))
            if knot == 1:
                upper = 1.0
            slope = upper / (knot * (knot + 1))
            start = slope * (2 * knot + 1)
            if knot > 1:
                other = (1.0 - upper) / (knot * (knot - 1))
                slope += other
                start += other * (2 * knot - 1)
            alone_SE[source, expert] += start - slope
            for j in range(choices):
                if j != i and experts_TK[token, j] >= 0:
                    pair_SEE[source, expert, experts_TK[token, j]] += slope
