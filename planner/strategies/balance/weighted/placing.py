"""One layer of an instance under ``weighted``."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from planner.arrays import IdArray
from planner.instance import PlacementInstance
from planner.plan import SplitWeights
from planner.strategies.balance.bound import of_one_set
from planner.strategies.balance.domains import rows_by_domain
from planner.strategies.balance.layer import Effort
from planner.strategies.balance.placed import PlacedLayer, slot_weights
from planner.strategies.balance.weighted.fill import Weights
from planner.strategies.balance.weighted.layer import WeightedSearch
from planner.strategies.baselines.base import expert_loads


def place_weighted(
    instance: PlacementInstance, index: int, effort: Effort, seconds: float
) -> PlacedLayer:
    """Place, split and bound one layer by what pays most.

    The bound holds for any split of the loads, hence for tokens too; the shares
    that the hash gives them differ a little from the weights. EP sets of a counts
    table are alike: each carries its part of the loads.
    """
    load_E = expert_loads(instance)[index]
    search = WeightedSearch(
        load_E.tolist(), instance.layout.ep, instance.slots_per_gpu, effort
    )
    return _placed(search, load_E, instance, seconds)


def _placed(
    search: WeightedSearch,
    load_E: IdArray,
    instance: PlacementInstance,
    seconds: float,
    *,
    thorough: bool = False,
) -> PlacedLayer:
    found = search.work(seconds, thorough=thorough)
    slots_GJ, split = _dealt(instance, load_E, found.slots_GJ, found.weights)
    more = partial(_placed, search, load_E, thorough=True)
    return PlacedLayer(
        slots_GJ=slots_GJ,
        split=split,
        bound=of_one_set(found.bound, instance.layout.sets),
        finished=found.finished,
        more=None if search.closed else more,
    )


def _dealt(
    instance: PlacementInstance, load_E: IdArray, slots_GJ: IdArray, weights: Weights
) -> tuple[IdArray, Mapping[int, SplitWeights]]:
    """Deal GPUs out over the domains; bring the weights into the new copy order."""
    weight_GJ = slot_weights(slots_GJ, weights)
    total_E = np.bincount(slots_GJ.ravel(), weight_GJ.ravel(), minlength=load_E.size)
    load_G = (weight_GJ * (load_E / np.maximum(total_E, 1))[slots_GJ]).sum(axis=1)
    row_G = rows_by_domain(instance, load_G)
    slots_GJ, weight_GJ = slots_GJ[row_G], weight_GJ[row_G]
    split = {
        expert: {"*": tuple(weight_GJ[slots_GJ == expert].tolist())}
        for expert in weights
    }
    return slots_GJ, split
