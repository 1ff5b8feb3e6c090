"""FP8 (e4m3) with one float32 scale per block of 128 values, or 128 x 128.

DeepSeek-V3 (arXiv:2412.19437, section 3.3) quantises what it dispatches per token
and 128 channels, with scales that are powers of two, and weights per 128 x 128
block; DeepEP carries the values and their scales beside each other. A scale here is
the least power of two with which the block's greatest value is at most 448, the
greatest of e4m3: dividing and multiplying by it loses nothing, and values that were
quantised once are quantised to themselves again.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from planner.executor.wire.base import Columns

BLOCK = 128
E4M3 = torch.float8_e4m3fn
_MAX_MANTISSA, _MAX_EXPONENT = 0.875, 9
"""448 = 0.875 · 2^9."""
_LEAST_EXPONENT = -126
"""Of a scale whose inverse float32 can hold."""


class Fp8:
    """One byte per value and four per block.

    Parameters
    ----------
    rows
        Rows of a block: 1 for tokens, 128 for weight matrices.
    """

    columns = 2

    def __init__(self, rows: int = 1) -> None:
        self._rows = rows

    def encode(self, x_NH: Tensor) -> Columns:
        """Return values and scales.

        A block with an infinity or a NaN becomes NaN: nothing is saturated.
        """
        scale_NB = _scales(_block_maxima(x_NH.abs(), self._rows))
        values_NH = (x_NH / self._spread(scale_NB, x_NH)).to(E4M3)
        return values_NH, scale_NB

    def decode(self, columns: Columns) -> Tensor:
        """Return each value times its block's scale, float32."""
        values_NH, scale_NB = columns
        return values_NH.to(torch.float32) * self._spread(scale_NB, values_NH)

    def _spread(self, scale_NB: Tensor, like_NH: Tensor) -> Tensor:
        """Return the scale of every value."""
        height, width = like_NH.shape[-2:]
        spread_NH = scale_NB.repeat_interleave(BLOCK, dim=-1)[..., :width]
        if self._rows == 1:
            return spread_NH
        return spread_NH.repeat_interleave(self._rows, dim=-2)[..., :height, :]


def _block_maxima(size_NH: Tensor, rows: int) -> Tensor:
    """Return the greatest value of each block; a last one may be smaller."""
    height, width = size_NH.shape[-2:]
    padded = F.pad(size_NH, (0, -width % BLOCK, 0, -height % rows))
    blocks = padded.unflatten(-1, (-1, BLOCK)).amax(dim=-1)
    return blocks if rows == 1 else blocks.unflatten(-2, (-1, rows)).amax(dim=-2)


def _scales(greatest_NB: Tensor) -> Tensor:
    """Return the least powers of two that take values to at most 448."""
    mantissa_NB, exponent_NB = torch.frexp(greatest_NB)
    exponent_NB = exponent_NB - _MAX_EXPONENT + (mantissa_NB > _MAX_MANTISSA)
    scale_NB = torch.ldexp(
        torch.ones_like(greatest_NB), exponent_NB.clamp(min=_LEAST_EXPONENT)
    )
    return torch.where(greatest_NB.isfinite(), scale_NB, torch.nan)
