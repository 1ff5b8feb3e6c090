"""Which GPU is which: equal domains of GPUs that are not equal."""

from typing import Any

import numpy as np

from planner.strategies.fast.copies import descending, measure, overwrite, sift
from planner.strategies.search.compiling import inner


@inner  # type: ignore[untyped-decorator]
def deal(slots_GJ: Any, load_E: Any, domain_G: Any) -> None:
    """Deal the GPUs to domains: heaviest first, to the domain lightest per GPU.

    The loads of GPUs are what they were; only those of domains change.
    ``domain_G`` numbers the domain of every GPU from 0.
    """
    domains = domain_G.max() + 1
    if domains == 1:
        return
    load_G = np.zeros(domain_G.size)
    measure(slots_GJ, load_E, load_G)
    size_N = np.bincount(domain_G)
    member_G = descending(-1.0 * domain_G)
    next_N = np.cumsum(size_N) - size_N
    heap_N, total_N, left_N = np.arange(domains), np.zeros(domains), size_N.copy()
    dealt_GJ = np.empty_like(slots_GJ)
    for gpu in descending(load_G):
        domain = heap_N[0]
        dealt_GJ[member_G[next_N[domain]]] = slots_GJ[gpu]
        next_N[domain] += 1
        left_N[domain] -= 1
        total_N[domain] += load_G[gpu] / size_N[domain]
        if left_N[domain] == 0:
            total_N[domain] = np.inf
        sift(heap_N, total_N, 0)
    overwrite(slots_GJ, dealt_GJ)
