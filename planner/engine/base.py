"""What an engine is given and what it returns; the family's registry.

A piece of work must depend on nothing but its item and its seconds and change nothing
but what it returns, so that it may run anywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from planner.registry import Registry

Work = Callable[[Any, float], Any]
"""Returns what comes of an item in about so many seconds of the clock in force."""
Found = Sequence[tuple[Any, Any]]
"""Items and what came of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What all items together may take.

    Attributes
    ----------
    workers
        How many items are worked on at a time.
    left
        Returns the seconds that are left for all items that wait. Each gets its part
        when it begins: on the wall one round of as many as there are workers; where
        work is counted the same for all, so that workers do not matter.
    in_turn
        Items that may take all the seconds that are left; where work is counted
        they come one after the other, before the rest.
    """

    workers: int
    left: Callable[[], float]
    in_turn: Callable[[Any], bool] = lambda item: False


class Engine(Protocol):
    """Works on items side by side."""

    def __call__(
        self,
        work: Work,
        items: Sequence[Any],
        share: Share,
        done: Callable[[Found], None] = lambda found: None,
    ) -> list[Any]:
        """Return ``work(item, seconds)`` for all items, in their order.

        ``done`` is told here, not where the work is done, and never twice at once:
        after every item on the wall; once, after all, where work is counted.
        """
        ...


ENGINES: Registry[Engine] = Registry("engine")
