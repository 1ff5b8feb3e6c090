"""The wire inside one process that hosts all ranks: rows change places at once."""

import numpy as np
from torch import Tensor

from planner.arrays import IntArray
from planner.errors import ReplayMismatch
from planner.executor.stepping import Steps
from planner.executor.wire.base import Columns, Shipment, counted, in_order, inverse


class LocalWire:
    """Sorts rows by the rank they go to; nothing ever has to be waited for."""

    def __init__(self, ranks: int) -> None:
        self.ranks, self.first, self.hosted = ranks, 0, ranks
        self.dispatch_GG: IntArray = np.zeros((ranks, ranks), dtype=np.int64)
        self.combine_GG: IntArray = np.zeros((ranks, ranks), dtype=np.int64)

    def send(self, columns: Columns, from_N: Tensor, to_N: Tensor) -> Steps[Shipment]:
        """Carry rows (leg dispatch)."""
        yield from ()
        order_N = in_order(to_N)
        shipment = self._moved(columns, from_N, to_N, order_N)
        self.dispatch_GG += counted(shipment.from_N, shipment.rank_N, self.ranks)
        return shipment

    def gather(self, columns: Columns, from_N: Tensor, to_N: Tensor) -> Steps[Shipment]:
        """Carry rows that no answer will follow (leg combine)."""
        yield from ()
        shipment = self._moved(columns, from_N, to_N, in_order(to_N))
        self.combine_GG += counted(shipment.from_N, shipment.rank_N, self.ranks)
        return shipment

    def _moved(
        self, columns: Columns, from_N: Tensor, to_N: Tensor, order_N: Tensor | None
    ) -> Shipment:
        if order_N is not None:
            columns = tuple(rows[order_N] for rows in columns)
            from_N, to_N = from_N[order_N], to_N[order_N]

        def back(answers: Columns) -> Steps[Columns]:
            yield from ()
            if any(len(rows) != len(to_N) for rows in answers):
                raise ReplayMismatch(["a message was not answered exactly once"])
            self.combine_GG += counted(to_N, from_N, self.ranks)
            if order_N is None:
                return answers
            home_N = inverse(order_N)
            return tuple(rows[home_N] for rows in answers)

        return Shipment(columns=columns, rank_N=to_N, from_N=from_N, back=back)
