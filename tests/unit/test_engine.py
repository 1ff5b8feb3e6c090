"""Every engine returns the same, in order, and reports here."""

import os
from typing import Any

import pytest

from planner import clock
from planner.engine import ENGINES
from planner.engine.base import Found, Share
from planner.strategies.base import STRATEGIES, Limits
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


def test_the_search_finds_the_same_on_every_engine() -> None:
    """Law: where the work is counted, neither engine nor workers change the plan."""
    problem = instance([2, 2], experts=8, slots=2, layers=3, tokens=200)
    plans = []
    for name in ENGINES.names():
        for workers in (1, 2):
            limits = Limits(seconds=0.5, threads=workers, engine=name)
            with clock.counting_work():
                result = STRATEGIES.get("search")(problem, limits)
            seen = [(each.seconds, each.objective) for each in result.history]
            assert result.bound is not None
            plans.append((result.plan.slots_LGJ.tolist(), seen, result.bound.value))
    assert all(plan == plans[0] for plan in plans)
