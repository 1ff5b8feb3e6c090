"""``direct``: tokens move from layer to layer without coming home (rule 20).

A token stands where its best expert of the layer before ran. It goes to all its
experts, their results meet at its best expert's GPU, and there it stands next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from planner.executor.moving.base import Stops
from planner.executor.precision.base import WireFormat
from planner.executor.slots import Rows, SlotBank
from planner.executor.stepping import Steps
from planner.executor.wire.base import Columns, Wire

PAUSES_OF_LAYER = 4
"""How often a batch pauses in a layer: row counts and rows, both ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Tokens where they stand.

    Attributes
    ----------
    x_NH
        The residual stream.
    token_N
        Which token of the part each row is.
    rank_N
        The hosted rank it stands on.
    carried
        What else goes where the token goes, row by row.
    """

    x_NH: Tensor
    token_N: Tensor
    rank_N: Tensor
    carried: Columns = ()

    @property
    def columns(self) -> Columns:
        """All of the above, one after the other."""
        return (self.x_NH, self.token_N, self.rank_N, *self.carried)

    def take(self, index_N: Tensor) -> "Standing":
        """Return some of the tokens."""
        return _standing([rows[index_N] for rows in self.columns])

    def and_also(self, others: "Standing") -> "Standing":
        """Return these and other tokens, in this order."""
        both = zip(self.columns, others.columns, strict=True)
        return _standing([torch.cat(pair) for pair in both])


class DirectExperts:
    """The routed experts of one layer under ``direct``."""

    def __init__(
        self, *, bank: SlotBank, stops: Stops, wire: Wire, wire_format: WireFormat
    ) -> None:
        self._stops, self.bank, self.wire = stops, bank, wire
        self._out, self._back = wire_format.dispatch, wire_format.combine

    def steps(
        self, standing: Standing, gates_NK: Tensor, slots_NK: Tensor
    ) -> Steps[tuple[Standing, Tensor]]:
        """Move tokens through their experts.

        Returns
        -------
        tuple[Standing, Tensor]
            The tokens where their best experts ran, a token without one where it
            stood, and the weighted sum of its experts beside it, [N, H].
        """
        holder_NK = self._stops.holder(slots_NK)
        merge_N = torch.where(slots_NK[:, 0] >= 0, holder_NK[:, 0], standing.rank_N)
        row_P, choice_P = torch.nonzero(slots_NK >= 0, as_tuple=True)
        order_P = torch.argsort(slots_NK[row_P, choice_P], stable=True)
        row_P, choice_P = row_P[order_P], choice_P[order_P]
        payload = self._out.encode(standing.x_NH)
        sent = yield from self.wire.send(
            (
                *(rows[row_P] for rows in payload),
                slots_NK[row_P, choice_P][:, None],
                gates_NK[row_P, choice_P][:, None],
                standing.token_N[row_P],
                merge_N[row_P],
                choice_P == 0,
                *(rows[row_P] for rows in standing.carried),
            ),
            standing.rank_N[row_P],
            holder_NK[row_P, choice_P],
        )
        x_PH = self._out.decode(sent.columns[: len(payload)])
        header = sent.columns[len(payload) :]
        slots_P1, gates_P1, token_P, merge_P, first_P, *carried = header
        done_PH = self.bank.compute(
            Rows(
                payload_NH=x_PH,
                slots_NM=slots_P1,
                gates_NM=gates_P1,
                rank_N=sent.rank_N,
            )
        )
        met = yield from self.wire.gather(
            (*self._back.encode(done_PH), token_P), sent.rank_N, merge_P
        )
        sent.free()
        *results, of_P = met.columns
        arrived = _standing([x_PH, token_P, sent.rank_N, *carried]).take(first_P)
        moved = arrived.and_also(standing.take(slots_NK[:, 0] < 0))
        return moved, _summed(moved, self._back.decode(tuple(results)), of_P)

    def home(self, standing: Standing, home_N: Tensor) -> Steps[Standing]:
        """Take tokens home after the last layer."""
        payload = self._back.encode(standing.x_NH)
        back = yield from self.wire.gather(
            (*payload, standing.token_N, *standing.carried),
            standing.rank_N,
            home_N,
        )
        x_NH = self._back.decode(back.columns[: len(payload)])
        token_N, *carried = back.columns[len(payload) :]
        return _standing([x_NH, token_N, back.rank_N, *carried])


def _standing(columns: Sequence[Tensor]) -> Standing:
    x_NH, token_N, rank_N, *carried = columns
    return Standing(x_NH=x_NH, token_N=token_N, rank_N=rank_N, carried=tuple(carried))


def _summed(standing: Standing, done_PH: Tensor, token_P: Tensor) -> Tensor:
    """Add results to the tokens they belong to."""
    order_N = torch.argsort(standing.token_N)
    place_P = torch.searchsorted(standing.token_N[order_N], token_P)
    total_NH = torch.zeros_like(standing.x_NH)
    return total_NH.index_add(0, order_N[place_P], done_PH)
