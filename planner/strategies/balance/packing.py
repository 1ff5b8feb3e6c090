"""Heaviest copy first onto the lightest GPU with room: the start of the swaps."""

import numpy as np
from numba import njit

from planner.arrays import FloatArray, IdArray, IntArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def packed_slots(
    size_E: FloatArray, copies_E: IntArray, gpus: int, slots_per_gpu: int
) -> IdArray:
    """Return slots [G, J] without two copies of an expert on a GPU.

    Parameters
    ----------
    size_E, copies_E
        Load and number of the copies of each expert; they fill all slots, and no
        expert has more than G.
    """
    slots_GJ = np.full((gpus, slots_per_gpu), -1, dtype=np.int16)
    load_G, used_G = np.zeros(gpus), np.zeros(gpus, dtype=np.int64)
    for expert in np.argsort(-size_E):
        for _ in range(copies_E[expert]):
            chosen, least = -1, np.inf
            for gpu in range(gpus):
                room = used_G[gpu] < slots_per_gpu
                if not room or (slots_GJ[gpu] == expert).any():
                    continue
                if load_G[gpu] < least:
                    chosen, least = gpu, load_G[gpu]
            if chosen < 0:
                chosen = _make_room(slots_GJ, load_G, used_G, size_E, expert)
            slots_GJ[chosen, used_G[chosen]] = expert
            load_G[chosen] += size_E[expert]
            used_G[chosen] += 1
    return slots_GJ


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _make_room(
    slots_GJ: IdArray,
    load_G: FloatArray,
    used_G: IntArray,
    size_E: FloatArray,
    expert: int,
) -> int:
    """Free the last slot of a full GPU without ``expert``; return the GPU.

    Every GPU with room holds the expert. A full one without it has more experts than
    the one with room can hold besides, so one of them can move there.
    """
    gpus, slots = slots_GJ.shape
    room = 0
    while used_G[room] == slots:
        room += 1
    for gpu in range(gpus):
        if used_G[gpu] < slots or (slots_GJ[gpu] == expert).any():
            continue
        for slot in range(slots - 1, -1, -1):
            moved = slots_GJ[gpu, slot]
            if not (slots_GJ[room] == moved).any():
                slots_GJ[room, used_G[room]] = moved
                used_G[room] += 1
                load_G[room] += size_E[moved]
                load_G[gpu] -= size_E[moved]
                used_G[gpu] -= 1
                slots_GJ[gpu, slot] = slots_GJ[gpu, slots - 1]
                slots_GJ[gpu, slots - 1] = -1
                return gpu
    return -1


def parted(slots_GJ: IdArray, size_E: FloatArray) -> IdArray | None:
    """Return slots in which no GPU holds an expert twice; None where none is near.

    A second copy trades places with the one elsewhere that makes the lesser greatest
    load of the two GPUs.
    """
    slots_GJ = slots_GJ.copy()
    order_GJ = np.sort(slots_GJ, axis=1)
    for gpu in np.flatnonzero((order_GJ[:, 1:] == order_GJ[:, :-1]).any(axis=1)):
        _, first = np.unique(slots_GJ[gpu], return_index=True)
        for slot in np.setdiff1d(np.arange(slots_GJ.shape[1]), first):
            twin = slots_GJ[gpu, slot]
            size_GJ = size_E[slots_GJ]
            load_G, moved_GJ = size_GJ.sum(axis=1), size_E[twin] - size_GJ
            made_GJ = np.maximum(load_G[gpu] - moved_GJ, load_G[:, None] + moved_GJ)
            made_GJ[(slots_GJ == twin).any(axis=1)] = np.inf
            made_GJ[np.isin(slots_GJ, slots_GJ[gpu])] = np.inf
            row, column = divmod(int(np.argmin(made_GJ)), slots_GJ.shape[1])
            if not np.isfinite(made_GJ[row, column]):
                return None
            slots_GJ[gpu, slot], slots_GJ[row, column] = slots_GJ[row, column], twin
    return slots_GJ
