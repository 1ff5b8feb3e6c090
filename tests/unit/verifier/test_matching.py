"""Certificates of kind ``matching`` against every placement of tiny clusters."""

from copy import deepcopy
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import ManifestError
from planner.instance import PlacementInstance
from planner.pipeline.certifying import evidence
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.judging import judged_layer
from planner.strategies.matching.away import least_away as reckoned
from planner.strategies.matching.away import network_ports
from planner.verifier.certificates import matching, proven
from planner.verifier.certificates.away import least_away
from tests.instances import instance

SHAPES = [
    ([4], 4, 4),
    ([2, 2], 2, 4),
    ([3, 3], 3, 6),
    ([2, 2, 2], 2, 6),
    ([3, 3], 3, 3),
]


def made(
    shape: tuple[list[int], int, int], seed: int, **fields: Any
) -> PlacementInstance:
    """Return an instance of one expert per GPU."""
    domains, experts, ep = shape
    wanted = {"traffic": "dedup_gpu", "tokens": 120, **fields}
    return instance(domains, experts=experts, slots=1, ep=ep, seed=seed, **wanted)


def optimum(problem: PlacementInstance) -> Fraction:
    """Return the least value of all placements, domains without an expert included."""
    experts, places = problem.model.experts, problem.layout.ep
    return min(
        judged_layer(problem, 0, np.asarray(held, dtype=np.int16)[:, None], {})[0]
        for held in product(range(experts), repeat=places)
        if len(set(held)) == experts
    )


def certificate_of(problem: PlacementInstance) -> dict[str, Any]:
    """Return what the strategy offers for the first layer."""
    found = STRATEGIES.get("matching")(problem, Limits(seconds=5, seed=1)).bound
    assert found is not None
    assert found.layers[0].certificate is not None
    return deepcopy(dict(found.layers[0].certificate))


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
def test_the_optimum_is_proven_again_exactly(
    shape: tuple[list[int], int, int], seed: int, traffic: str
) -> None:
    """Law: the checker, on its own costs, proves what enumeration finds."""
    problem = made(shape, seed, traffic=traffic)
    found = proven(certificate_of(problem), evidence(problem, 0))
    assert found == optimum(problem)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("nic", [60.0, 400.0])
