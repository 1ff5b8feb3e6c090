"""Synthetic routing shaped as a known model's: calibrated, seeded, labelled."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.synth_calibration import drawn, figures
from planner.errors import UsageError
from planner.workload.presets import known_fits, load_model
from planner.workload.synth import (
    PRESETS,
    CalibratedTrace,
    write_calibrated,
)
from planner.workload.synth.load import Choice, draw_target, fit_bias, load_under
from planner.workload.synth.router import choose

# What recorded traces and counts show (docs/traces.md), and how far a draw may be off.
MEASURED: dict[str, dict[str, tuple[float, float]]] = {
    "v2lite": {
        "load max/mean": (2.8, 0.5),
        "load deviation/mean": (0.51, 0.06),
        "load max/mean of one tag": (4.1, 0.6),
        "load correlation of tags": (0.15, 0.15),
        "load correlation of halves": (0.98, 0.05),
        "pair lift, 99th percentile": (5.0, 0.8),
        "next layer's experts recalled": (0.50, 0.1),
        "the same from popularity": (0.20, 0.03),
        "experts kept from token to token": (0.27, 0.05),
        "the same of any two tokens": (0.12, 0.015),
    },
    "dsv3": {
        "load max/mean": (5.8, 1.5),
        "load deviation/mean": (0.8, 0.12),
    },
    "mixtral": {
        "load max/mean": (1.2, 0.1),
        "load deviation/mean": (0.1, 0.05),
        "pair lift, 99th percentile": (1.0, 0.2),
    },
    "uniform": {
        "load max/mean": (1.0, 0.15),
        "pair lift, 99th percentile": (1.0, 0.3),
        "load correlation of halves": (0.0, 0.15),
        "next layer's experts recalled": (0.094, 0.01),
    },
}


@pytest.mark.parametrize("kind", sorted(MEASURED))
def test_figures_come_near_those_of_recorded_routing(kind: str, tmp_path: Path) -> None:
    """Skew, co-activation, persistence and what one half says of the other."""
    tokens = 2500 if kind == "dsv3" else 12_000
    found = figures(drawn(kind, tmp_path, tokens, 1))
    for name, (wanted, slack) in MEASURED[kind].items():
        assert abs(found[name] - wanted) <= slack, (name, found[name], wanted)


def test_group_limited_tokens_touch_at_most_the_kept_groups(tmp_path: Path) -> None:
    """Under dsv3 the eight experts of a token lie in at most 4 groups of 32."""
    trace = drawn("dsv3", tmp_path, 300, 0)
    groups = np.sort(trace.experts_LTK // 32, axis=2)
    touched = 1 + (np.diff(groups, axis=2) != 0).sum(axis=2)
    assert (int(touched.max()), trace.experts_LTK.shape) == (4, (58, 300, 8))
    assert len(set(trace.experts_LTK[0, 0].tolist())) == 8


def test_choices_are_those_of_sorting_within_the_best_groups() -> None:
    """Naively: two best per group, best groups, best experts of those."""
    rng = np.random.default_rng(5)
    scores = rng.standard_normal((40, 12)).astype(np.float32)
    bias = rng.standard_normal(12).astype(np.float32)
    chosen = choose(scores, bias, top_k=3, groups=4, kept=2)
    for row, picked in zip(scores + bias, chosen, strict=True):
        sums = [np.sort(row[g * 3 : g * 3 + 3])[-2:].sum() for g in range(4)]
        kept = np.argsort(sums)[-2:]
        open_ids = [e for e in range(12) if e // 3 in kept]
        best = sorted(open_ids, key=lambda e: -row[e])[:3]
        assert picked.tolist() == best


@pytest.mark.parametrize("groups", [1, 8])
def test_the_bias_brings_loads_to_the_target(groups: int) -> None:
    """Shares wanted and got correlate, with group-limited choice too."""
    rng = np.random.default_rng(2)
    choice = Choice(experts=64, top_k=6, groups=groups, kept=max(1, groups // 2))
    target = draw_target(rng, PRESETS["dsv3"].load, choice)
    scores = rng.standard_normal((6000, 64)).astype(np.float32)
    load = load_under(scores, fit_bias(scores, target, choice), choice)
    assert np.corrcoef(load, target)[0, 1] > 0.97
    assert int(load.sum()) == 6000 * 6


def test_no_target_asks_for_more_than_every_token() -> None:
    """A token cannot choose an expert twice: shares stay at or below about 1/K."""
    choice = Choice(experts=8, top_k=4)
    load = PRESETS["dsv3"].load
    for seed in range(20):
        share = draw_target(np.random.default_rng(seed), load, choice)
        assert share.sum() == pytest.approx(1)
        assert share.max() <= 1 / 4 + 1e-9


@pytest.mark.parametrize("kind", sorted(PRESETS))
def test_a_drawn_trace_fits_its_model_and_says_it_is_synthetic(
    kind: str, tmp_path: Path
) -> None:
    """Layers, experts and top-k are the model's; tags and order are recorded."""
    trace = drawn(kind, tmp_path, 600, 3)
    model = load_model(PRESETS[kind].model)
    assert model.name in known_fits(trace)
    assert trace.metadata["synthetic"] == kind
    assert trace.order == "router"
    assert trace.tags == ("topic0", "topic1", "topic2")
    assert trace.sequence_count == 3


def test_the_seed_decides_the_bytes(tmp_path: Path) -> None:
    """Same fields, same file; another seed, another file."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        wanted = CalibratedTrace(preset="mixtral", tokens=500, seed=seed)
        write_calibrated(tmp_path / name, wanted)
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"preset": "zipf"}, "KIND"),
        ({"tokens": 0}, "--tokens"),
        ({"sequences": 11}, "--sequences"),
        ({"tags": 0}, "--tags"),
        ({"seed": -1}, "--seed"),
        ({"phase": "draft"}, "--phase"),
    ],
)
def test_impossible_requests_are_usage_errors(
    change: dict[str, object], flag: str
) -> None:
    """The message names the flag."""
    fields: dict[str, object] = {"preset": "v2lite", "tokens": 10} | change
    with pytest.raises(UsageError, match=flag):
        CalibratedTrace(**fields)  # type: ignore[arg-type]
