"""Where chunks of tokens come from: a part cut up, or the same part again and again."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from planner.workload.parts import TokenPart


def pieces(part: TokenPart, tokens: int) -> Iterator[TokenPart]:
    """Cut a part into chunks of at most so many tokens; nothing is copied."""
    for begin in range(0, part.token_count, tokens):
        rows = slice(begin, begin + tokens)
        yield replace(
            part,
            experts_LTK=part.experts_LTK[:, rows],
            source_T=part.source_T[rows],
            rank_T=part.rank_T[rows],
            ordinal_T=part.ordinal_T[rows],
            row_T=part.row_T[rows],
            sequence_T=None if part.sequence_T is None else part.sequence_T[rows],
            tag_T=None if part.tag_T is None else part.tag_T[rows],
        )


def repeated(part: TokenPart, times: int) -> Iterator[TokenPart]:
    """Send a part's tokens several times from the same GPUs.

    Ordinals go on counting (rule 15), so that hashed selections take other copies
    each time; rows go on as if the file were written out so often.
    """
    tokens_G = np.bincount(part.source_T)
    for turn in range(times):
        yield replace(
            part,
            ordinal_T=part.ordinal_T + turn * tokens_G[part.source_T],
            row_T=part.row_T + turn * part.token_count,
        )
