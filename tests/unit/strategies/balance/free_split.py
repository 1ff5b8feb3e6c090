"""The least greatest load under free splits by trying everything.

The oracle of one placement is a linear program: no code of the planner's.
"""

from fractions import Fraction

import numpy as np
from scipy.optimize import linprog

from tests.unit.strategies.balance.enumeration import placements, split


def least_load(loads: list[int], gpus: int, slots: int) -> Fraction:
    """Return the optimum over all placements and splits."""
    rows = {
        tuple(sorted(map(tuple, split(placed, slots))))
        for placed in placements(len(loads), gpus, slots)
    }
    return min(split_load(loads, [list(gpu) for gpu in row]) for row in rows)


def split_load(loads: list[int], rows: list[list[int]]) -> Fraction:
    """Return the least greatest load of a placement over all splits.

    Minimize t: shares of every expert add up to its load, a GPU has at most t. Its
    value is a load of some experts over a number of GPUs, which makes it exact.
    """
    held = [(expert, gpu) for gpu, row in enumerate(rows) for expert in row]
    equal = np.zeros((len(loads), len(held) + 1))
    above = np.zeros((len(rows), len(held) + 1))
    for column, (expert, gpu) in enumerate(held):
        equal[expert, column] = above[gpu, column] = 1
    above[:, -1] = -1
    solved = linprog(
        [0] * len(held) + [1],
        A_ub=above,
        b_ub=[0] * len(rows),
        A_eq=equal,
        b_eq=loads,
    )
    assert solved.status == 0
    return Fraction(solved.fun).limit_denominator(len(rows))
