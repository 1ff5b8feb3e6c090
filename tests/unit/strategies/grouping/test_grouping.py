"""DP ranks placed together with the experts they use."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from planner.evaluator import evaluate_planning
from planner.evaluator.layer import layer_loads
from planner.instance import PlacementInstance
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.grouping.loads import Kinds, loads_of_kinds, taste
from planner.strategies.grouping.moving import moved
from planner.strategies.grouping.place import place_ranks
from planner.strategies.grouping.swaps import least_loads, together
from planner.workload.homes import running_index
from planner.workload.parts import TokenPart
from tests.instances import instance


def paired(*, traffic: str = "dedup_domain") -> PlacementInstance:
    """Return four hosts of two GPUs; DP ranks r and r + 4 use the same experts.

    As ranks are given, no two of one host share an expert: 0 and 1 stand together.
    """
    given = instance([2, 2, 2, 2], experts=8, slots=1, traffic=traffic)
    rng = np.random.default_rng(5)
    rank_T = np.repeat(np.arange(8), 40)
    pairs = np.stack([rng.permutation(2) for _ in rank_T])
    ids_LTK = (2 * (rank_T % 4)[None, :, None] + pairs[None]).astype(np.int16)
    part = TokenPart(
        experts_LTK=np.repeat(ids_LTK, given.layer_count, axis=0),
        source_T=rank_T,
        rank_T=rank_T,
        ordinal_T=running_index(rank_T),
        row_T=np.arange(rank_T.size),
    )
    load = replace(given.workloads[0], planning=part, holdout=None)
    return replace(given, workloads=(load,))


def contiguous(given: PlacementInstance) -> PlacementPlan:
    return STRATEGIES.get("contiguous")(given, Limits(seconds=1)).plan


ALONE = np.arange(8)


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu", "dedup_domain"])
@pytest.mark.parametrize("selection", ["nearest", "even"])
@pytest.mark.parametrize("tp", [1, 2])
def test_loads_add_up_to_those_of_the_moved_instance(
    traffic: str, selection: str, tp: int
) -> None:
    """Law: loads are linear in places, with copies and with groups of two too."""
    given = instance([4, 4], experts=8, slots=2, traffic=traffic)
    part = given.planning
    assert isinstance(part, TokenPart)
    groups = tuple(tuple(range(at, at + tp)) for at in range(0, 8, tp))
    part = replace(part, rank_T=part.source_T // tp)
    layout = ParallelLayout(
        domain_G=given.layout.domain_G, ep=8, attention_groups=groups
    )
    load = replace(given.workloads[0], planning=part)
    given = replace(given, selection=selection, layout=layout, workloads=(load,))
    plan = contiguous(given)
    ranks = len(groups)
    loads = loads_of_kinds(given, plan, Kinds(kind_S=np.arange(ranks)))
    assert loads is not None
    place_S = np.random.default_rng(1).permutation(ranks)
    there = moved(given, place_S)
    size_2 = np.asarray(given.message_bytes, dtype=np.float64)[:, None]
    for layer in range(given.layer_count):
        counted = layer_loads(there, there.planning, layer, plan.slots_LGJ[layer], {})
        near_2A = counted.loads_2A.astype(np.float64) / given.routes.q * size_2
        expected = near_2A * given.topology.seconds_per_byte.near_A
        summed = loads[np.arange(ranks), place_S, layer].sum(axis=0)
        assert summed == pytest.approx(expected)


def test_moving_keeps_ranks_and_ordinals() -> None:
    """Only the GPU that a token leaves from is another."""
    given = paired()
    place_S = np.asarray([1, 0, 2, 3, 4, 5, 7, 6])
    there = moved(given, place_S)
    before, after = given.planning, there.planning
    assert isinstance(before, TokenPart)
    assert isinstance(after, TokenPart)
    assert (after.rank_T == before.rank_T).all()
    assert (after.ordinal_T == before.ordinal_T).all()
    assert (after.source_T == place_S[before.rank_T]).all()
    assert there.layout.attention_groups[0] == given.layout.attention_groups[1]
    back = moved(there, np.argsort(place_S))
    assert back.layout.attention_groups == given.layout.attention_groups


def test_ranks_that_use_the_same_experts_come_together() -> None:
    """Ranks r and r + 4 share a host afterwards."""
    given = paired()
    tastes = taste(given, Kinds(kind_S=ALONE))
    kind_P = together(tastes, ALONE, given.layout.domain_G)
    hosts = kind_P.reshape(4, 2)
    assert (hosts[:, 0] % 4 == hosts[:, 1] % 4).all()


def test_exchanges_end_where_no_single_one_helps() -> None:
    """Brute force over all assignments of four ranks bounds what is found.

    Ranks weigh 3, 2, 2, 1 and two places share a link: the heaviest and the lightest
    belong on it.
    """
    weight = np.asarray([3.0, 2.0, 2.0, 1.0])
    loads = np.zeros((4, 4, 1, 2, 2))
    for place in range(4):
        loads[:, place, 0, :, place // 2] = weight[:, None]
    found = least_loads(loads, np.arange(4))
    cost = [
        max(weight[list(kinds[:2])].sum(), weight[list(kinds[2:])].sum())
        for kinds in permutations(range(4))
    ]
    reached = max(weight[found[:2]].sum(), weight[found[2:]].sum())
    assert reached == min(cost) == 4.0


def test_placed_ranks_send_nothing_across_hosts() -> None:
    """Every pair of ranks and its two experts fit on one host."""
    given = paired()
    strategy = STRATEGIES.get("search")
    limits = Limits(seconds=2, threads=1)
    fixed = evaluate_planning(given, strategy(given, limits).plan)
    placed = place_ranks(given, ALONE, strategy, limits)
    judged = evaluate_planning(placed.instance, placed.result.plan)
    assert judged.value < fixed.value
    assert all(each.inter_domain_bytes == 0 for each in judged.each)
    assert "attend on another group" in placed.result.notes[-1]


def test_ranks_of_one_kind_stay() -> None:
    """Nothing tells them apart: groups are as they were, the plan is the strategy's."""
    given = paired()
    alike = np.zeros(8, dtype=np.int64)
    placed = place_ranks(
        given, alike, STRATEGIES.get("contiguous"), Limits(seconds=1, threads=1)
    )
    assert placed.instance.layout.attention_groups == given.layout.attention_groups
    assert (placed.result.plan.slots_LGJ == contiguous(given).slots_LGJ).all()
