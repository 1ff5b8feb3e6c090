"""All layers in one call of compiled code."""

from typing import Any

import numpy as np
from numba import njit

from planner.strategies.fast.copies import measure, published, replicate
from planner.strategies.fast.domains import deal
from planner.strategies.fast.many_slots import relieve
from planner.strategies.fast.two_slots import place_pairs
from planner.strategies.search.compiling import inner


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def place_layers(
    load_LE: Any, domain_G: Any, moves: int, seeds_L: Any, slots_LGJ: Any
) -> None:
    """Fill ``slots_LGJ`` with placements of low greatest load per GPU.

    Parameters
    ----------
    load_LE
        Load of each expert, float64; its copies share it evenly.
    domain_G
        Domain of each GPU of an EP set, numbered from 0.
    moves
        Work per layer: moves tried with two slots per GPU, steps with more.
    seeds_L
        Start of each layer's random numbers, not 0.
    """
    for layer in range(load_LE.shape[0]):
        load_E, slots_GJ = load_LE[layer], slots_LGJ[layer]
        slots = slots_GJ.shape[1]
        if slots == 1:
            spread_copies(load_E, slots_GJ)
        else:
            published(load_E, slots_GJ)
        if slots == 2:
            better_pairs(load_E, slots_GJ, moves, seeds_L[layer : layer + 1])
        elif slots > 2:
            relieve(slots_GJ, load_E, moves)
        deal(slots_GJ, load_E, domain_G)


@inner  # type: ignore[untyped-decorator]
def spread_copies(load_E: Any, slots_G1: Any) -> None:
    """One slot per GPU: the greatest load/copies is as low as it can be."""
    expert_P = np.empty(slots_G1.size, dtype=np.int64)
    replicate(load_E, slots_G1.size, expert_P, np.empty(load_E.size, dtype=np.int64))
    slots_G1[:, 0] = expert_P


@inner  # type: ignore[untyped-decorator]
def better_pairs(load_E: Any, slots_G2: Any, moves: int, random_1: Any) -> None:
    """Two slots per GPU: begin where no copy is larger than it must be."""
    load_G = np.empty(slots_G2.shape[0])
    best = measure(slots_G2, load_E, load_G)
    expert_P = np.empty(slots_G2.size, dtype=np.int64)
    copies_E = np.empty(load_E.size, dtype=np.int64)
    replicate(load_E, slots_G2.shape[0], expert_P, copies_E)
    place_pairs(load_E, copies_E, slots_G2, best, moves, random_1)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def copies_of_each(load_LE: Any, slots: int) -> Any:
    """Return the copies that make the greatest load per copy least, [L, E]."""
    copies_LE = np.empty(load_LE.shape, dtype=np.int64)
    expert_P = np.empty(slots, dtype=np.int64)
    for layer in range(load_LE.shape[0]):
        replicate(load_LE[layer], slots, expert_P, copies_LE[layer])
    return copies_LE
