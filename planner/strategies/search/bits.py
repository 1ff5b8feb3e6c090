"""Tokens as bits: counting what a change does to thousands of tokens at once.

A token is one bit of a word. Of every column (a GPU of the EP set, or a domain in it)
three words say which tokens it serves at all (``any``), with two experts or more
(``many``) and with three or more (``three``); bit-sliced counters stand behind them.
A token stops touching a column when its last expert there leaves.

All words here are slices, so that LLVM sees unit steps and no negative indices and
counts eight words at a time: the callers slice, per run of tokens that fare alike.
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
def judge_trade(out_W: Any, into_W: Any, any_W: Any, many_W: Any) -> Any:
    """Return tokens gained less tokens lost if one expert leaves, another comes.

    Each is given by who chose it. A token that chose both is served before and after;
    the column serves whoever chose the one that leaves, so that ``any`` has them.
    """
    change = 0
    for at in range(out_W.size):
        change += _popcount(into_W[at] & ~any_W[at])
        change -= _popcount(out_W[at] & ~into_W[at] & ~many_W[at])
    return change


@inner  # type: ignore[untyped-decorator]
def judge_coming(one_W: Any, two_W: Any, any_W: Any) -> Any:
    """Return tokens gained if two experts come."""
    change = 0
    for at in range(one_W.size):
        change += _popcount((one_W[at] | two_W[at]) & ~any_W[at])
    return change


@inner  # type: ignore[untyped-decorator]
def judge_leaving(one_W: Any, two_W: Any, many_W: Any, three_W: Any) -> Any:
    """Return tokens lost if two experts leave."""
    change = 0
    for at in range(one_W.size):
        both = one_W[at] & two_W[at]
        alone = ~many_W[at] | (both & ~three_W[at])
        change += _popcount((one_W[at] | two_W[at]) & alone)
    return change


@inner  # type: ignore[untyped-decorator]
def judge_users(chose: Any, used: Any, served: Any) -> Any:
    """Return tokens gained less lost where a column serves others than before.

    ``chose`` is who chose either expert, ``used`` whom it would serve: the first
    expert's before and after, the second's before and after, whether they chose it
    or not. ``served`` is (any, many, three).
    """
    one_W, two_W = chose
    before_1_W, after_1_W, before_2_W, after_2_W = used
    any_W, many_W, three_W = served
    change = 0
    for at in range(one_W.size):
        moved_1 = one_W[at] & (before_1_W[at] ^ after_1_W[at])
        moved_2 = two_W[at] & (before_2_W[at] ^ after_2_W[at])
        coming = (moved_1 & after_1_W[at]) | (moved_2 & after_2_W[at])
        left_1, left_2 = moved_1 & before_1_W[at], moved_2 & before_2_W[at]
        # Of the one or two that leave none may have company that stays.
        alone = ~many_W[at] | (left_1 & left_2 & ~three_W[at])
        change += _popcount(coming & ~any_W[at])
        change -= _popcount((left_1 | left_2) & alone & ~coming)
    return change


@inner  # type: ignore[untyped-decorator]
def judge_pairs(chose_W: Any, before_W: Any, after_W: Any) -> Any:
    """Return pairs gained less lost of one expert (see ``judge_users``)."""
    change = 0
    for at in range(chose_W.size):
        change += _popcount(chose_W[at] & after_W[at])
        change -= _popcount(chose_W[at] & before_W[at])
    return change


@inner  # type: ignore[untyped-decorator]
def count_bits(words_W: Any) -> Any:
    """Return the number of bits set."""
    count = 0
    for at in range(words_W.size):
        count += _popcount(words_W[at])
    return count


@inner  # type: ignore[untyped-decorator]
def less(words_W: Any, other_W: Any, out_W: Any) -> None:
    """Write the bits set in the first and not in the second."""
    for at in range(out_W.size):
        out_W[at] = words_W[at] & ~other_W[at]


@inner  # type: ignore[untyped-decorator]
def ripple(moved_W: Any, sign: int, count_BW: Any, first: int) -> None:
    """Add (sign 1) or subtract (sign −1) 1 in the counters of the tokens moved.

    Those are bits from word ``first`` on; they are used up.
    """
    for plane in range(count_BW.shape[0]):
        count_W = count_BW[plane][first : first + moved_W.size]
        for at in range(moved_W.size):
            held = count_W[at]
            count_W[at] = held ^ moved_W[at]
            moved_W[at] &= held if sign > 0 else ~held


@inner  # type: ignore[untyped-decorator]
def summarize(count_BW: Any, served: Any, first: int, end: int) -> None:
    """Read off the counters who is served at all, twice or more, thrice or more."""
    any_W, many_W = served[0][first:end], served[1][first:end]
    three_W = served[2][first:end]
    three_W[:] = ZERO
    for plane in range(2, count_BW.shape[0]):
        count_W = count_BW[plane][first:end]
        for at in range(three_W.size):
            three_W[at] |= count_W[at]
    many_W[:] = three_W
    any_W[:] = three_W
    once_W = count_BW[0][first:end]
    if count_BW.shape[0] > 1:
        twice_W = count_BW[1][first:end]
        for at in range(three_W.size):
            three_W[at] |= twice_W[at] & once_W[at]
            many_W[at] |= twice_W[at]
            any_W[at] |= twice_W[at]
    for at in range(any_W.size):
        any_W[at] |= once_W[at]
