"""All layers in one call of compiled code."""

from typing import Any

import numpy as np
from numba import njit

from planner.strategies.fast.copies import published, replicate
from planner.strategies.fast.domains import deal
from planner.strategies.fast.many_slots import relieve
from planner.strategies.fast.two_slots import HALF, place_pairs

STEP = 2
"""What looking at two slots costs, in looks at one number of a two-slot move."""
EVENING = 20
"""Part of the work with two slots per GPU that goes into single steps, from below."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def place_layers(
    load_LE: Any,
    domain_G: Any,
    moves: int,
    random_L: Any,
    slots_LGJ: Any,
    floor_LE: Any,
) -> None:
    """Fill ``slots_LGJ`` with placements whose heaviest GPU is light.

    Parameters
    ----------
    load_LE
        Load of each expert, float64; its copies share it evenly.
    domain_G
        Domain of each GPU of an EP set, numbered from 0.
    moves
        Work per layer: moves tried with two slots per GPU; with more, what it takes
        to look as often at pairs of slots.
    random_L
        Seed of each layer's random numbers, not 0; changed.
    floor_LE
        Filled with the copies that make the greatest load per copy least.
    """
    expert_P = np.empty(slots_LGJ[0].size, dtype=np.int64)
    gpus, slots = slots_LGJ.shape[1:]
    for layer in range(load_LE.shape[0]):
        load_E, slots_GJ = load_LE[layer], slots_LGJ[layer]
        replicate(load_E, gpus, expert_P, floor_LE[layer])
        if slots == 1:
            slots_GJ[:, 0] = expert_P
        else:
            published(load_E, slots_GJ)
        random_1 = random_L[layer : layer + 1]
        steps = moves * HALF // (STEP * gpus * slots * slots)
        if slots == 2:
            place_pairs(load_E, floor_LE[layer].copy(), slots_GJ, moves, random_1)
            steps //= EVENING
        if slots > 1:
            relieve(slots_GJ, load_E, steps, random_1)
        deal(slots_GJ, load_E, domain_G)
