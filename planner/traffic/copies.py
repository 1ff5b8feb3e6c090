"""``copies``: one transfer per (token, expert); DeepEP low latency."""

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.traffic.base import TRAFFIC, TrafficMode, pair_counts, through_relays


def transfers_of_pairs(
    pairs: PairCounts, layout: ParallelLayout, endpoint: str
) -> PairCounts:
    """Return the transfers that (source, serving GPU) pair counts cause."""
    direct = pairs.apart()
    return through_relays(direct, layout, endpoint)


def count_copies(
    targets_TK: IntArray, source_T: IntArray, layout: ParallelLayout, endpoint: str
) -> PairCounts:
    """Count one transfer for every (token, expert) served elsewhere."""
    pairs = pair_counts(targets_TK, source_T, layout.gpu_count)
    return transfers_of_pairs(pairs, layout, endpoint)


TRAFFIC.register("copies")(
    TrafficMode(
        count=count_copies, endpoints=("local_nic", "pxn", "dest_forward"), linear=True
    )
)
