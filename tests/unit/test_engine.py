"""Every engine returns the same, in order, and reports here."""

import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from planner import clock
from planner.engine import ENGINES
from planner.engine.base import Found, Share
from planner.instance import PlacementInstance
from planner.strategies.base import STRATEGIES, Limits
from planner.workload.parts import CountsPart
from tests.instances import instance


@pytest.fixture(params=ENGINES.names())
def engine(request: pytest.FixtureRequest) -> Any:
    """Return each engine in turn."""
    return ENGINES.get(request.param)


def share(workers: int = 2, seconds: float = 12.0) -> Share:
    """Return workers and a time that does not pass."""
    return Share(workers=workers, left=lambda: seconds)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(engine: Any, workers: int) -> None:
    """Law: whoever is done first, the list is that of the items."""
    told: list[tuple[int, int]] = []
    found = engine(
        lambda item, _: item**2,
        range(6),
        share(workers),
        lambda each: told.extend(each),
    )
    assert found == [0, 1, 4, 9, 16, 25]
    assert sorted(told) == [(item, item**2) for item in range(6)]


def test_an_item_gets_its_part_of_what_is_left(engine: Any) -> None:
    """Law: three rounds of two wait for the first, one for the last."""
    found = engine(lambda _, seconds: seconds, range(6), share())
    assert found == [4.0, 4.0, 6.0, 6.0, 12.0, 12.0]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_counted_work_is_the_same_for_any_number_of_workers(
    engine: Any, workers: int
) -> None:
    """Law: equal parts, clocks of their own from the common start, one report."""
    reports: list[Found] = []

    def work(item: int, seconds: float) -> tuple[float, float]:
        clock.spend(float(item))
        return clock.now(), seconds

    with clock.counting_work():
        clock.spend(10.0)
        found = engine(work, [1, 2, 3], share(workers), reports.append)
        assert clock.now() == 16.0
    assert found == [(11.0, 4.0), (12.0, 4.0), (13.0, 4.0)]
    assert [[item for item, _ in each] for each in reports] == [[1, 2, 3]]


def test_what_an_item_raises_is_raised_here(engine: Any) -> None:
    """Law: an error crosses the border of threads and processes."""

    def work(item: int, _: float) -> None:
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match=r"item [01]"):
        engine(work, [0, 1], share())


def test_processes_are_others_and_threads_are_not() -> None:
    """Law: the members do what their names say."""
    items = range(4)
    here = ENGINES.get("threads")(lambda *_: os.getpid(), items, share())
    there = ENGINES.get("processes")(lambda *_: os.getpid(), items, share())
    assert set(here) == {os.getpid()}
    assert os.getpid() not in there


def _instance(domains: list[int], **given: Any) -> PlacementInstance:
    return instance(domains, **given)


def _nested() -> PlacementInstance:
    """Return two domains that four routing groups are divided between."""
    loads = [[9, 7, 5, 3, 2, 2, 1, 1], [40, 1, 9, 9, 8, 3, 3, 2]]
    problem = _instance([2, 2], experts=8, slots=3, layers=2, counts=loads, **BALANCED)
    spec = replace(problem.model, routing_groups=4)
    return replace(problem, model=spec, nested_groups=4)


def _joint() -> PlacementInstance:
    """Return two workloads that like different experts."""
    one = _instance(
        [4], experts=6, slots=2, layers=2, counts=[[9, 7, 3, 2, 2, 1]] * 2, **BALANCED
    )
    (load,) = one.workloads
    part = CountsPart(tokens_LE=np.asarray([[1, 2, 2, 3, 7, 9]] * 2), top_k=2)
    loads = (load, replace(load, name="other", planning=part))
    return replace(
        one, workloads=tuple(replace(x, weight=Fraction(1, 2)) for x in loads)
    )


def _even_pairs() -> PlacementInstance:
    """Return layers of two slots a GPU whose bound takes a proof by relaxations."""
    rng = np.random.default_rng(3)
    loads = np.sort(rng.lognormal(3, 1.2, (3, 12)).astype(int) + 1).tolist()
    return _instance([8], experts=12, slots=2, layers=3, counts=loads, **BALANCED)


