"""A formulation as :class:`LayerSolve` sees it; the cut formulation as one."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from planner.arrays import FloatArray
from planner.formulation.cut.decode import expert_flows
from planner.formulation.cut.encode import CutModel, Encoded, encode
from planner.formulation.cut.prices import prices_of
from planner.formulation.cut.problem import LayerProblem

Model = TypeVar("Model", bound=Encoded)


class Encoding(Protocol[Model]):
    """How a layer becomes a model, and a solution flows and prices."""

    @property
    def name(self) -> str:
        """What bounds by it are called: ``cut``-lp, ``pairs``-milp, …"""
        ...

    def columns(self, problem: LayerProblem) -> int:
        """Return about how many columns a layer has."""
        ...

    def encode(self, problem: LayerProblem) -> Model:
        """Return the model of a layer."""
        ...

    def flows(self, encoded: Model, values_V: FloatArray, expert: int) -> FloatArray:
        """Return the flows of one expert [G source, G server]."""
        ...

    def prices(self, encoded: Model, duals_R: FloatArray) -> Mapping[str, Any] | None:
        """Return the certificate of an LP's multipliers, if there is one."""
        ...


class CutEncoding:
    """The cut formulation: what crosses the borders of nested blocks."""

    name = "cut"

    def columns(self, problem: LayerProblem) -> int:
        """Return about how many columns a layer has."""
        levels = problem.hierarchy.levels
        return problem.experts * problem.gpu_count * (1 + 2 * levels)

    def encode(self, problem: LayerProblem) -> CutModel:
        """Return the model of a layer."""
        return encode(problem)

    def flows(self, encoded: CutModel, values_V: FloatArray, expert: int) -> FloatArray:
        """Return the flows of one expert [G source, G server]."""
        return expert_flows(encoded, values_V, expert)

    def prices(
        self, encoded: CutModel, duals_R: FloatArray
    ) -> Mapping[str, Any] | None:
        """Return the certificate of an LP's multipliers, if there is one."""
        return prices_of(encoded, duals_R)


CUTS = CutEncoding()
