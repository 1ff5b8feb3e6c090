"""Any number of slots: even out GPUs by swaps and by giving copies to others.

Several workloads can share one placement: loads are kept for each (axis K), and what
counts is the worst or the weighted mean of their greatest loads. As in
:mod:`~planner.strategies.balance.pairing`, squares of what GPUs have above a level are
annealed. Sizes are given in units of each workload's mean load.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from planner.arrays import FloatArray, IdArray, IntArray
from planner.strategies.balance.chance import seeded, taken
from planner.strategies.search.anneal import draw, holds
from planner.strategies.search.compiling import inner


class Task(NamedTuple):
    """What is placed and judged.

    ``size_KER``: what one of r copies carries, by workload; ``weight_K``: the
    workloads' weights in the mean; ``worst``: judge by the worst one instead.
    """

    size_KER: FloatArray
    weight_K: FloatArray
    worst: bool


class State(NamedTuple):
    """A placement with what follows from it.

    ``holder_EM[e, :copies_E[e]]`` are the GPUs of an expert's copies.
    """

    slots_GJ: IdArray
    copies_E: IntArray
    holder_EM: IntArray
    load_KG: FloatArray
    change_KG: FloatArray


@inner  # type: ignore[untyped-decorator]
def _judge(task: Any, load_KG: Any) -> float:
    """Return the worst, or the weighted mean, of the greatest loads."""
    worst, mean = 0.0, 0.0
    for k in range(load_KG.shape[0]):
        greatest = load_KG[k].max()
        worst = max(worst, greatest)
        mean += task.weight_K[k] * greatest
    return worst if task.worst else mean


@inner  # type: ignore[untyped-decorator]
def _above(load: float, level: float) -> float:
    return (load - level) * (load - level) if load > level else 0.0


@inner  # type: ignore[untyped-decorator]
def _replace(state: Any, expert: int, gpu: int, other: int) -> None:
    """Note that a copy of an expert is on ``other`` instead of ``gpu``."""
    at = 0
    while state.holder_EM[expert, at] != gpu:
        at += 1
    state.holder_EM[expert, at] = other


@inner  # type: ignore[untyped-decorator]
def _swap_change(task: Any, state: Any, move: Any, level: float) -> float:
    """Return what exchanging two slots changes in the excess."""
    near, one, far, two = move
    change = 0.0
    for k in range(task.weight_K.size):
        moved = (
            task.size_KER[k, one, state.copies_E[one] - 1]
            - task.size_KER[k, two, state.copies_E[two] - 1]
        )
        at_near, at_far = state.load_KG[k, near], state.load_KG[k, far]
        change += task.weight_K[k] * (
            _above(at_near - moved, level)
            - _above(at_near, level)
            + _above(at_far + moved, level)
            - _above(at_far, level)
        )
    return change


@inner  # type: ignore[untyped-decorator]
def _spread_change(task: Any, state: Any, expert: int, step: int, gpu: int) -> None:
    """Add to ``change_KG`` what one copy more (on ``gpu``) or less there means."""
    copies = state.copies_E[expert]
    for k in range(task.weight_K.size):
        before = task.size_KER[k, expert, copies - 1]
        after = task.size_KER[k, expert, copies + step - 1]
        for at in range(copies):
            state.change_KG[k, state.holder_EM[expert, at]] += after - before
        state.change_KG[k, gpu] += after if step > 0 else -after


@inner  # type: ignore[untyped-decorator]
def _gathered(task: Any, state: Any, level: float) -> float:
    change = 0.0
    for k in range(task.weight_K.size):
        for gpu in range(state.load_KG.shape[1]):
            moved = state.change_KG[k, gpu]
            if moved != 0.0:
                load = state.load_KG[k, gpu]
                change += task.weight_K[k] * (
                    _above(load + moved, level) - _above(load, level)
                )
    return change


@inner  # type: ignore[untyped-decorator]
def _do_swap(task: Any, state: Any, near: int, slot: int, far: int, place: int) -> None:
    one, two = (
        np.int64(state.slots_GJ[near, slot]),
        np.int64(state.slots_GJ[far, place]),
    )
    for k in range(task.weight_K.size):
        moved = (
            task.size_KER[k, one, state.copies_E[one] - 1]
            - task.size_KER[k, two, state.copies_E[two] - 1]
        )
        state.load_KG[k, near] -= moved
        state.load_KG[k, far] += moved
    state.slots_GJ[near, slot], state.slots_GJ[far, place] = two, one
    _replace(state, one, near, far)
    _replace(state, two, far, near)


@inner  # type: ignore[untyped-decorator]
def _do_recopy(state: Any, gpu: int, slot: int, loses: int, gains: int) -> None:
    """Put ``gains`` where ``loses`` was; the loads' change has been gathered."""
    state.load_KG[:, :] += state.change_KG
    state.slots_GJ[gpu, slot] = gains
    last = state.copies_E[loses] - 1
    _replace(state, loses, gpu, state.holder_EM[loses, last])
    state.copies_E[loses] = last
    state.holder_EM[gains, state.copies_E[gains]] = gpu
    state.copies_E[gains] += 1


