"""Compiled moves: which tokens change GPU, what that adds to links, how it is done.

Two experts are concerned in a move: *one*, in the first slot, and *two*, which takes
its place; the same one twice where only another copy is to serve. Rows 0 to 3 of
``rank_4M`` and ``count_4`` tell where their copies are: of one before and after, of
two before and after.
"""

from typing import Any

import numpy as np

from planner.strategies.search.bits import copy_over, count_bits, summarize
from planner.strategies.search.column import add_change, do_trade, try_trade
from planner.strategies.search.compiling import entry, inlined, lean
from planner.strategies.search.hashed import (
    carry_hashed,
    move_hashed_pairs,
    serve_hashed,
    try_hashed,
)
from planner.strategies.search.nearest import (
    carry_near,
    move_near_pairs,
    prepare_near,
    serve_near,
    try_near,
    try_near_copies,
)
from planner.strategies.search.serving import follow


@inlined  # type: ignore[untyped-decorator]
def relist(state: Any, expert: int, row: int, leaving: int, coming: int) -> None:
    """Write an expert's copies before and, after a change of ranks, in copy order."""
    count, kept, placed = state.count_E[expert], 0, coming < 0
    for copy in range(count):
        rank = state.rank_EM[expert, copy]
        state.rank_4M[row, copy] = rank
        if not placed and coming < rank:
            state.rank_4M[row + 1, kept] = coming
            kept, placed = kept + 1, True
        if rank != leaving:
            state.rank_4M[row + 1, kept] = rank
            kept += 1
    if not placed:
        state.rank_4M[row + 1, kept] = coming
        kept += 1
    state.count_4[row], state.count_4[row + 1] = count, kept


@inlined  # type: ignore[untyped-decorator]
def prepare(network: Any, state: Any, move: Any) -> None:
    """Write where the copies of both experts of a move are before and after."""
    one, two = np.int64(state.slots_GJ[move[0], move[1]]), np.int64(move[2])
    relist(state, one, 0, move[0], move[3])
    relist(state, two, 2, move[3], move[0])
    if network.homes.domain_H.size:
        follow(network, state, one, 0, (move[0], move[3]))
        follow(network, state, two, 1, (move[3], move[0]))
    if network.by_source:
        prepare_near(network, state, (one, two))


@inlined  # type: ignore[untyped-decorator]
def move_pairs(network: Any, tokens: Any, state: Any, experts: Any, sign: int) -> None:
    """Carry the pairs of a prepared move over, or back (sign −1)."""
    if network.by_source:
        move_near_pairs(network, tokens, state, experts, sign)
    else:
        move_hashed_pairs(network, tokens, state, experts, sign)


@inlined  # type: ignore[untyped-decorator]
def try_move(network: Any, tokens: Any, state: Any, experts: Any) -> None:
    """Write into ``trial_X`` the loads after a prepared move."""
    copy_over(state.load_X, state.trial_X)
    if not network.by_source:
        try_hashed(network, tokens, state, experts)
    elif network.linear:
        try_near_copies(network, tokens, state, experts)
    else:
        try_near(network, tokens, state, experts)


@lean  # type: ignore[untyped-decorator]
def carry_out(network: Any, tokens: Any, state: Any, move: Any, one: int) -> None:
    """Carry out a prepared move whose loads and pairs are already settled."""
    two, placing = np.int64(move[2]), move[1] >= 0
    if placing:
        state.slots_GJ[move[0], move[1]] = two
    if move[3] >= 0:
        state.slots_GJ[move[3], move[4]] = one
    if not network.linear:
        if network.by_source:
            carry_near(network, tokens, state, (one, two))
        else:
            carry_hashed(network, tokens, state, (one, two))
    for side in range(2 if placing else 1):
        expert, row = two if side else one, 2 * side + 1
        if placing:
            count = state.count_4[row]
            copy_over(state.rank_4M[row, :count], state.rank_EM[expert, :count])
            state.count_E[expert] = count
        if network.by_source:
            copy_over(state.near_2S[side], state.near_ES[expert])
        if network.homes.domain_H.size:
            copy_over(state.choice_2H[side], state.choice_EH[expert])


