"""Three slots per GPU or more: relieve the heaviest GPU, step by step.

A step lowers the heaviest GPU and raises none to its load, so the loads in
descending order fall lexicographically and the steps come to an end.
"""

from typing import Any, NamedTuple

import numpy as np

from planner.arrays import FloatArray, IdArray, IntArray
from planner.strategies.fast.copies import draw, holds, measure, overwrite
from planner.strategies.search.compiling import inner

TRIES = 8
"""Random changes tried at a time, at most."""
BETTER = 1 - 1e-12
"""What counts as lower, so that rounding makes no endless steps."""


class Slots(NamedTuple):
    """The slots of a layer, the load of each GPU, copies and the load of one."""

    slots_GJ: IdArray
    load_G: FloatArray
    load_E: FloatArray
    copies_E: IntArray
    size_E: FloatArray


@inner  # type: ignore[untyped-decorator]
def swap(state: Slots, heaviest: int) -> bool:
    """Swap an expert of the heaviest GPU as leaves the lowest of the two loads."""
    slots_GJ, load_G, size_E = state.slots_GJ, state.load_G, state.size_E
    least, chosen = load_G[heaviest] * BETTER, (-1, -1, -1)
    for own in range(slots_GJ.shape[1]):
        size = size_E[slots_GJ[heaviest, own]]
        for gpu in range(slots_GJ.shape[0]):
            for slot in range(slots_GJ.shape[1]):
                less = size - size_E[slots_GJ[gpu, slot]]
                after = max(load_G[heaviest] - less, load_G[gpu] + less)
                if after < least and not (
                    holds(slots_GJ[gpu], slots_GJ[heaviest, own])
                    or holds(slots_GJ[heaviest], slots_GJ[gpu, slot])
                ):
                    least, chosen = after, (own, gpu, slot)
    own, gpu, slot = chosen
    if gpu < 0:
        return False
    mine, other = slots_GJ[heaviest, own], slots_GJ[gpu, slot]
    load_G[heaviest] -= size_E[mine] - size_E[other]
    load_G[gpu] += size_E[mine] - size_E[other]
    slots_GJ[heaviest, own], slots_GJ[gpu, slot] = other, mine
    return True


@inner  # type: ignore[untyped-decorator]
def replace(state: Slots, heaviest: int) -> bool:
    """Give an expert of the heaviest GPU one more copy, in the slot of another's."""
    load_G, copies_E, size_E = state.load_G, state.copies_E, state.size_E
    least, chosen = load_G[heaviest] * BETTER, (-1, -1, -1)
    highest_2E, holder_E = np.zeros((2, size_E.size)), np.zeros_like(copies_E)
    for expert in state.slots_GJ[heaviest]:
        size = state.load_E[expert] / (copies_E[expert] + 1)
        spread(state, expert, size - size_E[expert])
        two_highest(state, highest_2E, holder_E)
        for gpu in range(load_G.size):
            for slot in range(state.slots_GJ.shape[1]):
                other = state.slots_GJ[gpu, slot]
                if copies_E[other] == 1 or other == expert:
                    continue
                more = state.load_E[other] / (copies_E[other] - 1) - size_E[other]
                rest = highest_2E[1 if holder_E[other] == gpu else 0, other] + more
                after = max(rest, load_G[gpu] - size_E[other] + size)
                if max(after, load_G[heaviest]) < least and not holds(
                    state.slots_GJ[gpu], expert
                ):
                    least, chosen = max(after, load_G[heaviest]), (expert, gpu, slot)
        spread(state, expert, size_E[expert] - size)
    expert, gpu, slot = chosen
    if gpu < 0:
        return False
    other = state.slots_GJ[gpu, slot]
    state.slots_GJ[gpu, slot] = expert
    copies_E[expert] += 1
    copies_E[other] -= 1
    size_E[expert] = state.load_E[expert] / copies_E[expert]
    size_E[other] = state.load_E[other] / copies_E[other]
    measure(state.slots_GJ, state.load_E, load_G)
    return True


@inner  # type: ignore[untyped-decorator]
def spread(state: Slots, expert: int, more: float) -> None:
    """Add ``more`` to the load of every GPU that holds ``expert``."""
    for gpu in range(state.load_G.size):
        if holds(state.slots_GJ[gpu], expert):
            state.load_G[gpu] += more


@inner  # type: ignore[untyped-decorator]
def two_highest(state: Slots, highest_2E: Any, holder_E: Any) -> None:
    """Write each expert's two highest loads among its GPUs, and the highest one."""
    highest_2E[:] = -np.inf
    for gpu in range(state.load_G.size):
        load = state.load_G[gpu]
        for expert in state.slots_GJ[gpu]:
            if load > highest_2E[0, expert]:
                highest_2E[1, expert] = highest_2E[0, expert]
                highest_2E[0, expert], holder_E[expert] = load, gpu
            elif load > highest_2E[1, expert]:
                highest_2E[1, expert] = load


@inner  # type: ignore[untyped-decorator]
def settle(state: Slots, steps: int) -> int:
    """Take steps while there are any; return how many are left of ``steps``."""
    while steps > 0:
        steps -= 1
        heaviest = int(np.argmax(state.load_G))
        if not swap(state, heaviest) and not replace(state, heaviest):
            break
    return steps


@inner  # type: ignore[untyped-decorator]
def disturb(state: Slots, random_1: Any) -> None:
    """Put random experts in random slots, where that leaves the slots legal."""
    slots_GJ, copies_E = state.slots_GJ, state.copies_E
    for _ in range(1 + draw(TRIES, random_1)):
        gpu, slot = draw(slots_GJ.shape[0], random_1), draw(slots_GJ.shape[1], random_1)
        other_gpu = draw(slots_GJ.shape[0], random_1)
        other_slot = draw(slots_GJ.shape[1], random_1)
        mine, other = slots_GJ[gpu, slot], slots_GJ[other_gpu, other_slot]
        if holds(slots_GJ[gpu], other):
            continue
        if copies_E[mine] > 1 and draw(2, random_1) == 0:
            slots_GJ[gpu, slot] = other
            copies_E[mine] -= 1
            copies_E[other] += 1
        elif not holds(slots_GJ[other_gpu], mine):
            slots_GJ[gpu, slot], slots_GJ[other_gpu, other_slot] = other, mine
    for expert in range(copies_E.size):
        state.size_E[expert] = state.load_E[expert] / copies_E[expert]
    measure(slots_GJ, state.load_E, state.load_G)


@inner  # type: ignore[untyped-decorator]
def relieve(best_GJ: Any, load_E: Any, steps: int, random_1: Any) -> None:
    """Better the slots by at most ``steps`` steps.

    Where no step is left, a copy of the best is disturbed and settles anew.
    """
    slots_GJ, load_G = best_GJ.copy(), np.zeros(best_GJ.shape[0])
    copies_E = np.bincount(slots_GJ.ravel(), minlength=load_E.size)
    best = measure(slots_GJ, load_E, load_G)
    state = Slots(slots_GJ, load_G, load_E, copies_E, load_E / copies_E)
    floor = load_E.sum() / load_G.size
    while steps > 0 and best > floor * (1 + 1e-9):
        steps = settle(state, steps)
        found = measure(slots_GJ, load_E, load_G)
        if found <= best:
            best = found
            overwrite(best_GJ, slots_GJ)
        else:
            overwrite(slots_GJ, best_GJ)
            copies_E[:] = np.bincount(slots_GJ.ravel(), minlength=load_E.size)
        disturb(state, random_1)
