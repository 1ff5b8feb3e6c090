"""One layer's search: anneal from a start, cooling with the work that is done."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from planner import clock
from planner.arrays import IdArray, IntArray
from planner.instance import PlacementInstance
from planner.plan import SplitWeights
from planner.strategies.search.anneal import anneal, peak_value
from planner.strategies.search.guide import Guide, by_cells, gpu_places, guide_of
from planner.strategies.search.joint import joint_network
from planner.strategies.search.legality import FREE, Rules, begin, rules_of
from planner.strategies.search.moves import fill
from planner.strategies.search.network import Network
from planner.strategies.search.pairs import excess_of
from planner.strategies.search.serving import choice_of, split_of
from planner.strategies.search.tokens import State, Tokens, empty_state, tokens_of

HOT, COLD = 0.64, 1.28e-3
"""First and last temperature, in shares of the guide that one slot has on average:
what a swap changes shrinks as slots grow in number."""
WARM = 0.005
"""Last temperature of the mixed objective and first of the true one after it."""
DOUBLINGS = 5
BALANCE = 0.02
MIXED = 0.88
"""Share of the work that follows the mixed network."""
EVENING = 0.1
"""Share of the work that goes into evening out GPUs at the best value."""
CHUNKS = 400
CHUNK_WORDS = 20_000_000
"""Words a chunk of moves may read, so that time is looked at often enough."""
SLACK = 0.8
"""GPUs whose own links reach less than this of the busiest are not looked at."""


WORDS_PER_SECOND = 8e9
"""Rate of counted work: words of tokens read, and what else a move looks at."""
PLACE_WORDS, DRAWN_WORDS = 60, 20
"""What a place, looked at once per move, counts in words, and a place of one draw of
many."""


class Knobs(NamedTuple):
    """What one round of annealing is told; the norm's power is 2^doublings."""

    proposals: int
    temperature: float
    doublings: int
    balance: float
    evening: bool
    rules: Rules = FREE


class Problem(NamedTuple):
    """What all layers share: the true network and, where they help, mixed ones."""

    instance: PlacementInstance
    exact: Network
    guide: Guide | None
    cells: Network | None


class Stage(NamedTuple):
    """Part of the work: what it follows, where it ends, its temperatures."""

    network: Network
    tokens: Tokens
    end: float
    hot: float
    cold: float
    evening: bool


class Placed(NamedTuple):
    """Slots of a layer and, where the plan says which copy serves whom, the split."""

    slots_GJ: IdArray
    split: Mapping[int, SplitWeights]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerResult:
    """The best that was found, moves tried, and whether all the work was done."""

    placed: Placed
    proposals: int
    finished: bool


def problem_of(instance: PlacementInstance, seconds: float = np.inf) -> Problem:
    """Return what guides the search of every layer of an instance.

    ``seconds`` is the limit's share of a layer.

    Raises
    ------
    ValueError
        If the cluster is too large to write all its routes out.
    """
    alone = len(instance.workloads) == 1
    guide = guide_of(instance, seconds) if instance.unseen and alone else None
    cells = by_cells(guide.network) if guide is not None else None
    return Problem(instance, joint_network(instance), guide, cells)


def served_state(
    network: Network,
    tokens: Tokens,
    slots_GJ: IdArray,
    choice_EH: IntArray | None = None,
) -> State:
    """Return the state with these slots and everything served and loaded.

    Where the plan says which copy serves whom, ``choice_EH`` does where it can.
    """
    state = empty_state(network, tokens, slots_GJ)
    if choice_EH is not None:
        state.choice_EH[:] = choice_EH
    fill(network, tokens, state)
    return state


