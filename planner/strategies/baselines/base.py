"""The family of baselines: what engines do today (rule 30).

A baseline returns its slots as published, duplicates on a GPU included; as a
start or as a plan of its own it is repaired first (rule 29).
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from planner.arrays import FloatArray, IdArray, IntArray
from planner.evaluator.joint import planning_tokens
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.registry import Registry
from planner.workload.parts import CountsPart, Part


class AbsentBaselineError(Exception):
    """This baseline does not exist for the instance; the text says why."""


class Baseline(Protocol):
    """Slots [L, ep, J] as published."""

    def __call__(self, instance: PlacementInstance) -> IdArray:
        """Return the slots, or raise :class:`AbsentBaselineError`."""
        ...


BASELINES: Registry[Baseline] = Registry("baseline")
COSTS: dict[str, Callable[[PlacementInstance], float]] = {}
"""Processor seconds, about, of baselines that are not made in no time."""
COST_SHARE = 0.1
"""Of a time limit: a baseline that takes longer is left out."""
_PARTS = 10**9


def expert_loads(instance: PlacementInstance) -> IntArray:
    """Return (token, expert) pairs of the planning part, int64 [L, E].

    Of several workloads the weighted mean of pairs per token, in billionths.
    """
    loads = [
        part_loads(view.planning, instance.model.experts) for view in instance.views
    ]
    if len(loads) == 1:
        return loads[0]
    mean_LE = sum(
        load_LE * float(workload.weight * _PARTS / tokens)
        for load_LE, workload, tokens in zip(
            loads, instance.workloads, planning_tokens(instance), strict=True
        )
        if tokens
    )
    whole_LE: IntArray = np.rint(np.asarray(mean_LE)).astype(np.int64)
    return whole_LE


def part_loads(part: Part, experts: int) -> IntArray:
    """Return (token, expert) pairs of one part, int64 [L, E]."""
    if isinstance(part, CountsPart):
        return part.tokens_LE
    counts = [
        np.bincount(ids_TK[ids_TK >= 0].astype(np.int64), minlength=experts)
        for ids_TK in part.experts_LTK
    ]
    return np.stack(counts)


def published_plan(
    instance: PlacementInstance, name: str, limit: float | None = None
) -> PlacementPlan:
    """Return the plan of baseline ``name`` as published.

    Raises
    ------
    AbsentBaselineError
        If there is none, or it would take too much of a time limit in seconds.
    """
    cost = COSTS[name](instance) if limit is not None and name in COSTS else 0.0
    if limit is not None and cost > COST_SHARE * limit:
        raise AbsentBaselineError(f"takes about {cost:.1f} s of --time-limit {limit:g}")
    return PlacementPlan(
        layer_numbers=instance.model.moe_layers,
        slots_LGJ=BASELINES.get(name)(instance),
    )


def repaired(instance: PlacementInstance, plan: PlacementPlan) -> PlacementPlan:
    """Replace every duplicate by the expert of greatest load/copies not on its GPU.

    Ties take the lowest id (rule 29). Returns ``plan`` itself if it has none.
    """
    if not plan.has_duplicates():
        return plan
    load_LE = expert_loads(instance).astype(np.float64)
    slots_LGJ = plan.slots_LGJ.copy()
    for layer, slots_GJ in enumerate(slots_LGJ):
        _repair_layer(slots_GJ, load_LE[layer])
    return PlacementPlan(layer_numbers=plan.layer_numbers, slots_LGJ=slots_LGJ)


def _repair_layer(slots_GJ: IdArray, load_E: FloatArray) -> None:
    copies_E = np.bincount(slots_GJ[slots_GJ >= 0], minlength=load_E.size)
    for gpu_slots in slots_GJ:
        for position in range(gpu_slots.size):
            expert = int(gpu_slots[position])
            if expert < 0 or expert not in gpu_slots[:position]:
                continue
            copies_E[expert] -= 1
            urgency = load_E / np.maximum(copies_E, 1)
            urgency[gpu_slots[gpu_slots >= 0]] = -1.0
            chosen = int(np.argmax(urgency))
            gpu_slots[position] = chosen
            copies_E[chosen] += 1
