"""All rows times the matrix of their own expert, at once: a grouped GEMM."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from planner.executor.model.feed_forward import Product

ALIGNED = 16
"""Bytes that every row of every matrix must be a multiple of."""


def can_group(x_PH: Tensor, weights_P: Sequence[Tensor]) -> bool:
    """Return whether a grouped GEMM exists for these, and is faster than a loop.

    On the CPU it was faster for every shape that was measured. On GPUs torch has a
    kernel for bfloat16 alone. Its gradients are not had for all strides: where they
    are wanted, experts are computed one by one.
    """
    all_of_it = (x_PH, *weights_P)
    if not hasattr(F, "grouped_mm") or not x_PH.numel():
        return False
    if torch.is_grad_enabled() and any(each.requires_grad for each in all_of_it):
        return False
    if any(each.dtype != x_PH.dtype for each in weights_P):
        return False
    widths = [x_PH.shape[1], *(size for each in weights_P for size in each.shape[1:])]
    if any(width * x_PH.element_size() % ALIGNED for width in widths):
        return False
    known = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.bfloat16,)}
    return bool(x_PH.dtype in known.get(x_PH.device.type, ()))


def product_of(sizes_P: Tensor) -> Product:
    """Return what multiplies rows, sorted by expert, by their expert's matrix.

    Parameters
    ----------
    sizes_P
        Rows of each expert.
    """
    ends_P = sizes_P.cumsum(0).to(torch.int32)

    def product(x_PH: Tensor, weights_P: Tensor) -> Tensor:
        found: Tensor = F.grouped_mm(x_PH, weights_P, offs=ends_P)
        return found

    return product
