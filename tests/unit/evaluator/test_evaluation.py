"""The evaluator on cases small enough to compute by hand."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from planner.errors import UsageError
from planner.evaluator import evaluate, layer_loads, layer_value
from planner.evaluator.objective import peak
from planner.instance import PlacementInstance, scope_of
from planner.plan import PlacementPlan
from tests.instances import instance

README_WEIGHTS = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]


def two_hosts(objective: str, traffic: str = "copies") -> PlacementInstance:
    """Two hosts of one GPU, expert 0 on the first and 1 on the second.

    Counts: 30 pairs of expert 0 and 10 of expert 1, half of each on either GPU.
    """
    return instance(
        [1, 1],
        experts=2,
        slots=1,
        top_k=1,
        traffic=traffic,
        objective=objective,
        counts=[[30, 10]],
    )


PLAN = PlacementPlan(
    layer_numbers=(0,), slots_LGJ=np.asarray([[[0], [1]]], dtype=np.int16)
)


def test_link_time_of_two_gpus_by_hand() -> None:
    """15 transfers go to GPU 0 and 5 to GPU 1; NICs carry 50 GB/s, PCIe 64.

    Dispatch: 15 · 100 B at 50e9; combine: 15 · 200 B the other way.
    """
    judged = evaluate(two_hosts("link_time"), PLAN, two_hosts("link_time").planning)
    expected = Fraction(15 * 100, 50 * 10**9) + Fraction(15 * 200, 50 * 10**9)
    assert judged.value == expected
    assert judged.values["link_time"]["sequential"] == expected
    # On one link both legs add up: 15 · 100 in one, 5 · 200 in the other direction.
    pipelined = Fraction(15 * 200 + 5 * 100, 50 * 10**9)
    assert judged.values["link_time"]["pipelined"] == pipelined
    assert judged.inter_domain_bytes == 20 * 300


@pytest.mark.parametrize("factor", [2**40, 2**58, 2**70])
def test_messages_of_any_size_add_exactly(factor: int) -> None:
    """Law: link time grows with the bytes of a message, past 64 bits too."""
    made = two_hosts("link_time")
    grown = replace(
        made,
        workloads=tuple(
            replace(each, message_bytes=(100 * factor, 200 * factor))
            for each in made.workloads
        ),
    )
    small = evaluate(made, PLAN, made.planning).values["link_time"]
    found = evaluate(grown, PLAN, made.planning).values["link_time"]
    assert found == {mode: value * factor for mode, value in small.items()}


def test_link_tokens_and_gpu_tokens_by_hand() -> None:
    """15 tokens on the busiest link in each leg; 30 pairs on the busiest GPU."""
    judged = evaluate(two_hosts("link_tokens"), PLAN, two_hosts("link_time").planning)
    assert judged.value == 30
    assert judged.values["gpu_tokens"] == {
        "sequential": 30,
        "pipelined": 30,
        "worst_layer": 30,
    }
    assert judged.gpu_imbalance_L == (Fraction(3, 2),)


@pytest.mark.parametrize(
    ("baseline", "maxima"),
    [
        ("eplb_hierarchical", [Fraction(156), Fraction(359, 2)]),
        ("eplb_global", [Fraction(277, 2), Fraction(172)]),
    ],
)
def test_the_readme_example_of_eplb_has_its_published_maxima(
    baseline: str, maxima: list[Fraction]
) -> None:
    """Counts, gpu_tokens, even: 156.0 / 179.5 and 138.5 / 172.0, exactly."""
    from dataclasses import replace

    from planner.strategies.baselines.base import published_plan

    problem = instance(
        [4, 4],
        experts=12,
        slots=2,
        traffic="copies",
        selection="even",
        objective="gpu_tokens",
        layers=2,
        counts=README_WEIGHTS,
    )
    problem = replace(problem, model=replace(problem.model, routing_groups=4))
    plan = published_plan(problem, baseline)
    values = [
        layer_value(problem, problem.planning, layer, plan.slots_LGJ[layer], {})
        for layer in range(2)
    ]
    assert values == maxima


def test_weighted_shares_of_counts_are_exact_fractions() -> None:
    """Weights 1 : 2 of 30 pairs: 10 and 20; the rest of the load is untouched."""
    problem = instance(
        [1, 1],
        experts=2,
        slots=2,
        traffic="copies",
        selection="weighted",
        counts=[[30, 7]],
    )
    slots_GJ = np.asarray([[0, 1], [0, 1]], dtype=np.int16)
    loads = layer_loads(
        problem, problem.planning, 0, slots_GJ, {0: {"*": (1, 2)}, 1: {"*": (1, 0)}}
    )
    pairs = [Fraction(int(p), loads.denominator) for p in loads.pairs_G]
    assert pairs == [10 + 7, 20]


def test_equal_peaks_go_to_the_first_link() -> None:
    """Floats cannot tell 1/3 + ε apart; exact rationals and file order can."""
    third = Fraction(1, 3)
    found = peak(np.asarray([1, 1, 1]), [third, third + Fraction(1, 10**30), third], 1)
    assert found.index == 1
    assert peak(np.asarray([2, 2]), [third, third], 1).index == 0


def test_loads_beyond_floats_have_a_peak() -> None:
    """Shares over many denominators make numerators of thousands of bits."""
    huge = 7**1000
    loads = np.asarray([huge, huge + 1, 5], dtype=object)
    found = peak(loads, [Fraction(1)] * 3, 7**1000)
    assert (found.index, found.value) == (1, 1 + Fraction(1, huge))


def test_scope_of_link_tokens_leaves_out_what_is_inside_a_host() -> None:
    """Default scope: nvlink and pcie are out; an unknown class is refused."""
    links = two_hosts("link_tokens").topology.links
    inside = {link.kind for link in links if scope_of(links, None)[link.index]}
    assert inside == {"ib"}
    with pytest.raises(UsageError, match="no link has class"):
        scope_of(links, ("warp:gpu>gpu",))
