"""One layer's search: anneal from a start, cooling with the work that is done."""

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from planner.arrays import IdArray
from planner.instance import PlacementInstance
from planner.strategies.search.anneal import anneal, excess_of, peak_value
from planner.strategies.search.mixing import by_cells, gpu_places, mixed_network
from planner.strategies.search.moves import fill
from planner.strategies.search.network import Network, network_of
from planner.strategies.search.tokens import State, Tokens, empty_state

HOT, COLD = 0.64, 1.28e-3
"""First and last temperature, in shares of the guide that one slot has on average:
what a swap changes shrinks as slots grow in number."""
WARM = 0.02
"""First temperature of the true objective after the mixed one."""
DOUBLINGS = 5
BALANCE = 0.02
MIXED = 0.75
"""Share of the work that follows the mixed network."""
EVENING = 0.1
"""Share of the work that goes into evening out GPUs at the best value."""
CHUNKS = 400
CHUNK_WORDS = 20_000_000
"""Words a chunk of moves may read, so that time is looked at often enough."""
SLACK = 0.8
"""GPUs whose own links reach less than this of the busiest are not looked at."""


class Knobs(NamedTuple):
    """What one round of annealing is told; the norm's power is 2^doublings."""

    proposals: int
    temperature: float
    doublings: int
    balance: float
    evening: bool


class Networks(NamedTuple):
    """The network of the true objective, and the mixed ones where they help."""

    exact: Network
    mixed: Network | None
    cells: Network | None


class Stage(NamedTuple):
    """Part of the work: what it follows, where it ends, its temperatures."""

    network: Network
    end: float
    hot: float
    cold: float
    evening: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerResult:
    """The best slots found, moves tried, and whether all the work was done."""

    slots_GJ: IdArray
    proposals: int
    finished: bool


def networks_of(instance: PlacementInstance) -> Networks:
    """Return what guides the search of every layer of an instance.

    Raises
    ------
    ValueError
        If the cluster is too large to write all its routes out.
    """
    mixed = mixed_network(instance)
    return Networks(network_of(instance), mixed, mixed and by_cells(mixed))


def served_state(network: Network, tokens: Tokens, slots_GJ: IdArray) -> State:
    """Return the state with these slots and everything served and loaded."""
    state = empty_state(network, tokens, slots_GJ)
    fill(network, tokens, state)
    return state


def stages_of(networks: Networks, tokens: Tokens, start_GJ: IdArray) -> list[Stage]:
    """Return the parts of the work in order."""
    exact, mixed = networks.exact, networks.mixed
    last = Stage(exact, 1.0, COLD, COLD, True)
    if mixed is None:
        return [Stage(exact, 1.0 - EVENING, HOT, COLD, False), last]
    guide = mixed
    if networks.cells is not None:
        state = served_state(mixed, tokens, start_GJ)
        time_X = state.load_X * mixed.cost_X
        gpus = time_X[gpu_places(mixed)].max(initial=0.0)
        if gpus < SLACK * time_X.max(initial=0.0):
            guide = networks.cells
    return [
        Stage(guide, MIXED, HOT, COLD, False),
        Stage(exact, 1.0 - EVENING, WARM, COLD, False),
        last,
    ]


class _Climb:
    """Works through the stages and keeps the best state of each."""

    def __init__(self, tokens: Tokens, start_GJ: IdArray, seed: int) -> None:
        self.tokens, self.best_GJ = tokens, start_GJ.astype(np.int16).copy()
        word = (seed * 0x9E3779B97F4A7C15 + 1) % 2**64
        self.random_1 = np.asarray([word], dtype=np.uint64)

    def enter(self, stage: Stage) -> None:
        """Go on from the best state so far, judged as this stage does."""
        self.stage = stage
        self.state = served_state(stage.network, self.tokens, self.best_GJ)
        state, tokens = self.state, self.tokens
        self.value = peak_value(stage.network, state.load_X, state.pairs_G)
        # The first legal state counts as better than any start that breaks a cap.
        self.excess = excess_of(
            state.pairs_G,
            state.pairs_N,
            stage.network.domain_G,
            tokens.caps_G,
            tokens.caps_N,
        )

    def work(self, proposals: int, share: float) -> None:
        """Try some moves; ``share`` of the stage is done."""
        stage = self.stage
        heat = stage.hot * (stage.cold / stage.hot) ** min(1.0, share)
        balance = 0.0 if stage.network.cells_only else BALANCE
        heat /= self.best_GJ.size
        knobs = Knobs(proposals, heat, DOUBLINGS, balance, stage.evening)
        best = (self.best_GJ, self.value, self.excess)
        self.value, self.excess = anneal(
            stage.network, self.tokens, self.state, best, knobs, self.random_1
        )


def search_layer(
    networks: Networks,
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
    begun = time.perf_counter()
    width = max(1, CHUNK_WORDS // (1000 + 8 * tokens.chose_EW.shape[1]))
    chunk = max(1, min(width, most_proposals // CHUNKS))
    climb = _Climb(tokens, start_GJ, seed)
    proposals, done = 0, 0.0
    for stage in stages_of(networks, tokens, start_GJ):
        climb.enter(stage)
        first = done
        while done < stage.end:
            climb.work(chunk, (done - first) / (stage.end - first))
            proposals += chunk
            used = (time.perf_counter() - begun) / max(seconds, 1e-9)
            done = max(proposals / most_proposals, used)
    return LayerResult(
        slots_GJ=climb.best_GJ,
        proposals=proposals,
        finished=proposals >= most_proposals,
    )
