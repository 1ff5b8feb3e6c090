"""GPUs are alike to the load of GPUs; which domain each stands in is free."""

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.instance import PlacementInstance


def rows_by_domain(instance: PlacementInstance, load_G: FloatArray) -> IntArray:
    """Return, for every GPU, which row to give it so that domains carry alike.

    Heaviest row first, to the domain with the least load per GPU so far that has
    room. The greatest load of a GPU stays, under a counts table exactly.
    """
    domain_G = instance.layout.domain_G[: instance.layout.ep]
    _, domain_G = np.unique(domain_G, return_inverse=True)
    gpus_N = np.bincount(domain_G)
    free = [np.flatnonzero(domain_G == n).tolist() for n in range(gpus_N.size)]
    load_N, used_N = np.zeros(gpus_N.size), np.zeros(gpus_N.size)
    row_G = np.empty(load_G.size, dtype=np.int64)
    for row in np.argsort(-load_G, kind="stable"):
        after_N = np.where(used_N < gpus_N, (load_N + load_G[row]) / gpus_N, np.inf)
        domain = int(np.argmin(after_N))
        row_G[free[domain][int(used_N[domain])]] = row
        load_N[domain] += load_G[row]
        used_N[domain] += 1
    return row_G
