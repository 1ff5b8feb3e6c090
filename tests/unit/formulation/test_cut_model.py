"""The encoded model: the built two-port case, its bounds, its decoding."""

from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest

from planner.errors import SolverError
from planner.formulation.cut import layer as layer_module
from planner.formulation.cut.constraints import FAMILIES, reach, transport
from planner.formulation.cut.counting import counting_bound
from planner.formulation.cut.decode import (
    expert_flows,
    held_of,
    placement_of,
    rounded_placement,
    slots_of,
    split_of,
    transported,
    whole_shares,
)
from planner.formulation.cut.encode import CutModel, encode
from planner.formulation.cut.fold import folded
from planner.formulation.cut.hierarchy import Hierarchy
from planner.formulation.cut.layer import LayerSolve
from planner.formulation.cut.ports import LegRows, Ports, ports_of
from planner.formulation.cut.problem import LayerProblem, layer_problem
from planner.formulation.mathopt import solve_integer, solve_linear
from tests.oracles.brute_force import optimum, random_case, value_of
from tests.oracles.tiny_instances import instance_of, placement_of_plan


def two_port_case() -> LayerProblem:
    """Domain {a0, a1} and b0 alone; NVLink takes 1 per second, NICs 10.

    Expert 1 has all its tokens on a0 and keeps a0's one slot. Expert 0 is wanted by
    a0 and by b0, 100 each, and b0's NIC takes only 0.1 per second in.
    """
    out_RHG, in_RHG = np.zeros((6, 2, 3)), np.zeros((6, 2, 3))
    for gpu, (nic_out, nic_in) in enumerate([(10, 10), (10, 10), (10, 0.1)]):
        out_RHG[2 * gpu, 1, gpu] = 1 / nic_out
        in_RHG[2 * gpu + 1, 1, gpu] = 1 / nic_in
    nvlink = np.zeros((4, 2, 3))
    nvlink[[0, 1], 0, [0, 1]] = 1.0
    none = np.zeros_like(nvlink[:2])
    leg = LegRows(
        out_RHG=np.concatenate([out_RHG, nvlink[:2], none]),
        in_RHG=np.concatenate([in_RHG, none, nvlink[:2]]),
        row_Y=np.zeros(0, dtype=np.int64),
        pair_Y=np.zeros(0, dtype=np.int64),
        value_Y=np.zeros(0),
        weight=1.0,
    )
    hierarchy = Hierarchy(block_KG=np.asarray([[0, 1, 2], [0, 0, 1], [0, 0, 0]]))
    return LayerProblem(
        ports=Ports(hierarchy=hierarchy, legs=(leg,)),
        demand_EG=np.asarray([[100, 0, 100], [10_000, 0, 0]]),
        denominator=1,
        slots_per_gpu=1,
        size_G=np.ones(3, dtype=np.int64),
        rank_G=np.arange(3),
    )


def solved(problem: LayerProblem, *omitted: Any) -> tuple[CutModel, float, np.ndarray]:
    """Return the model, its optimum in the objective's unit, and a solution."""
    families = [family for family in FAMILIES if family not in omitted]
    cut = encode(problem, families)
    outcome = solve_integer(cut.model, 20.0)
    assert outcome.reason == "optimal"
    return cut, outcome.bound * cut.scale.time_unit, outcome.solutions[0]


def test_the_built_two_port_case_costs_90_9() -> None:
    """Law: a0's 100 tokens reach a1 over NVLink at 1, and b0 at 0.1 per second."""
    cut, value, values_V = solved(two_port_case())
    assert value == pytest.approx(100 / 1.1, rel=1e-6)
    assert 1 in placement_of(cut, values_V)[0]


def test_without_transport_rows_the_case_costs_9_09() -> None:
    """Law: without T1 local demand leaves by one NIC and returns by another, at 10."""
    _, value, _ = solved(two_port_case(), transport)
    assert value == pytest.approx(100 / 11, rel=1e-6)


@pytest.mark.parametrize("seed", [13, 16, 27])
def test_leaving_out_redundant_rows_changes_no_optimum(seed: int) -> None:
    """Law: V2 only tightens the relaxation; the integer optimum stays."""
    case = random_case(seed)
    best = optimum(case)
    assert best is not None
    instance = instance_of(case)
    problem = layer_problem(instance, ports_of(instance), 0)
    for omitted in ((), (reach,)):
        assert solved(problem, *omitted)[1] == pytest.approx(best.value, rel=1e-6)


@pytest.mark.parametrize("seed", [5, 13, 21, 29])
def test_fixed_slots_cost_what_enumerated_flows_cost(seed: int) -> None:
    """Law: under fixed slots the cut model equals the model of every flow."""
    case = random_case(seed)
    instance = instance_of(case)
    cut = encode(layer_problem(instance, ports_of(instance), 0))
    experts, gpus = len(case.counts), len(case.gpus)
    slots = np.stack([(g + np.arange(case.slots)) % experts for g in range(gpus)])
    slots = np.sort(slots, axis=1)
    if len(np.unique(slots)) < experts:
        slots = np.sort(
            (np.arange(gpus * case.slots) % experts).reshape(gpus, -1), axis=1
        )
    held_ER = held_of(slots, experts)
    columns = cut.columns.placed_ER
    outcome = solve_linear(cut.model.with_fixed(columns.ravel(), held_ER.ravel()), 9.0)
    expected = value_of(case, placement_of_plan(slots))
    assert outcome.bound * cut.scale.time_unit == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(24))
