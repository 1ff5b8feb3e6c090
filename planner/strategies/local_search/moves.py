"""Compiled moves and the annealing loop over them."""

from typing import Any

import numpy as np
from numba import njit

from planner.strategies.local_search.kernel import (
    NEAREST,
    cap_excess,
    carry_to_links,
    copies_of,
    exact_value,
    forget,
    nearest_column,
    served_by,
    shift_row,
    smooth_value,
)
from planner.strategies.local_search.swap import move_pairs, note_swap


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def reassign(
    network: Any, rows: Any, state: Any, expert: int, before: Any, after: Any, used: int
) -> int:
    """Serve every row of ``expert`` by the copies ``after`` instead of ``before``.

    Copies are (ranks, count) pairs; count 0 means not served. Updates what rows
    hold and the pairs per GPU, notes the transfers that change, returns how many.
    """
    gpus = network.domain_G.size
    near_before = np.zeros(gpus, dtype=np.int64)
    near_after = np.zeros(gpus, dtype=np.int64)
    if network.selection == NEAREST:
        if before[1] > 0:
            nearest_column(
                before[0], before[1], expert, network.domain_G, network.ep, near_before
            )
        if after[1] > 0:
            nearest_column(
                after[0], after[1], expert, network.domain_G, network.ep, near_after
            )
    for entry in range(rows.first_E[expert], rows.first_E[expert + 1]):
        row = rows.row_Z[entry]
        source = rows.source_R[row]
        base = source // network.ep * network.ep
        mixed = rows.mixed_R[row]
        old, new = -1, -1
        if before[1] > 0:
            old = served_by(
                network.selection,
                near_before,
                before[0],
                before[1],
                base,
                source,
                mixed,
            )
        if after[1] > 0:
            new = served_by(
                network.selection, near_after, after[0], after[1], base, source, mixed
            )
        if old == new:
            continue
        weight = rows.weight_R[row]
        if old >= 0:
            state.pairs_G[old] -= weight
        if new >= 0:
            state.pairs_G[new] += weight
        used = shift_row(
            row,
            source,
            weight,
            old,
            new,
            network.mode,
            network.relayed,
            network.domain_G,
            network.relay_GG,
            state.held_RG,
            state.held_RN,
            state.delta_P,
            state.touched,
            used,
        )
    return used


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def settle(network: Any, state: Any, load_X: Any, used: int, sign: float) -> None:
    """Carry the noted transfers to the links."""
    carry_to_links(
        state.delta_P,
        state.touched,
        used,
        network.indptr_P,
        network.link_Y,
        network.share_Y,
        load_X,
        sign,
    )


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def serve_all(network: Any, rows: Any, state: Any) -> None:
    """Fill an empty state from its slots."""
    nothing = np.zeros(state.slots_GJ.size, dtype=np.int64)
    ranks = np.zeros(state.slots_GJ.size, dtype=np.int64)
    for expert in range(rows.first_E.size - 1):
        count = copies_of(state.slots_GJ, expert, ranks)
        used = reassign(network, rows, state, expert, (nothing, 0), (ranks, count), 0)
        settle(network, state, state.load_X, used, 1.0)
        forget(state.delta_P, state.touched, used)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def value_of(network: Any, state: Any) -> float:
    """Return the objective of the state."""
    if network.counts_pairs:
        return float(state.pairs_G.max())
    return float(exact_value(state.load_X, network.cost_X, network.leg_X, network.legs))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def guide_of(
    network: Any, state: Any, load_X: Any, scale: float, balance: float, norm: int
) -> float:
    """Return what the annealing descends on: a high norm instead of the maximum.

    ``balance`` weighs the norm of the pairs per GPU, which breaks ties in favour of
    even GPUs.
    """
    ones = np.ones(state.pairs_G.size)
    legs = np.zeros(state.pairs_G.size, dtype=np.int64)
    mean = state.pairs_G.sum() / state.pairs_G.size + 1e-9
    pairs = smooth_value(state.pairs_G, ones, legs, 1, mean, norm)
    if network.counts_pairs:
        return float(pairs)
    links = smooth_value(
        load_X, network.cost_X, network.leg_X, network.legs, scale, norm
    )
    return float(links + balance * scale * pairs / mean)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def holds(slots_GJ: Any, gpu: int, expert: int) -> bool:
    """Whether a GPU holds an expert."""
    for j in range(slots_GJ.shape[1]):
        if slots_GJ[gpu, j] == expert:
            return True
    return False


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def replace_two(network: Any, rows: Any, state: Any, move: Any, buffers: Any) -> int:
    """Put expert ``move[2]`` in one slot and ``move[5]`` in another; note changes.

    ``move`` is (gpu, slot, expert, gpu, slot, expert); the second gpu is -1 where
    only one slot changes. Returns how many GPU pairs were touched.
    """
    first_old = state.slots_GJ[move[0], move[1]]
    first_new = move[2]
    before_a, before_b, after_a, after_b = buffers
    count_a = copies_of(state.slots_GJ, first_old, before_a)
    count_b = copies_of(state.slots_GJ, first_new, before_b)
    state.slots_GJ[move[0], move[1]] = first_new
    if move[3] >= 0:
        state.slots_GJ[move[3], move[4]] = move[5]
    left_a = copies_of(state.slots_GJ, first_old, after_a)
    left_b = copies_of(state.slots_GJ, first_new, after_b)
    used = reassign(
        network, rows, state, first_old, (before_a, count_a), (after_a, left_a), 0
    )
    return int(
        reassign(
            network,
            rows,
            state,
            first_new,
            (before_b, count_b),
            (after_b, left_b),
            used,
        )
    )


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def propose(network: Any, state: Any, spare: bool, copies_E: Any) -> Any:
    """Draw a legal move; the first entry is -1 if the draw was not legal."""
    ep, width = state.slots_GJ.shape
    none = (-1, 0, 0, -1, 0, 0)
    gpu, slot = np.random.randint(ep), np.random.randint(width)
    expert = state.slots_GJ[gpu, slot]
    if spare and copies_E[expert] > 1 and np.random.random() < 0.5:
        other = np.random.randint(copies_E.size)
        if holds(state.slots_GJ, gpu, other):
            return none
        return (gpu, slot, other, -1, 0, 0)
    far, place = np.random.randint(ep), np.random.randint(width)
    other = state.slots_GJ[far, place]
    if far == gpu or other == expert:
        return none
    if holds(state.slots_GJ, gpu, other) or holds(state.slots_GJ, far, expert):
        return none
    return (gpu, slot, int(other), far, place, int(expert))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def anneal(
    network: Any, rows: Any, state: Any, best: Any, knobs: Any, seed: int
) -> Any:
    """Run ``knobs`` = (proposals, temperature, norm, balance, spare) from a state.

    Keeps the best slots seen in ``best`` = (slots_GJ, value, excess) and returns
    (value, excess, accepted); the temperature is relative to the objective.
    """
    proposals, temperature, norm, balance, spare = knobs
    best_GJ, best_value, best_excess = best
    np.random.seed(seed)
    copies_E = np.zeros(rows.first_E.size - 1, dtype=np.int64)
    for expert in state.slots_GJ.flat:
        copies_E[expert] += 1
    size = state.slots_GJ.size
    buffers = (
        np.zeros(size, dtype=np.int64),
        np.zeros(size, dtype=np.int64),
        np.zeros(size, dtype=np.int64),
        np.zeros(size, dtype=np.int64),
    )
    scale = max(value_of(network, state), 1e-30)
    guide = guide_of(network, state, state.load_X, scale, balance, norm)
    excess = cap_excess(state.pairs_G, network.domain_G, rows.caps_G, rows.caps_N)
    accepted = 0
    for _ in range(proposals):
        move = propose(network, state, spare, copies_E)
        if move[0] < 0:
            continue
        expert = int(state.slots_GJ[move[0], move[1]])
        if move[3] >= 0 and copies_E[expert] == 1 and copies_E[move[2]] == 1:
            swap = (move[0], move[3], expert, move[2])
            move_pairs(network, rows, state, swap, 1)
            new_excess = cap_excess(
                state.pairs_G, network.domain_G, rows.caps_G, rows.caps_N
            )
            if new_excess > 1e-9 and new_excess >= excess - 1e-9:
                move_pairs(network, rows, state, swap, -1)
                continue
            used = note_swap(network, rows, state, swap)
            state.trial_X[:] = state.load_X
            settle(network, state, state.trial_X, used, 1.0)
            forget(state.delta_P, state.touched, used)
            new_guide = guide_of(network, state, state.trial_X, scale, balance, norm)
            move_pairs(network, rows, state, swap, -1)
            drop = (guide - new_guide) / guide
            if not (
                drop >= 0
                or new_excess < excess - 1e-9
                or np.random.random() < np.exp(drop / temperature)
            ):
                continue
            used = replace_two(network, rows, state, move, buffers)
            settle(network, state, state.load_X, used, 1.0)
            forget(state.delta_P, state.touched, used)
        else:
            old = (
                move[0],
                move[1],
                expert,
                move[3],
                move[4],
                move[2],
            )
            used = replace_two(network, rows, state, move, buffers)
            new_excess = cap_excess(
                state.pairs_G, network.domain_G, rows.caps_G, rows.caps_N
            )
            settle(network, state, state.load_X, used, 1.0)
            new_guide = guide_of(network, state, state.load_X, scale, balance, norm)
            legal = new_excess <= 1e-9 or new_excess < excess - 1e-9
            drop = (guide - new_guide) / guide
            better = (
                drop >= 0
                or new_excess < excess - 1e-9
                or np.random.random() < np.exp(drop / temperature)
            )
            if not (legal and better):
                settle(network, state, state.load_X, used, -1.0)
                forget(state.delta_P, state.touched, used)
                undone = replace_two(network, rows, state, old, buffers)
                forget(state.delta_P, state.touched, undone)
                continue
            forget(state.delta_P, state.touched, used)
            if move[3] < 0:
                copies_E[expert] -= 1
                copies_E[move[2]] += 1
        guide, excess = new_guide, new_excess
        accepted += 1
        value = value_of(network, state)
        if (excess, value) < (best_excess, best_value * (1 - 1e-12)):
            best_excess, best_value = excess, value
            best_GJ[:, :] = state.slots_GJ
    return best_value, best_excess, accepted
