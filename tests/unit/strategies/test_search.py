"""The search: increments are exact, moves are legal, starts are never lost."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest

from planner.arrays import IdArray
from planner.evaluator import evaluate, layer_loads, layer_value
from planner.evaluator.evaluation import layer_split
from planner.instance import Caps, Objective, PlacementInstance
from planner.plan import PlacementPlan, SplitWeights
from planner.strategies.base import STRATEGIES, Limits, SolveResult
from planner.strategies.baselines.base import published_plan, repaired
from planner.strategies.judging import judged_layer
from planner.strategies.search import layer, strategy
from planner.strategies.search.serving import choice_of, homes_of, split_of
from tests.instances import instance

AMPLE = Limits(seconds=60.0, threads=2)


@pytest.fixture(autouse=True)
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the work end long before the time, so that results can be repeated."""
    monkeypatch.setattr(strategy, "PROPOSALS_PER_SLOT", 1_000)


def solve(problem: PlacementInstance, **given: object) -> SolveResult:
    """Run the strategy under its registered name."""
    return STRATEGIES.get("search")(problem, AMPLE, **given)  # type: ignore[arg-type]


def values(problem: PlacementInstance, plan: PlacementPlan) -> list[object]:
    """Value of every layer on the planning part."""
    return [
        layer_value(problem, problem.planning, at, slots_GJ, layer_split(plan, at))
        for at, slots_GJ in enumerate(plan.slots_LGJ)
    ]


def legal_placements(experts: int, gpus: int, slots: int) -> Iterator[IdArray]:
    """Every way to give each GPU ``slots`` distinct experts that covers them all."""
    rows = list(combinations(range(experts), slots))
    for chosen in product(rows, repeat=gpus):
        if len({expert for row in chosen for expert in row}) == experts:
            yield np.asarray(chosen, dtype=np.int16)


def one_hot_splits(slots_GJ: IdArray, ranks: int) -> Iterator[dict[int, SplitWeights]]:
    """Every way to send each DP rank's tokens of an expert to one of its copies."""
    counts = np.bincount(slots_GJ.ravel())
    spread = np.flatnonzero(counts > 1).tolist()
    ways = [product(range(counts[expert]), repeat=ranks) for expert in spread]
    for chosen in product(*ways):
        yield {
            expert: {
                str(rank): tuple(int(m == copy) for m in range(counts[expert]))
                for rank, copy in enumerate(copies)
            }
            for expert, copies in zip(spread, chosen, strict=True)
        }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("traffic", ["dedup_domain", "dedup_gpu"])
def test_tiny_layers_with_chosen_copies_are_solved_to_the_optimum(
    traffic: str, seed: int
) -> None:
    """The result equals the best of every placement with every choice of copies."""
    problem = instance(
        [2, 1],
        experts=4,
        slots=2,
        traffic=traffic,
        selection="weighted",
        tokens=40,
        nic=[50.0, 20.0],
        seed=seed,
    )
    best = min(
        layer_value(problem, problem.planning, 0, slots_GJ, split)
        for slots_GJ in legal_placements(4, 3, 2)
        for split in one_hot_splits(slots_GJ, 3)
    )
    plan = solve(problem).plan
    assert values(problem, plan) == [best]
    assert all(weights.count(0) == len(weights) - 1 for weights in given(plan))


def given(plan: PlacementPlan) -> list[tuple[int, ...]]:
    """Every tuple of weights in a plan."""
    return [each for by_rank in plan.split.values() for each in by_rank.values()]


def test_chosen_copies_come_back_as_a_start() -> None:
    """A plan's own choice of copies is kept where there is no time for a better one."""
    problem = instance([2, 2], experts=6, slots=2, selection="weighted", tokens=200)
    plan = solve(problem).plan
    again = STRATEGIES.get("search")(problem, Limits(seconds=0.0), [plan])
    assert values(problem, again.plan) == values(problem, plan)
    homes = homes_of(problem)
    for at, slots_GJ in enumerate(plan.slots_LGJ):
        split = layer_split(plan, at)
        choice_EH = choice_of(homes, problem.layout, slots_GJ, split, 6)
        assert split_of(homes, problem.layout, slots_GJ, choice_EH) == split


@pytest.mark.parametrize(
    ("traffic", "selection"),
    [
        (traffic, selection)
        for traffic in ("dedup_domain", "dedup_gpu", "copies")
        for selection in ("nearest", "even", "weighted")
        if (traffic == "copies") or selection != "weighted"
    ],
)
def test_tiny_layers_are_solved_to_the_optimum(traffic: str, selection: str) -> None:
    """The result equals the best of every placement of 4 experts on 3 GPUs."""
    problem = instance(
        [2, 1],
        experts=4,
        slots=2,
        traffic=traffic,
        selection=selection,
        tokens=60,
        nic=[50.0, 20.0],
    )
    best = min(
        layer_value(problem, problem.planning, 0, slots_GJ, {})
        for slots_GJ in legal_placements(4, 3, 2)
    )
    assert values(problem, solve(problem).plan) == [best]


@pytest.mark.parametrize("objective", ["link_time", "link_tokens", "gpu_tokens"])
def test_every_objective_is_solved_to_the_optimum(objective: str) -> None:
    """Six experts, one slot for each on 2 + 1 GPUs: as good as every arrangement."""
    problem = instance([2, 1], experts=6, slots=2, objective=objective, top_k=3)
    best = min(
        layer_value(problem, problem.planning, 0, slots_GJ, {})
        for slots_GJ in legal_placements(6, 3, 2)
    )
    assert values(problem, solve(problem).plan) == [best]


