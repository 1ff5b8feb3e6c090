"""Compiled: legal moves, and the annealing loop over them."""

from typing import Any

import numpy as np
from numba import njit

from planner.strategies.local_search.compiling import inner
from planner.strategies.local_search.kernel import (
    NEAREST,
    add_serving,
    copies_of,
    forget,
    nearest_column,
    served_by,
    settle,
)
from planner.strategies.local_search.swap import move_pairs, note_swap
from planner.strategies.local_search.values import excess_of, guide_of, value_of

SLACK = 1e-9


@inner  # type: ignore[untyped-decorator]
def reassign(
    network: Any, rows: Any, state: Any, expert: int, before: Any, after: Any, used: int
) -> int:
    """Serve every row of ``expert`` by the copies ``after`` instead of ``before``.

    Copies are (ranks, count) pairs; count 0 means not served. Returns how many GPU
    pairs are noted.
    """
    near_before = np.zeros(network.domain_G.size, dtype=np.int64)
    near_after = np.zeros(network.domain_G.size, dtype=np.int64)
    if network.selection == NEAREST:
        if before[1] > 0:
            nearest_column(network, before[0], before[1], expert, near_before)
        if after[1] > 0:
            nearest_column(network, after[0], after[1], expert, near_after)
    for entry in range(rows.first_E[expert], rows.first_E[expert + 1]):
        row = rows.row_Z[entry]
        old = served_by(network, rows, row, near_before, before[0], before[1])
        new = served_by(network, rows, row, near_after, after[0], after[1])
        if old == new:
            continue
        if old >= 0:
            used = add_serving(network, rows, state, row, old, -1, used)
        if new >= 0:
            used = add_serving(network, rows, state, row, new, 1, used)
    return used


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def serve_all(network: Any, rows: Any, state: Any) -> None:
    """Fill an empty state from its slots."""
    nothing = np.zeros(state.slots_GJ.size, dtype=np.int64)
    ranks = np.zeros(state.slots_GJ.size, dtype=np.int64)
    for expert in range(rows.first_E.size - 1):
        count = copies_of(state.slots_GJ, expert, ranks)
        used = reassign(network, rows, state, expert, (nothing, 0), (ranks, count), 0)
        settle(network, state, state.load_X, used, 1.0)
        forget(state, used)


@inner  # type: ignore[untyped-decorator]
def replace(network: Any, rows: Any, state: Any, move: Any) -> None:
    """Carry out a move on slots, rows and loads.

    ``move`` is (gpu, slot, expert, gpu, slot, expert): what each of two slots holds
    afterwards; the second gpu is -1 where only one slot changes.
    """
    experts = np.empty(2, dtype=np.int64)
    experts[0], experts[1] = state.slots_GJ[move[0], move[1]], move[2]
    ranks = np.zeros((4, state.slots_GJ.size), dtype=np.int64)
    counts = np.zeros(4, dtype=np.int64)
    for which in range(4):
        if which == 2:
            state.slots_GJ[move[0], move[1]] = move[2]
            if move[3] >= 0:
                state.slots_GJ[move[3], move[4]] = move[5]
        counts[which] = copies_of(state.slots_GJ, experts[which % 2], ranks[which])
    used = 0
    for which in range(2):
        before, after = (
            (ranks[which], counts[which]),
            (ranks[which + 2], counts[which + 2]),
        )
        used = reassign(network, rows, state, experts[which], before, after, used)
    settle(network, state, state.load_X, used, 1.0)
    forget(state, used)


@inner  # type: ignore[untyped-decorator]
def holds(slots_GJ: Any, gpu: int, expert: int) -> bool:
    """Whether a GPU holds an expert."""
    return bool((slots_GJ[gpu] == expert).any())


@inner  # type: ignore[untyped-decorator]
def propose(state: Any, copies_E: Any, spare: bool, rng: Any) -> Any:
    """Draw a move that keeps slots legal; the first entry is -1 if the draw fails.

    Coverage stays (only a redundant copy is given up), and no GPU gets two copies.
    """
    ep, width = state.slots_GJ.shape
    none = (-1, 0, 0, -1, 0, 0)
    gpu, slot = rng.integers(0, ep), rng.integers(0, width)
    expert = int(state.slots_GJ[gpu, slot])
    if spare and copies_E[expert] > 1 and rng.random() < 0.5:
        other = rng.integers(0, copies_E.size)
        if holds(state.slots_GJ, gpu, other):
            return none
        return (gpu, slot, other, -1, 0, 0)
    far, place = rng.integers(0, ep), rng.integers(0, width)
    other = int(state.slots_GJ[far, place])
    if far == gpu or other == expert:
        return none
    if holds(state.slots_GJ, gpu, other) or holds(state.slots_GJ, far, expert):
        return none
    return (gpu, slot, other, far, place, expert)


