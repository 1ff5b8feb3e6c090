"""The whole line on the bundled model: plan, verify, replay, tamper, export.

The manifest's prediction is the evaluator's, ``verify`` counts by the witness, and
``replay`` by the counter or by moving tensors: where all of them pass, the four agree
on every ordered GPU pair and every link numerator, through digests of all of them.
"""

import json
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest

import planner
from planner.errors import ReplayMismatch, VerificationError
from planner.manifest import Manifest, manifest_data, write_manifest
from planner.options import SolveOptions
from planner.pipeline import export

MODES = ("copies", "dedup_gpu", "dedup_domain")
SELECTIONS = ("nearest", "even", "weighted")
EXECUTOR = "local" if find_spec("torch") else "counter"


def planned(
    folder: Path, topology: str, strategy: str = "eplb_global", **options: object
) -> tuple[Manifest, Path]:
    manifest = planner.solve(
        topology,
        options=SolveOptions(strategy=strategy, **options),  # type: ignore[arg-type]
        base=folder,
    )
    path = folder / "plan.json"
    write_manifest(manifest, path)
    return manifest, path


@pytest.mark.parametrize(("traffic", "selection"), list(product(MODES, SELECTIONS)))
def test_evaluator_verifier_and_counter_agree(
    traffic: str, selection: str, tmp_path: Path
) -> None:
    """Every mode × selection, with redundant experts, on both bundled clusters."""
    for topology, extra in (("toy-2x2", "8"), ("h100-4x8-rail", "32")):
        manifest, path = planned(
            tmp_path, topology, traffic=traffic, selection=selection, redundant=extra
        )
        assert manifest.traffic == traffic
        assert planner.verify(path).comparisons > 500
        report = planner.replay(path, executor="counter", gating="forced")
        assert [part.part for part in report.parts] == ["planning", "holdout"]
        assert all(part.transfers > 0 for part in report.parts)


def test_tensors_moved_by_the_models_own_router_agree(tmp_path: Path) -> None:
    """Real gating on held-out text: same counts, outputs as the unsharded model's."""
    pytest.importorskip("torch")
    _, path = planned(tmp_path, "toy-2x2", redundant="8")
    report = planner.replay(path, part="holdout", executor="local", gating="real")
    (part,) = report.parts
    assert part.max_relative_error is not None
    assert part.max_relative_error <= 1e-5
    assert part.ids_agreeing == 1.0


@pytest.mark.parametrize("fault", ["swapped", "replaced"])
def test_one_slot_changed_is_caught_by_both_witnesses(
    fault: str, tmp_path: Path
) -> None:
    """Exit code 6 from verify and from replay."""
    manifest, path = planned(tmp_path, "toy-2x2", redundant="8")
    data = manifest_data(manifest)
    slots = data["layers"][2]["slots"]
    one = next(e for e in slots[0] if e not in slots[1])
    other = next(e for e in slots[1] if e not in slots[0])
    if fault == "swapped":
        slots[1][slots[1].index(other)] = one
    slots[0][slots[0].index(one)] = other
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(VerificationError) as verified:
        planner.verify(path)
    with pytest.raises(VerificationError) as replayed:
        planner.replay(path, executor="counter", gating="forced")
    assert verified.value.exit_code == replayed.value.exit_code == 6


def test_a_prediction_of_other_traffic_is_a_replay_mismatch(tmp_path: Path) -> None:
    """The slots are legal, one layer's digest is another's: replay says which."""
    manifest, path = planned(tmp_path, "toy-2x2")
    data = manifest_data(manifest)
    layers = data["prediction"]["layers"]
    layers[0]["links_sha256"] = layers[1]["links_sha256"]
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ReplayMismatch, match="planning part, layer 1: link loads"):
        planner.replay(path, part="planning", executor="counter", gating="forced")


def test_auto_is_never_worse_than_a_baseline_on_the_planning_part(
    tmp_path: Path,
) -> None:
    """The law of the portfolio, and a winner that is not a baseline."""
    manifest, _ = planned(
        tmp_path, "h100-4x8-rail", "auto", time_limit=6.0, redundant="0"
    )
    for name, baseline in manifest.baselines.items():
        if baseline.objective is not None and not baseline.notes:
            assert manifest.objective.value <= baseline.objective.value, name
    searched = manifest.provenance.layer_strategies.count("search")
    assert searched >= len(manifest.layers) / 2


def test_export_writes_a_file_and_its_launch_flags(tmp_path: Path) -> None:
    """SGLang: one key, all hidden layers, P ids each."""
    manifest, path = planned(tmp_path, "h100-4x8-rail", redundant="32")
    result = export(path, engine="sglang", output=tmp_path / "sglang")
    data = json.loads(result.files[0].read_text(encoding="utf-8"))
    assert list(data) == ["physical_to_logical_map"]
    assert len(data["physical_to_logical_map"]) == 7
    flat = [expert for row in manifest.layers[0].slots for expert in row]
    assert data["physical_to_logical_map"][1] == flat
    assert "--init-expert-location" in result.launch_flags
