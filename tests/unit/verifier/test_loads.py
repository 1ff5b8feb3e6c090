"""Certificates of the loads of GPUs against every placement, one by one."""

import itertools
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import ManifestError
from planner.evaluator import evaluate
from planner.instance import PlacementInstance
from planner.pipeline.certifying import evidence
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.verifier.certificates import proven
from planner.workload.parts import CountsPart
from tests import instances
from tests.unit.strategies.balance.enumeration import least_load


def random_instance(seed: int, *, slots: int) -> PlacementInstance:
    """Return 4 experts on 3 GPUs, counts, ``even``, ``gpu_tokens``."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 60, (1, 4)).tolist()
    experts = 4 if slots > 1 else 3
    return instances.instance(
        [1, 1, 1],
        experts=experts,
        slots=slots,
        traffic="copies",
        selection="even",
        objective="gpu_tokens",
        counts=[row[:experts] for row in counts],
    )


def optimum(instance: PlacementInstance) -> Fraction:
    """Return the least value over all legal placements, one by one."""
    experts, gpus = instance.model.experts, instance.layout.gpu_count
    rows = list(itertools.combinations(range(experts), instance.slots_per_gpu))
    best = None
    for chosen in itertools.product(rows, repeat=gpus):
        if len({expert for row in chosen for expert in row}) < experts:
            continue
        plan = PlacementPlan(
            layer_numbers=instance.model.moe_layers,
            slots_LGJ=np.asarray([chosen], dtype=np.int16),
        )
        value = evaluate(instance, plan, instance.planning).value
        best = value if best is None or value < best else best
    assert best is not None
    return best


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_what_balance_proves_is_proven_again_and_true(seed: int, slots: int) -> None:
    """Law: the checker proves the strategy's bound; no placement is below it."""
    instance = random_instance(seed, slots=slots)
    result = STRATEGIES.get("balance")(instance, Limits(seconds=5, threads=1))
    assert result.bound is not None
    layer = result.bound.layers[0]
    assert layer.certificate is not None
    found = proven(layer.certificate, evidence(instance, 0))
    assert float(found) == pytest.approx(layer.value, rel=1e-12)
    assert found <= optimum(instance)


@pytest.mark.parametrize("seed", range(6))
def test_a_level_above_the_optimum_is_not_proven(seed: int) -> None:
    """Law: neither kind proves more than is true, whatever its numbers."""
    instance = random_instance(seed, slots=2)
    best = optimum(instance)
    rng = np.random.default_rng(seed)
    level = best * Fraction(101, 100)
    count = {"kind": "count", "level": str(level)}
    assert proven(count, evidence(instance, 0)) in (0, level)
    assert proven(count, evidence(instance, 0)) <= best
    for _ in range(20):
        s = level * Fraction(int(rng.integers(0, 50)), 101)
        certificate: dict[str, Any] = {
            "kind": "threshold",
            "level": str(level),
            "rows": {str(s): str(int(rng.integers(0, 9)))},
            "copies": str(Fraction(int(rng.integers(-20, 20)), 7)),
        }
        assert proven(certificate, evidence(instance, 0)) == 0


def test_certificates_for_other_questions_prove_nothing() -> None:
    """Law: two slots, even shares and GPU loads are conditions, not decoration."""
    two = random_instance(1, slots=2)
    result = STRATEGIES.get("balance")(two, Limits(seconds=5, threads=1))
    assert result.bound is not None
    weak: dict[str, Any] = {
        "level": "1/1",
        "rows": {},
        "copies": "0/1",
        "grid": 8,
        "steps": {"0": 1},
    }
    one = random_instance(1, slots=1)
    assert proven({**weak, "kind": "threshold"}, evidence(one, 0)) == 0
    links = instances.instance([1, 1], experts=4, slots=2, traffic="copies")
    for kind in ("count", "mean_pairs", "threshold", "patterns"):
        certificate = {**weak, "kind": kind}
        assert proven(certificate, evidence(links, 0)) == 0
    with pytest.raises(ManifestError, match="threshold"):
        proven({"kind": "threshold", "level": "high"}, evidence(two, 0))


