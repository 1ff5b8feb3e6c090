"""Models as arrays, and the one door to the solver."""

import numpy as np
import pytest

from planner.errors import SolverError
from planner.formulation.linear_model import LinearModel, ModelBuilder
from planner.formulation.mathopt import solve_integer, solve_linear


def knapsack(*, most: float = 1.0, integer: bool = True) -> LinearModel:
    """Minimize −(5a + 4b + 3c) with 2a + 3b + c <= 3.5."""
    builder = ModelBuilder()
    taken = builder.variables(
        "taken", (3,), upper=most, cost=[-5.0, -4.0, -3.0], integer=integer
    )
    room = builder.rows("room", (1,), upper=3.5)
    builder.add(room, taken, [2.0, 3.0, 1.0])
    return builder.build()


def test_a_family_keeps_its_shape_and_numbering() -> None:
    """Law: families are numbered one after the other, in the shape they were given."""
    builder = ModelBuilder()
    first = builder.variables("first", (2, 3))
    second = builder.variables("second", (2,))
    builder.add(builder.rows("row", (1,)), second)
    model = builder.build()
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert second.tolist() == [6, 7]
    assert model.variables["second"] is second
    assert model.column_Z.tolist() == [6, 7]


def test_branch_and_bound_finds_the_integer_optimum_and_its_bound() -> None:
    """Law: a and c fit (8), b does not; the bound meets the value."""
    outcome = solve_integer(knapsack(), 10.0)
    assert outcome.reason == "optimal"
    assert outcome.solutions[0].tolist() == [1.0, 0.0, 1.0]
    assert outcome.bound == pytest.approx(-8.0)


def test_the_relaxation_fills_the_room() -> None:
    """Law: LP value −(5 + 3 + 4·0.5/3); its duals prove it."""
    model = knapsack().relaxed()
    outcome = solve_linear(model, 10.0)
    assert outcome.bound == pytest.approx(-8 - 2 / 3)
    assert outcome.duals_R is not None
    assert model.dual_bound(outcome.duals_R) == pytest.approx(-8 - 2 / 3)


def test_fixing_columns_leaves_a_linear_model() -> None:
    """Law: with b taken only 0.25 of a or half of c fits beside it."""
    outcome = solve_linear(
        knapsack().with_fixed(np.asarray([1]), np.asarray([1.0])), 10.0
    )
    assert outcome.bound == pytest.approx(-4 - 1.5)


def test_any_multipliers_prove_a_valid_bound() -> None:
    """Law: weak duality does not ask where the multipliers come from."""
    rng = np.random.default_rng(3)
    model = knapsack()
    bounds = [model.dual_bound(rng.normal(0, 3, size=1)) for _ in range(200)]
    assert max(bounds) <= -8 - 2 / 3 + 1e-12


def test_an_infeasible_model_is_an_outcome_not_an_error() -> None:
    """Law: infeasible is said, with no solution."""
    builder = ModelBuilder()
    one = builder.variables("one", (1,), upper=1.0, integer=True)
    builder.add(builder.rows("much", (1,), lower=2.0), one)
    for outcome in (
        solve_integer(builder.build(), 5.0),
        solve_linear(builder.build().relaxed(), 5.0),
    ):
        assert outcome.reason == "infeasible"
        assert outcome.solutions == ()


def test_what_the_solver_refuses_is_a_solver_error_with_its_reason() -> None:
    """Law: the solver's status reaches the reader although its conversion is broken."""
    with pytest.raises(SolverError, match=r"GSCIP failed: .*lower_bound > upper_bound"):
        solve_integer(knapsack(most=-1.0), 5.0)


def test_an_unbounded_model_is_a_solver_error() -> None:
    """Law: models here are bounded; an unbounded one is a mistake."""
    with pytest.raises(SolverError, match="UNBOUNDED"):
        solve_linear(_free_fall(), 5.0)


def _free_fall() -> LinearModel:
    builder = ModelBuilder()
    down = builder.variables("down", (1,), lower=-np.inf, cost=1.0)
    builder.add(builder.rows("row", (1,), upper=1.0), down)
    return builder.build()
