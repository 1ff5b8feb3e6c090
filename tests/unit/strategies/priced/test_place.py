"""The priced search on arrays: optimum of tiny problems, increments, seeds."""

import numpy as np
import pytest

from benchmarks.skewed import eplb_placement, skewed_demand, skewed_problem
from planner.arrays import BoolArray
from planner.formulation.cut.one_level import OneLevel, best_split, relaxed
from planner.strategies.base import Limits
from planner.strategies.priced import place as placing
from planner.strategies.priced.anneal import Knobs, anneal
from planner.strategies.priced.place import Placement, place, rounded
from planner.strategies.priced.state import (
    State,
    choices_of,
    empty_scratch,
    peak,
    ports_of_problem,
    state_of,
)
from tests.oracles.one_level import optimum

AMPLE = 600.0


def random_problem(seed: int, *, experts: int = 9, domains: int = 4) -> OneLevel:
    """Return unequal ports and slots, and demand of which some is zero."""
    rng = np.random.default_rng(seed)
    slots = rng.integers(1, 4, domains)
    slots[0] += max(0, experts - int(slots.sum()))
    return OneLevel(
        demand_EN=np.floor(rng.lognormal(0, 1, (experts, domains)) * 3),
        slots_N=np.minimum(slots, experts),
        up_N=rng.uniform(0.5, 3, domains),
        down_N=rng.uniform(0.5, 3, domains),
    )


def searched(problem: OneLevel, seed: int = 0, threads: int = 1) -> Placement:
    """Return what two rounds find, however long they take."""
    limits = Limits(seconds=AMPLE, threads=threads, seed=seed)
    return place(problem, limits, rounds=2)


def after_moves(problem: OneLevel, heat: float, seed: int) -> tuple[State, BoolArray]:
    """Return the state after thousands of proposals, and the best placement met."""
    ports, prices = ports_of_problem(problem), relaxed(problem, 10.0).prices
    start_EN = rounded(problem, problem.demand_EN)
    state, scratch = state_of(ports, start_EN), empty_scratch(ports)
    best_EN, value = start_EN.copy(), peak(ports, state)
    knobs = Knobs(2500, heat, 50.0, 2, value)
    more = (np.asarray([seed + 1], dtype=np.uint64), best_EN, value)
    anneal(ports, state, scratch, choices_of(problem, prices), knobs, more)
    return state, best_EN


@pytest.mark.parametrize("seed", range(20))
def test_tiny_problems_reach_the_optimum(seed: int) -> None:
    """Law: on 4 experts and 3 domains the search finds what enumeration finds."""
    problem = random_problem(seed, experts=4, domains=3)
    slots = problem.slots_N.tolist()
    best = optimum(problem.demand_EN, slots, problem.up_N, problem.down_N)
    found = searched(problem)
    assert found.value == pytest.approx(best, rel=1e-7)
    assert found.bound <= best * (1 + 1e-9)


@pytest.mark.parametrize("heat", [1e-6, 0.1, 1e6])
@pytest.mark.parametrize("seed", range(5))
def test_loads_kept_by_increments_are_those_of_a_fresh_count(
    heat: float, seed: int
) -> None:
    """Law: whatever was taken or refused, the state says what its copies mean."""
    problem = random_problem(seed)
    state, _ = after_moves(problem, heat, seed)
    held_EN = state.held_EN
    for domain, slots in enumerate(problem.slots_N):
        inside = state.slots_NJ[domain, :slots].tolist()
        assert sorted(inside) == np.flatnonzero(held_EN[:, domain]).tolist()
    assert (held_EN.sum(axis=1) == state.count_E).all()
    assert (state.count_E >= 1).all()
    served_EN = np.zeros(held_EN.shape)
    for expert, count in enumerate(state.count_E):
        copies = state.domain_EN[expert, :count]
        assert sorted(copies.tolist()) == np.flatnonzero(held_EN[expert]).tolist()
        served_EN[expert, copies] = state.served_EN[expert, :count]
    left_E = np.where(held_EN, 0, problem.demand_EN).sum(axis=1)
    assert state.left_E == pytest.approx(left_E, abs=1e-9)
    assert served_EN.sum(axis=1) == pytest.approx(left_E, abs=1e-9)
    assert state.in_N == pytest.approx(served_EN.sum(axis=0), abs=1e-9)
    assert state.out_N == pytest.approx(problem.egress_N(held_EN), abs=1e-9)


