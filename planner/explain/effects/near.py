"""(d) Near copies: redundant experts where the tokens that want them are."""

from dataclasses import replace

import numpy as np

from planner.explain.effects.base import (
    EFFECTS,
    Effect,
    EffectRule,
    Room,
    Switch,
    demand_NE,
)
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.workload.parts import TokenPart

NAME = "near copies"


def _seen(instance: PlacementInstance) -> Effect:
    extra = instance.slot_count - instance.model.experts
    if not extra:
        return Effect(name=NAME, applies=False, because="no redundant copies")
    if instance.selection == "even":
        because = "even selection ignores where copies are"
        return Effect(name=NAME, applies=False, because=because)
    because = f"{extra} redundant slots can hold copies near their tokens"
    return Effect(name=NAME, applies=True, because=because)


def _room(instance: PlacementInstance) -> Room | None:
    """Fill every domain with what it wants most: no plan serves more at home."""
    part, layout = instance.planning, instance.layout
    if not isinstance(part, TokenPart) or layout.sets > 1:
        return None
    if len(instance.topology.domains) < 2 or not _seen(instance).applies:
        return None
    single, best, total = 0.0, 0.0, 0.0
    for layer in range(instance.layer_count):
        demand = demand_NE(part, layer, instance)
        single += float(demand.max(axis=0).sum())
        total += float(demand.sum())
        for members, row_E in zip(instance.topology.domains, demand, strict=True):
            slots = instance.slots_per_gpu * len(members)
            best += float(np.sort(row_E)[::-1][:slots].sum())
    if not total:
        return None
    return Room(
        by_chance=single / total,
        at_most=best / total,
        says=f"with these slots at most {best / total:.1%} of the pairs can be served "
        f"in their home domain, {single / total:.1%} without copies",
    )


def _blind(instance: PlacementInstance) -> PlacementInstance:
    """Plan as if a token used any copy, wherever it is."""
    return replace(instance, selection="even")


def _switched(instance: PlacementInstance, options: SolveOptions) -> Switch | None:
    """Drop the redundant slots, or add one on every GPU."""
    extra = instance.slot_count - instance.model.experts
    other = 0 if extra >= instance.layout.ep else extra + instance.layout.ep
    return Switch(what=f"redundant {other}", options={"redundant": str(other)})


EFFECTS.register("near")(
    EffectRule(letter="d", seen=_seen, room=_room, blind=_blind, switched=_switched)
)