def crowded(seed: int, *, slots: int) -> PlacementInstance:
    """Return three GPUs of three or four slots and as many heavy experts, and more."""
    rng = np.random.default_rng(seed)
    heavy, light = rng.integers(30, 60, 4), rng.integers(1, 8, 3 * slots - 5)
    return instances.instance(
        [1, 1, 1],
        experts=3 * slots - 1,
        slots=slots,
        traffic="copies",
        selection="even",
        objective="gpu_tokens",
        counts=[[*heavy.tolist(), *light.tolist()]],
    )


@pytest.mark.parametrize(("seed", "slots"), [(0, 3), (1, 3), (2, 3), (0, 4), (1, 4)])
def test_patterns_are_proven_again_and_true(seed: int, slots: int) -> None:
    """Law: two of four heavy experts share a GPU, which the mean does not know."""
    instance = crowded(seed, slots=slots)
    result = STRATEGIES.get("balance")(instance, Limits(seconds=5, threads=1))
    assert result.bound is not None
    layer = result.bound.layers[0]
    assert layer.method == "patterns"
    assert layer.certificate is not None
    found = proven(layer.certificate, evidence(instance, 0))
    assert float(found) == pytest.approx(layer.value, rel=1e-12)
    part = instance.planning
    assert isinstance(part, CountsPart)
    best = least_load(part.tokens_LE[0].tolist(), 3, slots)
    assert found < best <= found * Fraction(101, 100)


@cache
def known_optimum(seed: int, slots: int) -> Fraction:
    """Return the optimum of :func:`random_instance`, computed once."""
    return optimum(random_instance(seed, slots=slots))


@given(
    st.integers(0, 30),
    st.integers(3, 64),
    st.dictionaries(st.integers(0, 64), st.integers(-9, 9), min_size=1, max_size=6),
)
def test_no_weights_prove_what_is_not_true(
    seed: int, grid: int, steps: dict[int, int]
) -> None:
    """Law: at the optimum and above, whatever the weights, nothing is proven."""
    instance = random_instance(seed % 4, slots=3 if seed % 2 else 2)
    certificate: dict[str, Any] = {
        "kind": "patterns",
        "level": str(known_optimum(seed % 4, 3 if seed % 2 else 2)),
        "grid": grid,
        "steps": {str(cell): weight for cell, weight in steps.items()},
    }
    assert proven(certificate, evidence(instance, 0)) == 0


def test_tampered_weights_prove_nothing() -> None:
    """Law: a higher level, another grid, no step or one beyond the level: nothing."""
    instance = crowded(0, slots=3)
    result = STRATEGIES.get("balance")(instance, Limits(seconds=5, threads=1))
    assert result.bound is not None
    good = result.bound.layers[0].certificate
    assert good is not None
    assert proven(good, evidence(instance, 0)) > 0
    steps = {str(cell): weight for cell, weight in good["steps"].items()}
    first = min(steps, key=int)
    without = {cell: weight for cell, weight in steps.items() if cell != first}
    heaviest = max(steps, key=lambda cell: steps[cell])
    for change in (
        {"level": str(Fraction(good["level"]) * Fraction(11, 10))},
        {"grid": 2**17},
        {"grid": 0},
        {"steps": {}},
        {"steps": without},
        {"steps": {**steps, heaviest: 0}},
        {"steps": {**steps, "20000": 1}},
        {"steps": {**steps, heaviest: 2**80}},
    ):
        assert proven({**good, **change}, evidence(instance, 0)) == 0, change
    with pytest.raises(ManifestError, match="patterns"):
        proven({**good, "steps": [1, 2]}, evidence(instance, 0))
