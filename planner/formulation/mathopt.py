"""The one place that calls MathOpt: arrays in, arrays out, errors translated."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from ortools.math_opt import (
    callback_pb2,
    model_parameters_pb2,
    model_pb2,
    parameters_pb2,
    result_pb2,
    solution_pb2,
)
from ortools.math_opt.core.python import solver as core
from ortools.math_opt.python import mathopt

from planner import clock
from planner.arrays import FloatArray
from planner.errors import SolverError
from planner.formulation.linear_model import LinearModel

# Rows are scaled to about 1; SCIP's default 1e-6 would blur the sixth digit.
FEASIBILITY_TOLERANCE = 1e-9
BARRIER_COLUMNS = 3_000
"""Larger linear models go to the barrier: 11,000 columns take simplex a minute."""

SIMPLEX_SECONDS, SIMPLEX_ENTRY_SECONDS = 2e-5, 1e-8
"""Rates of counted work: a simplex iteration, and every non-zero of the model in it."""
BARRIER_SECONDS = 8e-7
"""Rate of counted work: a barrier iteration, per non-zero."""
ROOT_ITERATIONS, NODE_ITERATIONS = 2.0, 400
"""Rates of counted work: simplex iterations that branch and bound takes before its
first node, per row, and for every node (choosing where to branch takes most)."""

WHOLE_SECONDS = 5e-5
"""Rate of counted work: a model of integers decided, per non-zero."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a solve returned.

    Attributes
    ----------
    reason
        ``optimal``, ``limit`` or ``infeasible``.
    solutions
        Values of all variables, best first; empty if none was found.
    bound
        The solver's own dual bound (minus infinity if it has none).
    duals_R
        Row multipliers of a linear model, None if there are none.
    """

    reason: str
    solutions: tuple[FloatArray, ...]
    bound: float
    duals_R: FloatArray | None = None


def solve_linear(
    model: LinearModel, seconds: float, *, simplex: bool = False
) -> Outcome:
    """Solve a linear model: by the barrier where it is large and not ``simplex``.

    Raises
    ------
    SolverError
        If the solver fails, or calls a bounded model unbounded.
    """
    params = mathopt.SolveParameters()
    solver, rate = mathopt.SolverType.GLOP, simplex_seconds(model)
    if model.cost_V.size > BARRIER_COLUMNS and not simplex:
        rate = BARRIER_SECONDS * model.value_Z.size
        solver = mathopt.SolverType.HIGHS
        params.lp_algorithm = mathopt.LPAlgorithm.BARRIER
        # The caller proves its bound from any multipliers; a vertex is not needed.
        params.highs.string_options["run_crossover"] = "off"
    limit_iterations(params, seconds, rate)
    result = _answer(model, solver, params)
    stats = result.solve_stats
    pivots = int(stats.simplex_iterations) + int(stats.barrier_iterations)
    clock.spend(rate * (1 + pivots))
    duals = [each.dual_solution for each in result.solutions[:1]]
    return Outcome(
        reason=_reason(mathopt.TerminationReason(result.termination.reason), result),
        solutions=tuple(
            as_array(each.primal_solution.variable_values.values)
            for each in result.solutions
            if each.primal_solution.feasibility_status
            == solution_pb2.SOLUTION_STATUS_FEASIBLE
        ),
        bound=float(result.termination.objective_bounds.dual_bound),
        duals_R=as_array(duals[0].dual_values.values)
        if duals and duals[0].dual_values.ids
        else None,
    )


def _answer(
    model: LinearModel, solver: mathopt.SolverType, params: mathopt.SolveParameters
) -> result_pb2.SolveResultProto:
    """Return the solver's own message: MathOpt's objects take longer than solving."""
    try:
        return core.solve(
            to_proto(model),
            solver.value,
            parameters_pb2.SolverInitializerProto(),
            params.to_proto(),
            model_parameters_pb2.ModelSolveParametersProto(),
            None,
            callback_pb2.CallbackRegistrationProto(),
            None,
            None,
        )
    except Exception as error:
        # The binding's own class of errors is not one that can be imported.
        raise SolverError(f"{solver.name} failed: {error}") from error


def as_array(numbers: Sequence[float]) -> FloatArray:
    """Return a message's repeated numbers as an array."""
    return np.fromiter(numbers, dtype=np.float64, count=len(numbers))


def solve_integer(
    model: LinearModel,
    seconds: float,
    *,
    gap: float = 0.0,
    seed: int = 0,
    hints: tuple[FloatArray, ...] = (),
) -> Outcome:
    """Solve a mixed-integer model by branch and bound (SCIP, one thread).

    Parameters
    ----------
    hints
        Values of all variables of known solutions.

    Raises
    ------
    SolverError
        If the solver fails, or calls a bounded model unbounded.
    """
    params = mathopt.SolveParameters(
        random_seed=seed,
        relative_gap_tolerance=gap,
        absolute_gap_tolerance=0.0,
    )
    # Cuts and heuristics take about as long as the iterations.
    rate = 2 * simplex_seconds(model)
    if clock.counts_work():
        root = ROOT_ITERATIONS * model.row_lower_R.size
        nodes = int((seconds / rate - root) / NODE_ITERATIONS)
        if nodes < 1:
            return Outcome(reason="limit", solutions=(), bound=-np.inf)
        params.node_limit = nodes
    else:
        params.time_limit = _duration(seconds)
    params.gscip.real_params["numerics/feastol"] = FEASIBILITY_TOLERANCE
    params.gscip.real_params["numerics/dualfeastol"] = FEASIBILITY_TOLERANCE
    opt_model = _to_mathopt(model)
    variables = list(opt_model.variables())
    starts = [
        mathopt.SolutionHint(
            variable_values=dict(zip(variables, hint.tolist(), strict=True))
        )
        for hint in hints
    ]
    result = _call(
        opt_model,
        mathopt.SolverType.GSCIP,
        params,
        mathopt.ModelSolveParameters(solution_hints=starts),
    )
    nodes = int(result.solve_stats.node_count)
    clock.spend(rate * (_iterations(result) + NODE_ITERATIONS * nodes))
    return _outcome(result, opt_model)


