"""The partition by Mt-KaHyPar: by hand, against every partition, and its refusals."""

import sys
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from planner.instance import Caps, PlacementInstance
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.baselines import base
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
)
from planner.strategies.baselines.partition import filled, nets_of
from planner.workload.homes import running_index
from planner.workload.parts import TokenPart
from tests.instances import instance

TWO_HOSTS: dict[str, Any] = {"experts": 4, "slots": 2}


@pytest.fixture
def extra() -> None:
    """Skip where the extra is not installed."""
    pytest.importorskip("mtkahypar")


def tokens(
    problem: PlacementInstance, chosen: list[list[int]], homes: list[int]
) -> PlacementInstance:
    """Return the problem with these tokens in its one layer."""
    source_T = np.asarray(homes)
    part = TokenPart(
        experts_LTK=np.asarray([chosen], dtype=np.int16),
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=running_index(source_T),
        row_T=np.arange(source_T.size),
    )
    workload = replace(problem.workloads[0], planning=part)
    return replace(problem, workloads=(workload,))


def placed(problem: PlacementInstance) -> list[list[int]]:
    """Return the experts of every GPU in the first layer."""
    found: list[list[int]] = BASELINES.get("partition")(problem)[0].tolist()
    return found


@pytest.mark.usefixtures("extra")
def test_experts_chosen_together_lie_where_their_tokens_start() -> None:
    """Experts 1 and 3 go together and to GPU 0, where the tokens of both begin."""
    chosen, homes = [[0, 2], [1, 3]] * 5, [1, 0] * 5
    assert placed(tokens(instance([1, 1], **TWO_HOSTS), chosen, homes)) == [
        [1, 3],
        [0, 2],
    ]


@pytest.mark.usefixtures("extra")
def test_a_cap_splits_experts_that_are_too_much_together() -> None:
    """Experts 0 and 1 are 36 of 40 pairs: within 1.2 of the mean they are apart."""
    chosen = [[0, 1]] * 18 + [[2, 3]] * 2
    free = tokens(instance([1, 1], **TWO_HOSTS), chosen, [0, 1] * 10)
    capped = replace(free, caps=Caps(domain=1.2))
    assert any({0, 1} <= set(experts) for experts in placed(replace(
        free, caps=Caps(domain=2.0)
    )))  # fmt: skip
    assert not any({0, 1} <= set(experts) for experts in placed(capped))


@pytest.mark.usefixtures("extra")
def test_gpus_inside_a_domain_are_blocks_too() -> None:
    """One host of two GPUs: pairs that go together share a GPU, that of their home."""
    chosen, homes = [[0, 3], [1, 2]] * 5, [1, 0] * 5
    box = instance([2], traffic="dedup_gpu", **TWO_HOSTS)
    assert placed(tokens(box, chosen, homes)) == [[1, 2], [0, 3]]


def touched(problem: PlacementInstance, domain_E: tuple[int, ...]) -> int:
    """Sum over tokens of the domains that serve them, counted naively."""
    nets = nets_of(problem, 0)
    return sum(
        len({domain_E[expert] for expert in np.flatnonzero(chose_E)})
        for chose_E in nets.chose_TE
    )


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("seed", range(4))
def test_small_cuts_are_the_best_of_all(seed: int) -> None:
    """Six experts on three hosts: no placement lets tokens touch fewer hosts."""
    problem = instance(
        [1, 1, 1], experts=6, slots=2, top_k=3, seed=seed, caps=Caps(domain=3.0)
    )
    slots = BASELINES.get("partition")(problem)[0]
    domain_E = tuple(int(np.argwhere(slots == expert)[0][0]) for expert in range(6))
    every = {*permutations((0, 0, 1, 1, 2, 2))}
    assert touched(problem, domain_E) == min(touched(problem, each) for each in every)


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize(
    ("domains", "slots", "cap"), [([4, 4], 2, 1.1), ([2, 1], 3, 1.2), ([2, 2], 1, 1.0)]
)
def test_every_slot_is_filled_once_and_again_the_same(
    domains: list[int], slots: int, cap: float
) -> None:
    """Also with unequal domains, caps that cannot be kept, several layers."""
    experts = sum(domains) * slots
    made: dict[str, Any] = {"experts": experts, "slots": slots, "layers": 2, "top_k": 3}
    runs = []
    for _ in range(2):
        problem = instance(domains, caps=Caps(domain=cap), **made)
        result = STRATEGIES.get("partition")(problem, Limits())
        runs.append(result.plan.slots_LGJ)
    for layer in runs[0]:
        assert sorted(layer.ravel().tolist()) == list(range(experts))
    assert runs[0].tolist() == runs[1].tolist()


@pytest.mark.usefixtures("extra")
def test_ep_sets_are_laid_over_each_other() -> None:
    """Two sets of two hosts: tokens count at their rank in their own set."""
    chosen, homes = [[0, 2], [1, 3]] * 5, [3, 0] * 5
    sets = tokens(instance([1, 1, 1, 1], ep=2, **TWO_HOSTS), chosen, homes)
    assert placed(sets) == [[1, 3], [0, 2]]


@pytest.mark.usefixtures("extra")
def test_ep_sets_that_lie_otherwise_have_no_partition() -> None:
    """GPUs 0, 1 | 2, 3 on hosts 0 0 0 1: the sets differ."""
    with pytest.raises(AbsentBaselineError, match="differently"):
        placed(instance([3, 1], ep=2, **TWO_HOSTS))


def test_too_full_blocks_give_their_lightest() -> None:
    """Block 0 has three of two: expert 2 (load 1) goes to block 1."""
    block_E = filled(
        np.asarray([0, 0, 0, 1]), np.asarray([3.0, 2, 1, 1]), np.full(2, 2)
    )
    assert block_E.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"experts": 3, "slots": 2}, "redundant"),
        ({"experts": 4, "slots": 2, "counts": [[1, 2, 3, 4]]}, "token's experts"),
        ({"experts": 4, "slots": 2, "traffic": "copies"}, "kept together"),
    ],
)
def test_it_is_absent_where_it_means_nothing(made: dict[str, Any], reason: str) -> None:
    """Copies, counts, and traffic that merges nothing; with the extra or without."""
    with pytest.raises(AbsentBaselineError, match=reason):
        placed(instance([1, 1], **made))


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reason is the command."""
    monkeypatch.setitem(sys.modules, "mtkahypar", None)
    with pytest.raises(AbsentBaselineError) as absent:
        placed(instance([1, 1], **TWO_HOSTS))
    assert "pip install 'moe-placement-planner[partition]'" in str(absent.value)


def test_a_baseline_that_would_eat_the_time_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six seconds fit a tenth of 60 s and not of 59; as a strategy they always fit."""
    monkeypatch.setitem(base.COSTS, "contiguous", lambda problem: 6.0)
    problem = instance([1, 1], **TWO_HOSTS)
    assert published_plan(problem, "contiguous", 60).slots_LGJ.size == 4
    with pytest.raises(AbsentBaselineError, match=r"about 6\.0 s of --time-limit 59"):
        published_plan(problem, "contiguous", 59)
    assert published_plan(problem, "contiguous").slots_LGJ.size == 4
