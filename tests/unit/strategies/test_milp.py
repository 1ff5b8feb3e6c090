"""Strategy ``milp``: what it accepts, what its bound and plan promise."""

import time
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from planner.errors import InfeasibleError, UsageError
from planner.evaluator import evaluate, layer_value
from planner.formulation.cut import layer as layer_module
from planner.instance import Caps, Objective, PlacementInstance
from planner.layout import ParallelLayout
from planner.pipeline.certifying import certified_bound
from planner.plan import PlacementPlan
from planner.strategies import base, milp
from planner.strategies.base import Limits, SolveResult
from planner.topology.schema import load_topology
from planner.workload.parts import CountsPart, TokenPart
from tests.oracles.brute_force import random_case
from tests.oracles.tiny_instances import instance_of, tiny_instance

TOY = "toy-2x2"
ROOM = np.full(4, 10**9, dtype=np.int64)


def tokens(seed: int, *, count: int, experts: int, gpus: int, layers: int) -> TokenPart:
    """Return skewed random tokens dealt to the GPUs by row, some ids missing."""
    rng = np.random.default_rng(seed)
    popularity = rng.dirichlet(np.full(experts, 0.7))
    ids = np.stack(
        [
            np.stack(
                [
                    rng.choice(experts, 2, replace=False, p=popularity)
                    for _ in range(count)
                ]
            )
            for _ in range(layers)
        ]
    ).astype(np.int16)
    ids[rng.random(ids.shape) < 0.05] = -1
    source_T = np.sort(rng.integers(0, gpus, count))
    ordinal_T = np.arange(count) - np.searchsorted(source_T, source_T)
    return TokenPart(
        experts_LTK=ids,
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=ordinal_T,
        row_T=np.arange(count),
    )


def toy(seed: int = 0, *, slots: int = 2, **changes: Any) -> PlacementInstance:
    part = tokens(seed, count=60, experts=5, gpus=4, layers=changes.pop("layers", 1))
    changes = {"memory_limit_G": ROOM, **changes}
    return tiny_instance(TOY, part, experts=5, slots=slots, **changes)


def solve(
    instance: PlacementInstance, starts: tuple[PlacementPlan, ...] = (), **limits: Any
) -> SolveResult:
    given = Limits(**{"seconds": 20.0, "threads": 1, **limits})
    return base.STRATEGIES.get("milp")(instance, given, starts)


def value(instance: PlacementInstance, result: SolveResult) -> float:
    return float(evaluate(instance, result.plan, instance.planning).value)


def every_placement(instance: PlacementInstance) -> list[np.ndarray]:
    held = list(combinations(range(instance.model.experts), instance.slots_per_gpu))
    slots = [np.asarray(way) for way in product(held, repeat=instance.layout.ep)]
    return [way for way in slots if len(np.unique(way)) == instance.model.experts]


@pytest.mark.parametrize("selection", ["nearest", "even", "weighted"])
@pytest.mark.parametrize("objective", ["link_time", "gpu_tokens"])
def test_no_placement_beats_the_bound_under_any_selection(
    selection: str, objective: str
) -> None:
    """Law: hashed counts are a point of the free split, so its bound holds (§28)."""
    instance = toy(selection=selection, objective=Objective(name=objective))
    result = solve(instance)
    best = min(
        layer_value(instance, instance.planning, 0, slots.astype(np.int16), {})
        for slots in every_placement(instance)[::7]
    )
    assert result.bound is not None
    assert result.bound.value <= float(best) * (1 + 1e-9)
    assert result.bound.value <= value(instance, result) * (1 + 1e-9)
    nearest = selection == "nearest"
    by_lp = result.bound.method != "count"
    of = "copies/nearest" if nearest and by_lp else "copies/weighted"
    assert result.bound.of == of


def test_rows_of_nearest_cut_off_no_placement() -> None:
    """Law: the bound of copies/nearest is below every placement under nearest."""
    for seed in range(3):
        instance = toy(seed, selection="nearest", slots=3)
        bound = solve(instance).bound
        best = min(
            layer_value(instance, instance.planning, 0, slots.astype(np.int16), {})
            for slots in every_placement(instance)[::11]
        )
        assert bound is not None
        assert bound.value <= float(best) * (1 + 1e-9)