@inner  # type: ignore[untyped-decorator]
def _try_swap(task: Any, state: Any, busy: int, knobs: Any, random_1: Any) -> Any:
    """Try to swap a slot of a GPU with one elsewhere; return the change made."""
    gpus, slots = state.slots_GJ.shape
    far = draw(random_1, gpus)
    slot, place = draw(random_1, slots), draw(random_1, slots)
    one, two = (
        np.int64(state.slots_GJ[busy, slot]),
        np.int64(state.slots_GJ[far, place]),
    )
    if far == busy or one == two:
        return 0.0
    if holds(state.slots_GJ, busy, two) or holds(state.slots_GJ, far, one):
        return 0.0
    change = _swap_change(task, state, (busy, one, far, two), knobs[0])
    if not taken(random_1, change, knobs[1]):
        return 0.0
    _do_swap(task, state, busy, slot, far, place)
    return change


@inner  # type: ignore[untyped-decorator]
def _try_recopy(task: Any, state: Any, busy: int, knobs: Any, random_1: Any) -> Any:
    """Try to give a copy of one expert to another in its slot.

    Half the time the busy GPU loses a copy; else one of its experts gains one, in
    the slot of an expert elsewhere.
    """
    gpus, slots = state.slots_GJ.shape
    if draw(random_1, 2) == 0:
        gpu, gains = busy, draw(random_1, state.copies_E.size)
    else:
        gpu = draw(random_1, gpus)
        gains = np.int64(state.slots_GJ[busy, draw(random_1, slots)])
    slot = draw(random_1, slots)
    loses = np.int64(state.slots_GJ[gpu, slot])
    if state.copies_E[loses] == 1 or holds(state.slots_GJ, gpu, gains):
        return 0.0
    if state.copies_E[gains] >= state.holder_EM.shape[1]:
        return 0.0
    state.change_KG[:, :] = 0.0
    _spread_change(task, state, loses, -1, gpu)
    _spread_change(task, state, gains, 1, gpu)
    change = _gathered(task, state, knobs[0])
    if not taken(random_1, change, knobs[1]):
        return 0.0
    _do_recopy(state, gpu, slot, loses, gains)
    return change


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(task: Any, state: Any) -> None:
    gpus, slots = state.slots_GJ.shape
    for gpu in range(gpus):
        for slot in range(slots):
            expert = state.slots_GJ[gpu, slot]
            state.holder_EM[expert, state.copies_E[expert]] = gpu
            state.copies_E[expert] += 1
    for k in range(task.weight_K.size):
        for gpu in range(gpus):
            for slot in range(slots):
                expert = state.slots_GJ[gpu, slot]
                copies = state.copies_E[expert]
                state.load_KG[k, gpu] += task.size_KER[k, expert, copies - 1]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _anneal(
    task: Any,
    state: Any,
    level: float,
    heat: tuple[float, float],
    proposals: int,
    random_1: Any,
) -> Any:
    gpus = state.slots_GJ.shape[0]
    best, best_GJ = _judge(task, state.load_KG), state.slots_GJ.copy()
    excess = 0.0
    for k in range(task.weight_K.size):
        for gpu in range(gpus):
            excess += task.weight_K[k] * _above(state.load_KG[k, gpu], level)
    lowest = excess
    temperature, cooling = heat[0], (heat[1] / heat[0]) ** (1.0 / proposals)
    for _ in range(proposals):
        temperature *= cooling
        k = draw(random_1, task.weight_K.size)
        busy, other = draw(random_1, gpus), draw(random_1, gpus)
        if state.load_KG[k, other] > state.load_KG[k, busy]:
            busy = other
        if draw(random_1, 5) > 0:
            change = _try_swap(task, state, busy, (level, temperature), random_1)
        else:
            change = _try_recopy(task, state, busy, (level, temperature), random_1)
        if change == 0.0:
            continue
        excess += change
        if excess < 2.0 * lowest:
            lowest = min(lowest, excess)
            value = _judge(task, state.load_KG)
            if value < best:
                best = value
                best_GJ[:, :] = state.slots_GJ
                if best <= level:
                    break
    return best, best_GJ


def state_of(task: Task, slots_GJ: IdArray) -> State:
    """Return the state with these slots."""
    workloads, experts, most = task.size_KER.shape
    state = State(
        slots_GJ=slots_GJ.copy(),
        copies_E=np.zeros(experts, dtype=np.int64),
        holder_EM=np.full((experts, most), -1, dtype=np.int64),
        load_KG=np.zeros((workloads, slots_GJ.shape[0])),
        change_KG=np.zeros((workloads, slots_GJ.shape[0])),
    )
    _fill(task, state)
    return state


def value_of(task: Task, slots_GJ: IdArray) -> float:
    """Return the worst or mean greatest load of a placement, in means."""
    load_KG = state_of(task, slots_GJ).load_KG
    greatest_K = load_KG.max(axis=1)
    return float(greatest_K.max() if task.worst else greatest_K @ task.weight_K)


def anneal_slots(
    task: Task,
    slots_GJ: IdArray,
    *,
    level: float,
    heat: tuple[float, float],
    proposals: int,
    seed: int,
) -> tuple[float, IdArray]:
    """Anneal from slots without duplicates; return the least value and its slots.

    Ends early when the value is at most ``level``.
    """
    state = state_of(task, slots_GJ)
    value, best_GJ = _anneal(task, state, level, heat, proposals, seeded(seed))
    return float(value), best_GJ
