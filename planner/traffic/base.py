"""The family of traffic modes: which transfers the choices of tokens cause."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.registry import Registry


class CountTransfers(Protocol):
    """Count dispatch transfers of one layer.

    ``targets_TK`` holds the GPU that serves each (token, expert), -1 for none;
    no pair of the result has its source as its target.
    """

    def __call__(
        self,
        targets_TK: IntArray,
        source_T: IntArray,
        layout: ParallelLayout,
        endpoint: str,
    ) -> PairCounts:
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


def through_relays(
    direct: PairCounts, layout: ParallelLayout, endpoint: str
) -> PairCounts:
    """Split far transfers into source → relay → target, unmerged (rule 7)."""
    if endpoint == "local_nic":
        return direct
    source, target = direct.source_n, direct.target_n
    relay = layout.first_stops(source, target, endpoint)
    onward = relay != target
    return PairCounts.summed(
        layout.gpu_count,
        np.concatenate([source, relay[onward]]),
        np.concatenate([relay, target[onward]]),
        np.concatenate([direct.count_n, direct.count_n[onward]]),
    )


def pair_counts(targets_TK: IntArray, source_T: IntArray, gpus: int) -> PairCounts:
    """Return (token, expert) pairs by source and serving GPU."""
    key_TK = source_T[:, None] * gpus + targets_TK
    return PairCounts.of_keys(gpus, key_TK[targets_TK >= 0])
