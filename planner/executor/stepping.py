"""Work that pauses while rows travel, and how several pieces of it take turns.

A piece of work is a generator: it yields a :class:`Pending` each time it has sent
something whose arrival it needs next, and returns its result. Run alone it waits
each time; run beside another, one computes while the rows of the other travel.
Every rank runs its pieces in the same order, so collectives meet.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeAlias, TypeVar

Result = TypeVar("Result")


class Pending(Protocol):
    """Something on its way.

    Attributes
    ----------
    label
        What it is.
    posted, arrived
        Seconds of ``time.perf_counter`` when it left and when it was there, the
        latter once it has been waited for.
    prompt
        Whether its piece waits for it at once and keeps its turn: what is soon there
        and must be known before anything can travel.
    """

    label: str
    posted: float
    prompt: bool

    @property
    def arrived(self) -> float:
        """When it was there."""

    def wait(self) -> None:
        """Return when it has arrived."""


Steps: TypeAlias = Generator[Pending, None, Result]
"""Work that pauses at each ``Pending``."""

Lane: TypeAlias = Callable[[int], AbstractContextManager[None]]
"""Gives the context in which a piece, by its number, is at work and waits."""


def anywhere(piece: int) -> AbstractContextManager[None]:
    """Let all pieces work where the process is."""
    return nullcontext()


class Watch(Protocol):
    """Notes when pieces of work compute and when their rows travel."""

    def computed(self, piece: int, start: float, end: float) -> None:
        """Note that a piece was at work between two seconds."""

    def travelled(self, piece: int, pending: Pending) -> None:
        """Note what a piece has waited for."""


def finish(steps: Steps[Result]) -> Result:
    """Run one piece of work to its end."""
    return interleave([steps])[0]


def interleave(
    pieces: Iterable[Steps[Result]],
    at_once: int = 2,
    watch: Watch | None = None,
    stagger: int = 1,
    lane: Lane = anywhere,
) -> list[Result]:
    """Run pieces of work in turns; return their results in order.

    Each runs until it pauses; then the piece that paused first goes on as soon as
    what it waits for is there. With two at once this is double buffering.

    Parameters
    ----------
    pieces
        Asked for one by one, as there is room.
    at_once
        Most pieces that have begun and not ended.
    watch
        Is told of every stretch of work and every wait.
    stagger
        A piece begins when the one before it has paused this often: pieces that
        walk through layers on different ranks are then in different layers.
    lane
        Where each piece is at work: on a GPU, a stream.
    """
    results: dict[int, Result] = {}
    waiting = iter(pieces)
    begun = 0
    pauses: dict[int, int] = {}
    paused: deque[tuple[int, Steps[Result], Pending]] = deque()

    def advance(number: int, piece: Steps[Result]) -> None:
        pending = worked(number, piece)
        while pending is not None and pending.prompt:
            waited(number, pending)
            pending = worked(number, piece)
        if pending is None:
            pauses[number] = stagger
        else:
            paused.append((number, piece, pending))
            pauses[number] = pauses.get(number, 0) + 1

    def worked(number: int, piece: Steps[Result]) -> Pending | None:
        start = time.perf_counter()
        try:
            return next(piece)
        except StopIteration as end:
            results[number] = end.value
            return None
        finally:
            if watch is not None:
                watch.computed(number, start, time.perf_counter())

    def waited(number: int, pending: Pending) -> None:
        pending.wait()
        if watch is not None:
            watch.travelled(number, pending)

    def newest() -> int:
        return pauses[max(pauses)] if pauses else stagger

    more = True
    while more or paused:
        while more and len(paused) < at_once and newest() >= stagger:
            with lane(begun):
                # What a piece begins with is made where it is used.
                following = next(waiting, None)
                if following is not None:
                    advance(begun, following)
            more = following is not None
            begun += 1
        if paused:
            number, piece, pending = paused.popleft()
            with lane(number):
                waited(number, pending)
                advance(number, piece)
    return [results[number] for number in range(len(results))]
