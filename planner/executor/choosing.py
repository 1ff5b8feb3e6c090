"""Which slot serves each choice of a token: rules 16 to 19 as tables of one layer."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from planner.arrays import IdArray, IntArray
from planner.errors import UsageError, VerificationError
from planner.layout import ParallelLayout
from planner.plan import SplitWeights
from planner.witness.selection import (
    HASH_RANGE,
    KNUTH,
    nearest_copy_G,
    weights_for,
)


class SlotChoice:
    """Chooses among the copies of an expert as the engine does.

    Slots are numbered through the cluster: GPU · J + position.

    Parameters
    ----------
    slots_GJ
        Logical experts of one EP set, [ep, J]; -1 where there is no slot.
    split
        Weights by expert, for ``weighted``; missing means equal.
    selection
        ``nearest``, ``even`` or ``weighted``.
    """

    def __init__(
        self,
        slots_GJ: IdArray,
        split: Mapping[int, SplitWeights],
        selection: str,
        layout: ParallelLayout,
        device: torch.device,
    ) -> None:
        self._device, self._selection = device, selection
        self._set_slots = layout.ep * slots_GJ.shape[1]
        self._ep = layout.ep
        flat = slots_GJ.reshape(-1).astype(np.int64)
        # Copies by expert, in the order of their slots (rule 16).
        order = np.argsort(flat, kind="stable")[np.count_nonzero(flat < 0) :]
        held = flat[order]
        count_E = np.bincount(held)
        self._copy_EM = np.full((count_E.size, int(count_E.max())), -1)
        starts_E = np.cumsum(count_E) - count_E
        self._copy_EM[held, np.arange(held.size) - starts_E[held]] = order
        self._count_E = self._tensor(count_E)
        self._copies = self._tensor(self._copy_EM)
        rules = {
            "nearest": self._nearest,
            "even": self._even,
            "weighted": self._weighted,
        }
        if selection not in rules:
            raise UsageError(
                f"--selection {selection!r}: choose from {', '.join(rules)}"
            )
        self._rule = rules[selection]
        self._table = self._built(slots_GJ.shape[1], split, layout)

    def of(
        self, ids_TK: Tensor, source_T: Tensor, rank_T: Tensor, ordinal_T: Tensor
    ) -> Tensor:
        """Return the slot that serves each choice, [T, K]; -1 where no expert.

        Parameters
        ----------
        ids_TK
            Chosen experts; -1 for none.
        source_T, rank_T, ordinal_T
            GPU each token leaves from, its DP rank and its ordinal (rules 13, 15).

        Raises
        ------
        VerificationError
            A chosen expert has no copy.
        """
        used_TK = ids_TK >= 0
        if not len(ids_TK) or not bool(used_TK.any()):
            return torch.full_like(ids_TK, -1)
        expert_TK = ids_TK.clamp(min=0)
        known = int(expert_TK.max()) < len(self._count_E)
        if not known or bool((used_TK & (self._count_E[expert_TK] == 0)).any()):
            raise VerificationError([self._uncovered(ids_TK)])
        first_T = torch.div(source_T, self._ep, rounding_mode="floor")
        copy_TK = self._rule(expert_TK, source_T, rank_T, ordinal_T)
        slot_TK = (
            self._copies[expert_TK, copy_TK] + (first_T * self._set_slots)[:, None]
        )
        return torch.where(used_TK, slot_TK, -1)

    def _tensor(self, array: IntArray) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(self._device)

    def _uncovered(self, ids_TK: Tensor) -> str:
        named = set(ids_TK[ids_TK >= 0].unique().tolist())
        held = {e for e, count in enumerate(self._count_E.tolist()) if count}
        return f"expert {min(named - held)} is used but has no copy"

    def _built(
        self, slots: int, split: Mapping[int, SplitWeights], layout: ParallelLayout
    ) -> Tensor | None:
        """Return the selection's own table; None where all copies are only ones."""
        experts, most = self._copy_EM.shape
        if most == 1 or self._selection == "even":
            return None
        if self._selection == "nearest":
            table = np.zeros((experts, layout.gpu_count), dtype=np.int64)
            for expert in np.flatnonzero((self._copy_EM >= 0).sum(axis=1) > 1).tolist():
                copies = self._copy_EM[expert][self._copy_EM[expert] >= 0] // slots
                table[expert] = nearest_copy_G(copies, expert, layout)
            return self._tensor(table)
        # The first copy whose threshold lies above u; the last one's is 2³².
        bounds = np.full((experts, layout.dp, most), HASH_RANGE, dtype=np.int64)
        for expert in range(experts):
            count = int((self._copy_EM[expert] >= 0).sum())
            for dp_rank in range(layout.dp if count > 1 else 0):
                weights = weights_for(split.get(expert, {}), count, dp_rank)
                below = np.cumsum(weights)
                bounds[expert, dp_rank, :count] = [
                    -(-HASH_RANGE * part // int(below[-1])) for part in below.tolist()
                ]
        return self._tensor(bounds)

    def _nearest(
        self, expert_TK: Tensor, source_T: Tensor, rank_T: Tensor, ordinal_T: Tensor
    ) -> Tensor:
        if self._table is None:
            return torch.zeros_like(expert_TK)
        return self._table[expert_TK, source_T[:, None]]

    def _even(
        self, expert_TK: Tensor, source_T: Tensor, rank_T: Tensor, ordinal_T: Tensor
    ) -> Tensor:
        hashed_T = (ordinal_T * KNUTH) % HASH_RANGE
        return hashed_T[:, None] % self._count_E[expert_TK].clamp(min=1)

    def _weighted(
        self, expert_TK: Tensor, source_T: Tensor, rank_T: Tensor, ordinal_T: Tensor
    ) -> Tensor:
        if self._table is None:
            return torch.zeros_like(expert_TK)
        u_T = ((ordinal_T + 1) * KNUTH) % HASH_RANGE
        bound_TKM = self._table[expert_TK, rank_T[:, None]]
        return (bound_TKM <= u_T[:, None, None]).sum(dim=2)
