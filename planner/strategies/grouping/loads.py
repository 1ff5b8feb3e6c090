"""What a DP rank loads, if it attends on one group or another.

Loads are linear in where ranks are: which copies a token uses and which transfers it
makes depend on where *it* leaves from, not on others. So they are counted once per
kind of rank and place, by the evaluator, and added up for any assignment.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner import clock
from planner.arrays import FloatArray, IntArray
from planner.evaluator.evaluation import layer_split
from planner.evaluator.layer import layer_loads
from planner.evaluator.objective import link_tokens
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.judging import CHOICE_SECONDS, LAYER_SECONDS
from planner.workload.parts import TokenPart

MOST_COUNTS = 6_000
"""Counts of (kind, place, layer); where there are more, layers are left out."""
LEAST_LAYERS = 2
"""… but for these; where that is four times as many, nothing is counted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Kinds:
    """Ranks that are alike: the mean of their tokens stands for each of them.

    Attributes
    ----------
    kind_S
        Kind of each DP rank, numbered from 0.
    """

    kind_S: IntArray

    @property
    def ranks(self) -> tuple[IntArray, ...]:
        """Ranks of every kind."""
        count = int(self.kind_S.max()) + 1
        return tuple(np.flatnonzero(self.kind_S == kind) for kind in range(count))


def loads_of_kinds(
    instance: PlacementInstance, plan: PlacementPlan, kinds: Kinds
) -> FloatArray | None:
    """Return loads [C, S, L', 2, A] of a rank of each kind at each place.

    In the unit of the objective; some layers, evenly spread, where there are many.
    None where counting would take too long.
    """
    kinds_count, places = len(kinds.ranks), instance.layout.dp
    if kinds_count * places * LEAST_LAYERS > 4 * MOST_COUNTS:
        return None
    layers = _some(instance.layer_count, MOST_COUNTS // (kinds_count * places))
    shape = (kinds_count, places, layers.size, 2, len(instance.topology.links))
    loads = np.zeros(shape)
    for view in instance.views:
        weight = float(view.workloads[0].weight) if len(instance.views) > 1 else 1.0
        part = view.planning
        if not isinstance(part, TokenPart) or not part.token_count:
            continue
        weight /= part.token_count if len(instance.views) > 1 else 1
        member_T = _member_T(view, part)
        for kind, ranks in enumerate(kinds.ranks):
            chosen = np.flatnonzero(np.isin(part.rank_T, ranks))
            for place, group in enumerate(view.layout.attention_groups):
                there = _only(part, chosen, np.asarray(group)[member_T[chosen]])
                scale = weight / len(ranks)
                for at, layer in enumerate(layers.tolist()):
                    counted = _counted(view, plan, there, layer)
                    loads[kind, place, at] += scale * counted
    return loads


def _some(layers: int, most: int) -> IntArray:
    count = max(min(layers, LEAST_LAYERS), min(layers, most))
    return np.arange(count) * layers // count


def _member_T(instance: PlacementInstance, part: TokenPart) -> IntArray:
    """Return which GPU of its rank's group each token leaves from."""
    member_G = np.zeros(instance.layout.gpu_count, dtype=np.int64)
    for group in instance.layout.attention_groups:
        member_G[list(group)] = np.arange(len(group))
    return member_G[part.source_T]


def _only(part: TokenPart, chosen: IntArray, source_T: IntArray) -> TokenPart:
    return TokenPart(
        experts_LTK=part.experts_LTK[:, chosen],
        source_T=source_T,
        rank_T=part.rank_T[chosen],
        ordinal_T=part.ordinal_T[chosen],
        row_T=part.row_T[chosen],
    )


def _counted(
    instance: PlacementInstance, plan: PlacementPlan, part: TokenPart, layer: int
) -> FloatArray:
    """Return the loads of dispatch and combine [2, A] of one layer of a part."""
    clock.spend(LAYER_SECONDS + CHOICE_SECONDS * part.experts_LTK[layer].size)
    slots_GJ, split = plan.slots_LGJ[layer], layer_split(plan, layer)
    loads = layer_loads(instance, part, layer, slots_GJ, split)
    over = float(loads.denominator * instance.routes.q)
    if instance.objective.name == "link_time":
        size_2 = np.asarray(instance.message_bytes, dtype=np.float64)[:, None]
        near_2A = loads.loads_2A.astype(np.float64) / over
        return near_2A * size_2 * instance.topology.seconds_per_byte.near_A
    tokens_2A, common = link_tokens(loads.loads_2A, instance.topology)
    near_2A = tokens_2A.astype(np.float64) / (over * common)
    return near_2A * instance.in_scope.near_A


def taste(instance: PlacementInstance, kinds: Kinds) -> FloatArray:
    """Return how often ranks of each kind use each expert [C, L·E], of length 1."""
    experts = instance.model.experts
    found: Sequence[FloatArray] = [
        _uses(view, kinds, experts) for view in instance.views
    ]
    whole = np.concatenate(found, axis=1)
    length = np.linalg.norm(whole, axis=1, keepdims=True)
    return np.asarray(whole / np.maximum(length, 1e-300))


def _uses(instance: PlacementInstance, kinds: Kinds, experts: int) -> FloatArray:
    part = instance.planning
    count = len(kinds.ranks)
    uses_CLE = np.zeros((count, instance.layer_count, experts))
    if isinstance(part, TokenPart):
        kind_T = kinds.kind_S[part.rank_T]
        for layer, ids_TK in enumerate(part.experts_LTK):
            for ids_T in ids_TK.T:
                known = ids_T >= 0
                np.add.at(uses_CLE, (kind_T[known], layer, ids_T[known]), 1.0)
    return uses_CLE.reshape(count, -1)
