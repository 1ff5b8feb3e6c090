"""One layer's search: anneal from a start, cooling with the work that is done."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from planner import clock
from planner.arrays import IdArray
from planner.strategies.search.anneal import anneal, excess_of, peak_value
from planner.strategies.search.moves import fill
from planner.strategies.search.network import Network
from planner.strategies.search.tokens import State, Tokens, empty_state

HOT, COLD = 0.64, 1.28e-3
"""First and last temperature, in shares of the guide that one slot has on average:
what a swap changes shrinks as slots grow in number."""
DOUBLINGS = 5
BALANCE = 0.02
EVENING = 0.1
"""Share of the work that goes into evening out GPUs at the best value."""
CHUNKS = 400
CHUNK_WORDS = 20_000_000
"""Words a chunk of moves may read, so that time is looked at often enough."""


WORDS_PER_SECOND = 1.5e9
"""Rate of counted work: a move reads as many words as ``CHUNK_WORDS`` takes it for."""


class Knobs(NamedTuple):
    """What one round of annealing is told; the norm's power is 2^doublings."""

    proposals: int
    temperature: float
    doublings: int
    balance: float
    evening: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerResult:
    """The best slots found, moves tried, and whether all the work was done."""

    slots_GJ: IdArray
    proposals: int
    finished: bool


def served_state(network: Network, tokens: Tokens, slots_GJ: IdArray) -> State:
    """Return the state with these slots and everything served and loaded."""
    state = empty_state(network, tokens, slots_GJ)
    fill(network, tokens, state)
    return state


def search_layer(
    network: Network,
    tokens: Tokens,
    start_GJ: IdArray,
    *,
    seconds: float,
    seed: int,
    most_proposals: int,
) -> LayerResult:
    """Anneal one layer for ``most_proposals`` moves or ``seconds``, if sooner.

    The temperature falls geometrically with whichever is used up faster, so where
    the work ends first the result depends on the seed alone.
    """
    begun = clock.now()
    state = served_state(network, tokens, start_GJ)
    best_GJ = state.slots_GJ.copy()
    value = peak_value(network, state.load_X, state.pairs_G)
    # The first legal state counts as better than any start that breaks a cap.
    excess = excess_of(
        state.pairs_G, state.pairs_N, network.domain_G, tokens.caps_G, tokens.caps_N
    )
    random_1 = np.asarray([(seed * 0x9E3779B97F4A7C15 + 1) % 2**64], dtype=np.uint64)
    words = 1000 + 8 * tokens.chose_EW.shape[1]
    width = max(1, CHUNK_WORDS // words)
    chunk = max(1, min(width, most_proposals // CHUNKS))
    proposals, done, evening = 0, 0.0, False
    while done < 1.0:
        if done >= 1.0 - EVENING and not evening:
            evening, state = True, served_state(network, tokens, best_GJ)
        heat = HOT * (COLD / HOT) ** min(1.0, done / (1.0 - EVENING))
        knobs = Knobs(chunk, heat / start_GJ.size, DOUBLINGS, BALANCE, evening)
        best = (best_GJ, value, excess)
        value, excess = anneal(network, tokens, state, best, knobs, random_1)
        proposals += chunk
        clock.spend(chunk * words / WORDS_PER_SECOND)
        used = (clock.now() - begun) / max(seconds, 1e-9)
        done = max(proposals / most_proposals, used)
    return LayerResult(
        slots_GJ=best_GJ, proposals=proposals, finished=proposals >= most_proposals
    )
