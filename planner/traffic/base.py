"""The family of traffic modes: which transfers the choices of tokens cause."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit

from planner.arrays import ExactArray, IntArray
from planner.layout import ParallelLayout
from planner.registry import Registry


class CountTransfers(Protocol):
    """Count dispatch transfers of one layer.

    ``targets_TK`` holds the GPU that serves each (token, expert), -1 for none;
    returns int64 [G, G], zero on the diagonal.
    """

    def __call__(
        self,
        targets_TK: IntArray,
        source_T: IntArray,
        layout: ParallelLayout,
        endpoint: str,
    ) -> IntArray:
        """Return the transfers per ordered GPU pair."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficMode:
    """One mode of rule 20.

    ``endpoints`` are accepted, the first is the default. ``linear`` says that
    traffic is a sum over (token, expert) pairs, so that counts are enough.
    ``chained`` says that a token leaves from where the layer before took it, and
    that combine is not dispatch mirrored.
    """

    count: CountTransfers
    endpoints: tuple[str, ...]
    linear: bool
    chained: bool = False


TRAFFIC: Registry[TrafficMode] = Registry("traffic mode")


def through_relays(direct_GG: ExactArray, layout: ParallelLayout) -> ExactArray:
    """Split far transfers into source → relay → target, unmerged (rule 7)."""
    far = layout.domain_G[:, None] != layout.domain_G[None, :]
    source, target = np.nonzero(far & (direct_GG != 0))
    amount, relay = direct_GG[source, target], layout.relay_GG[source, target]
    moved = np.where(far, 0, direct_GG).astype(direct_GG.dtype)
    np.add.at(moved, (source, relay), amount)
    onward = relay != target
    np.add.at(moved, (relay[onward], target[onward]), amount[onward])
    return moved


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pair_counts(targets_TK: IntArray, source_T: IntArray, gpus: int) -> IntArray:
    """Return (token, expert) pairs by source and serving GPU, [G, G]."""
    pairs_GG = np.zeros((gpus, gpus), dtype=np.int64)
    for token in range(targets_TK.shape[0]):
        source = source_T[token]
        for choice in range(targets_TK.shape[1]):
            target = targets_TK[token, choice]
            if target >= 0:
                pairs_GG[source, target] += 1
    return pairs_GG
