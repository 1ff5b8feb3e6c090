"""Tokens stay at home; what every layer's experts make of them comes back."""

import torch
import torch.nn.functional as F
from torch import Tensor

from planner.executor.layer import PlacedExperts
from planner.executor.model.moe import MoELayer, RoutedFn
from planner.executor.placement import Placement, relative_error
from planner.executor.stepping import Steps
from planner.executor.text.base import GatheredContext, Reference, TextBatch, TextPass


class RoundTripPass(TextPass[PlacedExperts]):
    """Tokens stay at home; every layer's experts are visited and return."""

    def place(self, placement: Placement, index: int, layer: MoELayer) -> PlacedExperts:
        """Put one layer's experts on the ranks hosted here."""
        weights_E = layer.expert_weights
        return placement.experts(index, weights_E, layer.apply_expert, self.host)

    def through(self, batch: TextBatch) -> Steps[float]:
        """Run a batch unsharded and placed; return how far the logits are apart."""
        reference = self.reference(batch)
        rows_BS, positions_BS = self._own(batch)
        real_BS = rows_BS >= 0
        token_N = rows_BS[real_BS]
        places = torch.nonzero(real_BS, as_tuple=True)
        text_BS = torch.where(
            real_BS, batch.text_BS.gather(1, positions_BS.clamp(min=0)), 0
        )
        routed_N = token_N[self.model.routes(text_BS[real_BS])]
        by = {
            number: self._spread(index, routed_N, reference)
            for index, number in enumerate(self.numbers)
        }
        logits = yield from self.model.steps(
            text_BS,
            positions_BS=positions_BS,
            mask_BS=real_BS,
            context=GatheredContext(self.host),
            routed_by=by,
        )
        wanted_NV = reference.logits_NV[reference.place_T[token_N]]
        return relative_error(logits[places], wanted_NV)

    def _spread(self, index: int, token_N: Tensor, reference: Reference) -> RoutedFn:
        """Return what computes a layer's routed experts where the plan has them."""

        def routed(x_NH: Tensor, ids_NK: Tensor, gates_NK: Tensor) -> Steps[Tensor]:
            own = ids_NK, gates_NK
            ids_NK, gates_NK = self.routing(index, token_N, x_NH, own, reference)
            slots_NK = self.homes.slots(self.choices[index], ids_NK, token_N)
            rank_N = self.homes.source_T[token_N]
            y_NH = yield from self.placed[index].steps(x_NH, gates_NK, slots_NK, rank_N)
            wanted_NH = reference.routed_LNH[index, reference.place_T[token_N]]
            self.tally.differs(index, y_NH, wanted_NH)
            return y_NH

        return routed

    def _own(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """Return the batch's tokens at home here, and their positions, [B, W] each.

        W is the most that any rank has of a sequence, so that all gather alike.
        """
        real_BS = batch.rows_BS >= 0
        positions_BS = torch.arange(real_BS.shape[1], device=real_BS.device)
        positions_BS = positions_BS.expand_as(real_BS).masked_fill(~real_BS, -1)
        if len(self.host.hosted) == self.host.ranks:
            return batch.rows_BS, positions_BS
        home_BS = self.homes.source_T[batch.rows_BS.clamp(min=0)]
        at_home = F.one_hot(home_BS, self.host.ranks)
        width = int((at_home * real_BS[:, :, None]).sum(dim=1).max())
        own_BS = real_BS & (home_BS == self.host.hosted.start)
        # Own tokens first, in the order of the text.
        order_BS = torch.argsort((~own_BS).long(), dim=1, stable=True)[:, :width]
        there = own_BS.gather(1, order_BS)
        return (
            batch.rows_BS.gather(1, order_BS).masked_fill(~there, -1),
            positions_BS.gather(1, order_BS).masked_fill(~there, -1),
        )
