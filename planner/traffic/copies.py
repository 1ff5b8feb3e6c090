"""``copies``: one transfer per (token, expert); DeepEP low latency."""

import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.layout import ParallelLayout
from planner.traffic.base import TRAFFIC, TrafficMode, pair_counts, through_relays


def transfers_of_pairs(
    pairs_GG: ExactArray, layout: ParallelLayout, endpoint: str
) -> ExactArray:
    """Return the transfers that (source, serving GPU) pair counts cause."""
    direct_GG = pairs_GG.copy()
    np.fill_diagonal(direct_GG, 0)
    if endpoint == "dest_forward":
        return through_relays(direct_GG, layout)
    return direct_GG


def count_copies(
    targets_TK: IntArray, source_T: IntArray, layout: ParallelLayout, endpoint: str
) -> IntArray:
    """Count one transfer for every (token, expert) served elsewhere."""
    pairs_GG = pair_counts(targets_TK, source_T, layout.gpu_count)
    return transfers_of_pairs(pairs_GG, layout, endpoint)


TRAFFIC.register("copies")(
    TrafficMode(
        count=count_copies, endpoints=("local_nic", "dest_forward"), linear=True
    )
)
