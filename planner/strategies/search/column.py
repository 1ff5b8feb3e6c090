"""What one column gains and loses where experts come and leave for a range of lanes.

``experts`` are the one that leaves and the one that comes, either of which may be
nobody (the last row of ``chose_FW``), or two that both come or both leave. ``where``
is the column, the first lane and the end of the lanes.
"""

from typing import Any

from planner.strategies.search.bits import (
    copy_over,
    judge_coming,
    judge_leaving,
    judge_trade,
    less,
    ripple,
    summarize,
)
from planner.strategies.search.compiling import inlined, lean


@inlined  # type: ignore[untyped-decorator]
def add_change(network: Any, column: int, kind: int, change: Any, load_X: Any) -> None:
    """Carry tokens of a class, gained by a column, to the links."""
    if change != 0:
        key = column * network.classes + kind
        for entry in range(network.first_K[key], network.first_K[key + 1]):
            load_X[network.place_Y[entry]] += change * network.share_Y[entry]


@inlined  # type: ignore[untyped-decorator]
def class_end(class_L: Any, lane: int, end: int) -> Any:
    """Return the lane, ``end`` at most, up to which all have the class of ``lane``."""
    kind = class_L[lane]
    lane += 1
    while lane < end and class_L[lane] == kind:
        lane += 1
    return lane


@inlined  # type: ignore[untyped-decorator]
def try_trade(network: Any, tokens: Any, state: Any, where: Any, experts: Any) -> None:
    """Add to ``trial_X`` what an expert that leaves and one that comes change."""
    column, lane, end = where
    out_W, into_W = tokens.chose_FW[experts[0]], tokens.chose_FW[experts[1]]
    any_W, many_W = state.any_CW[column], state.many_CW[column]
    class_L, first_L = tokens.class_L, tokens.first_L
    state.read_1[0] += 4 * (first_L[end] - first_L[lane])
    while lane < end:
        after = class_end(class_L, lane, end)
        a, b = first_L[lane], first_L[after]
        change = judge_trade(out_W[a:b], into_W[a:b], any_W[a:b], many_W[a:b])
        add_change(network, column, class_L[lane], change, state.trial_X)
        lane = after


@inlined  # type: ignore[untyped-decorator]
def try_both(
    network: Any, tokens: Any, state: Any, where: Any, experts: Any, come: bool
) -> None:
    """Add to ``trial_X`` what two experts change that both come, or both leave."""
    column, lane, end = where
    one_W, two_W = tokens.chose_FW[experts[0]], tokens.chose_FW[experts[1]]
    any_W, many_W = state.any_CW[column], state.many_CW[column]
    three_W = state.three_CW[column]
    class_L, first_L = tokens.class_L, tokens.first_L
    state.read_1[0] += 4 * (first_L[end] - first_L[lane])
    while lane < end:
        after = class_end(class_L, lane, end)
        a, b = first_L[lane], first_L[after]
        if come:
            change = judge_coming(one_W[a:b], two_W[a:b], any_W[a:b])
        else:
            change = -judge_leaving(one_W[a:b], two_W[a:b], many_W[a:b], three_W[a:b])
        add_change(network, column, class_L[lane], change, state.trial_X)
        lane = after


@lean  # type: ignore[untyped-decorator]
def do_trade(tokens: Any, state: Any, where: Any, experts: Any) -> None:
    """Let one expert leave a column and another come."""
    column, first, end = where[0], tokens.first_L[where[1]], tokens.first_L[where[2]]
    out_W = tokens.chose_FW[experts[0]][first:end]
    into_W = tokens.chose_FW[experts[1]][first:end]
    moved_W, count_BW = state.moved_W[first:end], state.count_CBW[column]
    less(out_W, into_W, moved_W)
    ripple(moved_W, -1, count_BW, first)
    less(into_W, out_W, moved_W)
    ripple(moved_W, 1, count_BW, first)
    served = (state.any_CW[column], state.many_CW[column], state.three_CW[column])
    summarize(count_BW, served, first, end)


@lean  # type: ignore[untyped-decorator]
def do_both(tokens: Any, state: Any, where: Any, experts: Any, come: bool) -> None:
    """Let two experts come to a column, or leave it."""
    column, first, end = where[0], tokens.first_L[where[1]], tokens.first_L[where[2]]
    moved_W, count_BW = state.moved_W[first:end], state.count_CBW[column]
    for side in range(2):
        copy_over(tokens.chose_FW[experts[side]][first:end], moved_W)
        ripple(moved_W, 1 if come else -1, count_BW, first)
    served = (state.any_CW[column], state.many_CW[column], state.three_CW[column])
    summarize(count_BW, served, first, end)
