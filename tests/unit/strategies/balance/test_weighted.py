"""Free splits: blocks, fills and searches against every placement."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import clock
from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.pipeline.certifying import certified_layers
from planner.strategies.balance.layer import Effort
from planner.strategies.balance.weighted.covering import covering_bound
from planner.strategies.balance.weighted.exact import best_blocks
from planner.strategies.balance.weighted.fill import Block, Weights, filled
from planner.strategies.balance.weighted.layer import WeightedSearch
from planner.strategies.balance.weighted.search import (
    block_value,
    packed_blocks,
    searched_blocks,
)
from planner.strategies.base import STRATEGIES, Limits, SolveResult
from tests import instances
from tests.unit.strategies.balance.free_split import least_load

TINY = [
    ([9, 1, 1, 1], 2, 2),
    ([10, 1, 1, 1], 3, 2),
    ([5, 5, 4, 1, 7], 3, 2),
    ([30, 7, 7, 5, 2, 1], 4, 2),
    ([12, 5, 3, 3, 9], 2, 3),
    ([7, 3, 2], 4, 1),
    ([6, 0, 0], 2, 2),
    ([0, 0, 0], 2, 2),
]
SOON = 10.0
"""Seconds of work that no test needs."""


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    """Count work, so that no outcome hangs on how fast the machine is."""
    with clock.counting_work():
        yield


def busiest(slots: list[list[int]], weights: Weights, loads: list[int]) -> Fraction:
    """Return the greatest load of a GPU, copy by copy in slot order."""
    carried = [Fraction(0)] * len(slots)
    for expert, load in enumerate(loads):
        holders = [gpu for gpu, row in enumerate(slots) for e in row if e == expert]
        parts = weights.get(expert, (1,) * len(holders))
        assert len(parts) == len(holders) == len(set(holders)) > 0
        for gpu, part in zip(holders, parts, strict=True):
            carried[gpu] += Fraction(load * part, sum(parts))
    return max(carried)


def layers() -> st.SearchStrategy[tuple[list[int], int, int]]:
    """Return loads, GPUs and slots: as many experts as fit, at least one per slot."""

    def loads(shape: tuple[int, int]) -> st.SearchStrategy[tuple[list[int], int, int]]:
        gpus, slots = shape
        counts = st.lists(
            st.integers(0, 10**6), min_size=slots, max_size=min(9, gpus * slots)
        )
        return st.tuples(counts, st.just(gpus), st.just(slots))

    return st.tuples(st.integers(1, 6), st.integers(1, 4)).flatmap(loads)


def test_an_alias_table_by_hand() -> None:
    """Loads 5, 3, 1 on three GPUs of two slots: 3 each, e.g. 1 + 2 of 5, 3, 3 of 5."""
    block = Block(experts=(0, 1, 2), gpus=3)
    slots_GJ, weights = filled([block], [5, 3, 1], 2)
    assert busiest(slots_GJ.tolist(), weights, [5, 3, 1]) == 3
    assert sum(weights[0]) == 5


def test_four_experts_on_two_gpus_part_into_two_blocks() -> None:
    """Loads 9, 1, 1, 1: nothing can be shared, so 9 has one of the others with it."""
    search = WeightedSearch([9, 1, 1, 1], 2, 2, Effort())
    placed = search.work(SOON, thorough=True)
    assert search.value == 10 == placed.bound.value
    assert placed.bound.method == "partition"
    assert not placed.bound.branching


@pytest.mark.parametrize(("loads", "gpus", "slots"), TINY)
def test_the_least_load_is_found_and_bounded(
    loads: list[int], gpus: int, slots: int
) -> None:
    """Law: value = bound = the optimum over all placements and splits."""
    placed = WeightedSearch(loads, gpus, slots, Effort()).work(SOON, thorough=True)
    best = least_load(loads, gpus, slots)
    assert placed.bound.value == best
    assert busiest(placed.slots_GJ.tolist(), placed.weights, loads) == best
    assert placed.finished


@given(layers())
def test_small_layers_are_exact(case: tuple[list[int], int, int]) -> None:
    """Law: what is placed carries what is claimed, and no bound is above it."""
    loads, gpus, slots = case
    search = WeightedSearch(loads, gpus, slots, Effort())
    placed = search.work(SOON, thorough=True)
    found = busiest(placed.slots_GJ.tolist(), placed.weights, loads)
    assert placed.slots_GJ.shape == (gpus, slots)
    assert search.value == placed.bound.value
    assert 0 <= found - search.value <= search.value * Fraction(gpus, 10**9)


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=40), st.integers(0, 9))
def test_whatever_fits_one_block_is_spread_evenly(loads: list[int], extra: int) -> None:
    """Law: E ≤ (J-1)·G + 1 experts put the mean on every GPU, to G · 10⁻⁹."""
    for slots in (2, 3):
        if len(loads) < slots:
            continue
        gpus = -(-(len(loads) - 1) // (slots - 1)) + extra
        block = Block(experts=tuple(range(len(loads))), gpus=gpus)
        slots_GJ, weights = filled([block], loads, slots)
        mean = Fraction(sum(loads), gpus)
        found = busiest(slots_GJ.tolist(), weights, loads)
        # A load 40 times the mean is shared in grains 40 times as coarse.
        assert mean <= found <= mean * (1 + Fraction(gpus, 10**9))


@given(st.lists(st.integers(0, 99), min_size=9, max_size=11), st.integers(0, 3))
def test_search_and_covering_stand_on_both_sides_of_the_optimum(
    loads: list[int], seed: int
) -> None:
    """Law: bound ≤ least load ≤ what is found, for layers that can be enumerated."""
    gpus, slots = 7, 2
    best = block_value(best_blocks(loads, gpus, slots), loads)
    start = packed_blocks(loads, gpus, slots)
    found = searched_blocks(
        start,
        loads,
        floor=Fraction(sum(loads), gpus),
        ceiling=block_value(start, loads),
        proposals=2000,
        seed=seed,
        deadline=clock.now() + SOON,
    )
    assert sorted(e for block in found for e in block.experts) == list(
        range(len(loads))
    )
    assert sum(block.gpus for block in found) == gpus
    value = block_value(found, loads)
    assert best <= value <= block_value(start, loads)
    bound = covering_bound(
        loads,
        gpus,
        slots,
        value=value,
        floor=Fraction(sum(loads), gpus),
        precision=Fraction(1, 1000),
        deadline=clock.now() + SOON,
    )
    assert bound is None or bound.value <= best


def test_a_search_closes_in_on_its_bound() -> None:
    """Law: 60 experts on 40 GPUs, loads like a model's: within 2 %, both proven."""
    loads = np.random.default_rng(2).geometric(0.001, 60).tolist()
    search = WeightedSearch(loads, 40, 2, Effort())
    placed = search.work(SOON, thorough=False)
    assert search.gap <= Fraction(1, 50)
    assert placed.bound.value > Fraction(sum(loads), 40)


