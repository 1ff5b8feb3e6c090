"""The models written for other solvers: read again by OR-Tools' own reader."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ortools.linear_solver.python import model_builder

from planner.errors import UsageError
from planner.formulation.cut.whole import whole_model
from planner.formulation.linear_model import ModelBuilder
from planner.formulation.mps import write_mps
from planner.instance import Objective, PlacementInstance
from planner.strategies.base import STRATEGIES, Limits
from planner.workload.parts import CountsPart
from tests.oracles.brute_force import optimum, random_case
from tests.oracles.tiny_instances import instance_of, tiny_instance


def solved(path: Path) -> float | None:
    """Return the optimum that SCIP finds in a file; None if it is infeasible."""
    model = model_builder.Model()
    assert model.import_from_mps_file(str(path))
    solver = model_builder.Solver("SCIP")
    solver.set_solver_specific_parameters("limits/gap=0")
    status = solver.solve(model)
    if status == model_builder.SolveStatus.INFEASIBLE:
        return None
    assert status == model_builder.SolveStatus.OPTIMAL
    return float(solver.objective_value)


def written_and_solved(instance: PlacementInstance, path: Path) -> float | None:
    """Return the optimum of an instance's file in the unit of the objective."""
    model, unit = whole_model(instance)
    write_mps(model, path)
    found = solved(path)
    return None if found is None else found * unit


def test_a_model_is_written_by_hand_checked_lines(tmp_path: Path) -> None:
    """Law: every kind of row, bound and coefficient has its line."""
    builder = ModelBuilder()
    whole = builder.variables("x", (2,), upper=[1, 3], cost=[2, 0], integer=True)
    free = builder.variables("y", (1,), lower=-np.inf, cost=-1.0)
    rows = builder.rows("r", (3,), lower=[1, -np.inf, 2], upper=[1, 4, 5])
    builder.add(rows[:, None], np.asarray([whole[0], whole[1], free[0]])[None, :])
    path = tmp_path / "small.mps"
    write_mps(builder.build(), path, says=("three rows",))
    lines = path.read_text().splitlines()
    assert lines[:4] == ["* three rows", "NAME small", "ROWS", " N objective"]
    assert lines[4:7] == [" E r_0", " L r_1", " L r_2"]
    for line in (
        " M0 'MARKER' 'INTORG'",
        " x_0 objective 2.0",
        " x_1 r_2 1.0",
        " M1 'MARKER' 'INTEND'",
        " y_0 objective -1.0",
        " RHS r_0 1.0",
        " RHS r_2 5.0",
        " RNG r_2 3.0",
        " UP BND x_1 3.0",
        " MI BND y_0",
    ):
        assert line in lines
    # y = 1 − x0 − x1 from the equality, at least 2 from the range: impossible.
    assert solved(path) is None


@pytest.mark.parametrize("seed", range(340, 352))
def test_another_reader_finds_the_enumerated_optimum(tmp_path: Path, seed: int) -> None:
    """Law: what is written is the problem: SCIP's optimum of the file is its own."""
    case = random_case(seed)
    best = optimum(case)
    instance = instance_of(case)
    if best is None and instance.slot_count >= instance.model.experts:
        pytest.skip("memory is not in the model: it is checked before")
    path = tmp_path / "case.mps"
    found = written_and_solved(instance, path)
    if best is None:
        assert found is None
    else:
        assert found == pytest.approx(best.value, rel=1e-6)


def two_layers(mode: str) -> PlacementInstance:
    """Return two unequal layers of four experts on three GPUs."""
    case = random_case(341)
    counts = np.asarray([[9, 5, 3, 1], [1, 20, 4, 4]], dtype=np.int64)
    return tiny_instance(
        case.topology,
        CountsPart(tokens_LE=counts, top_k=1),
        experts=4,
        slots=2,
        objective=Objective(layers=mode),
    )


@pytest.mark.parametrize("mode", ["sequential", "worst_layer"])
def test_layers_add_up_or_the_worst_counts(tmp_path: Path, mode: str) -> None:
    """Law: the file's optimum is that of the strategy for all layers together."""
    instance = two_layers(mode)
    found = written_and_solved(instance, tmp_path / "both.mps")
    result = STRATEGIES.get("milp")(instance, Limits(seconds=60, threads=1))
    assert result.bound is not None
    assert found == pytest.approx(result.bound.value, rel=1e-6)


def test_what_has_no_linear_model_says_why() -> None:
    """Law: merged transfers and nested groups are refused with the reason."""
    instance = two_layers("sequential")
    (load,) = instance.workloads
    merged = replace(instance, workloads=(replace(load, traffic="dedup_gpu"),))
    with pytest.raises(UsageError, match="traffic dedup_gpu has no linear model"):
        whole_model(merged)
    with pytest.raises(UsageError, match="free routing groups only"):
        whole_model(replace(instance, nested_groups=2))
    with pytest.raises(UsageError, match="several models"):
        whole_model(replace(instance, workloads=(load, load)))
