"""One of several equal parts of a dimension."""

from dataclasses import dataclass

from torch import Tensor

from planner.errors import ModelError


@dataclass(frozen=True, slots=True)
class Share:
    """Part ``index`` of ``parts``."""

    index: int
    parts: int

    def of(self, whole: Tensor, dim: int) -> Tensor:
        """Return this part of a tensor along one dimension."""
        return whole.chunk(self.parts, dim)[self.index]

    def count(self, whole: int, where: str) -> int:
        """Return how many of ``whole`` equal things are in a part.

        Raises
        ------
        ModelError
            If they cannot be divided evenly.
        """
        if whole % self.parts:
            raise ModelError(
                f"must be divisible by the {self.parts} ranks that share it",
                where=where,
                value=whole,
            )
        return whole // self.parts
