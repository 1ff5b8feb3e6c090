"""Free splits: experts that share GPUs form blocks, and not all blocks fit a level.

Join two experts if some GPU holds both. A connected block of v experts on g GPUs of J
slots has at most J·g copies, and at least v + g - 1 are needed to connect it, so
v ≤ (J-1)·g + 1; its busiest GPU carries at least W/g, W being its load. Two blocks of
which one has room for another expert may be counted as one: the mean load of both
lies between theirs. So, where E > (J-1)·G + 1, a plan whose GPUs carry at most t makes
K = E - (J-1)·G blocks of v = (J-1)·g + 1 experts, g ≥ 1, and of load W ≤ g·t each. A
set of experts with these two properties is a *cover*; the second reads
Σ (t - (J-1)·w_e) ≥ t. K disjoint covers hold all experts. Both kinds deny that.

Loads are integers over a common denominator. Axes: E experts, C classes of a set's
length, I sums of multipliers.
"""

from fractions import Fraction
from math import lcm

import numpy as np

from planner.arrays import IntArray
from planner.verifier.certificates.base import CHECKERS, Certificate, Evidence

LARGEST = 2**61
WIDEST = 2**22
"""Most sums that a table has columns for."""
MOST_EXPERTS = 12
"""Most experts of which all sets are gone through."""


@CHECKERS.register("covering")
def covering(certificate: Certificate, evidence: Evidence) -> Fraction:
    """``gpu_tokens``: multipliers of experts deny K disjoint covers at ``level``.

    Integers n_e with Σ n_e < K·N, while every cover has Σ n_e ≥ N.
    """
    level, unit = Fraction(certificate["level"]), int(certificate["unit"])
    number_E = [int(number) for number in certificate["multipliers"]]
    blocks = _blocks(evidence)
    fits = (
        evidence.objective == "gpu_tokens"
        and len(number_E) == evidence.experts
        and blocks > 1
        and level > 0
        and unit > 0
        and sum(number_E) < blocks * unit
    )
    if not fits or sum(map(abs, number_E)) + unit > WIDEST:
        return Fraction(0)
    for load_E in evidence.load_SE:
        sizes, needed = _sizes(load_E, level, evidence.slots_per_gpu)
        if sum(map(abs, sizes)) + needed >= LARGEST:
            continue
        if _largest_cheap(sizes, number_E, unit, evidence.slots_per_gpu) < needed:
            return level
    return Fraction(0)


@CHECKERS.register("partition")
def partition(certificate: Certificate, evidence: Evidence) -> Fraction:
    """``gpu_tokens``, few experts: no partition into K blocks is below ``level``."""
    level, blocks = Fraction(certificate["level"]), _blocks(evidence)
    fits = (
        evidence.objective == "gpu_tokens"
        and evidence.experts <= MOST_EXPERTS
        and blocks > 1
        and level > 0
    )
    if not fits:
        return Fraction(0)
    for load_E in evidence.load_SE:
        sizes, needed = _sizes(load_E, level, evidence.slots_per_gpu)
        if _most_covers(sizes, needed, evidence.slots_per_gpu) < blocks:
            return level
    return Fraction(0)


def _blocks(evidence: Evidence) -> int:
    """K; meaningless unless > 1 and J > 1."""
    if evidence.slots_per_gpu < 2:
        return 0
    return evidence.experts - (evidence.slots_per_gpu - 1) * evidence.layout.ep


def _sizes(
    load_E: list[Fraction], level: Fraction, slots: int
) -> tuple[list[int], int]:
    """Return t - (J-1)·w_e of every expert and t, times a common denominator."""
    common = lcm(level.denominator, *(load.denominator for load in load_E))
    sizes = [int((level - (slots - 1) * load) * common) for load in load_E]
    return sizes, int(level * common)


def _largest_cheap(sizes: list[int], number_E: list[int], unit: int, slots: int) -> int:
    """Return the greatest Σ size of a set of a block's length with Σ number < N.

    ``reached[c, i]`` is the greatest size of a set of class c whose numbers add up to
    i + the sum of all negative ones. Negative numbers come first, so no sum on the
    way to one below N is N or more. Classes 0 … J-1 are lengths; J, …, 2J-2 are
    these lengths and all that are multiples of J-1 longer, J standing for blocks.
    """
    negative = sum(number for number in number_E if number < 0)
    classes, columns = 2 * slots - 1, unit - negative
    reached = np.full((classes, columns), -2 * LARGEST, dtype=np.int64)
    reached[0, -negative] = 0
    for number, size in sorted(zip(number_E, sizes, strict=True)):
        if number >= columns:
            continue
        moved = _moved(reached, number) + size
        after = np.full_like(reached, -2 * LARGEST)
        after[1:] = moved[:-1]
        # A set of the last class grows into a block's length again.
        after[slots] = np.maximum(after[slots], moved[-1])
        np.maximum(reached, np.maximum(after, -2 * LARGEST), out=reached)
    return int(reached[slots].max())


def _moved(reached: IntArray, number: int) -> IntArray:
    """Return the table after every sum has grown by ``number``."""
    moved = np.full_like(reached, -2 * LARGEST)
    columns = reached.shape[1]
    if number >= 0:
        moved[:, number:] = reached[:, : columns - number]
    else:
        moved[:, :number] = reached[:, -number:]
    return moved


def _most_covers(sizes: list[int], needed: int, slots: int) -> int:
    """Return into how many sets of a block's length above a level experts part.

    Strictly above: Σ size > t means W < g·t. All sets of experts, as bits; -1 if the
    experts do not part into such sets.
    """
    everyone = (1 << len(sizes)) - 1
    total = [0] * (everyone + 1)
    covers_of: dict[int, list[int]] = {}
    for chosen in range(1, everyone + 1):
        first = chosen & -chosen
        total[chosen] = total[chosen ^ first] + sizes[first.bit_length() - 1]
        count = chosen.bit_count()
        if count >= slots and (count - 1) % (slots - 1) == 0 and total[chosen] > needed:
            covers_of.setdefault(first, []).append(chosen)
    # The first expert that is left is in the next cover.
    most = [-1] * everyone + [0]
    for left in range(everyone, 0, -1):
        if most[left] < 0:
            continue
        for cover in covers_of.get(left & -left, ()):
            if cover & left == cover:
                rest = left ^ cover
                most[rest] = max(most[rest], most[left] + 1)
    return most[0]
