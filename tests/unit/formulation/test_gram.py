"""The relaxation behind ``gram``: lines under 1/c, loads that are never too high."""

from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.arrays import FloatArray, IdArray
from planner.evaluator.layer import layer_loads
from planner.formulation.gram.problem import groups_of, nets_of, visits_of, why_not
from planner.formulation.gram.solve import Relaxation, solve_nets
from planner.instance import Caps, PlacementInstance
from planner.strategies.judging import judged_layer
from planner.workload.parts import TokenPart
from tests.instances import instance

KINDS: list[dict[str, Any]] = [
    {"domains": [2, 2], "experts": 4, "slots": 1, "traffic": "dedup_domain"},
    {"domains": [1, 2], "experts": 6, "slots": 2, "traffic": "dedup_domain"},
    {"domains": [3], "experts": 6, "slots": 2, "traffic": "dedup_domain"},
    {"domains": [3], "experts": 6, "slots": 2, "traffic": "dedup_gpu"},
    {"domains": [1, 1, 1], "experts": 6, "slots": 2, "traffic": "dedup_gpu"},
    {
        "domains": [2, 2],
        "experts": 4,
        "slots": 1,
        "traffic": "dedup_gpu",
        "endpoint": "dest_forward",
    },
]


def made(kind: int, seed: int, **changes: Any) -> PlacementInstance:
    """Return a tiny instance of one kind."""
    values: dict[str, Any] = {"top_k": 3, "tokens": 40, "seed": seed}
    values |= KINDS[kind] | changes
    return instance(values.pop("domains"), **values)


def placements(problem: PlacementInstance) -> list[IdArray]:
    """Return every way to fill the GPUs, the order within a GPU aside."""
    gpus, slots = problem.layout.ep, problem.slots_per_gpu
    filled = {
        tuple(
            tuple(sorted(order[gpu * slots : (gpu + 1) * slots])) for gpu in range(gpus)
        )
        for order in permutations(range(problem.model.experts))
    }
    return [np.asarray(each, dtype=np.int16) for each in sorted(filled)]


def optimum(problem: PlacementInstance) -> Fraction | None:
    """Return the least value over all placements that keep the caps."""
    judged = [judged_layer(problem, 0, slots, {}) for slots in placements(problem)]
    return min((value for value, excess in judged if not excess), default=None)


def matrix_of(problem: PlacementInstance, slots_GJ: IdArray) -> FloatArray:
    """Return M of every group for a placement."""
    experts = problem.model.experts
    matrices = []
    for members in groups_of(problem):
        own_M = np.zeros(experts + 1)
        own_M[0] = 1
        own_M[1 + slots_GJ[list(members)].ravel().astype(int)] = 1
        matrices.append(np.outer(own_M, own_M))
    return np.stack(matrices)


def test_a_line_is_never_above_one_over_c_and_meets_it_at_k_and_k_plus_1() -> None:
    """Law: 1/c >= (2k + 1 − c) / (k(k + 1)) for whole c, k >= 1."""
    for k in range(1, 30):
        for c in range(1, 60):
            line = Fraction(2 * k + 1 - c, k * (k + 1))
            assert line <= Fraction(1, c)
            assert (line == Fraction(1, c)) == (c in (k, k + 1))


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_relaxed_loads_of_a_placement_are_never_above_its_loads(kind: int) -> None:
    """Law: whatever the guide, no link is booked more than it carries.

    With the placement itself as guide every line is tight, so that links that carry
    visits only are booked exactly.
    """
    problem = made(kind, seed=3)
    nets = nets_of(problem, 0, visits_of(problem))
    relaxation = Relaxation(nets)
    names = {link.name: link.index for link in problem.topology.links}
    rng = np.random.default_rng(0)
    for slots_GJ in placements(problem)[::7]:
        loads = layer_loads(problem, problem.planning, 0, slots_GJ, {})
        matrix_NMM = matrix_of(problem, slots_GJ)
        own_EE = matrix_NMM[:, 1:, 1:].sum(axis=0)
        noise_EE = rng.uniform(0, 1, own_EE.shape)
        np.fill_diagonal(noise_EE, 1)
        for guide_EE, tight in ((own_EE, True), (noise_EE, False)):
            relaxation.choose_lines(guide_EE)
            for leg, found_A in enumerate(relaxation.link_loads(matrix_NMM)):
                size = problem.message_bytes[leg]
                for name, found in zip(nets.visits.names[leg], found_A, strict=True):
                    link = problem.topology.links[names[name]]
                    exact = Fraction(int(loads.loads_2A[leg][link.index]))
                    seconds = float(exact / problem.routes.q * size / link.bytes_per_s)
                    assert found <= seconds * (1 + 1e-9) + 1e-15
                    if tight and (link.kind == "ib" or len(KINDS[kind]["domains"]) < 2):
                        assert found == pytest.approx(seconds, rel=1e-9, abs=1e-15)


