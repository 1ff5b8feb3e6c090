"""One placement for several workloads under ``even``: the worst or the mean counts.

Each workload is measured in its own mean load of a GPU, so max/mean of every one is
what is compared. Counts tables only: a copy of r carries load/r.
"""

from dataclasses import dataclass

import numpy as np

from planner import clock
from planner.arrays import FloatArray, IdArray, IntArray
from planner.strategies.balance.layer import Effort
from planner.strategies.balance.packing import packed_slots
from planner.strategies.balance.pairing import greedy_counts
from planner.strategies.balance.problem import most_copies
from planner.strategies.balance.swaps import Task, anneal_slots, value_of

ROUNDS = ((0.0, 1e-3), (0.5, 1e-4), (0.8, 1e-4))
"""Level between the bound (0) and the best value (1), and the first temperature."""
COOLING = 1e-4
PROPOSALS = 1_500
"""Moves of a round for every slot."""
CLOSE = 1e-4
MOVES_PER_SECOND = 1_000_000.0
"""Rate of counted work."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Workloads:
    """Loads of one layer by workload.

    Attributes
    ----------
    load_KE
        (token, expert) pairs, a row per workload.
    weight_K
        Weights of the mean, adding up to 1.
    worst
        Judge by the worst workload instead of the mean.
    """

    load_KE: IntArray
    weight_K: FloatArray
    worst: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedLayer:
    """Slots, their worst or mean max/mean, and a lower bound of it."""

    slots_GJ: IdArray
    value: float
    bound: float


def solve_workloads(
    workloads: Workloads,
    gpus: int,
    slots_per_gpu: int,
    seconds: float,
    effort: Effort,
) -> SharedLayer:
    """Place one layer for all workloads at once.

    The bound is 1, or what an expert's copies make in the workload where that is
    most (the least largest copy with P slots).
    """
    deadline = clock.now() + seconds
    task = _task(workloads, gpus, slots_per_gpu)
    slots = gpus * slots_per_gpu
    least = _bound(task, slots)
    best_GJ = _start(task, task.weight_K @ task.size_KER[:, :, 0], gpus, slots_per_gpu)
    value = value_of(task, best_GJ)
    for number in range(effort.rounds):
        if value <= least * (1 + CLOSE) or clock.now() >= deadline:
            break
        share, hot = ROUNDS[number % len(ROUNDS)]
        found, found_GJ = anneal_slots(
            task,
            best_GJ,
            level=least + share * (value - least),
            heat=(hot, hot * COOLING),
            proposals=PROPOSALS * slots,
            seed=effort.seed + number,
        )
        clock.spend(PROPOSALS * slots * task.weight_K.size / MOVES_PER_SECOND)
        if found < value:
            value, best_GJ = found, found_GJ
    return SharedLayer(slots_GJ=best_GJ, value=value, bound=least)


def _task(workloads: Workloads, gpus: int, slots_per_gpu: int) -> Task:
    load_KE = np.asarray(workloads.load_KE, dtype=np.float64)
    mean_K = np.maximum(load_KE.sum(axis=1), 1.0) / gpus
    copies_R = np.arange(1, most_copies(load_KE.shape[1], gpus, slots_per_gpu) + 1)
    size_KER = (load_KE / mean_K[:, None])[:, :, None] / copies_R
    return Task(size_KER, np.asarray(workloads.weight_K), workloads.worst)


def _start(task: Task, load_E: FloatArray, gpus: int, slots_per_gpu: int) -> IdArray:
    size_ER = load_E[:, None] / np.arange(1, task.size_KER.shape[2] + 1)
    copies_E = greedy_counts(size_ER, gpus * slots_per_gpu)
    size_E = size_ER[np.arange(load_E.size), copies_E - 1]
    packed_GJ: IdArray = packed_slots(size_E, copies_E, gpus, slots_per_gpu)
    return packed_GJ


def _bound(task: Task, slots: int) -> float:
    """Return the worst or mean of each workload's own bound."""
    least_K = np.ones(task.weight_K.size)
    for k, size_ER in enumerate(task.size_KER):
        copies_E = greedy_counts(np.ascontiguousarray(size_ER), slots)
        largest = size_ER[np.arange(copies_E.size), copies_E - 1].max()
        least_K[k] = max(1.0, float(largest))
    return float(least_K.max() if task.worst else least_K @ task.weight_K)
