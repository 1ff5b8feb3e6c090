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


def copied(x: Tensor, group: Any) -> Tensor:
    """Return ``x``; its gradient is added up over the group."""
    alike: Tensor = _Copied.apply(x, group)
    return alike


def added(x: Tensor, group: Any) -> Tensor:
    """Return the sum of the ranks' ``x``; the gradient of each is that of the sum."""
    total: Tensor = _Added.apply(x, group)
    return total


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


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, group: Any) -> Tensor:
        return summed(x, group)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
