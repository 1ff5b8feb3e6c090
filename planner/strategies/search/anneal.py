"""The compiled loop: propose a legal move, judge it by increments, take it or not."""

from typing import Any

import numpy as np

from planner.strategies.search.bits import copy_over
from planner.strategies.search.compiling import bare, entry, inlined, lean
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
from planner.strategies.search.pairs import excess_of
from planner.strategies.search.serving import may_serve

SLACK = 0.5
"""Pairs are whole: an excess below this is none."""


@lean  # type: ignore[untyped-decorator]
def draw(random_1: Any, below: int) -> Any:
    """Return the next integer in 0 … below − 1 (xorshift64*)."""
    word = random_1[0]
    word ^= word >> np.uint64(12)
    word ^= word << np.uint64(25)
    word ^= word >> np.uint64(27)
    random_1[0] = word
    top = (word * np.uint64(2685821657736338717)) >> np.uint64(33)
    return np.int64((np.int64(top) * below) >> 31)


@bare()  # type: ignore[untyped-decorator]
def peak_value(network: Any, load_X: Any, pairs_G: Any) -> float:
    """Return the objective: over legs, the sum of the greatest load · cost."""
    total = 0.0
    if network.counts_pairs:
        for gpu in range(pairs_G.size):
            total = max(total, pairs_G[gpu])
        return total
    for leg in range(network.leg_start.size - 1):
        most = 0.0
        for x in range(network.leg_start[leg], network.leg_start[leg + 1]):
            most = max(most, load_X[x] * network.cost_X[x])
        total += most
    return total


@entry  # type: ignore[untyped-decorator]
def scales_of(network: Any, state: Any) -> Any:
    """Return what makes loads and pairs about 1: per place and per GPU.

    Where nothing moves, one transfer on the costliest link counts as 1.
    """
    unit = peak_value(network, state.load_X, state.pairs_G)
    if network.cost_X.size and (unit == 0.0 or network.counts_pairs):
        unit = network.cost_X.max()
    gpus = network.domain_G.size
    return (
        network.cost_X / (unit if unit > 0.0 else 1.0),
        np.full(gpus, gpus / max(state.pairs_G[:gpus].sum(), 1.0)),
    )


@bare(fastmath=True)  # type: ignore[untyped-decorator]
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


@lean  # type: ignore[untyped-decorator]
def smooth_value(
    load_X: Any, scale_X: Any, leg_start: Any, doublings: int, power_X: Any
) -> float:
    """Return a high norm of the loads in place of their maximum, summed over legs."""
    total = 0.0
    for leg in range(leg_start.size - 1):
        start, end = leg_start[leg], leg_start[leg + 1]
        total += norm(load_X[start:end], scale_X[start:end], doublings, power_X)
    return float(total)


@lean  # type: ignore[untyped-decorator]
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


@lean  # type: ignore[untyped-decorator]
def keep(state: Any, best_GJ: Any, best_EH: Any) -> None:
    """Remember a state as the best so far."""
    for gpu in range(best_GJ.shape[0]):
        copy_over(state.slots_GJ[gpu], best_GJ[gpu])
    for expert in range(best_EH.shape[0]):
        copy_over(state.choice_EH[expert], best_EH[expert])


@lean  # type: ignore[untyped-decorator]
def _walk(
    network: Any, tokens: Any, state: Any, best: Any, told: Any, scales: Any
) -> Any:
    """Do what ``anneal`` says; ``told`` is (knobs, random_1)."""
    knobs, random_1 = told
    best_GJ, best_EH, best_value, best_excess = best
    spare = state.slots_GJ.size > state.count_E.size
    scale_X, scale_G = scales
    rules, doublings, balance = knobs.rules, knobs.doublings, knobs.balance
    # Only the arrays needed are passed on: whole states cost more than the work.
    pairs_G, pairs_M, caps = state.pairs_G, state.pairs_M, tokens.pairs.caps
    seen_G, power_X = pairs_G[: network.domain_G.size], state.power_X
    leg_start, trial_X = network.leg_start, state.trial_X
    links = smooth_value(state.load_X, scale_X, leg_start, doublings, power_X)
    pairs = norm(seen_G, scale_G, doublings, power_X)
    excess, margin = excess_of(pairs_G, pairs_M, caps)
    new_links, new_pairs = links, pairs
    for _ in range(knobs.proposals):
        move = propose(network, tokens, state, random_1, spare)
        if move[0] < 0 or (rules.any and not is_legal(rules, state, move)):
            continue
        one, two = first_expert(state.slots_GJ, move), np.int64(move[2])
        single = network.alike and move[3] >= 0
        single = single and state.count_E[one] == 1 and state.count_E[two] == 1
        carry_pairs(network, tokens, state, move, single, 1)
        new_excess, new_margin = excess_of(pairs_G, pairs_M, caps)
        taken = new_excess < SLACK or new_excess < excess
        if taken:
            if single:
                try_swap(network, tokens, state, move)
            else:
                try_move(network, tokens, state, (one, two))
            new_links = smooth_value(trial_X, scale_X, leg_start, doublings, power_X)
            new_pairs = norm(seen_G, scale_G, doublings, power_X)
            if knobs.evening:
                value = peak_value(network, trial_X, seen_G) * (1.0 + new_margin)
                taken = new_pairs <= pairs and new_links <= links * (1 + 1e-9)
                taken = taken and value <= best_value and new_excess <= excess
            else:
                # exp(−rise / T) > chance, turned round: the most it may become.
                chance = (draw(random_1, 1 << 30) + 1.0) / (1 << 30)
                most = 1.0 - knobs.temperature * np.log(chance)
                now = links + balance * pairs + margin
                new = new_links + balance * new_pairs + new_margin
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
        copy_over(trial_X, state.load_X)
        evener = knobs.evening and new_pairs < pairs
        links, pairs = new_links, new_pairs
        excess, margin = new_excess, new_margin
        value = peak_value(network, state.load_X, seen_G) * (1.0 + margin)
        if evener or (excess, value) < (best_excess, best_value * (1 - 1e-12)):
            best_excess, best_value = excess, min(value, best_value)
            keep(state, best_GJ, best_EH)
    return best_value, best_excess


@entry  # type: ignore[untyped-decorator]
def anneal(
    network: Any, tokens: Any, state: Any, best: Any, knobs: Any, random_1: Any
) -> Any:
    """Try ``knobs.proposals`` moves at one temperature; return (value, excess).

    ``best`` is (slots_GJ, choice_EH, value, excess) of the best state so far; its
    arrays are overwritten when a better one is met. Values are raised by what draws
    of sequences exceed the caps. While the caps are exceeded only
    moves towards them are taken. The state descends on the smooth value plus a small
    weight on the norm of pairs per GPU; with ``knobs.evening`` it is the best one, and
    only moves are taken that make GPUs more even and raise neither value.
    """
    scales = scales_of(network, state)
    return _walk(network, tokens, state, best, (knobs, random_1), scales)
