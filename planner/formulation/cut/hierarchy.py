"""Nested blocks of GPUs: the borders that the cut formulation counts at.

Level 0 are the GPUs themselves, level H the EP sets; between them whatever the
routes distinguish: scale-up domains, hosts of several domains, groups of GPUs
under one leaf switch. A pair (s, d) belongs to the smallest level at which the two
share a block. Axes: H levels 1…H, G GPUs; ``block_KG`` also has level 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from planner.arrays import BoolArray, ExactArray, IntArray
from planner.layout import ParallelLayout


@dataclass(frozen=True, kw_only=True, eq=False)
class Hierarchy:
    """A nested family of partitions of the GPUs.

    Attributes
    ----------
    block_KG
        ``block_KG[k, g]``: number of the level-k block of GPU g, k = 0…H; blocks
        of a level are numbered 0, 1, … by first member.
    """

    block_KG: IntArray

    @property
    def levels(self) -> int:
        """H."""
        return len(self.block_KG) - 1

    @property
    def gpu_count(self) -> int:
        """G."""
        return int(self.block_KG.shape[1])

    def count(self, level: int) -> int:
        """Return the number of blocks of a level."""
        return int(self.block_KG[level].max()) + 1

    def parent(self, level: int) -> IntArray:
        """Block of level ``level + 1`` around each block of ``level``."""
        parent = np.zeros(self.count(level), dtype=np.int64)
        parent[self.block_KG[level]] = self.block_KG[level + 1]
        return parent

    @cached_property
    def level_GG(self) -> IntArray:
        """Level of each ordered pair; 0 on the diagonal, -1 between EP sets."""
        level_GG = np.full((self.gpu_count,) * 2, -1, dtype=np.int64)
        for level in range(self.levels, -1, -1):
            block_G = self.block_KG[level]
            level_GG[block_G[:, None] == block_G[None, :]] = level
        return level_GG

    @cached_property
    def alone_HG(self) -> BoolArray:
        """Whether g's block of level k holds nothing beyond its block of k − 1."""
        size_KG = np.stack([np.bincount(row)[row] for row in self.block_KG])
        alone: BoolArray = size_KG[1:] == size_KG[:-1]
        return alone

    def level_of(self, group_G: IntArray) -> int | None:
        """Return the level >= 1 whose blocks are the groups within an EP set."""
        sets_G = self.block_KG[-1]
        _, number_G = np.unique(
            np.stack([sets_G, group_G]), axis=1, return_inverse=True
        )
        same_GG = number_G[:, None] == number_G[None, :]
        for level in range(1, self.levels + 1):
            block_G = self.block_KG[level]
            if (same_GG == (block_G[:, None] == block_G[None, :])).all():
                return level
        return None

    def without(self, level: int) -> "Hierarchy":
        """Return the family without one intermediate level."""
        return Hierarchy(block_KG=np.delete(self.block_KG, level, axis=0))


def plain_hierarchy(layout: ParallelLayout) -> Hierarchy:
    """Return GPUs, scale-up domains within an EP set, EP sets."""
    return _nested([np.arange(layout.gpu_count), _cells(layout), layout.set_G])


def full_hierarchy(layout: ParallelLayout, distance_GG: ExactArray) -> Hierarchy:
    """Return the plain levels and every grouping that the distances suggest.

    Parameters
    ----------
    distance_GG
        A length of the route of each pair, comparable exactly. Domains whose
        distance does not exceed a threshold, directly or over others, form a block;
        every distance between domains is tried as threshold.
    """
    cell_G = _cells(layout)
    count = int(cell_G.max()) + 1
    first = np.unique(cell_G, return_index=True)[1]
    set_C = layout.set_G[first]
    apart = np.zeros((count, count), dtype=distance_GG.dtype)
    np.maximum.at(apart, (cell_G[:, None], cell_G[None, :]), distance_GG)
    apart = np.maximum(apart, apart.T)
    together = set_C[:, None] == set_C[None, :]
    np.fill_diagonal(together, False)
    partitions = [np.arange(layout.gpu_count), cell_G]
    for threshold in sorted(set(apart[together].tolist())):
        joined_C = _components(together & (apart <= threshold))
        partitions.append(joined_C[cell_G])
    return _nested([*partitions, layout.set_G])


def _cells(layout: ParallelLayout) -> IntArray:
    cell_G = np.zeros(layout.gpu_count, dtype=np.int64)
    for number, members in enumerate(layout.cell_members):
        cell_G[list(members)] = number
    return cell_G


def _components(linked: BoolArray) -> IntArray:
    """Label connected components by spreading the smallest label."""
    label = np.arange(len(linked))
    while True:
        near = np.where(linked, label[None, :], len(linked)).min(axis=1)
        spread = np.minimum(label, near)
        if (spread == label).all():
            return label
        label = spread


def _nested(partitions: Sequence[IntArray]) -> Hierarchy:
    """Number blocks by first member; drop a level equal to the one below it."""
    kept: list[IntArray] = []
    for partition in partitions:
        _, first, inverse = np.unique(partition, return_index=True, return_inverse=True)
        renumbered = np.argsort(np.argsort(first))[inverse].astype(np.int64)
        repeats = bool(kept) and (kept[-1] == renumbered).all()
        # The top stays even over single GPUs: every model has a level 1.
        if repeats and (partition is not partitions[-1] or len(kept) > 1):
            continue
        kept.append(renumbered)
    return Hierarchy(block_KG=np.stack(kept))
