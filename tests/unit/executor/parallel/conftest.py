"""Worlds of two and four ranks that stay for all tests of parallelism."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from planner.executor.world.nursery import Nursery
    from planner.executor.world.standing import StandingWorld


@pytest.fixture(scope="session")
def worlds(nursery: "Nursery") -> Iterator[dict[int, "StandingWorld"]]:
    """Give worlds by their size."""
    from planner.executor.world.standing import StandingWorld

    with (
        StandingWorld(2, nursery=nursery) as two,
        StandingWorld(4, nursery=nursery) as four,
    ):
        yield {2: two, 4: four}
