"""The baseline only tightens; worse is kept with its reason."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.bench.baseline import (
    Baseline,
    accepted,
    entry_of,
    read_baseline,
    tightened,
    updated,
    write_baseline,
)
from planner.bench.machine import this_machine
from planner.errors import InputError
from tests.unit.bench.made import entry, exact, result

MACHINE = this_machine()


def of(**cases: object) -> Baseline:
    """A baseline with these entries."""
    return Baseline(cases=cases)


def test_a_better_objective_is_taken_over() -> None:
    """Law: objective, ratio and unseen go together."""
    new = tightened(entry(100), entry(90, ratio_eplb=0.7, unseen=99.0))
    assert (new.exact, new.ratio_eplb, new.unseen) == (exact(90), 0.7, 99.0)


def test_a_worse_objective_is_not() -> None:
    """Law: an update never loosens."""
    assert tightened(entry(100), entry(110, ratio_eplb=0.95)) == entry(100)


def test_bound_and_proof_tighten_on_their_own() -> None:
    """Law: a worse plan may still bring a better bound."""
    new = tightened(
        entry(100),
        entry(110, bound=90.0, certificate="c" * 64, status="solver_claimed"),
    )
    assert (new.exact, new.bound, new.certificate) == (exact(100), 90.0, "c" * 64)
    assert new.status == "solver_claimed"
    assert tightened(new, entry(100, bound=85.0)) == new


@given(
    st.tuples(st.integers(1, 500), st.floats(0, 100)),
    st.tuples(st.integers(1, 500), st.floats(0, 100)),
)
def test_an_update_never_loosens(
    old: tuple[int, float], new: tuple[int, float]
) -> None:
    """Law: objective down or equal, bound up or equal, and it is idempotent."""
    one, other = entry(old[0], bound=old[1]), entry(new[0], bound=new[1])
    both = tightened(one, other)
    assert both.value == min(old[0], new[0])
    assert both.bound == max(old[1], new[1])
    assert tightened(both, other) == both


def test_another_problem_does_not_tighten() -> None:
    """Law: digests must agree."""
    assert tightened(entry(100), entry(1, digest="b" * 64)) == entry(100)


def test_new_cases_are_added_and_skipped_ones_are_not() -> None:
    """Law: an update records what ran."""
    new = updated(
        Baseline(),
        [result(name="a"), result(name="b", outcome="skipped")],
        MACHINE,
    )
    assert list(new.cases) == ["a"]
    assert new.machine == MACHINE
    assert new.cases["a"].ratio_eplb == pytest.approx(100 / 120)


def test_accepting_takes_a_worse_result_with_its_reason() -> None:
    """Law: history keeps reason, date, before and after."""
    worse = result(150)
    new = accepted(
        of(case=entry(100)), {"case": worse}, ["case"], "new rule", "2026-01-02"
    )
    assert new.cases["case"] == entry_of(worse)
    (kept,) = new.history
    assert (kept.case, kept.reason, kept.date) == ("case", "new rule", "2026-01-02")
    assert kept.before == entry(100)
    assert kept.after == entry_of(worse)


def test_accepting_a_case_that_is_gone_takes_it_out() -> None:
    """Law: a removal needs a reason as well."""
    new = accepted(of(case=entry(100)), {}, ["case"], "superseded", "2026-01-02")
    assert new.cases == {}
    assert new.history[0].after is None


def test_accepting_what_did_not_change_leaves_no_trace() -> None:
    """Law: the history holds changes."""
    same = result(100)
    old = of(case=entry_of(same))
    assert accepted(old, {"case": same}, ["case"], "x", "2026-01-02") == old


def test_a_written_baseline_reads_back_equal(tmp_path: Path) -> None:
    """Law: write ∘ read is the identity, and equal baselines are equal files."""
    old = accepted(
        of(a=entry(100), b=entry(7, bound=None)),
        {"a": result(150)},
        ["a"],
        "reason",
        "2026-01-02",
    )
    write_baseline(old, tmp_path / "one.json")
    write_baseline(read_baseline(tmp_path / "one.json"), tmp_path / "two.json")
    assert read_baseline(tmp_path / "two.json") == old
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not JSON"),
        ('{"schema": "placement-baseline/2"}', "/schema"),
        ('{"schema": "placement-baseline/1", "cases": {"a": {}}}', "/cases/a/digest"),
        ('{"schema": "placement-baseline/1", "speed": 1}', "/speed"),
    ],
)
def test_a_broken_baseline_is_refused_at_its_place(
    text: str, said: str, tmp_path: Path
) -> None:
    """Law: exit 3 and the pointer."""
    path = tmp_path / "baseline.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_baseline(path)


def test_a_missing_baseline_says_how_to_write_one(tmp_path: Path) -> None:
    """Law: the message names the way out."""
    with pytest.raises(InputError, match="--update-baseline"):
        read_baseline(tmp_path / "none.json")
