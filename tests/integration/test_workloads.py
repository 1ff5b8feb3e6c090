"""Several workloads in one plan: prefill and decode, mean and worst (rule 25)."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

import planner
from planner.errors import ManifestError, UsageError, VerificationError
from planner.evaluator import evaluate, evaluate_planning
from planner.manifest import manifest_data, write_manifest
from planner.options import SolveOptions
from planner.pipeline import load
from planner.plan import PlacementPlan
from planner.strategies.baselines.base import published_plan
from planner.verifier import verify_manifest

BOTH = ("tiny-moe:3::prefill", "tiny-moe:1::decode")
QUICK = SolveOptions(redundant="0", time_limit=2, threads=1)


def test_values_are_per_token_and_combined() -> None:
    """Law: mean is Σ weight · value/tokens, worst the largest value/tokens."""
    problem = load("toy-2x2", trace=BOTH, options=QUICK)
    instance = problem.instance
    assert [load.traffic for load in instance.workloads] == ["dedup_domain", "copies"]
    assert [load.weight for load in instance.workloads] == [
        Fraction(3, 4),
        Fraction(1, 4),
    ]
    plan: PlacementPlan = published_plan(instance, "contiguous")
    rates = [
        one.value / one.tokens
        for one in (evaluate(view, plan, view.planning) for view in instance.views)
    ]
    assert rates[0] != rates[1]
    joint = evaluate_planning(instance, plan).value
    assert joint == Fraction(3, 4) * rates[0] + Fraction(1, 4) * rates[1]
    worst = replace(instance, objective=replace(instance.objective, combine="worst"))
    assert evaluate_planning(worst, plan).value == max(rates)


@pytest.mark.parametrize("combine", ["mean", "worst"])
def test_one_plan_for_prefill_and_decode_is_verified_and_moved(
    combine: str, tmp_path: Path
) -> None:
    """Law: every workload's counts are predicted, counted again and moved."""
    options = replace(QUICK, combine=combine)
    manifest = planner.solve("toy-2x2", trace=BOTH, options=options)
    assert set(manifest.workloads) == {"tiny-moe:1", "tiny-moe:2"}
    assert manifest.objective.unit == "s/token"
    verify_manifest(manifest, folder=tmp_path)
    path = tmp_path / "plan.json"
    write_manifest(manifest, path)
    report = planner.replay(path, executor="counter")
    assert [part.part for part in report.parts] == [
        "tiny-moe:1 planning",
        "tiny-moe:1 holdout",
        "tiny-moe:2 planning",
        "tiny-moe:2 holdout",
    ]
    for name, report in manifest.baselines.items():
        if report.objective is not None and combine == "mean":
            assert manifest.objective.value <= report.objective.value, name


def test_a_lie_about_the_second_workload_is_found(tmp_path: Path) -> None:
    """Law: figures of every workload are held to the count."""
    data = manifest_data(planner.solve("toy-2x2", trace=BOTH, options=QUICK))
    data["workloads"]["tiny-moe:2"]["planning"]["objective"] *= 2
    with pytest.raises(VerificationError, match="tiny-moe:2"):
        verify_manifest(data, folder=tmp_path)
    del data["workloads"]["tiny-moe:2"]
    with pytest.raises(VerificationError, match="one per trace"):
        verify_manifest(data, folder=tmp_path)


@pytest.mark.parametrize("combine", ["mean", "worst"])
def test_the_certificates_of_all_workloads_are_proven_again(
    combine: str, tmp_path: Path
) -> None:
    """Law: what each workload's certificate proves is combined as values are."""
    options = replace(QUICK, combine=combine)
    data = manifest_data(planner.solve("toy-2x2", trace=BOTH, options=options))
    bound = data["bound"]
    assert bound["certificate"]["kind"] == "workloads"
    assert 0 < Fraction(bound["certified_exact"]) <= bound["value"] * (1 + 1e-9)
    assert bound["value"] <= data["objective"]["value"]
    verify_manifest(data, folder=tmp_path)
    bound["certificate"]["workloads"].reverse()
    with pytest.raises((VerificationError, ManifestError)):
        verify_manifest(data, folder=tmp_path)
    del bound["certificate"]["workloads"][0]
    with pytest.raises(ManifestError, match="one certificate for each"):
        verify_manifest(data, folder=tmp_path)


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        ("tiny-moe:0", "weight"),
        ("tiny-moe:1:copies:decode:more", "at most"),
        ("tiny-moe:1:teleport", "teleport"),
        ("tiny-moe:1::breakfast", "breakfast"),
    ],
)
def test_a_wrong_setting_of_a_trace_is_named(trace: str, said: str) -> None:
    """Law: weight, mode and phase are checked, each by its rule."""
    with pytest.raises(UsageError, match=said):
        load("toy-2x2", trace=[trace, "tiny-moe"])