def test_every_bound_is_below_the_optimum(seed: int) -> None:
    """Law: LP, folded LP and the count of copies bound the enumerated optimum."""
    case = random_case(seed)
    best = optimum(case)
    if best is None:
        return
    instance = instance_of(case)
    problem = layer_problem(instance, ports_of(instance), 0)
    bounds = [counting_bound(problem)]
    problems = [problem]
    if problem.hierarchy.levels > 1:
        problems.append(folded(problem, 1))
    for one in problems:
        cut = encode(one)
        duals_R = solve_linear(cut.model.relaxed(), 9.0).duals_R
        assert duals_R is not None
        bounds.append(cut.model.dual_bound(duals_R) * cut.scale.time_unit)
    assert max(bounds) <= best.value * (1 + 1e-9)


def test_counting_copies_by_hand() -> None:
    """Law: loads 90, 10, 10 on three GPUs with one slot each: the hot one has one."""
    hierarchy = Hierarchy(block_KG=np.asarray([[0, 1, 2], [0, 0, 0]]))

    def bound(slots: int) -> float:
        problem = LayerProblem(
            ports=Ports(hierarchy=hierarchy, legs=()),
            demand_EG=np.repeat([[30], [10], [5]], 3, axis=1),
            denominator=1,
            slots_per_gpu=slots,
            size_G=np.ones(3, dtype=np.int64),
            rank_G=np.arange(3),
        )
        return counting_bound(problem)

    assert bound(1) == pytest.approx(90)
    # Six slots: below 30 the hot expert would need more copies than GPUs.
    assert bound(2) == pytest.approx(30)


def test_transport_keeps_margins_and_avoids_its_own_block() -> None:
    """Law: flows have the given sums and none inside a child block."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        child = np.sort(rng.integers(0, 4, size=8))
        allowed = child[:, None] != child[None, :]
        flow = rng.random((8, 8)) * allowed * (rng.random((8, 8)) < 0.5)
        out, into = flow.sum(axis=1), flow.sum(axis=0)
        found = transported(out, into, child)
        assert (found >= -1e-12).all()
        assert not found[~allowed].any()
        np.testing.assert_allclose(found.sum(axis=1), out, atol=1e-9)
        np.testing.assert_allclose(found.sum(axis=0), into, atol=1e-9)


@pytest.mark.parametrize(
    ("flows", "weights"),
    [
        ([1.0, 1.0], (2**30, 2**30)),
        ([0.0, 5.0], (0, 2**31)),
        ([0.0, 0.0, 0.0], (1, 1, 1)),
        ([1.0, 1.0, 1.0], (715827883, 715827883, 715827882)),
    ],
)
def test_shares_become_whole_weights(
    flows: list[float], weights: tuple[int, ...]
) -> None:
    """Law: weights sum to 2³¹ by largest remainder; no flow means equal weights."""
    assert whole_shares(np.asarray(flows)) == weights


def test_slots_and_placement_variables_are_inverse() -> None:
    """Law: decode ∘ encode of a placement is the identity."""
    slots = np.asarray([[0, 2], [1, 2], [0, 1]], dtype=np.int16)
    assert (slots_of(held_of(slots, 3) > 0) == slots).all()


def test_rounding_covers_every_expert_and_fills_every_slot() -> None:
    """Law: any fractional solution rounds to legal slots."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        slots = rounded_placement(rng.random((7, 4)), 3)
        assert slots.shape == (4, 3)
        assert set(slots.ravel().tolist()) == set(range(7))
        assert (np.diff(slots, axis=1) > 0).all()


def test_decoded_flows_and_weights_agree() -> None:
    """Law: weights are the flows' shares, per DP rank, only for experts with copies."""
    problem = two_port_case()
    cut = encode(problem)
    slots = np.asarray([[1], [0], [0]], dtype=np.int16)
    held_ER = held_of(slots, 2)
    columns = cut.columns.placed_ER
    fixed = cut.model.with_fixed(columns.ravel(), held_ER.ravel())
    values_V = solve_linear(fixed, 9.0).solutions[0]
    flow_GG = expert_flows(cut, values_V, 0) * cut.scale.flow_unit
    np.testing.assert_allclose(flow_GG.sum(axis=1), [100, 0, 100], atol=1e-6)
    flows_of = partial(expert_flows, cut, values_V)
    split = split_of(problem, flows_of, slots, np.arange(3))
    assert set(split) == {0}
    share = split[0]["0"][0] / 2**31
    assert share == pytest.approx(flow_GG[0, 1] / 100, abs=1e-6)
    assert sum(split[0]["*"]) == 2**31


def test_a_solver_that_gives_up_is_noted_and_the_rest_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Law: numerical failure of one solve costs its result, not the plan."""

    def give_up(*_: Any, **__: Any) -> None:
        raise SolverError("numerically unsound")

    monkeypatch.setattr(layer_module, "solve_linear", give_up)
    monkeypatch.setattr(layer_module, "solve_integer", give_up)
    solve = LayerSolve(
        two_port_case(),
        lambda slots, split: (Fraction(200), Fraction(0)),
        name="layer 7",
        rank_of_G=np.arange(3),
    )
    solve.start(1.0)
    solve.relax(1.0)
    solve.branch(1.0, 0.0, 0)
    solve.settle()
    assert solve.slots_RJ is not None
    assert solve.trouble == "layer 7: numerically unsound"


def test_a_bound_above_a_judged_value_is_an_error() -> None:
    """Law: no valid bound exceeds a plan; if one does, the model is wrong."""
    solve = LayerSolve(
        two_port_case(),
        lambda slots, split: (Fraction(1), Fraction(0)),
        name="layer 7",
        rank_of_G=None,
    )
    solve.start(5.0)
    solve.relax(5.0)
    with pytest.raises(SolverError, match=r"layer 7: bound .* disagree"):
        solve.settle()
