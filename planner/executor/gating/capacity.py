"""Capacity: an expert takes so many choices of a batch and no more; without torch."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner.arrays import BoolArray, IdArray, IntArray
from planner.errors import UsageError

BATCH_TOKENS = 4096
"""Tokens of a batch where a trace says nothing of batches: runs in file order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What did not find room, over all layers.

    Attributes
    ----------
    pairs, all_pairs
        (token, expert) pairs that were dropped, and all that were wanted.
    tokens_touched, tokens_lost, all_tokens
        (token, layer) pairs that lost a choice; that lost every choice; all that
        wanted one.
    """

    pairs: int
    all_pairs: int
    tokens_touched: int
    tokens_lost: int
    all_tokens: int

    @classmethod
    def between(
        cls, wanted_LTK: IntArray | IdArray, kept_LTK: IntArray | IdArray
    ) -> "Dropped":
        """Count what is null in ``kept_LTK`` alone."""
        lost_LTK = (wanted_LTK >= 0) & (kept_LTK < 0)
        wanted_LT = (wanted_LTK >= 0).any(axis=2)
        touched_LT = lost_LTK.any(axis=2)
        return cls(
            pairs=int(lost_LTK.sum()),
            all_pairs=int((wanted_LTK >= 0).sum()),
            tokens_touched=int(touched_LT.sum()),
            tokens_lost=int((touched_LT & (kept_LTK < 0).all(axis=2)).sum()),
            all_tokens=int(wanted_LT.sum()),
        )


def checked_factor(factor: float) -> float:
    """Return a capacity factor that may be used.

    Raises
    ------
    UsageError
        Unless it is finite and above 0.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise UsageError(
            f"--capacity-factor {factor}: must be finite and > 0; leave it out for "
            "experts without a limit"
        )
    return factor


def capacity(factor: float, pairs: int, experts: int) -> int:
    """Return what one expert takes: ``factor`` times the mean load, rounded up.

    Parameters
    ----------
    factor
        Taken as the decimal number that it prints as.
    pairs
        Choices of the batch: T K where no choice is null.
    """
    return math.ceil(Fraction(str(factor)) * pairs / experts)


def beyond(ids_TK: IntArray | IdArray, experts: int, factor: float) -> BoolArray:
    """Return which choices of one batch and layer find no room, [T, K].

    An expert is filled with all first choices in the order of the tokens, then with
    all second ones, and so on (GShard, arXiv:2006.16668, algorithm 1). Nulls (-1)
    take no room.
    """
    queue = ids_TK.T.reshape(-1).astype(np.int64)
    room = capacity(factor, int((queue >= 0).sum()), experts)
    order = np.argsort(queue, kind="stable")
    ordered = queue[order]
    first = np.searchsorted(ordered, ordered, side="left")
    place = np.empty_like(queue)
    place[order] = np.arange(queue.size) - first
    late: BoolArray = ((place >= room) & (queue >= 0)).reshape(ids_TK.T.shape).T
    return late


def limited(experts_LTK: IdArray, experts: int, factor: float) -> IdArray:
    """Return the choices that find room, null (-1) for the others.

    Batches are runs of ``BATCH_TOKENS`` tokens.
    """
    kept_LTK = experts_LTK.copy()
    for ids_TK in kept_LTK:
        for start in range(0, len(ids_TK), BATCH_TOKENS):
            batch = ids_TK[start : start + BATCH_TOKENS]
            batch[beyond(batch, experts, factor)] = -1
    return kept_LTK