@inlined  # type: ignore[untyped-decorator]
def swap_pairs(network: Any, tokens: Any, state: Any, move: Any, sign: int) -> None:
    """Move the pairs of two single-copy experts between their GPUs."""
    one, load_CQE = move[5], tokens.pairs.load_CQE
    for group in range(load_CQE.shape[0]):
        base = group * network.ep
        moved = sign * (load_CQE[group, 0, one] - load_CQE[group, 0, move[2]])
        state.pairs_G[base + move[0]] -= moved
        state.pairs_G[base + move[3]] += moved


@inlined  # type: ignore[untyped-decorator]
def try_swap(network: Any, tokens: Any, state: Any, move: Any) -> None:
    """Write into ``trial_X`` the loads after a swap of single copies."""
    copy_over(state.load_X, state.trial_X)
    one, two, lanes = np.int64(move[5]), np.int64(move[2]), tokens.source_L.size
    if network.linear:
        load_ES = tokens.pairs.load_EU
        for source in range(load_ES.shape[1]):
            change = load_ES[two, source] - load_ES[one, source]
            add_change(network, move[0], source, change, state.trial_X)
            add_change(network, move[3], source, -change, state.trial_X)
        return
    near, far = network.cell_CR[0, move[0]], network.cell_CR[0, move[3]]
    for level in range(int(network.cells_only), 1 if near == far else 2):
        here, there = (near, far) if level else (move[0], move[3])
        try_trade(network, tokens, state, (here, 0, lanes), (one, two))
        try_trade(network, tokens, state, (there, 0, lanes), (two, one))


@lean  # type: ignore[untyped-decorator]
def swap_single(network: Any, tokens: Any, state: Any, move: Any) -> None:
    """Carry out a swap of single copies whose loads are already settled."""
    one, two, lanes = np.int64(move[5]), np.int64(move[2]), tokens.source_L.size
    state.slots_GJ[move[0], move[1]] = two
    state.slots_GJ[move[3], move[4]] = one
    state.rank_EM[one, 0], state.rank_EM[two, 0] = move[3], move[0]
    state.near_ES[one], state.near_ES[two] = move[3], move[0]
    if network.linear:
        return
    near, far = network.cell_CR[0, move[0]], network.cell_CR[0, move[3]]
    for level in range(int(network.cells_only), 1 if near == far else 2):
        here, there = (near, far) if level else (move[0], move[3])
        do_trade(tokens, state, (here, 0, lanes), (one, two))
        do_trade(tokens, state, (there, 0, lanes), (two, one))


@entry  # type: ignore[untyped-decorator]
def fill(network: Any, tokens: Any, state: Any) -> None:
    """Serve every expert of an empty state from its slots."""
    slots_GJ, class_L, first_L = state.slots_GJ, tokens.class_L, tokens.first_L
    for gpu in range(slots_GJ.shape[0]):
        for slot in range(slots_GJ.shape[1]):
            expert = np.int64(slots_GJ[gpu, slot])
            if expert >= 0:
                state.rank_EM[expert, state.count_E[expert]] = gpu
                state.count_E[expert] += 1
    for number in range(state.count_E.size):
        if network.by_source:
            serve_near(network, tokens, state, number)
        else:
            serve_hashed(network, tokens, state, number)
    if network.linear:
        return
    for column in range(network.columns):
        any_W, many_W = state.any_CW[column], state.many_CW[column]
        served = (any_W, many_W, state.three_CW[column])
        summarize(state.count_CBW[column], served, 0, any_W.size)
        for lane in range(class_L.size):
            tokens_here = count_bits(any_W[first_L[lane] : first_L[lane + 1]])
            add_change(network, column, class_L[lane], tokens_here, state.load_X)
