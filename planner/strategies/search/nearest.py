"""Moves where the source alone says which copy serves a token: by rule 17, or chosen.

So what a move changes is a list of runs: neighbouring lanes whose sources find both
experts at the same columns before, and at the same columns after. Lanes for which
nothing changes are not looked at.
"""

from typing import Any

import numpy as np

from planner.strategies.search.bits import copy_over
from planner.strategies.search.column import (
    add_change,
    do_both,
    do_trade,
    try_both,
    try_trade,
)
from planner.strategies.search.compiling import inlined, lean
from planner.strategies.search.serving import begin_choice, chosen_ranks

SOURCE_WORDS = 250
"""What a source, looked at in a move of copies, counts in words (``read_1``)."""


@lean  # type: ignore[untyped-decorator]
def near_ranks(domain_G: Any, ep: int, ranks: Any, expert: int, near_S: Any) -> None:
    """Write the EP rank that serves an expert for every source GPU (rule 17)."""
    count = ranks.size
    if count == 1:
        near_S[:] = ranks[0]
        return
    for base in range(0, domain_G.size, ep):
        turn = expert % count
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
                near_S[gpu] = ranks[turn]
                turn = turn + 1 if turn + 1 < count else 0


@inlined  # type: ignore[untyped-decorator]
def prepare_near(network: Any, state: Any, experts: Any) -> None:
    """Write which ranks serve both experts after a move that is listed."""
    state.read_1[0] += SOURCE_WORDS * state.near_2S.shape[1]
    for side in range(2):
        row = 2 * side + 1
        ranks, near_S = state.rank_4M[row, : state.count_4[row]], state.near_2S[side]
        if network.homes.domain_H.size:
            chosen_ranks(network, ranks, state.choice_2H[side], near_S)
        else:
            near_ranks(network.domain_G, network.ep, ranks, experts[side], near_S)


@inlined  # type: ignore[untyped-decorator]
def prepare_choice(network: Any, state: Any, move: Any) -> None:
    """Write which ranks serve an expert if another copy serves one home class.

    Its second side is the same expert, to which nothing happens.
    """
    rank, expert, home = move[0], np.int64(move[2]), move[4]
    ranks = state.rank_EM[expert, : state.count_E[expert]]
    copy_over(state.choice_EH[expert], state.choice_2H[0])
    state.choice_2H[0, home] = rank
    chosen_ranks(network, ranks, state.choice_2H[0], state.near_2S[0])
    copy_over(state.near_ES[expert], state.near_2S[1])


@inlined  # type: ignore[untyped-decorator]
def move_near_pairs(
    network: Any, tokens: Any, state: Any, experts: Any, sign: int
) -> None:
    """Carry the pairs of a prepared move over, or back (sign −1)."""
    pairs_G, source_U, base_U = (
        state.pairs_G,
        tokens.pairs.source_U,
        tokens.pairs.base_U,
    )
    for side in range(2):
        before_S, after_S = state.near_ES[experts[side]], state.near_2S[side]
        load_U = tokens.pairs.load_EU[experts[side]]
        for at in range(load_U.size):
            before, after = before_S[source_U[at]], after_S[source_U[at]]
            if before != after:
                pairs = sign * load_U[at]
                pairs_G[base_U[at] + before] -= pairs
                pairs_G[base_U[at] + after] += pairs


