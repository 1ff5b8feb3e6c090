"""From a layer problem to a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from planner.arrays import IntArray
from planner.formulation.cut.constraints import FAMILIES, Parts
from planner.formulation.cut.problem import LayerProblem
from planner.formulation.cut.variables import (
    Scale,
    Variables,
    amounts_of,
    create_variables,
    scale_of,
)
from planner.formulation.linear_model import LinearModel, ModelBuilder


class Placing(Protocol):
    """The columns that every encoding has."""

    @property
    def placed_ER(self) -> IntArray:
        """x: rank r holds a copy of e."""
        ...


class Encoded(Protocol):
    """An encoded layer, whatever the formulation."""

    @property
    def problem(self) -> LayerProblem:
        """The layer."""
        ...

    @property
    def model(self) -> LinearModel:
        """The model."""
        ...

    @property
    def columns(self) -> Placing:
        """Its columns by meaning."""
        ...

    @property
    def scale(self) -> Scale:
        """Its units."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class CutModel:
    """An encoded layer: the model, its columns by meaning, its units."""

    problem: LayerProblem
    model: LinearModel
    columns: Variables
    scale: Scale


def encode(
    problem: LayerProblem, families: Sequence[Callable[[Parts], None]] = FAMILIES
) -> CutModel:
    """Return the cut formulation of a layer.

    Parameters
    ----------
    families
        Constraint families to include; fewer give a relaxation.
    """
    builder, scale = ModelBuilder(), scale_of(problem)
    amounts = amounts_of(problem, scale)
    columns = create_variables(builder, problem, amounts, scale)
    parts = Parts(
        builder=builder, problem=problem, amounts=amounts, scale=scale, columns=columns
    )
    for family in families:
        family(parts)
    return CutModel(
        problem=problem, model=builder.build(), columns=columns, scale=scale
    )
