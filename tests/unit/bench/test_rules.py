"""What blocks, what warns and what is let through, by hand-made results."""

from fractions import Fraction
from math import exp, log
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.bench.result import Result, Unseen
from planner.bench.rules import (
    Before,
    judge,
    judge_suite,
    shifted_geometric_mean,
    suite_means,
)
from tests.unit.bench.made import before, entry, exact, reached, result, yardstick


def said(found: Result, old: Before | None) -> set[tuple[str, str]]:
    """Rule and level of every finding."""
    return {(each.rule, each.level) for each in judge(found, old)}


def test_an_equal_result_is_not_mentioned() -> None:
    """Law: nothing changed, nothing is said."""
    assert judge(result(), before()) == []


@pytest.mark.parametrize(
    ("value", "level"),
    [(100, None), (101, "note"), ("101.0001", "block"), (99, "gain"), (200, "block")],
)
def test_a_count_may_be_worse_by_one(value: object, level: str | None) -> None:
    """Law: max(0.5 %, 1 pair) is allowed: of 100, one pair is and no more."""
    found = {each for each in said(result(value), before()) if each[0] == "objective"}
    assert found == ({("objective", level)} if level else set())


@pytest.mark.parametrize(
    ("value", "level"), [("1.005", "note"), ("1.00501", "block"), ("0.999", "gain")]
)
def test_seconds_may_be_worse_by_half_a_percent(value: str, level: str) -> None:
    """Law: no absolute allowance for times."""
    new = result(value, unit="s", bound=None, gap=None, yardsticks={})
    old = before(1, unit="s", bound=None, yardsticks={})
    assert ("objective", level) in said(new, old)


def test_a_large_count_is_judged_by_its_share() -> None:
    """Law: of 1,000 pairs, 5 are allowed and 6 are not."""
    none: dict[str, Any] = {"yardsticks": {}}
    assert ("objective", "note") in said(result(1005, **none), before(1000, **none))
    assert ("objective", "block") in said(result(1006, **none), before(1000, **none))


@pytest.mark.parametrize("outcome", ["no_plan", "error", "crashed", "timeout"])
def test_no_plan_where_there_was_one_blocks(outcome: str) -> None:
    """Law: worked, and stopped working."""
    assert said(result(outcome=outcome), before()) == {("feasible", "block")}
    assert said(result(outcome=outcome), None) == {("feasible", "block")}


def test_no_plan_that_was_accepted_is_a_note() -> None:
    """Law: what a person took does not block again."""
    old = before(outcome="no_plan", exact=None)
    assert said(result(outcome="no_plan"), old) == {("feasible", "note")}


def test_an_infeasible_case_must_stay_infeasible() -> None:
    """Law: a plan, or a time-out, for a problem without one blocks."""
    wanted: dict[str, Any] = {"expect": "infeasible"}
    assert said(result(outcome="infeasible", **wanted), None) == set()
    for outcome in ("plan", "no_plan"):
        found = said(result(outcome=outcome, **wanted), None)
        assert ("feasible", "block") in found


def test_a_skipped_case_is_a_note_only() -> None:
    """Law: missing data is no regression."""
    skipped = result(outcome="skipped", message="no data")
    assert said(skipped, before()) == {("feasible", "note")}


def test_another_problem_is_not_compared() -> None:
    """Law: a changed case blocks until accepted; its numbers say nothing."""
    found = said(result(500, digest="b" * 64), before())
    assert found == {("inputs", "block")}


def test_what_the_verifier_refuses_blocks() -> None:
    """Law: verified → not."""
    assert ("verified", "block") in said(result(findings=("slot twice",)), before())


def test_an_answer_to_another_question_blocks() -> None:
    """Law: options in force are those asked for, and caps are kept."""
    other = result(other_question=("homes: the case asks for trace",))
    assert ("question", "block") in said(other, None)
    assert ("question", "block") in said(result(keeps_caps=False), None)


def test_a_fixed_plan_that_counts_otherwise_blocks() -> None:
    """Law: a baseline's plan has one value; a better number is no excuse."""
    moved = {"eplb_global": yardstick(119), "contiguous": yardstick(150)}
    found = judge(result(90, yardsticks=moved), before())
    assert [each.rule for each in found if each.level == "block"] == ["yardstick"]
    assert "eplb_global" in found[0].text


def test_new_and_lost_baselines_are_no_yardsticks() -> None:
    """Law: only what both sides have is compared."""
    names = {"eplb_global": yardstick(120), "one_more": yardstick(1000)}
    assert judge(result(yardsticks=names), before()) == []


def test_below_a_proven_bound_blocks() -> None:
    """Law: a value below a bound that was proven for the problem is impossible."""
    assert ("truth", "block") in said(result(79, bound=70.0), before())


def test_a_bound_above_a_known_plan_blocks() -> None:
    """Law: a lower bound is not above a plan of the same problem."""
    wrong = result(102, bound=101.0)
    assert ("truth", "block") in said(wrong, before())


def test_the_known_optimum_is_neither_missed_nor_beaten() -> None:
    """Law: with a known optimum no baseline is needed."""
    assert said(result(100, known_optimum="100/1"), None) == {("baseline", "note")}
    assert ("truth", "block") in said(result(99, known_optimum="100/1"), None)
    assert ("objective", "block") in said(result(102, known_optimum="100/1"), None)
    assert ("truth", "block") in said(
        result(102, bound=101.0, known_optimum="100/1"), None
    )


def test_an_optimum_missed_before_warns() -> None:
    """Law: what the baseline already misses is compared with the baseline."""
    found = said(result(110, known_optimum="100/1"), before(110))
    assert found == {("objective", "warn")}


