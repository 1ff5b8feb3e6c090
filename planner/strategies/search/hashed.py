"""Moves where a hash of the token's ordinal says which copy serves it (rules 18, 19).

Every lane has tokens for all copies, so a column is looked at as a whole.
"""

from typing import Any

from planner.strategies.search.bits import (
    ZERO,
    copy_over,
    count_bits,
    judge_pairs,
    judge_users,
    ripple,
    summarize,
)
from planner.strategies.search.column import add_change, class_end
from planner.strategies.search.compiling import lean


@lean  # type: ignore[untyped-decorator]
def add_hashed_pairs(
    ep: int, ranks: Any, load_CQE: Any, expert: int, way: int, pairs_G: Any
) -> None:
    """Add ``way`` times an expert's pairs where the hash finds them copies."""
    first = ranks.size * (ranks.size - 1) // 2
    for group in range(load_CQE.shape[0]):
        for copy in range(ranks.size):
            rank = group * ep + ranks[copy]
            pairs_G[rank] += way * load_CQE[group, first + copy, expert]


@lean  # type: ignore[untyped-decorator]
def move_hashed_pairs(
    network: Any, tokens: Any, state: Any, experts: Any, sign: int
) -> None:
    """Carry the pairs of a listed move over, or back (sign −1)."""
    for row in range(4):
        way, expert = sign if row % 2 else -sign, experts[row // 2]
        ranks = state.rank_4M[row, : state.count_4[row]]
        add_hashed_pairs(
            network.ep, ranks, tokens.pairs.load_CQE, expert, way, state.pairs_G
        )


@lean  # type: ignore[untyped-decorator]
def hashed_users(
    network: Any, tokens: Any, ranks: Any, column: int, used_W: Any
) -> None:
    """Write which tokens' hash points at a copy at a column, whatever they chose."""
    ep, count = network.ep, ranks.size
    used_W[:] = ZERO
    for copy in range(count):
        mask_W = tokens.mask_QW[count * (count - 1) // 2 + copy]
        if column < ep:
            if ranks[copy] == column:
                copy_over(mask_W, used_W)
            continue
        for lane in range(tokens.source_L.size):
            if network.cell_CR[tokens.source_L[lane] // ep, ranks[copy]] == column:
                for at in range(tokens.first_L[lane], tokens.first_L[lane + 1]):
                    used_W[at] |= mask_W[at]


@lean  # type: ignore[untyped-decorator]
def find_users(network: Any, tokens: Any, state: Any, column: int) -> bool:
    """Write who uses a column before and after; return whether that differs."""
    used_4W = state.used_4W
    for row in range(4):
        ranks = state.rank_4M[row, : state.count_4[row]]
        hashed_users(network, tokens, ranks, column, used_4W[row])
    state.read_1[0] += 4 * used_4W.shape[1]
    differs = ZERO
    for at in range(used_4W.shape[1]):
        differs |= used_4W[0, at] ^ used_4W[1, at]
        differs |= used_4W[2, at] ^ used_4W[3, at]
    return bool(differs != ZERO)


@lean  # type: ignore[untyped-decorator]
def mark(network: Any, rank_4M: Any, count_4: Any, out_C: Any) -> None:
    """Mark the columns that a listed move may change."""
    cell_CR = network.cell_CR
    out_C[:] = False
    for row in range(4):
        for copy in range(count_4[row]):
            rank = rank_4M[row, copy]
            if not network.cells_only:
                out_C[rank] = True
            for group in range(cell_CR.shape[0]):
                if cell_CR[group, rank] >= 0:
                    out_C[cell_CR[group, rank]] = True


@lean  # type: ignore[untyped-decorator]
def try_users(network: Any, tokens: Any, state: Any, experts: Any, column: int) -> None:
    """Add to ``trial_X`` what a column changes that serves others than before."""
    one_W, two_W = tokens.chose_FW[experts[0]], tokens.chose_FW[experts[1]]
    used_4W, any_W, many_W = state.used_4W, state.any_CW[column], state.many_CW[column]
    three_W = state.three_CW[column]
    class_L, first_L = tokens.class_L, tokens.first_L
    used_0_W, used_1_W, used_2_W, used_3_W = (
        used_4W[0], used_4W[1], used_4W[2], used_4W[3],
    )  # fmt: skip
    state.read_1[0] += 9 * any_W.size
    lane, end = 0, class_L.size
    while lane < end:
        after = class_end(class_L, lane, end)
        a, b = first_L[lane], first_L[after]
        used = used_0_W[a:b], used_1_W[a:b], used_2_W[a:b], used_3_W[a:b]
        if network.linear:
            change = judge_pairs(one_W[a:b], used[0], used[1])
            change += judge_pairs(two_W[a:b], used[2], used[3])
        else:
            served = (any_W[a:b], many_W[a:b], three_W[a:b])
            change = judge_users((one_W[a:b], two_W[a:b]), used, served)
        add_change(network, column, class_L[lane], change, state.trial_X)
        lane = after


@lean  # type: ignore[untyped-decorator]
def try_hashed(network: Any, tokens: Any, state: Any, experts: Any) -> None:
    """Add to ``trial_X`` what a listed move changes; unmark columns that stay."""
    marked_C = state.marked_C
    mark(network, state.rank_4M, state.count_4, marked_C)
    for column in range(network.columns):
        if marked_C[column]:
            marked_C[column] = find_users(network, tokens, state, column)
            if marked_C[column]:
                try_users(network, tokens, state, experts, column)


@lean  # type: ignore[untyped-decorator]
def take_users(state: Any, column: int, chose_W: Any, row: int) -> None:
    """Count in (odd rows) or out (even rows) those who use a column only then."""
    now_W, other_W, moved_W = state.used_4W[row], state.used_4W[row ^ 1], state.moved_W
    for at in range(moved_W.size):
        moved_W[at] = chose_W[at] & now_W[at] & ~other_W[at]
    ripple(moved_W, 1 if row % 2 else -1, state.count_CBW[column], 0)


@lean  # type: ignore[untyped-decorator]
def carry_hashed(network: Any, tokens: Any, state: Any, experts: Any) -> None:
    """Let the marked columns serve whom they serve after a listed move."""
    for column in range(network.columns):
        if state.marked_C[column]:
            find_users(network, tokens, state, column)
            for row in range(4):
                take_users(state, column, tokens.chose_FW[experts[row // 2]], row)
            served = (
                state.any_CW[column], state.many_CW[column], state.three_CW[column],
            )  # fmt: skip
            summarize(state.count_CBW[column], served, 0, state.moved_W.size)


@lean  # type: ignore[untyped-decorator]
def serve_hashed(network: Any, tokens: Any, state: Any, expert: int) -> None:
    """Let the columns serve an expert that none of them serves yet."""
    ranks, used_W = state.rank_EM[expert, : state.count_E[expert]], state.used_4W[1]
    add_hashed_pairs(network.ep, ranks, tokens.pairs.load_CQE, expert, 1, state.pairs_G)
    chose_W, class_L, first_L = (
        tokens.chose_FW[expert],
        tokens.class_L,
        tokens.first_L,
    )
    state.used_4W[0] = ZERO
    for column in range(network.columns):
        if column < network.ep and network.cells_only:
            continue
        hashed_users(network, tokens, ranks, column, used_W)
        if not network.linear:
            take_users(state, column, chose_W, 1)
            continue
        moved_W = state.moved_W
        for at in range(moved_W.size):
            moved_W[at] = chose_W[at] & used_W[at]
        for lane in range(class_L.size):
            pairs = count_bits(moved_W[first_L[lane] : first_L[lane + 1]])
            add_change(network, column, class_L[lane], pairs, state.load_X)
