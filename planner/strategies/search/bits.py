"""Tokens as bits: counting what a change does to thousands of tokens at once.

The tokens of a layer lie in *lanes*: all tokens of a lane leave from one source
GPU, and word ``w`` of lane ``l`` is word ``w · lanes + l``, so that one pass over
the words runs over all lanes side by side. Of every column (a GPU of the EP set,
or a domain in it) two words say which tokens it serves at all (``any``) and which
it serves with two experts or more (``many``); bit-sliced counters stand behind
them. A token stops touching a column when its only expert there leaves.
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
def count_bits(words_W: Any, besides_W: Any, sign: int, change_L: Any) -> None:
    """Add ``sign`` times the bits set in ``words_W`` and not in ``besides_W``."""
    lanes = change_L.size
    for word in range(words_W.size // lanes):
        for lane in range(lanes):
            at = word * lanes + lane
            change_L[lane] += sign * _popcount(words_W[at] & ~besides_W[at])


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
def summarize(count_BW: Any, any_W: Any, many_W: Any) -> None:
    """Read off the counters who is served at all, and who twice or more."""
    many_W[:] = ZERO
    for plane in range(1, count_BW.shape[0]):
        for at in range(many_W.size):
            many_W[at] |= count_BW[plane, at]
    for at in range(many_W.size):
        any_W[at] = many_W[at] | count_BW[0, at]


@inner  # type: ignore[untyped-decorator]
def shift(column: Any, moved_W: Any, sign: int, change_L: Any, carry_W: Any) -> None:
    """Add (sign 1) or remove (sign −1) one expert of the tokens ``moved_W``.

    ``column`` is (counters, any, many) of a column; adds to ``change_L`` the tokens
    it gains less those it loses.
    """
    count_BW, any_W, many_W = column
    if sign > 0:
        count_bits(moved_W, any_W, 1, change_L)
    ripple(moved_W, sign, count_BW, carry_W)
    summarize(count_BW, any_W, many_W)
    if sign < 0:
        count_bits(moved_W, any_W, -1, change_L)
