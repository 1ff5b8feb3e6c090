"""One layer of an instance under ``even``, or under any rule without spare copies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from math import lcm

import numpy as np

from planner.arrays import IdArray
from planner.instance import PlacementInstance
from planner.plan import SplitWeights
from planner.strategies.balance.bound import LayerBound
from planner.strategies.balance.domains import spread_over_domains
from planner.strategies.balance.layer import Effort, search_of
from planner.strategies.balance.problem import (
    BalanceLayer,
    counted_layer,
    hashed_layer,
)
from planner.workload.parts import CountsPart


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedLayer:
    """Slots of one EP set, the split, and the bound of the instance's objective.

    ``finished`` is False where the time ended the work; ``more`` takes it up again
    for so many seconds, thoroughly.
    """

    slots_GJ: IdArray
    split: Mapping[int, SplitWeights] = field(default_factory=dict)
    bound: LayerBound
    finished: bool
    more: Callable[[float], "PlacedLayer"] | None = None


def place_even(
    instance: PlacementInstance, index: int, effort: Effort, seconds: float
) -> PlacedLayer:
    """Place and bound one layer by what pays most.

    EP sets of a counts table are alike: each carries its share of the tokens, so the
    bound is that of one set with all of them, divided by the number of sets. The
    certificate is of the undivided problem.
    """
    search = search_of(layer_problem(instance, index), effort)

    def placed(seconds: float, *, thorough: bool) -> PlacedLayer:
        solution = search.work(seconds, thorough=thorough)
        bound = solution.bound
        return PlacedLayer(
            slots_GJ=spread_over_domains(instance, search.layer, solution.slots_GJ),
            bound=replace(bound, value=bound.value / instance.layout.sets),
            finished=solution.finished,
            more=None if search.at_goal else partial(placed, thorough=True),
        )

    return placed(seconds, thorough=False)


def counted_value(
    instance: PlacementInstance, index: int, slots_GJ: IdArray
) -> Fraction | None:
    """Return the greatest load under a counts table, exact; None under a trace."""
    part = instance.planning
    if not isinstance(part, CountsPart):
        return None
    copies_E = np.bincount(slots_GJ[slots_GJ >= 0], minlength=instance.model.experts)
    common = lcm(*np.unique(np.maximum(copies_E, 1)).tolist())
    share_E = part.tokens_LE[index].astype(object) * [
        common // copies for copies in np.maximum(copies_E, 1).tolist()
    ]
    load_G = np.where(slots_GJ >= 0, share_E[slots_GJ], 0).sum(axis=1)
    return Fraction(int(load_G.max()), common * instance.layout.sets)


def layer_problem(instance: PlacementInstance, index: int) -> BalanceLayer:
    """Return a layer's balance problem, as if one EP set served all of a table."""
    part = instance.planning
    gpus, slots = instance.layout.ep, instance.slots_per_gpu
    if isinstance(part, CountsPart):
        return counted_layer(part.tokens_LE[index], gpus, slots)
    return hashed_layer(
        part.experts_LTK[index],
        part.ordinal_T,
        experts=instance.model.experts,
        gpus=gpus,
        slots_per_gpu=slots,
    )
