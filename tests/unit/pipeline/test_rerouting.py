"""Choices changed on purpose, from the facade: what moves, what is reported."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planner
from planner import bundled
from planner.errors import ReplayMismatch, UsageError
from planner.executor.gating.capacity import capacity
from planner.manifest import Manifest, write_manifest
from planner.options import SolveOptions
from planner.pipeline import replaying
from planner.pipeline.rerouting import Change
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import load_trace


@pytest.fixture(scope="module", params=["copies", "direct"])
def path(request: Any, tmp_path_factory: Any) -> Path:
    """A short plan of the bundled model, on disk."""
    options = SolveOptions(
        traffic=request.param, redundant="0", time_limit=1.0, strategy="auto"
    )
    plan: Manifest = planner.solve("toy-2x2", options=options)
    found: Path = tmp_path_factory.mktemp("plan") / "plan.json"
    write_manifest(plan, found)
    return found


def test_nothing_is_changed_unless_asked(path: Path) -> None:
    """Law: both options are off by default."""
    report = planner.replay(path, executor="counter", part="planning")
    assert report.change is None
    assert report.parts[0].rerouted is None
    assert Change.of(None, None) is None


def test_capacity_drops_and_says_how_much(path: Path) -> None:
    """Law: dropped pairs are those above the capacity of each run of tokens.

    Recounted here from the trace, layer by layer and run by run.
    """
    report = planner.replay(
        path, executor="counter", part="planning", capacity_factor=1.1
    )
    found = report.parts[0].rerouted
    assert found is not None
    trace = load_trace(bundled.tiny_moe_trace())
    assert isinstance(trace, RoutingTrace)
    held = report.parts[0].tokens
    parts = replaying.settings_of(replaying.read_manifest(path), path.parent)[0].parts
    rows = parts.planning.row_T  # type: ignore[union-attr]
    assert rows.size == held
    over = 0
    for ids_TK in trace.experts_LTK[:, rows]:
        for start in range(0, held, 4096):
            load = np.bincount(ids_TK[start : start + 4096].ravel(), minlength=64)
            over += np.maximum(load - capacity(1.1, int(load.sum()), 64), 0).sum()
    assert found.dropped.pairs == over > 0
    assert found.dropped.all_pairs == held * 6 * 6
    assert found.choices_kept == pytest.approx(1 - over / found.dropped.all_pairs)
    assert max(found.after.expert_max_over_mean) < max(
        found.before.expert_max_over_mean
    )
    assert found.outputs is None


def test_a_wide_capacity_changes_nothing(path: Path) -> None:
    """Law: with room for all the replay is that of the plan."""
    plain = planner.replay(path, executor="counter", part="holdout")
    wide = planner.replay(path, executor="counter", part="holdout", capacity_factor=64)
    found = wide.parts[0].rerouted
    assert found is not None
    assert found.dropped.pairs == 0
    assert found.before == found.after
    assert wide.parts[0].transfers == plain.parts[0].transfers


@pytest.mark.torch
def test_balanced_routing_moves_as_predicted_again(path: Path) -> None:
    """Law: loads fall, outputs change a little, and every count is the new one."""
    pytest.importorskip("torch")
    report = planner.replay(
        path, executor="local", part="planning", balance="steps=9,step=0.1,window=3"
    )
    assert len(report.worst_by_step) == 9
    assert report.worst_by_step[-1] < report.worst_by_step[0]
    part = report.parts[0]
    assert part.rerouted is not None
    assert part.rerouted.outputs is not None
    before, after = part.rerouted.before, part.rerouted.after
    assert max(after.expert_max_over_mean) < max(before.expert_max_over_mean) - 0.2
    assert 0.8 < part.rerouted.choices_kept < 1
    assert 0 < part.rerouted.outputs.kl < 0.05
    assert part.rerouted.dropped.pairs == 0
    assert part.ids_agreeing is not None
    assert part.ids_agreeing > 0.9999


def test_counts_of_the_old_choices_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: what moved is held against the prediction of the new choices."""
    honest = replaying.predicted_again

    def stale(setting: Any, part: Any, rerouting: Any) -> Any:
        old = type(rerouting)(wanted_LTK=part.experts_LTK, kept_LTK=part.experts_LTK)
        return honest(setting, part, old)

    monkeypatch.setattr(replaying, "predicted_again", stale)
    with pytest.raises(ReplayMismatch):
        planner.replay(path, executor="counter", part="holdout", capacity_factor=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": "default", "executor": "counter"}, "needs --gating real"),
        ({"balance": "default", "gating": "forced"}, "needs --gating real"),
        ({"balance": "step=x"}, "must be a number"),
        ({"capacity_factor": -1.0}, "must be finite and > 0"),
    ],
)
def test_what_cannot_be_changed_is_refused(
    path: Path, options: dict[str, Any], message: str
) -> None:
    """Law: a trace's choices have no biases; options are checked before anything."""
    with pytest.raises(UsageError, match=message):
        planner.replay(path, part="planning", **options)
