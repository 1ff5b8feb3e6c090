"""A placement plan: which slot of which GPU holds which expert, and the split."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from planner.arrays import IdArray

SplitWeights = Mapping[str, tuple[int, ...]]
"""Weights of one expert's copies by DP rank (``"0"``, ``"1"``, …) or ``"*"``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacementPlan:
    """Slots of one EP set, the same in every set.

    Attributes
    ----------
    layer_numbers
        Number in the model of each planned layer, ascending.
    slots_LGJ
        Logical expert in slot j of EP rank g, [L, ep, J]; -1 where there is no
        slot. A copy's order is by EP rank, then by position (rule 16).
    split
        Integer weights per (layer index, expert), used by selection
        ``weighted`` only (rule 19); missing entries mean equal weights.
    """

    layer_numbers: tuple[int, ...]
    slots_LGJ: IdArray
    split: Mapping[tuple[int, int], SplitWeights] = field(default_factory=dict)

    def copies(self, layer: int, expert: int) -> list[int]:
        """EP ranks that hold ``expert`` in layer index ``layer``, in copy order."""
        return [int(g) for g, _ in np.argwhere(self.slots_LGJ[layer] == expert)]

    def has_duplicates(self) -> bool:
        """Whether some GPU holds two copies of one expert in one layer."""
        ordered = np.sort(self.slots_LGJ, axis=2)
        return bool(
            ((ordered[:, :, 1:] == ordered[:, :, :-1]) & (ordered[:, :, 1:] >= 0)).any()
        )
