"""The compiled loops behind :meth:`planner.topology.paths.Routes.loads`."""

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def spread(
    amount_B: Any, indptr: Any, links_X: Any, numerators_X: Any, loads_A: Any
) -> None:
    """Add what the transfers of every bundle load its links with."""
    for bundle in range(amount_B.size):
        if amount_B[bundle] != 0:
            for place in range(indptr[bundle], indptr[bundle + 1]):
                loads_A[links_X[place]] += amount_B[bundle] * numerators_X[place]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def accumulate(
    transfers_GG: Any,
    exit_GG: Any,
    middle_GG: Any,
    entry_GG: Any,
    indptr: Any,
    links_X: Any,
    numerators_X: Any,
    loads_A: Any,
) -> Any:
    """Add the loads of all transfers; return the first pair without a path, or -1."""
    amounts = np.zeros(indptr.size - 1, dtype=np.int64)
    count = transfers_GG.shape[0]
    for source in range(count):
        for target in range(count):
            moved = transfers_GG[source, target]
            if moved == 0 or source == target:
                continue
            if exit_GG[source, target] < 0:
                return source * count + target
            amounts[exit_GG[source, target]] += moved
            amounts[middle_GG[source, target]] += moved
            amounts[entry_GG[source, target]] += moved
    spread(amounts, indptr, links_X, numerators_X, loads_A)
    return -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def survey(
    exit_GG: Any,
    middle_GG: Any,
    entry_GG: Any,
    amount_B: Any,
    first_2B: Any,
    last_2B: Any,
) -> None:
    """Count the pairs of every bundle, with its lowest and highest ends."""
    count = exit_GG.shape[0]
    for source in range(count):
        for target in range(count):
            if exit_GG[source, target] < 0:
                continue
            for bundle in (
                exit_GG[source, target],
                middle_GG[source, target],
                entry_GG[source, target],
            ):
                amount_B[bundle] += 1
                first_2B[0, bundle] = min(first_2B[0, bundle], source)
                last_2B[0, bundle] = max(last_2B[0, bundle], source)
                first_2B[1, bundle] = min(first_2B[1, bundle], target)
                last_2B[1, bundle] = max(last_2B[1, bundle], target)
