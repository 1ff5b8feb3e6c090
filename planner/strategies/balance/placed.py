"""What placing one layer gives, whatever the selection, and its exact value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm

import numpy as np

from planner.arrays import ExactArray, IdArray, IntArray
from planner.instance import PlacementInstance
from planner.plan import SplitWeights
from planner.strategies.balance.bound import LayerBound
from planner.workload.parts import CountsPart


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedLayer:
    """Slots of one EP set, the split, and the bound of the instance's objective.

    ``finished`` is False where the time ended the work; ``more`` takes it up again
    for so many seconds, thoroughly. It holds all it needs but the instance, so that
    it can be sent to another process.
    """

    slots_GJ: IdArray
    split: Mapping[int, SplitWeights] = field(default_factory=dict)
    bound: LayerBound
    finished: bool
    more: Callable[[PlacementInstance, float], "PlacedLayer"] | None = None


def counted_value(
    instance: PlacementInstance,
    index: int,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
) -> Fraction | None:
    """Return the greatest load under a counts table, exact.

    None under a trace, and where DP ranks have weights of their own.
    """
    part = instance.planning
    own = any(list(weights) != ["*"] for weights in split.values())
    if own or not isinstance(part, CountsPart):
        return None
    load_E = part.tokens_LE[index]
    return shared_value(load_E, slots_GJ, split) / instance.layout.sets


def shared_value(
    load_E: IntArray, slots_GJ: IdArray, split: Mapping[int, SplitWeights]
) -> Fraction:
    """Return the greatest load where copies carry what their weights ``*`` say."""
    weight_GJ = slot_weights(slots_GJ, {e: given["*"] for e, given in split.items()})
    held_GJ = np.where(slots_GJ >= 0, slots_GJ, 0)
    total_E = np.zeros(load_E.size, dtype=np.int64)
    np.add.at(total_E, held_GJ, np.where(slots_GJ >= 0, weight_GJ, 0))
    common = lcm(*np.unique(np.maximum(total_E, 1)).tolist())
    unit_E = load_E.astype(object) * [
        common // total for total in np.maximum(total_E, 1).tolist()
    ]
    share_GJ: ExactArray = unit_E[held_GJ] * weight_GJ.astype(object)
    load_G = np.where(slots_GJ >= 0, share_GJ, 0).sum(axis=1)
    return Fraction(int(load_G.max()), common)


def slot_weights(
    slots_GJ: IdArray, weights: Mapping[int, tuple[int, ...]]
) -> ExactArray:
    """Return the weight of every slot's copy; 1 where none is given."""
    weight_GJ = np.ones(slots_GJ.shape, dtype=np.int64)
    for expert, given in weights.items():
        # A mask reads rows one after the other: copy order (rule 16).
        weight_GJ[slots_GJ == expert] = given
    return weight_GJ
