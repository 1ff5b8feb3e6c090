"""Compiled moves: which tokens change GPU, what they add to links, and back."""

from typing import Any

import numpy as np
from numba import njit

from planner.strategies.search.bits import (
    ONES,
    ZERO,
    count_bits,
    ripple,
    shift,
    summarize,
)
from planner.strategies.search.compiling import inner


@inner  # type: ignore[untyped-decorator]
def near_ranks(network: Any, tokens: Any, ranks: Any, expert: int, near_L: Any) -> None:
    """Write the EP rank that serves an expert for every lane (rule 17)."""
    ep, domain_G, count = network.ep, network.domain_G, ranks.size
    near_S = np.empty(domain_G.size, dtype=np.int64)
    for base in range(0, domain_G.size, ep):
        far = 0
        for gpu in range(base, base + ep):
            own, local, first = False, 0, -1
            for rank in ranks:
                own = own or base + rank == gpu
                if domain_G[base + rank] == domain_G[gpu]:
                    local += 1
                    if first < 0:
                        first = rank
            if count == 1:
                near_S[gpu] = ranks[0]
            elif own:
                near_S[gpu] = gpu - base
            elif 0 < local < count:
                near_S[gpu] = first
            else:
                near_S[gpu] = ranks[(far + expert) % count]
                far += 1
    for lane in range(near_L.size):
        near_L[lane] = near_S[tokens.source_L[lane]]


