"""What the copies of one layer say about every token, worked out before any token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.arrays import IdArray, IntArray
from planner.errors import ManifestError
from planner.executor.counter.kernels import EVEN, NEAREST, WEIGHTED, fill_nearest
from planner.executor.counter.sets import IndexArray, Sets
from planner.plan import SplitWeights

RULES = {"nearest": NEAREST, "even": EVEN, "weighted": WEIGHTED}
IDS, NO_EXPERT = 1 << 16, (1 << 16) - 1
"""Ids are read as 16 bits without a sign: -1 is the last of them."""
HASHES = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerTable:
    """One layer's copies; all indices are unsigned.

    A *column* is a copy, in copy order expert by expert (rule 16); under ``nearest``
    it is an expert. A *host* is an EP rank with a slot. Behind the last column and the
    last host come one for a choice without an expert and one for an expert without
    a copy.

    Attributes
    ----------
    entry_I2
        By expert id: its first column, and where its copies' number stands in
        ``remainders`` (``even``) or its limits begin in ``limit_RB`` (``weighted``).
    host_YX
        Host of each column: one table for all, or one per GPU under ``nearest``.
    table_G
        The table that each GPU uses.
    gpu_ZH
        GPU of each host, by EP set.
    limit_RB
        Where the hash leaves one copy for the next (rule 19): rows for the DP ranks
        with weights of their own, after the row of all others; for every expert
        with copies as many as halving needs, twice ``half`` less one.
    half
        Half of the least power of 2 that is no less than any number of copies, and 2.
    row_S
        The row of each DP rank; None where all use the first.
    """

    rule: int
    entry_I2: IndexArray
    host_YX: IndexArray
    table_G: IndexArray
    gpu_ZH: IndexArray
    limit_RB: NDArray[np.uint64]
    half: int
    row_S: IndexArray | None

    @property
    def columns(self) -> int:
        """Columns, those that stand for nothing included."""
        return int(self.host_YX.shape[1])

    @property
    def hosts(self) -> int:
        """Hosts, those that stand for nothing included."""
        return int(self.gpu_ZH.shape[1])


def copy_numbers(slots_LGJ: IdArray) -> IntArray:
    """Return every number of copies an expert has anywhere, and 1, ascending."""
    found = {1}
    for slots_GJ in slots_LGJ:
        found.update(np.bincount(slots_GJ[slots_GJ >= 0]).tolist())
    return np.asarray(sorted(found - {0}), dtype=np.int64)


def layer_table(
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
    selection: str,
    numbers_M: IntArray,
    sets: Sets,
    ranks: int,
) -> LayerTable:
    """Work out one layer's tables.

    Parameters
    ----------
    split
        Weights by expert (rule 19).
    numbers_M
        What ``remainders`` holds: every number of copies, ascending from 1.
    ranks
        S, the number of DP ranks.

    Raises
    ------
    ManifestError
        Unknown selection, or weights that break rule 19.
    """
    if selection not in RULES:
        raise ManifestError("must be nearest, even or weighted", value=selection)
    rank_x, place_x = np.nonzero(slots_GJ >= 0)
    order = np.argsort(slots_GJ[rank_x, place_x], kind="stable")
    rank_X, expert_X = rank_x[order], slots_GJ[rank_x, place_x][order]
    expert_e, first_e, copies_e = np.unique(
        expert_X, return_index=True, return_counts=True
    )
    hosts_H, host_X = np.unique(rank_X, return_inverse=True)
    nearest = selection == "nearest"
    columns = expert_e.size if nearest else rank_X.size
    half = (1 << (int(copies_e.max(initial=2)) - 1).bit_length()) >> 1
    limit_RB, begin_e, row_S = np.full((1, 1), HASHES, dtype=np.uint64), first_e, None
    if selection == "weighted":
        limit_RB, begin_e, row_S = _limits(split, expert_e, copies_e, half, ranks)
    entry_I2 = np.zeros((IDS, 2), dtype=np.uint32)
    entry_I2[:, 0] = columns + 1
    entry_I2[NO_EXPERT, 0] = columns
    entry_I2[expert_e, 0] = np.arange(expert_e.size) if nearest else first_e
    entry_I2[expert_e, 1] = (
        np.searchsorted(numbers_M, copies_e) if selection == "even" else begin_e
    )
    host_YX = np.zeros((sets.gpus if nearest else 1, columns + 2), dtype=np.uint32)
    host_YX[:, columns:] = hosts_H.size, hosts_H.size + 1
    table_G = np.zeros(sets.gpus, dtype=np.uint32)
    if nearest:
        table_G += np.arange(sets.gpus, dtype=np.uint32)
        fill_nearest(
            first_e, copies_e, expert_e, rank_X, host_X, sets.cell_ZR, sets.ep, host_YX
        )
    else:
        host_YX[0, :columns] = host_X
    gpu_ZH = np.zeros((len(sets.cell_ZR), hosts_H.size + 2), dtype=np.uint32)
    gpu_ZH[:, :-2] = np.arange(len(gpu_ZH))[:, None] * sets.ep + hosts_H
    return LayerTable(
        rule=RULES[selection],
        entry_I2=entry_I2,
        host_YX=host_YX,
        table_G=table_G,
        gpu_ZH=gpu_ZH,
        limit_RB=limit_RB,
        half=half,
        row_S=row_S,
    )


def _limits(
    split: Mapping[int, SplitWeights],
    expert_e: Any,
    copies_e: Any,
    half: int,
    ranks: int,
) -> tuple[NDArray[np.uint64], IntArray, IndexArray | None]:
    """Return limits by row, where each expert's begin, and the row of each DP rank.

    Experts with one copy share the first places, which no hash passes.
    """
    named = {key for own in split.values() for key in own if key != "*"}
    keys = ["*", *(str(rank) for rank in range(ranks) if str(rank) in named)]
    places, copied_e = 2 * half - 1, copies_e > 1
    begin_e = np.where(copied_e, places * np.cumsum(copied_e), 0)
    shape = (len(keys), places * (1 + int(copied_e.sum())))
    limit_RB = np.full(shape, HASHES, dtype=np.uint64)
    for expert, begin, copies in zip(
        expert_e.tolist(), begin_e.tolist(), copies_e.tolist(), strict=True
    ):
        own = split.get(expert, {})
        for row, key in enumerate(keys):
            limits = _limits_of(own.get(key, own.get("*")), copies)
            limit_RB[row, begin : begin + copies - 1] = limits[:-1]
    row_S = None
    if len(keys) > 1:
        row_S = np.zeros(ranks, dtype=np.uint32)
        for row, key in enumerate(keys[1:], start=1):
            row_S[int(key)] = row
    return limit_RB, begin_e, row_S


def _limits_of(weights: tuple[int, ...] | None, copies: int) -> list[int]:
    """Return the first hash beyond each copy."""
    own = (1,) * copies if weights is None else tuple(weights)
    if len(own) != copies or min(own) < 0 or sum(own) == 0:
        raise ManifestError(
            f"needs {copies} weights, none negative, with a sum above 0",
            where="split",
            value=own,
            fix="give one weight per copy",
        )
    total, sums = sum(own), np.cumsum(np.asarray(own, dtype=object)).tolist()
    return [-(-HASHES * below // total) for below in sums]
