"""Compiled moves: which tokens change GPU, what that adds to links, how it is done.

Two experts are concerned in a move: *one*, in the first slot, and *two*, which takes
its place. Rows 0 to 3 of ``rank_4M``, ``count_4`` and ``near_4S`` tell where their
copies are: of one before and after, of two before and after.
"""

from typing import Any

import numpy as np
from numba import njit

from planner.strategies.search.bits import (
    ONES,
    ZERO,
    count_bits,
    judge_column,
    judge_pairs,
    judge_swap,
    ripple,
    summarize,
)
from planner.strategies.search.compiling import inner


@inner  # type: ignore[untyped-decorator]
def near_ranks(network: Any, ranks: Any, expert: int, near_S: Any) -> None:
    """Write the EP rank that serves an expert for every source GPU (rule 17)."""
    ep, domain_G, count = network.ep, network.domain_G, ranks.size
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


@inner  # type: ignore[untyped-decorator]
def column_of(network: Any, group: int, rank: int, cell: bool) -> int:
    """Return the column of a rank of an EP set: itself or its cell."""
    return network.cell_CR[group, rank] if cell else rank


@inner  # type: ignore[untyped-decorator]
def users_of(
    network: Any, tokens: Any, state: Any, row: int, column: int, out_W: Any
) -> None:
    """Write which tokens would use a copy at a column, one bit each."""
    source_L, ep, cell = tokens.source_L, network.ep, column >= network.ep
    lanes, count = source_L.size, state.count_4[row]
    mask_L = state.mask_L
    if network.nearest:
        for lane in range(lanes):
            source = source_L[lane]
            rank = state.near_4S[row, source]
            here = column_of(network, source // ep, rank, cell) == column
            mask_L[lane] = ONES if count > 0 and here else ZERO
        for word in range(out_W.size // lanes):
            for lane in range(lanes):
                out_W[word * lanes + lane] = mask_L[lane]
        return
    out_W[:] = ZERO
    for copy in range(count):
        found, rank = ZERO, state.rank_4M[row, copy]
        for lane in range(lanes):
            here = column_of(network, source_L[lane] // ep, rank, cell) == column
            mask_L[lane] = ONES if here else ZERO
            found |= mask_L[lane]
        if found:
            uses_W = tokens.mask_QW[count * (count - 1) // 2 + copy]
            for word in range(out_W.size // lanes):
                for lane in range(lanes):
                    at = word * lanes + lane
                    out_W[at] |= uses_W[at] & mask_L[lane]


@inner  # type: ignore[untyped-decorator]
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


@inner  # type: ignore[untyped-decorator]
def prepare(network: Any, tokens: Any, state: Any, move: Any) -> None:
    """Write where the copies of both experts of a move are before and after."""
    one, two = np.int64(state.slots_GJ[move[0], move[1]]), np.int64(move[2])
    relist(state, one, 0, move[0], move[3])
    relist(state, two, 2, move[3], move[0])
    if network.nearest:
        for row in range(4):
            ranks = state.rank_4M[row, : state.count_4[row]]
            near_ranks(network, ranks, one if row < 2 else two, state.near_4S[row])


@inner  # type: ignore[untyped-decorator]
def add_pairs(
    network: Any, tokens: Any, state: Any, row: int, expert: int, sign: int
) -> None:
    """Add an expert's pairs, or take them away, where its copies serve them."""
    ep, pairs_G, count = network.ep, state.pairs_G, state.count_4[row]
    if network.nearest and count > 1:
        for source in range(pairs_G.size):
            rank = source // ep * ep + state.near_4S[row, source]
            pairs_G[rank] += sign * tokens.load_SE[source, expert]
        return
    first = 0 if network.nearest else count * (count - 1) // 2
    for group in range(tokens.load_CQE.shape[0]):
        for copy in range(count):
            rank = group * ep + state.rank_4M[row, copy]
            pairs_G[rank] += sign * tokens.load_CQE[group, first + copy, expert]


@inner  # type: ignore[untyped-decorator]
def move_pairs(network: Any, tokens: Any, state: Any, experts: Any, sign: int) -> None:
    """Carry the pairs of a prepared move over, or back (sign −1)."""
    for row in range(4):
        way = sign if row % 2 else -sign
        add_pairs(network, tokens, state, row, experts[row // 2], way)


@inner  # type: ignore[untyped-decorator]
def mark(network: Any, state: Any) -> None:
    """Mark the columns that a prepared move may change."""
    marked_C = state.marked_C
    marked_C[:] = False
    for row in range(4):
        for copy in range(state.count_4[row]):
            rank = state.rank_4M[row, copy]
            if not network.cells_only:
                marked_C[rank] = True
            for group in range(network.cell_CR.shape[0]):
                if network.cell_CR[group, rank] >= 0:
                    marked_C[network.cell_CR[group, rank]] = True


@inner  # type: ignore[untyped-decorator]
def find_users(network: Any, tokens: Any, state: Any, column: int) -> bool:
    """Write who uses a column before and after; return whether that differs."""
    used_4W, differs = state.used_4W, ZERO
    for row in range(4):
        users_of(network, tokens, state, row, column, used_4W[row])
    for at in range(used_4W.shape[1]):
        differs |= used_4W[0, at] ^ used_4W[1, at]
        differs |= used_4W[2, at] ^ used_4W[3, at]
    return differs != ZERO


@inner  # type: ignore[untyped-decorator]
def try_move(network: Any, tokens: Any, state: Any, experts: Any) -> None:
    """Write into ``trial_X`` the loads after a prepared move."""
    state.trial_X[:] = state.load_X
    served = (state.any_CW, state.many_CW, state.three_CW)
    change_L, chose_EW = state.swap_2L[0], tokens.chose_EW
    mark(network, state)
    for column in range(network.columns):
        if state.marked_C[column] and find_users(network, tokens, state, column):
            if network.linear:
                judge_pairs(chose_EW, experts, state.used_4W, change_L)
            else:
                used_4W = state.used_4W
                judge_column(chose_EW, experts, used_4W, served, column, change_L)
            add_loads(network, tokens, column, change_L, state.trial_X)


@inner  # type: ignore[untyped-decorator]
def carry_out(network: Any, tokens: Any, state: Any, move: Any, one: int) -> None:
    """Carry out a prepared move whose loads and pairs are already settled."""
    two = move[2]
    state.slots_GJ[move[0], move[1]] = two
    if move[3] >= 0:
        state.slots_GJ[move[3], move[4]] = one
    for row in (1, 3):
        expert, count = one if row == 1 else two, state.count_4[row]
        state.rank_EM[expert, :count] = state.rank_4M[row, :count]
        state.count_E[expert] = count
    if network.linear:
        return
    for column in range(network.columns):
        if state.marked_C[column] and find_users(network, tokens, state, column):
            for row in range(4):
                expert = one if row < 2 else two
                take_users(tokens, state, column, expert, row)
            summarize(
                state.count_CBW[column],
                state.any_CW[column],
                state.many_CW[column],
                state.three_CW[column],
            )


@inner  # type: ignore[untyped-decorator]
def take_users(tokens: Any, state: Any, column: int, expert: int, row: int) -> None:
    """Count in (odd rows) or out (even rows) those who use a column only then."""
    moved_W, used_4W, other = state.moved_W, state.used_4W, row ^ 1
    for at in range(moved_W.size):
        moved_W[at] = tokens.chose_EW[expert, at] & used_4W[row, at]
        moved_W[at] &= ~used_4W[other, at]
    sign = 1 if row % 2 else -1
    ripple(moved_W, sign, state.count_CBW[column], state.carry_W)


@inner  # type: ignore[untyped-decorator]
def swap_pairs(network: Any, tokens: Any, state: Any, move: Any, sign: int) -> None:
    """Move the pairs of two single-copy experts between their GPUs."""
    one, load_CQE = move[5], tokens.load_CQE
    for group in range(load_CQE.shape[0]):
        base = group * network.ep
        moved = sign * (load_CQE[group, 0, one] - load_CQE[group, 0, move[2]])
        state.pairs_G[base + move[0]] -= moved
        state.pairs_G[base + move[3]] += moved


@inner  # type: ignore[untyped-decorator]
def try_swap(network: Any, tokens: Any, state: Any, move: Any) -> None:
    """Write into ``trial_X`` the loads after a swap of single copies."""
    state.trial_X[:] = state.load_X
    experts, change_2L = (move[5], move[2]), state.swap_2L
    near, far = network.cell_CR[0, move[0]], network.cell_CR[0, move[3]]
    for level in range(network.cells_only, 1 if near == far else 2):
        columns = (near, far) if level else (move[0], move[3])
        judge_swap(
            tokens.chose_EW, experts, state.any_CW, state.many_CW, columns, change_2L
        )
        add_loads(network, tokens, columns[0], change_2L[0], state.trial_X)
        add_loads(network, tokens, columns[1], change_2L[1], state.trial_X)


@inner  # type: ignore[untyped-decorator]
def swap_in_column(
    tokens: Any, state: Any, column: int, leaving: int, coming: int
) -> None:
    """Let one expert leave a column and another come, where each has one copy."""
    moved_W, count_BW = state.moved_W, state.count_CBW[column]
    for sign in (-1, 1):
        out, other = (leaving, coming) if sign < 0 else (coming, leaving)
        for at in range(moved_W.size):
            moved_W[at] = tokens.chose_EW[out, at] & ~tokens.chose_EW[other, at]
        ripple(moved_W, sign, count_BW, state.carry_W)
    any_W, many_W = state.any_CW[column], state.many_CW[column]
    summarize(count_BW, any_W, many_W, state.three_CW[column])


@inner  # type: ignore[untyped-decorator]
def swap_single(network: Any, tokens: Any, state: Any, move: Any) -> None:
    """Carry out a swap of single copies whose loads are already settled."""
    one, two = move[5], move[2]
    state.slots_GJ[move[0], move[1]] = two
    state.slots_GJ[move[3], move[4]] = one
    state.rank_EM[one, 0], state.rank_EM[two, 0] = move[3], move[0]
    if network.linear:
        return
    if not network.cells_only:
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
    class_S, source_L, lanes = network.class_S, tokens.source_L, change_L.size
    change = 0
    for lane in range(lanes):
        change += change_L[lane]
        group = class_S[source_L[lane]]
        if lane + 1 < lanes and class_S[source_L[lane + 1]] == group:
            continue
        if change != 0:
            key = column * network.classes + group
            for entry in range(network.first_K[key], network.first_K[key + 1]):
                load_X[network.place_Y[entry]] += change * network.share_Y[entry]
        change = 0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fill(network: Any, tokens: Any, state: Any) -> None:
    """Serve every expert of an empty state from its slots."""
    slots_GJ, change_L = state.slots_GJ, state.swap_2L[0]
    for gpu in range(slots_GJ.shape[0]):
        for slot in range(slots_GJ.shape[1]):
            expert = np.int64(slots_GJ[gpu, slot])
            if expert >= 0:
                state.rank_EM[expert, state.count_E[expert]] = gpu
                state.count_E[expert] += 1
    state.count_4[0] = 0
    for expert in range(state.count_E.size):
        count = state.count_E[expert]
        ranks = state.rank_EM[expert, :count]
        state.count_4[1], state.rank_4M[1, :count] = count, ranks
        if network.nearest:
            near_ranks(network, ranks, expert, state.near_4S[1])
        add_pairs(network, tokens, state, 1, expert, 1)
        for column in range(network.columns):
            users_of(network, tokens, state, 1, column, state.used_4W[1])
            if network.linear:
                state.moved_W[:] = tokens.chose_EW[expert] & state.used_4W[1]
                change_L[:] = 0
                count_bits(state.moved_W, change_L)
                add_loads(network, tokens, column, change_L, state.load_X)
            elif column >= network.ep or not network.cells_only:
                take_users(tokens, state, column, expert, 1)
    if network.linear:
        return
    for column in range(network.columns):
        any_W, many_W = state.any_CW[column], state.many_CW[column]
        summarize(state.count_CBW[column], any_W, many_W, state.three_CW[column])
        change_L[:] = 0
        count_bits(any_W, change_L)
        add_loads(network, tokens, column, change_L, state.load_X)
