"""Compiled: the objective of a state, its smooth guide, and how far caps are kept."""

from typing import Any

import numpy as np
from numba import njit

from planner.strategies.local_search.compiling import inner


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def value_of(network: Any, state: Any) -> float:
    """Return the objective: the sum over legs of the greatest load × cost."""
    if network.counts_pairs:
        return float(state.pairs_G.max())
    total = 0.0
    for leg in range(network.legs):
        most = 0.0
        for x in range(state.load_X.size):
            if network.leg_X[x] == leg:
                most = max(most, state.load_X[x] * network.cost_X[x])
        total += most
    return total


@inner  # type: ignore[untyped-decorator]
def guide_of(network: Any, state: Any, load_X: Any, scale: float, knobs: Any) -> float:
    """Return what the annealing descends on: a high norm instead of the maximum.

    ``knobs`` = (doublings, balance): the norm is p = 2^doublings; ``balance`` weighs
    the same norm of the pairs per GPU, which decides among near-equals in favour of
    even GPUs.
    """
    doublings, balance = knobs
    mean = state.pairs_G.sum() / state.pairs_G.size + 1e-9
    inner = 0.0
    for gpu in range(state.pairs_G.size):
        inner += _power(state.pairs_G[gpu] / mean, doublings)
    pairs = inner ** (1.0 / 2.0**doublings)
    if network.counts_pairs:
        return float(mean * pairs)
    total = balance * scale * pairs
    for leg in range(network.legs):
        inner = 0.0
        for x in range(load_X.size):
            if network.leg_X[x] == leg:
                inner += _power(load_X[x] * network.cost_X[x] / scale, doublings)
        total += scale * inner ** (1.0 / 2.0**doublings)
    return float(total)


@inner  # type: ignore[untyped-decorator]
def _power(base: float, doublings: int) -> float:
    for _ in range(doublings):
        base *= base
    return base


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def excess_of(network: Any, rows: Any, state: Any) -> float:
    """Return by how many pairs GPUs and domains exceed their caps, summed."""
    excess = 0.0
    domain_N = np.zeros(rows.caps_N.size)
    for gpu in range(state.pairs_G.size):
        domain_N[network.domain_G[gpu]] += state.pairs_G[gpu]
        excess += max(0.0, state.pairs_G[gpu] - rows.caps_G[gpu])
    for domain in range(rows.caps_N.size):
        excess += max(0.0, domain_N[domain] - rows.caps_N[domain])
    return excess
