"""GPUs are alike to the load of GPUs; which domain each stands in is free."""

import numpy as np

from planner.arrays import IdArray
from planner.instance import PlacementInstance
from planner.strategies.balance.problem import BalanceLayer


def spread_over_domains(
    instance: PlacementInstance, layer: BalanceLayer, slots_GJ: IdArray
) -> IdArray:
    """Return the rows of ``slots_GJ`` dealt out so that domains carry alike.

    Heaviest row first, to the domain with the least load per GPU so far that has
    room. The greatest load of a GPU stays, under a counts table exactly.
    """
    copies_E = np.bincount(slots_GJ.ravel(), minlength=layer.experts)
    size_E = layer.most_ER[np.arange(layer.experts), np.maximum(copies_E, 1) - 1]
    load_G = size_E[slots_GJ].sum(axis=1)
    domain_G = instance.layout.domain_G[: instance.layout.ep]
    _, domain_G = np.unique(domain_G, return_inverse=True)
    gpus_N = np.bincount(domain_G)
    free = [np.flatnonzero(domain_G == n).tolist() for n in range(gpus_N.size)]
    load_N, used_N = np.zeros(gpus_N.size), np.zeros(gpus_N.size)
    dealt_GJ = slots_GJ.copy()
    for row in np.argsort(-load_G, kind="stable"):
        after_N = np.where(used_N < gpus_N, (load_N + load_G[row]) / gpus_N, np.inf)
        domain = int(np.argmin(after_N))
        dealt_GJ[free[domain][int(used_N[domain])]] = slots_GJ[row]
        load_N[domain] += load_G[row]
        used_N[domain] += 1
    return dealt_GJ
