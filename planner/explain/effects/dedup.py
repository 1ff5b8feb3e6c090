"""(a) Merged transfers: experts that a token chooses together, together."""

from dataclasses import replace

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.explain.effects.base import EFFECTS, Effect, EffectRule, Room, Switch
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.traffic.base import TRAFFIC
from planner.workload.messages import message_bytes
from planner.workload.parts import TokenPart

MOST_TOKENS = 4096
"""Tokens that are looked at; more would change the count little."""


def _seen(instance: PlacementInstance) -> Effect:
    mode = TRAFFIC.get(instance.traffic)
    linear = mode.linear or mode.chained
    because = (
        f"{instance.traffic} sends one transfer per (token, expert)"
        if linear
        else f"{instance.traffic} merges transfers of experts that sit together"
    )
    return Effect(name="dedup", applies=not linear, because=because)


def _room(instance: PlacementInstance) -> Room | None:
    """Group experts greedily by how often they are chosen together, and count."""
    part = instance.planning
    if not isinstance(part, TokenPart):
        return None
    scored = instance.holdout if isinstance(instance.holdout, TokenPart) else part
    by_gpu = instance.traffic == "dedup_gpu"
    groups = instance.layout.ep if by_gpu else len(instance.topology.domains)
    if groups < 2:
        return None
    experts = instance.model.experts
    in_order_E = np.arange(experts) * groups // experts
    before, after = 0.0, 0.0
    for layer in range(instance.layer_count):
        together_EE = _together(part, layer, experts)
        grouped_E = greedy_groups(together_EE, np.bincount(in_order_E))
        before += _touched(scored, layer, in_order_E)
        after += _touched(scored, layer, grouped_E)
    before, after = before / instance.layer_count, after / instance.layer_count
    word = "GPUs" if by_gpu else "domains"
    unseen = " (unseen tokens)" if scored is not part else ""
    return Room(
        by_chance=before,
        at_most=after,
        says=f"a token's experts sit on {before:.2f} {word} placed in order, on "
        f"{after:.2f} grouped greedily by what is chosen together{unseen}",
    )


def _blind(instance: PlacementInstance) -> PlacementInstance:
    """Plan as if every (token, expert) pair travelled alone."""
    alone = TRAFFIC.get("copies")
    return replace(
        instance,
        workloads=tuple(
            replace(
                each,
                traffic="copies",
                endpoint=each.endpoint
                if each.endpoint in alone.endpoints
                else alone.endpoints[0],
                message_bytes=message_bytes(instance.model, "copies"),
            )
            for each in instance.workloads
        ),
    )


def _switched(instance: PlacementInstance, options: SolveOptions) -> Switch | None:
    """Send copies instead of merging, or merge instead of sending copies."""
    if not isinstance(instance.planning, TokenPart):
        return None
    other = "copies" if _seen(instance).applies else "dedup_domain"
    changed = {"traffic": other, "endpoint": None}
    return Switch(what=f"traffic {other}", options=changed)


def greedy_groups(together_EE: FloatArray, sizes_N: IntArray) -> IntArray:
    """Return the group of each expert: each group takes what its members go with.

    A group starts with the free expert of greatest sum, and always takes the free
    expert that is chosen most often together with those it has.
    """
    affinity_EE = together_EE.copy()
    np.fill_diagonal(affinity_EE, 0)
    group_E = np.full(affinity_EE.shape[0], -1, dtype=np.int64)
    for group, size in enumerate(sizes_N.tolist()):
        free_E = group_E < 0
        pull_E = affinity_EE[free_E].sum(axis=0)
        for number in range(size):
            chosen = int(np.argmax(np.where(group_E < 0, pull_E, -1.0)))
            group_E[chosen] = group
            pull_E = (
                affinity_EE[chosen] if number == 0 else pull_E + affinity_EE[chosen]
            )
    return group_E


def _together(part: TokenPart, layer: int, experts: int) -> FloatArray:
    ids_TK = part.experts_LTK[layer][:MOST_TOKENS].astype(np.int64)
    chosen_TE = np.zeros((ids_TK.shape[0], experts + 1), dtype=np.float32)
    np.put_along_axis(chosen_TE, ids_TK, 1.0, axis=1)
    chosen_TE = chosen_TE[:, :experts]
    return (chosen_TE.T @ chosen_TE).astype(np.float64)


def _touched(part: TokenPart, layer: int, group_E: IntArray) -> float:
    """Return the mean number of groups that a token's experts are in."""
    ids_TK = part.experts_LTK[layer][:MOST_TOKENS].astype(np.int64)
    touched_TN = np.zeros((ids_TK.shape[0], int(group_E.max()) + 2), dtype=np.bool_)
    # A missing choice (-1) falls into a group of its own that is not counted.
    np.put_along_axis(touched_TN, np.r_[group_E, -1][ids_TK], True, axis=1)
    return float(touched_TN[:, :-1].sum() / max(1, ids_TK.shape[0]))


EFFECTS.register("dedup")(
    EffectRule(letter="a", seen=_seen, room=_room, blind=_blind, switched=_switched)
)
