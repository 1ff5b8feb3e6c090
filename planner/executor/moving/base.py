"""What the traffic modes share: where GPUs are, what is packed, what relays do.

The rules of who sends what to whom (rules 7 and 20) are acted out message by
message: a mode looks only at the tokens of a rank and at the headers of the rows
that came to it. Axes besides those of :mod:`planner.arrays`: N rows at hand, M
slots named in a row's header, H hidden size.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from planner.layout import ParallelLayout
from planner.witness.transfers import relays


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What leaves, one entry per message.

    Attributes
    ----------
    owner_N
        The row at hand that the message is made from and its answer added to.
    slots_NM
        Slots that the receiver, or those it passes it on to, are to compute.
    gates_NM
        Their weights; None if the answer is weighed by ``weight_N``.
    weight_N
        Weight of the answer; None is 1.
    to_N
        The rank the message goes to first.
    """

    owner_N: Tensor
    slots_NM: Tensor
    gates_NM: Tensor | None
    weight_N: Tensor | None
    to_N: Tensor

    def by_stop(self) -> "Packed":
        """Order messages by the rank they go to first: contiguous by destination."""
        order_N = torch.argsort(self.to_N, stable=True)
        gates_NM, weight_N = self.gates_NM, self.weight_N
        return Packed(
            owner_N=self.owner_N[order_N],
            slots_NM=self.slots_NM[order_N],
            gates_NM=None if gates_NM is None else gates_NM[order_N],
            weight_N=None if weight_N is None else weight_N[order_N],
            to_N=self.to_N[order_N],
        )


class Stops:
    """Where GPUs are: their domains, the relays between them, who holds a slot.

    Parameters
    ----------
    slots
        J, slots of a GPU.
    """

    def __init__(
        self, layout: ParallelLayout, slots: int, endpoint: str, device: torch.device
    ) -> None:
        self._slots, self._endpoint = slots, endpoint
        self.domain_G = torch.from_numpy(layout.domain_G.astype(np.int64)).to(device)
        self._relay_GN = torch.from_numpy(relays(layout)).to(device)

    @property
    def relayed(self) -> bool:
        """Whether rows between domains stop at a relay unasked (rule 7)."""
        return self._endpoint != "local_nic"

    def holder(self, slots: Tensor) -> Tensor:
        """Return the GPU of each slot; -1 for none."""
        return torch.div(slots, self._slots, rounding_mode="floor")

    def relay(self, rank_N: Tensor, domain_N: Tensor) -> Tensor:
        """Return the GPU on each rank's rail in another domain (rule 3)."""
        return self._relay_GN[rank_N, domain_N]

    def first_stop(self, rank_N: Tensor, final_N: Tensor) -> Tensor:
        """Return where rows go first: to their GPU, or to a relay (rule 7)."""
        if not self.relayed:
            return final_N
        here_N, there_N = self.domain_G[rank_N], self.domain_G[final_N]
        far_N = here_N != there_N
        if self._endpoint == "pxn":
            relay_N = self.relay(final_N, here_N)
            far_N &= relay_N != rank_N
        else:
            relay_N = self.relay(rank_N, there_N)
        return torch.where(far_N, relay_N, final_N)


class Mode(Protocol):
    """One traffic mode whose combine is dispatch turned round (rules 20, 21)."""

    def pack(
        self, slots_TK: Tensor, gates_TK: Tensor, rank_T: Tensor, stops: Stops
    ) -> Packed:
        """Return what ranks send for their own tokens.

        Parameters
        ----------
        slots_TK
            The slot that serves each choice; -1 for none.
        rank_T
            The rank each token lies on.
        """
        ...

    def relays(self, stops: Stops) -> bool:
        """Whether any row is ever passed on."""
        ...

    def onward(
        self,
        slots_NM: Tensor,
        gates_NM: Tensor | None,
        from_N: Tensor,
        rank_N: Tensor,
        stops: Stops,
    ) -> Packed:
        """Return what relays pass on of the rows that came from ``from_N``."""
        ...


def distinct(keys_NM: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and key of every distinct key of each row, -1 left out.

    Keys of a row ascend.
    """
    sorted_NM = keys_NM.sort(dim=1).values
    new_NM = sorted_NM >= 0
    new_NM[:, 1:] &= sorted_NM[:, 1:] != sorted_NM[:, :-1]
    row_P, column_P = torch.nonzero(new_NM, as_tuple=True)
    return row_P, sorted_NM[row_P, column_P]


class Unmerged:
    """Relays only where the endpoint mode asks for them, row by row (rule 7)."""

    def relays(self, stops: Stops) -> bool:
        """Whether rows between domains stop at a relay."""
        return stops.relayed

    def onward(
        self,
        slots_NM: Tensor,
        gates_NM: Tensor | None,
        from_N: Tensor,
        rank_N: Tensor,
        stops: Stops,
    ) -> Packed:
        """Pass on every row whose slots are on another GPU, one to one."""
        final_N = stops.holder(slots_NM).amax(dim=1)
        owner_N = torch.nonzero(final_N != rank_N).flatten()
        return Packed(
            owner_N=owner_N,
            slots_NM=slots_NM[owner_N],
            gates_NM=None if gates_NM is None else gates_NM[owner_N],
            weight_N=None,
            to_N=final_N[owner_N],
        ).by_stop()
