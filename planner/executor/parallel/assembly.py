"""A decoder on many ranks: attention divided, experts placed, stages, replicas.

Every rank reads the same whole decoder once and keeps exact slices of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from planner.errors import UsageError
from planner.executor.host import ProcessHost
from planner.executor.model.decoder import Block, Decoder
from planner.executor.model.moe import MoELayer
from planner.executor.parallel.collectives import summed
from planner.executor.parallel.experts import SharedOut, copies_of
from planner.executor.parallel.gradients import Gradients, gradient_of, together
from planner.executor.parallel.pipeline import LossFn, MicroBatch, Pipeline
from planner.executor.parallel.share import Share
from planner.executor.parallel.spec import ParallelSpec, Place
from planner.executor.parallel.stage import Stage
from planner.executor.parallel.tensor import (
    ParallelAttention,
    ParallelFeedForward,
    inner_slices,
)
from planner.executor.placement import Placement
from planner.executor.world.groups import World

Subgroup = Callable[[Sequence[int], str], Any]
"""Makes a process group of some ranks, by a name; all of them call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Process groups of one rank; None where it would be alone."""

    tp: Any = None
    dp: Any = None
    pp: Any = None
    ep: Any = None

    @classmethod
    def of(cls, place: Place, subgroup: Subgroup) -> "Groups":
        """Make the groups of a rank; every rank calls this."""

        def made(name: str, ranks: list[int]) -> Any:
            if len(ranks) == 1 and name != "ep":
                return None
            return subgroup(ranks, f"{name} of {ranks[0]}")

        return cls(
            tp=made("tp", place.tp_ranks),
            dp=made("dp", place.dp_ranks),
            pp=made("pp", place.pp_ranks),
            ep=made("ep", place.ep_ranks),
        )


class ParallelDecoder:
    """One rank's part of a decoder.

    Parameters
    ----------
    whole
        The decoder; the same on every rank, and left as it is.
    placement
        Where the routed experts are, over the ``ep`` places of a stage; its layers
        are all layers with experts. None if there are none.

    Attributes
    ----------
    stage
        This rank's weights.
    """

    def __init__(
        self,
        whole: Decoder,
        place: Place,
        groups: Groups,
        placement: Placement | None,
        device: torch.device,
    ) -> None:
        _check(whole, place.spec, placement)
        self._place, self._groups, self._placement = place, groups, placement
        self._device = device
        self.stage = Stage(whole, Share(place.pp, place.spec.pp))
        self._pipeline = Pipeline(self.stage, groups.pp)
        cut = [self._cut(block) for block in self.stage.blocks]
        own = [
            parameter
            for name, parameter in self.stage.named_parameters()
            if ".slots." not in name
        ]
        everywhere = () if groups.dp is None else ((groups.dp, tuple(own)),)
        self._gradients = together([*cut, Gradients(wholes=everywhere)])

    @classmethod
    def on(
        cls,
        world: World,
        whole: Decoder,
        spec: ParallelSpec,
        placement: Placement | None,
        name: str = "decoder",
    ) -> "ParallelDecoder":
        """Make this rank's part on a world of as many ranks as the spec has.

        ``name`` tells decoders on one world apart; every rank calls this.
        """
        spec.check(whole.config, world.size)
        place = Place(spec, world.rank)
        groups = Groups.of(
            place, lambda ranks, of: world.subgroup(ranks, f"{name}/{of}")
        )
        return cls(whole, place, groups, placement, world.device)

    def parameters(self) -> list[nn.Parameter]:
        """Return what this rank holds and an optimiser may change."""
        return list(self.stage.parameters())

    def outputs(self, batches: Sequence[MicroBatch]) -> list[Tensor]:
        """Return logits of this replica's micro-batches, on its last stage."""
        self._check_alike(len(batches))
        return self._pipeline.outputs(batches)

    def train(self, batches: Sequence[MicroBatch], loss_of: LossFn) -> Tensor:
        """Leave in ``.grad`` what the unsharded model would have there.

        ``loss_of`` gives sums over this replica's tokens, divided by the tokens of
        all replicas (``tokens_of_all``).

        Returns
        -------
        Tensor
            The loss over all replicas on the last stage, 0 on others.

        Raises
        ------
        UsageError
            If replicas bring unlike numbers of micro-batches.
        """
        self._check_alike(len(batches))
        for parameter in self.stage.parameters():
            parameter.grad = None
        loss = self._pipeline.train(batches, loss_of)
        self._gradients.add_up()
        for parameter in self.stage.parameters():
            # Where nothing came of a weight, the unsharded model has zeros.
            parameter.grad = gradient_of(parameter)
        return loss if self._groups.dp is None else summed(loss, self._groups.dp)

    def tokens_of_all(self, tokens: int) -> int:
        """Add up a number of tokens over all replicas."""
        if self._groups.dp is None:
            return tokens
        count = torch.tensor([tokens], device=self._device)
        return int(summed(count, self._groups.dp))

    def _check_alike(self, batches: int) -> None:
        """Stop all replicas if they have unlike numbers of micro-batches."""
        most = torch.tensor([batches, -batches], device=self._device)
        dist.all_reduce(most, dist.ReduceOp.MAX, group=self._groups.ep)
        largest, smallest = most.tolist()
        if largest != -smallest or not largest:
            raise UsageError(
                f"replicas have {-smallest} to {largest} micro-batches: each must have "
                "as many as the others, at least one"
            )

    def _cut(self, block: Block) -> Gradients:
        """Replace what other ranks hold parts of; return whose gradients are parts."""
        found = []
        if self._groups.tp is not None:
            share = Share(self._place.tp, self._place.spec.tp)
            block.attn = ParallelAttention(block.attn, share, self._groups.tp)
            found.append(block.attn.gradients)
            if not isinstance(block.ffn, MoELayer):
                block.ffn = ParallelFeedForward(block.ffn, share, self._groups.tp)
            elif block.ffn.shared is not None:
                block.ffn.shared = ParallelFeedForward(
                    block.ffn.shared, share, self._groups.tp
                )
        if isinstance(block.ffn, MoELayer) and self._placement is not None:
            found.append(self._place_experts(block.layer, block.ffn, self._placement))
        return together(found)

    def _place_experts(
        self, number: int, layer: MoELayer, placement: Placement
    ) -> Gradients:
        """Let the ranks of the stage hold the experts of a layer."""
        place, spec = self._place, self._place.spec
        host = ProcessHost(self._groups.ep, self._device)
        index = placement.plan.layer_numbers.index(number)
        w_in, w_out = (weights.detach() for weights in layer.expert_weights)
        slices = inner_slices(w_in, w_out, Share(place.tp % spec.etp, spec.etp))
        placed = placement.experts(index, slices, layer.apply_expert, host)
        layer.routed = SharedOut(
            placed=placed,
            choice=placement.choice(index, host),
            rank=self._groups.ep.rank(),
            replica=place.dp,
            share=Share(place.tp // spec.etp, spec.tp // spec.etp),
            group=self._groups.tp,
        )
        copies = copies_of(placed.bank, placement, index, self._groups.ep)
        layer.slots = nn.ParameterList(placed.bank.trainable())
        layer.w_in = layer.w_out = None
        return Gradients(copies=copies)


def _check(whole: Decoder, spec: ParallelSpec, placement: Placement | None) -> None:
    numbers = () if placement is None else placement.plan.layer_numbers
    if numbers != whole.config.moe_layers:
        raise UsageError(
            f"the model has experts in layers {list(whole.config.moe_layers)}, the "
            f"plan in {list(numbers)}"
        )
    if placement is None:
        return
    layout = placement.layout
    if (layout.gpu_count, layout.dp) != (spec.ep, spec.dp):
        raise UsageError(
            f"the plan has {layout.gpu_count} GPUs and {layout.dp} DP ranks, a stage "
            f"{spec.ep} places for experts and {spec.dp} replicas"
        )
