"""The scored part of a workload: tokens with their choices, or counts.

A *part* is what one objective is computed on: the planning part or the held-out
part of a trace (rule 14), after phase filters, with homes and ordinals fixed
(rules 12, 13, 15).
"""

from dataclasses import dataclass

from planner.arrays import IdArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenPart:
    """Tokens of a trace, in file order.

    Attributes
    ----------
    experts_LTK
        Logical expert ids [L, T, K], ``int16``; -1 marks no message (rule 11).
    source_T
        EP index of the GPU each token leaves from (rule 13).
    rank_T
        DP rank of each token.
    ordinal_T
        0-based place among the tokens of its source GPU in this part (rule 15).
    row_T
        Row of the trace file each token comes from.
    sequence_T, tag_T
        Number of the sequence, and of the tag, of each token; None where unknown.
    """

    experts_LTK: IdArray
    source_T: IntArray
    rank_T: IntArray
    ordinal_T: IntArray
    row_T: IntArray
    sequence_T: IntArray | None = None
    tag_T: IntArray | None = None

    @property
    def token_count(self) -> int:
        """T."""
        return int(self.source_T.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class CountsPart:
    """Counts of one workload: every DP rank holds tokens/S of each expert.

    Attributes
    ----------
    tokens_LE
        (token, expert) pairs by layer and expert.
    top_k
        K, to turn pairs into tokens.
    """

    tokens_LE: IntArray
    top_k: int


Part = TokenPart | CountsPart
