"""Inputs and options: other ones are refused, those in force were obeyed."""

import json
from copy import deepcopy
from pathlib import Path

import pytest

from planner import bundled
from planner.errors import ManifestError
from planner.manifest import (
    digest_of_file,
    digest_of_json,
)
from planner.verifier import verify_manifest
from tests.oracles.valid_plan import valid_plan
from tests.unit.verifier.lies import Data, put, refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("selection", "even"),
        ("traffic", "copies"),
        ("endpoint", "local_nic"),
        ("objective", "gpu_tokens"),
        ("layers", "worst_layer"),
        ("seed", 7),
    ],
)
def test_the_rules_used_are_those_of_the_options(
    true_plan: Data, folder: Path, name: str, value: object
) -> None:
    """Law: an option in force was obeyed."""
    said = refused(true_plan, folder, put(f"/inputs/options/values/{name}", value))
    assert f"options.values.{name}" in said


def test_given_options_are_obeyed(true_plan: Data, folder: Path) -> None:
    """Message bytes and link classes of the options replace the defaults."""
    said = refused(
        true_plan, folder, put("/inputs/options/values/message_bytes", [10, 20])
    )
    assert "message_bytes" in said
    classes = put("/inputs/options/values/link_classes", ["ib:nic>switch0"])
    said = refused(true_plan, folder, classes)
    assert "objective.scope" in said
    assert "prediction" not in said


def test_a_plan_that_parts_a_routing_group_is_no_nested_plan(
    true_plan: Data, folder: Path
) -> None:
    """Law: what ``--routing-groups nest`` promises is counted from the slots."""
    found = refused(
        true_plan, folder, put("/inputs/options/values/routing_groups", "nest")
    )
    assert "--routing-groups nest allows one" in found


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("/inputs/topology/sha256", "0" * 64, "/inputs/topology"),
        ("/inputs/model/sha256", "0" * 64, "/inputs/model"),
        ("/inputs/traces/0/sha256", "0" * 64, "/inputs/traces/0"),
        ("/inputs/options/sha256", "0" * 64, "/inputs/options"),
        ("/inputs/options/values/seed", 1, "/inputs/options"),
        ("/inputs/model/path", "none.json", "none.json"),
        ("/inputs/traces/0/path", "none.parquet", "none.parquet"),
        ("/inputs/topology/name", "no-such-cluster", "/inputs/topology"),
        ("/homes", "by_weather", "by_weather"),
        ("/routing", "by_weather", "by_weather"),
        ("/layers/0/split", {"0": {"*": [1, -1]}}, "weights"),
    ],
)
def test_other_inputs_are_refused_not_found_false(
    true_plan: Data, folder: Path, path: str, value: object, where: str
) -> None:
    """Law: a wrong digest, a missing file or bad weights is invalid input."""
    data = deepcopy(true_plan)
    put(path, value)(data)
    with pytest.raises(ManifestError, match=where):
        verify_manifest(data, folder=folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_tokens", 0),
        ("batch_tokens", "many"),
        ("kv_tokens", -1),
        ("mem_fraction", 2.0),
        ("message_bytes", [1]),
        ("precision", "int3"),
        ("link_classes", 5),
        ("holdout", None),
        ("holdout", "2"),
        ("phase", 5),
    ],
)
def test_options_that_can_be_none_are_refused(
    true_plan: Data, folder: Path, name: str, value: object
) -> None:
    """Law: recorded options are read as strictly as the manifest."""
    data = deepcopy(true_plan)
    options = data["inputs"]["options"]
    options["values"][name] = value
    options["sha256"] = digest_of_json(options["values"])
    with pytest.raises(ManifestError, match="/inputs/options/values"):
        verify_manifest(data, folder=folder)


def test_a_trace_of_another_model_is_refused(true_plan: Data, tmp_path: Path) -> None:
    """The model's experts decide which slots are legal; the trace must agree."""
    data = valid_plan(tmp_path)
    model = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**model, "top_k": 3}))
    data["inputs"]["model"]["sha256"] = digest_of_file(tmp_path / "model.json")
    with pytest.raises(ManifestError, match="another model"):
        verify_manifest(data, folder=tmp_path)


def test_inputs_that_moved_are_read_where_told(true_plan: Data, tmp_path: Path) -> None:
    """``topology`` and ``trace`` name other places; digests still decide."""
    data = valid_plan(tmp_path)
    (tmp_path / "trace.parquet").rename(tmp_path / "moved.parquet")
    with pytest.raises(ManifestError, match=r"trace\.parquet"):
        verify_manifest(data, folder=tmp_path)
    moved = tmp_path / "moved.parquet"
    shipped = bundled.topology_path("toy-2x2")
    verify_manifest(data, folder=tmp_path, trace=moved, topology=shipped)
    with pytest.raises(ManifestError, match="made from"):
        verify_manifest(data, folder=tmp_path, trace=tmp_path / "model.json")


def test_inline_inputs_are_digested_as_canonical_json(
    true_plan: Data, folder: Path
) -> None:
    """Topology and model may be part of the manifest."""
    data = deepcopy(true_plan)
    topology = json.loads(bundled.topology_path("toy-2x2").read_text())
    model = json.loads((folder / "model.json").read_text())
    for name, content in (("topology", topology), ("model", model)):
        data["inputs"][name] = {
            "name": name,
            "content": content,
            "sha256": digest_of_json(content),
        }
    verify_manifest(data, folder=folder)
    data["inputs"]["model"]["content"]["hidden"] = 65
    with pytest.raises(ManifestError, match="/inputs/model"):
        verify_manifest(data, folder=folder)
