"""``copies``: one transfer per (token, expert); DeepEP low latency."""

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.traffic.base import TRAFFIC, TrafficMode, through_relays


def transfers_of_pairs(
    pairs: PairCounts, layout: ParallelLayout, endpoint: str
) -> PairCounts:
    """Return the transfers that (source, serving GPU) pair counts cause."""
    moved = pairs.source_n != pairs.target_n
    direct = PairCounts(
        gpus=pairs.gpus,
        source_n=pairs.source_n[moved],
        target_n=pairs.target_n[moved],
        count_n=pairs.count_n[moved],
    )
    return through_relays(direct, layout) if endpoint == "dest_forward" else direct


def count_copies(
    targets_TK: IntArray, source_T: IntArray, layout: ParallelLayout, endpoint: str
) -> PairCounts:
    """Count one transfer for every (token, expert) served elsewhere."""
    key_TK = source_T[:, None] * layout.gpu_count + targets_TK
    pairs = PairCounts.of_keys(layout.gpu_count, key_TK[targets_TK >= 0])
    return transfers_of_pairs(pairs, layout, endpoint)


TRAFFIC.register("copies")(
    TrafficMode(
        count=count_copies, endpoints=("local_nic", "dest_forward"), linear=True
    )
)
