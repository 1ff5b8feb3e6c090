"""Which DP rank holds each token, and which GPU it leaves from (rules 12, 13)."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from planner.arrays import IntArray
from planner.errors import TraceError, UsageError
from planner.workload.tokens import RoutingTrace


class AttentionLayout(Protocol):
    """What homes need of a :class:`planner.layout.ParallelLayout`."""

    @property
    def attention_groups(self) -> tuple[tuple[int, ...], ...]:
        """GPUs of each DP rank, by DP rank; all groups of the same size."""

    @property
    def dp(self) -> int:
        """S, the number of DP ranks."""

    @property
    def tp(self) -> int:
        """GPUs per attention group."""


HOMES = ("trace", "by_token", "round_robin", "balanced", "by_tag")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Homes:
    """The DP rank of every token of the file.

    Attributes
    ----------
    policy
        The one in force; ``trace`` falls back to ``by_token``.
    rank_T
        DP rank of each token.
    tokens_S
        Tokens per DP rank.
    """

    policy: str
    rank_T: IntArray
    tokens_S: IntArray

    @property
    def dp(self) -> int:
        """S, the number of DP ranks."""
        return self.tokens_S.size

    @property
    def ratio(self) -> float:
        """Max/mean tokens per home."""
        return float(self.tokens_S.max() * self.tokens_S.size / self.tokens_S.sum())


def assign_homes(trace: RoutingTrace, policy: str | None, dp: int) -> Homes:
    """Give every token of the whole file its DP rank (rule 12).

    Parameters
    ----------
    policy
        One of ``HOMES``; None is ``trace``: the column ``rank`` if it is complete,
        else ``by_token``.
    dp
        S, the number of DP ranks.

    Raises
    ------
    UsageError
        For another policy.
    TraceError
        If the column ``rank`` names a rank the layout does not have.
    """
    wanted = policy or "trace"
    if wanted not in HOMES:
        raise UsageError(f"--homes {wanted!r}: choose from {', '.join(HOMES)}")
    if wanted == "trace" and trace.rank_T is None:
        wanted = "by_token"
    if wanted == "trace":
        rank_T = _recorded(trace, dp)
    elif wanted == "by_token":
        rank_T = np.arange(trace.token_count, dtype=np.int64) % dp
    elif wanted == "round_robin":
        rank_T = trace.sequence_T % dp
    elif wanted == "balanced":
        rank_T = _balanced(trace, dp)
    else:
        rank_T = _by_tag(trace, dp)
    return Homes(
        policy=wanted, rank_T=rank_T, tokens_S=np.bincount(rank_T, minlength=dp)
    )


def tags_of_ranks(trace: RoutingTrace, homes: Homes) -> IntArray | None:
    """Return the number of the set of tags of each DP rank, None unless by tags.

    Ranks without tokens have a set of their own.
    """
    if homes.policy != "by_tag":
        return None
    tags = [frozenset(trace.tag_T[homes.rank_T == r].tolist()) for r in range(homes.dp)]
    known = {each: number for number, each in enumerate(dict.fromkeys(tags))}
    return np.asarray([known[each] for each in tags], dtype=np.int64)


def source_gpus(rank_T: IntArray, layout: AttentionLayout) -> IntArray:
    """Return the GPU each token leaves from (rule 13).

    The j-th token of a DP rank leaves from the (j mod t)-th GPU of its group.
    """
    members_ST = np.array(layout.attention_groups, dtype=np.int64)
    sources: IntArray = members_ST[rank_T, running_index(rank_T) % layout.tp]
    return sources


def running_index(key_T: IntArray) -> IntArray:
    """Return how often each value occurred before, in order."""
    order = np.argsort(key_T, kind="stable")
    ordered = key_T[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: ordered.size])
    lengths = np.diff(np.r_[starts, ordered.size])
    index = np.empty(key_T.size, dtype=np.int64)
    index[order] = np.arange(key_T.size) - np.repeat(starts, lengths)
    return index


def _recorded(trace: RoutingTrace, dp: int) -> IntArray:
    rank_T = trace.rank_T
    if rank_T is None:
        raise TraceError("has no complete column rank", where=str(trace.path))
    if int(rank_T.max()) >= dp:
        row = int(np.argmax(rank_T >= dp))
        raise TraceError(
            f"must be a DP rank from 0 to {dp - 1}",
            where=f"{trace.path}: column rank, row {row}",
            value=int(rank_T[row]),
            fix="use --homes by_token, or a layout with as many DP ranks",
        )
    return rank_T


def _balanced(trace: RoutingTrace, dp: int) -> IntArray:
    """Longest sequence first, each to the rank with fewest tokens, lowest first."""
    lengths = np.bincount(trace.sequence_T, minlength=trace.sequence_count)
    held_S = np.zeros(dp, dtype=np.int64)
    rank_of = np.zeros(lengths.size, dtype=np.int64)
    # Stable, so that equal lengths keep the order of their ids.
    for sequence in np.argsort(-lengths, kind="stable").tolist():
        rank = int(held_S.argmin())
        rank_of[sequence] = rank
        held_S[rank] += lengths[sequence]
    ranks: IntArray = rank_of[trace.sequence_T]
    return ranks


def _by_tag(trace: RoutingTrace, dp: int) -> IntArray:
    """Tags by name get consecutive blocks of ranks by tokens, sequences in turn inside.

    Sequences without a tag make a block of their own, the first.
    """
    lengths = np.bincount(trace.sequence_T, minlength=trace.sequence_count)
    _, first_row = np.unique(trace.sequence_T, return_index=True)
    tag_of = trace.tag_T[first_row]
    rank_of = np.zeros(lengths.size, dtype=np.int64)
    before, total = 0, trace.token_count
    # Codes ascend with the names, and sequence numbers with the ids.
    for tag in np.unique(tag_of).tolist():
        members = np.flatnonzero(tag_of == tag)
        own = int(lengths[members].sum())
        first = dp * before // total
        end = max(first + 1, dp * (before + own) // total)
        rank_of[members] = first + np.arange(members.size) % (end - first)
        before += own
    ranks: IntArray = rank_of[trace.sequence_T]
    return ranks