@pytest.mark.parametrize(
    ("was", "now", "level"),
    [
        ("proven_optimal", "feasible", "block"),
        ("proven_optimal", "solver_claimed", "block"),
        ("solver_claimed", "feasible", "warn"),
        ("feasible", "proven_optimal", None),
    ],
)
def test_a_proof_must_not_be_lost(was: str, now: str, level: str | None) -> None:
    """Law: proven → unproven blocks."""
    found = said(result(status=now), before(status=was))
    assert found == ({("proof", level)} if level else set())


def test_a_bound_must_not_be_lost() -> None:
    """Law: no bound at all blocks; a weaker one warns, the suite's mean decides."""
    assert ("proof", "block") in said(result(bound=None, gap=None), before())
    assert said(result(bound=79.0), before()) == {("proof", "warn")}
    assert said(result(bound=79.8), before()) == set()


def test_worse_than_eplb_blocks() -> None:
    """Law: no plan is worse than a baseline that is legal and keeps the caps."""
    free: dict[str, Any] = {"yardsticks": {"eplb_global": yardstick(99)}}
    assert ("eplb", "block") in said(result(**free), None)
    for fault in ({"legal": False}, {"keeps_caps": False}):
        rival = {"eplb_global": yardstick(99, **fault)}
        assert ("eplb", "block") not in said(result(yardsticks=rival), None)
    other = {"contiguous": yardstick(99)}
    assert ("eplb", "block") not in said(result(yardsticks=other), None)


def test_unseen_sequences_warn_beyond_two_percent() -> None:
    """Law: drift on unseen sequences is said, and does not block."""
    for value, wanted in ((112.2, set()), (112.3, {("unseen", "warn")})):
        new = result(unseen=Unseen(value=value, ratio_eplb=None))
        assert said(new, before()) == wanted


def test_time_warns_on_a_machine_like_this_one_only() -> None:
    """Law: × 1.5 and half a second more, and only where times compare."""
    slow = result(cpu_seconds=1.6)
    assert said(slow, before()) == {("time", "warn")}
    assert said(slow, before(times_compare=False)) == set()
    assert said(result(cpu_seconds=0.2), before(cpu_seconds=0.1)) == set()


def test_every_block_says_how_much_and_against_what() -> None:
    """Law: a reader learns old, new, change and what is allowed."""
    found = judge(result(110), before())
    text = next(each.text for each in found if each.level == "block")
    for part in ("110 pairs", "100 pairs", "+10.00 %", "0.50 %", "the baseline"):
        assert part in text


def test_the_shifted_mean_by_hand() -> None:
    """Gaps 0 and 3 % with a shift of 1 %: √(0.01 · 0.04) − 0.01 = 1 %."""
    assert shifted_geometric_mean([1.0, 1.03]) == pytest.approx(1.01)


@given(st.lists(st.floats(1, 3), min_size=1, max_size=20), st.floats(0, 0.5))
def test_the_shifted_mean_lies_between_and_grows(
    ratios: list[float], more: float
) -> None:
    """Law: between least and largest ratio, and monotone in each."""
    mean = shifted_geometric_mean(ratios)
    assert min(ratios) - 1e-9 <= mean <= max(ratios) + 1e-9
    assert shifted_geometric_mean([ratios[0] + more, *ratios[1:]]) >= mean - 1e-9


def suite(gaps: list[float]) -> list[Result]:
    """Cases of 100 pairs whose bounds leave these gaps above the bound."""
    return [
        result(name=f"case{index}", bound=100 / (1 + gap))
        for index, gap in enumerate(gaps)
    ]


def test_many_small_losses_block_the_suite() -> None:
    """Law: 0.4 % on every case passes each rule of a case, but not the suite's."""
    old = {
        each.name: Before(
            entry=entry(bound=each.reached.bound if each.reached else None),
            origin="the baseline",
            times_compare=False,
        )
        for each in suite([0.01] * 5)
    }
    worse = [
        each.model_copy(update={"reached": reached("100.4", bound=100 / 1.01)})
        for each in suite([0.01] * 5)
    ]
    for each in worse:
        assert all(found.level != "block" for found in judge(each, old[each.name]))
    (found,) = judge_suite(worse, old)
    assert (found.rule, found.level) == ("suite", "block")
    (same,) = judge_suite(suite([0.01] * 5), old)
    assert same.level == "note"


def test_the_suite_counts_what_has_a_bound_on_both_sides() -> None:
    """Law: without a bound, or for another problem, a case says nothing here."""
    results = [
        result(name="a", bound=50.0),
        result(name="b", bound=None, gap=None),
        result(name="c", digest="b" * 64),
        result(name="d"),
    ]
    old = {name: before(bound=50.0) for name in "abc"}
    means = suite_means(results, old)
    assert means is not None
    now, then, count = means
    assert count == 1
    assert now == then == pytest.approx(exp(log(1.01)) + 0.99)
    assert suite_means(results, {}) is None


@given(st.integers(1, 10**6), st.integers(0, 10**4))
def test_the_objective_rule_is_its_formula(old: int, more: int) -> None:
    """Law: blocks iff new − old > max(old / 200, 1)."""
    none: dict[str, Any] = {"yardsticks": {}, "bound": None, "gap": None}
    found = said(result(old + more, **none), before(old, yardsticks={}, bound=None))
    blocked = ("objective", "block") in found
    assert blocked == (Fraction(more) > max(Fraction(old, 200), Fraction(1)))
    assert exact(old) == f"{old}/1"
