"""One more slot on every GPU in every layer, with a plan that is quickly made."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from planner.arrays import IdArray
from planner.explain.binding import memory_row
from planner.explain.effects.base import demand_NE
from planner.explain.relax.base import RELAXATIONS, Question, Relaxation
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    expert_loads,
    published_plan,
    repaired,
)
from planner.strategies.choosing import Portfolio
from planner.traffic.base import TRAFFIC
from planner.units import show_bytes
from planner.workload.parts import TokenPart


@RELAXATIONS.register("slots")
def one_more_slot(question: Question) -> list[Relaxation]:
    """One slot more, whether or not it fits: the note says what memory it needs."""
    instance = question.instance
    row = memory_row(instance)
    if not row.grows:
        return []
    short = row.slot_bytes - row.free_bytes
    fits = (
        f"does not fit: {row.gpu} is {show_bytes(short)} short"
        if short > 0
        else f"fits: {row.gpu} keeps {show_bytes(-short)}"
    )
    wider = replace(
        instance,
        slots_per_gpu=instance.slots_per_gpu + 1,
        memory_bytes_G=instance.memory_bytes_G + row.slot_bytes,
    )
    return [
        Relaxation(
            kind="slots",
            what=f"{instance.slots_per_gpu + 1} slots per GPU instead of "
            f"{instance.slots_per_gpu}",
            instance=wider,
            plan=_widened(question, wider),
            plan_words="a quick plan (this one with copies, or a baseline)",
            note=f"{show_bytes(row.slot_bytes)} more per GPU; {fits}",
        )
    ]


def _widened(question: Question, wider: PlacementInstance) -> PlacementPlan:
    """Return the best layers of this plan with copies added, and of baselines."""
    own = [with_copies(question.instance, question.plan)]
    if any(TRAFFIC.get(view.traffic).chained for view in wider.views):
        return own[0]
    near = with_near_copies(question.instance, question.plan)
    portfolio = Portfolio(wider)
    for plan in (*own, *([] if near is None else [near]), *_baselines(wider)):
        portfolio.offer(plan, ("",) * wider.layer_count)
    return portfolio.plan()


def _baselines(wider: PlacementInstance) -> Iterator[PlacementPlan]:
    for name in BASELINES.names():
        try:
            yield repaired(wider, published_plan(wider, name))
        except AbsentBaselineError:
            continue


def with_copies(instance: PlacementInstance, plan: PlacementPlan) -> PlacementPlan:
    """Return the plan with one more copy on every GPU in every layer.

    GPU by GPU it takes the expert of greatest load per copy that it does not hold,
    the lowest id of equals.
    """
    load_LE = expert_loads(instance).astype(np.float64)

    def fill(layer: int, slots_GJ: IdArray) -> None:
        copies_E = np.bincount(slots_GJ[slots_GJ >= 0], minlength=load_LE.shape[1])
        for held_J in slots_GJ:
            urgency_E = load_LE[layer] / np.maximum(copies_E, 1)
            urgency_E[held_J[held_J >= 0]] = -1.0
            held_J[-1] = int(np.argmax(urgency_E))
            copies_E[held_J[-1]] += 1

    return _filled(plan, fill)


def with_near_copies(
    instance: PlacementInstance, plan: PlacementPlan
) -> PlacementPlan | None:
    """Return the plan with what every domain wants most and lacks, GPU by GPU.

    None without tokens, or where sets of GPUs hold copies for themselves.
    """
    part, layout = instance.planning, instance.layout
    if not isinstance(part, TokenPart) or layout.sets > 1:
        return None

    def fill(layer: int, slots_GJ: IdArray) -> None:
        wanted = demand_NE(part, layer, instance)
        for domain, members in enumerate(instance.topology.domains):
            lacking_E = wanted[domain].copy()
            held = slots_GJ[list(members)]
            lacking_E[held[held >= 0]] -= wanted.max() + 1
            for gpu in members:
                urgency_E = lacking_E.copy()
                urgency_E[slots_GJ[gpu][slots_GJ[gpu] >= 0]] = -np.inf
                slots_GJ[gpu, -1] = chosen = int(np.argmax(urgency_E))
                lacking_E[chosen] -= wanted.max() + 1

    return _filled(plan, fill)


def _filled(plan: PlacementPlan, fill: Callable[[int, IdArray], None]) -> PlacementPlan:
    """Add a slot to every GPU and have it filled, layer by layer.

    Split weights of experts that got a copy fall back to equal ones.
    """
    wider = np.full_like(plan.slots_LGJ[:, :, :1], -1)
    slots_LGJ = np.concatenate([plan.slots_LGJ, wider], axis=2)
    for layer, slots_GJ in enumerate(slots_LGJ):
        fill(layer, slots_GJ)
    changed = {
        (layer, int(expert))
        for layer, added_G in enumerate(slots_LGJ[:, :, -1])
        for expert in added_G
    }
    split = {key: weights for key, weights in plan.split.items() if key not in changed}
    return PlacementPlan(
        layer_numbers=plan.layer_numbers, slots_LGJ=slots_LGJ, split=split
    )
