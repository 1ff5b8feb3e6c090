"""The wire inside one process that hosts all ranks: rows change places at once."""

import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor

from planner.arrays import IntArray
from planner.errors import ReplayMismatch
from planner.executor.stepping import Steps
from planner.executor.wire.base import (
    Columns,
    Gathered,
    Shipment,
    counted,
    in_order,
    inverse,
)
from planner.executor.wire.buffers import Buffers, rows_at


@dataclass(slots=True)
class InOrder:
    """Rows that are there before anything that the same piece does with them."""

    label: str
    posted: float = field(default_factory=time.perf_counter)
    prompt: bool = False

    @property
    def arrived(self) -> float:
        """At once, for whoever is next in order."""
        return self.posted

    def wait(self) -> None:
        """Go on."""


class LocalWire:
    """Sorts rows by the rank they go to; nothing ever has to be waited for.

    Parameters
    ----------
    turns
        Pause all the same, before rows are counted. On a GPU counting waits for all
        that a piece has asked for; meanwhile another piece has asked for its own.
    """

    def __init__(
        self, ranks: int, buffers: Buffers | None = None, *, turns: bool = False
    ) -> None:
        self.ranks, self.first, self.hosted = ranks, 0, ranks
        self._turns, self._buffers = turns, buffers or Buffers(ranks)
        self.dispatch_GG: IntArray = np.zeros((ranks, ranks), dtype=np.int64)
        self.combine_GG: IntArray = np.zeros((ranks, ranks), dtype=np.int64)

    def send(self, columns: Columns, from_N: Tensor, to_N: Tensor) -> Steps[Shipment]:
        """Carry rows (leg dispatch)."""
        order_N = in_order(to_N)
        if order_N is not None:
            columns = tuple(rows[order_N] for rows in columns)
            from_N, to_N = from_N[order_N], to_N[order_N]
        yield from self._pause("dispatch")
        counts_GG = counted(from_N, to_N, self.ranks)
        self.dispatch_GG += counts_GG
        held_G = self._buffers.dispatched(rows_at(counts_GG))

        def back(answers: Columns) -> Steps[Columns]:
            if any(len(rows) != len(to_N) for rows in answers):
                raise ReplayMismatch(["a message was not answered exactly once"])
            if order_N is not None:
                home_N = inverse(order_N)
                answers = tuple(rows[home_N] for rows in answers)
            yield from self._pause("combine")
            answers_GG = counted(to_N, from_N, self.ranks)
            self.combine_GG += answers_GG
            self._buffers.free(held_G + self._buffers.combined(rows_at(answers_GG)))
            return answers

        return Shipment(
            columns=columns,
            rank_N=to_N,
            from_N=from_N,
            back=back,
            free=partial(self._buffers.free, held_G),
        )

    def gather(self, columns: Columns, from_N: Tensor, to_N: Tensor) -> Steps[Gathered]:
        """Carry rows that no answer will follow (leg combine)."""
        order_N = in_order(to_N)
        if order_N is not None:
            columns = tuple(rows[order_N] for rows in columns)
            from_N, to_N = from_N[order_N], to_N[order_N]
        yield from self._pause("combine")
        counts_GG = counted(from_N, to_N, self.ranks)
        self.combine_GG += counts_GG
        self._buffers.free(self._buffers.combined(rows_at(counts_GG)))
        return Gathered(columns=columns, rank_N=to_N)

    def _pause(self, label: str) -> Steps[None]:
        if self._turns:
            yield InOrder(label)
