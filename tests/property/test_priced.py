"""Laws of the priced search on random problems, and its bound on random prices."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.formulation.cut.one_level import OneLevel
from planner.strategies.base import Limits
from planner.strategies.priced import place as placing
from planner.strategies.priced.place import Placement

SLOW = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@st.composite
def problems(draw: st.DrawFn) -> OneLevel:
    """Draw up to 12 experts and 6 domains; demand may be zero, ports 1 : 100."""
    experts, domains = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    slots = rng.integers(0, min(experts, 4) + 1, domains)
    while slots.sum() < experts:
        slots[int(rng.choice(np.flatnonzero(slots < experts)))] += 1
    scale = draw(st.sampled_from([1e-9, 1.0, 1e6]))
    demand = rng.lognormal(0, draw(st.sampled_from([0.1, 1.5])), (experts, domains))
    demand *= rng.random((experts, domains)) < draw(st.sampled_from([0.3, 1.0]))
    return OneLevel(
        demand_EN=scale * demand,
        slots_N=slots,
        up_N=10 ** rng.uniform(-1, 1, domains),
        down_N=10 ** rng.uniform(-1, 1, domains),
    )


def searched(problem: OneLevel, monkeypatch: pytest.MonkeyPatch) -> Placement:
    """Return what one short round finds."""
    monkeypatch.setattr(placing, "PROPOSALS_PER_SLOT", 200)
    return placing.place(problem, Limits(seconds=600, threads=1), rounds=1)


@SLOW
@given(problem=problems())
def test_what_is_found_is_a_placement_with_a_split_and_a_value_above_the_bound(
    monkeypatch: pytest.MonkeyPatch, problem: OneLevel
) -> None:
    """Slots are full, experts covered, demand is served once, loads give the value."""
    found = searched(problem, monkeypatch)
    placed, split, demand = found.placed_EN, found.from_EN, problem.demand_EN
    assert (placed.sum(axis=0) == problem.slots_N).all()
    assert placed.any(axis=1).all()
    assert (split >= 0).all()
    assert (split[~placed] == 0).all()
    assert placed_total(demand, placed) + split.sum() == pytest.approx(demand.sum())
    busiest = 0.0
    for domain in range(demand.shape[1]):
        leaves = sum(demand[e, domain] for e in np.flatnonzero(~placed[:, domain]))
        enters = split[:, domain].sum()
        busiest = max(busiest, leaves / problem.up_N[domain])
        busiest = max(busiest, enters / problem.down_N[domain])
    assert found.value == pytest.approx(busiest)
    assert found.bound <= found.value
    values = [event.objective for event in found.history]
    assert values == sorted(values, reverse=True)


def placed_total(demand: np.ndarray, placed: np.ndarray) -> float:
    """Return what domains serve themselves."""
    return float(demand[placed].sum())


@SLOW
@given(problem=problems(), seed=st.integers(0, 2**32))
def test_other_numbers_for_domains_leave_the_bound(
    problem: OneLevel, seed: int
) -> None:
    """The bound does not know the order of domains (up to the solver's digits)."""
    order = np.random.default_rng(seed).permutation(problem.slots_N.size)
    other = OneLevel(
        demand_EN=problem.demand_EN[:, order],
        slots_N=problem.slots_N[order],
        up_N=problem.up_N[order],
        down_N=problem.down_N[order],
    )
    bounds = [placing.relaxed(each, 60.0).bound for each in (problem, other)]
    largest = problem.demand_EN.sum() / min(problem.up_N.min(), problem.down_N.min())
    assert bounds[0] == pytest.approx(bounds[1], abs=1e-6 * largest)
