"""Planning for unseen tokens: what the mixed network sees, and what it does not."""

from dataclasses import replace

import numpy as np
import pytest

from planner.arrays import FloatArray
from planner.instance import Caps, PlacementInstance
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.baselines.base import published_plan, repaired
from planner.strategies.judging import judged_layer
from planner.strategies.search.guide import guide_of
from planner.strategies.search.layer import problem_of, served_state
from planner.strategies.search.mixing import sources_alike
from planner.strategies.search.network import network_of
from planner.strategies.search.tokens import tokens_of
from planner.workload.parts import TokenPart
from tests.instances import instance


def part_of(problem: PlacementInstance) -> TokenPart:
    """Return the planning part, which has tokens."""
    assert isinstance(problem.planning, TokenPart)
    return problem.planning


def with_sources(problem: PlacementInstance, source_T: object) -> PlacementInstance:
    """Let the tokens leave from other GPUs."""
    part = replace(part_of(problem), source_T=np.asarray(source_T))
    (workload,) = problem.workloads
    return replace(problem, workloads=(replace(workload, planning=part),))


def mixed_times(problem: PlacementInstance) -> FloatArray:
    """Return load times of the contiguous start under the guide, sorted."""
    guide = guide_of(problem)
    assert guide is not None
    start = published_plan(problem, "contiguous").slots_LGJ[0]
    tokens = tokens_of(problem, 0, 1, guide.sample)
    state = served_state(guide.network, tokens, start)
    return np.sort(state.load_X * guide.network.cost_X)


def exact_times(problem: PlacementInstance) -> FloatArray:
    """Return load times of the contiguous start as they are, sorted."""
    network = network_of(problem)
    start = published_plan(problem, "contiguous").slots_LGJ[0]
    state = served_state(network, tokens_of(problem, 0, 1), start)
    return np.sort(state.load_X * network.cost_X)


@pytest.mark.parametrize("traffic", ["dedup_domain", "dedup_gpu"])
def test_which_of_alike_sources_a_token_leaves_from_does_not_matter(
    traffic: str,
) -> None:
    """Dealing the same tokens to the same number of places leaves the guide as is."""
    problem = instance([2, 2], experts=8, slots=2, traffic=traffic, tokens=64)
    source_T = np.arange(part_of(problem).source_T.size) % 4
    one = with_sources(problem, source_T)
    two = with_sources(problem, np.random.default_rng(3).permutation(source_T))
    if not (sources_alike(one, part_of(one)) and sources_alike(two, part_of(two))):
        pytest.skip("this sample looks as if sources differed")
    assert mixed_times(one) == pytest.approx(mixed_times(two))
    assert exact_times(one) != pytest.approx(exact_times(two))


def test_sources_that_choose_their_own_experts_are_not_alike() -> None:
    """Every source that keeps to experts of its own differs from the others."""
    problem = instance([2, 2], experts=8, slots=2, traffic="dedup_gpu", tokens=400)
    part = part_of(problem)
    lowest_T = part.experts_LTK[0].min(axis=1).astype(np.int64)
    homed = with_sources(problem, lowest_T % 4)
    dealt = with_sources(problem, np.arange(lowest_T.size) % 4)
    assert not sources_alike(homed, part_of(homed))
    assert sources_alike(dealt, part_of(dealt))


def test_the_tokens_seen_are_planned_for_unless_asked_otherwise() -> None:
    """The guide belongs to instances that say that their tokens are a sample."""
    problem = instance([2, 2], experts=8, slots=2, traffic="dedup_domain")
    assert problem_of(problem).guide is None
    assert problem_of(replace(problem, unseen=True)).guide is not None


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu", "dedup_domain"])
@pytest.mark.parametrize("selection", ["nearest", "even"])
@pytest.mark.parametrize("slots", [2, 3])
def test_plans_for_unseen_tokens_keep_the_caps_and_are_no_worse_than_a_start(
    traffic: str, selection: str, slots: int
) -> None:
    """Whatever guides the search, the tokens seen decide what is returned."""
    problem = replace(
        instance([2, 2], experts=8, slots=slots, traffic=traffic, selection=selection),
        unseen=True,
        caps=Caps(gpu=None, domain=1.4),
    )
    start = repaired(problem, published_plan(problem, "contiguous"))
    result = STRATEGIES.get("search")(problem, Limits(seconds=0.5, threads=1), [start])
    assert not result.plan.has_duplicates()
    for layer, slots_GJ in enumerate(result.plan.slots_LGJ):
        value, excess = judged_layer(problem, layer, slots_GJ, {})
        before, over = judged_layer(problem, layer, start.slots_LGJ[layer], {})
        assert (excess, value) <= (over, before)
