"""What both ways through the model share: a batch, its reference, its context."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from planner.arrays import IntArray
from planner.executor.direct import DirectExperts
from planner.executor.gating.rerouting import Rerouting
from planner.executor.host import Host
from planner.executor.layer import PlacedExperts
from planner.executor.model.decoder import Decoder
from planner.executor.model.moe import MoELayer, RoutedFn, at_once
from planner.executor.placement import Homes, Placement, Tally
from planner.executor.stepping import Steps, finish
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import TokenPart


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBatch:
    """Whole sequences.

    Attributes
    ----------
    rows_BS
        Tokens of the part in the order of their text; -1 where one ended.
    text_BS
        Their ids in the vocabulary.
    """

    rows_BS: Tensor
    text_BS: Tensor

    @classmethod
    def of(
        cls, rows_BS: IntArray, token_ids: IntArray, device: torch.device
    ) -> "TextBatch":
        """Look up the text of some rows."""
        text_BS = np.where(rows_BS >= 0, token_ids[rows_BS], 0)
        return cls(
            rows_BS=torch.from_numpy(rows_BS).to(device),
            text_BS=torch.from_numpy(text_BS).to(device),
        )

    @property
    def token_N(self) -> Tensor:
        """The tokens, sequence by sequence."""
        return self.rows_BS[self.rows_BS >= 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What the unsharded model computes of a batch, by token of the batch.

    ``place_T`` is where a token of the part is in the others; ``ids_LNK`` are the
    experts that its router chose.
    """

    place_T: Tensor
    routed_LNH: Tensor
    ids_LNK: Tensor
    logits_NV: Tensor


Placed = TypeVar("Placed", bound=PlacedExperts | DirectExperts)


