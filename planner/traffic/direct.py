"""``direct``: tokens go from expert to expert and come home after the last layer.

A token stands where its best expert of the layer before ran; partial results merge
at the best expert of this layer (rule 20), so combine is not dispatch mirrored.
"""

import numpy as np

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.traffic.base import TRAFFIC, TrafficMode, pair_counts


def count_direct(
    targets_TK: IntArray, source_T: IntArray, layout: ParallelLayout, endpoint: str
) -> IntArray:
    """Count one transfer per (token, expert) from where each token stands, [G, G]."""
    transfers_GG: IntArray = pair_counts(targets_TK, source_T, layout.gpu_count)
    np.fill_diagonal(transfers_GG, 0)
    return transfers_GG


def merge_gpus(targets_TK: IntArray, at_T: IntArray) -> IntArray:
    """Return the GPU of every token's first expert, where partial results merge.

    A token without a first expert stays at ``at_T``, where it stood before.
    """
    first_T = targets_TK[:, 0]
    return np.where(first_T >= 0, first_T, at_T)


def merge_transfers(targets_TK: IntArray, merge_T: IntArray, gpus: int) -> IntArray:
    """Count the partial results that travel to the GPU where they merge, [G, G]."""
    transfers_GG: IntArray = pair_counts(targets_TK, merge_T, gpus).T.copy()
    np.fill_diagonal(transfers_GG, 0)
    return transfers_GG


def home_transfers(at_T: IntArray, home_T: IntArray, gpus: int) -> IntArray:
    """Count the tokens that go home after the last layer, [G, G]."""
    counts = np.bincount(at_T * gpus + home_T, minlength=gpus * gpus)
    transfers_GG = counts.reshape(gpus, gpus).astype(np.int64)
    np.fill_diagonal(transfers_GG, 0)
    return transfers_GG


TRAFFIC.register("direct")(
    TrafficMode(
        count=count_direct, endpoints=("local_nic",), linear=False, chained=True
    )
)
