"""The only place where units are converted; code holds SI, files name theirs.

Gb is not GB is not GiB: files give ``bandwidth_gbs`` in 1e9 bytes per second and
``latency_us`` in 1e-6 seconds; the code holds bytes per second and seconds.
"""

from fractions import Fraction

GIGA = 10**9
MICRO = Fraction(1, 10**6)


def bytes_per_s(gigabytes_per_s: Fraction) -> Fraction:
    """Return bytes per second of a ``_gbs`` field, exactly."""
    return gigabytes_per_s * GIGA


def seconds(microseconds: Fraction) -> float:
    """Return seconds of a ``_us`` field."""
    return float(microseconds * MICRO)


def show_gbs(bytes_per_second: Fraction) -> str:
    """Return a bandwidth for people: ``369 GB/s``."""
    return f"{float(bytes_per_second / GIGA):g} GB/s"


def show_objective(value: float, unit: str) -> str:
    """Return an objective for people: ``0.02503 ms``, ``138 tokens``."""
    return f"{value * 1e3:.5g} ms" if unit == "s" else f"{value:,.6g} {unit}"


def show_bytes(count: int) -> str:
    """Return a memory size for people, decimal: ``80 GB``."""
    for size, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if abs(count) >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} B"
