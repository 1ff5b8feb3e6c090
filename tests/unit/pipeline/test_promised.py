"""Memory that was measured, held against what a plan promises."""

from pathlib import Path
from typing import Any

import pytest

import planner
from planner.errors import ReplayMismatch
from planner.manifest import Manifest, write_manifest
from planner.options import SolveOptions
from planner.pipeline import promised
from planner.pipeline.promised import HeldTerm
from planner.workload.presets import load_model


@pytest.fixture(scope="module")
def path(tmp_path_factory: Any) -> Path:
    """A short plan of the bundled model with 17 slots per GPU, on disk."""
    options = SolveOptions(redundant="4", time_limit=1.0)
    plan: Manifest = planner.solve("toy-2x2", options=options)
    found: Path = tmp_path_factory.mktemp("plan") / "plan.json"
    write_manifest(plan, found)
    return found


def test_what_is_above_the_promise_is_named() -> None:
    """Law: GPU, term, both figures; what fits says nothing."""
    term = HeldTerm(term="experts", measured=(5, 7_000, 6), promised=6)
    assert term.findings == ["GPU 1: experts hold 7,000 B, the plan promises 6 B"]
    loose = HeldTerm(term="buffers", measured=(7,), promised=6, binding=False)
    assert loose.findings == []


@pytest.mark.torch
def test_tensors_hold_what_is_promised(path: Path) -> None:
    """By hand: 6 layers of 17 slots of 3 x 96 x 24 values; all other terms equal."""
    pytest.importorskip("torch")
    report = planner.replay(path, part="holdout", executor="local")
    terms = {term.term: term for term in report.parts[0].memory}
    buffers = terms.pop("buffers")
    assert len(buffers.measured) == 4
    assert 0 < max(buffers.measured) < buffers.promised
    assert len(terms) == 8
    assert terms["experts"].measured == (6 * 17 * 3 * 96 * 24 * 4,) * 4
    for term in terms.values():
        assert set(term.measured) == {term.promised}


@pytest.mark.torch
def test_a_promise_made_too_small_ends_the_replay(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: a term above its promise is a mismatch."""
    pytest.importorskip("torch")
    monkeypatch.setattr(promised, "router_bytes", lambda model: 1000)
    with pytest.raises(ReplayMismatch, match="router hold 148,992 B"):
        planner.replay(path, part="holdout", executor="local")


def test_the_counter_measures_nothing(path: Path) -> None:
    """Law: without tensors there is no memory to compare."""
    report = planner.replay(path, part="holdout", executor="counter")
    assert report.parts[0].memory == ()


@pytest.mark.torch
def test_a_plan_for_another_model_is_compared_by_slots_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: the tensors of one model are not held against the plan of another."""
    pytest.importorskip("torch")
    other = load_model("mixtral-8x7b")
    monkeypatch.setattr(promised, "load_model", lambda name: other)
    report = planner.replay(path, part="holdout", executor="local")
    assert [term.term for term in report.parts[0].memory] == ["experts", "buffers"]
