"""``contiguous`` and ``round_robin``: placements that look at nothing."""

import numpy as np

from planner.arrays import IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.baselines.base import BASELINES


def _every_layer(instance: PlacementInstance, slots_GJ: IntArray) -> IdArray:
    return np.repeat(slots_GJ[None].astype(np.int16), instance.layer_count, axis=0)


def _single(instance: PlacementInstance, gpu_LE: IntArray) -> IdArray:
    """Return slots [L, ep, 1] of one expert per GPU altogether."""
    shape = (instance.layer_count, instance.layout.ep, 1)
    slots_LGJ = np.full(shape, -1, dtype=np.int16)
    for slots_GJ, gpu_E in zip(slots_LGJ, gpu_LE, strict=True):
        slots_GJ[gpu_E, 0] = np.arange(gpu_E.size)
    return slots_LGJ


@BASELINES.register("contiguous")
def contiguous(instance: PlacementInstance) -> IdArray:
    """Slot p holds expert p mod E; GPU g has a block of consecutive slots.

    With one expert per GPU altogether, layers are blocks of consecutive GPUs.
    """
    if instance.single:
        gpu_LE = np.arange(instance.layer_count * instance.model.experts)
        return _single(instance, gpu_LE.reshape(instance.layer_count, -1))
    slots: IntArray = np.arange(instance.slot_count) % instance.model.experts
    return _every_layer(instance, slots.reshape(instance.layout.ep, -1))


@BASELINES.register("round_robin")
def round_robin(instance: PlacementInstance) -> IdArray:
    """Slot p holds expert p mod E and lies on GPU p mod ep.

    With one expert per GPU altogether, layers are dealt like cards: those of equal
    number in all layers are neighbours.
    """
    if instance.single:
        gpu_EL = np.arange(instance.layer_count * instance.model.experts)
        return _single(instance, gpu_EL.reshape(-1, instance.layer_count).T)
    slots: IntArray = np.arange(instance.slot_count) % instance.model.experts
    return _every_layer(instance, slots.reshape(-1, instance.layout.ep).T)
