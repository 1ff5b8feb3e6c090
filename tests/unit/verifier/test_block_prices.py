"""Certificates of kind ``block_prices``: a folded LP's multipliers, checked exactly."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from planner.errors import ManifestError
from planner.evaluator import layer_value
from planner.formulation.cut.block_prices import block_prices_of
from planner.formulation.cut.encode import encode
from planner.formulation.cut.fold import folded, row_weights
from planner.formulation.cut.ports import ports_of
from planner.formulation.cut.problem import layer_problem
from planner.formulation.mathopt import solve_linear
from planner.instance import PlacementInstance
from planner.pipeline.certifying import evidence
from planner.verifier.certificates import proven
from tests.instances import instance
from tests.oracles.brute_force import optimum, random_case
from tests.oracles.tiny_instances import instance_of

SEEDS = range(440, 480)


def relaxation(problem: PlacementInstance) -> tuple[float, dict[str, Any] | None]:
    """Return the folded LP's bound by weak duality and its certificate."""
    layer = layer_problem(problem, ports_of(problem), 0)
    if layer.hierarchy.levels < 2:
        return 0.0, None
    cut = encode(folded(layer, 1))
    outcome = solve_linear(cut.model.relaxed(), 60, simplex=True)
    assert outcome.duals_R is not None
    bound = cut.model.dual_bound(outcome.duals_R) * cut.scale.time_unit
    made = block_prices_of(layer, cut, outcome.duals_R, 1)
    return bound, None if made is None else dict(made)


@pytest.mark.parametrize("seed", SEEDS)
def test_they_prove_what_the_folded_lp_proves_and_never_more(seed: int) -> None:
    """Law: folded LP <= certificate <= enumerated optimum, rounding aside."""
    case = random_case(seed)
    best = optimum(case)
    if best is None:
        pytest.skip("no placement exists")
    problem = instance_of(case)
    bound, certificate = relaxation(problem)
    if certificate is None:
        pytest.skip("nothing to fold, or no links")
    value = float(proven(certificate, evidence(problem, 0)))
    assert bound * (1 - 1e-7) <= value <= best.value * (1 + 1e-9)


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize("selection", ["nearest", "even", "weighted"])
def test_whatever_the_prices_no_plan_is_below(selection: str, sets: int) -> None:
    """Law: weak duality: changed prices prove less or the same, never too much."""
    problem = instance(
        [2, 2] * sets, experts=7, slots=3, traffic="copies", selection=selection, ep=4
    )
    bound, certificate = relaxation(problem)
    assert certificate is not None
    rng = np.random.default_rng(3)
    shape = (problem.layout.ep, problem.slots_per_gpu)
    plans = []
    while len(plans) < 60:
        rows = [rng.permutation(7)[: shape[1]] for _ in range(shape[0])]
        if len(np.unique(rows)) == 7:
            plans.append(np.sort(np.asarray(rows, dtype=np.int16), axis=1))
    least = min(layer_value(problem, problem.planning, 0, each, {}) for each in plans)
    assert proven(certificate, evidence(problem, 0)) >= bound * (1 - 1e-7) > 0
    for _ in range(12):
        changed = dict(certificate)
        for name in ("pairs", "slots", "cover"):
            values = np.asarray(certificate[name], dtype=np.float64)
            noise = rng.uniform(0.3, 1.7, values.shape)
            changed[name] = np.rint(values * noise).astype(np.int64).tolist()
        assert proven(changed, evidence(problem, 0)) <= least


def test_large_numbers_prove_the_same() -> None:
    """Law: beyond 64 bits the sums are done in whole numbers of any size."""
    problem = instance([2, 2], experts=7, slots=3, traffic="copies", nic=[50.0, 30.0])
    _, certificate = relaxation(problem)
    assert certificate is not None
    seen = evidence(problem, 0)
    finer = dict(certificate) | {"unit": str(Fraction(certificate["unit"]) / 2**10)}
    for name in ("pairs", "slots", "cover"):
        values = np.asarray(certificate[name], dtype=np.int64) * 2**10
        finer[name] = values.tolist()
    assert float(proven(finer, seen)) == pytest.approx(
        float(proven(certificate, seen)), rel=1e-9
    )


def test_prices_whose_sums_leave_64_bits_prove_nothing() -> None:
    """Law: they sell at a loss; wrapped round, sums of two sets would be a gain."""
    problem = instance([2, 2] * 2, experts=7, slots=3, traffic="copies", ep=4)
    _, certificate = relaxation(problem)
    assert certificate is not None
    rng, pairs_EB = np.random.default_rng(0), np.zeros_like(certificate["pairs"])
    for _ in range(40):
        pairs_EB[0] = rng.integers(2**60, 2**62, pairs_EB.shape[1])
        changed = certificate | {"pairs": pairs_EB.tolist()}
        assert proven(changed, evidence(problem, 0)) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("blocks", [0, 0, 1, 1, 1, 1, 2, 2]),
        ("blocks", [0, 0, 2, 2, 3, 3, 4, 4]),
        ("slots", [1]),
        ("links", {"dispatch": {"no such link": "1/2"}}),
    ],
)
def test_a_certificate_of_another_shape_is_refused(field: str, value: Any) -> None:
    """Law: blocks lie in one EP set each; names and shapes are those of the cluster."""
    problem = instance([2, 2] * 2, experts=7, slots=3, traffic="copies", ep=4)
    _, certificate = relaxation(problem)
    assert certificate is not None
    with pytest.raises(ManifestError, match="block_prices"):
        proven(certificate | {field: value}, evidence(problem, 0))


def test_weights_of_a_folded_row_add_up_to_one() -> None:
    """Law: a price of a folded row is handed out to links, none is made or lost."""
    layer = layer_problem(
        instance([2, 3], experts=5, slots=3, traffic="copies"),
        ports_of(instance([2, 3], experts=5, slots=3, traffic="copies")),
        0,
    )
    for leg, weight_RR in zip(layer.legs, row_weights(layer, 1), strict=True):
        rows = len(folded(layer, 1).legs[0].out_RHG)
        assert weight_RR.shape == (rows, len(leg.out_RHG))
        assert weight_RR.min() >= 0
        np.testing.assert_allclose(weight_RR.sum(axis=1), 1.0)
