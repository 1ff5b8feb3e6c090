"""Pipeline parallelism: micro-batches flow through stages on different ranks.

GPipe (arXiv:1811.06965): a stage runs all micro-batches forwards, then all of them
backwards, last one first. Activations go to the next stage, their gradients to the
one before, point to point; every stage sends and receives in one order, so that
neither gloo nor NCCL can wait for each other in a circle. On their way forwards two
micro-batches take turns: one computes while rows of the other travel to experts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from planner.executor.parallel.gradients import gradient_of
from planner.executor.parallel.stage import Stage
from planner.executor.stepping import Steps, interleave


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Tokens that travel through the stages together.

    Attributes
    ----------
    tokens_BS
        Known to every stage.
    mask_BS
        True where a token is real; None: all are.
    """

    tokens_BS: Tensor
    mask_BS: Tensor | None = None


LossFn = Callable[[Tensor, int], Tensor]
"""Maps logits [B, S, V] of micro-batch m, and m, to its part of the loss."""


class Pipeline:
    """This rank's stage, and how micro-batches come to it and leave it.

    Parameters
    ----------
    group
        The ranks of the pipeline, by stage; None if there is one stage.
    """

    def __init__(self, stage: Stage, group: Any = None) -> None:
        self.stage, self._group = stage, group
        self._place = stage.share.index
        self._leaving: list[tuple[Any, Tensor]] = []

    def outputs(self, batches: Sequence[MicroBatch]) -> list[Tensor]:
        """Return the logits of every micro-batch; nothing but on the last stage."""
        with torch.no_grad():
            found = [left for _, left in interleave(map(self._forward, batches))]
        self._flush()
        return found if self.stage.last else []

    def train(self, batches: Sequence[MicroBatch], loss_of: LossFn) -> Tensor:
        """Add the gradients of all micro-batches to this stage's parameters.

        Returns
        -------
        Tensor
            The sum of the losses on the last stage, 0 on others.
        """
        passed = interleave(map(self._forward, batches))
        total = passed[0][1].new_zeros(())
        for number in reversed(range(len(passed))):
            entered, left = passed[number]
            if self.stage.last:
                loss = loss_of(left, number)
                total = total + loss.detach()
                loss.backward()
            else:
                left.backward(self._received(torch.empty_like(left), self._place + 1))
            if entered is not None:
                assert entered.grad is not None
                self._sent(entered.grad, self._place - 1)
        self._flush()
        self._add_up_tied()
        return total

    def _forward(self, batch: MicroBatch) -> Steps[tuple[Tensor | None, Tensor]]:
        """Return what came in, as a leaf of the graph, and what went out."""
        entered = None
        if not self.stage.first:
            shape = (*batch.tokens_BS.shape, self.stage.config.hidden)
            weight = next(self.stage.parameters())
            entered = self._received(weight.new_empty(shape), self._place - 1)
            entered.requires_grad_(torch.is_grad_enabled())
        left = yield from self.stage.part(
            entered, batch.tokens_BS, mask_BS=batch.mask_BS
        )
        if not self.stage.last:
            self._sent(left.detach(), self._place + 1)
        return entered, left

    def _add_up_tied(self) -> None:
        """Give both stages that hold the embeddings the sum of their gradients."""
        tied = self.stage.tied
        if tied is None:
            return
        own = gradient_of(tied)
        other_place = 0 if self._place else self.stage.share.parts - 1
        other = torch.empty_like(own)
        # NCCL's sends wait for whom they go to: not both at once.
        if self.stage.first:
            self._sent(own, other_place)
            self._received(other, other_place)
        else:
            self._received(other, other_place)
            self._sent(own, other_place)
        self._flush()
        # Addition commutes to the last bit, so both hold the same.
        tied.grad = own + other

    def _sent(self, values: Tensor, place: int) -> None:
        values = values.contiguous()
        self._leaving.append((self._group.send([values], place, 0), values))

    def _received(self, into: Tensor, place: int) -> Tensor:
        self._group.recv([into], place, 0).wait()
        return into

    def _flush(self) -> None:
        """Wait until everything that was sent has left."""
        for work, _ in self._leaving:
            work.wait()
        self._leaving.clear()
