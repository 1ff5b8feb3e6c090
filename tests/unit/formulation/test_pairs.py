"""The pair formulation: rings, grids and several NICs against every placement."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from planner.evaluator import evaluate
from planner.evaluator.objective import layer_value
from planner.formulation.cut.ports import ports_of
from planner.formulation.cut.problem import layer_problem
from planner.formulation.mathopt import solve_integer, solve_linear
from planner.formulation.pairs.encoding import PairEncoding, pair_encoding
from planner.formulation.pairs.rows import pair_legs
from planner.instance import Caps, PlacementInstance
from planner.layout import ParallelLayout
from planner.pipeline.certifying import evidence
from planner.strategies.base import STRATEGIES, Limits
from planner.verifier.certificates import proven
from tests.instances import instance
from tests.oracles import any_graph, brute_force
from tests.oracles.tiny_instances import instance_of

SEEDS = range(16)


@pytest.mark.parametrize("seed", SEEDS)
def test_milp_closes_graphs_that_are_no_hierarchy(seed: int) -> None:
    """Law: plan and bound equal the optimum over all placements and splits."""
    case = any_graph.random_case(seed)
    best = any_graph.optimum(case)
    made = instance_of(case)
    result = STRATEGIES.get("milp")(made, Limits(seconds=20, threads=1))
    value = float(evaluate(made, result.plan, made.planning).value)
    assert value == pytest.approx(best, rel=1e-6)
    assert result.bound is not None
    assert best * (1 - 1e-6) <= result.bound.value <= best * (1 + 1e-9)
    assert result.notes == ()


def test_rings_are_encoded_by_pairs_and_trees_by_cuts() -> None:
    """Law: pairs are used only where a link depends on who sends to whom."""
    ring, tree = (
        instance_of(any_graph.random_case(1)),
        instance([2, 2], experts=4, slots=1, traffic="copies"),
    )
    assert isinstance(pair_encoding(ring, ports_of(ring)), PairEncoding)
    assert pair_encoding(tree, ports_of(tree)) is None


@pytest.mark.parametrize("seed", range(1, 21))
def test_on_trees_pairs_bound_at_least_as_well_as_cuts(seed: int) -> None:
    """Law: where cuts are exact, pairs are: the optimum lies above both LPs."""
    case = brute_force.random_case(seed)
    if case.objective == "gpu_tokens":
        pytest.skip("no links")
    best = brute_force.optimum(case)
    if best is None:
        pytest.skip("infeasible")
    made = instance_of(case)
    ports = ports_of(made)
    single = made.slot_count == made.model.experts
    legs = pair_legs(made, ports.hierarchy)
    encoding = PairEncoding(legs=legs, single=single)
    encoded = encoding.encode(layer_problem(made, ports, 0))
    duals_R = solve_linear(encoded.model.relaxed(), 10).duals_R
    assert duals_R is not None
    bound = encoded.model.dual_bound(duals_R) * encoded.scale.time_unit
    assert bound <= best.value * (1 + 1e-9)
    assert bound >= 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("selection", ["weighted", "nearest"])
def test_prices_prove_what_the_lp_proves(seed: int, selection: str) -> None:
    """Law: LP bound <= certificate, rounding aside; under free split <= the optimum."""
    case = any_graph.random_case(seed)
    made = instance_of(case, selection=selection)
    ports = ports_of(made)
    encoding = pair_encoding(made, ports)
    assert encoding is not None
    encoded = encoding.encode(layer_problem(made, ports, 0))
    duals_R = solve_linear(encoded.model.relaxed(), 10, simplex=True).duals_R
    assert duals_R is not None
    bound = encoded.model.dual_bound(duals_R) * encoded.scale.time_unit
    certificate = encoding.prices(encoded, duals_R)
    value = float(proven(dict(certificate), evidence(made, 0)))
    assert value >= bound * (1 - 1e-7)
    if selection == "weighted":
        assert value <= any_graph.optimum(case) * (1 + 1e-9)


def looped(**changes: Any) -> PlacementInstance:
    """Four GPUs on a ring; expert e has 10·(e + 1) tokens."""
    rng = any_graph.random.Random(0)
    case = brute_force.Case(
        topology=any_graph.ring(rng, 4),
        counts=(10, 20, 30, 40, 50, 60),
        slots=2,
        message_bytes=(1, 2),
        objective="link_time",
        memory=(10**6,) * 4,
    )
    return instance_of(case, **changes)


def test_caps_are_kept_by_pairs() -> None:
    """Law: no GPU computes more than its cap, and a cap that binds costs something."""
    values = []
    for cap in (None, 1.1):
        made = looped(caps=Caps(gpu=cap))
        result = STRATEGIES.get("milp")(made, Limits(seconds=20, threads=1))
        judged = evaluate(made, result.plan, made.planning)
        assert cap is None or max(judged.gpu_imbalance_L) <= 1.1 + 1e-6
        values.append(float(judged.value))
    assert values[0] <= values[1] * (1 + 1e-9)


def test_ep_sets_serve_their_own_tokens() -> None:
    """Law: two sets of two GPUs hold the same; the best of all placements is found."""
    made = looped(slots_per_gpu=3)
    layout = ParallelLayout(
        domain_G=made.layout.domain_G,
        ep=2,
        attention_groups=made.layout.attention_groups,
    )
    made = replace(made, layout=layout)
    assert made.slot_count == made.model.experts
    encoding = PairEncoding(legs=pair_legs(made, ports_of(made).hierarchy), single=True)
    encoded = encoding.encode(layer_problem(made, ports_of(made), 0))
    outcome = solve_integer(encoded.model, 10)
    best = min(
        layer_value(
            made, made.planning, 0, np.asarray([one, other], dtype=np.int16), {}
        )
        for one in combinations(range(6), 3)
        for other in [sorted(set(range(6)) - set(one))]
    )
    found = outcome.bound * encoded.scale.time_unit
    assert found == pytest.approx(float(best), rel=1e-6)


def test_nearest_is_bounded_below_its_plans() -> None:
    """Law: under ``nearest`` the bound holds for every plan, not below the split's."""
    bounds = {}
    for selection in ("weighted", "nearest"):
        made = looped(selection=selection)
        result = STRATEGIES.get("milp")(made, Limits(seconds=20, threads=1))
        value = float(evaluate(made, result.plan, made.planning).value)
        assert result.bound is not None
        assert result.bound.value <= value * (1 + 1e-9)
        bounds[selection] = result.bound.value
    assert bounds["weighted"] <= bounds["nearest"] * (1 + 1e-6)


def test_models_that_would_be_too_large_stay_cuts() -> None:
    """Law: beyond its limits the formulation gives way, and the note says so."""
    made = instance_of(any_graph.random_case(1))
    grown = instance_of(
        brute_force.Case(
            topology=any_graph.ring(any_graph.random.Random(0), 4),
            counts=(1,) * 3000,
            slots=1000,
            message_bytes=(1, 2),
            objective="link_time",
            memory=(10**9,) * 4,
        )
    )
    assert pair_encoding(grown, ports_of(grown)) is None
    assert pair_encoding(made, ports_of(made)) is not None
