"""Routed experts on the ranks of a plan, for tokens that a group of ranks has alike.

The ranks of an attention group have the same tokens: each sends its share of them to
their experts. Under expert tensor parallelism a share goes to every rank of an expert,
each with some columns of its first matrix and rows of its second. What comes back is
a part of the outputs either way, and one all-reduce of the attention group adds up
shares and slices at once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planner.executor.choosing import SlotChoice
from planner.executor.layer import PlacedExperts
from planner.executor.parallel.collectives import adding, copied
from planner.executor.parallel.gradients import Copies
from planner.executor.parallel.share import Share
from planner.executor.placement import Placement
from planner.executor.slots import SlotBank
from planner.executor.stepping import Steps


@dataclass(slots=True, kw_only=True)
class SharedOut:
    """The routed experts of one layer, as a ``RoutedFn``.

    Attributes
    ----------
    rank, replica
        This rank in EP order, and its DP rank.
    share
        Which of the tokens this rank sends.
    group
        The ranks that have the same tokens; None: no other has.
    """

    placed: PlacedExperts
    choice: SlotChoice
    rank: int
    replica: int
    share: Share
    group: Any = None
    _sent: int = 0

    def __call__(self, x_TH: Tensor, ids_TK: Tensor, gates_TK: Tensor) -> Steps[Tensor]:
        """Return the experts' weighted outputs, [T, H], pausing while rows travel."""
        own = slice(self.share.index, None, self.share.parts)
        if torch.is_grad_enabled() and not x_TH.requires_grad:
            # A rank without rows must take part in the backward pass all the same.
            x_TH = x_TH.detach().requires_grad_()
        if self.group is not None:
            x_TH, gates_TK = copied(x_TH, self.group), copied(gates_TK, self.group)
        x_NH = x_TH[own]
        rank_N = torch.full((len(x_NH),), self.rank, device=x_NH.device)
        ordinal_N = torch.arange(len(x_NH), device=x_NH.device) + self._sent
        self._sent += len(x_NH)
        slots_NK = self.choice.of(
            ids_TK[own], rank_N, torch.full_like(rank_N, self.replica), ordinal_N
        )
        y_NH = yield from self.placed.steps(x_NH, gates_TK[own], slots_NK, rank_N)
        if self.group is None:
            return y_NH
        y_TH = torch.zeros_like(x_TH)
        y_TH[own] = y_NH
        return (yield from adding(y_TH, self.group))


def copies_of(
    bank: SlotBank, placement: Placement, layer: int, group: Any
) -> tuple[Copies, ...]:
    """Return which slots hold copies of experts that other slots hold as well.

    Gradients of an expert with one slot stay where they are.
    """
    slots_GJ = placement.plan.slots_LGJ[layer]
    held = slots_GJ[slots_GJ >= 0]
    count_E = np.bincount(held) * placement.layout.sets
    number_E = np.where(count_E > 1, np.cumsum(count_E > 1) - 1, -1)
    # The last entry is for slots without an expert.
    table = torch.from_numpy(np.append(number_E, -1)).to(bank.expert_P.device)
    return tuple(
        Copies(
            parameter=weights_P,
            dim=0,
            entry_N=table[bank.expert_P],
            entries=int((count_E > 1).sum()),
            group=group,
        )
        for weights_P in bank.trainable()
        if (count_E > 1).any()
    )
