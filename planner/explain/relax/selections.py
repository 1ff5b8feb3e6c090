"""Another rule for which copy a token uses."""

from dataclasses import replace

import numpy as np

from planner.explain.relax.base import RELAXATIONS, Question, Relaxation
from planner.instance import SELECTIONS, PlacementInstance
from planner.plan import PlacementPlan, SplitWeights
from planner.traffic.selection import copy_table, nearest_GE


@RELAXATIONS.register("selection")
def other_selections(question: Question) -> list[Relaxation]:
    """Every other selection; none where no expert has a second copy.

    ``weighted`` begins with the weights that say what ``nearest`` or ``even`` does.
    """
    instance = question.instance
    if instance.slot_count == instance.model.experts:
        return []
    found = []
    for name in SELECTIONS:
        if name == instance.selection:
            continue
        plan, words = question.plan, "this plan"
        if name == "weighted" and instance.selection == "nearest":
            plan, words = as_weights(instance, plan), "this plan, weights as nearest"
        found.append(
            Relaxation(
                kind="selection",
                what=f"selection {name} instead of {instance.selection}",
                instance=replace(instance, selection=name),
                plan=plan,
                plan_words=words,
                note="needs an engine that takes weights" if name == "weighted" else "",
            )
        )
    return found


def as_weights(instance: PlacementInstance, plan: PlacementPlan) -> PlacementPlan:
    """Return the plan with weights by DP rank that choose as ``nearest`` does.

    A copy's weight is the number of the rank's GPUs that ``nearest`` sends there.
    """
    layout, experts = instance.layout, instance.model.experts
    split: dict[tuple[int, int], SplitWeights] = {}
    for layer, slots_GJ in enumerate(plan.slots_LGJ):
        table = copy_table(slots_GJ, experts)
        place_GE = nearest_GE(slots_GJ, experts, layout) % layout.ep
        for expert in np.flatnonzero(table.count_E > 1).tolist():
            ranks_M = table.rank_EM[expert, : table.count_E[expert]]
            split[layer, expert] = {
                str(rank): tuple(
                    int((place_GE[list(group), expert] == copy).sum())
                    for copy in ranks_M.tolist()
                )
                for rank, group in enumerate(layout.attention_groups)
            }
    return replace(plan, split=split)
