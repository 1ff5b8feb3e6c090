"""Three slots per GPU from the loads to the verifier: bounds by whole patterns."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

import planner
from planner.errors import VerificationError
from planner.manifest import Manifest, write_manifest
from planner.options import SolveOptions
from tests.instances import cluster, small_model

LOADS = [61, 60, 59, 58, 57, 9, 8, 7, 6, 5, 4]
"""Five heavy experts, of which two share one of four GPUs of three slots."""


def planned(
    folder: Path, loads: list[int], selection: str, redundant: str
) -> tuple[Manifest, Path]:
    """Plan on two hosts of two GPUs."""
    manifest = planner.solve(
        cluster([2, 2]),
        model=small_model(len(loads)),
        trace={"layers": [0], "top_k": 1, "tokens": [loads]},
        options=SolveOptions(
            strategy="balance",
            selection=selection,
            objective="gpu_tokens",
            redundant=redundant,
            batch_tokens=1,
            kv_tokens=1024,
            time_limit=10.0,
        ),
    )
    path = folder / "plan.json"
    write_manifest(manifest, path)
    return manifest, path


def test_a_plan_of_three_slots_is_bounded_and_verified(tmp_path: Path) -> None:
    """Law: what the patterns prove is above the mean, near the plan, and verified."""
    manifest, path = planned(tmp_path, LOADS, "even", "1")
    assert manifest.bound is not None
    assert manifest.bound.method == "patterns"
    value, mean = manifest.objective.value, sum(LOADS) / 4
    assert mean < 0.95 * value
    assert 0.99 * value < manifest.bound.value < value
    assert planner.verify(path).comparisons > 0


def test_a_bound_that_its_weights_do_not_prove_is_refused(tmp_path: Path) -> None:
    """Law: the verifier proves the level again; a higher one is no bound."""
    _, path = planned(tmp_path, LOADS, "even", "1")
    plan = json.loads(path.read_text())
    certificate = plan["bound"]["certificate"]
    (layer,) = certificate["layers"]
    assert layer["kind"] == "patterns"
    heaviest = max(layer["steps"], key=lambda cell: layer["steps"][cell])
    layer["steps"][heaviest] = 0
    path.write_text(json.dumps(plan))
    with pytest.raises(VerificationError, match="certif"):
        planner.verify(path)


@pytest.mark.parametrize("selection", ["nearest", "even", "weighted"])
@pytest.mark.parametrize(("loads", "kind"), [(8, "threshold"), (12, "patterns")])
def test_an_only_copy_carries_all_whatever_is_selected(
    tmp_path: Path, selection: str, loads: int, kind: str
) -> None:
    """Law: without spare copies bounds are certified under every selection."""
    manifest, path = planned(tmp_path, [*LOADS, 3][:loads], selection, "0")
    assert manifest.bound is not None
    assert manifest.bound.method == kind
    proven = Fraction(manifest.bound.certified_exact or 0)
    assert float(proven) == pytest.approx(manifest.bound.value, rel=1e-12)
    assert planner.verify(path).comparisons > 0
