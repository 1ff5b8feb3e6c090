"""Homes, held-out sequences and phases on small traces worked by hand."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from planner.errors import TraceError, UsageError
from planner.layout import ParallelLayout
from planner.workload.counts import inline_counts
from planner.workload.holdout import held_out_tokens, parse_holdout
from planner.workload.homes import assign_homes, source_gpus, tags_of_ranks
from planner.workload.parts import CountsPart, TokenPart
from planner.workload.split import split_parts
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import load_trace


def trace_of(
    sequences: str, *, tags: str | None = None, phases: str | None = None
) -> RoutingTrace:
    """One token per letter of ``sequences``; one layer, expert = row mod 4."""
    ids = tuple(sorted(set(sequences)))
    names, kinds = sorted(set(tags or "")), sorted(set(phases or ""))
    nothing = np.full(len(sequences), -1)
    return RoutingTrace(
        path=Path("t.parquet"),
        model="m",
        metadata={},
        num_experts=4,
        top_k=1,
        layer_numbers=(0,),
        experts_LTK=(np.arange(len(sequences)) % 4).astype(np.int16)[None, :, None],
        sequence_T=np.array([ids.index(letter) for letter in sequences]),
        sequence_ids=ids,
        tag_T=np.array([names.index(t) for t in tags]) if tags else nothing,
        tags=tuple(names),
        phase_T=np.array([kinds.index(p) for p in phases]) if phases else nothing,
        phases=tuple(kinds),
        rank_T=None,
        step_T=None,
        pos_T=None,
        token_id_T=None,
        order=None,
    )


def layout(dp: int, tp: int = 1) -> ParallelLayout:
    groups = tuple(tuple(range(r * tp, (r + 1) * tp)) for r in range(dp))
    return ParallelLayout(
        domain_G=np.zeros(dp * tp, dtype=np.int64), ep=dp * tp, attention_groups=groups
    )


def test_by_token_deals_rows_in_turn() -> None:
    """Row i lives on DP rank i mod S; it is the default without ranks."""
    homes = assign_homes(trace_of("aabbc"), None, 2)
    assert (homes.policy, homes.rank_T.tolist()) == ("by_token", [0, 1, 0, 1, 0])
    assert homes.tokens_S.tolist() == [3, 2]
    assert homes.ratio == 3 / 2.5


def test_round_robin_deals_sequences_by_ascending_id() -> None:
    """Sequences c, a, b: a is the first, whatever comes first in the file."""
    homes = assign_homes(trace_of("ccab"), "round_robin", 2)
    assert homes.rank_T.tolist() == [0, 0, 0, 1]


def test_balanced_places_the_longest_first() -> None:
    """Lengths a 3, b 3, c 2, d 1 over 2: a to 0, b to 1, c to 0, d to 1."""
    homes = assign_homes(trace_of("ddccbbbaaa"[1:]), "balanced", 2)
    assert homes.rank_T.tolist() == [1, 0, 0, 1, 1, 1, 0, 0, 0]
    assert homes.tokens_S.tolist() == [5, 4]


def test_by_tag_gives_tags_blocks_of_ranks() -> None:
    """9 tokens on 4 ranks: tag x has 6 (sequences a, b, c), ranks 0 … ⌊24/9⌋ − 1 = 1;
    y has 1 (d) from ⌊24/9⌋ = 2 to max(3, ⌊28/9⌋) − 1 = 2; z has 2 (e), rank 3."""
    trace = trace_of("eebbbcaad", tags="zzxxxxxxy")
    homes = assign_homes(trace, "by_tag", 4)
    assert homes.rank_T.tolist() == [3, 3, 1, 1, 1, 0, 0, 0, 2]


def test_ranks_of_the_same_tags_have_the_same_number() -> None:
    """Above: x is at ranks 0 and 1, y at 2, z at 3; others do not look at tags."""
    trace = trace_of("eebbbcaad", tags="zzxxxxxxy")
    tags_S = tags_of_ranks(trace, assign_homes(trace, "by_tag", 4))
    assert tags_S is not None
    assert tags_S.tolist() == [0, 0, 1, 2]
    assert tags_of_ranks(trace, assign_homes(trace, "balanced", 4)) is None


def test_without_tags_by_tag_is_round_robin() -> None:
    """One block of all ranks, sequences in turn."""
    trace = trace_of("ccabd")
    by_tag = assign_homes(trace, "by_tag", 3).rank_T
    assert by_tag.tolist() == assign_homes(trace, "round_robin", 3).rank_T.tolist()


def test_recorded_ranks_come_first_and_must_exist() -> None:
    """A complete column wins; a rank the layout lacks is invalid (rule 12)."""
    trace = replace(trace_of("aab"), rank_T=np.array([1, 0, 2]))
    assert assign_homes(trace, None, 3).policy == "trace"
    assert assign_homes(trace, "trace", 3).rank_T.tolist() == [1, 0, 2]
    with pytest.raises(TraceError, match=r"column rank, row 2: 2 must be .* 0 to 1"):
        assign_homes(trace, "trace", 2)
    assert assign_homes(trace, "by_token", 2).rank_T.tolist() == [0, 1, 0]


def test_an_unknown_policy_is_a_usage_error() -> None:
    """The message lists the policies."""
    with pytest.raises(
        UsageError, match="trace, by_token, round_robin, balanced, by_tag"
    ):
        assign_homes(trace_of("a"), "by_magic", 1)


def test_tokens_of_a_rank_leave_from_its_gpus_in_turn() -> None:
    """The j-th token of a rank leaves from GPU j mod t of its group (rule 13)."""
    rank_T = np.array([1, 0, 1, 1, 0])
    assert source_gpus(rank_T, layout(2, tp=2)).tolist() == [2, 0, 3, 2, 1]


def test_half_of_each_tags_sequences_is_held_out() -> None:
    """By SHA-256 of ``holdout:<id>``; ⌊n/2 + ½⌋ of n, at least one is planned on."""
    trace = trace_of("abcdez", tags="xxxxxy")
    order = sorted("abcde", key=lambda s: sha256(f"holdout:{s}".encode()).hexdigest())
    held = held_out_tokens(trace, parse_holdout("0.5"))
    assert held.tolist() == [letter in order[:3] for letter in "abcdez"]


def test_a_salt_changes_which_sequences_are_held_out() -> None:
    """``F:SALT`` orders by ``holdout<SALT>:<id>``."""
    letters = "abcdefghijklmnop"
    order = sorted(letters, key=lambda s: sha256(f"holdout7:{s}".encode()).hexdigest())
    held = held_out_tokens(trace_of(letters), parse_holdout("0.25:7"))
    assert held.tolist() == [letter in order[:4] for letter in letters]
    plain = held_out_tokens(trace_of(letters), parse_holdout("0.25"))
    assert held.tolist() != plain.tolist()


def test_the_share_is_a_decimal_not_a_float() -> None:
    """0.1 of 5 is exactly one half, which rounds up; the float 0.1 · 5 + 0.5 agrees
    by luck, 0.35 of 10 does not: ⌊4.0⌋ = 4, in floats 3.5 + 0.5 = 4.0 - tiny."""
    ten = trace_of("abcdefghij")
    assert int(held_out_tokens(ten, parse_holdout("0.35")).sum()) == 4
    assert (
        int(held_out_tokens(ten, parse_holdout("0.349999999999999999999")).sum()) == 3
    )
    assert int(held_out_tokens(trace_of("abcde"), parse_holdout(".1")).sum()) == 1


@pytest.mark.parametrize(
    "text", ["", "1.1", "-0.5", "half", "1e-1", "nan", "0.5 ", ":x"]
)
def test_a_share_that_is_no_decimal_is_a_usage_error(text: str) -> None:
    """F of F[:SALT] is a plain decimal from 0 to 1."""
    with pytest.raises(UsageError, match="--holdout"):
        parse_holdout(text)


def test_a_sequences_tag_is_that_of_its_first_row() -> None:
    """Sequence a starts as x: tag x has one sequence, which is planned on."""
    trace = trace_of("aabc", tags="xyyy")
    held = held_out_tokens(trace, parse_holdout("1"))
    assert held[:2].tolist() == [False, False]
    assert held[2:].tolist().count(True) == 1


def test_ordinals_count_after_part_and_phase_filters() -> None:
    """Homes come from the whole file, ordinals from what is left (rules 14, 15)."""
    trace = trace_of("aaaaaa", phases="pdpdpd")
    planning, holdout, report = split_parts(trace, layout(2), None, "0.5", "d")
    assert isinstance(planning, TokenPart)
    assert planning.row_T.tolist() == [1, 3, 5]
    assert planning.source_T.tolist() == [1, 1, 1]
    assert planning.ordinal_T.tolist() == [0, 1, 2]
    assert planning.experts_LTK[0, :, 0].tolist() == [1, 3, 1]
    assert holdout is None
    assert report.phase == "d"
    assert report.tokens_S.tolist() == [3, 3]
    assert "holds out none of the 1 sequences" in str(report.holdout_reason)


def test_a_trace_of_one_phase_is_kept_whole() -> None:
    """A prefill trace also serves a decode plan; nothing is filtered."""
    planning, _, report = split_parts(
        trace_of("ab", phases="pp"), layout(1), None, "0", "d"
    )
    assert isinstance(planning, TokenPart)
    assert planning.token_count == 2
    assert report.phase is None


def test_a_phase_that_is_not_there_is_invalid() -> None:
    """With several phases recorded, another one is an error that lists them."""
    with pytest.raises(TraceError, match=r"column phase: 'x' .* choose from d, p"):
        split_parts(trace_of("ab", phases="pd"), layout(1), None, "0.5", "x")


def test_a_part_without_tokens_is_invalid() -> None:
    """All decode tokens held out: there is nothing to plan on."""
    order = sorted("ab", key=lambda s: sha256(f"holdout:{s}".encode()).hexdigest())
    phases = "dp" if order[0] == "a" else "pd"
    with pytest.raises(TraceError, match="no tokens to plan on"):
        split_parts(trace_of("ab", phases=phases), layout(1), None, "0.5", "d")


def test_counts_have_no_held_out_part_and_say_why() -> None:
    """A counts table goes whole into the planning part (rule 14)."""
    table = inline_counts({"layers": [0], "tokens": [[2, 4]], "top_k": 2})
    planning, holdout, report = split_parts(table, layout(4), None, "0.5", "decode")
    assert isinstance(planning, CountsPart)
    assert planning.tokens_LE.tolist() == [[2, 4]]
    assert (planning.top_k, holdout, report.policy, report.ratio) == (
        2,
        None,
        "even",
        1,
    )
    assert "no sequences" in str(report.holdout_reason)
    with pytest.raises(TraceError, match="counts no token"):
        split_parts(
            inline_counts({"layers": [0], "tokens": [[0, 0]], "top_k": 1}),
            layout(4),
            None,
            "0.5",
            None,
        )


def test_the_shared_trace_splits_as_counted_elsewhere(shared_data: Path) -> None:
    """V2-Lite over 32 ranks: parts, ordinals and the imbalance of homes."""
    trace = load_trace(shared_data / "traces" / "deepseek-v2-lite.parquet")
    assert isinstance(trace, RoutingTrace)
    planning, holdout, report = split_parts(trace, layout(32), None, "0.5", "prefill")
    assert isinstance(planning, TokenPart)
    assert isinstance(holdout, TokenPart)
    assert planning.token_count + holdout.token_count == 33_279
    # Sequences per tag 127, 33, 13, 40: half of each, rounded up at .5.
    held = np.unique(trace.sequence_T[holdout.row_T]).size
    assert held == 64 + 17 + 7 + 20
    assert planning.ordinal_T.max() < planning.token_count
    assert report.tokens_S.tolist() == [1040] * 31 + [1039]
    ratios = [assign_homes(trace, p, 32).ratio for p in ("round_robin", "balanced")]
    # One sequence of 1,402 tokens is the floor: 1402 · 32 / 33279 = 1.348.
    assert ratios[1] == pytest.approx(1402 * 32 / 33_279)
    assert ratios[0] > 2
