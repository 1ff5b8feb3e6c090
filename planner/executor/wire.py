"""Messages between virtual ranks, and the wire that moves and counts them.

Axes besides those of :mod:`planner.arrays`: N messages of one rank, M slots named
in a message's header, H hidden size of the tensors moved.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from planner.arrays import IntArray
from planner.errors import ReplayMismatch

ANY_RANK = -1
"""``final`` of a message that concerns every rank of the receiver's domain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """Token rows on one rank with all that their receivers must know.

    Attributes
    ----------
    payload_NH
        Hidden states.
    slots_NM
        Slots to compute, numbered through the cluster (GPU · J + position); -1
        for none.
    gates_NM
        Weights of those slots; None where the source weighs the answers itself.
    final_N
        The rank the message is for, or ``ANY_RANK``.
    next_N
        The rank this hop goes to; on arrival, the rank it came to.
    sender_N, row_N
        On arrival: the rank the hop left from, and the row in its outbox, which
        is where the answer belongs.
    """

    payload_NH: Tensor
    slots_NM: Tensor
    gates_NM: Tensor | None
    final_N: Tensor
    next_N: Tensor
    sender_N: Tensor
    row_N: Tensor

    @property
    def count(self) -> int:
        """N."""
        return len(self.next_N)

    def take(self, index_N: Tensor) -> "Messages":
        """Copy the rows of ``index_N``."""
        return self.each(lambda rows: rows[index_N])

    def each(self, change: Callable[[Tensor], Tensor]) -> "Messages":
        """Apply a change of rows to every field alike."""
        return Messages(
            payload_NH=change(self.payload_NH),
            slots_NM=change(self.slots_NM),
            gates_NM=None if self.gates_NM is None else change(self.gates_NM),
            final_N=change(self.final_N),
            next_N=change(self.next_N),
            sender_N=change(self.sender_N),
            row_N=change(self.row_N),
        )


def concatenated(batches: list[Messages]) -> Messages:
    """Return all batches as one, in order."""
    gates = [batch.gates_NM for batch in batches if batch.gates_NM is not None]
    return Messages(
        payload_NH=torch.cat([batch.payload_NH for batch in batches]),
        slots_NM=torch.cat([batch.slots_NM for batch in batches]),
        gates_NM=torch.cat(gates) if gates else None,
        final_N=torch.cat([batch.final_N for batch in batches]),
        next_N=torch.cat([batch.next_N for batch in batches]),
        sender_N=torch.cat([batch.sender_N for batch in batches]),
        row_N=torch.cat([batch.row_N for batch in batches]),
    )


class Wire:
    """Moves rows between the ranks of one process, and counts what it moves.

    Every count is taken from the rows of the buffers themselves, at the moment
    they are moved; rows that stay on their rank are not counted.

    Attributes
    ----------
    dispatch_GG, combine_GG
        Rows moved so far, from rank, to rank.
    """

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self.dispatch_GG: IntArray = np.zeros((ranks, ranks), dtype=np.int64)
        self.combine_GG: IntArray = np.zeros((ranks, ranks), dtype=np.int64)

    def send(self, outboxes: list[Messages]) -> list[Messages]:
        """Move every outbox row to the rank it names; return the inboxes.

        An inbox is ordered by sender, then by the sender's order.
        """
        sizes = torch.tensor([outbox.count for outbox in outboxes])
        rows = concatenated(outboxes)
        sender_N = torch.repeat_interleave(torch.arange(self._ranks), sizes)
        row_N = torch.arange(rows.count) - (sizes.cumsum(0) - sizes)[sender_N]
        order = torch.argsort(rows.next_N, stable=True)
        moved = replace(rows, sender_N=sender_N, row_N=row_N).take(order)
        self.dispatch_GG += self._counted(moved.sender_N, moved.next_N)
        ends = torch.bincount(moved.next_N, minlength=self._ranks).cumsum(0).tolist()
        return [
            moved.each(lambda rows, cut=slice(start, end): rows[cut])  # type: ignore[misc]
            for start, end in pairwise([0, *ends])
        ]

    def answer(
        self, inboxes: list[Messages], answers: list[Tensor], sent: list[int]
    ) -> list[Tensor]:
        """Move one answer row per message back to where the message came from.

        Parameters
        ----------
        inboxes
            The messages as they arrived.
        answers
            One row per message, by rank.
        sent
            Rows of each rank's outbox; its answers come back in that order.

        Raises
        ------
        ReplayMismatch
            If some message was answered more or less than once.
        """
        holder_N = torch.repeat_interleave(
            torch.arange(self._ranks), torch.tensor([box.count for box in inboxes])
        )
        target_N = torch.cat([box.sender_N for box in inboxes])
        sizes = torch.tensor(sent)
        place_N = (sizes.cumsum(0) - sizes)[target_N]
        place_N += torch.cat([box.row_N for box in inboxes])
        rows = torch.cat(answers)
        answered = torch.bincount(place_N, minlength=int(sizes.sum()))
        if len(answered) != int(sizes.sum()) or not bool((answered == 1).all()):
            raise ReplayMismatch(["a message was not answered exactly once"])
        back = torch.empty_like(rows)
        back[place_N] = rows
        self.combine_GG += self._counted(holder_N, target_N)
        return list(back.split(sent))

    def _counted(self, source_N: Tensor, target_N: Tensor) -> IntArray:
        keys = source_N * self._ranks + target_N
        counts = torch.bincount(keys, minlength=self._ranks**2)
        counts_GG = counts.reshape(self._ranks, self._ranks).fill_diagonal_(0)
        found: IntArray = counts_GG.numpy()
        return found
