"""(c) Direct flow: experts near those that come before them."""

from dataclasses import replace

import numpy as np

from planner.explain.effects.base import EFFECTS, Effect, EffectRule, Room, Switch
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.traffic.base import TRAFFIC
from planner.workload.parts import TokenPart


def _seen(instance: PlacementInstance) -> Effect:
    applies = TRAFFIC.get(instance.traffic).chained
    word = "leave from their last best expert" if applies else "leave from home"
    because = f"tokens of {instance.traffic} {word} in every layer"
    return Effect(name="direct flow", applies=applies, because=because)


def _room(instance: PlacementInstance) -> Room | None:
    """Count how many tokens take the most frequent way from best expert to best."""
    part, experts = instance.planning, instance.model.experts
    if not TRAFFIC.get(instance.traffic).chained or not isinstance(part, TokenPart):
        return None
    follow, chance, total = 0.0, 0.0, 0
    for layer in range(instance.layer_count - 1):
        last_T, next_T = part.experts_LTK[layer : layer + 2, :, 0].astype(np.int64)
        known_T = (last_T >= 0) & (next_T >= 0)
        ways = np.bincount(
            last_T[known_T] * experts + next_T[known_T], minlength=experts**2
        ).reshape(experts, experts)
        follow += float(ways.max(axis=1).sum())
        chance += float(ways.sum(axis=0).max())
        total += int(ways.sum())
    if not total:
        return None
    return Room(
        by_chance=chance / total,
        at_most=follow / total,
        says=f"{follow / total:.1%} of the tokens go on from their best expert to the "
        f"one most frequent after it, {chance / total:.1%} to the most frequent of all",
    )


def _blind(instance: PlacementInstance) -> PlacementInstance:
    """Plan as if tokens left from home in every layer."""
    return replace(
        instance,
        workloads=tuple(
            replace(each, traffic="copies")
            if TRAFFIC.get(each.traffic).chained
            else each
            for each in instance.workloads
        ),
    )


def _switched(instance: PlacementInstance, options: SolveOptions) -> Switch | None:
    """Leave from home in every layer, or from where the layer before took tokens."""
    if not isinstance(instance.planning, TokenPart):
        return None
    other = "copies" if _seen(instance).applies else "direct"
    changed = {"traffic": other, "endpoint": None}
    return Switch(what=f"traffic {other}", options=changed)


EFFECTS.register("direct")(
    EffectRule(letter="c", seen=_seen, room=_room, blind=_blind, switched=_switched)
)
