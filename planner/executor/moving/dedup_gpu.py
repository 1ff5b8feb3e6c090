"""``dedup_gpu``: one message per (token, distinct GPU), a partial sum back."""

import torch
from torch import Tensor

from planner.executor.moving.base import (
    Packed,
    Stops,
    Unmerged,
    distinct,
)


class DedupGpu(Unmerged):
    """DeepEP direct, TensorRT-LLM all-to-all."""

    def pack(
        self, slots_TK: Tensor, gates_TK: Tensor, rank_T: Tensor, stops: Stops
    ) -> Packed:
        """Pack a message per (token, distinct GPU), naming that GPU's slots."""
        holder_TK = stops.holder(slots_TK)
        token_N, gpu_N = distinct(holder_TK)
        meant_NK = holder_TK[token_N] == gpu_N[:, None]
        return Packed(
            owner_N=token_N,
            slots_NM=torch.where(meant_NK, slots_TK[token_N], -1),
            gates_NM=gates_TK[token_N],
            weight_N=None,
            to_N=stops.first_stop(rank_T[token_N], gpu_N),
        ).by_stop()
