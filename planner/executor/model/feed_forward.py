"""Feed-forward blocks: of a dense layer, of shared experts, of one routed expert."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planner.executor.model.config import Activation

Product: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Multiplies rows by a matrix, or rows of many experts each by its expert's."""


class ExpertFn(Protocol):
    """Maps tokens [..., H] by weights [H, W] and [F, H] to outputs [..., H]."""

    def __call__(
        self, x: Tensor, w_in: Tensor, w_out: Tensor, product: Product = torch.matmul
    ) -> Tensor:
        """Return the outputs."""
        ...


def swiglu(
    x: Tensor, w_in: Tensor, w_out: Tensor, product: Product = torch.matmul
) -> Tensor:
    """Apply SwiGLU (arXiv:2002.05202); weights ``[H, 2F]`` (gate, up), ``[F, H]``."""
    gate, up = product(x, w_in).chunk(2, dim=-1)
    return product(F.silu(gate) * up, w_out)


def gelu(
    x: Tensor, w_in: Tensor, w_out: Tensor, product: Product = torch.matmul
) -> Tensor:
    """Apply two matrices with a GELU between: ``[H, F]`` and ``[F, H]``."""
    return product(F.gelu(product(x, w_in)), w_out)


EXPERT_FNS: dict[Activation, ExpertFn] = {"swiglu": swiglu, "gelu": gelu}


def inner_width(activation: Activation, ffn: int) -> int:
    """Return the columns of ``w_in``: a gate beside each value, or values alone."""
    return 2 * ffn if activation == "swiglu" else ffn


class FeedForward(nn.Module):
    """A feed-forward block that every token passes.

    Attributes
    ----------
    w_in, w_out
        Weights ``[H, W]`` (W is 2F for SwiGLU, else F) and ``[F, H]``.
    """

    def __init__(self, hidden: int, ffn: int, activation: Activation) -> None:
        super().__init__()
        self.apply_expert = EXPERT_FNS[activation]
        width = inner_width(activation, ffn)
        self.w_in = nn.Parameter(torch.randn(hidden, width) * hidden**-0.5)
        self.w_out = nn.Parameter(torch.randn(ffn, hidden) * 0.3 * ffn**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for tokens ``[..., H]``."""
        return self.apply_expert(x, self.w_in, self.w_out)
