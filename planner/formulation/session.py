"""One linear model solved again and again with columns closed, or with more of them.

Speaks to MathOpt's solver in its own messages: to turn every answer into MathOpt's
Python objects takes several times as long as the few pivots that an answer costs.
"""

from dataclasses import dataclass

import numpy as np
from ortools.math_opt import (
    callback_pb2,
    model_parameters_pb2,
    model_update_pb2,
    parameters_pb2,
    result_pb2,
    sparse_containers_pb2,
)
from ortools.math_opt.core.python import solver as core
from ortools.math_opt.python import mathopt

from planner import clock
from planner.arrays import BoolArray, FloatArray, IntArray
from planner.errors import SolverError
from planner.formulation.linear_model import LinearModel
from planner.formulation.mathopt import (
    as_array,
    limit_iterations,
    simplex_seconds,
    to_proto,
)

SESSION_ITERATIONS = 50
"""Rate of counted work: simplex iterations that a solve from a known basis counts as
at least."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Vertex:
    """An optimal solution of a :class:`LinearSession`.

    ``value_C`` and ``dual_C`` are of the columns and rows that were asked for.
    """

    objective: float
    value_C: FloatArray
    dual_C: FloatArray


class LinearSession:
    """A linear model solved again and again with other columns closed.

    Dual simplex from the last basis: a few closed columns take a few pivots.

    Parameters
    ----------
    columns, rows
        Whose values and multipliers are wanted; reading all would take longer than
        solving.
    """

    def __init__(self, model: LinearModel, columns: IntArray, rows: IntArray) -> None:
        self._rate = simplex_seconds(model)
        self._column_C, self._upper_C = columns, model.upper_V[columns]
        self._column_order, self._row_order = _ranks(columns), _ranks(rows)
        self._closed_C = np.zeros(columns.size, dtype=np.bool_)
        self._solver, self._filters = _started(model, columns, rows)

    def solve(self, closed_C: BoolArray, seconds: float) -> Vertex | None:
        """Solve with the columns ``closed_C`` (of those asked for) at 0.

        None where there is no solution, or none was found in time.

        Raises
        ------
        SolverError
            If the solver fails.
        """
        self._close(closed_C)
        result = _solved(self._solver, self._filters, seconds, self._rate, dual=True)
        if result is None:
            return None
        found = result.solutions[0]
        values = as_array(found.primal_solution.variable_values.values)
        duals = as_array(found.dual_solution.dual_values.values)
        return Vertex(
            objective=float(found.primal_solution.objective_value),
            value_C=values[self._column_order],
            dual_C=duals[self._row_order],
        )

    def _close(self, closed_C: BoolArray) -> None:
        """Tell the solver which upper bounds have changed."""
        changed = np.flatnonzero(closed_C != self._closed_C)
        if not changed.size:
            return
        changed = changed[np.argsort(self._column_C[changed])]
        update = model_update_pb2.ModelUpdateProto()
        upper = update.variable_updates.upper_bounds
        upper.ids.extend(self._column_C[changed].tolist())
        upper_C = np.where(closed_C, 0.0, self._upper_C)
        upper.values.extend(upper_C[changed].tolist())
        if not self._solver.update(update):
            raise SolverError("GLOP refused a change of bounds")
        self._closed_C = closed_C.copy()


class GrowingSession:
    """A linear model to be minimized that gains columns from solve to solve.

    Primal simplex from the last basis, which stays feasible: a few new columns take a
    few pivots.

    Parameters
    ----------
    columns, rows
        Whose values and multipliers are wanted, in ascending order.
    """

    def __init__(self, model: LinearModel, columns: IntArray, rows: IntArray) -> None:
        self._rate, self._columns = simplex_seconds(model), model.cost_V.size
        self._solver, self._filters = _started(model, columns, rows)

    def solve(self, seconds: float) -> Vertex | None:
        """Solve; None where there is no solution, or none was found in time.

        Raises
        ------
        SolverError
            If the solver fails.
        """
        result = _solved(self._solver, self._filters, seconds, self._rate, dual=False)
        if result is None:
            return None
        found = result.solutions[0]
        return Vertex(
            objective=float(found.primal_solution.objective_value),
            value_C=as_array(found.primal_solution.variable_values.values),
            dual_C=as_array(found.dual_solution.dual_values.values),
        )

    def grow(
        self, column_Z: IntArray, row_Z: IntArray, value_Z: FloatArray, cost: float
    ) -> None:
        """Add columns 0 … max(column_Z), each from 0 up and at one cost."""
        count = int(column_Z.max()) + 1
        ids = range(self._columns, self._columns + count)
        update = model_update_pb2.ModelUpdateProto()
        new = update.new_variables
        new.ids.extend(ids)
        new.lower_bounds.extend([0.0] * count)
        new.upper_bounds.extend([float("inf")] * count)
        new.integers.extend([False] * count)
        prices = update.objective_updates.linear_coefficients
        prices.ids.extend(ids)
        prices.values.extend([cost] * count)
        order = np.lexsort((column_Z, row_Z))
        matrix = update.linear_constraint_matrix_updates
        matrix.row_ids.extend(row_Z[order].tolist())
        matrix.column_ids.extend((self._columns + column_Z[order]).tolist())
        matrix.coefficients.extend(value_Z[order].tolist())
        if not self._solver.update(update):
            raise SolverError("GLOP refused new columns")
        self._columns += count


def _started(
    model: LinearModel, columns: IntArray, rows: IntArray
) -> tuple[core.Solver, model_parameters_pb2.ModelSolveParametersProto]:
    """Return a solver that holds the model, and what of its answers is wanted."""
    filters = model_parameters_pb2.ModelSolveParametersProto(
        variable_values_filter=_only(columns),
        dual_values_filter=_only(rows),
        reduced_costs_filter=_only(np.zeros(0, dtype=np.int64)),
    )
    solver = core.new(
        parameters_pb2.SOLVER_TYPE_GLOP,
        to_proto(model),
        parameters_pb2.SolverInitializerProto(),
    )
    return solver, filters


def _solved(
    solver: core.Solver,
    filters: model_parameters_pb2.ModelSolveParametersProto,
    seconds: float,
    rate: float,
    *,
    dual: bool,
) -> result_pb2.SolveResultProto | None:
    """Return the solver's optimal answer, if there is one in time."""
    params = mathopt.SolveParameters()
    limit_iterations(params, seconds, rate)
    params.glop.use_preprocessing = False
    params.glop.use_dual_simplex = dual
    try:
        result = solver.solve(
            params.to_proto(),
            filters,
            None,
            callback_pb2.CallbackRegistrationProto(),
            None,
            None,
        )
    except Exception as error:
        # The binding's own class of errors is not one that can be imported.
        raise SolverError(f"GLOP failed: {error}") from error
    pivots = 1 + int(result.solve_stats.simplex_iterations)
    clock.spend(rate * (SESSION_ITERATIONS + pivots))
    if result.termination.reason != result_pb2.TERMINATION_REASON_OPTIMAL:
        return None
    return result


def _only(ids: IntArray) -> sparse_containers_pb2.SparseVectorFilterProto:
    """Ask for these alone; the solver wants them sorted and answers in that order."""
    return sparse_containers_pb2.SparseVectorFilterProto(
        filter_by_ids=True, filtered_ids=np.sort(ids).tolist()
    )


def _ranks(ids: IntArray) -> IntArray:
    """Return where each of the ids stands among them sorted."""
    ranks: IntArray = np.argsort(np.argsort(ids))
    return ranks
