"""One level of ports: its LP, what its prices prove, and the split of a placement."""

from dataclasses import replace

import numpy as np
import pytest

from planner.formulation.cut.as_one_level import split_weights
from planner.formulation.cut.one_level import (
    OneLevel,
    Prices,
    best_split,
    copy_costs,
    priced_bound,
    regrets,
    relaxed,
)
from tests.oracles.one_level import optimum, placements, value_of


def problem_of(demand: list, slots: list[int], **ports: list[float]) -> OneLevel:
    """Return a problem whose ports are 1 unless given."""
    domains = len(slots)
    return OneLevel(
        demand_EN=np.asarray(demand, dtype=float),
        slots_N=np.asarray(slots),
        up_N=np.asarray(ports.get("up", [1.0] * domains), dtype=float),
        down_N=np.asarray(ports.get("down", [1.0] * domains), dtype=float),
    )


def random_problem(seed: int) -> OneLevel:
    """Return 3 domains with up to 2 slots and 3 or 4 experts, some not wanted."""
    rng = np.random.default_rng(seed)
    experts = int(rng.integers(3, 5))
    slots = rng.integers(1, 3, 3)
    slots[int(rng.integers(3))] += max(0, experts - int(slots.sum()))
    demand = np.round(rng.lognormal(0, 1, (experts, 3)) * 4)
    return problem_of(
        demand.tolist(),
        slots.tolist(),
        up=rng.uniform(0.5, 3, 3).tolist(),
        down=rng.uniform(0.5, 3, 3).tolist(),
    )


def random_prices(problem: OneLevel, seed: int) -> Prices:
    """Return prices that have nothing to do with the problem."""
    rng = np.random.default_rng(seed)
    experts, domains = problem.demand_EN.shape
    share = rng.dirichlet(np.ones(2 * domains))
    return Prices(
        out_N=share[:domains] / problem.up_N,
        in_N=share[domains:] / problem.down_N,
        slot_N=rng.normal(0.5, 1.0, domains),
        sold_E=np.zeros(experts),
        cover_E=np.zeros(experts),
    )


def test_two_experts_one_slot_each_by_hand() -> None:
    """Law: each domain keeps what it wants most; 2 leaves one way, 1 the other."""
    problem = problem_of([[5, 1], [2, 7]], [1, 1])
    placed = np.asarray([[True, False], [False, True]])
    split = best_split(problem, placed)
    assert problem.egress_N(placed).tolist() == [2, 1]
    assert split.tolist() == [[1, 0], [0, 2]]
    assert problem.value(placed, split) == 2


def test_two_copies_share_what_a_third_domain_wants_by_hand() -> None:
    """Law: 6 pairs of a domain without a copy are split 2 : 4 by ports of 1 and 2."""
    problem = problem_of(
        [[1, 1, 6], [0, 0, 1]], [1, 1, 1], down=[1, 2, 9], up=[9, 9, 9]
    )
    placed = np.asarray([[True, True, False], [False, False, True]])
    split = best_split(problem, placed)
    assert split[0] == pytest.approx([2, 4, 0])
    assert problem.value(placed, split) == pytest.approx(2)


@pytest.mark.parametrize("seed", range(25))
def test_the_best_split_is_the_best_of_all_flows(seed: int) -> None:
    """Law: own service first loses nothing: value = LP over every flow."""
    problem = random_problem(seed)
    ways = list(placements(problem.demand_EN.shape[0], problem.slots_N.tolist()))
    placed = ways[seed % len(ways)]
    split = best_split(problem, placed)
    expected = value_of(problem.demand_EN, placed, problem.up_N, problem.down_N)
    assert problem.value(placed, split) == pytest.approx(expected, abs=1e-9)
    left = np.where(placed, 0, problem.demand_EN).sum(axis=1)
    assert split.sum(axis=1) == pytest.approx(left)
    assert (split >= 0).all()
    assert (split[~placed] == 0).all()


@pytest.mark.parametrize("seed", range(25))
def test_no_placement_beats_the_bound_of_any_prices(seed: int) -> None:
    """Law: prices of the LP, equal ones and random ones all bound the optimum."""
    problem = random_problem(seed)
    slots = problem.slots_N.tolist()
    best = optimum(problem.demand_EN, slots, problem.up_N, problem.down_N)
    found = relaxed(problem, 20.0)
    assert found.bound <= best * (1 + 1e-9)
    for other in range(5):
        assert priced_bound(problem, random_prices(problem, other)) <= best * (1 + 1e-9)
    late = relaxed(problem, 0.0)
    assert late.bound <= best * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(25))
def test_the_cost_of_an_expert_is_that_of_its_best_set_of_copies(seed: int) -> None:
    """Law: closed form = least cost over every set of copies, with and without n."""
    problem = random_problem(seed)
    prices = random_prices(problem, seed)
    cost_EN, domains = copy_costs(problem, prices).min(axis=0), 3
    regret_EN = regrets(problem, prices)
    for expert, demand_N in enumerate(problem.demand_EN):
        costs = {}
        for code in range(1, 2**domains):
            held = np.asarray([code >> n & 1 for n in range(domains)], dtype=bool)
            cheapest = prices.in_N[held].min()
            moved = np.where(held, 0, demand_N * (prices.out_N + cheapest)).sum()
            costs[code] = moved + prices.slot_N[held].sum()
        assert cost_EN[expert] == pytest.approx(min(costs.values()))
        for n in range(domains):
            held_cost = min(cost for code, cost in costs.items() if code >> n & 1)
            bare_cost = min(cost for code, cost in costs.items() if not code >> n & 1)
            assert regret_EN[expert, n] == pytest.approx(held_cost - bare_cost)


def test_faster_ports_scale_value_and_bound() -> None:
    """Law: ports twice as fast halve both."""
    problem = random_problem(3)
    faster = replace(problem, up_N=2 * problem.up_N, down_N=2 * problem.down_N)
    slow, fast = relaxed(problem, 20.0), relaxed(faster, 20.0)
    assert fast.bound == pytest.approx(slow.bound / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slots_N": np.asarray([1, 0])}, "fewer slots"),
        ({"slots_N": np.asarray([3, 1])}, "distinct"),
        ({"slots_N": np.asarray([1, 1, 1])}, "one entry per domain"),
        ({"up_N": np.asarray([1.0, 0.0])}, "ports"),
        ({"demand_EN": np.asarray([[1.0, -1.0], [1.0, 1.0]])}, "demand"),
    ],
)
def test_impossible_problems_are_refused(change: dict, words: str) -> None:
    """Law: what has no placement or no value is said at once."""
    problem = problem_of([[1, 1], [1, 1]], [1, 1])
    with pytest.raises(ValueError, match=words):
        replace(problem, **change)


def test_split_weights_by_hand() -> None:
    """Law: holders serve themselves, others share 2 : 4; ranks of two GPUs add up."""
    problem = problem_of([[1, 1, 6], [0, 0, 1]], [1, 1, 1])
    placed = np.asarray([[True, True, False], [False, False, True]])
    split = np.asarray([[2.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    alone = split_weights(problem, placed, split, np.arange(3))
    assert set(alone) == {0}
    third, rest = round(2**31 / 3), 2**31 - round(2**31 / 3)
    assert alone[0] == {"*": (third, rest), "0": (2**31, 0), "1": (0, 2**31)}
    paired = split_weights(problem, placed, split, np.asarray([0, 1, 1]))
    # GPUs 1 and 2 together send 0 + 2 to the first copy and 1 + 4 to the second.
    first = paired[0]["1"][0]
    assert first == pytest.approx(2**31 * 2 / 7, abs=2)
