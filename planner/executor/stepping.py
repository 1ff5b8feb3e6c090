"""Work that pauses while rows travel, and how several pieces of it take turns.

A piece of work is a generator: it yields a :class:`Pending` each time it has sent
something whose arrival it needs next, and returns its result. Run alone it waits
each time; run beside another, one computes while the rows of the other travel.
Every rank runs its pieces in the same order, so collectives meet.
"""

from collections import deque
from collections.abc import Generator, Sequence
from typing import Protocol, TypeAlias, TypeVar

Result = TypeVar("Result")


class Pending(Protocol):
    """Something on its way."""

    def wait(self) -> None:
        """Return when it has arrived."""


Steps: TypeAlias = Generator[Pending, None, Result]
"""Work that pauses at each ``Pending``."""


def finish(steps: Steps[Result]) -> Result:
    """Run one piece of work to its end."""
    return interleave([steps])[0]


def interleave(pieces: Sequence[Steps[Result]]) -> list[Result]:
    """Run pieces of work in turns; return their results in order.

    Each runs until it pauses; then the piece that paused first goes on as soon as
    what it waits for is there. With two pieces this is double buffering.
    """
    results: dict[int, Result] = {}
    paused: deque[tuple[int, Pending]] = deque()

    def advance(number: int) -> None:
        try:
            paused.append((number, next(pieces[number])))
        except StopIteration as end:
            results[number] = end.value

    for number in range(len(pieces)):
        advance(number)
    while paused:
        number, pending = paused.popleft()
        pending.wait()
        advance(number)
    return [results[number] for number in range(len(pieces))]
