"""What each effect could give, and what a planner sees without it: known by hand."""

from dataclasses import replace

import numpy as np
import pytest

from planner.explain.effects import EFFECTS, Room, rules
from planner.explain.effects.dedup import greedy_groups
from planner.explain.effects.homes import shuffled
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.workload.parts import TokenPart
from tests.instances import instance


def with_choices(
    problem: PlacementInstance, choices: list[list[list[int]]]
) -> PlacementInstance:
    """Replace the choices [L, T, K]; token t leaves from GPU t mod G."""
    ids_LTK = np.asarray(choices, dtype=np.int16)
    count, gpus = ids_LTK.shape[1], problem.layout.gpu_count
    source_T = np.arange(count) % gpus
    part = TokenPart(
        experts_LTK=ids_LTK,
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=np.arange(count) // gpus,
        row_T=np.arange(count),
    )
    (workload,) = problem.workloads
    return replace(problem, workloads=(replace(workload, planning=part),))


def room(name: str, problem: PlacementInstance) -> Room:
    found = EFFECTS.get(name).room(problem)
    assert found is not None
    return found


def test_the_five_effects_come_in_the_order_of_the_design() -> None:
    """(a) to (e), each with its own rule."""
    assert [rule.letter for rule in rules()] == list("abcde")


def test_experts_chosen_together_are_grouped_together() -> None:
    """Tokens choose 0 with 3 or 1 with 2: in order two domains each, grouped one."""
    problem = instance([1, 1], experts=4, slots=2)
    found = room("dedup", with_choices(problem, [[[0, 3], [1, 2]] * 6]))
    assert (found.by_chance, found.at_most) == (2.0, 1.0)


def test_missing_choices_touch_nothing() -> None:
    """A token with one of its two experts missing is on one domain."""
    problem = instance([1, 1], experts=4, slots=2)
    found = room("dedup", with_choices(problem, [[[0, -1], [3, -1]]]))
    assert found.by_chance == 1.0


def test_groups_keep_their_sizes() -> None:
    """Law: every expert is in one group, and groups are as large as they were."""
    together = np.random.default_rng(0).random((7, 7))
    group_E = greedy_groups(together + together.T, np.array([3, 2, 2]))
    assert np.bincount(group_E).tolist() == [3, 2, 2]


def test_homes_that_choose_their_own_experts_can_all_be_served_at_home() -> None:
    """GPU 0 wants 0, GPU 1 wants 1; if all want 0, half can be at home."""
    problem = instance([1, 1], experts=2, slots=1, top_k=1, traffic="copies")
    own = room("homes", with_choices(problem, [[[0], [1]] * 4]))
    assert (own.by_chance, own.at_most) == (0.5, 1.0)
    same = room("homes", with_choices(problem, [[[0], [0]] * 4]))
    assert (same.by_chance, same.at_most) == (0.5, 0.5)


def test_copies_bring_home_what_their_slots_hold() -> None:
    """Each of two domains wants 0, 1, 2 alike; two slots hold two thirds of it."""
    problem = instance([1, 1], experts=3, slots=2, top_k=1, traffic="copies")
    found = room("near", with_choices(problem, [[[e] for e in (0, 0, 1, 1, 2, 2)]]))
    assert found.by_chance == pytest.approx(1 / 2)
    assert found.at_most == pytest.approx(2 / 3)
    alone = instance([1, 1], experts=4, slots=2, top_k=1, traffic="copies")
    assert EFFECTS.get("near").room(alone) is None


def test_the_most_frequent_successor_is_counted() -> None:
    """From 0 all go to 1, from 1 half to 0: three of four; half go to 1 in all."""
    problem = instance(
        [1, 1], experts=2, slots=1, top_k=1, traffic="direct", layers=2, tokens=4
    )
    ways = [[[0], [0], [1], [1]], [[1], [1], [0], [1]]]
    found = room("direct", with_choices(problem, ways))
    assert (found.by_chance, found.at_most) == (0.75, 0.75)
    ways = [[[0], [0], [1], [1]], [[1], [1], [0], [0]]]
    found = room("direct", with_choices(problem, ways))
    assert (found.by_chance, found.at_most) == (0.5, 1.0)


def test_slow_ports_stand_out_of_their_class() -> None:
    """NICs of 50 and 25 GB/s carry the same: 2 and 1 parts, 4/3 of their mean."""
    found = room("links", instance([1, 1], experts=2, slots=1, nic=[50.0, 25.0]))
    assert found.at_most == pytest.approx(4 / 3)
    equal = room("links", instance([1, 1], experts=2, slots=1))
    assert equal.at_most == pytest.approx(1.0)


def test_a_counts_table_has_no_tokens_to_count() -> None:
    """Only links are known without tokens."""
    problem = instance(
        [1, 1], experts=2, slots=1, top_k=1, traffic="copies", counts=[[3, 1]]
    )
    found = {rule.letter for rule in rules() if rule.room(problem) is not None}
    assert found == {"e"}
    switched = {r.letter for r in rules() if r.switched(problem, SolveOptions())}
    assert switched == {"d"}


def test_a_planner_that_sees_no_merging_plans_for_copies() -> None:
    """Traffic, endpoint and message change; what is scored does not."""
    problem = instance([2, 2], experts=4, slots=1, endpoint="dest_forward")
    blind = EFFECTS.get("dedup").blind(problem)
    assert (blind.traffic, blind.endpoint) == ("copies", "dest_forward")
    assert problem.traffic == "dedup_domain"


def test_homes_are_dealt_out_anew_and_keep_their_numbers() -> None:
    """Law: every GPU keeps its number of tokens, ordinals count from 0, ids stay."""
    part = instance([2, 2], experts=4, slots=1).planning
    assert isinstance(part, TokenPart)
    other = shuffled(part)
    counts = np.bincount(part.source_T).tolist()
    assert np.bincount(other.source_T).tolist() == counts
    assert (other.source_T != part.source_T).any()
    for gpu, count in enumerate(counts):
        ordinals = other.ordinal_T[other.source_T == gpu]
        assert ordinals.tolist() == list(range(count))
    assert other.experts_LTK is part.experts_LTK


def test_a_planner_that_sees_no_difference_of_links_gets_equal_ports() -> None:
    """NICs of 50 and 25 become 37.5 each; routes go over the same links."""
    problem = instance([1, 1], experts=2, slots=1, nic=[50.0, 25.0])
    blind = EFFECTS.get("links").blind(problem)
    speeds = {
        float(link.bytes_per_s) / 1e9
        for link in blind.topology.links
        if link.kind == "ib"
    }
    assert speeds == {37.5}
    assert blind.routes.topology is blind.topology


def test_near_copies_are_dropped_or_added() -> None:
    """Without redundant slots one per GPU is added; with, they go."""
    near = EFFECTS.get("near")
    for slots, wanted in ((1, "2"), (2, "0")):
        problem = instance([1, 1], experts=2, slots=slots)
        switch = near.switched(problem, SolveOptions())
        assert switch is not None
        assert switch.options == {"redundant": wanted}
    assert near.blind(instance([1, 1], experts=2, slots=2)).selection == "even"
