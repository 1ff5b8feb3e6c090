"""One more slot on every GPU in every layer, filled by the greatest load per copy."""

from dataclasses import replace

import numpy as np

from planner.arrays import FloatArray, IdArray
from planner.explain.binding import memory_row
from planner.explain.relax.base import RELAXATIONS, Question, Relaxation
from planner.plan import PlacementPlan
from planner.strategies.baselines.base import expert_loads
from planner.units import show_bytes


@RELAXATIONS.register("slots")
def one_more_slot(question: Question) -> list[Relaxation]:
    """One slot more, whether or not it fits: the note says what memory it needs."""
    instance = question.instance
    if instance.single or instance.slots_per_gpu >= instance.model.experts:
        return []
    row = memory_row(instance)
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
            plan=with_copies(question),
            plan_words="this plan with a copy added on every GPU",
            note=f"{show_bytes(row.slot_bytes)} more per GPU; {fits}",
        )
    ]


def with_copies(question: Question) -> PlacementPlan:
    """Return the plan with one more copy on every GPU in every layer.

    GPU by GPU it takes the expert of greatest load per copy that it does not hold,
    the lowest id of equals. Split weights of experts that got a copy fall back to
    equal ones.
    """
    plan = question.plan
    load_LE = expert_loads(question.instance).astype(np.float64)
    wider = np.full_like(plan.slots_LGJ[:, :, :1], -1)
    slots_LGJ = np.concatenate([plan.slots_LGJ, wider], axis=2)
    for slots_GJ, load_E in zip(slots_LGJ, load_LE, strict=True):
        _fill_last(slots_GJ, load_E)
    changed = {
        (layer, int(expert))
        for layer, added_G in enumerate(slots_LGJ[:, :, -1])
        for expert in added_G
    }
    split = {key: weights for key, weights in plan.split.items() if key not in changed}
    return PlacementPlan(
        layer_numbers=plan.layer_numbers, slots_LGJ=slots_LGJ, split=split
    )


def _fill_last(slots_GJ: IdArray, load_E: FloatArray) -> None:
    copies_E = np.bincount(slots_GJ[slots_GJ >= 0], minlength=load_E.size)
    for held_J in slots_GJ:
        urgency_E = load_E / np.maximum(copies_E, 1)
        urgency_E[held_J[held_J >= 0]] = -1.0
        chosen = int(np.argmax(urgency_E))
        held_J[-1] = chosen
        copies_E[chosen] += 1
