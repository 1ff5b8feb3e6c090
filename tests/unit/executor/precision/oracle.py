"""E4M3 by hand: all of its values, and the nearest of them, ties to the even one."""

from typing import Any

import numpy as np


def e4m3_values() -> Any:
    """The values of codes 0 to 126, ascending: 4 bits of exponent (bias 7), 3 below.

    Exponent 0 holds the subnormal values; code 127 is NaN, there is no infinity.
    """
    values = []
    for code in range(127):
        exponent, fraction = code >> 3, code & 7
        if exponent == 0:
            values.append(fraction / 8 * 2.0**-6)
        else:
            values.append((1 + fraction / 8) * 2.0 ** (exponent - 7))
    return np.asarray(values)


def nearest_e4m3(x_N: Any) -> Any:
    """Round values of at most 448 to the nearest, in a tie to the even code."""
    values = e4m3_values()
    distance_NC = np.abs(values - np.abs(x_N)[..., None])
    # Of two nearest ones this is the lower; they are neighbours.
    code_N = distance_NC.argmin(axis=-1)
    above_N = np.minimum(code_N + 1, 126)
    tie_N = np.take_along_axis(distance_NC, above_N[..., None], -1)[..., 0]
    tie_N = tie_N == distance_NC.min(axis=-1)
    code_N = np.where(tie_N & (code_N % 2 == 1), above_N, code_N)
    return np.copysign(values[code_N], x_N)


def power_of_two_for(greatest: float) -> float:
    """The least power of two that takes a value to at most 448; 2^-126 at least."""
    exponent = -126
    while greatest > 448 * 2.0**exponent:
        exponent += 1
    return float(2.0**exponent)


def quantised(x_NH: Any, rows: int) -> Any:
    """Every block of ``rows`` x 128 on its own, in float64."""
    x_NH = np.asarray(x_NH, dtype=np.float64)
    found = np.zeros_like(x_NH)
    for top in range(0, x_NH.shape[0], rows):
        for left in range(0, x_NH.shape[1], 128):
            block = np.s_[top : top + rows, left : left + 128]
            scale = power_of_two_for(float(np.abs(x_NH[block]).max()))
            found[block] = nearest_e4m3(x_NH[block] / scale) * scale
    return found
