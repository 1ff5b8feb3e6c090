"""Traffic ``direct``: tokens walk from expert to expert with the text.

Attention runs where a token stands, on keys and values gathered from all ranks: the
replicated context that plans for ``direct`` pay for.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from planner.errors import ReplayMismatch
from planner.executor.direct import DirectExperts, Standing
from planner.executor.model.context import POSITIONS, visible
from planner.executor.model.decoder import Block
from planner.executor.model.moe import MoELayer
from planner.executor.placement import Placement, relative_error
from planner.executor.stepping import Steps
from planner.executor.text.base import GatheredContext, Reference, TextBatch, TextPass


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Where the tokens of a batch are in their sequences, by token of the part.

    ``routed_T`` says which go to routed experts at all.
    """

    sequence_T: Tensor
    position_T: Tensor
    routed_T: Tensor
    sequences: int


class ChainedPass(TextPass[DirectExperts]):
    """Tokens go straight to the next layer's experts, and home at the end."""

    def place(self, placement: Placement, index: int, layer: MoELayer) -> DirectExperts:
        """Put one layer's experts on the ranks hosted here."""
        weights_E = layer.expert_weights
        return placement.direct(index, weights_E, layer.apply_expert, self.host)

    def through(self, batch: TextBatch) -> Steps[float]:
        """Run a batch unsharded and placed; return how far the logits are apart."""
        reference = self.reference(batch)
        text = self._text(batch)
        real_BS = batch.rows_BS >= 0
        token_N, words_N = batch.rows_BS[real_BS], batch.text_BS[real_BS]
        home_N = self.homes.source_T[token_N]
        mine_N = (home_N >= self.host.hosted.start) & (home_N < self.host.hosted.stop)
        own_N = token_N[mine_N]
        standing = Standing(
            x_NH=F.embedding(words_N[mine_N], self.model.embed),
            token_N=own_N,
            rank_N=home_N[mine_N],
        )
        for block in self.model.blocks:
            standing = yield from self._block(block, standing, text, reference)
        home = yield from self.placed[-1].home(
            standing, self.homes.source_T[standing.token_N]
        )
        if not torch.equal(home.token_N.sort().values, own_N.sort().values):
            raise ReplayMismatch(["tokens came home to other ranks than their own"])
        head = self.model.embed if self.model.head is None else self.model.head
        logits = self.model.norm(home.x_NH) @ head.T
        wanted = reference.logits_NV[reference.place_T[home.token_N]]
        return relative_error(logits, wanted)

    def _text(self, batch: TextBatch) -> Text:
        sequence_T = torch.full_like(self.homes.source_T, -1)
        position_T = torch.full_like(self.homes.source_T, -1)
        real_BS = batch.rows_BS >= 0
        sequence_N, position_N = torch.nonzero(real_BS, as_tuple=True)
        routed_T = torch.zeros_like(self.homes.source_T, dtype=torch.bool)
        routed_T[batch.rows_BS[real_BS]] = self.model.routes(batch.text_BS[real_BS])
        sequence_T[batch.rows_BS[real_BS]] = sequence_N
        position_T[batch.rows_BS[real_BS]] = position_N
        return Text(
            sequence_T=sequence_T,
            position_T=position_T,
            routed_T=routed_T,
            sequences=len(real_BS),
        )

    def _block(
        self, block: Block, standing: Standing, text: Text, reference: Reference
    ) -> Steps[Standing]:
        """Attend where tokens stand, then move them through their experts."""
        attended_NH = yield from self._attended(block, standing, text)
        x_NH = standing.x_NH + attended_NH
        normed_NH = block.norm_ffn(x_NH)
        if not isinstance(block.ffn, MoELayer):
            y_NH = block.ffn(normed_NH)
            return Standing(
                x_NH=x_NH + y_NH, token_N=standing.token_N, rank_N=standing.rank_N
            )
        index = self.numbers.index(block.layer)
        own_NK, own_gates_NK = block.ffn.route(normed_NH)
        routed_N = text.routed_T[standing.token_N]
        own = own_NK.masked_fill(~routed_N[:, None], -1), own_gates_NK
        ids_NK, gates_NK = self.routing(
            index, standing.token_N, normed_NH, own, reference
        )
        slots_NK = self.homes.slots(
            self.choices[index], ids_NK, standing.token_N, standing.rank_N
        )
        leaving = Standing(
            x_NH=normed_NH,
            token_N=standing.token_N,
            rank_N=standing.rank_N,
            carried=(x_NH,),
        )
        moved, y_NH = yield from self.placed[index].steps(leaving, gates_NK, slots_NK)
        wanted_NH = reference.routed_LNH[index, reference.place_T[moved.token_N]]
        self.tally.differs(index, y_NH, wanted_NH)
        if block.ffn.shared is not None:
            y_NH = y_NH + block.ffn.shared(moved.x_NH)
        return Standing(
            x_NH=moved.carried[0] + y_NH, token_N=moved.token_N, rank_N=moved.rank_N
        )

    def _attended(self, block: Block, standing: Standing, text: Text) -> Steps[Tensor]:
        """Attend with the tokens laid out by sequence, [B, W]."""
        sequence_N = text.sequence_T[standing.token_N]
        position_N = text.position_T[standing.token_N]
        count_B = torch.bincount(sequence_N, minlength=text.sequences)
        widest = np.asarray([float(count_B.max()) if len(count_B) else 0.0])
        width = max(1, int(self.host.worst(widest)[0]))
        order_N = torch.argsort(sequence_N, stable=True)
        first_B = count_B.cumsum(0) - count_B
        column_N = torch.empty_like(sequence_N)
        places = torch.arange(len(order_N), device=order_N.device)
        column_N[order_N] = places - first_B[sequence_N[order_N]]
        shape = (text.sequences, width)
        positions_BS = torch.full(shape, -1, device=self.host.device)
        positions_BS[sequence_N, column_N] = position_N
        x_BSH = standing.x_NH.new_zeros(*shape, standing.x_NH.shape[1])
        x_BSH[sequence_N, column_N] = standing.x_NH
        context = GatheredContext(self.host)
        (columns_BC,) = yield from context.extend(POSITIONS, positions_BS)
        attended_BSH = yield from block.attn.steps(
            block.norm_attn(x_BSH),
            positions_BS=positions_BS,
            mask_BSC=visible(positions_BS, columns_BC),
            context=context,
        )
        return attended_BSH[sequence_N, column_N]
