"""What a number format does: turn float32 values into what travels or is held.

Computing is in float32 on decoded values; gates and sums stay float32 throughout.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from planner.executor.wire.base import Columns


class Codec(Protocol):
    """One format.

    Attributes
    ----------
    columns
        Tensors that one encoded tensor is made of.
    """

    columns: int

    def encode(self, x_NH: Tensor) -> Columns:
        """Return what travels or is held; its first axes are those of ``x_NH``."""
        ...

    def decode(self, columns: Columns) -> Tensor:
        """Return the values that encoded ones stand for.

        What was decoded once and is encoded again stands for the same values.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WireFormat:
    """What rows are carried as, on the way to experts and back (rule 22)."""

    dispatch: Codec
    combine: Codec


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The formats of a placed run.

    Attributes
    ----------
    weights
        Of the expert weights in slots, [slots, rows, columns].
    exact
        Whether nothing is lost: float32 everywhere.
    """

    name: str
    wire: WireFormat
    weights: Codec
    exact: bool = False
