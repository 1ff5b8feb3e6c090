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
    move_users,
    ripple,
    summarize,
)
from planner.strategies.search.compiling import inner
from planner.strategies.search.serving import NOBODY, chosen_ranks, follow, settle


@inner  # type: ignore[untyped-decorator]
def near_ranks(domain_G: Any, ep: int, ranks: Any, expert: int, near_S: Any) -> None:
    """Write the EP rank that serves an expert for every source GPU (rule 17)."""
    count = ranks.size
    if count == 1:
        near_S[:] = ranks[0]
        return
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
            if own:
                near_S[gpu] = gpu - base
            elif 0 < local < count:
                near_S[gpu] = first
            else:
                near_S[gpu] = ranks[(far + expert) % count]
                far += 1


@inner  # type: ignore[untyped-decorator]
def near_users(near_S: Any, where: Any, column: int, used_L: Any) -> None:
    """Write, per lane, whether the nearest copy of its source lies at a column.

    ``where`` is (cells [sets, ranks], source of each lane); columns below the number
    of ranks are the ranks themselves.
    """
    cell_CR, source_L = where
    ep = cell_CR.shape[1]
    for lane in range(source_L.size):
        source = source_L[lane]
        here = near_S[source]
        if column >= ep:
            here = cell_CR[source // ep, here]
        used_L[lane] = ONES if here == column else ZERO


@inner  # type: ignore[untyped-decorator]
def hashed_users(
    ranks: Any, where: Any, column: int, mask_QW: Any, used_W: Any
) -> None:
    """Write which tokens' hash points at a copy at a column (see ``near_users``)."""
    cell_CR, source_L = where
    ep, lanes, count = cell_CR.shape[1], source_L.size, ranks.size
    used_W[:] = ZERO
    for copy in range(count):
        uses = count * (count - 1) // 2 + copy
        if column < ep:
            if ranks[copy] == column:
                used_W[:] = mask_QW[uses]
            continue
        for lane in range(lanes):
            if cell_CR[source_L[lane] // ep, ranks[copy]] == column:
                for at in range(lane, used_W.size, lanes):
                    used_W[at] |= mask_QW[uses, at]


@inner  # type: ignore[untyped-decorator]
def find_users(
    by_source: bool, copies: Any, where: Any, column: int, masks: Any
) -> bool:
    """Write who uses a column before and after; return whether that differs.

    ``copies`` is (``near_4S``, ``rank_4M``, ``count_4``), ``masks`` (``mask_QW``,
    ``used_4W``).
    """
    near_4S, rank_4M, count_4 = copies
    mask_QW, used_4W = masks
    for row in range(4):
        if by_source:
            near_users(near_4S[row], where, column, used_4W[row])
        else:
            ranks = rank_4M[row, : count_4[row]]
            hashed_users(ranks, where, column, mask_QW, used_4W[row])
    differs = ZERO
    for at in range(used_4W.shape[1]):
        differs |= used_4W[0, at] ^ used_4W[1, at]
        differs |= used_4W[2, at] ^ used_4W[3, at]
    return bool(differs != ZERO)


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
    """Write where the copies of both experts of a move are, and who serves whom."""
    one, two = np.int64(state.slots_GJ[move[0], move[1]]), np.int64(move[2])
    relist(state, one, 0, move[0], move[3])
    relist(state, two, 2, move[3], move[0])
    if network.homes.domain_H.size:
        follow(network, state, move, one, 0)
        follow(network, state, move, two, 2)
    if network.by_source:
        for row in range(4):
            find_servers(network, state, one if row < 2 else two, row)


@inner  # type: ignore[untyped-decorator]
def find_servers(network: Any, state: Any, expert: int, row: int) -> None:
    """Write the EP rank that serves an expert for every source GPU in a row of 4."""
    ranks, near_S = state.rank_4M[row, : state.count_4[row]], state.near_4S[row]
    if network.homes.domain_H.size:
        chosen_ranks(network, ranks, state.choice_4H[row], near_S)
    else:
        near_ranks(network.domain_G, network.ep, ranks, expert, near_S)


@inner  # type: ignore[untyped-decorator]
def prepare_choice(network: Any, state: Any, move: Any) -> None:
    """Write who serves whom where another copy is to serve one home class.

    Rows 2 and 3 stand for a second expert that nothing happens to.
    """
    rank, expert, home = move[0], move[2], move[4]
    count = state.count_E[expert]
    for row in range(4):
        state.count_4[row] = count
        state.rank_4M[row, :count] = state.rank_EM[expert, :count]
        state.choice_4H[row] = state.choice_EH[expert]
    state.choice_4H[1, home] = rank
    for row in range(4):
        find_servers(network, state, expert, row)


@inner  # type: ignore[untyped-decorator]
def add_pairs(
    ep: int, near_S: Any, load_SE: Any, expert: int, way: int, pairs_G: Any
) -> None:
    """Add ``way`` times an expert's pairs where the nearest copies serve them."""
    for source in range(pairs_G.size):
        base = source - source % ep
        pairs_G[base + near_S[source]] += way * load_SE[source, expert]


@inner  # type: ignore[untyped-decorator]
def add_hashed_pairs(
    ep: int, ranks: Any, load_CQE: Any, expert: int, way: int, pairs_G: Any
) -> None:
    """Add ``way`` times an expert's pairs where the hash finds them copies."""
    first = ranks.size * (ranks.size - 1) // 2
    for group in range(load_CQE.shape[0]):
        for copy in range(ranks.size):
            rank = group * ep + ranks[copy]
            pairs_G[rank] += way * load_CQE[group, first + copy, expert]


@inner  # type: ignore[untyped-decorator]
def move_pairs(network: Any, tokens: Any, state: Any, experts: Any, sign: int) -> None:
    """Carry the pairs of a prepared move over, or back (sign −1)."""
    ep, pairs_G = network.ep, state.pairs_G
    for row in range(4):
        way, expert = sign if row % 2 else -sign, experts[row // 2]
        if network.by_source:
            near_S, load_SE = state.near_4S[row], tokens.load_SE
            add_pairs(ep, near_S, load_SE, expert, way, pairs_G)
        else:
            ranks = state.rank_4M[row, : state.count_4[row]]
            add_hashed_pairs(ep, ranks, tokens.load_CQE, expert, way, pairs_G)


@inner  # type: ignore[untyped-decorator]
def mark(
    cells_only: bool, cell_CR: Any, rank_4M: Any, count_4: Any, out_C: Any
) -> None:
    """Mark the columns that a prepared move may change."""
    out_C[:] = False
    for row in range(4):
        for copy in range(count_4[row]):
            rank = rank_4M[row, copy]
            if not cells_only:
                out_C[rank] = True
            for group in range(cell_CR.shape[0]):
                if cell_CR[group, rank] >= 0:
                    out_C[cell_CR[group, rank]] = True


@inner  # type: ignore[untyped-decorator]
def try_move(network: Any, tokens: Any, state: Any, experts: Any) -> None:
    """Write into ``trial_X`` the loads after a prepared move."""
    state.trial_X[:] = state.load_X
    served = (state.any_CW, state.many_CW, state.three_CW)
    change_L, chose_EW, used_4W = state.swap_2L[0], tokens.chose_EW, state.used_4W
    copies = (state.near_4S, state.rank_4M, state.count_4)
    where, masks = (network.cell_CR, tokens.source_L), (tokens.mask_QW, used_4W)
    cells_only, marked_C = network.cells_only, state.marked_C
    mark(cells_only, network.cell_CR, state.rank_4M, state.count_4, marked_C)
    for column in range(network.columns):
        if not marked_C[column]:
            continue
        marked_C[column] = find_users(network.by_source, copies, where, column, masks)
        if marked_C[column]:
            if network.linear:
                judge_pairs(chose_EW, experts, used_4W, change_L)
            else:
                judge_column(chose_EW, experts, used_4W, served, column, change_L)
            add_loads(network, tokens, column, change_L, state.trial_X)


@inner  # type: ignore[untyped-decorator]
def carry_out(network: Any, tokens: Any, state: Any, move: Any, one: int) -> None:
    """Carry out a prepared move whose loads and pairs are already settled."""
    two, used_4W = move[2], state.used_4W
    if move[1] >= 0:
        state.slots_GJ[move[0], move[1]] = two
    if move[3] >= 0:
        state.slots_GJ[move[3], move[4]] = one
    # Row 1 last: where another copy serves, rows 2 and 3 are as before.
    for row in (3, 1):
        expert, count = one if row == 1 else two, state.count_4[row]
        state.rank_EM[expert, :count] = state.rank_4M[row, :count]
        state.count_E[expert] = count
        state.choice_EH[expert] = state.choice_4H[row]
    if network.linear:
        return
    copies = (state.near_4S, state.rank_4M, state.count_4)
    where, masks = (network.cell_CR, tokens.source_L), (tokens.mask_QW, used_4W)
    for column in range(network.columns):
        if state.marked_C[column]:
            find_users(network.by_source, copies, where, column, masks)
            for row in range(4):
                chose_W = tokens.chose_EW[one if row < 2 else two]
                take_users(state, column, chose_W, row)
            any_W, many_W = state.any_CW[column], state.many_CW[column]
            three_W = state.three_CW[column]
            summarize(state.count_CBW[column], any_W, many_W, three_W)


@inner  # type: ignore[untyped-decorator]
def take_users(state: Any, column: int, chose_W: Any, row: int) -> None:
    """Count in (odd rows) or out (even rows) those who use a column only then."""
    used_4W, moved_W = state.used_4W, state.moved_W
    move_users(chose_W, used_4W[row], used_4W[row ^ 1], state.swap_2L.shape[1], moved_W)
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
    for number in range(state.count_E.size):
        serve(network, tokens, state, number)
    if network.linear:
        return
    for column in range(network.columns):
        any_W, many_W = state.any_CW[column], state.many_CW[column]
        summarize(state.count_CBW[column], any_W, many_W, state.three_CW[column])
        change_L[:] = 0
        count_bits(any_W, change_L)
        add_loads(network, tokens, column, change_L, state.load_X)


@inner  # type: ignore[untyped-decorator]
def serve(network: Any, tokens: Any, state: Any, expert: int) -> None:
    """Serve one expert from its copies."""
    count = state.count_E[expert]
    ranks, near_S = state.rank_EM[expert, :count], state.near_4S[0]
    where, used_W = (network.cell_CR, tokens.source_L), state.used_4W[1]
    if network.by_source:
        state.count_4[0] = count
        state.rank_4M[0, :count] = ranks
        for home in range(network.homes.domain_H.size):
            here = NOBODY
            for rank in ranks:
                if rank == state.choice_EH[expert, home]:
                    here = rank
            here = settle(network, ranks, expert, here, home)
            state.choice_EH[expert, home] = state.choice_4H[0, home] = here
        find_servers(network, state, expert, 0)
        add_pairs(network.ep, near_S, tokens.load_SE, expert, 1, state.pairs_G)
    else:
        add_hashed_pairs(network.ep, ranks, tokens.load_CQE, expert, 1, state.pairs_G)
    state.used_4W[0] = ZERO
    for column in range(network.columns):
        if column < network.ep and network.cells_only:
            continue
        if network.by_source:
            near_users(near_S, where, column, used_W)
        else:
            hashed_users(ranks, where, column, tokens.mask_QW, used_W)
        if network.linear:
            change_L = state.swap_2L[0]
            lanes, moved_W = change_L.size, state.moved_W
            none_W = state.used_4W[0]
            move_users(tokens.chose_EW[expert], used_W, none_W, lanes, moved_W)
            change_L[:] = 0
            count_bits(moved_W, change_L)
            add_loads(network, tokens, column, change_L, state.load_X)
        else:
            take_users(state, column, tokens.chose_EW[expert], 1)
