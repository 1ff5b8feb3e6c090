"""``dedup_domain``: one message per (token, remote domain), copied out inside it.

The message crosses to the GPU on the source's rail; that relay sends one copy to
each distinct GPU of its domain that the token needs, adds up what comes back and
answers with one row.
"""

import torch
from torch import Tensor

from planner.executor.moving.base import Packed, Stops, distinct


class DedupDomain:
    """DeepEP normal and hybrid."""

    def pack(
        self, slots_TK: Tensor, gates_TK: Tensor, rank_T: Tensor, stops: Stops
    ) -> Packed:
        """Pack a message per remote domain, and one per distinct GPU nearby."""
        holder_TK = stops.holder(slots_TK)
        domain_TK = torch.where(slots_TK >= 0, stops.domain_G[holder_TK], -1)
        near_TK = domain_TK == stops.domain_G[rank_T][:, None]
        near_token, gpu = distinct(torch.where(near_TK, holder_TK, -1))
        far_token, domain = distinct(torch.where(near_TK, -1, domain_TK))
        meant = torch.cat(
            [
                holder_TK[near_token] == gpu[:, None],
                domain_TK[far_token] == domain[:, None],
            ]
        )
        token_N = torch.cat([near_token, far_token])
        relay = stops.relay(rank_T[far_token], domain)
        return Packed(
            owner_N=token_N,
            slots_NM=torch.where(meant, slots_TK[token_N], -1),
            gates_NM=gates_TK[token_N],
            weight_N=None,
            to_N=torch.cat([gpu, relay]),
        ).by_stop()

    def relays(self, stops: Stops) -> bool:
        """Always."""
        return True

    def onward(
        self,
        slots_NM: Tensor,
        gates_NM: Tensor | None,
        from_N: Tensor,
        rank_N: Tensor,
        stops: Stops,
    ) -> Packed:
        """Send a copy to every distinct other GPU that a row from afar names."""
        holder_NM = stops.holder(slots_NM)
        foreign_N = stops.domain_G[from_N] != stops.domain_G[rank_N]
        wanted_NM = foreign_N[:, None] & (holder_NM != rank_N[:, None])
        owner_P, gpu_P = distinct(torch.where(wanted_NM, holder_NM, -1))
        meant_PM = holder_NM[owner_P] == gpu_P[:, None]
        return Packed(
            owner_N=owner_P,
            slots_NM=torch.where(meant_PM, slots_NM[owner_P], -1),
            gates_NM=None if gates_NM is None else gates_NM[owner_P],
            weight_N=None,
            to_N=gpu_P,
        ).by_stop()
