"""The compiled loop: propose a legal move, judge it by increments, take it or not."""

from typing import Any

import numpy as np
from numba import njit

from planner.strategies.search.compiling import inlined, inner
from planner.strategies.search.legality import is_legal, moves_added
from planner.strategies.search.moves import (
    carry_out,
    move_pairs,
    prepare,
    swap_pairs,
    swap_single,
    try_move,
    try_swap,
)
from planner.strategies.search.nearest import prepare_choice
from planner.strategies.search.serving import may_serve

SLACK = 0.5
"""Pairs are whole: an excess below this is none."""


@inner  # type: ignore[untyped-decorator]
def draw(random_1: Any, below: int) -> Any:
    """Return the next integer in 0 … below − 1 (xorshift64*)."""
    word = random_1[0]
    word ^= word >> np.uint64(12)
    word ^= word << np.uint64(25)
    word ^= word >> np.uint64(27)
    random_1[0] = word
    top = (word * np.uint64(2685821657736338717)) >> np.uint64(33)
    return np.int64((np.int64(top) * below) >> 31)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def peak_value(network: Any, load_X: Any, pairs_G: Any) -> float:
    """Return the objective: over legs, the sum of the greatest load · cost."""
    if network.counts_pairs:
        return float(pairs_G.max())
    total = 0.0
    for leg in range(network.leg_start.size - 1):
        most = 0.0
        for x in range(network.leg_start[leg], network.leg_start[leg + 1]):
            most = max(most, load_X[x] * network.cost_X[x])
        total += most
    return total


@inner  # type: ignore[untyped-decorator]
def scales_of(network: Any, state: Any) -> Any:
    """Return what makes loads and pairs about 1: per place and per GPU.

    Where nothing moves, one transfer on the costliest link counts as 1.
    """
    unit = peak_value(network, state.load_X, state.pairs_G)
    if network.cost_X.size and (unit == 0.0 or network.counts_pairs):
        unit = network.cost_X.max()
    gpus = state.pairs_G.size
    return (
        network.cost_X / (unit if unit > 0.0 else 1.0),
        np.full(gpus, gpus / max(state.pairs_G.sum(), 1.0)),
    )


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def norm(load_X: Any, scale_X: Any, doublings: int, power_X: Any) -> float:
    """Return (Σ (load · scale)^p)^(1/p), p = 2^doublings; ``power_X`` is scratch."""
    total = 0.0
    for x in range(load_X.size):
        power_X[x] = load_X[x] * scale_X[x]
    for _ in range(doublings):
        for x in range(load_X.size):
            power_X[x] *= power_X[x]
    for x in range(load_X.size):
        total += power_X[x]
    for _ in range(doublings):
        total = np.sqrt(total)
    return total


@inner  # type: ignore[untyped-decorator]
def smooth_value(
    load_X: Any, scale_X: Any, leg_start: Any, doublings: int, power_X: Any
) -> float:
    """Return a high norm of the loads in place of their maximum, summed over legs."""
    total = 0.0
    for leg in range(leg_start.size - 1):
        start, end = leg_start[leg], leg_start[leg + 1]
        total += norm(load_X[start:end], scale_X[start:end], doublings, power_X)
    return float(total)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def excess_of(
    pairs_G: Any, pairs_N: Any, domain_G: Any, caps_G: Any, caps_N: Any
) -> float:
    """Return by how many pairs GPUs and domains exceed their caps, summed.

    ``pairs_N`` is scratch.
    """
    excess = 0.0
    if caps_G[0] < np.inf:
        for gpu in range(pairs_G.size):
            excess += max(0.0, pairs_G[gpu] - caps_G[gpu])
    if caps_N[0] < np.inf:
        pairs_N[:] = 0.0
        for gpu in range(pairs_G.size):
            pairs_N[domain_G[gpu]] += pairs_G[gpu]
        for domain in range(caps_N.size):
            excess += max(0.0, pairs_N[domain] - caps_N[domain])
    return excess


@inner  # type: ignore[untyped-decorator]
def holds(slots_GJ: Any, gpu: int, expert: int) -> bool:
    """Whether a GPU holds an expert."""
    found = False
    for slot in range(slots_GJ.shape[1]):
        found = found or slots_GJ[gpu, slot] == expert
    return found


@inlined  # type: ignore[untyped-decorator]
def propose(network: Any, tokens: Any, state: Any, random_1: Any, spare: bool) -> Any:
    """Draw a move (gpu, slot, expert, gpu, slot, expert): -1 first if it is no use.

    The first slot gets the first expert. The second GPU is -1 where no more changes;
    in a swap its slot gets the second expert. Swaps within a cell are no use where
    only cells count. Slot -1: the copy on the GPU is to serve a home class, which
    stands in place of the second slot.
    """
    slots_GJ, none = state.slots_GJ, (-1, 0, 0, -1, 0, 0)
    ranks, width = slots_GJ.shape
    gpu, slot = draw(random_1, ranks), draw(random_1, width)
    expert = np.int64(slots_GJ[gpu, slot])
    if expert < 0:
        return none
    homes = network.homes.domain_H.size
    if homes and state.count_E[expert] > 1 and draw(random_1, 2):
        home = draw(random_1, homes)
        if not may_serve(network, state, expert, gpu, home):
            return none
        return (gpu, -1, expert, -1, home, expert)
    if spare and state.count_E[expert] > 1 and draw(random_1, 2):
        other = draw(random_1, state.count_E.size)
        full = state.count_E[other] == tokens.most_copies
        if full or holds(slots_GJ, gpu, other):
            return none
        return (gpu, slot, other, -1, 0, 0)
    far = (gpu + 1 + draw(random_1, ranks - 1)) % ranks
    if network.cells_only and network.cell_CR[0, gpu] == network.cell_CR[0, far]:
        return none
    place = draw(random_1, width)
    other = np.int64(slots_GJ[far, place])
    if other < 0 or other == expert:
        return none
    if width > 1 and (holds(slots_GJ, gpu, other) or holds(slots_GJ, far, expert)):
        return none
    return (gpu, slot, other, far, place, expert)


