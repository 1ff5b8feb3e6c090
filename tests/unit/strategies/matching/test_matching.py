"""Strategy ``matching``: against every placement of tiny clusters, as judged."""

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import clock
from planner.errors import UsageError
from planner.evaluator import evaluate_planning
from planner.instance import Caps, PlacementInstance
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.judging import judged_layer
from planner.strategies.matching.pairing import bottleneck, least_sum
from planner.strategies.matching.strategy import why_not
from tests.instances import instance


def solve(made: PlacementInstance, name: str = "matching"):  # type: ignore[no-untyped-def]
    return STRATEGIES.get(name)(made, Limits(seconds=5, seed=1))


def optimum(made: PlacementInstance) -> Fraction:
    """Return the least value of all placements of one expert per GPU."""
    experts, places = made.model.experts, made.layout.ep
    total = Fraction(0)
    for layer in range(made.layer_count):
        total += min(
            judged_layer(made, layer, np.asarray(held, dtype=np.int16)[:, None], {})[0]
            for held in product(range(experts), repeat=places)
            if len(set(held)) == experts
        )
    return total


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("domains", "experts", "ep"),
    [([4], 4, 4), ([2, 2], 2, 4), ([3, 3], 3, 6), ([2, 2, 2], 2, 6), ([3, 3], 3, 3)],
)
def test_the_plan_is_the_best_of_all_placements(
    domains: list[int], experts: int, ep: int, seed: int, traffic: str
) -> None:
    """Value and bound are those of the enumeration, nulls and EP sets included."""
    made = instance(
        domains, experts=experts, slots=1, traffic=traffic, layers=2, ep=ep, seed=seed
    )
    found = solve(made)
    value = evaluate_planning(made, found.plan).value
    assert value == optimum(made)
    assert found.bound.value == pytest.approx(float(value))
    assert found.reason == "optimal"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("nic", [60.0, 400.0])
def test_the_bound_holds_where_leaving_a_domain_pays(nic: float, seed: int) -> None:
    """NICs as fast as NVLink ports or not: the bound is never above the optimum."""
    made = instance(
        [3, 3],
        experts=3,
        slots=1,
        traffic="dedup_gpu",
        tokens=30,
        nic=[nic, nic],
        seed=seed,
    )
    assert solve(made).bound.value <= float(optimum(made)) * (1 + 1e-12)


def test_merged_and_single_copies_send_the_same() -> None:
    """With one expert per GPU ``dedup_gpu`` moves what ``copies`` moves."""
    plans = []
    for traffic in ("copies", "dedup_gpu"):
        made = instance([4], experts=4, slots=1, traffic=traffic)
        loads = evaluate_planning(made, solve(made).plan).each[0].layers[0]
        plans.append(loads.transfers.count_n.tolist())
    assert plans[0] == plans[1]


def test_auto_asks_it_first() -> None:
    """The portfolio stops at the proof."""
    made = instance([2, 2], experts=2, slots=1, traffic="dedup_gpu")
    found = solve(made, "auto")
    assert found.reason == "optimal"
    assert found.bound.method == "matching"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"traffic": "dedup_domain"}, "dedup_domain"),
        ({"slots": 2, "experts": 8}, "slots than experts"),
        ({"objective": "gpu_tokens"}, "gpu_tokens"),
        ({"caps": Caps(gpu=1.5)}, "caps"),
        ({"selection": "even", "domains": [2, 2], "experts": 2}, "other domains"),
    ],
)
def test_what_is_no_matching_is_refused(change: dict[str, object], word: str) -> None:
    """The message says what is in the way."""
    fields = {"domains": [4], "experts": 4, "slots": 1, "traffic": "copies"} | change
    made = instance(**fields)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=word):
        solve(made)
    assert why_not(made) is not None


Tables = st.integers(1, 4).flatmap(
    lambda n: st.lists(
        st.lists(st.integers(0, 9).map(Fraction), min_size=n, max_size=n),
        min_size=n,
        max_size=n,
    )
)


@given(Tables)
def test_a_bottleneck_is_the_least_of_all_permutations(
    costs: list[list[Fraction]],
) -> None:
    """The matching is a permutation that reaches it."""
    value, position_E = bottleneck(costs)
    sizes = range(len(costs))
    assert value == min(
        max(costs[e][order[e]] for e in sizes) for order in permutations(sizes)
    )
    assert sorted(position_E.tolist()) == list(sizes)
    assert max(costs[e][p] for e, p in enumerate(position_E.tolist())) == value


@settings(max_examples=60)
@given(st.integers(1, 3), st.integers(1, 2), st.randoms(use_true_random=False))
def test_two_legs_together_are_the_least_of_all_pairs(
    size: int, units: int, rng: object
) -> None:
    """The sum of both legs' maxima over units, over all permutations of each."""
    tables = [
        tuple(
            [[Fraction(rng.randint(0, 9)) for _ in range(size)] for _ in range(size)]  # type: ignore[attr-defined]
            for _ in range(2)
        )
        for _ in range(units)
    ]
    orders = list(permutations(range(size)))
    least = min(
        sum(
            max(
                tables[u][leg][e][order[e]]
                for u, order in enumerate(chosen)
                for e in range(size)
            )
            for leg in (0, 1)
        )
        for chosen in product(orders, repeat=units)
    )
    found = least_sum(tables)  # type: ignore[arg-type]
    assert found.value == found.least == least
    assert all(sorted(each.tolist()) == list(range(size)) for each in found.placed)
    hurried = least_sum(tables, clock.now())  # type: ignore[arg-type]
    assert hurried.least <= least <= hurried.value


def test_counted_work_gives_the_same_plan_and_seconds_twice() -> None:
    """Under the work clock history holds seconds of work, the same every time."""
    made = instance([3, 3], experts=3, slots=1, traffic="dedup_gpu", layers=2)
    runs = []
    for _ in range(2):
        with clock.counting_work():
            found = solve(made)
        runs.append((found.plan.slots_LGJ.tolist(), found.history))
    assert runs[0] == runs[1]
    assert runs[0][1][0].seconds > 0
