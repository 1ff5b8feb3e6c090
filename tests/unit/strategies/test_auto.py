"""The portfolio: never below its members, honest about caps, layers mixed."""

import pytest

from planner import clock
from planner.errors import LimitError
from planner.evaluator import evaluate, layer_value
from planner.evaluator.evaluation import layer_split
from planner.instance import Caps
from planner.strategies.base import STRATEGIES, Event, Limits
from planner.strategies.baselines.base import published_plan
from planner.strategies.choosing import Portfolio
from tests.instances import instance

LIMITS = Limits(seconds=2.0, threads=1)


@pytest.mark.parametrize(
    ("traffic", "selection"),
    [
        ("copies", "nearest"),
        ("copies", "even"),
        ("copies", "weighted"),
        ("dedup_gpu", "even"),
        ("dedup_domain", "nearest"),
    ],
)
def test_no_layer_is_worse_than_any_baselines(traffic: str, selection: str) -> None:
    """Per layer on the planning part, for every mode and selection tried."""
    problem = instance(
        [2, 2], experts=8, slots=3, layers=2, traffic=traffic, selection=selection
    )
    result = STRATEGIES.get("auto")(problem, LIMITS)
    for name in ("contiguous", "eplb_global", "eplb_domains"):
        plan = published_plan(problem, name)
        if plan.has_duplicates():
            continue
        for layer in range(2):
            found = layer_value(
                problem,
                problem.planning,
                layer,
                result.plan.slots_LGJ[layer],
                layer_split(result.plan, layer),
            )
            baseline = layer_value(
                problem, problem.planning, layer, plan.slots_LGJ[layer], {}
            )
            assert found <= baseline


def test_a_bound_is_below_the_plan_and_progress_is_told() -> None:
    """``copies``: the MILP's bound, and events with falling incumbents."""
    problem = instance([2, 2], experts=6, slots=2, traffic="copies", layers=2)
    events: list[Event] = []
    result = STRATEGIES.get("auto")(problem, LIMITS, (), events.append)
    value = float(evaluate(problem, result.plan, problem.planning).value)
    assert result.bound is not None
    assert result.bound.value <= value * (1 + 1e-9)
    objectives = [event.objective for event in events if event.objective is not None]
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[-1] == pytest.approx(value)


def test_the_best_layer_of_each_plan_is_kept() -> None:
    """Two plans, each better in another layer: the mix beats both."""
    problem = instance([2, 2], experts=8, slots=2, layers=6, seed=5)
    portfolio = Portfolio(problem)
    values = []
    for name in ("contiguous", "round_robin"):
        plan = published_plan(problem, name)
        portfolio.offer(plan, (name,) * 6)
        values.append(evaluate(problem, plan, problem.planning).value)
    assert portfolio.value <= min(values)
    mixed = evaluate(problem, portfolio.plan(), problem.planning).value
    assert mixed == portfolio.value


def test_caps_that_nothing_keeps_end_in_a_limit_error() -> None:
    """One hot expert: no placement of four experts on two hosts keeps 1.01."""
    problem = instance(
        [1, 1],
        experts=2,
        slots=1,
        top_k=1,
        traffic="dedup_domain",
        caps=Caps(domain=1.0),
        tokens=301,
    )
    with pytest.raises(LimitError, match="imbalance"):
        STRATEGIES.get("auto")(problem, Limits(seconds=0.3, threads=1))


def test_a_small_layer_is_closed_before_the_search_by_prices_takes_its_time() -> None:
    """Law: where branch and bound needs no time, the time limit is not used up."""
    problem = instance(
        [1] * 6,
        experts=12,
        slots=2,
        traffic="copies",
        nic=[50.0] * 6,
    )
    with clock.counting_work():
        result = STRATEGIES.get("auto")(problem, Limits(seconds=60.0, threads=1))
    assert result.reason == "optimal"
    assert result.history[-1].seconds < 15.0
