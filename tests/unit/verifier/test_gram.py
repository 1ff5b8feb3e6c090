"""Certificates of kind ``gram``: valid for any multipliers, refused when malformed."""

import copy
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import ManifestError
from planner.formulation.gram.certificate import certificate_of
from planner.formulation.gram.problem import nets_of, visits_of
from planner.formulation.gram.solve import solve_nets
from planner.instance import Caps, PlacementInstance
from planner.pipeline.certifying import evidence
from planner.verifier.certificates import proven
from tests.unit.formulation.test_gram import KINDS, made, named_twice, optimum

Change = Callable[[dict[str, Any]], None]


def certified(problem: PlacementInstance) -> tuple[float, dict[str, Any]]:
    """Return a bound and its certificate; 0 where no link counts."""
    nets = nets_of(problem, 0, visits_of(problem))
    found = certificate_of(nets, solve_nets(nets, seconds=60, steps=150))
    return found or (0.0, {"kind": "nothing_moves"})


def texts(values: np.ndarray[Any, Any]) -> str:
    """Return numbers as a certificate writes them."""
    return " ".join(str(int(value)) for value in values)


@settings(max_examples=15, deadline=None)
@given(
    kind=st.integers(0, len(KINDS) - 1),
    seed=st.integers(0, 10_000),
    objective=st.sampled_from(["link_time", "link_tokens"]),
    cap=st.sampled_from([None, 1.1, 1.3]),
)
def test_the_checker_proves_what_was_claimed_and_never_more_than_the_optimum(
    kind: int, seed: int, objective: str, cap: float | None
) -> None:
    """Law: claimed <= proven <= optimum over every placement; both count alone."""
    problem = made(kind, seed, objective=objective, caps=Caps(gpu=cap))
    best = optimum(problem)
    value, certificate = certified(problem)
    exact = proven(certificate, evidence(problem, 0))
    assert value <= exact <= Fraction(value) * Fraction(1_000_003, 1_000_000)
    assert best is None or exact <= best


