"""Bound, gap, status and caps: what a manifest claims must follow."""

from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction
from pathlib import Path

import pytest

from planner.manifest import gap_of
from planner.verifier import verify_manifest
from tests.oracles.valid_plan import valid_plan
from tests.unit.verifier.lies import Data, put, refused


def bound(value: float, gap: float, **changes: object) -> Callable[[Data], None]:
    """Return a change of the bound and its gap."""

    def change(data: Data) -> None:
        data["bound"] = {**data["bound"], "value": value, **changes}
        data["gap"] = gap

    return change


def test_bound_gap_and_status_must_agree(true_plan: Data, folder: Path) -> None:
    """Rule 28, claim by claim."""
    value = true_plan["objective"]["value"]
    above = value * (1 + 1e-6)
    said = refused(true_plan, folder, bound(above, (value - above) / value))
    assert "is above the objective" in said
    assert "gap" in refused(true_plan, folder, put("/gap", 0.25))
    assert "gap" in refused(true_plan, folder, put("/bound", None))
    for status in ("infeasible", "unknown"):
        assert "cannot be said" in refused(true_plan, folder, put("/status", status))
    for status in ("proven_optimal", "solver_claimed"):
        said = refused(true_plan, folder, put("/status", status))
        assert "needs a bound that the objective reaches" in said


def test_a_bound_rounded_above_the_objective_leaves_no_gap(
    true_plan: Data, folder: Path
) -> None:
    """Law: the gap of such an optimum is 0, and nothing below is accepted."""
    value = true_plan["objective"]["value"]
    above = value * (1 + 1e-12)
    true = deepcopy(true_plan)
    bound(above, 0.0, certificate=None)(true)
    verify_manifest(true, folder=folder)
    assert "gap" in refused(true, folder, put("/gap", (value - above) / value))


def test_proven_optimal_needs_a_certificate_that_can_be_checked(
    true_plan: Data, folder: Path
) -> None:
    """A bound that merely equals the objective is a solver's claim."""
    exact = Fraction(true_plan["objective"]["value_exact"])
    value = float(exact)
    gap = gap_of(exact, value)
    claimed = deepcopy(true_plan)
    bound(value, gap, certificate=None)(claimed)
    claimed["status"] = "solver_claimed"
    verify_manifest(claimed, folder=folder)
    said = refused(claimed, folder, put("/status", "proven_optimal"))
    assert "cannot be checked" in said
    weak = bound(value, gap, certificate={"kind": "nothing_moves"})
    said = refused(claimed, folder, put("/status", "proven_optimal"), weak)
    assert "proves 0.0" in said


def test_a_mean_is_a_certificate_for_balanced_pairs(tmp_path: Path) -> None:
    """``mean_pairs``: the bound is worked out again, and must not exceed it."""
    plan = valid_plan(tmp_path, objective="gpu_tokens", layers="worst_layer")
    pairs = 2 * int(plan["prediction"]["tokens_exact"].split("/")[0])
    value = Fraction(plan["objective"]["value_exact"])
    mean = Fraction(pairs, 4)
    certificate = {"kind": "mean_pairs"}
    reached = float((value - mean) / value)
    bound(float(mean), reached, certificate=certificate)(plan)
    verify_manifest(plan, folder=tmp_path)
    plan["status"] = "proven_optimal"
    top = bound(float(value), 0.0, certificate=certificate)
    if value == mean:
        verify_manifest(plan, folder=tmp_path)
    else:
        assert f"proves {float(mean)}" in refused(plan, tmp_path, top)


@pytest.fixture(autouse=True)
def _caps_key(true_plan: Data) -> None:
    """Give the plan its optional caps, so that tests can change them."""
    true_plan.setdefault("caps", {"gpu": None, "domain": None})


def test_caps_are_kept_and_are_those_asked_for(true_plan: Data, folder: Path) -> None:
    """Rule 26: per layer, on the planning part."""
    worst = true_plan["imbalance"]["worst"]
    asked = put("/inputs/options/values/imbalance_cap", "1.01")
    assert worst > 1.01
    assert "the cap is 1.01" in refused(
        true_plan, folder, asked, put("/caps", {"gpu": 1.01, "domain": None})
    )
    assert "was asked for" in refused(true_plan, folder, asked)
    assert "was kept" in refused(
        true_plan, folder, put("/caps", {"gpu": None, "domain": 9.0})
    )
