"""From a trace to the parts that are scored: planning and held-out."""

from dataclasses import dataclass

import numpy as np

from planner.arrays import BoolArray, IntArray
from planner.errors import TraceError
from planner.workload.counts import CountsTable
from planner.workload.holdout import held_out_tokens, parse_holdout
from planner.workload.homes import (
    AttentionLayout,
    assign_homes,
    running_index,
    source_gpus,
    tags_of_ranks,
)
from planner.workload.parts import CountsPart, Part, TokenPart
from planner.workload.tokens import RoutingTrace

COUNTS_REASON = (
    "a counts table has no sequences that could be held out; give another workload "
    "of the file to score on"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HomesReport:
    """What was done with the tokens of the whole file.

    Attributes
    ----------
    policy
        Homes in force; ``even`` for counts.
    tokens_S
        Tokens per DP rank over the whole file; equal shares for counts.
    ratio
        Max/mean tokens per home.
    tags_S
        Number of the set of tags that each DP rank is home to under ``by_tag``; None
        under other policies, which do not look at tags.
    phase
        The phase that was kept; None if the file's only phase was kept whole.
    holdout_reason
        Why there is no held-out part; None if there is one.
    """

    policy: str
    tokens_S: IntArray
    ratio: float
    tags_S: IntArray | None
    phase: str | None
    holdout_reason: str | None


def split_parts(
    trace: RoutingTrace | CountsTable,
    layout: AttentionLayout,
    homes: str | None,
    holdout: str,
    phase: str | None,
) -> tuple[Part, Part | None, HomesReport]:
    """Return the planning part, the held-out part and how tokens were homed.

    Homes, source GPUs and the held-out sequences follow from the whole file; then
    part and phase filters apply; ordinals count what is left (rules 12 to 15).

    Parameters
    ----------
    homes
        Policy of rule 12, or None for its default.
    holdout
        ``F`` or ``F:SALT`` (rule 14).
    phase
        Phase to keep where the trace records several; a trace of one phase, or
        without the column, is kept whole, whatever its phase is.

    Raises
    ------
    UsageError
        For an unknown policy or a holdout that is not a decimal from 0 to 1.
    TraceError
        If a recorded rank is not in the layout, or nothing is left to plan on.
    """
    parsed = parse_holdout(holdout)
    if isinstance(trace, CountsTable):
        return _counts_parts(trace, layout)
    assigned = assign_homes(trace, homes, layout.dp)
    source_T = source_gpus(assigned.rank_T, layout)
    kept_T, filtered = of_phase(trace, phase)
    held_T = held_out_tokens(trace, parsed)
    planning = _part(trace, assigned.rank_T, source_T, kept_T & ~held_T)
    unseen = _part(trace, assigned.rank_T, source_T, kept_T & held_T)
    if planning.token_count == 0:
        raise TraceError(
            "leaves no tokens to plan on",
            where=str(trace.path),
            value=f"phase {phase}, holdout {holdout}",
            fix="choose another --phase or a smaller --holdout",
        )
    report = HomesReport(
        policy=assigned.policy,
        tokens_S=assigned.tokens_S,
        ratio=assigned.ratio,
        tags_S=tags_of_ranks(trace, assigned),
        phase=filtered,
        holdout_reason=_why_empty(trace, holdout, unseen),
    )
    return planning, unseen if unseen.token_count else None, report


def _counts_parts(
    table: CountsTable, layout: AttentionLayout
) -> tuple[Part, Part | None, HomesReport]:
    """Every DP rank holds an equal share of each expert's tokens (rule 11)."""
    part = CountsPart(tokens_LE=table.tokens_LE, top_k=table.top_k)
    if not table.tokens_LE.any():
        raise TraceError(
            "counts no token",
            where=f"{table.path or 'inline counts'}#{table.workload}",
            fix="give counts > 0",
        )
    report = HomesReport(
        policy="even",
        tokens_S=np.ones(layout.dp, dtype=np.int64),
        ratio=1.0,
        tags_S=None,
        phase=None,
        holdout_reason=COUNTS_REASON,
    )
    return part, None, report


def of_phase(trace: RoutingTrace, phase: str | None) -> tuple[BoolArray, str | None]:
    """Return which tokens a phase keeps, and its name where others are left out.

    Raises
    ------
    TraceError
        If the trace records several phases and not this one.
    """
    everything = np.ones(trace.token_count, dtype=np.bool_)
    if phase is None or np.unique(trace.phase_T).size <= 1:
        return everything, None
    if phase not in trace.phases:
        raise TraceError(
            "has no row of this phase",
            where=f"{trace.path}: column phase",
            value=phase,
            fix=f"choose from {', '.join(trace.phases)}",
        )
    return trace.phase_T == trace.phases.index(phase), phase


def _part(
    trace: RoutingTrace, rank_T: IntArray, source_T: IntArray, chosen_T: BoolArray
) -> TokenPart:
    row_T = np.flatnonzero(chosen_T).astype(np.int64)
    return TokenPart(
        experts_LTK=np.ascontiguousarray(trace.experts_LTK[:, row_T]),
        source_T=source_T[row_T],
        rank_T=rank_T[row_T],
        ordinal_T=running_index(source_T[row_T]),
        row_T=row_T,
        sequence_T=trace.sequence_T[row_T],
        tag_T=trace.tag_T[row_T],
    )


def _why_empty(trace: RoutingTrace, holdout: str, unseen: TokenPart) -> str | None:
    if unseen.token_count:
        return None
    return (
        f"--holdout {holdout} holds out none of the {trace.sequence_count} sequences: "
        "each tag keeps at least one for planning"
    )
