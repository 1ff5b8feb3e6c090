"""One layer's search: anneal from a start, cooling with the time that is left."""

import time
from dataclasses import dataclass

import numpy as np

from planner.arrays import IdArray
from planner.strategies.local_search.moves import anneal, serve_all
from planner.strategies.local_search.tables import Network, Rows, empty_state
from planner.strategies.local_search.values import value_of

CHUNK_SECONDS = 0.25
HOT, COLD = 3e-3, 2e-5
GUIDE = (4, 0.02)
"""Norm 2⁴ = 16 of the loads; weight of the same norm of pairs per GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerResult:
    """The best slots found and how many moves were tried."""

    slots_GJ: IdArray
    proposals: int


def search_layer(
    network: Network, rows: Rows, start_GJ: IdArray, *, seconds: float, seed: int
) -> LayerResult:
    """Anneal one layer for ``seconds``.

    The temperature falls geometrically with the time used, so that a longer limit
    cools slower; the best state seen is returned.
    """
    begun = time.perf_counter()
    state = empty_state(network, rows, start_GJ)
    serve_all(network, rows, state)
    best_GJ = state.slots_GJ.copy()
    value, excess = value_of(network, state), np.inf
    rng = np.random.default_rng(seed)
    proposals, chunk, done = 0, 64, 0.0
    while done < 1.0:
        lap = time.perf_counter()
        temperature = HOT * (COLD / HOT) ** done
        value, excess, _ = anneal(
            network,
            rows,
            state,
            (best_GJ, value, excess),
            (chunk, temperature, GUIDE),
            rng,
        )
        proposals += chunk
        spent = max(time.perf_counter() - lap, 1e-6)
        left = seconds - (time.perf_counter() - begun)
        aim = min(CHUNK_SECONDS, seconds / 50, max(left, 0.0))
        chunk = int(np.clip(chunk * aim / spent, 16, 4 * chunk))
        done = (time.perf_counter() - begun) / max(seconds, 1e-9)
    return LayerResult(slots_GJ=best_GJ, proposals=proposals)