@pytest.mark.parametrize("shape", [([2, 2], 2, 4), ([3, 3], 3, 6), ([2, 2, 2], 2, 6)])
def test_plans_that_leave_an_expert_out_are_bounded_too(
    shape: tuple[list[int], int, int], nic: float, seed: int
) -> None:
    """Law: where leaving a domain may pay, no placement is below the bound."""
    problem = made(shape, seed, nic=[nic] * len(shape[0]))
    found = proven(certificate_of(problem), evidence(problem, 0))
    assert 0 < found <= optimum(problem)


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [([2, 2], 2, 4), ([3, 3], 3, 6), ([2, 2, 2], 2, 6)])
def test_leaving_an_expert_out_takes_no_less_and_what_the_strategy_reckons(
    shape: tuple[list[int], int, int], seed: int, traffic: str
) -> None:
    """Law: two programs agree, and no enumerated plan of this sort is below."""
    domains, experts, ep = shape
    problem = made(shape, seed, traffic=traffic, nic=[60.0, 45.0, 30.0][: len(domains)])
    seen = evidence(problem, 0)
    demand_ES, units = matching._demand(seen), matching._units(seen)
    bound = least_away(seen, demand_ES, units)
    ports = network_ports(problem)
    assert ports is not None
    assert bound == reckoned(problem, ports, demand_ES.T)
    size = domains[0]
    assert (
        0
        < bound
        <= min(
            judged_layer(problem, 0, np.asarray(held, dtype=np.int16)[:, None], {})[0]
            for held in product(range(experts), repeat=ep)
            if len(set(held)) == experts
            and any(
                len(set(held[at : at + size])) < experts for at in range(0, ep, size)
            )
        )
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_domain_may_do_without_an_expert_that_nobody_chose(seed: int) -> None:
    """Law: the best matching's level is not proven where such plans may be better."""
    problem = made(([3, 3], 3, 6), seed, tokens=2)
    certificate = certificate_of(problem)
    found = proven(certificate, evidence(problem, 0))
    assert found < Fraction(certificate["level"])
    assert found <= optimum(problem)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tampered_certificate_proves_nothing(
    shape: tuple[list[int], int, int],
) -> None:
    """Law: a higher level, a smaller set, a step left out or a later end prove 0."""
    problem = made(shape, 1)
    seen, true = evidence(problem, 0), certificate_of(problem)
    level = Fraction(true["level"])
    assert proven(true, seen) == level
    assert proven({**true, "level": str(level * Fraction(1001, 1000))}, seen) == 0
    for at, claim in enumerate(true["refuted"]):
        for name in ("experts", "places"):
            fewer = deepcopy(true)
            fewer["refuted"][at][name] = claim[name][1:]
            if len(claim["experts"] + claim["places"]) == problem.model.experts + 1:
                assert proven(fewer, seen) == 0
            twice = deepcopy(fewer)
            twice["refuted"][at][name] += claim[name][1:2]
            assert proven(twice, seen) in (0, level)
    assert proven({**true, "refuted": true["refuted"][:-1]}, seen) == 0
    assert proven({**true, "refuted": []}, seen) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("level", "high"),
        ("level", None),
        ("refuted", 3),
        ("refuted", [{"upto": None, "unit": 5, "experts": [0], "places": [0]}]),
        ("refuted", [{"upto": None, "unit": 0, "experts": [-1], "places": [0]}]),
        ("refuted", [{"upto": None, "unit": 0, "experts": [0]}]),
        ("refuted", [{"upto": "1/0", "unit": 0, "experts": [], "places": []}]),
    ],
)
def test_a_certificate_of_another_shape_is_refused(field: str, value: Any) -> None:
    """Law: an error that names the place, not a crash."""
    problem = made(([4], 4, 4), 0)
    with pytest.raises(ManifestError, match="shape of a matching certificate"):
        proven({**certificate_of(problem), field: value}, evidence(problem, 0))


@pytest.mark.parametrize(
    ("shape", "fields"),
    [
        (([4], 4, 4), {"traffic": "dedup_domain"}),
        (([4], 4, 4), {"objective": "gpu_tokens"}),
        (([2, 2], 2, 4), {"selection": "even"}),
        (([2, 2], 2, 4), {"endpoint": "dest_forward"}),
    ],
)
def test_it_proves_nothing_of_other_problems(
    shape: tuple[list[int], int, int], fields: dict[str, str]
) -> None:
    """Law: the same certificate for another rule of traffic proves 0."""
    certificate = certificate_of(made(shape, 0))
    assert proven(certificate, evidence(made(shape, 0, **fields), 0)) == 0


Sets = st.lists(st.integers(0, 2), max_size=3, unique=True)
Claims = st.lists(
    st.fixed_dictionaries(
        {
            "upto": st.none() | st.integers(1, 200).map(lambda n: f"{n}/10000000000"),
            "unit": st.integers(0, 1),
            "experts": Sets,
            "places": Sets,
        }
    ),
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 3), share=st.fractions(0, 2), claims=Claims)
def test_no_certificate_proves_more_than_is_true(
    seed: int, share: Fraction, claims: list[dict[str, Any]]
) -> None:
    """Law: whatever is offered, what it proves is at most the optimum."""
    problem = made(([3, 3], 3, 6), seed, tokens=12)
    best = KNOWN.setdefault(seed, optimum(problem))
    offered = {"kind": "matching", "level": str(best * share), "refuted": claims}
    assert proven(offered, evidence(problem, 0)) <= best


KNOWN: dict[int, Fraction] = {}
"""Optima of the instances above, enumerated once."""
