"""A slower network than there is, to see what hides behind computing."""

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Delay:
    """One link on which shipments follow each other.

    Attributes
    ----------
    seconds
        What every shipment takes, and
    bytes_per_s
        what its bytes take besides; infinite by default.
    """

    seconds: float = 0.0
    bytes_per_s: float = float("inf")
    _free: float = 0.0

    def due(self, size: int) -> float:
        """Return when a shipment that leaves now will be there."""
        start = max(self._free, time.perf_counter())
        self._free = start + self.seconds + size / self.bytes_per_s
        return self._free