def test_single_copies_reach_the_bound_on_tokens() -> None:
    """Law: without copies nothing is hashed: plan = bound, exactly the optimum."""
    part = tokens(4, count=80, experts=8, gpus=4, layers=1)
    instance = tiny_instance(TOY, part, experts=8, slots=2, memory_limit_G=ROOM)
    result = solve(instance)
    assert result.reason == "optimal"
    assert result.bound is not None
    assert value(instance, result) == pytest.approx(result.bound.value, rel=1e-8)


def test_plans_are_complete_and_weights_are_legal() -> None:
    """Law: full slots, no duplicate, all experts covered, weights as rule 19."""
    instance = toy(slots=3, layers=2)
    plan = solve(instance).plan
    assert plan.slots_LGJ.shape == (2, 4, 3)
    assert not plan.has_duplicates()
    for layer in range(2):
        assert set(plan.slots_LGJ[layer].ravel().tolist()) == set(range(5))
    for (layer, expert), weights in plan.split.items():
        copies = len(plan.copies(layer, expert))
        assert all(len(given) == copies for given in weights.values())
        assert all(0 < sum(given) <= 2**31 for given in weights.values())


def test_layer_bounds_add_up_and_the_worst_layer_is_the_largest() -> None:
    """Law: layers are separate: Σ for sequential, max for worst_layer."""
    count = Objective(name="gpu_tokens")
    instance = toy(layers=3, objective=count)
    whole = solve(instance)
    assert whole.bound is not None
    values = [layer.value for layer in whole.bound.layers]
    assert whole.bound.value == pytest.approx(sum(values))
    worst = solve(replace(instance, objective=replace(count, layers="worst_layer")))
    assert worst.bound is not None
    assert worst.bound.value == pytest.approx(max(values), rel=1e-6)


def test_a_start_is_never_lost() -> None:
    """Law: no time is no reason for a worse plan than the one given."""
    instance = toy(slots=3, selection="even")
    given = solve(instance).plan
    hurried = solve(instance, (given,), seconds=0.01)
    again = evaluate(instance, given, instance.planning).value
    assert evaluate(instance, hurried.plan, instance.planning).value <= again


def test_caps_are_kept() -> None:
    """Law: with a cap on pairs per GPU no GPU of the plan exceeds it."""
    counts = CountsPart(tokens_LE=np.asarray([[40, 30, 20, 10, 8]]), top_k=1)
    instance = tiny_instance(
        TOY, counts, experts=5, slots=2, memory_limit_G=ROOM, caps=Caps(gpu=1.05)
    )
    result = solve(instance)
    assert evaluate(instance, result.plan, counts).imbalance.worst <= 1.05 + 1e-6


def test_a_cap_below_what_splits_can_reach_is_infeasible() -> None:
    """Law: one slot per GPU and one hot expert cannot be balanced."""
    counts = CountsPart(tokens_LE=np.asarray([[90, 5, 5, 5]]), top_k=1)
    instance = tiny_instance(
        TOY, counts, experts=4, slots=1, memory_limit_G=ROOM, caps=Caps(gpu=1.1)
    )
    with pytest.raises(InfeasibleError, match="layer 0: no placement keeps"):
        solve(instance)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": 1}, "5 experts do not fit in 4 slots"),
        ({"slots": 6}, "cannot hold distinct experts of 5"),
        ({"memory_limit_G": ROOM // 10**6}, "lacks 1500 bytes"),
    ],
)
def test_what_does_not_fit_is_infeasible(changes: dict[str, Any], message: str) -> None:
    """Law: the message counts what is missing."""
    with pytest.raises(InfeasibleError, match=message):
        solve(toy(**changes))


def test_what_is_not_a_sum_of_layers_of_copies_names_the_portfolio() -> None:
    """Law: merged transfers and pipelined layers belong to the portfolio."""
    for changes in (
        {"traffic": "dedup_domain"},
        {"objective": Objective(layers="pipelined")},
    ):
        with pytest.raises(UsageError, match="strategy auto"):
            solve(toy(**changes))


