"""``dedup_domain``: one transfer per (token, remote domain), then NVLink copies.

DeepEP normal mode: the token crosses the network once per remote domain, to the
GPU on its source's rail, which forwards it to each distinct GPU that needs it.
"""

import numpy as np
from numba import njit

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.traffic.base import TRAFFIC, TrafficMode


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _relay_tree(
    targets_TK: IntArray, source_T: IntArray, domain_G: IntArray, relay_TK: IntArray
) -> IntArray:
    gpus = domain_G.size
    keys = np.empty(2 * targets_TK.size, dtype=np.int64)
    moved = 0
    seen_G = np.full(gpus, -1, dtype=np.int64)
    seen_N = np.full(domain_G.max() + 1, -1, dtype=np.int64)
    for token in range(targets_TK.shape[0]):
        source = source_T[token]
        for choice in range(targets_TK.shape[1]):
            target = targets_TK[token, choice]
            if target < 0 or seen_G[target] == token:
                continue
            seen_G[target] = token
            start = source
            if domain_G[target] != domain_G[source]:
                start = relay_TK[token, choice]
                if seen_N[domain_G[target]] != token:
                    seen_N[domain_G[target]] = token
                    keys[moved] = source * gpus + start
                    moved += 1
            if target != start:
                keys[moved] = start * gpus + target
                moved += 1
    return keys[:moved]


def count_dedup_domain(
    targets_TK: IntArray, source_T: IntArray, layout: ParallelLayout, endpoint: str
) -> PairCounts:
    """Count the two hops of every token; ``endpoint`` can only be dest_forward."""
    del endpoint
    relay_TK = layout.relays(source_T[:, None], targets_TK)
    keys = _relay_tree(targets_TK, source_T, layout.domain_G, relay_TK)
    return PairCounts.of_keys(layout.gpu_count, keys)


TRAFFIC.register("dedup_domain")(
    TrafficMode(count=count_dedup_domain, endpoints=("dest_forward",), linear=False)
)