@inner  # type: ignore[untyped-decorator]
def accepts(now: Any, then: Any, temperature: float, rng: Any) -> bool:
    """Whether to go from ``now`` = (guide, excess) to ``then``.

    A state beyond the caps may only come closer to them.
    """
    if then[1] < now[1] - SLACK:
        return True
    if then[1] > SLACK:
        return False
    drop = (now[0] - then[0]) / now[0]
    return bool(drop >= 0 or rng.random() < np.exp(drop / temperature))


@inner  # type: ignore[untyped-decorator]
def judge_swap(
    network: Any, rows: Any, state: Any, move: Any, now: Any, scale_knobs: Any
) -> Any:
    """Return (guide, excess) after a swap of two experts with one copy each.

    A swap that breaks the caps is not worth its guide: it is returned as 0.
    """
    scale, guide_knobs = scale_knobs
    swap = (move[0], move[3], move[5], move[2])
    move_pairs(network, rows, state, swap, 1)
    excess = excess_of(network, rows, state)
    guide = 0.0
    if excess <= SLACK or excess < now[1] - SLACK:
        used = note_swap(network, rows, state, swap)
        state.trial_X[:] = state.load_X
        settle(network, state, state.trial_X, used, 1.0)
        forget(state, used)
        guide = guide_of(network, state, state.trial_X, scale, guide_knobs)
    move_pairs(network, rows, state, swap, -1)
    return guide, excess


@inner  # type: ignore[untyped-decorator]
def carry_out(
    network: Any, rows: Any, state: Any, move: Any, now: Any, knobs: Any, rng: Any
) -> Any:
    """Carry out a move that was not judged before, and take it back if refused."""
    temperature, scale_knobs, judged = knobs
    before = int(state.slots_GJ[move[0], move[1]])
    then = now
    for attempt in range(2):
        replace(network, rows, state, move)
        if judged or attempt == 1:
            return judged, then
        then = (
            guide_of(network, state, state.load_X, scale_knobs[0], scale_knobs[1]),
            excess_of(network, rows, state),
        )
        if accepts(now, then, temperature, rng):
            return True, then
        then = now
        move = (move[0], move[1], before, move[3], move[4], move[2])
    return False, now


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def anneal(network: Any, rows: Any, state: Any, best: Any, knobs: Any, rng: Any) -> Any:
    """Try ``knobs`` = (proposals, temperature, guide knobs) moves from a state.

    ``best`` = (slots_GJ, value, excess) keeps the best state seen; returns its
    (value, excess) and the moves accepted. The temperature is relative.
    """
    proposals, temperature, guide_knobs = knobs
    best_GJ, best_value, best_excess = best
    copies_E = np.zeros(rows.first_E.size - 1, dtype=np.int64)
    for expert in state.slots_GJ.flat:
        copies_E[expert] += 1
    spare = state.slots_GJ.size > copies_E.size
    # Nothing may move at first: then one transfer sets the scale.
    scale = max(value_of(network, state), network.unit)
    now = (
        guide_of(network, state, state.load_X, scale, guide_knobs),
        excess_of(network, rows, state),
    )
    scale_knobs = (scale, guide_knobs)
    accepted = 0
    for _ in range(proposals):
        move = propose(state, copies_E, spare, rng)
        if move[0] < 0:
            continue
        leaving = state.slots_GJ[move[0], move[1]]
        judged = copies_E[leaving] == 1 and copies_E[move[2]] == 1
        then = now
        if judged:
            then = judge_swap(network, rows, state, move, now, scale_knobs)
            if not accepts(now, then, temperature, rng):
                continue
        knobs_of_move = (temperature, scale_knobs, judged)
        taken, seen = carry_out(network, rows, state, move, now, knobs_of_move, rng)
        if not taken:
            continue
        now = then if judged else seen
        accepted += 1
        if move[3] < 0:
            copies_E[leaving] -= 1
            copies_E[move[2]] += 1
        value = value_of(network, state)
        if (now[1], value) < (best_excess, best_value * (1 - 1e-12)):
            best_excess, best_value = now[1], value
            best_GJ[:, :] = state.slots_GJ
    return best_value, best_excess, accepted
