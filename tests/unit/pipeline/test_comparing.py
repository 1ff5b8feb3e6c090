"""``planner replay --selections``: one plan under several selections."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner import bundled, pipeline
from planner.cli import plans
from planner.errors import ReplayMismatch, UsageError
from planner.manifest import read_manifest, write_manifest
from planner.options import SolveOptions
from planner.pipeline.predicted import count_part
from planner.verifier import settings_of
from planner.verifier.traffic import count_again
from planner.workload.parts import TokenPart
from planner.workload.split import split_parts
from planner.workload.trace import load_trace

SELECTIONS = ("nearest", "even", "weighted")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of the bundled model with copies, made for ``even``."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    options = SolveOptions(
        strategy="eplb_global", redundant="8", selection="even", traffic="dedup_domain"
    )
    write_manifest(pipeline.solve("toy-2x2", options=options), path)
    return path


def test_every_row_is_what_the_verifier_counts(plan: Path) -> None:
    """Law: under each selection, transfers and loads are the witness's."""
    report = pipeline.compare_selections(plan, SELECTIONS, part="holdout")
    manifest = read_manifest(plan)
    assert [row.selection for row in report.rows] == list(SELECTIONS)
    assert [row.predicted for row in report.rows] == [False, True, False]
    assert len({row.transfers for row in report.rows}) == 3
    for row in report.rows:
        other = manifest.model_copy(update={"selection": row.selection})
        (setting,) = settings_of(manifest, plan.parent)
        setting = replace(setting, manifest=other)
        part = setting.parts.holdout
        assert isinstance(part, TokenPart)
        counted = count_again(setting, part)
        legs = [leg for found in counted for leg in (found.transfers, found.combine)]
        between = sum(leg.between(setting.layout.domain_G) for leg in legs)
        assert row.transfers == sum(leg.total for leg in legs)
        assert row.between_domains == between
        assert row.between_domains_share == between / row.transfers
        ratios = [found.pairs_G.max() / found.pairs_G.mean() for found in counted]
        assert row.gpu_load_mean == pytest.approx(np.mean(ratios))
        assert row.gpu_load_worst == pytest.approx(max(ratios))


def test_the_plans_own_row_has_the_plans_figures(plan: Path) -> None:
    """Law: under its selection the values are those the manifest reports."""
    (row,) = pipeline.compare_selections(plan, ["even"], part="planning").rows
    objective = read_manifest(plan).objective
    assert objective.name == "link_time"
    assert row.link_time_s == pytest.approx(objective.value, rel=1e-12)


def test_another_prediction_is_a_mismatch(plan: Path, tmp_path: Path) -> None:
    """Law: the plan's own selection must come out as it was predicted."""
    data = json.loads(plan.read_text(encoding="utf-8"))
    data["prediction"]["layers"][1]["links_sha256"] = "0" * 64
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(data), encoding="utf-8")
    number = data["prediction"]["layers"][1]["layer"]
    with pytest.raises(ReplayMismatch, match=f"planning part, layer {number}:"):
        pipeline.compare_selections(wrong, ["nearest", "even"])
    assert pipeline.compare_selections(wrong, ["nearest"]).rows


@pytest.mark.parametrize(
    ("selections", "part"), [(["odd"], "both"), ([], "both"), (["even"], "all")]
)
def test_words_that_do_not_exist_are_refused(
    plan: Path, selections: list[str], part: str
) -> None:
    """Law: one clear error, nothing counted."""
    with pytest.raises(UsageError, match=r"choose from|name some"):
        pipeline.compare_selections(plan, selections, part=part)


def test_the_table_shows_every_selection_once(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law: a row per part and selection; repetitions are dropped; notes below."""
    plans.replay(plan, part="holdout", selections="nearest, even,nearest")
    shown = capsys.readouterr().out
    assert shown.count("nearest") == shown.count("holdout") - 1 == 1
    assert "cross-domain" in shown
    assert "the plan is made for even, whose counts" in shown


def test_the_json_has_the_same_rows(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law: what is printed for people is there for programs."""
    plans.replay(plan, part="planning", selections="weighted", output_format="json")
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["selection"] == "weighted"
    assert 0 < row["between_domains_share"] < 1


@pytest.mark.parametrize("words", [{"executor": "local"}, {"gating": "real"}])
def test_tensors_are_not_compared(plan: Path, words: dict[str, str]) -> None:
    """Law: an option that would be ignored is refused."""
    with pytest.raises(UsageError, match="without tensors"):
        plans.replay(plan, selections="even", **words)


def test_single_copies_have_nothing_to_select(tmp_path: Path) -> None:
    """Law: with one copy of each expert all selections are one, and it says so."""
    path = tmp_path / "plan.json"
    options = SolveOptions(strategy="round_robin", redundant="0")
    write_manifest(pipeline.solve("toy-2x2", options=options), path)
    report = pipeline.compare_selections(path, SELECTIONS, part="planning")
    assert len({(row.transfers, row.link_time_s) for row in report.rows}) == 1
    assert report.notes == ("every expert has one copy: selections cannot differ",)


def test_a_trace_that_streams_counts_as_one_that_is_read(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: in chunks, homes and ordinals are those of the whole file."""
    monkeypatch.setattr("planner.workload.parquet.BATCH_ROWS", 1000)
    path = bundled.traces()["tiny-moe"]
    report = pipeline.compare_selections(plan, SELECTIONS, trace=path)
    (setting,) = settings_of(read_manifest(plan), plan.parent)
    whole, none, _ = split_parts(load_trace(path), setting.layout, None, "0", None)
    assert isinstance(whole, TokenPart)
    assert none is None
    for row in report.rows:
        counted = count_part(setting, whole, row.selection).layers
        legs = [leg for found in counted for leg in (found.transfers, found.combine)]
        assert row.tokens == whole.token_count > 1000
        assert row.transfers == sum(leg.total for leg in legs)
        assert row.between_domains == sum(
            leg.between(setting.layout.domain_G) for leg in legs
        )
        assert not row.predicted
    assert "its prediction is of its own trace" in report.notes[0]


def test_a_part_is_of_the_plans_trace(plan: Path) -> None:
    """Law: another trace has no parts, and without selections nothing to compare."""
    path = bundled.traces()["tiny-moe"]
    with pytest.raises(UsageError, match="--part"):
        pipeline.compare_selections(plan, ["even"], part="holdout", trace=path)
    with pytest.raises(UsageError, match="add --selections"):
        plans.replay(plan, trace=path)
