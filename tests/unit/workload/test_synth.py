"""The synthetic null: uniform, seeded, labelled."""

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from planner.errors import UsageError
from planner.workload.synth import UniformTrace, uniform_sets, write_uniform
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import load_trace


def test_every_set_of_experts_is_equally_likely() -> None:
    """All 20 sets of 3 of 6: chi-square with 19 degrees below its 99.9 % point."""
    sets = uniform_sets(np.random.default_rng(1), 40_000, 6, 3)
    counts = Counter(map(tuple, sets.tolist()))
    assert set(counts) == set(combinations(range(6), 3))
    expected = 40_000 / 20
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 43.8


def test_all_experts_may_be_chosen() -> None:
    """K = E leaves one set."""
    sets = uniform_sets(np.random.default_rng(0), 5, 4, 4)
    assert sets.tolist() == [[0, 1, 2, 3]] * 5


def uniform(**changes: object) -> UniformTrace:
    fields = {
        "tokens": 1000,
        "experts": 8,
        "top_k": 2,
        "layer_numbers": (1, 4),
        "sequences": 7,
        "seed": 3,
    }
    return UniformTrace(**(fields | changes))  # type: ignore[arg-type]


def test_a_synthetic_trace_is_labelled_and_read_like_any_other(tmp_path: Path) -> None:
    """Metadata says ``synthetic: uniform``; sequences are near-equal blocks."""
    path = tmp_path / "u.parquet"
    write_uniform(path, uniform())
    trace = load_trace(path)
    assert isinstance(trace, RoutingTrace)
    assert trace.metadata["synthetic"] == "uniform"
    assert trace.model == "synthetic: uniform"
    assert trace.layer_numbers == (1, 4)
    assert trace.experts_LTK.shape == (2, 1000, 2)
    lengths = np.bincount(trace.sequence_T)
    assert (lengths.size, int(lengths.min()), int(lengths.max())) == (7, 142, 143)
    assert trace.pos_T is not None
    assert int(trace.pos_T.max()) == 142
    assert not (trace.experts_LTK[0] == trace.experts_LTK[1]).all()
    stored = json.loads(pq.read_schema(path).metadata[b"moe_trace"])
    assert (stored["seed"], stored["tokens"]) == (3, 1000)


def test_the_seed_decides_the_bytes(tmp_path: Path) -> None:
    """Same fields, same file; another seed, another file."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_uniform(tmp_path / name, uniform(seed=seed))
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again
    assert first != other


def test_router_order_is_any_order_of_the_same_sets(tmp_path: Path) -> None:
    """Law: sets stay as they are, every expert is first equally often, all say so."""
    write_uniform(tmp_path / "sorted", uniform(layer_numbers=(1,)))
    write_uniform(tmp_path / "router", uniform(layer_numbers=(1,), order="router"))
    plain, turned = (load_trace(tmp_path / name) for name in ("sorted", "router"))
    assert isinstance(plain, RoutingTrace)
    assert isinstance(turned, RoutingTrace)
    assert turned.metadata["order"] == "router"
    assert (np.sort(turned.experts_LTK, axis=2) == plain.experts_LTK).all()
    first_E = np.bincount(turned.experts_LTK[0, :, 0], minlength=8)
    assert ((first_E - 125) ** 2 / 125).sum() < 24.3  # 7 degrees, 99.9 % point
    with pytest.raises(UsageError, match="--order best must be sorted or router"):
        uniform(order="best")


def test_sequences_default_to_256_tokens(tmp_path: Path) -> None:
    """1000 tokens make four sequences of 250."""
    write_uniform(tmp_path / "u.parquet", uniform(sequences=0))
    trace = load_trace(tmp_path / "u.parquet")
    assert isinstance(trace, RoutingTrace)
    assert np.bincount(trace.sequence_T).tolist() == [250] * 4


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"tokens": 0}, "--tokens"),
        ({"experts": 0}, "--experts"),
        ({"top_k": 9}, "--top-k"),
        ({"layer_numbers": ()}, "--layers"),
        ({"sequences": 1001}, "--sequences"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_impossible_shapes_are_usage_errors(
    change: dict[str, object], flag: str
) -> None:
    """The message names the flag."""
    with pytest.raises(UsageError, match=flag):
        uniform(**change)
