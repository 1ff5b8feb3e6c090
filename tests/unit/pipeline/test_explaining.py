"""A manifest is reopened as the problem it was made from, and explained."""

from pathlib import Path

import pytest

import planner
from planner.errors import ManifestError, UsageError
from planner.manifest import Manifest, write_manifest
from planner.options import SolveOptions
from planner.pipeline import explain, plain
from planner.pipeline.reopening import reopen
from planner.pipeline.sources import find_trace

COUNTS = {"layers": [0], "top_k": 1, "tokens": [[40, 10, 30]]}
THREE = {
    "schema": "moe-model/1",
    "name": "three",
    "layers": 1,
    "moe_layers": [0],
    "experts": 3,
    "top_k": 1,
    "hidden": 64,
    "expert_ffn": 32,
    "shared_ffn": 0,
    "dense_ffn": 0,
    "ffn_matrices": 3,
    "attention": {"heads": 1, "kv_heads": 1, "head_dim": 64},
    "vocab": 100,
}
ONE_OVER = SolveOptions(
    objective="gpu_tokens", selection="even", redundant="1", time_limit=5
)


def planned(folder: Path, **given: object) -> tuple[Path, Manifest]:
    """Solve and write; the manifest's paths are relative to the folder."""
    given.setdefault("topology", "toy-2x2")
    manifest = planner.solve(base=folder, **given)  # type: ignore[arg-type]
    path = folder / "plan.json"
    write_manifest(manifest, path)
    return path, manifest


def test_the_largest_expert_is_why_nothing_is_better(tmp_path: Path) -> None:
    """Loads 40, 10, 30 on four slots: 30 is proven; the copy of 40 makes it 20."""
    path, manifest = planned(tmp_path, model=THREE, trace=COUNTS, options=ONE_OVER)
    report = explain(path)
    (layer,) = report.workloads[0].layers
    assert (report.value, layer.bound) == (30.0, 30.0)
    assert layer.peaks[0].link_class == "gpu"
    nothing = report.relaxations[0]
    assert (nothing.kind, nothing.most, nothing.bound_by) == (
        "nothing",
        0.0,
        "certificate",
    )
    # With eight slots no plan is below the mean of 80 pairs on four GPUs.
    (slots,) = [each for each in report.relaxations if each.kind == "slots"]
    assert slots.bound == 20.0
    assert slots.most == pytest.approx(1 / 3)
    assert report.value == manifest.objective.value


def test_layers_add_up_to_the_plan_of_several_workloads(tmp_path: Path) -> None:
    """Law: every workload's layers add up to its own value in the manifest."""
    both = ("tiny-moe:3::prefill", "tiny-moe:1::decode")
    options = SolveOptions(strategy="eplb_global", time_limit=1)
    path, manifest = planned(tmp_path, trace=both, options=options)
    report = explain(path)
    assert report.value == manifest.objective.value
    for found in report.workloads:
        total = sum(layer.value for layer in found.layers)
        assert total == pytest.approx(manifest.workloads[found.name].objective)
    assert plain(report)["relaxations"][0]["what"] == "nothing relaxed"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"traffic": "copies", "mem_fraction": 0.5, "selection": "weighted"},
        {"imbalance_cap": "9", "link_classes": ("ib:nic>switch0",)},
        {"message_bytes": (100, 200), "redundant": "4", "layout": "tp=2"},
    ],
    ids=str,
)
def test_a_plan_reopens_as_it_was(changes: dict[str, object], tmp_path: Path) -> None:
    """Law: the options in force are the same, and so is the instance's memory."""
    options = SolveOptions(strategy="contiguous", time_limit=1, **changes)  # type: ignore[arg-type]
    path, manifest = planned(tmp_path, options=options)
    opened = reopen(path)
    values = opened.problem.option_values
    recorded = manifest.inputs.options.values
    assert {**values, "threads": 0} == {**recorded, "threads": 0}
    limits = [gpu.memory_bytes for gpu in manifest.prediction.gpus]
    assert opened.problem.instance.memory_bytes_G.tolist() == limits


def test_a_changed_input_is_refused(tmp_path: Path) -> None:
    """Law: what is explained is what was planned."""
    options = SolveOptions(strategy="contiguous", time_limit=1)
    path, _ = planned(tmp_path, options=options)
    text = path.read_text()
    path.write_text(text.replace('"selection": "nearest"', '"selection": "even"', 1))
    with pytest.raises(ManifestError, match="the plan was made from"):
        explain(path)


@pytest.mark.parametrize(
    "given", [{"by": 0.0}, {"cap_step": -1.0}, {"resolve": float("inf")}], ids=str
)
def test_steps_that_ease_nothing_are_usage_errors(given: dict[str, float]) -> None:
    """Each names its flag."""
    flag = next(iter(given)).replace("_", "-")
    with pytest.raises(UsageError, match=f"--{flag}"):
        explain("nowhere.json", **given)


def test_settings_follow_the_name_of_a_workload(tmp_path: Path) -> None:
    """FILE#WORKLOAD:WEIGHT:MODE:PHASE, as the help says."""
    file = tmp_path / "counts.parquet"
    file.touch()
    found = find_trace(f"{file}#chat:2:copies:decode")
    assert (found.path, found.workload) == (file, "chat")
    assert (found.weight, found.traffic, found.phase) == (2, "copies", "decode")
