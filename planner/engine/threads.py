"""Threads of this process: nothing is sent; compiled code and solvers run in parallel.

What holds the interpreter, a few per cent of the work, takes turns.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from planner import clock
from planner.engine.base import ENGINES, Found, Share, Work


@ENGINES.register("threads")
def on_threads(
    work: Work,
    items: Sequence[Any],
    share: Share,
    done: Callable[[Found], None] = lambda found: None,
) -> list[Any]:
    """Work on threads."""
    waiting: list[tuple[Any, Any]] = []
    lock = Lock()

    def one(item: Any, rounds: int) -> Any:
        out = work(item, share.left() / rounds)
        with lock:
            waiting.append((item, out))
        return out

    def report() -> None:
        with lock:
            found = waiting.copy()
            waiting.clear()
            done(found)

    return clock.side_by_side(
        items, one, threads=share.workers, in_turn=share.in_turn, done=report
    )
