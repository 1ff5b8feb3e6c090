"""Baselines: EPLB's own README example, duplicates and their repair."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from planner.strategies.base import STRATEGIES
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
    repaired,
)
from planner.strategies.baselines.eplb import balanced_packing, replicate
from planner.workload.parts import CountsPart

README_WEIGHTS = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
README_PLACEMENT = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]


def instance_of(
    tokens: list[list[int]], *, domains: list[int], slots: int, groups: int = 1
) -> Any:
    """Only what baselines look at: counts, slots, domains and routing groups."""
    instance = SimpleNamespace(
        planning=CountsPart(tokens_LE=np.asarray(tokens), top_k=1),
        model=SimpleNamespace(
            experts=len(tokens[0]),
            routing_groups=groups,
            moe_layers=tuple(range(len(tokens))),
        ),
        layout=SimpleNamespace(ep=len(domains), domain_G=np.asarray(domains)),
        single=False,
        slot_count=slots * len(domains),
        layer_count=len(tokens),
    )
    instance.views = (instance,)
    return instance


README = instance_of(README_WEIGHTS, domains=[0] * 4 + [1] * 4, slots=2, groups=4)


def gpu_maxima(instance: Any, name: str) -> list[float]:
    """Max tokens per GPU when copies share their expert's load evenly."""
    maxima = []
    for slots_GJ, load in zip(
        BASELINES.get(name)(instance), instance.planning.tokens_LE, strict=True
    ):
        copies = np.bincount(slots_GJ.ravel(), minlength=load.size)
        maxima.append(float((load / copies)[slots_GJ].sum(axis=1).max()))
    return maxima


def test_hierarchical_reproduces_the_published_map() -> None:
    """The README of deepseek-ai/EPLB prints this placement."""
    placed = BASELINES.get("eplb_hierarchical")(README)
    assert placed.reshape(2, -1).tolist() == README_PLACEMENT


def test_readme_example_has_the_published_maxima() -> None:
    """156.0 / 179.5 hierarchical, 138.5 / 172.0 global."""
    assert gpu_maxima(README, "eplb_hierarchical") == [156.0, 179.5]
    assert gpu_maxima(README, "eplb_global") == [138.5, 172.0]


def test_one_item_per_pack_is_not_packed_at_all() -> None:
    """The published special case: P = G leaves the copies where they are."""
    pack, place = balanced_packing(np.asarray([1, 9, 5], dtype=np.float32), 3)
    assert pack.tolist() == [0, 1, 2]
    assert place.tolist() == [0, 0, 0]


def test_copies_go_to_the_greatest_load_per_copy() -> None:
    """10 → 5, then 6 is the greatest, then 5 (lower id) again."""
    experts, copies = replicate(np.asarray([10, 6, 1], dtype=np.float32), 6)
    assert experts.tolist() == [0, 1, 2, 0, 1, 0]
    assert copies.tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    ("domains", "reason"),
    [([0, 1, 0, 1], "consecutive"), ([0, 0, 0, 1], "sizes")],
)
def test_hierarchical_is_absent_with_a_reason(domains: list[int], reason: str) -> None:
    """Unequal or interleaved domains: no hierarchical EPLB (rule 30)."""
    with pytest.raises(AbsentBaselineError, match=reason):
        BASELINES.get("eplb_hierarchical")(
            instance_of([[1] * 8], domains=domains, slots=2)
        )


def test_repair_replaces_a_duplicate_by_the_most_loaded_expert_elsewhere() -> None:
    """Expert 0 twice on GPU 0: expert 2 (load 6 for one copy) takes the place."""
    hot = instance_of([[100, 5, 6, 1]], domains=[0, 0], slots=3)
    plan = published_plan(hot, "eplb_global")
    assert plan.has_duplicates()
    fixed = repaired(hot, plan)
    assert not fixed.has_duplicates()
    assert set(fixed.slots_LGJ.ravel().tolist()) == {0, 1, 2, 3}


def test_repair_leaves_a_legal_plan_alone() -> None:
    """No duplicates: the same object comes back."""
    plan = published_plan(README, "contiguous")
    assert repaired(README, plan) is plan


def test_every_baseline_is_a_strategy_of_its_own() -> None:
    """``--strategy eplb_global`` works without a second registration."""
    assert set(BASELINES.names()) <= set(STRATEGIES.names())


def test_simple_baselines_lay_experts_in_blocks_or_round() -> None:
    """Slot p holds p mod E; GPU p // J, or GPU p mod G."""
    four = instance_of([[1] * 4], domains=[0, 1], slots=3)
    assert BASELINES.get("contiguous")(four)[0].tolist() == [[0, 1, 2], [3, 0, 1]]
    assert BASELINES.get("round_robin")(four)[0].tolist() == [[0, 2, 0], [1, 3, 1]]
