"""Diagnosis: what is measured is what the plans are worth where they run."""

import pytest

from planner.errors import LimitError
from planner.options import SolveOptions
from planner.pipeline import diagnose, load, plain


def test_without_ablation_nothing_is_solved() -> None:
    """Effects, rooms and baselines on unseen tokens; no figure of a solve."""
    report = diagnose("toy-2x2", options=SolveOptions(strategy="search"))
    assert report.part == "holdout"
    assert report.ablation is None
    assert [effect.letter for effect in report.effects] == list("abcde")
    assert all(effect.blind is effect.switched is None for effect in report.effects)
    assert report.effects[0].room is not None
    assert min(report.baselines.values()) > 0
    assert plain(report)["effects"][0]["name"] == "dedup"


def test_a_planner_that_sees_nothing_loses_nothing_by_being_blind() -> None:
    """Law: EPLB looks at loads alone, so that every plan of it is the same one."""
    options = SolveOptions(strategy="eplb_global", time_limit=1, redundant="4")
    report = diagnose("toy-2x2", options=options, ablate=True)
    assert report.ablation is not None
    assert report.ablation.noise == 0
    assert report.ablation.value == report.baselines["eplb_global"]
    assert report.ablation.balance.worth == 0
    blind = {e.letter: e.blind for e in report.effects if e.blind is not None}
    assert set(blind) == {"a", "d"}
    assert all(each.worth == 0 for each in blind.values())
    # Sending copies instead of merging costs; that EPLB does not see it is no matter.
    switched = report.effects[0].switched
    assert switched is not None and switched.worth is not None
    assert (switched.what, switched.worth > 0) == ("traffic copies", True)


def test_a_plan_past_its_caps_is_no_measure() -> None:
    """Law: what is compared with keeps the caps, as a plan of solve does."""
    options = SolveOptions(strategy="contiguous", time_limit=1, imbalance_cap="1.001")
    with pytest.raises(LimitError, match="exceeds them by"):
        diagnose("toy-2x2", options=options, ablate=True)


def test_what_cannot_be_switched_says_why() -> None:
    """With memory filled up by KV cache there is no room for one slot more."""
    filled = load("toy-2x2", options=SolveOptions(mem_fraction=1.0)).bill.kv_tokens
    options = SolveOptions(strategy="contiguous", time_limit=1, kv_tokens=filled)
    report = diagnose("toy-2x2", options=options, ablate=True)
    near = report.effects[3].switched
    assert near is not None and near.value is None
    assert "memory too small" in near.note


def test_counts_are_scored_on_the_planning_part() -> None:
    """Nothing is held out of a counts table, and the report says so."""
    tokens = [[400 - 40 * ((e + layer) % 8) for e in range(8)] for layer in range(32)]
    counts = {"layers": list(range(32)), "top_k": 2, "tokens": tokens}
    options = SolveOptions(strategy="contiguous", time_limit=1, batch_tokens=1)
    report = diagnose(
        "toy-2x2", model="mixtral-8x7b", trace=counts, options=options, ablate=True
    )
    assert report.part == "planning"
    assert report.effects[3].switched is not None
    assert all(e.blind is None for e in report.effects if not e.applies)
