"""``dedup_gpu``: one transfer per (token, distinct GPU); DeepEP direct mode."""

import numpy as np
from numba import njit

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.traffic.base import TRAFFIC, TrafficMode, through_relays


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _distinct_gpus(targets_TK: IntArray, source_T: IntArray, gpus: int) -> IntArray:
    keys = np.empty(targets_TK.size, dtype=np.int64)
    moved = 0
    seen_G = np.full(gpus, -1, dtype=np.int64)
    for token in range(targets_TK.shape[0]):
        source = source_T[token]
        for choice in range(targets_TK.shape[1]):
            target = targets_TK[token, choice]
            if target < 0 or target == source or seen_G[target] == token:
                continue
            seen_G[target] = token
            keys[moved] = source * gpus + target
            moved += 1
    return keys[:moved]


def count_dedup_gpu(
    targets_TK: IntArray, source_T: IntArray, layout: ParallelLayout, endpoint: str
) -> PairCounts:
    """Count one transfer for every GPU other than the source a token needs."""
    keys = _distinct_gpus(targets_TK, source_T, layout.gpu_count)
    direct = PairCounts.of_keys(layout.gpu_count, keys)
    return through_relays(direct, layout, endpoint)


TRAFFIC.register("dedup_gpu")(
    TrafficMode(
        count=count_dedup_gpu,
        endpoints=("local_nic", "pxn", "dest_forward"),
        linear=False,
    )
)
