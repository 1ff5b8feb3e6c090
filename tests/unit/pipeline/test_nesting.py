"""``--routing-groups nest`` from options to a verified plan, or a clear refusal."""

import json
from pathlib import Path
from typing import Any

import pytest

import planner
from benchmarks.eplb_readme import CLUSTER, LOADS, MODEL
from planner.errors import UsageError
from planner.manifest import write_manifest
from planner.options import SolveOptions

NEST: dict[str, Any] = {
    "objective": "gpu_tokens",
    "selection": "weighted",
    "routing_groups": "nest",
    "redundant": "4",
    "time_limit": 10,
}
COUNTS = {"layers": [0], "top_k": 2, "tokens": [list(LOADS[0])]}


def test_a_nested_plan_is_verified_from_its_file(tmp_path: Path) -> None:
    """Law: groups, loads and certificate are found to be as the manifest says."""
    for name, data in (("cluster.json", CLUSTER), ("model.json", MODEL)):
        (tmp_path / name).write_text(json.dumps(data))
    manifest = planner.solve(
        tmp_path / "cluster.json",
        model=tmp_path / "model.json",
        options=SolveOptions(**NEST),
        trace=COUNTS,
        base=tmp_path,
    )
    write_manifest(manifest, tmp_path / "plan.json")
    report = planner.verify(tmp_path / "plan.json")
    assert "routing groups" in {check.name for check in report.checks}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"strategy": "fast"}, "does not keep routing groups together"),
        ({"objective": "link_time"}, "ignores links"),
        ({"selection": "nearest"}, "for selection"),
        ({"routing_groups": "near"}, "choose from free, nest"),
        ({"layout": "ep=4", "redundant": "0"}, "one EP set"),
    ],
)
def test_what_does_not_go_with_nesting_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    """Law: one reason, before anything is planned."""
    with pytest.raises(UsageError, match=reason):
        planner.solve(
            CLUSTER, model=MODEL, trace=COUNTS, options=SolveOptions(**NEST | changes)
        )
