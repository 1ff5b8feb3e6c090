"""Simulated annealing of all layers together, on links as they are."""

import time
from dataclasses import dataclass

import numpy as np

from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.flow.board import board_of, state_of
from planner.strategies.flow.flows import flows_of, slots_of
from planner.strategies.flow.kernel import Board, State, anneal, rebuild
from planner.strategies.flow.wires import wires_of
from planner.workload.parts import TokenPart

PROPOSALS_PER_NODE = 20_000
"""Swaps tried for each expert of each layer, if time allows."""
ROUNDS = 60
HOT, COLD = 0.3, 0.0005
"""Temperatures at the ends, in mean values of a leg."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annealed:
    """The best plan met, how many swaps were tried, and whether time sufficed."""

    plan: PlacementPlan
    proposals: int
    finished: bool


def annealed(
    instance: PlacementInstance, start: PlacementPlan, *, seconds: float, seed: int
) -> Annealed:
    """Anneal from a plan with one copy of each expert."""
    begun = time.perf_counter()
    part = instance.planning
    assert isinstance(part, TokenPart)
    flows = flows_of(part, instance.layout, instance.model.experts)
    board = board_of(instance, flows, wires_of(instance))
    state = state_of(board, flows, start.slots_LGJ)
    random_1 = np.asarray([2 * seed + 88172645463325253], dtype=np.uint64)
    best_N = state.rank_N.copy()
    best = float(rebuild(board, state))
    anneal(board, state, best_N, best, np.asarray([0.0, 1.0]), random_1)
    left = seconds - (time.perf_counter() - begun)
    goal = PROPOSALS_PER_NODE * (flows.nodes - flows.ep)
    best, tried = _cooled(board, state, best_N, goal, left, random_1)
    slots_LGJ = slots_of(flows, best_N, start.slots_LGJ.shape[2])
    return Annealed(
        plan=PlacementPlan(layer_numbers=start.layer_numbers, slots_LGJ=slots_LGJ),
        proposals=tried,
        finished=tried >= goal,
    )


def _cooled(
    board: Board,
    state: State,
    best_N: np.ndarray,
    goal: int,
    seconds: float,
    random_1: np.ndarray,
) -> tuple[float, int]:
    """Cool down geometrically in rounds whose size the time allows."""
    begun, tried = time.perf_counter(), 0
    best = float(rebuild(board, state))
    unit = best / state.value_Q.size
    size = 256
    share = 0.0
    while share < 1.0 and tried < goal:
        heat = unit * HOT * (COLD / HOT) ** share
        lot = max(1, min(size, goal - tried))
        best = float(
            anneal(board, state, best_N, best, np.asarray([heat, lot]), random_1)
        )
        rebuild(board, state)
        tried += lot
        spent = time.perf_counter() - begun
        share = max(tried / goal, spent / max(seconds, 1e-9))
        rate = tried / max(spent, 1e-9)
        size = int(max(256, min(goal, rate * seconds) / ROUNDS))
    return best, tried
