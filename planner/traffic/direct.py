"""``direct``: tokens go from expert to expert and come home after the last layer.

A token stands where its best expert of the layer before ran; partial results merge
at the best expert of this layer (rule 20), so combine is not dispatch mirrored.
"""

import numpy as np

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.traffic.base import TRAFFIC, TrafficMode, pair_counts


def count_direct(
    targets_TK: IntArray, source_T: IntArray, layout: ParallelLayout, endpoint: str
) -> PairCounts:
    """Count one transfer per (token, expert) from where each token stands."""
    return pair_counts(targets_TK, source_T, layout.gpu_count).apart()


def merge_gpus(targets_TK: IntArray, at_T: IntArray) -> IntArray:
    """Return the GPU of every token's first expert, where partial results merge.

    A token without a first expert stays at ``at_T``, where it stood before.
    """
    first_T = targets_TK[:, 0]
    return np.where(first_T >= 0, first_T, at_T)


def merge_transfers(targets_TK: IntArray, merge_T: IntArray, gpus: int) -> PairCounts:
    """Count the partial results that travel to the GPU where they merge."""
    return pair_counts(targets_TK, merge_T, gpus).apart().transposed()


def home_transfers(at_T: IntArray, home_T: IntArray, gpus: int) -> PairCounts:
    """Count the tokens that go home after the last layer."""
    return PairCounts.of_keys(gpus, at_T * gpus + home_T).apart()


TRAFFIC.register("direct")(
    TrafficMode(
        count=count_direct, endpoints=("local_nic",), linear=False, chained=True
    )
)
