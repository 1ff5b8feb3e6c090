"""Simulated annealing of all layers together, on links as they are."""

from dataclasses import dataclass

import numpy as np

from planner import clock
from planner.arrays import IntArray
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.flow.board import board_of, state_of
from planner.strategies.flow.flows import Flows, slots_of
from planner.strategies.flow.kernel import Board, State, anneal, rebuild
from planner.strategies.flow.wires import wires_of

PROPOSALS_PER_NODE = 20_000
"""Swaps tried for each expert of each layer, if time allows."""
SWAPS_PER_SECOND = 100_000
"""Rate of counted work."""
ROUNDS = 60
HOT, WARM, COLD = 0.3, 0.01, 0.0005
"""Temperatures in mean values of a leg: from hot, then again from warm, to cold."""
HOT_SHARE = 0.6
"""Share of swaps and time of the run from hot."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annealed:
    """The best plan met, how many swaps were tried, and whether time sufficed."""

    plan: PlacementPlan
    proposals: int
    finished: bool


def annealed(
    instance: PlacementInstance,
    flows: Flows,
    start: PlacementPlan,
    *,
    seconds: float,
    seed: int,
    enough: float = 0.0,
) -> Annealed:
    """Anneal from a plan with one copy of each expert until ``enough`` is reached.

    Once from hot, which forgets the plan, then from warm, beginning with the best.
    """
    begun = clock.now()
    wires = wires_of(instance)
    board = board_of(instance, flows, wires, across=instance.single)
    state = state_of(board, flows, start.slots_LGJ)
    random_1 = np.asarray([2 * seed + 88172645463325253], dtype=np.uint64)
    best_N = state.rank_N.copy()
    best = float(rebuild(board, state))
    anneal(board, state, best_N, best, np.asarray([0.0, 1.0]), random_1)
    goal = PROPOSALS_PER_NODE * (flows.nodes - flows.ep)
    width, tried = start.slots_LGJ.shape[2], 0
    for heat, share in ((HOT, HOT_SHARE), (WARM, 1.0)):
        left = seconds - (clock.now() - begun)
        state = state_of(board, flows, slots_of(flows, best_N, width))
        run = _Run(board, state, best_N, random_1, enough)
        tried += run.cool(heat, round(share * (goal - tried)), share * left)
    slots_LGJ = slots_of(flows, best_N, width)
    return Annealed(
        plan=PlacementPlan(layer_numbers=start.layer_numbers, slots_LGJ=slots_LGJ),
        proposals=tried,
        finished=tried >= goal,
    )


class _Run:
    """Cools a state down, keeping the ranks of the best one met."""

    def __init__(
        self,
        board: Board,
        state: State,
        best_N: IntArray,
        random_1: np.ndarray[tuple[int, ...], np.dtype[np.uint64]],
        enough: float,
    ) -> None:
        self._board, self._state, self._best_N = board, state, best_N
        self._random_1, self._enough = random_1, enough

    def cool(self, hot: float, goal: int, seconds: float) -> int:
        """Cool down from ``hot`` in rounds the time allows; return the swaps tried."""
        state, begun, tried = self._state, clock.now(), 0
        best = float(rebuild(self._board, state))
        unit = best / state.value_Q.size
        share, size = 0.0, 256
        while share < 1.0 and best > self._enough:
            lot = max(1, min(size, goal - tried))
            heat = np.asarray([unit * hot * (COLD / hot) ** share, lot])
            best = float(
                anneal(self._board, state, self._best_N, best, heat, self._random_1)
            )
            # Floats drift as loads come and go.
            rebuild(self._board, state)
            tried += lot
            clock.spend(lot / SWAPS_PER_SECOND)
            spent = clock.now() - begun
            share = max(tried / goal, spent / max(seconds, 1e-9))
            allowed = tried / max(spent, 1e-9) * seconds
            size = int(max(256, min(goal, allowed) / ROUNDS))
        return tried