def test_without_time_there_is_a_placement_and_a_bound() -> None:
    """Law: the start is a plan; it says that time ended the work."""
    loads = np.random.default_rng(2).geometric(0.001, 60).tolist()
    placed = WeightedSearch(loads, 40, 2, Effort()).work(0.0, thorough=False)
    assert not placed.finished
    assert busiest(placed.slots_GJ.tolist(), placed.weights, loads) >= (
        placed.bound.value
    )


def solved(instance: PlacementInstance) -> SolveResult:
    """Return what balance makes of it."""
    return STRATEGIES.get("balance")(instance, Limits(seconds=SOON, threads=1))


@pytest.mark.parametrize(("ep", "least"), [(3, "11/4"), (6, "13/6")])
def test_a_plan_of_a_table_is_proven(ep: int, least: str) -> None:
    """Law: exact loads = certified bounds, for one EP set and for two.

    Loads 9, 1, 1, 1, 1 on three GPUs of two slots part into two blocks: 9, 1, 1 on two
    GPUs and 1, 1 on one, so 11/2; two such sets have half of that. On six GPUs there is
    one block: the mean.
    """
    instance = instances.instance(
        [3, 3],
        experts=5,
        slots=2,
        ep=ep,
        traffic="copies",
        selection="weighted",
        objective="gpu_tokens",
        counts=[[9, 1, 1, 1, 1]],
    )
    result = solved(instance)
    value = evaluate_planning(instance, result.plan).value
    assert value == Fraction(least)
    assert certified_layers(instance, result.bound) == (value,)


@pytest.mark.parametrize(("slots", "loads"), [(1, [9, 1]), (2, [30, 7, 7, 5])])
def test_sets_that_share_a_table_are_proven_under_even_too(
    slots: int, loads: list[int]
) -> None:
    """Law: the certificate is of the loads that one EP set has."""
    instance = instances.instance(
        [3, 3],
        experts=len(loads),
        slots=slots,
        ep=3,
        traffic="copies",
        selection="even",
        objective="gpu_tokens",
        counts=[loads],
    )
    result = solved(instance)
    proven = certified_layers(instance, result.bound)
    assert result.bound is not None
    assert proven is not None
    assert float(proven[0]) == result.bound.value > sum(loads) / 6


def test_a_trace_is_split_nearly_as_planned() -> None:
    """Law: hashed tokens follow the weights; the bound holds for them too."""
    instance = instances.instance(
        [2, 2],
        experts=5,
        slots=2,
        traffic="copies",
        selection="weighted",
        objective="gpu_tokens",
        tokens=4000,
    )
    result = solved(instance)
    value = evaluate_planning(instance, result.plan).value
    proven = certified_layers(instance, result.bound)
    assert proven is not None
    assert proven[0] <= value <= proven[0] * Fraction(103, 100)


def test_a_start_that_is_better_is_kept() -> None:
    """Law: never worse than a start."""
    instance = instances.instance(
        [2, 2],
        experts=5,
        slots=2,
        traffic="copies",
        selection="weighted",
        objective="gpu_tokens",
        tokens=300,
        layers=2,
    )
    first = solved(instance)
    again = STRATEGIES.get("balance")(
        instance, Limits(seconds=0.0, threads=1), [first.plan]
    )
    one, two = (evaluate_planning(instance, each.plan).value for each in (first, again))
    assert two <= one