@inner  # type: ignore[untyped-decorator]
def users_of(
    network: Any, tokens: Any, ranks: Any, near_L: Any, rank: int, out_W: Any
) -> None:
    """Write which tokens would use the copy on ``rank``, one bit each."""
    out_W[:] = ZERO
    for copy in range(ranks.size):
        if ranks[copy] != rank:
            continue
        if ranks.size == 1:
            out_W[:] = ONES
        elif network.nearest:
            lanes = near_L.size
            for lane in range(lanes):
                if near_L[lane] == rank:
                    out_W[lane::lanes] = ONES
        else:
            out_W[:] = tokens.mask_QW[ranks.size * (ranks.size - 1) // 2 + copy]


@inner  # type: ignore[untyped-decorator]
def shift_column(state: Any, column: int, moved_W: Any, sign: int) -> None:
    """Add or remove one expert of the tokens moved at a column."""
    shift(
        (state.count_CBW[column], state.any_CW[column], state.many_CW[column]),
        moved_W,
        sign,
        state.change_CL[column],
        state.words_5W[4],
    )


@inner  # type: ignore[untyped-decorator]
def serve(network: Any, tokens: Any, state: Any, rank: int, sign: int) -> None:
    """Add or remove one expert's tokens ``words_5W[2]`` at a rank and its cell."""
    moved_W, inside_W = state.words_5W[2], state.words_5W[3]
    pair_L = state.swap_2L[0]
    lanes = pair_L.size
    pair_L[:] = 0
    inside_W[:] = ZERO
    count_bits(moved_W, inside_W, sign, pair_L)
    for lane in range(lanes):
        base = tokens.source_L[lane] // network.ep * network.ep
        state.pairs_G[base + rank] += pair_L[lane]
    if network.linear:
        state.change_CL[rank] += pair_L
        return
    shift_column(state, rank, moved_W, sign)
    if network.alike:
        cell = network.cell_CR[0, rank]
        if cell >= 0:
            shift_column(state, cell, moved_W, sign)
        return
    for cell in range(network.ep, network.columns):
        found = False
        inside_W[:] = moved_W
        for lane in range(lanes):
            group = tokens.source_L[lane] // network.ep
            if network.cell_CR[group, rank] == cell:
                found = True
            else:
                inside_W[lane::lanes] = ZERO
        if found:
            shift_column(state, cell, inside_W, sign)


@inner  # type: ignore[untyped-decorator]
def retarget(
    network: Any, tokens: Any, state: Any, expert: int, before: Any, after: Any
) -> None:
    """Serve an expert by the copies on ranks ``after`` instead of ``before``."""
    old_W, new_W, moved_W = state.words_5W[0], state.words_5W[1], state.words_5W[2]
    if network.nearest:
        if before.size > 1:
            near_ranks(network, tokens, before, expert, state.near_2L[0])
        if after.size > 1:
            near_ranks(network, tokens, after, expert, state.near_2L[1])
    for index in range(before.size + after.size):
        if index < before.size:
            rank = before[index]
        else:
            rank = after[index - before.size]
            if (before == rank).any():
                continue
        users_of(network, tokens, before, state.near_2L[0], rank, old_W)
        users_of(network, tokens, after, state.near_2L[1], rank, new_W)
        for sign in (-1, 1):
            if sign < 0:
                moved_W[:] = tokens.chose_EW[expert] & old_W & ~new_W
            else:
                moved_W[:] = tokens.chose_EW[expert] & new_W & ~old_W
            if moved_W.any():
                serve(network, tokens, state, rank, sign)


@inner  # type: ignore[untyped-decorator]
def recount(state: Any, expert: int) -> None:
    """Read an expert's copies off the slots, in copy order."""
    found = 0
    for gpu in range(state.slots_GJ.shape[0]):
        for slot in range(state.slots_GJ.shape[1]):
            if state.slots_GJ[gpu, slot] == expert:
                state.rank_EM[expert, found] = gpu
                found += 1
    state.count_E[expert] = found


@inner  # type: ignore[untyped-decorator]
def change_slots(network: Any, tokens: Any, state: Any, move: Any) -> None:
    """Put ``move`` = (gpu, slot, expert, gpu, slot, expert) in place.

    Two experts are concerned: the one in the first slot and the one that replaces
    it. The second GPU is -1 where only one slot changes; in a swap its slot takes
    the first expert. Changes of columns are gathered, not yet settled.
    """
    one, two = np.int64(state.slots_GJ[move[0], move[1]]), np.int64(move[2])
    before_one = state.rank_EM[one, : state.count_E[one]].copy()
    before_two = state.rank_EM[two, : state.count_E[two]].copy()
    state.slots_GJ[move[0], move[1]] = two
    if move[3] >= 0:
        state.slots_GJ[move[3], move[4]] = one
    recount(state, one)
    recount(state, two)
    after_one = state.rank_EM[one, : state.count_E[one]]
    after_two = state.rank_EM[two, : state.count_E[two]]
    retarget(network, tokens, state, one, before_one, after_one)
    retarget(network, tokens, state, two, before_two, after_two)


@inner  # type: ignore[untyped-decorator]
def swap_in_column(
    tokens: Any, state: Any, column: int, leaving: int, coming: int
) -> None:
    """Let one expert leave a column and another come, where each has one copy."""
    moved_W, carry_W = state.words_5W[2], state.words_5W[4]
    for sign in (-1, 1):
        out, other = (leaving, coming) if sign < 0 else (coming, leaving)
        for at in range(moved_W.size):
            moved_W[at] = tokens.chose_EW[out, at] & ~tokens.chose_EW[other, at]
        ripple(moved_W, sign, state.count_CBW[column], carry_W)
    summarize(state.count_CBW[column], state.any_CW[column], state.many_CW[column])


@inner  # type: ignore[untyped-decorator]
def swap_single(network: Any, tokens: Any, state: Any, move: Any) -> None:
    """Carry out a swap of single copies whose loads are already settled."""
    one, two = move[5], move[2]
    state.slots_GJ[move[0], move[1]] = two
    state.slots_GJ[move[3], move[4]] = one
    state.rank_EM[one, 0], state.rank_EM[two, 0] = move[3], move[0]
    if network.linear:
        return
    swap_in_column(tokens, state, move[0], one, two)
    swap_in_column(tokens, state, move[3], two, one)
    near, far = network.cell_CR[0, move[0]], network.cell_CR[0, move[3]]
    if near != far:
        swap_in_column(tokens, state, near, one, two)
        swap_in_column(tokens, state, far, two, one)


@inner  # type: ignore[untyped-decorator]
def add_loads(
    network: Any, tokens: Any, column: int, change_L: Any, load_X: Any
) -> None:
    """Carry tokens gained by a column to the links."""
    gpus = network.domain_G.size
    for lane in range(change_L.size):
        change = change_L[lane]
        if change != 0:
            key = column * gpus + tokens.source_L[lane]
            for entry in range(network.first_K[key], network.first_K[key + 1]):
                load_X[network.place_Y[entry]] += change * network.share_Y[entry]


@inner  # type: ignore[untyped-decorator]
def settle(network: Any, tokens: Any, state: Any, load_X: Any) -> None:
    """Carry all gathered changes to the links and forget them."""
    for column in range(network.columns):
        add_loads(network, tokens, column, state.change_CL[column], load_X)
    state.change_CL[:, :] = 0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fill(network: Any, tokens: Any, state: Any) -> None:
    """Serve every expert of an empty state from its slots."""
    nothing = np.zeros(0, dtype=np.int64)
    for expert in range(state.count_E.size):
        recount(state, expert)
        after = state.rank_EM[expert, : state.count_E[expert]]
        retarget(network, tokens, state, expert, nothing, after)
    settle(network, tokens, state, state.load_X)
