"""What tests of ranks as processes share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from planner.executor.world.nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator["Nursery"]:
    """Give all worlds one process to come from: torch is imported once."""
    pytest.importorskip("torch")
    from planner.executor.world.nursery import Nursery

    with Nursery() as shared:
        yield shared
