"""EP sets and their cells: the GPUs of a set in one domain (rules 3, 16)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts

IndexArray = NDArray[np.uint32]
"""Indices, unsigned: compiled code then tests none for being negative."""

DENSE_GPUS = 2048
"""Up to so many GPUs adding in an array of all pairs beats sorting."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sets:
    """Where every GPU is.

    Attributes
    ----------
    set_G
        EP set of each GPU.
    cell_G
        Number, within its set, of each GPU's cell.
    rail_G
        Place of each GPU in its cell, in EP order.
    size_ZC
        GPUs of each cell; 0 where a set has fewer cells.
    member_ZCD
        GPUs of each cell.
    """

    ep: int
    set_G: IndexArray
    cell_G: IndexArray
    rail_G: IndexArray
    size_ZC: IntArray
    member_ZCD: IntArray

    @property
    def gpus(self) -> int:
        """G."""
        return self.set_G.size

    @property
    def cell_ZR(self) -> IndexArray:
        """Cell of every EP rank, by set."""
        return self.cell_G.reshape(-1, self.ep)

    def relays(self) -> IndexArray:
        """Return the place of each GPU's relay in every cell of its set (rule 3).

        In its own cell a GPU is its own relay. The last column stands for no cell.
        """
        size_GC = np.maximum(self.size_ZC, 1)[self.set_G]
        place_GC = np.zeros((self.gpus, size_GC.shape[1] + 1), dtype=np.uint32)
        place_GC[:, :-1] = self.rail_G[:, None] % size_GC
        return place_GC

    def relay(self, source_n: IntArray, goal_n: IntArray) -> IntArray:
        """Return the GPU of the goal's cell on the source's rail."""
        own_n, cell_n = self.set_G[source_n], self.cell_G[goal_n]
        place_n = self.rail_G[source_n] % self.size_ZC[own_n, cell_n]
        relay_n: IntArray = self.member_ZCD[own_n, cell_n, place_n]
        return relay_n

    def forwarded(self, straight: PairCounts, endpoint: str) -> PairCounts:
        """Send transfers between domains through a relay, unmerged (rule 7)."""
        if endpoint == "local_nic":
            return straight
        source_n, target_n = straight.source_n, straight.target_n
        if endpoint == "dest_forward":
            relay_n = self.relay(source_n, target_n)
        else:
            relay_n = self.relay(target_n, source_n)
        passes_n = self.cell_G[source_n] != self.cell_G[target_n]
        # A relay that is one of the ends makes one of the two a move to itself.
        stop_n = np.where(passes_n, relay_n, target_n)
        return added(
            self.gpus,
            np.concatenate([source_n, stop_n[passes_n]]),
            np.concatenate([stop_n, target_n[passes_n]]),
            np.concatenate([straight.count_n, straight.count_n[passes_n]]),
        )


def sets_of(layout: ParallelLayout) -> Sets:
    """Number the cells of every set, and the GPUs of every cell."""
    domain_ZR = layout.domain_G.reshape(-1, layout.ep)
    cell_ZR, rail_ZR = np.zeros_like(domain_ZR), np.zeros_like(domain_ZR)
    members: dict[tuple[int, int], list[int]] = {}
    for own, domains in enumerate(domain_ZR.tolist()):
        number: dict[int, int] = {}
        for rank, domain in enumerate(domains):
            cell = number.setdefault(domain, len(number))
            mates = members.setdefault((own, cell), [])
            cell_ZR[own, rank], rail_ZR[own, rank] = cell, len(mates)
            mates.append(own * layout.ep + rank)
    cells, places = int(cell_ZR.max()) + 1, int(rail_ZR.max()) + 1
    size_ZC = np.zeros((len(domain_ZR), cells), dtype=np.int64)
    member_ZCD = np.zeros((len(domain_ZR), cells, places), dtype=np.int64)
    for (own, cell), mates in members.items():
        size_ZC[own, cell] = len(mates)
        member_ZCD[own, cell, : len(mates)] = mates
    return Sets(
        ep=layout.ep,
        set_G=np.repeat(np.arange(len(domain_ZR), dtype=np.uint32), layout.ep),
        cell_G=cell_ZR.reshape(-1).astype(np.uint32),
        rail_G=rail_ZR.reshape(-1).astype(np.uint32),
        size_ZC=size_ZC,
        member_ZCD=member_ZCD,
    )


def added(
    gpus: int, source_x: IntArray, target_x: IntArray, count_x: NDArray[Any]
) -> PairCounts:
    """Add up counts by pair; what stays on a GPU is no transfer (rule 20)."""
    moves_x = source_x != target_x
    source_x, target_x, count_x = source_x[moves_x], target_x[moves_x], count_x[moves_x]
    if gpus > DENSE_GPUS:
        return PairCounts.summed(gpus, source_x, target_x, count_x)
    count_GG = np.zeros((gpus, gpus), dtype=np.int64)
    np.add.at(count_GG.reshape(-1), source_x * gpus + target_x, count_x)
    return PairCounts.of_matrix(count_GG)