def test_ep_sets_hold_the_same_experts_and_serve_themselves() -> None:
    """Law: with two sets the bound holds and one list of slots serves both."""
    domain_G = load_topology(TOY).domain_G
    sets = ParallelLayout(
        domain_G=domain_G, ep=2, attention_groups=tuple((g,) for g in range(4))
    )
    instance = toy(slots=3, layout=sets)
    result = solve(instance)
    assert result.plan.slots_LGJ.shape == (1, 2, 3)
    best = min(
        layer_value(instance, instance.planning, 0, slots.astype(np.int16), {})
        for slots in every_placement(instance)
    )
    assert result.bound is not None
    assert result.bound.value <= float(best) * (1 + 1e-9)


@pytest.mark.parametrize("by_pairs", [False, True])
def test_forwarded_copies_keep_a_valid_bound_and_say_what_is_relaxed(
    monkeypatch: pytest.MonkeyPatch, by_pairs: bool
) -> None:
    """Law: links of dest_forward that need both ends are named, if cuts bound them."""
    if not by_pairs:
        monkeypatch.setattr(milp, "pair_encoding", lambda instance, ports: None)
    instance = toy(endpoint="dest_forward")
    result = solve(instance)
    noted = any("under-estimates" in note for note in result.notes)
    assert noted is not by_pairs
    best = min(
        layer_value(instance, instance.planning, 0, slots.astype(np.int16), {})
        for slots in every_placement(instance)[::7]
    )
    assert result.bound is not None
    assert 0 < result.bound.value <= float(best) * (1 + 1e-9)


def test_attention_groups_share_one_split() -> None:
    """Law: with TP 2 a DP rank has one split, and the bound stays below."""
    domain_G = load_topology(TOY).domain_G
    pairs = ParallelLayout(domain_G=domain_G, ep=4, attention_groups=((0, 1), (2, 3)))
    part = tokens(1, count=60, experts=5, gpus=4, layers=1)
    part = replace(part, rank_T=part.source_T // 2)
    instance = tiny_instance(
        TOY, part, experts=5, slots=3, memory_limit_G=ROOM, layout=pairs
    )
    result = solve(instance)
    ranks = {name for weights in result.plan.split.values() for name in weights}
    assert ranks <= {"*", "0", "1"}
    assert result.bound is not None
    assert result.bound.value <= value(instance, result) * (1 + 1e-9)


def test_time_and_gap_end_the_search() -> None:
    """Law: the limit is kept within 2 s, a reached gap is named as the reason."""
    rng = np.random.default_rng(0)
    counts = CountsPart(tokens_LE=rng.integers(1, 90, size=(4, 24)), top_k=1)
    instance = tiny_instance(TOY, counts, experts=24, slots=8, memory_limit_G=ROOM)
    begun = time.perf_counter()
    hurried = solve(instance, seconds=1.0)
    assert time.perf_counter() - begun < 3.0
    assert hurried.history[-1].bound is not None
    relaxed = solve(instance, gap=0.9)
    assert relaxed.reason in ("gap", "optimal")


def test_history_never_gets_worse() -> None:
    """Law: incumbents fall, bounds rise, seconds run."""
    events = solve(instance_of(random_case(21))).history
    seconds = [event.seconds for event in events]
    objectives = [event.objective for event in events if event.objective is not None]
    bounds = [event.bound for event in events if event.bound is not None]
    assert seconds == sorted(seconds)
    assert objectives == sorted(objectives, reverse=True)
    assert bounds[:-1] == sorted(bounds[:-1])


@pytest.mark.parametrize("most_columns", [400_000, 10])
def test_models_too_large_to_branch_are_bounded_and_say_so(
    most_columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: folded LP and counting bound what branch and bound is not tried on."""
    monkeypatch.setattr(layer_module, "MOST_COLUMNS", most_columns)
    counts = CountsPart(
        tokens_LE=np.random.default_rng(2).integers(1, 500, size=(1, 24)), top_k=1
    )
    instance = tiny_instance(
        "h100-4x8-rail",
        counts,
        experts=24,
        slots=1,
        memory_limit_G=np.full(32, 10**9, dtype=np.int64),
    )
    result = solve(instance, seconds=3.0)
    assert any("does not branch" in note for note in result.notes)
    assert result.bound is not None
    assert not result.bound.branching
    assert 0 < result.bound.value <= value(instance, result)
    (layer,) = result.bound.layers
    assert layer.certificate is not None
    if most_columns == 10:
        assert layer.certificate["kind"] == "block_prices"
    certified = certified_bound(instance, result.bound)
    assert certified is not None
    assert 0 < float(certified) <= value(instance, result)
