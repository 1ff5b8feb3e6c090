"""How many copies each expert gets, and EPLB's packing of them on GPUs."""

from typing import Any

import numpy as np

from planner.strategies.search.compiling import inner


@inner  # type: ignore[untyped-decorator]
def sift(heap_X: Any, key_X: Any, at: int) -> None:
    """Restore a heap whose entry ``at`` grew: least key first, then lowest id."""
    moved = heap_X[at]
    while True:
        child = 2 * at + 1
        if child >= heap_X.size:
            break
        below = heap_X[child]
        if child + 1 < heap_X.size:
            other = heap_X[child + 1]
            if key_X[other] < key_X[below] or (
                key_X[other] == key_X[below] and other < below
            ):
                child, below = child + 1, other
        if key_X[moved] < key_X[below] or (
            key_X[moved] == key_X[below] and moved < below
        ):
            break
        heap_X[at] = below
        at = child
    heap_X[at] = moved


@inner  # type: ignore[untyped-decorator]
def heap_of(key_X: Any) -> Any:
    """Return a heap of all ids by their keys."""
    heap_X = np.arange(key_X.size)
    for at in range(key_X.size // 2 - 1, -1, -1):
        sift(heap_X, key_X, at)
    return heap_X


@inner  # type: ignore[untyped-decorator]
def descending(value_X: Any) -> Any:
    """Return the ids by descending value, ties by id; values are finite."""
    key_X = -value_X
    heap_X, order_X = heap_of(key_X), np.empty(value_X.size, dtype=np.int64)
    for at in range(value_X.size):
        order_X[at] = heap_X[0]
        key_X[heap_X[0]] = np.inf
        sift(heap_X, key_X, 0)
    return order_X


@inner  # type: ignore[untyped-decorator]
def replicate(load_E: Any, most: int, expert_P: Any, copies_E: Any) -> None:
    """Give every expert a copy, then each further one to the greatest load/copies.

    Nobody gets more than ``most``. Ties go to the lower id, as in EPLB, and the
    arithmetic is that of ``load_E``.
    """
    key_E = -load_E
    if most == 1:
        key_E[:] = np.inf
    heap_E = heap_of(key_E)
    copies_E[:] = 1
    for slot in range(expert_P.size):
        if slot < load_E.size:
            expert_P[slot] = slot
            continue
        expert = heap_E[0]
        expert_P[slot] = expert
        copies_E[expert] += 1
        if copies_E[expert] < most:
            key_E[expert] = -(load_E[expert] / load_E.dtype.type(copies_E[expert]))
        else:
            key_E[expert] = np.inf
        sift(heap_E, key_E, 0)


@inner  # type: ignore[untyped-decorator]
def pack(expert_P: Any, size_P: Any, slots_GJ: Any) -> None:
    """Fill the slots: greatest size first, each into the lightest GPU with room."""
    gpus, room = slots_GJ.shape
    heap_G, total_G = np.arange(gpus), np.zeros(gpus, dtype=size_P.dtype)
    used_G = np.zeros(gpus, dtype=np.int64)
    for item in descending(size_P):
        gpu = heap_G[0]
        slots_GJ[gpu, used_G[gpu]] = expert_P[item]
        used_G[gpu] += 1
        total_G[gpu] += size_P[item]
        if used_G[gpu] == room:
            total_G[gpu] = np.inf
        sift(heap_G, total_G, 0)


@inner  # type: ignore[untyped-decorator]
def repair(slots_GJ: Any, load_E: Any) -> None:
    """Replace duplicates on a GPU by the greatest load/copies not on it (rule 29)."""
    copies_E = np.bincount(slots_GJ.ravel(), minlength=load_E.size)
    seen_E = np.full(load_E.size, -1)
    for gpu in range(slots_GJ.shape[0]):
        for position in range(slots_GJ.shape[1]):
            expert = slots_GJ[gpu, position]
            if seen_E[expert] != gpu:
                seen_E[expert] = gpu
                continue
            copies_E[expert] -= 1
            chosen = most_urgent(slots_GJ[gpu], load_E, copies_E)
            slots_GJ[gpu, position] = chosen
            copies_E[chosen] += 1
            seen_E[chosen] = gpu


@inner  # type: ignore[untyped-decorator]
def most_urgent(held_J: Any, load_E: Any, copies_E: Any) -> int:
    """Return the expert of greatest load/copies that is not among ``held_J``."""
    chosen, greatest = -1, -1.0
    for expert in range(load_E.size):
        urgency = load_E[expert] / max(copies_E[expert], 1)
        if urgency > greatest and not holds(held_J, expert):
            chosen, greatest = expert, urgency
    return chosen


@inner  # type: ignore[untyped-decorator]
def holds(held_J: Any, expert: int) -> bool:
    """Tell whether ``expert`` is in one of these slots."""
    for held in held_J:  # noqa: SIM110 — numba compiles no generators
        if held == expert:
            return True
    return False


@inner  # type: ignore[untyped-decorator]
def overwrite(slots_GJ: Any, by_GJ: Any) -> None:
    """Make the slots those of another placement."""
    # Assigning to the whole array would do, but takes numba seconds to compile.
    for gpu in range(slots_GJ.shape[0]):
        slots_GJ[gpu] = by_GJ[gpu]


@inner  # type: ignore[untyped-decorator]
def published(load_E: Any, slots_GJ: Any) -> None:
    """Fill the slots as EPLB does, in float32 (rule 30), duplicates repaired.

    Two slots per GPU or more: EPLB does not pack single ones.
    """
    rough_E = load_E.astype(np.float32)
    expert_P = np.empty(slots_GJ.size, dtype=np.int64)
    copies_E = np.empty(load_E.size, dtype=np.int64)
    replicate(rough_E, expert_P.size + 1, expert_P, copies_E)
    size_P = np.empty(expert_P.size, dtype=np.float32)
    for slot, expert in enumerate(expert_P):
        size_P[slot] = rough_E[expert] / np.float32(copies_E[expert])
    pack(expert_P, size_P, slots_GJ)
    repair(slots_GJ, load_E)


@inner  # type: ignore[untyped-decorator]
def measure(slots_GJ: Any, load_E: Any, load_G: Any) -> float:
    """Write the load of every GPU if copies share evenly; return the greatest."""
    copies_E = np.bincount(slots_GJ.ravel(), minlength=load_E.size)
    load_G[:] = 0.0
    for gpu in range(slots_GJ.shape[0]):
        for expert in slots_GJ[gpu]:
            load_G[gpu] += load_E[expert] / copies_E[expert]
    greatest: float = load_G.max()
    return greatest


@inner  # type: ignore[untyped-decorator]
def draw(below: int, random_1: Any) -> Any:
    """Return a random number from 0 to ``below`` − 1; the state must not be 0."""
    word = random_1[0]
    word ^= word << np.uint64(13)
    word ^= word >> np.uint64(7)
    word ^= word << np.uint64(17)
    random_1[0] = word
    return np.int64((word >> np.uint64(32)) * np.uint64(below) >> np.uint64(32))
