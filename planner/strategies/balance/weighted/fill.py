"""Fill GPUs to one exact level: when free splits reach the mean, and how.

A placement whose copies carry free shares splits into connected blocks of experts
and GPUs. A block of v experts on g GPUs is connected by at least v + g - 1 copies, and
has J·g slots at most, so **v ≤ (J-1)·g + 1**; its busiest GPU carries at least W/g, W
being the block's load. This module shows the converse.

**Theorem.** v ≤ (J-1)·g + 1 experts of total load g·T can be laid out on g GPUs of J
slots so that every GPU carries exactly T.

Proof, by induction on g. Add experts without load until v = (J-1)·g + 1; g = 1 is then
J experts of total load T. For g > 1 order the experts by load. The J - 1 least carry
at most (J-1)·g·T/v < T together, and the J greatest at least J·g·T/v ≥ T, because
J·g ≥ (J-1)·g + 1. If the J - 1 least and the greatest carry T or more, let S be
these. Otherwise replace the least of them by the next greatest, one after the other,
until the J greatest are reached; at the first set S that carries T or more, the set
before it carried less. In both cases S contains an expert b such that S without b
carries at most T and S carries at least T. One GPU takes S without b whole and fills
up with b to exactly T. What is left is v - (J-1) experts of total load (g-1)·T, b's
rest among them, and the hypothesis applies. ∎

Hence every load is spread exactly evenly over G GPUs where **E ≤ (J-1)·G + 1**,
which is P = J·G ≥ E + G - 1 (two slots, E ≤ G: Walker's alias table). And in general
the least busiest load is the least max W_b/g_b over partitions of the experts
into blocks with Σ g_b ≤ G and v_b ≤ (J-1)·g_b + 1. Where E > (J-1)·G + 1, exactly
K = E - (J-1)·G blocks with v_b = (J-1)·g_b + 1 are enough: a block with room for one
more expert can be merged with any other, and the merged block's W/g lies between
theirs.
"""

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, lcm

import numpy as np

from planner.arrays import IdArray

Weights = Mapping[int, tuple[int, ...]]
"""Integer weights of the copies, in copy order, of experts with several."""

