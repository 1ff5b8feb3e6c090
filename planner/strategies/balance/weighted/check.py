"""Check a covering certificate with integers alone, without the solver's code.

What is claimed: E > (J-1)·G + 1 experts cannot be placed so that every GPU carries
at most t. A placement that did would give K = E - (J-1)·G blocks of v_b = (J-1)·g_b + 1
experts, g_b ≥ 1, and of load W_b ≤ g_b·t (see
:mod:`~planner.strategies.balance.weighted.fill`). Multiplied by J - 1 this reads
Σ_{e∈b} (t - (J-1)·w_e) ≥ t: every block is a *cover*, a set of J, 2J - 1, 3J - 2, …
experts of which this holds.

The certificate holds integers n_e and N. Checked is: (1) E > (J-1)·G + 1; (2) Σ n_e <
K·N; (3) every cover has Σ n_e ≥ N. Then K disjoint covers that use every expert would
have Σ n_e ≥ K·N, which (2) denies. (3) is decided by dynamic programming over all sets:
the greatest Σ (t - (J-1)·w_e) among sets of those numbers of experts with Σ n_e ≤ N - 1
must stay below t.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from planner.arrays import IntArray

INT64_LIMIT = 2**61
MOST_SUMS = 2**22


def covering_holds(
    load_E: Sequence[int], gpus: int, slots_per_gpu: int, certificate: Mapping[str, Any]
) -> bool:
    """Tell whether no placement keeps every GPU within the certificate's level."""
    level = Fraction(certificate["level"])
    unit = int(certificate["unit"])
    number_E = [int(number) for number in certificate["multipliers"]]
    blocks = len(load_E) - (slots_per_gpu - 1) * gpus
    if blocks <= 1 or len(number_E) != len(load_E) or slots_per_gpu < 2:
        return False
    if level <= 0 or unit <= 0 or sum(number_E) >= blocks * unit:
        return False
    most = greatest_size(
        item_sizes(load_E, level, slots_per_gpu),
        np.asarray(number_E, dtype=np.int64),
        unit,
        slots_per_gpu,
    )
    return most is not None and most < level.numerator


def item_sizes(
    load_E: Sequence[int], level: Fraction, slots_per_gpu: int
) -> tuple[int, ...]:
    """Return (t - (J-1)·w_e) of every expert, times t's denominator."""
    scale = level.denominator * (slots_per_gpu - 1)
    return tuple(level.numerator - scale * load for load in load_E)


def greatest_size(
    size_E: Sequence[int], number_E: IntArray, unit: int, slots_per_gpu: int
) -> int | None:
    """Return the greatest Σ size over sets of a block's length with Σ number < unit.

    None where sizes or numbers are too large to be decided.
    """
    below = -int(number_E[number_E < 0].sum())
    total = sum(abs(size) for size in size_E)
    if total >= INT64_LIMIT or below + unit > MOST_SUMS:
        return None
    follow_C = following(slots_per_gpu)
    # Column i stands for Σ number = i - below; numbers below zero come first.
    best_CI = np.full((follow_C.size, below + unit), -2 * INT64_LIMIT, dtype=np.int64)
    best_CI[0, below] = 0
    for expert in np.argsort(number_E, kind="stable").tolist():
        number, size = int(number_E[expert]), size_E[expert]
        if number < below + unit:
            to, source = _shifted(below + unit, number)
            grown_CI = best_CI[:, source] + size
            for count, after in enumerate(follow_C.tolist()):
                best_CI[after, to] = np.maximum(best_CI[after, to], grown_CI[count])
    return int(best_CI[slots_per_gpu].max())


def following(slots_per_gpu: int) -> IntArray:
    """Return the class of a set's length after one more expert.

    Classes 0 … J - 1 are lengths; J, …, 2J - 2 stand for them and for all that
    are multiples of J - 1 longer. Blocks have class J.
    """
    last = 2 * slots_per_gpu - 2
    return np.asarray([*range(1, last + 1), slots_per_gpu], dtype=np.int64)


def _shifted(width: int, number: int) -> tuple[slice, slice]:
    """Return where sums arrive, and whence, when ``number`` is added to them."""
    if number < 0:
        return slice(0, width + number), slice(-number, width)
    return slice(number, width), slice(0, width - number)
