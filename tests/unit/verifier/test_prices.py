"""Certificates of kind ``prices``: right for the LP's multipliers, valid for any."""

import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from planner.errors import ManifestError
from planner.evaluator import evaluate
from planner.formulation.cut.encode import encode
from planner.formulation.cut.ports import ports_of
from planner.formulation.cut.prices import prices_of
from planner.formulation.cut.problem import layer_problem
from planner.formulation.mathopt import solve_linear
from planner.instance import Caps, Objective, PlacementInstance
from planner.pipeline.certifying import evidence
from planner.plan import PlacementPlan
from planner.verifier.certificates import proven
from planner.workload.parts import TokenPart
from tests.oracles.brute_force import optimum, random_case
from tests.oracles.tiny_instances import instance_of, tiny_instance

SEEDS = [seed for seed in range(400, 430) if optimum(random_case(seed)) is not None]


def relaxation(instance: PlacementInstance) -> tuple[float, dict[str, Any]]:
    """Return the LP's bound by weak duality and its certificate."""
    cut = encode(layer_problem(instance, ports_of(instance), 0))
    outcome = solve_linear(cut.model.relaxed(), 60, simplex=True)
    assert outcome.duals_R is not None
    certificate = prices_of(cut, outcome.duals_R)
    assert certificate is not None
    bound = cut.model.dual_bound(outcome.duals_R) * cut.scale.time_unit
    return bound, dict(certificate)


@pytest.mark.parametrize("seed", SEEDS)
def test_prices_prove_what_the_lp_proves_and_never_more_than_the_optimum(
    seed: int,
) -> None:
    """Law: LP bound <= certificate <= enumerated optimum, rounding aside."""
    case = random_case(seed)
    best = optimum(case)
    assert best is not None
    instance = instance_of(case)
    bound, certificate = relaxation(instance)
    value = float(proven(certificate, evidence(instance, 0)))
    assert bound * (1 - 1e-7) <= value <= best.value * (1 + 1e-9)


@pytest.mark.parametrize("seed", SEEDS[:12])
def test_whatever_the_prices_the_bound_holds(seed: int) -> None:
    """Law: weak duality: changed prices prove less or the same, never too much."""
    case = random_case(seed)
    best = optimum(case)
    assert best is not None
    instance = instance_of(case)
    _, certificate = relaxation(instance)
    rng = np.random.default_rng(seed)
    for _ in range(10):
        changed = dict(certificate)
        for name in ("pairs", "slots", "cover"):
            values = np.asarray(certificate[name], dtype=np.float64)
            noise = rng.uniform(0.3, 1.7, values.shape)
            changed[name] = np.rint(values * noise).astype(np.int64).tolist()
        changed["links"] = {
            leg: {name: str(Fraction(share) / rng.integers(1, 4)) for name, share in of}
            for leg, of in (
                (leg, of.items()) for leg, of in certificate["links"].items()
            )
        }
        assert proven(changed, evidence(instance, 0)) <= best.value * (1 + 1e-9)


def test_prices_hold_for_nearest_and_caps_on_every_plan() -> None:
    """Law: no legal plan under ``nearest`` is below what its prices prove."""
    draw = random.Random(5)
    for seed in range(6):
        case = next(
            case
            for case in (random_case(900 + 40 * seed + step) for step in range(40))
            if optimum(case) is not None and case.slots * len(case.gpus) > 6
        )
        instance = token_instance(case, seed)
        bound, certificate = relaxation(instance)
        value = proven(certificate, evidence(instance, 0))
        assert value >= bound * (1 - 1e-7)
        for _ in range(60):
            plan = random_plan(instance, draw)
            found = evaluate(instance, plan, instance.planning)
            if found.gpu_imbalance_L[0] <= Fraction(str(instance.caps.gpu)):
                assert value <= found.value * (1 + Fraction(1, 10**9))


def token_instance(case: Any, seed: int) -> PlacementInstance:
    """Return the case with tokens instead of counts, under ``nearest`` and a cap."""
    rng = np.random.default_rng(seed)
    gpus, experts = len(case.gpus), len(case.counts)
    source_T = rng.integers(0, gpus, 40)
    part = TokenPart(
        experts_LTK=rng.integers(0, experts, (1, 40, 1)).astype(np.int16),
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=np.arange(40),
        row_T=np.arange(40),
    )
    instance = tiny_instance(
        case.topology, part, experts=experts, slots=case.slots, selection="nearest"
    )
    name = "gpu_tokens" if seed % 3 == 0 else "link_time"
    caps = Caps(gpu=2.0)
    return replace(instance, objective=Objective(name=name), caps=caps)


def random_plan(instance: PlacementInstance, draw: random.Random) -> PlacementPlan:
    """Return a legal plan: every expert somewhere, none twice on a GPU."""
    experts, slots = instance.model.experts, instance.slots_per_gpu
    while True:
        rows = [
            draw.sample(range(experts), slots) for _ in range(instance.layout.gpu_count)
        ]
        if len({expert for row in rows for expert in row}) == experts:
            return PlacementPlan(
                layer_numbers=(0,), slots_LGJ=np.asarray([rows], dtype=np.int16)
            )


def test_prices_that_are_no_prices_are_refused() -> None:
    """Law: normalisation, signs and shapes are checked, not assumed."""
    instance = instance_of(random_case(SEEDS[0]))
    _, certificate = relaxation(instance)
    leg = next(iter(certificate["links"]))
    twice = {name: "1/1" for name in list(certificate["links"][leg])[:1]}
    twice |= {link.name: "1/1" for link in instance.topology.links[:2]}
    for broken in (
        {"links": {leg: twice}},
        {"links": {leg: {"no such link": "1/2"}}},
        {"pairs": certificate["pairs"][:-1]},
        {"caps": [{"gpus": [0], "price": 3}]},
        {"unit": "1/0"},
    ):
        with pytest.raises(ManifestError):
            proven({**certificate, **broken}, evidence(instance, 0))
    with pytest.raises(ManifestError, match="no certificate this planner can check"):
        proven({"kind": "trust me"}, evidence(instance, 0))