WEIGHT_SUM = 2**31
"""Weights of one expert add up to no more (rule 19)."""
COMMON_BITS = 64
"""Weights are exact while the sums' least common multiple has at most these."""
MARGINS = tuple(5**step * 2**12 // 4**step for step in range(45))
"""Levels tried for rounded weights exceed the exact one by 2⁻⁴⁸ of it times these."""
FINER = (13, 14, 15)
"""Sixteenths of the first margin that suffices which are tried then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Experts that share some GPUs with each other and with nothing else."""

    experts: tuple[int, ...]
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Whole amounts: loads times ``unit``, split in multiples of ``grain_E``."""

    amount_E: Mapping[int, int]
    grain_E: Mapping[int, int]


Row = list[tuple[int, int]]
"""The copies of one GPU: amount and expert (-1: an empty slot)."""


def mean_is_reached(experts: int, gpus: int, slots_per_gpu: int) -> bool:
    """Tell whether every load of that many experts can be spread exactly evenly."""
    return experts <= (slots_per_gpu - 1) * gpus + 1


def filled(
    blocks: Sequence[Block], load_E: Sequence[int], slots_per_gpu: int
) -> tuple[IdArray, Weights]:
    """Lay out blocks one after the other; return the slots and the split.

    Every GPU of a block carries the block's mean: exactly, where the weights this
    needs are small; otherwise to about 10⁻⁹. Slots that a block does not need get
    copies that carry nothing.
    """
    exact = [_filled_exactly(block, load_E, slots_per_gpu) for block in blocks]
    slots_GJ, parts = _laid_out(exact, load_E, slots_per_gpu)
    weights = exact_weights(parts)
    if weights is not None:
        return slots_GJ, weights
    rounded = [_filled_in_weights(block, load_E, slots_per_gpu) for block in blocks]
    slots_GJ, parts = _laid_out(rounded, load_E, slots_per_gpu)
    # A part is its weight times the expert's load.
    weights = {
        expert: tuple(part // load_E[expert] for part in amounts)
        for expert, amounts in parts.items()
    }
    return slots_GJ, weights


def exact_weights(parts: Mapping[int, Sequence[int]]) -> Weights | None:
    """Return the least weights in the proportions of ``parts``.

    None where they would be too large for rule 19, or for the common denominator
    of an evaluation to stay short.
    """
    weights = {}
    for expert, amounts in parts.items():
        common = gcd(*amounts)
        weights[expert] = tuple(amount // common for amount in amounts)
    sums = [sum(given) for given in weights.values()]
    if max(sums, default=1) > WEIGHT_SUM or lcm(*sums).bit_length() > COMMON_BITS:
        return None
    return weights


def _filled_exactly(
    block: Block, load_E: Sequence[int], slots_per_gpu: int
) -> list[Row]:
    """Return the rows of a block, amounts in units of 1/g."""
    scale = _Scale(
        amount_E={expert: load_E[expert] * block.gpus for expert in block.experts},
        grain_E=dict.fromkeys(block.experts, 1),
    )
    level = sum(load_E[expert] for expert in block.experts)
    rows = _rows(block, scale, level, slots_per_gpu)
    if rows is None:
        raise ValueError("more experts than a connected block of that size holds")
    return rows


def _filled_in_weights(
    block: Block, load_E: Sequence[int], slots_per_gpu: int
) -> list[Row]:
    """Return the rows of a block in units of 2⁻³¹, every part a whole weight.

    Parts are rounded down, which leaves every GPU a little below the level; a level
    slightly above the mean gives that back on the way to the last GPU.
    """
    scale = _Scale(
        amount_E={expert: load_E[expert] * WEIGHT_SUM for expert in block.experts},
        grain_E={expert: max(1, load_E[expert]) for expert in block.experts},
    )
    level = -(-sum(scale.amount_E.values()) // block.gpus)

    def tried(margins: Iterable[int]) -> Iterator[tuple[int, list[Row]]]:
        for margin in margins:
            allowed = level + (level * margin >> 48)
            rows = _rows(block, scale, allowed, slots_per_gpu)
            if rows is not None:
                yield margin, rows

    for enough, rows in tried(MARGINS):
        finer = next(tried(enough * part // 16 for part in FINER), None)
        return finer[1] if finer else rows
    raise ValueError("the rounded weights of a block exceed every level tried")


def _rows(
    block: Block, scale: _Scale, level: int, slots_per_gpu: int
) -> list[Row] | None:
    """Fill the GPUs of a block to at most ``level``; None if that fails."""
    left = sorted((scale.amount_E[expert], expert) for expert in block.experts)
    empty = (slots_per_gpu - 1) * block.gpus + 1 - len(left)
    left = [(0, -1)] * empty + left
    rows = []
    for _ in range(block.gpus - 1):
        rows.append(_take(left, scale, level, slots_per_gpu))
    rows.append(left)
    if any(
        sum(amount for amount, _ in row) > level or len(row) > slots_per_gpu
        for row in rows
    ):
        return None
    return rows


def _take(left: Row, scale: _Scale, level: int, slots: int) -> Row:
    """Take one GPU's copies from the sorted ``left`` and return them.

    The set S of the theorem is the ``low`` least and the ``slots - low`` greatest,
    and b is the least of the greatest. If no S reaches the level, the greatest go
    there whole.
    """
    low = slots - 1
    while low >= 0 and _amount(left[:low]) + _amount(left[low - slots :]) < level:
        low -= 1
    if low < 0:
        taken = left[-slots:]
        del left[-slots:]
        # What is left has room for one expert less than the theorem allows.
        left.insert(0, (0, -1))
        return taken
    first = len(left) - slots + low
    amount, expert = left[first]
    whole = left[:low] + left[first + 1 :]
    part = max(0, level - _amount(whole))
    if expert >= 0:
        part -= part % scale.grain_E[expert]
    del left[first:], left[:low]
    rest = amount - part
    bisect.insort(left, (rest, expert if rest else -1))
    return [*whole, (part, expert)]


def _amount(copies: Row) -> int:
    return sum(amount for amount, _ in copies)


def _laid_out(
    blocks: Sequence[list[Row]], load_E: Sequence[int], slots_per_gpu: int
) -> tuple[IdArray, dict[int, list[int]]]:
    """Return slots and parts, in copy order, of loaded experts with several copies."""
    rows = [row for block in blocks for row in block]
    by_load = sorted(range(len(load_E)), key=lambda expert: -load_E[expert])
    parts: dict[int, list[int]] = {expert: [] for expert in range(len(load_E))}
    slots_GJ = np.empty((len(rows), slots_per_gpu), dtype=np.int16)
    turn = 0
    for gpu, row in enumerate(rows):
        held = {expert: amount for amount, expert in row if expert >= 0}
        while len(held) < slots_per_gpu:
            held.setdefault(by_load[turn % len(by_load)], 0)
            turn += 1
        for slot, (expert, amount) in enumerate(held.items()):
            slots_GJ[gpu, slot] = expert
            parts[expert].append(amount)
    several = {
        expert: amounts
        for expert, amounts in parts.items()
        if len(amounts) > 1 and load_E[expert]
    }
    return slots_GJ, several
