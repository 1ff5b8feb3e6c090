"""The wire between processes: one rank each, uneven all-to-alls that do not block.

All columns of a row travel as one run of bytes, so a shipment is two collectives:
how many rows each rank will get, then the rows. One buffer is contiguous by
destination. Gradients travel back the same way.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from planner.arrays import IntArray
from planner.errors import ReplayMismatch
from planner.executor.stepping import Steps
from planner.executor.wire.base import (
    Columns,
    Gathered,
    Shipment,
    in_order,
    inverse,
)
from planner.executor.wire.buffers import Buffers
from planner.executor.wire.delay import Delay
from planner.executor.wire.posted import Posted


class ProcessWire:
    """Carries the rows of this process's one rank.

    Parameters
    ----------
    group
        Process group whose ranks are the GPUs of the plan, in EP order.
    delay
        A slower network than there is; None: as it is.
    prompt
        Agree on row counts at once, so that rows leave before another batch works:
        where all ranks are in the same layer. Otherwise a rank would wait for one
        that works on another.
    """

    def __init__(
        self,
        group: Any,
        delay: Delay | None = None,
        buffers: Buffers | None = None,
        *,
        prompt: bool = False,
    ) -> None:
        self._group, self._delay, self._prompt = group, delay, prompt
        self.ranks, self.first, self.hosted = group.size(), group.rank(), 1
        self._buffers = buffers or Buffers(self.ranks)
        self.dispatch_GG: IntArray = np.zeros((self.ranks, self.ranks), dtype=np.int64)
        self.combine_GG: IntArray = np.zeros((self.ranks, self.ranks), dtype=np.int64)

    def send(self, columns: Columns, from_N: Tensor, to_N: Tensor) -> Steps[Shipment]:
        """Carry rows (leg dispatch)."""
        order_N = in_order(to_N)
        if order_N is not None:
            columns = tuple(rows[order_N] for rows in columns)
        leaving, coming = yield from self._agreed(to_N)
        rows_G = self._rows(leaving, coming)
        held_G = self._buffers.dispatched(rows_G)
        arrived = yield from self._exchanged(columns, leaving, coming, self.dispatch_GG)
        ranks = torch.arange(self.ranks, device=to_N.device)
        coming_G = torch.tensor(coming, device=to_N.device)
        from_N = torch.repeat_interleave(ranks, coming_G)

        def back(answers: Columns) -> Steps[Columns]:
            if any(len(rows) != sum(coming) for rows in answers):
                raise ReplayMismatch(["a message was not answered exactly once"])
            more_G = self._buffers.combined(rows_G)
            rows = yield from self._exchanged(answers, coming, leaving, self.combine_GG)
            self._buffers.free(held_G + more_G)
            if order_N is None:
                return rows
            home_N = inverse(order_N)
            return tuple(column[home_N] for column in rows)

        return Shipment(
            columns=arrived,
            rank_N=torch.full_like(from_N, self.first),
            from_N=from_N,
            back=back,
            free=partial(self._buffers.free, held_G),
        )

    def gather(self, columns: Columns, from_N: Tensor, to_N: Tensor) -> Steps[Gathered]:
        """Carry rows that no answer will follow (leg combine)."""
        order_N = in_order(to_N)
        if order_N is not None:
            columns = tuple(rows[order_N] for rows in columns)
        leaving, coming = yield from self._agreed(to_N)
        held_G = self._buffers.combined(self._rows(leaving, coming))
        arrived = yield from self._exchanged(columns, leaving, coming, self.combine_GG)
        self._buffers.free(held_G)
        rank_N = torch.full((sum(coming),), self.first, device=to_N.device)
        return Gathered(columns=arrived, rank_N=rank_N)

    def _agreed(self, to_N: Tensor) -> Steps[tuple[list[int], list[int]]]:
        """Tell every rank how many rows it will get; return rows sent and to come."""
        leaving_G = torch.bincount(to_N, minlength=self.ranks)
        coming_G = torch.empty_like(leaving_G)
        yield self._posted(coming_G, leaving_G, None, "row counts")
        return leaving_G.tolist(), coming_G.tolist()

    def _rows(self, leaving: list[int], coming: list[int]) -> IntArray:
        """Return the rows that change ranks here, at this rank's place."""
        rows_G = np.zeros(self.ranks, dtype=np.int64)
        stays = leaving[self.first] + coming[self.first]
        rows_G[self.first] = sum(leaving) + sum(coming) - stays
        return rows_G

    def _exchanged(
        self,
        columns: Columns,
        leaving: list[int],
        coming: list[int],
        counts_GG: IntArray,
    ) -> Steps[Columns]:
        """Exchange rows that are in the order of their destinations."""
        counts_GG[self.first] += leaving
        counts_GG[self.first, self.first] = 0
        packed = _packed(columns)
        received = packed.new_empty(sum(coming), packed.shape[1])
        label = "dispatch" if counts_GG is self.dispatch_GG else "combine"
        yield self._posted(received, packed, (coming, leaving), label)
        arrived = _unpacked(received, columns)
        learning = [at for at, column in enumerate(columns) if column.requires_grad]
        if learning:
            through = _Through.apply(
                self._group,
                leaving,
                coming,
                len(learning),
                *[columns[at] for at in learning],
                *[arrived[at] for at in learning],
            )
            found = dict(zip(learning, through, strict=True))
            arrived = tuple(found.get(at, rows) for at, rows in enumerate(arrived))
        return arrived

    def _posted(
        self,
        received: Tensor,
        sent: Tensor,
        splits: tuple[list[int], list[int]] | None,
        label: str,
    ) -> Posted:
        coming, leaving = splits or (None, None)
        size = sent.numel() * sent.element_size()
        due = 0.0
        if self._delay is not None and splits is not None:
            due = self._delay.due(size)
        work = dist.all_to_all_single(
            received, sent, coming, leaving, group=self._group, async_op=True
        )
        prompt = self._prompt and splits is None
        return Posted(work, label, size, due, prompt=prompt)


class _Through(torch.autograd.Function):
    """Puts a finished exchange into the graph: gradients take the way back."""

    @staticmethod
    def forward(
        context: Any,
        group: Any,
        leaving: list[int],
        coming: list[int],
        count: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        context.way = group, leaving, coming
        context.count = count
        return tuple(rows.clone() for rows in tensors[count:])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Any, ...]:
        group, leaving, coming = context.way
        sent = _packed(gradients)
        received = sent.new_empty(sum(leaving), sent.shape[1])
        dist.all_to_all_single(received, sent, leaving, coming, group=group)
        back = _unpacked(received, gradients)
        return (None, None, None, None, *back, *[None] * context.count)


def _width(rows: Tensor) -> int:
    """Return the bytes of one row."""
    values = 1
    for size in rows.shape[1:]:
        values *= size
    return values * int(rows.element_size())


def _packed(columns: Sequence[Tensor]) -> Tensor:
    """Return all columns as bytes, one row each."""
    return torch.cat(
        [
            rows.detach().reshape(-1).view(torch.uint8).view(len(rows), _width(rows))
            for rows in columns
        ],
        dim=1,
    )


def _unpacked(packed: Tensor, like: Sequence[Tensor]) -> Columns:
    """Cut bytes into columns of the same types and widths as others."""
    found, first = [], 0
    for rows in like:
        # A copy of its own: a view may begin where no value of that type can.
        cut = packed[:, first : first + _width(rows)].clone(
            memory_format=torch.contiguous_format
        )
        shape = (len(packed), *rows.shape[1:])
        found.append(cut.view(-1).view(rows.dtype).view(shape))
        first += _width(rows)
    return tuple(found)
