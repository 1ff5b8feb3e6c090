"""One layer of an instance under ``even``, or under any rule without spare copies."""

from functools import partial

from planner.instance import PlacementInstance
from planner.strategies.balance.bound import of_one_set
from planner.strategies.balance.domains import rows_by_domain
from planner.strategies.balance.layer import Effort, LayerSearch
from planner.strategies.balance.placed import PlacedLayer
from planner.strategies.balance.problem import (
    BalanceLayer,
    copy_sizes,
    counted_layer,
    hashed_layer,
)
from planner.strategies.balance.searches import search_of
from planner.workload.parts import CountsPart


def place_even(
    instance: PlacementInstance, index: int, effort: Effort, seconds: float
) -> PlacedLayer:
    """Place and bound one layer by what pays most.

    EP sets of a counts table are alike: each carries its share of the tokens, so the
    bound is that of one set with all of them, divided by the number of sets.
    """
    search = search_of(layer_problem(instance, index), effort)
    return _placed(search, instance, seconds)


def _placed(
    search: LayerSearch,
    instance: PlacementInstance,
    seconds: float,
    *,
    thorough: bool = False,
) -> PlacedLayer:
    solution = search.work(seconds, thorough=thorough)
    slots_GJ = solution.slots_GJ
    load_G = copy_sizes(search.layer, slots_GJ)[slots_GJ].sum(axis=1)
    return PlacedLayer(
        slots_GJ=slots_GJ[rows_by_domain(instance, load_G)],
        bound=of_one_set(solution.bound, instance.layout.sets),
        finished=solution.finished,
        more=None if search.at_goal else partial(_placed, search, thorough=True),
    )


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
