"""Float32 as it is: nothing is converted."""

from torch import Tensor

from planner.executor.wire.base import Columns


class Fp32:
    """Four bytes per value."""

    columns = 1

    def encode(self, x_NH: Tensor) -> Columns:
        """Return the values."""
        return (x_NH,)

    def decode(self, columns: Columns) -> Tensor:
        """Return the values."""
        return columns[0]
