"""A choice for every layer, together the best that what they cost allows."""

from collections.abc import Sequence

import numpy as np

from planner.arrays import FloatArray

Choice = tuple[int, float]
"""What a choice costs, and the value of its layer."""


def best_values(
    layers: Sequence[Sequence[Choice]], most: int, *, worst: bool
) -> FloatArray:
    """Return the least value [N] that 0, 1, … ``most`` pay for; infinite for none."""
    return _swept(layers, most, worst=worst)[1]


def best_choices(
    layers: Sequence[Sequence[Choice]], most: int, *, worst: bool
) -> list[int]:
    """Return the choice of every layer, together the best that ``most`` pays for.

    Parameters
    ----------
    layers
        Choices of every layer; of equal ones the first is taken.
    worst
        Whether the whole has the value of its worst layer, not their sum.
    """
    picks, _ = _swept(layers, most, worst=worst)
    left, chosen = most, []
    for choices, pick_N in zip(reversed(layers), reversed(picks), strict=True):
        pick = int(pick_N[left])
        chosen.append(pick)
        left -= choices[pick][0]
    return chosen[::-1]


def _swept(
    layers: Sequence[Sequence[Choice]], most: int, *, worst: bool
) -> tuple[list[np.ndarray[tuple[int, ...], np.dtype[np.intp]]], FloatArray]:
    """Return every layer's choice [N] by what is left, and the values [N]."""
    best_N: FloatArray = np.zeros(most + 1)
    picks = []
    for choices in layers:
        options_XN = np.full((len(choices), most + 1), np.inf)
        for row_N, (cost, value) in zip(options_XN, choices, strict=True):
            before_N = best_N[: max(0, most + 1 - cost)]
            row_N[cost:] = np.maximum(before_N, value) if worst else before_N + value
        picks.append(options_XN.argmin(axis=0))
        best_N = options_XN.min(axis=0)
    return picks, best_N
