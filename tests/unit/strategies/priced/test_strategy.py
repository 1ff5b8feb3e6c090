"""Strategy ``priced`` on clusters: judged values, certificates, what it refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.errors import InfeasibleError, UsageError
from planner.evaluator import evaluate
from planner.formulation.cut.one_level import OneLevel
from planner.instance import Caps, Objective, PlacementInstance
from planner.pipeline.certifying import certified_layers
from planner.strategies.base import STRATEGIES, Limits, SolveResult
from planner.strategies.baselines.base import published_plan, repaired
from planner.strategies.priced import strategy
from planner.strategies.priced.place import Placement, place
from tests.instances import instance
from tests.oracles.one_level import optimum

SPEEDS = [50.0, 30.0, 40.0, 20.0]


def lone_gpus(**changes: Any) -> PlacementInstance:
    """Return 4 hosts of one GPU with unequal NICs, 10 experts in 16 slots."""
    values: dict[str, Any] = {
        "experts": 10,
        "slots": 4,
        "traffic": "copies",
        "selection": "weighted",
        "nic": SPEEDS,
        "top_k": 3,
        "seed": 3,
    }
    return instance([1] * 4, **(values | changes))


def solve(problem: PlacementInstance, name: str = "priced", **more: Any) -> SolveResult:
    """Solve with little time."""
    limits = Limits(seconds=1.0, threads=1)
    return STRATEGIES.get(name)(problem, limits, **more)


def value(problem: PlacementInstance, result: SolveResult) -> float:
    """Return the judged value of a plan."""
    return float(evaluate(problem, result.plan, problem.planning).value)


@pytest.mark.parametrize(
    ("shape", "speeds"),
    [([1, 1, 1], [50.0, 30.0, 20.0]), ([3], [400.0] * 3)],
)
def test_counts_reach_the_enumerated_optimum(
    shape: list[int], speeds: list[float]
) -> None:
    """Law: lone GPUs are bound by NICs, GPUs of one domain by NVLink ports.

    300 bytes per pair, both legs; every GPU wants a third of every expert.
    """
    counts = [[90, 7, 31, 12], [10, 80, 20, 25]]
    problem = instance(
        shape,
        experts=4,
        slots=2,
        traffic="copies",
        selection="weighted",
        layers=2,
        counts=counts,
        nic=speeds if len(shape) == 3 else None,
    )
    pairs_per_ns = np.asarray(speeds) / 300
    best = [
        optimum(np.outer(layer, np.ones(3) / 3), [2] * 3, pairs_per_ns, pairs_per_ns)
        for layer in counts
    ]
    found = 1e9 * value(problem, solve(problem))
    assert found == pytest.approx(sum(best), rel=1e-6)


def test_link_tokens_count_the_pairs_of_the_busiest_port() -> None:
    """Law: by hand, over both legs."""
    problem = instance(
        [1, 1, 1],
        experts=3,
        slots=1,
        traffic="copies",
        selection="weighted",
        objective="link_tokens",
        counts=[[90, 30, 30]],
    )
    # Each GPU wants 30, 10 and 10; whoever holds the first is sent 60, and combine
    # carries the same back.
    assert value(problem, solve(problem)) == 120


def test_the_plan_is_legal_and_no_worse_than_its_start() -> None:
    """Law: full slots, no duplicates, all covered; a start bounds the value."""
    problem = lone_gpus(layers=2)
    start = repaired(problem, published_plan(problem, "eplb_global"))
    found = solve(problem, starts=[start])
    assert found.plan.slots_LGJ.shape == (2, 4, 4)
    assert not found.plan.has_duplicates()
    for layer in range(2):
        assert set(found.plan.slots_LGJ[layer].ravel().tolist()) == set(range(10))
    begun = float(evaluate(problem, start, problem.planning).value)
    assert value(problem, found) <= begun
    for (layer, expert), weights in found.plan.split.items():
        copies = len(found.plan.copies(layer, expert))
        assert all(len(given) == copies for given in weights.values())
        assert all(0 < sum(given) <= 2**31 for given in weights.values())


@pytest.mark.parametrize("objective", ["link_time", "link_tokens"])
def test_the_verifier_proves_the_bound_again(objective: str) -> None:
    """Law: the certificate of every layer proves the bound within 1e-6."""
    problem = lone_gpus(layers=2, objective=objective)
    found = solve(problem)
    assert found.bound is not None
    assert found.bound.method == "prices"
    assert found.bound.of == "copies/weighted"
    proven = certified_layers(problem, found.bound)
    assert proven is not None
    for layer, exact in zip(found.bound.layers, proven, strict=True):
        assert float(exact) == pytest.approx(layer.value, rel=1e-6, abs=0)
    assert found.bound.value <= value(problem, found) * (1 + 1e-9)


@pytest.mark.parametrize("selection", ["nearest", "even"])
def test_single_copies_need_no_selection(selection: str) -> None:
    """Law: without redundant slots every selection is the same problem."""
    problem = lone_gpus(experts=12, slots=3, selection=selection)
    found = solve(problem)
    weighted = solve(replace(problem, selection="weighted"))
    assert value(problem, found) == pytest.approx(
        value(problem, weighted), rel=1e-9, abs=0
    )
    assert found.plan.split == {}


def test_the_worst_layer_bounds_by_its_largest() -> None:
    """Law: under worst_layer the bound is the layers' largest."""
    problem = lone_gpus(layers=2)
    worst = replace(problem, objective=Objective(layers="worst_layer"))
    found = solve(worst)
    assert found.bound is not None
    assert found.bound.value == max(layer.value for layer in found.bound.layers)


def test_no_layer_under_no_seed_is_searched_like_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Law: layers that are alike, and runs under other seeds, are other draws."""
    drawn: list[int] = []

    def watched(level: OneLevel, limits: Limits, **more: Any) -> Placement:
        drawn.append(limits.seed)
        return place(level, limits, **more)

    monkeypatch.setattr(strategy, "place", watched)
    problem = lone_gpus(layers=3)
    for seed in range(4):
        limits = Limits(seconds=0.3, threads=1, seed=seed)
        STRATEGIES.get("priced")(problem, limits)
    assert len(drawn) == len(set(drawn)) == 3 * 4


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (lone_gpus(selection="nearest"), "share freely"),
        (lone_gpus(traffic="dedup_gpu"), "not dedup_gpu"),
        (lone_gpus(caps=Caps(gpu=1.5)), "imbalance caps"),
        (lone_gpus(objective="gpu_tokens"), "without links"),
        (lone_gpus(nic=None, ep=2, experts=6), "several EP sets"),
        (
            instance(
                [2, 2], experts=6, slots=2, traffic="copies", selection="weighted"
            ),
            "domains of several GPUs",
        ),
    ],
)
def test_other_problems_are_refused(problem: PlacementInstance, words: str) -> None:
    """Law: what the model does not say is refused, with the way out."""
    with pytest.raises(UsageError, match=words) as refused:
        solve(problem)
    assert "--strategy" in str(refused.value)


def test_too_few_slots_are_infeasible() -> None:
    """Law: every expert needs a slot."""
    with pytest.raises(InfeasibleError, match="do not fit"):
        solve(lone_gpus(experts=17))