@inlined  # type: ignore[untyped-decorator]
def column_of(network: Any, level: int, source: int, rank: Any) -> Any:
    """Return a rank's column: itself (level 0) or the cell it lies in (level 1)."""
    return network.cell_CR[source // network.ep, rank] if level else rank


@inlined  # type: ignore[untyped-decorator]
def find_columns(
    network: Any, tokens: Any, state: Any, experts: Any, level: int
) -> None:
    """Write the columns that serve every lane: of both experts before and after."""
    for row in range(4):
        expert, column_L = experts[row // 2], state.column_4L[row]
        near_S = state.near_2S[row // 2] if row % 2 else state.near_ES[expert]
        for lane in range(column_L.size):
            source = tokens.source_L[lane]
            column_L[lane] = column_of(network, level, source, near_S[source])


@inlined  # type: ignore[untyped-decorator]
def next_run(column_4L: Any, lane: int) -> Any:
    """Return the next lanes that are served otherwise, all alike; the end if none."""
    lanes = column_4L.shape[1]
    while lane < lanes and (
        column_4L[0, lane] == column_4L[1, lane]
        and column_4L[2, lane] == column_4L[3, lane]
    ):
        lane += 1
    end = lane
    while end < lanes and (
        column_4L[0, end] == column_4L[0, lane]
        and column_4L[1, end] == column_4L[1, lane]
        and column_4L[2, end] == column_4L[2, lane]
        and column_4L[3, end] == column_4L[3, lane]
    ):
        end += 1
    return lane, end


@inlined  # type: ignore[untyped-decorator]
def change_at(column_4L: Any, lane: int, row: int) -> Any:
    """Return the column of a row and what both experts do there: −1 leave, 1 come.

    Both 0 where an earlier row has the same column.
    """
    column = column_4L[row, lane]
    for before in range(row):
        if column_4L[before, lane] == column:
            return column, 0, 0
    one = int(column_4L[1, lane] == column) - int(column_4L[0, lane] == column)
    two = int(column_4L[3, lane] == column) - int(column_4L[2, lane] == column)
    return column, one, two


@inlined  # type: ignore[untyped-decorator]
def traders(experts: Any, one: int, two: int, nobody: int) -> Any:
    """Return who leaves and who comes, given what either expert does."""
    out = experts[0] if one < 0 else (experts[1] if two < 0 else nobody)
    into = experts[0] if one > 0 else (experts[1] if two > 0 else nobody)
    return out, into


@inlined  # type: ignore[untyped-decorator]
def levels_of(network: Any) -> Any:
    """Return the levels at which columns matter: GPUs, cells or both."""
    return range(int(network.cells_only), 2 if network.columns > network.ep else 1)


@inlined  # type: ignore[untyped-decorator]
def try_near(network: Any, tokens: Any, state: Any, experts: Any) -> None:
    """Add to ``trial_X`` what a prepared move changes, run by run."""
    nobody, column_4L = tokens.chose_FW.shape[0] - 1, state.column_4L
    for level in levels_of(network):
        find_columns(network, tokens, state, experts, level)
        first, end = next_run(column_4L, 0)
        while first < end:
            for row in range(4):
                column, one, two = change_at(column_4L, first, row)
                where = (column, first, end)
                if one * two > 0:
                    try_both(network, tokens, state, where, experts, one > 0)
                elif one != 0 or two != 0:
                    pair = traders(experts, one, two, nobody)
                    try_trade(network, tokens, state, where, pair)
            first, end = next_run(column_4L, end)


@lean  # type: ignore[untyped-decorator]
def carry_near(network: Any, tokens: Any, state: Any, experts: Any) -> None:
    """Let the columns serve whom they serve after a prepared move."""
    nobody, column_4L = tokens.chose_FW.shape[0] - 1, state.column_4L
    for level in levels_of(network):
        find_columns(network, tokens, state, experts, level)
        first, end = next_run(column_4L, 0)
        while first < end:
            for row in range(4):
                column, one, two = change_at(column_4L, first, row)
                where = (column, first, end)
                if one * two > 0:
                    do_both(tokens, state, where, experts, one > 0)
                elif one != 0 or two != 0:
                    pair = traders(experts, one, two, nobody)
                    do_trade(tokens, state, where, pair)
            first, end = next_run(column_4L, end)


@lean  # type: ignore[untyped-decorator]
def try_near_copies(network: Any, tokens: Any, state: Any, experts: Any) -> None:
    """Add to ``trial_X`` what a prepared move changes where every pair is sent."""
    for side in range(2):
        before_S, after_S = state.near_ES[experts[side]], state.near_2S[side]
        load_S = tokens.pairs.load_EU[experts[side]]
        for source in range(load_S.size):
            before, after = before_S[source], after_S[source]
            if before == after or load_S[source] == 0:
                continue
            add_change(network, before, source, -load_S[source], state.trial_X)
            add_change(network, after, source, load_S[source], state.trial_X)


@lean  # type: ignore[untyped-decorator]
def serve_near(network: Any, tokens: Any, state: Any, expert: int) -> None:
    """Let the columns serve an expert that none of them serves yet."""
    ranks, near_S = (
        state.rank_EM[expert, : state.count_E[expert]],
        state.near_ES[expert],
    )
    if network.homes.domain_H.size:
        begin_choice(network, state, expert)
        chosen_ranks(network, ranks, state.choice_EH[expert], near_S)
    else:
        near_ranks(network.domain_G, network.ep, ranks, expert, near_S)
    nobody = tokens.chose_FW.shape[0] - 1
    load_U, source_U = tokens.pairs.load_EU[expert], tokens.pairs.source_U
    for at in range(load_U.size):
        state.pairs_G[tokens.pairs.base_U[at] + near_S[source_U[at]]] += load_U[at]
    if network.linear:
        for source in range(near_S.size):
            load = load_U[source]
            add_change(network, near_S[source], source, load, state.load_X)
        return
    for level in levels_of(network):
        for lane in range(tokens.source_L.size):
            source = tokens.source_L[lane]
            column = column_of(network, level, source, near_S[source])
            if column >= 0:
                do_trade(tokens, state, (column, lane, lane + 1), (nobody, expert))
