"""Rotary positions (arXiv:2104.09864)."""

import torch
from torch import Tensor

BASE = 10000.0


def rotate(x_BSND: Tensor, positions_BS: Tensor) -> Tensor:
    """Turn every head's vector ``[B, S, N, D]`` by its token's position.

    Value i and value i + D/2 are a pair that turns by position * BASE^(-2i / D)
    radians, so that a query and a key meet at an angle of their distance alone.
    """
    size = x_BSND.shape[-1]
    steps = torch.arange(0, size, 2, dtype=torch.float32, device=x_BSND.device)
    rate = BASE ** (-steps / size)
    angle = (positions_BS.float()[:, :, None] * rate)[:, :, None]
    cos, sin = angle.cos().to(x_BSND.dtype), angle.sin().to(x_BSND.dtype)
    a, b = x_BSND.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
