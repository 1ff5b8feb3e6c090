"""SGLang's swaps: counted by hand, and refused where SGLang refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.instance import PlacementInstance
from planner.layout import ParallelLayout
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.baselines.base import BASELINES, AbsentBaselineError
from planner.strategies.baselines.sglang_swap import rank_costs, swapped_layer
from planner.topology.paths import build_routes
from planner.topology.schema import load_topology
from planner.workload.parts import TokenPart
from tests.instances import cluster, instance


def placed(pairs: list[list[float]], cost: list[list[float]]) -> list[list[int]]:
    """Return the experts of every GPU when each holds two."""
    slots = swapped_layer(np.asarray(pairs, dtype=float), np.asarray(cost), 2)
    return slots.tolist()


NEAR_FAR = [[0.0, 1.0], [1.0, 0.0]]


def test_experts_move_to_the_tokens_that_want_them() -> None:
    """GPU 0 asks for experts 2 and 3 only, GPU 1 for 0 and 1: two swaps make it free.

    The first swap is that of 0 and 2 (20 of 40 saved, as all four), the lowest ids.
    """
    assert placed([[0, 0, 10, 10], [10, 10, 0, 0]], NEAR_FAR) == [[2, 3], [0, 1]]


def test_no_gpu_may_compute_more_than_the_fullest_did() -> None:
    """10 pairs each at first; every single swap would put 14 on one GPU."""
    assert placed([[0, 0, 9, 1], [5, 5, 0, 0]], NEAR_FAR) == [[0, 1], [2, 3]]


def test_swaps_that_cost_nothing_even_out_the_gpus() -> None:
    """Where every place costs the same, 20 and 2 become 11 and 11."""
    assert placed([[5, 5, 1, 1], [5, 5, 1, 1]], NEAR_FAR) == [[1, 2], [0, 3]]


def test_evening_out_may_cost_two_thousandths_of_a_percent_at_most() -> None:
    """Loads 20 and 2, but expert 0 and 1 are asked for by their own GPU only."""
    assert placed([[10, 10, 0, 0], [0, 0, 1, 1]], NEAR_FAR) == [[0, 1], [2, 3]]


def test_swaps_are_counted() -> None:
    """One slot each: five swaps, two of them for the cost; three would be needed.

    Expert e is wanted by GPU (e + 1) mod 4 alone: from the identity every swap on the
    way to that cycle frees at least one expert, and the third would free two.
    """
    wanted = np.roll(np.eye(4), 1, axis=0)
    slots = swapped_layer(wanted, 1.0 - np.eye(4), 1)
    at_home = sum(wanted[gpu, expert] for gpu, (expert,) in enumerate(slots.tolist()))
    assert at_home == 2


def test_a_route_costs_what_its_slowest_link_takes() -> None:
    """NVLink 400 GB/s inside a host, the cable's 50 GB/s between two."""
    cost = rank_costs(instance([2, 2], experts=4, slots=1))
    near, far = 1 / 400, 1 / 50
    assert cost.tolist() == [
        [0, near, far, far],
        [near, 0, far, far],
        [far, far, 0, near],
        [far, far, near, 0],
    ]


def test_sources_count_by_gpu_and_layer() -> None:
    """Tokens of GPU 1 choose experts 0 and 1, those of GPU 0 the others."""
    wanting = instance([1, 1], experts=4, slots=2, tokens=4)
    part = wanting.planning
    assert isinstance(part, TokenPart)
    source_T = np.asarray([0, 0, 1, 1])
    ids_LTK = np.asarray([[[2, 3], [3, 2], [0, 1], [1, -1]]], dtype=np.int16)
    part = replace(part, experts_LTK=ids_LTK, source_T=source_T, rank_T=source_T)
    workload = replace(wanting.workloads[0], planning=part)
    wanting = replace(wanting, workloads=(workload,))
    slots = BASELINES.get("sglang_swap")(wanting)
    assert slots.tolist() == [[[2, 3], [0, 1]]]
    result = STRATEGIES.get("sglang_swap")(wanting, Limits())
    assert result.plan.slots_LGJ.tolist() == slots.tolist()


def test_of_several_workloads_the_mean_counts() -> None:
    """The same workload twice is that workload."""
    alone = instance([2, 2], experts=8, slots=2, layers=2)
    twice = replace(alone, workloads=alone.workloads * 2)
    baseline = BASELINES.get("sglang_swap")
    assert baseline(twice).tolist() == baseline(alone).tolist()


def _sets(problem: PlacementInstance) -> PlacementInstance:
    layout = ParallelLayout(
        domain_G=problem.layout.domain_G,
        ep=2,
        attention_groups=problem.layout.attention_groups,
    )
    return replace(problem, layout=layout)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"experts": 4, "slots": 2}, "redundant"),
        ({"experts": 4, "slots": 1, "counts": [[1, 2, 3, 4]]}, "source"),
        ({"experts": 4, "slots": 1, "traffic": "direct"}, "home"),
    ],
)
def test_it_is_absent_where_sglang_refuses(made: dict[str, Any], reason: str) -> None:
    """Copies, no sources, tokens that do not leave from home."""
    with pytest.raises(AbsentBaselineError, match=reason):
        BASELINES.get("sglang_swap")(instance([2, 2], **made))


def test_it_is_absent_with_several_ep_sets() -> None:
    """DP replicas of the EP set: a rank is no GPU any more."""
    with pytest.raises(AbsentBaselineError, match="EP set"):
        BASELINES.get("sglang_swap")(_sets(instance([2, 2], experts=4, slots=2)))


def test_it_is_absent_where_gpus_cannot_reach_each_other() -> None:
    """Two hosts without cables: the reason names the first pair without a path."""
    data = cluster([2, 2])
    data["edges"] = [edge for edge in data["edges"] if edge["target"] != "leaf"]
    topology = load_topology(data)
    cut = replace(
        instance([2, 2], experts=4, slots=1),
        topology=topology,
        routes=build_routes(topology),
    )
    with pytest.raises(AbsentBaselineError, match="no path from h0/g0 to h1/g0"):
        BASELINES.get("sglang_swap")(cut)