@settings(max_examples=15, deadline=None)
@given(
    kind=st.integers(0, len(KINDS) - 1),
    seed=st.integers(0, 10_000),
    objective=st.sampled_from(["link_time", "link_tokens"]),
    cap=st.sampled_from([None, 1.1, 1.3]),
)
def test_the_bound_is_never_above_the_best_of_all_placements(
    kind: int, seed: int, objective: str, cap: float | None
) -> None:
    """Law: bound <= enumerated optimum, with and without caps."""
    problem = made(kind, seed, objective=objective, caps=Caps(gpu=cap))
    best = optimum(problem)
    if best is None:
        return
    nets = nets_of(problem, 0, visits_of(problem))
    found = solve_nets(nets, seconds=60, steps=100)
    assert found.value <= float(best) * (1 + 1e-9)


def test_two_experts_that_all_tokens_want_cost_one_visit_each() -> None:
    """By hand: on two GPUs every token crosses once wherever the experts are."""
    problem = made(3, 0, domains=[2], experts=2, slots=1, top_k=2)
    best = optimum(problem)
    assert best is not None
    nets = nets_of(problem, 0, visits_of(problem))
    found = solve_nets(nets, seconds=60, steps=400)
    assert found.value == pytest.approx(float(best), rel=0.01)


def named_twice(kind: int, seed: int) -> tuple[PlacementInstance, PlacementInstance]:
    """Return tokens that name an expert twice, and with null at the second place."""
    problem = made(kind, seed)
    part = problem.planning
    assert isinstance(part, TokenPart)
    given = []
    for second in (part.experts_LTK[:, :, 0], np.int16(-1)):
        experts_LTK = part.experts_LTK.copy()
        experts_LTK[:, :, 2] = second
        workload = replace(
            problem.workloads[0], planning=replace(part, experts_LTK=experts_LTK)
        )
        given.append(replace(problem, workloads=(workload,)))
    return given[0], given[1]


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_an_expert_named_twice_by_a_token_causes_no_second_visit(kind: int) -> None:
    """Law (rules 11, 20): a plan's value and the bound are as with null there."""
    twice, null = named_twice(kind, seed=5)
    for slots_GJ in placements(twice)[::5]:
        value, _ = judged_layer(twice, 0, slots_GJ, {})
        assert value == judged_layer(null, 0, slots_GJ, {})[0]
    bounds = [
        solve_nets(nets_of(each, 0, visits_of(each)), seconds=60, steps=100).value
        for each in (twice, null)
    ]
    best = optimum(twice)
    assert best is not None
    assert 0 < bounds[0] <= float(best) * (1 + 1e-9)
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-9)


def test_no_bound_where_its_reasons_do_not_hold() -> None:
    """Copies, linear traffic, GPU loads, EP sets and counts are left to others."""
    assert why_not(made(0, 0)) is None
    assert why_not(made(0, 0, experts=3)) is not None
    assert why_not(made(0, 0, traffic="copies")) is not None
    assert why_not(made(0, 0, objective="gpu_tokens")) is not None
    assert why_not(made(0, 0, ep=2, experts=2, top_k=2)) is not None
    counts = made(0, 0, traffic="copies", counts=[[4, 3, 2, 1]])
    assert why_not(counts) is not None
