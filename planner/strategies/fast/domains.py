"""Which GPU is which: equal domains of GPUs that are not equal."""

from typing import Any

import numpy as np

from planner.strategies.fast.copies import measure, sift
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
    member_G = np.argsort(domain_G, kind="mergesort")
    first_N = np.cumsum(size_N) - size_N
    heap_N, total_N, used_N = np.arange(domains), np.zeros(domains), size_N * 0
    dealt_GJ = np.empty_like(slots_GJ)
    for gpu in np.argsort(-load_G, kind="mergesort"):
        domain = heap_N[0]
        dealt_GJ[member_G[first_N[domain] + used_N[domain]]] = slots_GJ[gpu]
        used_N[domain] += 1
        total_N[domain] += load_G[gpu] / size_N[domain]
        if used_N[domain] == size_N[domain]:
            total_N[domain] = np.inf
        sift(heap_N, total_N)
    slots_GJ[:] = dealt_GJ
