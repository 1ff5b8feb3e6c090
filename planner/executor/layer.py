"""One MoE layer's experts on ranks: dispatch, expert MLPs, combine, as steps."""

import torch
from torch import Tensor

from planner.executor.moving.base import Mode, Packed, Stops
from planner.executor.precision.base import WireFormat
from planner.executor.slots import Rows, SlotBank
from planner.executor.stepping import Steps
from planner.executor.wire.base import Columns, Shipment, Wire


class PlacedExperts:
    """The routed experts of one layer, placed by a plan on the ranks of a wire."""

    def __init__(
        self,
        *,
        bank: SlotBank,
        mode: Mode,
        stops: Stops,
        wire: Wire,
        wire_format: WireFormat,
    ) -> None:
        self._mode, self._stops = mode, stops
        self.bank, self.wire = bank, wire
        self._out, self._back = wire_format.dispatch, wire_format.combine

    def steps(
        self, x_TH: Tensor, gates_TK: Tensor, slots_TK: Tensor, rank_T: Tensor
    ) -> Steps[Tensor]:
        """Return the weighted sum of every token's experts, [T, H], at its rank.

        Parameters
        ----------
        x_TH, gates_TK
            Hidden states and weights of the chosen experts.
        slots_TK
            Slot that serves each choice, numbered through the cluster; -1 for none.
        rank_T
            The hosted rank each token lies on.
        """
        packed = self._mode.pack(slots_TK, gates_TK, rank_T, self._stops)
        sent = yield from self._sent(packed, self._out.encode(x_TH), rank_T)
        answers_NH = yield from self._served(sent)
        back_NH = yield from self._answered(sent, answers_NH)
        return _added(torch.zeros_like(x_TH), packed, back_NH)

    def _sent(
        self, packed: Packed, payload_T: Columns, rank_T: Tensor
    ) -> Steps[Shipment]:
        header: Columns = (packed.slots_NM,)
        if packed.gates_NM is not None:
            header = (*header, packed.gates_NM)
        columns = (*(rows[packed.owner_N] for rows in payload_T), *header)
        from_N = rank_T[packed.owner_N]
        return (yield from self.wire.send(columns, from_N, packed.to_N))

    def _answered(self, sent: Shipment, answers_NH: Tensor) -> Steps[Tensor]:
        return self._back.decode((yield from sent.back(self._back.encode(answers_NH))))

    def _served(self, sent: Shipment) -> Steps[Tensor]:
        """Compute what came, pass on what is for others, and add their answers.

        Rows are passed on as they came, not decoded and encoded again.
        """
        first = self._rows(sent)
        if not self._mode.relays(self._stops):
            return self.bank.compute(first)
        packed = self._mode.onward(
            first.slots_NM, first.gates_NM, sent.from_N, sent.rank_N, self._stops
        )
        passed = yield from self._sent(
            packed, sent.columns[: self._out.columns], sent.rank_N
        )
        done_NH = self.bank.compute(_together(first, self._rows(passed)))
        own_NH, other_NH = done_NH.split([len(first.rank_N), len(passed.rank_N)])
        back_NH = yield from self._answered(passed, other_NH)
        return _added(own_NH, packed, back_NH)

    def _rows(self, sent: Shipment) -> Rows:
        slots_NM, *gates = sent.columns[self._out.columns :]
        return Rows(
            payload_NH=self._out.decode(sent.columns[: self._out.columns]),
            slots_NM=slots_NM,
            gates_NM=gates[0] if gates else None,
            rank_N=sent.rank_N,
        )


def _together(first: Rows, second: Rows) -> Rows:
    gates = [rows.gates_NM for rows in (first, second) if rows.gates_NM is not None]
    return Rows(
        payload_NH=torch.cat([first.payload_NH, second.payload_NH]),
        slots_NM=torch.cat([first.slots_NM, second.slots_NM]),
        gates_NM=torch.cat(gates) if gates else None,
        rank_N=torch.cat([first.rank_N, second.rank_N]),
    )


def _added(total_TH: Tensor, packed: Packed, rows_NH: Tensor) -> Tensor:
    """Add answers to the rows they belong to."""
    if packed.weight_N is not None:
        rows_NH = rows_NH * packed.weight_N[:, None]
    return total_TH.index_add(0, packed.owner_N, rows_NH)
