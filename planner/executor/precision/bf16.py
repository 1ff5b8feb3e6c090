"""Bfloat16: the upper half of a float32, rounded to nearest even."""

import torch
from torch import Tensor

from planner.executor.wire.base import Columns


class Bf16:
    """Two bytes per value; 8 bits of precision, the range of float32."""

    columns = 1

    def encode(self, x_NH: Tensor) -> Columns:
        """Round to bfloat16."""
        return (x_NH.to(torch.bfloat16),)

    def decode(self, columns: Columns) -> Tensor:
        """Widen to float32, exactly."""
        return columns[0].to(torch.float32)
