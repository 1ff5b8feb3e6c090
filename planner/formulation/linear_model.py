"""A linear or mixed-integer model as NumPy arrays, free of any solver.

Axes: V variables, R rows, Z non-zero coefficients.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from planner.arrays import BoolArray, FloatArray, IntArray

INFINITY = float("inf")


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearModel:
    """Minimize cost·v where row_lower <= A·v <= row_upper and lower <= v <= upper.

    Attributes
    ----------
    row_Z, column_Z, value_Z
        Non-zeros of A; no (row, column) pair occurs twice.
    variables
        Columns of each named family, shaped as the family is.
    families
        Rows of each named constraint family.
    """

    lower_V: FloatArray
    upper_V: FloatArray
    cost_V: FloatArray
    integer_V: BoolArray
    row_lower_R: FloatArray
    row_upper_R: FloatArray
    row_Z: IntArray
    column_Z: IntArray
    value_Z: FloatArray
    variables: Mapping[str, IntArray]
    families: Mapping[str, IntArray]

    def relaxed(self) -> "LinearModel":
        """Return the linear relaxation."""
        return replace(self, integer_V=np.zeros_like(self.integer_V))

    def with_fixed(self, columns: IntArray, values: FloatArray) -> "LinearModel":
        """Return the linear model in which ``columns`` have these values."""
        lower_V, upper_V = self.lower_V.copy(), self.upper_V.copy()
        lower_V[columns] = upper_V[columns] = values
        return replace(self.relaxed(), lower_V=lower_V, upper_V=upper_V)

    def dual_bound(self, duals_R: FloatArray) -> float:
        """Return the lower bound that any row multipliers prove.

        Weak duality over the box: Σ y·(the row's binding side) + Σ_j min over
        [lower, upper] of (cost − Aᵀy)_j v_j. It holds for every y, so a solver's
        tolerances cannot make it wrong; minus infinity where a free column would
        pay for a multiplier.
        """
        usable = np.where(duals_R > 0, self.row_lower_R, self.row_upper_R)
        y_R = np.where(np.isfinite(usable), duals_R, 0.0)
        gain = float(np.sum(y_R * np.where(np.isfinite(usable), usable, 0.0)))
        priced = np.bincount(
            self.column_Z,
            weights=y_R[self.row_Z] * self.value_Z,
            minlength=self.cost_V.size,
        )
        reduced_V = self.cost_V - priced
        side_V = np.where(reduced_V > 0, self.lower_V, self.upper_V)
        priced_in = reduced_V != 0
        return gain + float(np.sum(reduced_V[priced_in] * side_V[priced_in]))


class ModelBuilder:
    """Collects families of variables and rows; every family has a name."""

    def __init__(self) -> None:
        self._columns: list[tuple[FloatArray, FloatArray, FloatArray, bool]] = []
        self._limits: list[tuple[FloatArray, FloatArray]] = []
        self._entries: list[tuple[IntArray, IntArray, FloatArray]] = []
        self._variables: dict[str, IntArray] = {}
        self._families: dict[str, IntArray] = {}
        self._column_count = self._row_count = 0

    def variables(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        lower: ArrayLike = 0.0,
        upper: ArrayLike = INFINITY,
        cost: ArrayLike = 0.0,
        integer: bool = False,
    ) -> IntArray:
        """Add a family and return its columns, shaped ``shape``."""
        size = int(np.prod(shape))
        index = self._column_count + np.arange(size, dtype=np.int64).reshape(shape)
        self._column_count += size
        self._variables[name] = index
        bounds = (_spread(lower, shape), _spread(upper, shape), _spread(cost, shape))
        self._columns.append((*bounds, integer))
        return index

    def rows(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        lower: ArrayLike = -INFINITY,
        upper: ArrayLike = INFINITY,
    ) -> IntArray:
        """Add a family of rows and return their numbers, shaped ``shape``."""
        size = int(np.prod(shape))
        index = self._row_count + np.arange(size, dtype=np.int64).reshape(shape)
        self._row_count += size
        self._families[name] = index
        self._limits.append((_spread(lower, shape), _spread(upper, shape)))
        return index

    def add(self, rows: IntArray, columns: IntArray, values: ArrayLike = 1.0) -> None:
        """Add coefficients; the three arguments are broadcast together."""
        row, column, value = np.broadcast_arrays(rows, columns, np.asarray(values))
        kept = value != 0
        self._entries.append((row[kept], column[kept], value[kept].astype(np.float64)))

    def build(self) -> LinearModel:
        """Return the finished model."""
        row_Z, column_Z, value_Z = (
            np.concatenate(parts) for parts in zip(*self._entries, strict=True)
        )
        lower, upper, cost, whole = zip(*self._columns, strict=True)
        row_lower, row_upper = zip(*self._limits, strict=True)
        return LinearModel(
            lower_V=np.concatenate(lower),
            upper_V=np.concatenate(upper),
            cost_V=np.concatenate(cost),
            integer_V=np.concatenate(
                [
                    np.full(part.size, flag)
                    for part, flag in zip(lower, whole, strict=True)
                ]
            ),
            row_lower_R=np.concatenate(row_lower),
            row_upper_R=np.concatenate(row_upper),
            row_Z=row_Z,
            column_Z=column_Z,
            value_Z=value_Z,
            variables=self._variables,
            families=self._families,
        )


def _spread(value: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    return np.broadcast_to(np.asarray(value, dtype=np.float64), shape).ravel()
