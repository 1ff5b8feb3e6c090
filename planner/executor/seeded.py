"""Numbers that depend on a seed and a place only, not on who draws them when.

Every rank draws the values of its own tokens and gets those that one process
would have drawn for all.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from planner.arrays import IntArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def uniform(seed: int, stream: int, row_N: IntArray, width: int) -> Tensor:
    """Return values in [0, 1), float32 [N, width], by SplitMix64.

    Parameters
    ----------
    stream
        Tells apart what is drawn for the same rows.

    References
    ----------
    Steele, Lea, Flood: Fast splittable pseudorandom number generators,
    doi:10.1145/2660193.2660195.
    """
    with np.errstate(over="ignore"):
        start = _mixed(_mixed(np.uint64(seed)) + np.uint64(stream) * _GOLDEN)
        first_N = row_N.astype(np.uint64)[:, None] * np.uint64(width)
        place_NW = first_N + np.arange(width, dtype=np.uint64)
        bits = _mixed(start + place_NW * _GOLDEN)
    # The upper 24 bits are what a float32 can hold.
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) * 2.0**-24)


def _mixed(value: Any) -> Any:
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))
