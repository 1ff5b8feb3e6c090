"""``contiguous`` and ``round_robin``: placements that look at nothing."""

import numpy as np

from planner.arrays import IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.baselines.base import BASELINES


def _every_layer(instance: PlacementInstance, slots_GJ: IntArray) -> IdArray:
    return np.repeat(slots_GJ[None].astype(np.int16), instance.layer_count, axis=0)


@BASELINES.register("contiguous")
def contiguous(instance: PlacementInstance) -> IdArray:
    """Slot p holds expert p mod E; GPU g has a block of consecutive slots."""
    slots: IntArray = np.arange(instance.slot_count) % instance.model.experts
    return _every_layer(instance, slots.reshape(instance.layout.ep, -1))


@BASELINES.register("round_robin")
def round_robin(instance: PlacementInstance) -> IdArray:
    """Slot p holds expert p mod E and lies on GPU p mod ep."""
    slots: IntArray = np.arange(instance.slot_count) % instance.model.experts
    return _every_layer(instance, slots.reshape(-1, instance.layout.ep).T)