def test_the_best_start_comes_back_if_there_is_no_time() -> None:
    """With no time at all every layer is the best start's, and the limit is named."""
    problem = instance([2, 2], experts=8, slots=2, layers=3)
    plans = [published_plan(problem, name) for name in ("eplb_global", "contiguous")]
    result = STRATEGIES.get("search")(problem, Limits(seconds=0.0), plans)
    assert (result.reason, result.limit) == ("limit", "seconds")
    starts = [values(problem, plan) for plan in plans]
    for found, *each in zip(values(problem, result.plan), *starts, strict=True):
        assert found <= min(each)


def test_a_start_keeps_its_weights_where_they_are_better() -> None:
    """The same slots with equal weights are worse, so the start itself comes back."""
    problem = instance([2, 2], experts=4, slots=2, selection="weighted")
    plain = repaired(problem, published_plan(problem, "contiguous"))
    # Every expert has a copy in both hosts: each DP rank uses that of its own.
    own = {"0": (1, 0), "1": (1, 0), "2": (0, 1), "3": (0, 1)}
    start = replace(plain, split={(0, expert): own for expert in range(4)})

    def value(plan: PlacementPlan) -> Fraction:
        return evaluate(problem, plan, problem.planning).value

    assert value(start) < value(plain)
    result = STRATEGIES.get("search")(problem, Limits(seconds=0.0), [start])
    assert value(result.plan) <= value(start)


def test_caps_are_kept_from_a_start_that_breaks_them() -> None:
    """Both caps hold in the result although the only start exceeds both."""
    caps = Caps(gpu=1.25, domain=1.1)
    problem = instance([2, 2], experts=16, slots=4, tokens=800, caps=caps)
    start = published_plan(problem, "contiguous")
    assert judged_layer(problem, 0, start.slots_LGJ[0], {})[1] > 0
    result = solve(problem, starts=[start])
    assert judged_layer(problem, 0, result.plan.slots_LGJ[0], {})[1] == 0


def test_the_seed_alone_decides_where_the_work_ends_first() -> None:
    """Same seed, other thread count: the same plan; reason ``complete``."""
    problem = instance([2, 2], experts=12, slots=4, layers=4, top_k=3)
    runs = [
        STRATEGIES.get("search")(problem, replace(AMPLE, threads=threads))
        for threads in (1, 2)
    ]
    assert [run.reason for run in runs] == ["complete", "complete"]
    assert (runs[0].plan.slots_LGJ == runs[1].plan.slots_LGJ).all()


def test_history_tells_the_objective_falling_to_the_result() -> None:
    """One event per layer, never rising, the last the evaluator's value."""
    problem = instance([2, 2], experts=12, slots=3, layers=3, top_k=3)
    events: list[object] = []
    result = solve(problem, progress=events.append)
    objectives = [event.objective for event in result.history]
    assert tuple(events) == result.history
    assert objectives == sorted(objectives, reverse=True)
    exact = evaluate(problem, result.plan, problem.planning).value
    assert objectives[-1] == pytest.approx(float(exact), rel=1e-12)


def test_gpus_are_evened_out_where_links_do_not_care(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of all placements with the best value, the one with the least busy GPU.

    Only NICs count, so which experts of a domain share a GPU is free; the last part
    of the work sees to it, without any weight on it before.
    """
    monkeypatch.setattr(layer, "BALANCE", 0.0)
    problem = instance([2, 1], experts=6, slots=2, top_k=2, tokens=400)
    scope = Objective(name="link_tokens", link_classes=("ib:nic>switch0",))
    problem = replace(problem, objective=scope)

    def judged(slots_GJ: IdArray) -> tuple[object, object]:
        loads = layer_loads(problem, problem.planning, 0, slots_GJ, {})
        value = layer_value(problem, problem.planning, 0, slots_GJ, {})
        return value, int(loads.pairs_G.max())

    every = sorted(judged(slots_GJ) for slots_GJ in legal_placements(6, 3, 2))
    equals = {pairs for value, pairs in every if value == every[0][0]}
    assert len(equals) > 1
    # Evening out ends where no swap helps; which of such ends depends on the start.
    start = published_plan(problem, "contiguous")
    found = solve(problem, starts=[start]).plan
    assert judged(found.slots_LGJ[0]) == every[0]


def test_counts_tables_are_left_to_others_with_a_reason() -> None:
    """Without tokens there is nothing to search: the best start and a note."""
    problem = instance(
        [2, 2],
        experts=4,
        slots=1,
        traffic="copies",
        counts=[[5, 1, 9, 3]],
    )
    result = solve(problem)
    assert result.reason == "complete"
    assert "needs the tokens of a trace" in result.notes[0]


def test_a_single_gpu_is_left_alone() -> None:
    """An EP set of one GPU has one placement."""
    problem = instance([2], experts=3, slots=3, ep=1, traffic="dedup_gpu")
    result = solve(problem)
    assert sorted(result.plan.slots_LGJ[0, 0].tolist()) == [0, 1, 2]
    assert "nothing to place" in result.notes[0]


def test_worst_layer_reports_the_worst_layer() -> None:
    """The objective in the history is the maximum over layers."""
    problem = instance([2, 2], experts=8, slots=2, layers=3)
    problem = replace(problem, objective=Objective(layers="worst_layer"))
    result = solve(problem)
    exact = evaluate(problem, result.plan, problem.planning).value
    assert result.history[-1].objective == pytest.approx(float(exact))
