"""Synthetic traces of cases: same everywhere, and shaped as asked."""

from pathlib import Path

import numpy as np
import pytest

from planner.bench.case import SynthDocument
from planner.bench.synth import choices, write_synth
from planner.errors import InputError
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import load_trace

WANTED = SynthDocument(
    tokens=4000, experts=16, top_k=2, layers=2, tags=4, affinity=8, skew=3
)


def tags(wanted: SynthDocument) -> np.ndarray:
    """The kind of every token."""
    return np.arange(wanted.tokens) // wanted.sequence_tokens % wanted.tags


def test_the_first_choices_never_change() -> None:
    """Law: integers only; these ids are the same on every machine and release."""
    found = choices(WANTED, 0, tags(WANTED))[:6].tolist()
    assert found == FIRST


FIRST = [[13, 14], [0, 13], [0, 13], [4, 15], [0, 5], [13, 15]]


def test_choices_are_distinct_and_sorted() -> None:
    """Law: K distinct experts, ascending."""
    found = choices(WANTED, 1, tags(WANTED))
    assert found.shape == (4000, 2)
    assert (np.diff(found, axis=1) > 0).all()
    assert found.min() >= 0
    assert found.max() < 16


def test_seed_and_layer_change_the_choices() -> None:
    """Law: layers and seeds are different draws."""
    one = choices(WANTED, 0, tags(WANTED))
    seeded = WANTED.model_copy(update={"seed": 1})
    assert (choices(WANTED, 1, tags(WANTED)) != one).any()
    assert (choices(seeded, 0, tags(seeded)) != one).any()


def test_without_wishes_experts_are_chosen_alike() -> None:
    """Law: affinity 1 and skew 0 give equal weights: within 5 σ of T·K/E."""
    plain = SynthDocument(tokens=20_000, experts=10, top_k=1, layers=1)
    load_E = np.bincount(choices(plain, 0, tags(plain)).ravel(), minlength=10)
    assert np.abs(load_E - 2000).max() < 5 * np.sqrt(2000 * 0.9)


def test_a_kind_prefers_its_share() -> None:
    """Law: with affinity 8 to 1 over a quarter, most choices are the kind's own."""
    tag_T = tags(WANTED)
    found = choices(WANTED.model_copy(update={"skew": 0}), 0, tag_T)
    by_kind = [set(range(16)) for _ in range(4)]
    for tag in range(4):
        load_E = np.bincount(found[tag_T == tag].ravel(), minlength=16)
        by_kind[tag] = set(np.argsort(-load_E)[:4].tolist())
        assert load_E[list(by_kind[tag])].sum() > 0.6 * load_E.sum()
    assert sorted(e for kind in by_kind for e in kind) == list(range(16))


def test_with_affinity_zero_kinds_do_not_mix() -> None:
    """Law: a planted partition: every expert serves one kind."""
    pure = WANTED.model_copy(update={"affinity": 0})
    tag_T, found = tags(pure), choices(pure, 0, tags(pure))
    users = [set(tag_T[(found == expert).any(axis=1)]) for expert in range(16)]
    assert all(len(kinds) == 1 for kinds in users)


def test_too_few_experts_for_a_kind_are_refused() -> None:
    """Law: the message names the way out."""
    wanted = SynthDocument(tokens=10, experts=4, top_k=2, layers=1, tags=4, affinity=0)
    with pytest.raises(InputError, match="lower tags or top_k"):
        choices(wanted, 0, tags(wanted))


def test_the_file_is_a_trace_with_homes(tmp_path: Path) -> None:
    """Law: the trace reader takes it, ranks follow the kinds."""
    wanted = WANTED.model_copy(update={"ranks": 8})
    write_synth(tmp_path / "t.parquet", wanted)
    trace = load_trace(tmp_path / "t.parquet")
    assert isinstance(trace, RoutingTrace)
    assert (trace.num_experts, trace.top_k, trace.layer_numbers) == (16, 2, (0, 1))
    assert trace.rank_T is not None
    for tag in range(4):
        homes = set(trace.rank_T[tags(wanted) == tag].tolist())
        assert homes == {2 * tag, 2 * tag + 1}


def test_the_best_expert_comes_first_where_the_order_is_kept(tmp_path: Path) -> None:
    """Law: order ``router`` holds the same sets, and the trace says so."""
    kept = WANTED.model_copy(update={"order": "router"})
    found = choices(kept, 0, tags(kept))
    assert (np.diff(found, axis=1) < 0).any()
    assert (np.sort(found, axis=1) == choices(WANTED, 0, tags(WANTED))).all()
    write_synth(tmp_path / "kept.parquet", kept)
    read = load_trace(tmp_path / "kept.parquet")
    assert isinstance(read, RoutingTrace)
    assert read.order == "router"
