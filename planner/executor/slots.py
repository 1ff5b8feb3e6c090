"""The slots of the ranks that a process hosts: copies of expert weights, and work.

Slots are numbered through the cluster, GPU · J + position, so that the slots of a
rank follow each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from planner.arrays import IdArray, IntArray
from planner.errors import UsageError
from planner.executor.grouped import can_group, product_of
from planner.executor.model.feed_forward import ExpertFn
from planner.executor.precision.base import Codec
from planner.executor.precision.fp32 import Fp32
from planner.executor.wire.base import Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows on ranks of this process, and what is to be computed of them.

    Attributes
    ----------
    payload_NH
        Hidden states.
    slots_NM
        Slots to compute, -1 for none.
    gates_NM
        Weights of those slots; None where the source weighs the answers itself.
    rank_N
        The rank each row lies on; slots of other ranks are not its business.
    """

    payload_NH: Tensor
    slots_NM: Tensor
    gates_NM: Tensor | None
    rank_N: Tensor


class SlotBank:
    """Weights of every slot of the hosted ranks, each slot with its own copy.

    Parameters
    ----------
    slots_GJ
        Logical experts of one EP set, [ep, J]; -1 where there is no slot.
    weights_E
        Weights of the logical experts, stacked: SwiGLU's [E, H, 2F] and [E, F, H].
    ranks
        The ranks hosted here.
    codec
        How weights are held; experts compute with what it decodes.

    Attributes
    ----------
    weights_P
        Encoded weights by hosted slot; they stand for NaN where there is no slot,
        so that a wrong address cannot go unseen.
    expert_P
        The expert of each hosted slot; -1 where there is no slot.
    pairs_G
        (token, expert) pairs computed so far by each hosted rank.
    """

    def __init__(
        self,
        slots_GJ: IdArray,
        weights_E: tuple[Tensor, Tensor],
        ranks: range,
        expert: ExpertFn,
        codec: Codec,
    ) -> None:
        self._expert, self._ranks, self._codec = expert, ranks, codec
        ep, self.slots = slots_GJ.shape
        held_GJ = slots_GJ[np.asarray(ranks) % ep].astype(np.int64)
        self.expert_P = torch.from_numpy(held_GJ.reshape(-1)).to(weights_E[0].device)
        empty_P = self.expert_P < 0
        self.weights_P: tuple[Columns, ...] = tuple(
            codec.encode(
                rows[self.expert_P.clamp(min=0)].masked_fill(
                    empty_P[:, None, None], torch.nan
                )
            )
            for rows in weights_E
        )
        self._first = ranks.start * self.slots
        self.pairs_G: IntArray = np.zeros(len(ranks), dtype=np.int64)

    @property
    def held_G(self) -> IntArray:
        """Slots of each hosted rank whose weights are there."""
        there_P = [
            not bool(self._codec.decode(held).isnan().any())
            for held, *_ in self._by_slot()
        ]
        held: IntArray = np.reshape(there_P, (len(self._ranks), -1)).sum(axis=1)
        return held

    @property
    def bytes_G(self) -> IntArray:
        """Bytes of all slots of each hosted rank, empty ones too, as they are held."""
        held = sum(rows.nbytes for columns in self.weights_P for rows in columns)
        return np.full(len(self._ranks), held // len(self._ranks), dtype=np.int64)

    def trainable(self) -> tuple[nn.Parameter, ...]:
        """Make every slot's weights parameters and return them.

        No row ever reaches a slot without an expert, so that gradients are 0 there.

        Raises
        ------
        UsageError
            If weights are held as more than their values.
        """
        if self._codec.columns > 1:
            raise UsageError("weights in fp8 cannot be trained: take fp32 or bf16")
        found = tuple(
            rows if isinstance(rows, nn.Parameter) else nn.Parameter(rows.detach())
            for (rows,) in self.weights_P
        )
        self.weights_P = tuple((rows,) for rows in found)
        return found

    def compute(self, rows: Rows) -> Tensor:
        """Return one row per row: the sum over its slots on its own rank.

        Weighted by the row's gates if it has any. Rows that only pass through get
        zeros. Each expert runs once, on all its rows; all of them at once where torch
        has a grouped GEMM that is faster.
        """
        row_P, column_P, place_P = self._to_compute(rows)
        sizes_P = torch.bincount(place_P, minlength=len(self.weights_P[0][0]))
        sizes = sizes_P.tolist()
        self._count(sizes)
        done_PH = self._done(rows.payload_NH[row_P], sizes_P, sizes)
        if rows.gates_NM is not None:
            done_PH = done_PH * rows.gates_NM[row_P, column_P][:, None]
        return torch.zeros_like(rows.payload_NH).index_add(0, row_P, done_PH)

    def _done(self, x_PH: Tensor, sizes_P: Tensor, sizes: list[int]) -> Tensor:
        """Return the outputs of rows that are sorted by slot."""
        if isinstance(self._codec, Fp32):
            (w_in_P,), (w_out_P,) = self.weights_P
            if can_group(x_PH, (w_in_P, w_out_P)):
                return self._expert(x_PH, w_in_P, w_out_P, product_of(sizes_P))
        # Decoded one by one, so that one expert's values are there at a time.
        done = [
            self._expert(batch, *map(self._codec.decode, held))
            for batch, held in zip(x_PH.split(sizes), self._by_slot(), strict=True)
            if len(batch)
        ]
        return torch.cat(done or [x_PH])

    def _by_slot(self) -> Iterator[tuple[Columns, ...]]:
        """Return the encoded weights of each slot, matrix by matrix."""
        # Cut at once: to index slot by slot costs a gradient of all slots each.
        matrices = (
            zip(*(rows.unbind(0) for rows in columns), strict=True)
            for columns in self.weights_P
        )
        return zip(*matrices, strict=True)

    def _to_compute(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Return row, column and hosted slot of every pair, sorted by slot."""
        holder_NM = torch.div(rows.slots_NM, self.slots, rounding_mode="floor")
        here_NM = (holder_NM == rows.rank_N[:, None]) & (rows.slots_NM >= 0)
        row_P, column_P = torch.nonzero(here_NM, as_tuple=True)
        place_P = rows.slots_NM[row_P, column_P] - self._first
        order_P = torch.argsort(place_P, stable=True)
        return row_P[order_P], column_P[order_P], place_P[order_P]

    def _count(self, sizes_P: list[int]) -> None:
        by_rank = np.asarray(sizes_P, dtype=np.int64).reshape(len(self._ranks), -1)
        self.pairs_G += by_rank.sum(axis=1)