@inlined  # type: ignore[untyped-decorator]
def first_expert(slots_GJ: Any, move: Any) -> Any:
    """Return the expert in the first slot of a move, or the one served otherwise."""
    if move[1] < 0:
        return np.int64(move[2])
    return np.int64(slots_GJ[move[0], move[1]])


@inlined  # type: ignore[untyped-decorator]
def carry_pairs(
    network: Any, tokens: Any, state: Any, move: Any, single: bool, sign: int
) -> None:
    """Carry the pairs of a move over, or back (sign −1)."""
    if single:
        swap_pairs(network, tokens, state, move, sign)
        return
    one = first_expert(state.slots_GJ, move)
    if sign > 0 and move[1] >= 0:
        prepare(network, state, move)
    elif sign > 0:
        prepare_choice(network, state, move)
    move_pairs(network, tokens, state, (one, move[2]), sign)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def anneal(
    network: Any, tokens: Any, state: Any, best: Any, knobs: Any, random_1: Any
) -> Any:
    """Try ``knobs.proposals`` moves at one temperature; return (value, excess).

    ``best`` is (slots_GJ, choice_EH, value, excess) of the best state so far; its
    arrays are overwritten when a better one is met. While the caps are exceeded only
    moves towards them are taken. The state descends on the smooth value plus a small
    weight on the norm of pairs per GPU; with ``knobs.evening`` it is the best one, and
    only moves are taken that make GPUs more even and raise neither value.
    """
    best_GJ, best_EH, best_value, best_excess = best
    rules = knobs.rules
    spare = state.slots_GJ.size > state.count_E.size
    scale_X, scale_G = scales_of(network, state)
    doublings, balance = knobs.doublings, knobs.balance
    # Only the arrays needed are passed on: whole states cost more than the work.
    pairs_G, pairs_N, domain_G = state.pairs_G, state.pairs_N, network.domain_G
    caps_G, caps_N, power_X = tokens.caps_G, tokens.caps_N, state.power_X
    leg_start, trial_X = network.leg_start, state.trial_X
    links = smooth_value(state.load_X, scale_X, leg_start, doublings, power_X)
    pairs = norm(pairs_G, scale_G, doublings, power_X)
    excess = excess_of(pairs_G, pairs_N, domain_G, caps_G, caps_N)
    new_links, new_pairs = links, pairs
    for _ in range(knobs.proposals):
        move = propose(network, tokens, state, random_1, spare)
        if move[0] < 0 or (rules.any and not is_legal(rules, state, move)):
            continue
        one, two = first_expert(state.slots_GJ, move), np.int64(move[2])
        single = network.alike and move[3] >= 0
        single = single and state.count_E[one] == 1 and state.count_E[two] == 1
        carry_pairs(network, tokens, state, move, single, 1)
        new_excess = excess_of(pairs_G, pairs_N, domain_G, caps_G, caps_N)
        taken = new_excess < SLACK or new_excess < excess
        if taken:
            if single:
                try_swap(network, tokens, state, move)
            else:
                try_move(network, tokens, state, (one, two))
            new_links = smooth_value(trial_X, scale_X, leg_start, doublings, power_X)
            new_pairs = norm(pairs_G, scale_G, doublings, power_X)
            if knobs.evening:
                value = peak_value(network, trial_X, pairs_G)
                taken = new_pairs <= pairs and new_links <= links * (1 + 1e-9)
                taken = taken and value <= best_value and new_excess <= excess
            else:
                # exp(−rise / T) > chance, turned round: the most it may become.
                chance = (draw(random_1, 1 << 30) + 1.0) / (1 << 30)
                most = 1.0 - knobs.temperature * np.log(chance)
                now, new = links + balance * pairs, new_links + balance * new_pairs
                taken = new <= now * most or new_excess < excess
        if not taken:
            carry_pairs(network, tokens, state, move, single, -1)
            continue
        if rules.any:
            rules.moves_1[0] += moves_added(rules, state.slots_GJ, move)
        if single:
            swap_single(network, tokens, state, move)
        else:
            carry_out(network, tokens, state, move, one)
        state.load_X[:] = state.trial_X
        evener = knobs.evening and new_pairs < pairs
        links, pairs, excess = new_links, new_pairs, new_excess
        value = peak_value(network, state.load_X, pairs_G)
        if evener or (excess, value) < (best_excess, best_value * (1 - 1e-12)):
            best_excess, best_value = excess, min(value, best_value)
            best_GJ[:, :] = state.slots_GJ
            best_EH[:, :] = state.choice_EH
    return best_value, best_excess