class TextPass(Generic[Placed]):
    """One model on one placement; what round trips and chained passes share.

    Attributes
    ----------
    placed
        The experts of each MoE layer on the ranks hosted here.
    rerouting
        Where tokens go in place of the router's choice.
    agreeing, ids
        Recorded choices that the router made again, and all that were recorded.
    """

    rerouting: Rerouting | None = None

    def __init__(
        self,
        host: Host,
        placement: Placement,
        part: TokenPart,
        model: Decoder,
        model_spec: MoEModelSpec,
    ) -> None:
        self.host, self.part, self.model = host, part, model
        self.homes = Homes(part, host)
        self.tally = Tally(placement, model_spec, host)
        self.numbers = placement.plan.layer_numbers
        layers = range(len(self.numbers))
        self.choices = [placement.choice(layer, host) for layer in layers]
        self.placed: list[Placed] = [
            self.place(placement, index, layer)
            for index, layer in enumerate(self.layers)
        ]
        self.agreeing = self.ids = 0
        self._own_choice = placement.precision.exact

    @property
    def layers(self) -> list[MoELayer]:
        """The model's MoE layers."""
        return [self.model.moe[number] for number in self.numbers]

    def place(self, placement: Placement, index: int, layer: MoELayer) -> Placed:
        """Put one layer's experts on the ranks hosted here."""
        raise NotImplementedError

    def through(self, batch: TextBatch) -> Steps[float]:
        """Run a batch unsharded and placed; return how far the logits are apart."""
        raise NotImplementedError

    def routing(
        self,
        index: int,
        token_N: Tensor,
        x_NH: Tensor,
        own: tuple[Tensor, Tensor],
        reference: Reference,
    ) -> tuple[Tensor, Tensor]:
        """Return the experts that tokens go to, and their gates.

        Where nothing is lost on the way these are the router's own, unless it was
        decided before. Otherwise hidden states drift, and choices with them: then
        tokens go to the experts of the unsharded pass, weighed by the router here,
        and what it would have chosen is only compared with the trace.
        """
        self.agreed(index, token_N, own[0])
        if self._own_choice or self.rerouting is not None:
            return self.decided(index, token_N, x_NH, *own)
        ids_NK = reference.ids_LNK[index, reference.place_T[token_N]]
        gates_NK = self.layers[index].weigh(x_NH, ids_NK.clamp(min=0))
        return ids_NK, gates_NK.masked_fill(ids_NK < 0, 0)

    def agreed(self, layer: int, token_N: Tensor, ids_NK: Tensor) -> None:
        """Compare what the router chose with what was recorded or decided."""
        decided = self.rerouting
        whole_LTK = self.part.experts_LTK if decided is None else decided.wanted_LTK
        recorded = whole_LTK[layer][token_N.cpu().numpy()]
        recorded_NK = torch.from_numpy(recorded.astype(np.int64)).to(ids_NK.device)
        same_NKK = recorded_NK[:, :, None] == ids_NK[:, None]
        self.agreeing += int(same_NKK.any(dim=2).sum())
        self.ids += recorded.size

    def decided(
        self, layer: int, token_N: Tensor, x_NH: Tensor, ids: Tensor, gates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return where tokens go, -1 for a choice without room, and their gates.

        That is what the router chose, unless it was decided before. Then gates are
        those of the experts decided on: a choice that rounding turned round here
        must not move other rows than were counted.
        """
        if self.rerouting is None:
            return ids, gates
        at = token_N.cpu().numpy()
        wanted = self.rerouting.wanted_LTK[layer][at].astype(np.int64)
        late = self.rerouting.kept_LTK[layer][at] < 0
        ids = torch.from_numpy(wanted).to(ids.device)
        late_NK = torch.from_numpy(late).to(ids.device)
        gates = self.layers[layer].weigh(x_NH, ids.clamp(min=0))
        if self.rerouting.newcomer_LTK is not None:
            new = torch.from_numpy(self.rerouting.newcomer_LTK[layer][at])
            factor = self.rerouting.newcomers
            gates = torch.where(new.to(ids.device), gates * factor, gates)
        return ids.masked_fill(late_NK, -1), gates.masked_fill(late_NK, 0)

    def reference(self, batch: TextBatch) -> Reference:
        """Let the first process run the unsharded model, and tell all."""
        token_N = batch.token_N
        hidden, vocab = self.model.config.hidden, self.model.config.vocab
        layers, top_k = len(self.numbers), self.part.experts_LTK.shape[2]
        widths = [layers * hidden, layers * top_k, vocab]
        like = torch.empty(len(token_N), sum(widths), device=self.host.device)
        told = self.host.from_first(lambda: self._unsharded(batch), like)
        routed, ids, logits_NV = told.split(widths, dim=1)
        place_T = torch.full_like(self.homes.source_T, -1)
        place_T[token_N] = torch.arange(len(token_N), device=token_N.device)
        return Reference(
            place_T=place_T,
            routed_LNH=routed.unflatten(1, (layers, hidden)).transpose(0, 1),
            # A float32 holds every expert id exactly.
            ids_LNK=ids.unflatten(1, (layers, top_k)).transpose(0, 1).long(),
            logits_NV=logits_NV,
        )

    def _unsharded(self, batch: TextBatch) -> Tensor:
        kept: dict[int, Tensor] = {}
        chosen: dict[int, Tensor] = {}
        real_BS = batch.rows_BS >= 0
        routed_N = self.model.routes(batch.text_BS[real_BS])
        token_N = batch.token_N[routed_N]

        def noting(number: int, layer: MoELayer) -> RoutedFn:
            def combine(x: Tensor, ids: Tensor, gates: Tensor) -> Tensor:
                index = self.numbers.index(number)
                ids, gates = self.decided(index, token_N, x, ids, gates)
                # A choice without room is computed, and its gate is 0.
                y = layer.combine_local(x, ids.clamp(min=0), gates)
                kept[number] = y.new_zeros(len(routed_N), y.shape[1])
                kept[number][routed_N] = y
                chosen[number] = y.new_full((len(routed_N), ids.shape[1]), -1)
                chosen[number][routed_N] = ids.to(y.dtype)
                return y

            return at_once(combine)

        by = {n: noting(n, layer) for n, layer in self.model.moe.items()}
        logits = finish(self.model.steps(batch.text_BS, mask_BS=real_BS, routed_by=by))
        routed = [kept[number] for number in self.numbers]
        ids = [chosen[number] for number in self.numbers]
        return torch.cat([*routed, *ids, logits[real_BS]], dim=1)


class GatheredContext:
    """Attention looks back on the tokens that all ranks have of a sequence."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def extend(self, layer: int, *new: Tensor) -> Steps[tuple[Tensor, ...]]:
        """Gather columns ``[B, W, ...]`` of all ranks: ``[B, G·W, ...]``."""
        return (yield from self._host.gathered(new))