def test_hot_moves_go_through_many_placements_with_every_number_of_copies() -> None:
    """Law: the state test above is about moves that were really taken."""
    problem = random_problem(1)
    first, _ = after_moves(problem, 1e6, 1)
    other, _ = after_moves(problem, 1e6, 2)
    start_EN = rounded(problem, problem.demand_EN)
    assert (first.held_EN != start_EN).any()
    assert (first.held_EN != other.held_EN).any()
    assert first.count_E.tolist() != start_EN.sum(axis=1).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_a_levelled_split_is_nearly_the_best_split(seed: int) -> None:
    """Law: pouring level by level reaches the linear program's value."""
    problem = random_problem(seed)
    ports, start_EN = ports_of_problem(problem), rounded(problem, problem.demand_EN)
    best = problem.value(start_EN, best_split(problem, start_EN))
    assert peak(ports, state_of(ports, start_EN)) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_result_depends_on_the_seed_alone(threads: int) -> None:
    """Law: rounds done, not threads or time, decide."""
    problem = random_problem(7, experts=12, domains=5)
    one, two = searched(problem, seed=5), searched(problem, seed=5, threads=threads)
    assert one.placed_EN.tolist() == two.placed_EN.tolist()
    assert one.value == two.value
    assert one.finished
    assert two.finished


def test_a_start_is_never_made_worse() -> None:
    """Law: without a single round the best start comes back, split at its best."""
    problem = random_problem(3)
    good = searched(problem)
    kept = place(
        problem, Limits(seconds=AMPLE, threads=1), rounds=0, starts=[good.placed_EN]
    )
    assert kept.value <= good.value
    assert kept.rounds == 0


def test_no_time_gives_a_legal_placement() -> None:
    """Law: the limit costs quality, never legality."""
    problem = random_problem(4)
    found = place(problem, Limits(seconds=0.0, threads=1))
    assert (found.placed_EN.sum(axis=0) == problem.slots_N).all()
    assert found.placed_EN.any(axis=1).all()
    assert 0 <= found.bound <= found.value


def test_where_everyone_holds_everything_nothing_moves() -> None:
    """Law: value 0 is optimal and ends the search at once."""
    demand_EN = np.ones((3, 2))
    ports_N = np.ones(2)
    problem = OneLevel(
        demand_EN=demand_EN, slots_N=np.full(2, 3), up_N=ports_N, down_N=ports_N
    )
    found = place(problem, Limits(seconds=AMPLE))
    assert (found.value, found.bound, found.finished) == (0.0, 0.0, True)


def test_a_domain_without_slots_serves_nobody() -> None:
    """Law: no slots, no copies; the others cover all."""
    problem = OneLevel(
        demand_EN=random_problem(0, experts=4, domains=3).demand_EN,
        slots_N=np.asarray([3, 0, 2]),
        up_N=np.ones(3),
        down_N=np.ones(3),
    )
    best = optimum(problem.demand_EN, [3, 0, 2], problem.up_N, problem.down_N)
    assert searched(problem).value == pytest.approx(best, rel=1e-7)


def test_the_skewed_demand_is_the_one_described() -> None:
    """Law: tokens of a domain add up to 1; another seed is another demand."""
    demand_EN = skewed_demand(0)
    assert demand_EN.shape == (256, 32)
    assert demand_EN.sum(axis=0) == pytest.approx(np.ones(32))
    assert (demand_EN == skewed_demand(0)).all()
    assert (demand_EN != skewed_demand(1)).any()


def test_skewed_homes_come_close_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a tenth of a round on 256 × 32 ends within 1.5 % of the bound."""
    monkeypatch.setattr(placing, "PROPOSALS_PER_SLOT", 3000)
    problem = skewed_problem(0)
    found = place(problem, Limits(seconds=AMPLE, threads=1), rounds=1)
    assert found.value <= found.bound * 1.015
    eplb_EN = eplb_placement(problem)
    assert found.value < problem.value(eplb_EN, best_split(problem, eplb_EN))
