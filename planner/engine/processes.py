"""Forked processes: each inherits the work once, with all that it refers to.

Only items and results are sent. For work that holds the interpreter; systems that
cannot fork use threads, and so does one worker.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

from planner import clock
from planner.engine.base import ENGINES, Found, Share, Work
from planner.engine.threads import on_threads

_INHERITED: list[Work] = []


@ENGINES.register("processes")
def on_processes(
    work: Work,
    items: Sequence[Any],
    share: Share,
    done: Callable[[Found], None] = lambda found: None,
) -> list[Any]:
    """Work in forked processes."""
    workers = max(1, min(share.workers, len(items)))
    if workers == 1 or "fork" not in multiprocessing.get_all_start_methods():
        return on_threads(work, items, share, done)
    with ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_INHERITED.append,
        initargs=(work,),
    ) as pool:
        try:
            if clock.counts_work():
                return _counted(pool, items, share, done)
            return _timed(pool, items, share, done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run(item: Any, seconds: float, begun: float | None) -> tuple[Any, float]:
    """In a worker: the result, and the work that was counted from ``begun`` on."""
    if begun is None:
        return _INHERITED[-1](item, seconds), 0.0
    with clock.counting_work(begun):
        out = _INHERITED[-1](item, seconds)
        return out, clock.now() - begun


def _timed(
    pool: ProcessPoolExecutor,
    items: Sequence[Any],
    share: Share,
    done: Callable[[Found], None],
) -> list[Any]:
    """Hand an item to every worker that is free, with its part of what is left."""
    workers = max(1, min(share.workers, len(items)))
    found: dict[int, Any] = {}
    running: dict[Future[tuple[Any, float]], int] = {}
    for at, item in enumerate(items):
        if len(running) == workers:
            _collect(running, items, found, done)
        rounds = 1 if share.in_turn(item) else -(-(len(items) - at) // workers)
        running[pool.submit(_run, item, share.left() / rounds, None)] = at
    while running:
        _collect(running, items, found, done)
    return [found[at] for at in range(len(items))]


def _collect(
    running: dict[Future[tuple[Any, float]], int],
    items: Sequence[Any],
    found: dict[int, Any],
    done: Callable[[Found], None],
) -> None:
    finished, _ = wait(running, return_when=FIRST_COMPLETED)
    for task in finished:
        at = running.pop(task)
        found[at] = task.result()[0]
        done([(items[at], found[at])])


def _counted(
    pool: ProcessPoolExecutor,
    items: Sequence[Any],
    share: Share,
    done: Callable[[Found], None],
) -> list[Any]:
    """Give every item the same part, and let all that they spent count in the end."""
    found: dict[int, Any] = {}
    for at, item in enumerate(items):
        if share.in_turn(item):
            task = pool.submit(_run, item, share.left(), clock.now())
            found[at], spent = task.result()
            clock.spend(spent)
    beside = [at for at in range(len(items)) if at not in found]
    begun, seconds = clock.now(), share.left() / max(1, len(beside))
    tasks = {at: pool.submit(_run, items[at], seconds, begun) for at in beside}
    pairs = {at: task.result() for at, task in tasks.items()}
    for at, (out, spent) in pairs.items():
        found[at] = out
        clock.spend(spent)
    results = [found[at] for at in range(len(items))]
    done(list(zip(items, results, strict=True)))
    return results
