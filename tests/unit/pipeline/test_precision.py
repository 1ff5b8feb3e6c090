"""Replays in bf16 and fp8, from the facade."""

from pathlib import Path
from typing import Any

import pytest

import planner
from planner.errors import ReplayMismatch, UsageError
from planner.executor.precision.tolerance import TOLERANCES, Tolerance
from planner.manifest import Manifest, write_manifest
from planner.options import SolveOptions


@pytest.fixture(scope="module")
def path(tmp_path_factory: Any) -> Path:
    """A short plan of the bundled model, on disk."""
    options = SolveOptions(redundant="0", time_limit=1.0)
    plan: Manifest = planner.solve("toy-2x2", options=options)
    found: Path = tmp_path_factory.mktemp("plan") / "plan.json"
    write_manifest(plan, found)
    return found


@pytest.mark.torch
@pytest.mark.parametrize("gating", ["real", "forced"])
def test_counts_agree_and_the_report_names_error_and_tolerance(
    path: Path, gating: str
) -> None:
    """Law: in fp8 what moves is what was predicted; what is lost is said."""
    pytest.importorskip("torch")
    report = planner.replay(path, part="holdout", gating=gating, precision="fp8")
    assert report.precision == "fp8"
    (part,) = report.parts
    assert part.tolerance == TOLERANCES["fp8"]
    assert part.output_error is not None
    assert part.layer_error is not None
    assert 1e-5 < part.output_error <= TOLERANCES["fp8"].outputs
    assert 1e-5 < part.layer_error <= TOLERANCES["fp8"].layers
    if gating == "real":
        assert part.ids_agreeing is not None
        assert 0.98 < part.ids_agreeing < 1


@pytest.mark.torch
def test_outputs_too_far_off_end_the_replay(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: a tolerance is held, for outputs and for single layers."""
    pytest.importorskip("torch")
    monkeypatch.setitem(TOLERANCES, "bf16", Tolerance(outputs=1e-6, layers=1e-6))
    with pytest.raises(ReplayMismatch, match="1e-06 in bf16") as found:
        planner.replay(path, part="holdout", gating="forced", precision="bf16")
    assert len(found.value.findings) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "fp4"}, "--precision 'fp4'"),
        ({"precision": "bf16", "executor": "counter"}, "needs tensors"),
    ],
)
def test_precisions_that_do_not_exist_are_refused(
    path: Path, options: dict[str, str], says: str
) -> None:
    """Law: one clear error, before anything moves."""
    with pytest.raises(UsageError, match=says):
        planner.replay(path, **options)  # type: ignore[arg-type]
