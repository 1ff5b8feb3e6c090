"""The two operators of tensor parallelism: f and g of Megatron-LM, arXiv:1909.08053.

What all ranks of a group hold alike goes through ``copied`` into work that is cut
over them, and what they computed of it comes together by ``added``. One is the
other's gradient, so that whatever all ranks hold alike has the whole gradient on
each of them.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from planner.executor.stepping import Steps
from planner.executor.wire.posted import Posted


def copied(x: Tensor, group: Any) -> Tensor:
    """Return ``x``; its gradient is added up over the group."""
    alike: Tensor = _Copied.apply(x, group)
    return alike


def added(x: Tensor, group: Any) -> Tensor:
    """Return the sum of the ranks' ``x``; the gradient of each is that of the sum."""
    total: Tensor = _Added.apply(x, group)
    return total


def adding(x: Tensor, group: Any) -> Steps[Tensor]:
    """Do as ``added``, pausing while the sum is on its way."""
    total = x.detach().clone(memory_format=torch.contiguous_format)
    work = dist.all_reduce(total, group=group, async_op=True)
    yield Posted(work, "all-reduce", total.numel() * total.element_size())
    found: Tensor = _There.apply(x, total)
    return found


def summed(x: Tensor, group: Any) -> Tensor:
    """Return the sum of the ranks' ``x``, the same bits on each; no gradient."""
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


class _Copied(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, group: Any) -> Tensor:
        context.group = group
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return summed(gradient, context.group), None


class _There(torch.autograd.Function):
    """Puts a finished sum into the graph."""

    @staticmethod
    def forward(context: Any, x: Tensor, total: Tensor) -> Tensor:
        return total.view_as(total)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, group: Any) -> Tensor:
        return summed(x, group)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
