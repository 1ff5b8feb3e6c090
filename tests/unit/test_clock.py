"""The clock in force: seconds on the wall, or counted work that threads cannot move."""

import time
from threading import Barrier

import pytest

from planner import clock


def test_counted_work_moves_only_when_work_is_spent() -> None:
    """The clock stands while time passes and goes on by what is spent."""
    with clock.counting_work():
        begun = clock.now()
        time.sleep(0.01)
        assert clock.now() == begun
        clock.spend(2.5)
        assert clock.now() == begun + 2.5


def test_the_wall_clock_is_not_moved_by_work() -> None:
    """Outside of counted work, spending is what the seconds themselves do."""
    begun = clock.now()
    clock.spend(1000.0)
    assert clock.now() - begun < 1000.0
    assert not clock.counts_work()


@pytest.mark.parametrize("counted", [False, True])
def test_results_come_in_the_order_of_the_items(counted: bool) -> None:
    """However threads finish, the i-th result is that of the i-th item."""

    def work(item: int, rounds: int) -> int:
        time.sleep(0.002 * (5 - item))
        return item * item

    if counted:
        with clock.counting_work():
            found = clock.side_by_side(range(5), work, threads=3)
    else:
        found = clock.side_by_side(range(5), work, threads=3)
    assert found == [0, 1, 4, 9, 16]


def test_items_side_by_side_do_not_see_what_the_others_spend() -> None:
    """Each item's clock starts where the common one stood; in the end all counts."""
    together = Barrier(2)

    def work(item: int, rounds: int) -> tuple[float, int]:
        clock.spend(float(item))
        together.wait(timeout=30)
        return clock.now(), rounds

    with clock.counting_work():
        clock.spend(10.0)
        found = clock.side_by_side([1, 2], work, threads=2)
        assert found == [(11.0, 2), (12.0, 2)]
        assert clock.now() == 13.0


@pytest.mark.parametrize("threads", [1, 2])
def test_items_in_turn_come_first_and_one_after_the_other(threads: int) -> None:
    """An item that may take all the time left sees what those before it spent."""

    def work(item: int, rounds: int) -> tuple[float, int]:
        clock.spend(float(item))
        return clock.now(), rounds

    with clock.counting_work():
        found = clock.side_by_side(
            [1, 20, 2, 30], work, threads=threads, in_turn=lambda item: item >= 20
        )
        assert found == [(51.0, 2), (20.0, 1), (52.0, 2), (50.0, 1)]
        assert clock.now() == 53.0


def test_on_the_wall_an_item_is_told_how_many_rounds_wait() -> None:
    """With one thread the last item may take all that is left."""
    rounds = clock.side_by_side("abc", lambda _, rounds: rounds, threads=1)
    assert rounds == [3, 2, 1]


@pytest.mark.parametrize(("counted", "times"), [(False, 3), (True, 1)])
def test_progress_is_told_when_its_order_is_certain(counted: bool, times: int) -> None:
    """After every item on the wall; once, after all, where work is counted."""
    told = []
    settings = {"threads": 2, "done": lambda: told.append(1)}
    if counted:
        with clock.counting_work():
            clock.side_by_side("abc", lambda *_: None, **settings)  # type: ignore[arg-type]
    else:
        clock.side_by_side("abc", lambda *_: None, **settings)  # type: ignore[arg-type]
    assert len(told) == times


def test_an_error_of_an_item_is_the_callers() -> None:
    """What an item raises is raised."""

    def work(item: int, rounds: int) -> None:
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        clock.side_by_side([0], work, threads=2)
