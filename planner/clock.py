"""The clock that strategies read: seconds on the wall, or seconds of counted work.

A time limit in seconds makes a result depend on how fast the machine happens to be.
Inside :func:`counting_work` the clock stands still except for :func:`spend`: whoever
does work says how long it takes by a fixed rate (so many proposals, simplex iterations
or tokens judged per second, on one core of about 2020), and every limit, share and
temperature that is derived from :func:`now` depends on the work alone.

The clock in force belongs to the context (``contextvars``), as decimal arithmetic's
precision does; threads started by :func:`side_by_side` get one of their own.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from threading import Lock
from typing import TypeVar

Item = TypeVar("Item")
Out = TypeVar("Out")


class WorkClock:
    """Counts the seconds of work that were spent."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds


_WORK: ContextVar[WorkClock | None] = ContextVar("work clock", default=None)


def now() -> float:
    """Return the seconds on the clock in force; only differences mean anything."""
    clock = _WORK.get()
    return time.perf_counter() if clock is None else clock.seconds


def spend(seconds: float) -> None:
    """Count work that takes so long by its fixed rate; on the wall it just took it."""
    clock = _WORK.get()
    if clock is not None:
        clock.seconds += seconds


def counts_work() -> bool:
    """Whether the clock in force counts work."""
    return _WORK.get() is not None


def limit_name() -> str:
    """Return what a limit of seconds is called in a result."""
    return "work" if counts_work() else "seconds"


@contextmanager
def counting_work(begun: float = 0.0) -> Iterator[None]:
    """Count work instead of seconds within this block, from ``begun`` on."""
    token = _WORK.set(WorkClock(begun))
    try:
        yield
    finally:
        _WORK.reset(token)


def side_by_side(
    items: Sequence[Item],
    work: Callable[[Item, int], Out],
    *,
    threads: int,
    in_turn: Callable[[Item], bool] = lambda item: False,
    done: Callable[[], None] = lambda: None,
) -> list[Out]:
    """Return ``work(item, rounds)`` for all items, in their order, on threads.

    Parameters
    ----------
    work
        ``rounds`` says into how many parts the time that is left is to be divided:
        on the wall so many rounds of items wait; where work is counted the number
        of items, each of which has a clock of its own, so that neither threads nor
        the order in which they finish matter.
    in_turn
        Items that may take all the time that is left (``rounds`` is 1): where work
        is counted they come one after the other, before the rest.
    done
        Called after every item; where work is counted, once, after all.
    """
    threads = max(1, min(threads, len(items)))
    if counts_work():
        found = _by_work(items, work, threads, in_turn)
        done()
        return found
    waiting, lock = len(items), Lock()

    def one(item: Item) -> Out:
        nonlocal waiting
        with lock:
            rounds = 1 if in_turn(item) else -(-waiting // threads)
            waiting -= 1
        out = work(item, rounds)
        done()
        return out

    with ThreadPoolExecutor(max_workers=threads) as pool:
        tasks = [pool.submit(copy_context().run, one, item) for item in items]
        return [task.result() for task in tasks]


def _by_work(
    items: Sequence[Item],
    work: Callable[[Item, int], Out],
    threads: int,
    in_turn: Callable[[Item], bool],
) -> list[Out]:
    """Work with a clock per item; then let all that they spent count."""
    found: dict[int, Out] = {}
    first = [at for at, item in enumerate(items) if in_turn(item)]
    beside = [at for at in range(len(items)) if at not in set(first)]

    def one(at: int, rounds: int, begun: float) -> float:
        with counting_work(begun):
            found[at] = work(items[at], rounds)
            return now() - begun

    for at in first:
        spend(one(at, 1, now()))
    begun, rounds = now(), len(beside)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        tasks = [
            pool.submit(copy_context().run, one, at, rounds, begun) for at in beside
        ]
        spent = [task.result() for task in tasks]
    for seconds in spent:
        spend(seconds)
    return [found[at] for at in range(len(items))]
