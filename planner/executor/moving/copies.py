"""``copies``: one message per (token, chosen expert), weighed at home."""

import torch
from torch import Tensor

from planner.executor.moving.base import (
    Packed,
    Stops,
    Unmerged,
)


class Copies(Unmerged):
    """DeepEP low latency: no merging anywhere."""

    def pack(
        self, slots_TK: Tensor, gates_TK: Tensor, rank_T: Tensor, stops: Stops
    ) -> Packed:
        """Pack a message per (token, expert): by destination, within it by expert."""
        token_P, choice_P = torch.nonzero(slots_TK >= 0, as_tuple=True)
        slot_P = slots_TK[token_P, choice_P]
        order_P = torch.argsort(slot_P, stable=True)
        token_P, choice_P, slot_P = token_P[order_P], choice_P[order_P], slot_P[order_P]
        packed = Packed(
            owner_N=token_P,
            slots_NM=slot_P[:, None],
            gates_NM=None,
            weight_N=gates_TK[token_P, choice_P],
            to_N=stops.first_stop(rank_T[token_P], stops.holder(slot_P)),
        )
        return packed.by_stop() if stops.relayed else packed