def stages_of(problem: Problem, layer: int, start_GJ: IdArray) -> list[Stage]:
    """Return the parts of the work in order."""
    copies = int(np.bincount(start_GJ[start_GJ >= 0]).max())
    exact, tokens = problem.exact, tokens_of(problem.instance, layer, copies)
    last = Stage(exact, tokens, 1.0, COLD, COLD, True)
    if problem.guide is None:
        return [Stage(exact, tokens, 1.0 - EVENING, HOT, COLD, False), last]
    network, sample, to_the_end = problem.guide
    tried = tokens_of(problem.instance, layer, copies, sample)
    if problem.cells is not None:
        state = served_state(network, tried, start_GJ)
        time_X = state.load_X * network.cost_X
        gpus = time_X[gpu_places(network)].max(initial=0.0)
        if gpus < SLACK * time_X.max(initial=0.0):
            network = problem.cells
    if to_the_end:
        return [
            Stage(network, tried, 1.0 - EVENING, HOT, COLD, False),
            Stage(problem.guide.network, tried, 1.0, COLD, COLD, True),
        ]
    return [
        Stage(network, tried, MIXED, HOT, WARM, False),
        Stage(exact, tokens, 1.0 - EVENING, WARM, COLD, False),
        last,
    ]


class _Climb:
    """Works through the stages and keeps the best state of each."""

    def __init__(self, problem: Problem, start: Placed, seed: int, rules: Rules):
        self._rules = rules
        self.best_GJ = start.slots_GJ.astype(np.int16).copy()
        self.best_EH = choice_of(
            problem.exact.homes,
            problem.instance.layout,
            start.slots_GJ,
            start.split,
            problem.instance.model.experts,
        )
        word = (seed * 0x9E3779B97F4A7C15 + 1) % 2**64
        self.random_1 = np.asarray([word], dtype=np.uint64)

    def enter(self, stage: Stage) -> None:
        """Go on from the best state so far, judged as this stage does."""
        self.stage = stage
        begin(self._rules, self.best_GJ)
        self.state = served_state(
            stage.network, stage.tokens, self.best_GJ, self.best_EH
        )
        self.best_EH[:] = self.state.choice_EH
        state = self.state
        seen_G = state.pairs_G[: stage.network.domain_G.size]
        # The first legal state counts as better than any start that breaks a cap.
        caps = stage.tokens.pairs.caps
        self.excess, margin = excess_of(state.pairs_G, state.pairs_M, caps)
        value = peak_value(stage.network, state.load_X, seen_G)
        self.value = value * (1.0 + margin)

    def work(self, proposals: int, share: float) -> None:
        """Try some moves; ``share`` of the stage is done."""
        stage = self.stage
        heat = stage.hot * (stage.cold / stage.hot) ** min(1.0, share)
        balance = 0.0 if stage.network.cells_only else BALANCE
        heat /= self.best_GJ.size
        evening, rules = stage.evening, self._rules
        knobs = Knobs(proposals, heat, DOUBLINGS, balance, evening, rules)
        best = (self.best_GJ, self.best_EH, self.value, self.excess)
        read_1, network = self.state.read_1, stage.network
        read_1[0] = proposals * _step_words(network)
        self.value, self.excess = anneal(
            network, stage.tokens, self.state, best, knobs, self.random_1
        )
        clock.spend(read_1[0] / WORDS_PER_SECOND)


def _step_words(network: Network) -> int:
    """Return what a move costs beside the tokens that it looks at."""
    words = PLACE_WORDS if network.draws == 1 else DRAWN_WORDS
    return words * int(network.cost_X.size)


def search_layer(
    problem: Problem,
    layer: int,
    start: Placed,
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
    climb = _Climb(problem, start, seed, rules_of(problem.instance, layer))
    proposals, done = 0, 0.0
    for stage in stages_of(problem, layer, start.slots_GJ):
        climb.enter(stage)
        words = _step_words(stage.network) + 8 * stage.tokens.chose_FW.shape[1]
        width = max(1, CHUNK_WORDS // words)
        chunk = max(1, min(width, most_proposals // CHUNKS))
        first = done
        while done < stage.end:
            climb.work(chunk, (done - first) / (stage.end - first))
            proposals += chunk
            used = (clock.now() - begun) / max(seconds, 1e-9)
            done = max(proposals / most_proposals, used)
    finished = proposals >= most_proposals
    layout = problem.instance.layout
    split = split_of(problem.exact.homes, layout, climb.best_GJ, climb.best_EH)
    placed = Placed(climb.best_GJ, split)
    return LayerResult(placed=placed, proposals=proposals, finished=finished)
