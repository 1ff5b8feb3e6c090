"""Tokens as bits: counting what a change does to thousands of tokens at once.

The tokens of a layer lie in *lanes*: all tokens of a lane leave from one source
GPU, and word ``w`` of lane ``l`` is word ``w · lanes + l``, so that one pass over
the words runs over all lanes side by side. Of every column (a GPU of the EP set,
or a domain in it) three words say which tokens it serves at all (``any``), with two
experts or more (``many``) and with three or more (``three``); bit-sliced counters
stand behind them. A token stops touching a column when its last expert there leaves.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from planner.strategies.search.compiling import inner

ZERO = np.uint64(0)
ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


@intrinsic  # type: ignore[untyped-decorator]
def _popcount(typing_context: Any, word: Any) -> Any:
    """Number of set bits of a 64-bit word, as the processor counts them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@inner  # type: ignore[untyped-decorator]
def judge_swap(
    chose_EW: Any,
    experts: Any,
    any_CW: Any,
    many_CW: Any,
    columns: Any,
    change_2L: Any,
) -> None:
    """Count tokens gained less tokens lost per lane if two experts change places.

    ``experts`` lie at ``columns`` now; a token that chose both is served by the same
    columns after. Writes ``change_2L``, touches nothing.
    """
    lanes = change_2L.shape[1]
    change_2L[:, :] = 0
    # Row numbers into whole arrays, one row written per pass: so LLVM vectorizes.
    for side in range(2):
        out, into, column = experts[side], experts[1 - side], columns[side]
        for word in range(chose_EW.shape[1] // lanes):
            for lane in range(lanes):
                at = word * lanes + lane
                leaving = chose_EW[out, at] & ~chose_EW[into, at]
                coming = chose_EW[into, at] & ~chose_EW[out, at]
                change_2L[side, lane] += _popcount(
                    coming & ~any_CW[column, at]
                ) - _popcount(leaving & ~many_CW[column, at])


@inner  # type: ignore[untyped-decorator]
def judge_column(
    chose_EW: Any, experts: Any, used_4W: Any, served: Any, column: int, change_L: Any
) -> None:
    """Count tokens gained less lost per lane where a column serves others than before.

    ``used_4W`` are the tokens it would serve: the first expert's before and after,
    the second's before and after, whether they chose it or not; one word per lane
    where that is the same for all tokens of a lane. ``served`` is (any, many, three)
    of all columns.
    """
    any_CW, many_CW, three_CW = served
    one, two, lanes = experts[0], experts[1], change_L.size
    step = 0 if used_4W.shape[1] == lanes else lanes
    change_L[:] = 0
    for word in range(chose_EW.shape[1] // lanes):
        for lane in range(lanes):
            at, used = word * lanes + lane, word * step + lane
            moved_1 = chose_EW[one, at] & (used_4W[0, used] ^ used_4W[1, used])
            moved_2 = chose_EW[two, at] & (used_4W[2, used] ^ used_4W[3, used])
            coming = (moved_1 & used_4W[1, used]) | (moved_2 & used_4W[3, used])
            left_1, left_2 = moved_1 & used_4W[0, used], moved_2 & used_4W[2, used]
            # Of the one or two that leave none may have company that stays.
            alone = ~many_CW[column, at] | (left_1 & left_2 & ~three_CW[column, at])
            change_L[lane] += _popcount(coming & ~any_CW[column, at]) - _popcount(
                (left_1 | left_2) & alone & ~coming
            )


@inner  # type: ignore[untyped-decorator]
def judge_pairs(chose_EW: Any, experts: Any, used_4W: Any, change_L: Any) -> None:
    """Count pairs gained less lost per lane (see ``judge_column``)."""
    lanes = change_L.size
    step = 0 if used_4W.shape[1] == lanes else lanes
    change_L[:] = 0
    for side in range(2):
        expert, before, after = experts[side], 2 * side, 2 * side + 1
        for word in range(chose_EW.shape[1] // lanes):
            for lane in range(lanes):
                chose, used = chose_EW[expert, word * lanes + lane], word * step + lane
                change_L[lane] += _popcount(chose & used_4W[after, used])
                change_L[lane] -= _popcount(chose & used_4W[before, used])


@inner  # type: ignore[untyped-decorator]
def move_users(
    chose_W: Any, now_W: Any, other_W: Any, lanes: int, moved_W: Any
) -> None:
    """Write who chose an expert and uses a column now but not at the other time."""
    step = 0 if now_W.size == lanes else lanes
    for word in range(chose_W.size // lanes):
        for lane in range(lanes):
            at, used = word * lanes + lane, word * step + lane
            moved_W[at] = chose_W[at] & now_W[used] & ~other_W[used]


@inner  # type: ignore[untyped-decorator]
def count_bits(words_W: Any, change_L: Any) -> None:
    """Add the bits set per lane."""
    lanes = change_L.size
    for word in range(words_W.size // lanes):
        for lane in range(lanes):
            change_L[lane] += _popcount(words_W[word * lanes + lane])


@inner  # type: ignore[untyped-decorator]
def ripple(moved_W: Any, sign: int, count_BW: Any, carry_W: Any) -> None:
    """Add (sign 1) or subtract (sign −1) 1 in the counters of the tokens moved."""
    carry_W[:] = moved_W
    for plane in range(count_BW.shape[0]):
        for at in range(carry_W.size):
            held = count_BW[plane, at]
            count_BW[plane, at] = held ^ carry_W[at]
            carry_W[at] &= held if sign > 0 else ~held


@inner  # type: ignore[untyped-decorator]
def summarize(count_BW: Any, any_W: Any, many_W: Any, three_W: Any) -> None:
    """Read off the counters who is served at all, twice or more, thrice or more."""
    many_W[:] = ZERO
    three_W[:] = ZERO
    planes = count_BW.shape[0]
    for plane in range(2, planes):
        for at in range(three_W.size):
            three_W[at] |= count_BW[plane, at]
    for at in range(many_W.size):
        twice = count_BW[1, at] if planes > 1 else ZERO
        many_W[at] = three_W[at] | twice
        three_W[at] |= twice & count_BW[0, at]
        any_W[at] = many_W[at] | count_BW[0, at]