def solve_whole(model: LinearModel, seconds: float) -> FloatArray | None:
    """Return any solution of a model of integers, None if none was found (CP-SAT).

    Far quicker than branch and bound where rows are about numbers, not loads; every
    bound and coefficient is a whole number.

    Raises
    ------
    SolverError
        If the solver fails.
    """
    params = mathopt.SolveParameters(random_seed=0, threads=1)
    if clock.counts_work():
        params.cp_sat.max_deterministic_time = seconds
    else:
        params.time_limit = _duration(seconds)
    result = _answer(model, mathopt.SolverType.CP_SAT, params)
    found = bool(result.solutions)
    limit = result.termination.reason == result_pb2.TERMINATION_REASON_NO_SOLUTION_FOUND
    clock.spend(seconds if limit else WHOLE_SECONDS * model.value_Z.size)
    if not found:
        return None
    return as_array(result.solutions[0].primal_solution.variable_values.values)


def simplex_seconds(model: LinearModel) -> float:
    """Return the counted work of a simplex iteration."""
    return SIMPLEX_SECONDS + SIMPLEX_ENTRY_SECONDS * model.value_Z.size


def limit_iterations(
    params: mathopt.SolveParameters, seconds: float, rate: float
) -> None:
    """Limit the seconds; where work is counted, the iterations they stand for."""
    if clock.counts_work():
        params.iteration_limit = max(1, int(seconds / rate))
    else:
        params.time_limit = _duration(seconds)


def _iterations(result: mathopt.SolveResult) -> int:
    """Return the iterations of a solve, and one for what comes before them."""
    stats = result.solve_stats
    return 1 + int(stats.simplex_iterations) + int(stats.barrier_iterations)


def _duration(seconds: float) -> timedelta:
    return timedelta(seconds=max(0.01, seconds))


def _to_mathopt(model: LinearModel) -> mathopt.Model:
    return mathopt.Model.from_model_proto(to_proto(model))


def to_proto(model: LinearModel) -> model_pb2.ModelProto:
    """Return the model as MathOpt's message; ids are column and row numbers."""
    proto = model_pb2.ModelProto()
    count = model.cost_V.size
    proto.variables.ids.extend(range(count))
    proto.variables.lower_bounds.extend(model.lower_V)
    proto.variables.upper_bounds.extend(model.upper_V)
    proto.variables.integers.extend(model.integer_V.tolist())
    priced = np.flatnonzero(model.cost_V)
    proto.objective.linear_coefficients.ids.extend(priced)
    proto.objective.linear_coefficients.values.extend(model.cost_V[priced])
    proto.linear_constraints.ids.extend(range(model.row_lower_R.size))
    proto.linear_constraints.lower_bounds.extend(model.row_lower_R)
    proto.linear_constraints.upper_bounds.extend(model.row_upper_R)
    order = np.lexsort((model.column_Z, model.row_Z))
    matrix = proto.linear_constraint_matrix
    matrix.row_ids.extend(model.row_Z[order])
    matrix.column_ids.extend(model.column_Z[order])
    matrix.coefficients.extend(model.value_Z[order])
    return proto


def _call(
    opt_model: mathopt.Model,
    solver: mathopt.SolverType,
    params: mathopt.SolveParameters,
    model_params: mathopt.ModelSolveParameters,
) -> mathopt.SolveResult:
    # OR-Tools 9.15: the conversion of a solver's status into an exception fails
    # itself (AttributeError); the status is then the __context__.
    try:
        return mathopt.solve(
            opt_model, solver, params=params, model_params=model_params
        )
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        cause = error.__context__ or error
        raise SolverError(f"{solver.name} failed: {cause}") from error


_REASONS = {
    mathopt.TerminationReason.OPTIMAL: "optimal",
    mathopt.TerminationReason.FEASIBLE: "limit",
    mathopt.TerminationReason.NO_SOLUTION_FOUND: "limit",
    mathopt.TerminationReason.INFEASIBLE: "infeasible",
    mathopt.TerminationReason.IMPRECISE: "limit",
}


def _reason(
    given: mathopt.TerminationReason,
    result: mathopt.SolveResult | result_pb2.SolveResultProto,
) -> str:
    reason = _REASONS.get(given)
    if reason is None:
        text = f"the solver stopped as {given.name}"
        raise SolverError(f"{text}: {result.termination.detail}")
    return reason


def _outcome(result: mathopt.SolveResult, opt_model: mathopt.Model) -> Outcome:
    reason = _reason(result.termination.reason, result)
    variables = list(opt_model.variables())
    found = [
        np.asarray([values[name] for name in variables], dtype=np.float64)
        for values in (
            solution.primal_solution.variable_values
            for solution in result.solutions
            if solution.primal_solution is not None
            and solution.primal_solution.feasibility_status
            == mathopt.SolutionStatus.FEASIBLE
        )
    ]
    return Outcome(
        reason=reason,
        solutions=tuple(found),
        bound=float(result.termination.objective_bounds.dual_bound),
    )
