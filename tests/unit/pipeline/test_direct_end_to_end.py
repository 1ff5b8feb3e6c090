"""Traffic ``direct`` from the facade to the verifier and the replay."""

from pathlib import Path
from typing import Any

import pytest

import planner
from planner.errors import UsageError, VerificationError
from planner.manifest import Manifest, write_manifest
from planner.options import SolveOptions
from planner.verifier import verify_manifest


@pytest.fixture(scope="module")
def plan() -> Manifest:
    """Return a short plan of the bundled model, which has a bound."""
    options = SolveOptions(traffic="direct", redundant="0", time_limit=1.5)
    return planner.solve("toy-2x2", options=options)


def test_a_plan_is_verified_and_replayed(plan: Manifest, tmp_path: Path) -> None:
    """Law: what was predicted is what the witness counts and the counter moves."""
    path = tmp_path / "plan.json"
    write_manifest(plan, path)
    assert planner.verify(path).comparisons > 0
    for executor in ("counter", "auto"):
        report = planner.replay(path, executor=executor)
        assert [part.part for part in report.parts] == ["planning", "holdout"]


def test_its_bound_is_certified(plan: Manifest) -> None:
    """Law: the verifier proves what the strategy says."""
    assert plan.bound is not None
    assert plan.bound.certificate is not None
    assert plan.bound.certified_exact is not None


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("groups", 3), ("memory_bytes", 0), ("missing_bytes", 1), ("transfer_bytes", 7)],
)
def test_a_false_price_of_context_is_found(
    plan: Manifest, field: str, wrong: int
) -> None:
    """Law: every figure of the context is counted again."""
    data: dict[str, Any] = plan.model_dump(mode="json", by_alias=True)
    data["workloads"]["tiny-moe"]["context"][field] = wrong
    with pytest.raises(VerificationError, match=field):
        verify_manifest(data)


def test_a_missing_price_of_context_is_found(plan: Manifest) -> None:
    """Law: ``direct`` without its price is not a whole answer."""
    data: dict[str, Any] = plan.model_dump(mode="json", by_alias=True)
    del data["workloads"]["tiny-moe"]["context"]
    with pytest.raises(VerificationError, match="context"):
        verify_manifest(data)


def test_strategies_of_single_layers_say_what_to_use() -> None:
    """Law: one clear error with the way out."""
    options = SolveOptions(traffic="direct", strategy="search", time_limit=1)
    with pytest.raises(UsageError, match="use --strategy auto or flow"):
        planner.solve("toy-2x2", options=options)
