"""Random numbers of the compiled searches, and when a worse state is taken."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.strategies.search.anneal import draw
from planner.strategies.search.compiling import inner

FINE = 2**30


def seeded(seed: int) -> NDArray[np.uint64]:
    """Return the generator's state for a seed."""
    word = (seed * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03) % 2**64
    return np.asarray([word or 1], dtype=np.uint64)


@inner  # type: ignore[untyped-decorator]
def taken(random_1: Any, worse: float, temperature: float) -> Any:
    """Tell whether to take a state that is worse by this much."""
    if worse <= 0.0:
        return True
    return draw(random_1, FINE) < FINE * np.exp(-worse / temperature)