BALANCED = {"objective": "gpu_tokens", "selection": "even", "traffic": "copies"}
FREE = BALANCED | {"selection": "weighted"}
ALONE = {"selection": "weighted", "traffic": "copies"}
PROBLEMS: dict[str, tuple[str, Callable[[], PlacementInstance]]] = {
    "search": (
        "search",
        lambda: _instance([2, 2], experts=8, slots=2, layers=3),
    ),
    "milp": (
        "milp",
        lambda: _instance(
            [2, 2], experts=6, slots=2, layers=3, traffic="copies", tokens=60
        ),
    ),
    "priced": (
        "priced",
        lambda: _instance([1] * 4, experts=6, slots=2, layers=3, **ALONE),
    ),
    "balance, even": ("balance", _even_pairs),
    "balance, three slots": (
        "balance",
        lambda: _instance([4], experts=9, slots=3, layers=3, **BALANCED),
    ),
    "balance, weighted": (
        "balance",
        lambda: _instance([12], experts=20, slots=2, layers=3, **FREE),
    ),
    "balance, nested": ("balance", _nested),
    "balance, two workloads": ("balance", _joint),
}


def _outcome(problem: PlacementInstance, strategy: str, limits: Limits) -> object:
    """Return all that a result says, but where it was found."""
    with clock.counting_work():
        result = STRATEGIES.get(strategy)(problem, limits)
    seen = [(each.seconds, each.objective, each.bound) for each in result.history]
    plan = result.plan
    return plan.slots_LGJ.tolist(), plan.split, seen, result.bound, result.reason


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_strategy_finds_the_same_on_every_engine(name: str) -> None:
    """Law: where work is counted, engine and workers change neither plan nor bound."""
    strategy, make = PROBLEMS[name]
    problem = make()
    found = [
        _outcome(problem, strategy, Limits(seconds=0.5, threads=workers, engine=engine))
        for engine in ENGINES.names()
        for workers in (1, 2)
    ]
    assert all(each == found[0] for each in found)


def test_large_layers_in_turn_are_the_same_on_every_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Law: a layer that may take all that is left sees what the last one spent."""
    monkeypatch.setattr("planner.formulation.cut.layer.BARRIER_COLUMNS", 10)
    strategy, make = PROBLEMS["milp"]
    problem = make()
    found = [
        _outcome(problem, strategy, Limits(seconds=2.0, threads=2, engine=engine))
        for engine in ENGINES.names()
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", PROBLEMS)
def test_layers_are_worked_on_where_the_engine_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: each strategy asks the engine of its limits for all its layers."""
    strategy, make = PROBLEMS[name]
    problem, asked = make(), []
    threads = ENGINES.get("threads")

    def spy(work: Any, items: Any, *more: Any) -> Any:
        asked.append(len(items))
        return threads(work, items, *more)

    monkeypatch.setitem(ENGINES._members, "spy", spy)
    _outcome(problem, strategy, Limits(seconds=0.2, engine="spy"))
    assert asked[0] == problem.layer_count


def test_on_the_wall_items_in_turn_may_take_all_that_is_left(engine: Any) -> None:
    """Law: of three rounds that wait only others get their part."""
    shared = Share(workers=2, left=lambda: 12.0, in_turn=lambda item: item == 1)
    assert engine(lambda _, seconds: seconds, range(6), shared) == [
        *(4.0, 12.0),
        *(6.0, 6.0, 12.0, 12.0),
    ]


@pytest.mark.parametrize("engine_name", ENGINES.names())
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_items_in_turn_come_first_and_may_take_all(
    engine_name: str, workers: int
) -> None:
    """Law: 10 and 20 one after the other with all that is left, then 1 and 2."""

    def work(item: int, seconds: float) -> tuple[float, float]:
        clock.spend(float(item))
        return clock.now(), seconds

    with clock.counting_work():
        shared = Share(
            workers=workers,
            left=lambda: 100 - clock.now(),
            in_turn=lambda item: item >= 10,
        )
        found = ENGINES.get(engine_name)(work, [1, 10, 2, 20], shared)
        assert clock.now() == 33.0
    assert found == [(31.0, 35.0), (10.0, 100.0), (32.0, 35.0), (30.0, 90.0)]