@settings(max_examples=15, deadline=None)
@given(kind=st.integers(0, len(KINDS) - 1), seed=st.integers(0, 10_000))
def test_whatever_the_multipliers_the_bound_holds(kind: int, seed: int) -> None:
    """Law: random guides, factors and rows prove less or the same, never too much."""
    problem = made(kind, seed, caps=Caps(gpu=1.3))
    best = optimum(problem)
    if best is None:
        return
    _, certificate = certified(problem)
    rng = np.random.default_rng(seed)
    experts = problem.model.experts
    changed = copy.deepcopy(certificate)
    changed["guide"]["rows"] = [
        texts(rng.integers(0, 1001, at + 1)) for at in range(experts)
    ]
    for record in changed["groups"]:
        for name in ("row", "cap"):
            values = np.asarray([int(word) for word in record[name].split()])
            noise = rng.uniform(0.5, 1.5, values.size)
            record[name] = texts(np.rint(values * noise))
        record["factor"] = [
            texts(rng.integers(-999, 1000, 2) // rng.integers(1, 1000))
            for _ in range(experts + 1)
        ]
    changed["triangles"]["rows"] += [
        texts(np.append(rng.permutation(experts)[:3], rng.integers(0, 100)))
        for _ in range(5)
        if experts > 2
    ]
    assert proven(changed, evidence(problem, 0)) <= best


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_what_is_proven_counts_an_expert_named_twice_once(kind: int) -> None:
    """Law (rules 11, 20): a certificate proves as much where null stands instead."""
    twice, null = named_twice(kind, seed=5)
    value, certificate = certified(null)
    assert value > 0
    exact = proven(certificate, evidence(twice, 0))
    assert exact == proven(certificate, evidence(null, 0))
    best = optimum(twice)
    assert best is not None
    assert exact <= best


def share_too_much(certificate: dict[str, Any]) -> None:
    """Give every link of dispatch the whole share."""
    leg = certificate["links"]["dispatch"]
    assert len(leg) > 1
    for name in leg:
        leg[name] = "1"


def _set(path: str, value: object) -> Change:
    def change(certificate: dict[str, Any]) -> None:
        *outer, last = path.split("/")
        place: Any = certificate
        for key in outer:
            place = place[int(key)] if isinstance(place, list) else place[key]
        place[int(last) if isinstance(place, list) else last] = value

    return change


REFUSED: dict[str, Change] = {
    "unit is no number": _set("unit", "x"),
    "shares above 1": share_too_much,
    "share below 0": _set("links/combine", {"h0/n0 -> leaf": "-1"}),
    "share of no link": _set("links/dispatch", {"nowhere": "1"}),
    "links are a list": _set("links", []),
    "resolution 0": _set("guide/resolution", 0),
    "soft 0": _set("guide/soft", 0),
    "soft beyond words": _set("guide/soft", 10**30),
    "guide below 0": _set("guide/rows/1", "-1 1"),
    "guide of other size": _set("guide/rows", ["1"]),
    "guide beyond words": _set("guide/rows/0", str(10**30)),
    "group missing": _set("groups", []),
    "weight below 0": _set("groups/0/weight", -1),
    "factor of other size": _set("groups/0/factor", ["1"]),
    "factor ragged": _set("groups/0/factor/1", "1 2 3 4 5 6 7 8 9 10 11 12 13"),
    "factor of no numbers": _set("groups/0/factor/0", "a"),
    "row of other size": _set("groups/0/row", "1 2"),
    "cap below 0": _set("groups/0/cap", "-1 0 0 0 0"),
    "cap weight below 0": _set("groups/0/cap_weight", -1),
    "triangle below 0": _set("triangles", {"weight": 1, "rows": ["0 1 2 -1"]}),
    "triangle of a pair": _set("triangles", {"weight": 1, "rows": ["0 1 1 1"]}),
    "triangle of no expert": _set("triangles", {"weight": 1, "rows": ["0 1 9 1"]}),
    "triangle before all": _set("triangles", {"weight": 1, "rows": ["0 1 -1 1"]}),
    "triangle of two": _set("triangles", {"weight": 1, "rows": ["0 1 1"]}),
    "cap of other size": _set("groups/0/cap", "1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_tampered_certificate_is_refused(name: str) -> None:
    """Law: what could prove too much, or has another shape, is an error."""
    problem = made(0, 1, caps=Caps(gpu=1.5))
    _, certificate = certified(problem)
    certificate["groups"][0]["cap"] = "1 1 1 1 1"
    assert proven(certificate, evidence(problem, 0)) >= 0
    REFUSED[name](certificate)
    with pytest.raises(ManifestError):
        proven(certificate, evidence(problem, 0))


def test_nothing_is_proven_where_the_reasons_do_not_hold() -> None:
    """Law: copies, other traffic, other objectives, EP sets, counts: 0."""
    problem = made(0, 1)
    _, certificate = certified(problem)
    seen = evidence(problem, 0)
    assert proven(certificate, seen) > 0
    assert proven(certificate, replace(seen, slots_per_gpu=2)) == 0
    assert proven(certificate, replace(seen, traffic="copies")) == 0
    assert proven(certificate, replace(seen, objective="gpu_tokens")) == 0
    two_sets = made(0, 1, ep=2, experts=2, top_k=2)
    assert proven(certificate, evidence(two_sets, 0)) == 0
    counts = made(0, 1, traffic="copies", counts=[[4, 3, 2, 1]])
    assert proven(certificate, evidence(counts, 0)) == 0
    assert proven(certificate | {"unit": "0"}, seen) == 0


def test_a_cap_that_is_not_in_force_adds_nothing() -> None:
    """Law: a certificate made under a cap is weaker, not wrong, without the cap."""
    capped = made(3, 2, caps=Caps(gpu=1.1))
    free = made(3, 2)
    value, certificate = certified(capped)
    best = optimum(free)
    assert best is not None
    assert proven(certificate, evidence(free, 0)) <= best
    assert "cap" in certificate["groups"][0]
    assert value > 0
