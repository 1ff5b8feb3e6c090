"""Routing groups that stay in one domain each, against every partition."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from planner import clock
from planner.errors import InfeasibleError, UsageError
from planner.evaluator import evaluate_planning
from planner.evaluator.nesting import keeps_groups
from planner.instance import PlacementInstance
from planner.pipeline.certifying import certified_layers, evidence
from planner.strategies.balance.nested import least_partition
from planner.strategies.base import STRATEGIES, Limits, SolveResult
from planner.verifier.certificates import proven
from tests import instances
from tests.unit.strategies.balance import enumeration, free_split

LEAST = {"even": enumeration.least_load, "weighted": free_split.least_load}


def nested(
    loads: list[int], selection: str, groups: int = 4, **changes: Any
) -> PlacementInstance:
    """Return a counts table on two domains of two GPUs of three slots."""
    given: dict[str, Any] = {"slots": 3, "counts": [loads], **changes}
    instance = instances.instance(
        [2, 2],
        experts=len(loads),
        traffic="copies",
        selection=selection,
        objective="gpu_tokens",
        **given,
    )
    return replace(instance, nested_groups=groups)


def solved(instance: PlacementInstance) -> SolveResult:
    """Return what balance makes of it."""
    with clock.counting_work():
        return STRATEGIES.get("balance")(instance, Limits(seconds=10, threads=1))


def least_load(loads: list[int], selection: str, groups: int, slots: int) -> Fraction:
    """Return the optimum: every set of groups for the first domain, both alone."""
    size = len(loads) // groups
    best = None
    for count in range(1, groups):
        for chosen in combinations(range(groups), count):
            halves: list[list[int]] = [[], []]
            for expert, load in enumerate(loads):
                halves[expert // size in chosen].append(load)
            if all(slots <= len(half) <= 2 * slots for half in halves):
                value = max(LEAST[selection](half, 2, slots) for half in halves)
                best = value if best is None else min(best, value)
    assert best is not None
    return best


def test_two_groups_by_hand() -> None:
    """Loads 9, 3 | 1, 1 on two GPUs apart: one group each, 12/2 in the first domain."""
    instance = nested([9, 3, 0, 1, 1, 0], "weighted", 2)
    result = solved(instance)
    assert evaluate_planning(instance, result.plan).value == 6
    assert result.bound is not None
    assert certified_layers(instance, result.bound) == (6,)
    assert result.bound.of == "gpu_tokens/weighted, groups nested"


@pytest.mark.parametrize(
    ("selection", "groups", "slots"), [("even", 3, 2), ("weighted", 4, 3)]
)
@pytest.mark.parametrize("seed", range(6))
def test_the_best_partition_is_found_and_proven(
    seed: int, selection: str, groups: int, slots: int
) -> None:
    """Law: value = optimum over all partitions and placements >= certified bound."""
    loads = np.random.default_rng(seed).integers(0, 60, 2 * groups).tolist()
    instance = nested(loads, selection, groups, slots=slots)
    result = solved(instance)
    assert keeps_groups(instance, result.plan.slots_LGJ[0])
    value = evaluate_planning(instance, result.plan).value
    best = least_load(loads, selection, groups, slots)
    assert value == best
    certified = certified_layers(instance, result.bound)
    assert certified is not None
    assert certified[0] <= best
    if selection == "weighted":
        assert certified[0] == best


def test_a_trace_keeps_its_groups_too() -> None:
    """Law: hashed tokens are bounded by the same certificate."""
    base = nested([1] * 8, "even", counts=None, tokens=500)
    for selection in LEAST:
        instance = replace(base, selection=selection)
        result = solved(instance)
        value = evaluate_planning(instance, result.plan).value
        certified = certified_layers(instance, result.bound)
        assert keeps_groups(instance, result.plan.slots_LGJ[0])
        assert certified is not None
        assert 0 < certified[0] <= value <= certified[0] * Fraction(3, 2)


def test_a_start_that_parts_a_group_is_not_taken() -> None:
    """Law: free placements may be better; they are no plans here."""
    loads = [90, 1, 80, 1, 2, 3, 1, 2]
    instance = nested(loads, "even")
    free = solved(replace(instance, nested_groups=0))
    assert not keeps_groups(instance, free.plan.slots_LGJ[0])
    result = STRATEGIES.get("balance")(
        instance, Limits(seconds=5, threads=1), [free.plan]
    )
    assert keeps_groups(instance, result.plan.slots_LGJ[0])


def test_the_checker_needs_every_part() -> None:
    """Law: a part without certificate counts with its mean, a forged one not at all."""
    loads = [40, 3, 2, 1, 30, 2, 2, 4]
    instance = nested(loads, "weighted")
    result = solved(instance)
    assert result.bound is not None
    certificate = result.bound.layers[0].certificate
    assert certificate is not None
    found = proven(certificate, evidence(instance, 0))
    assert found == Fraction(result.bound.value).limit_denominator(10**6)
    bare = {"kind": "nest", "parts": []}
    mean = proven(bare, evidence(instance, 0))
    assert Fraction(sum(loads), 4) <= mean <= found
    forged = {
        "kind": "nest",
        "parts": [
            {"groups": list(part), "certificate": {"kind": "count", "level": "99/1"}}
            for part in combinations(range(4), 2)
        ],
    }
    assert proven(forged, evidence(instance, 0)) == mean
    assert proven(certificate, evidence(replace(instance, nested_groups=0), 0)) == 0


def test_what_cannot_be_nested_is_refused() -> None:
    """Law: one clear reason each."""
    with pytest.raises(UsageError, match="5 groups"):
        solved(nested([1] * 8, "even", 5))
    with pytest.raises(UsageError, match="cannot be spread over 2 domains"):
        solved(nested([1] * 8, "even", 1))
    with pytest.raises(UsageError, match="one EP set"):
        solved(nested([1] * 6, "even", 2, ep=2))
    with pytest.raises(UsageError, match="up to 8 groups"):
        solved(nested([1] * 9, "even", 9))
    with pytest.raises(InfeasibleError, match="--redundant"):
        solved(nested([1] * 12, "even", 3))


def test_the_least_greatest_cost_by_hand() -> None:
    """Costs 5 and 1 against 3 and 4: the second partition; without it, the first."""
    costs = {
        (0, 1): Fraction(5),
        (2,): Fraction(1),
        (0,): Fraction(3),
        (1, 2): Fraction(4),
    }
    assert least_partition(costs, 3, 2) == [(0,), (1, 2)]
    del costs[1, 2]
    assert least_partition(costs, 3, 2) == [(0, 1), (2,)]
    assert least_partition(costs, 3, 3) is None
