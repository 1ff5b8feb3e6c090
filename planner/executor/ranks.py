"""One GPU of the ``local`` back end: its slots, and the experts it runs."""

import numpy as np
import torch
from torch import Tensor

from planner.arrays import IdArray
from planner.executor.model.feed_forward import swiglu
from planner.executor.wire import ANY_RANK, Messages


class VirtualRank:
    """One GPU of a layer: its own copy of the weights of every slot it holds.

    Attributes
    ----------
    w_in, w_out
        SwiGLU weights by slot, [J, H, 2F] and [J, F, H]; NaN where there is no
        slot, so that a wrong address cannot go unseen.
    pairs
        (token, expert) pairs computed so far.
    """

    def __init__(
        self, gpu: int, slots_J: IdArray, w_in_E: Tensor, w_out_E: Tensor
    ) -> None:
        expert_J = torch.from_numpy(slots_J.astype(np.int64))
        self.gpu, self.first_slot = gpu, gpu * slots_J.size
        self.w_in = w_in_E[expert_J.clamp(min=0)]
        self.w_out = w_out_E[expert_J.clamp(min=0)]
        self.w_in[expert_J < 0] = self.w_out[expert_J < 0] = torch.nan
        self.pairs = 0

    @property
    def slots_held(self) -> int:
        """Slots whose weights are there."""
        return int((~self.w_in.isnan().any(dim=2).any(dim=1)).sum())

    def compute(self, messages: Messages) -> Tensor:
        """Return one row per message: the sum over its slots on this rank.

        Weighted by the message's gates if it has any. A message that is only
        passing through gets zeros.
        """
        place_NM = messages.slots_NM - self.first_slot
        here_NM = (place_NM >= 0) & (place_NM < len(self.w_in))
        meant_N = (messages.final_N == self.gpu) | (messages.final_N == ANY_RANK)
        row, column = torch.nonzero(here_NM & meant_N[:, None], as_tuple=True)
        # Tokens of one expert lie together, so each expert runs once per batch.
        order = torch.argsort(place_NM[row, column], stable=True)
        row, column = row[order], column[order]
        sizes = torch.bincount(place_NM[row, column], minlength=len(self.w_in))
        batches = messages.payload_NH[row].split(sizes.tolist())
        done = torch.cat(
            [
                swiglu(batch, self.w_in[slot], self.w_out[slot])
                for slot, batch in enumerate(batches)
                if len(batch)
            ]
            or [messages.payload_NH[:0]]
        )
        if messages.gates_NM is not None:
            done = done * messages.gates_NM[row, column][:, None]
        self.pairs += len(row)
        return torch.zeros_like(messages.payload_NH).index_add_(0, row, done)
