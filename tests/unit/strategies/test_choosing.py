"""Layers of several plans put together: by the objective of all workloads."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.evaluator.joint import evaluate_planning
from planner.instance import Objective, PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.choosing import Portfolio
from planner.workload.parts import CountsPart
from tests.instances import instance

Table = list[list[int]]
FIRST, SECOND = [[0, 1], [2, 3]], [[0, 2], [1, 3]]
"""Two ways to put four experts on two GPUs."""


def joint(
    tables: list[Table], combine: str = "worst", layers: str = "sequential"
) -> PlacementInstance:
    """Return workloads of equal weight on two GPUs; the fullest GPU counts."""
    one = instance(
        [2],
        experts=4,
        slots=2,
        top_k=1,
        traffic="copies",
        selection="even",
        layers=len(tables[0]),
        counts=tables[0],
    )
    (load,) = one.workloads
    workloads = [
        replace(
            load,
            name=str(number),
            weight=Fraction(1, len(tables)),
            planning=CountsPart(tokens_LE=np.asarray(table), top_k=1),
        )
        for number, table in enumerate(tables)
    ]
    objective = Objective(name="gpu_tokens", layers=layers, combine=combine)
    return replace(one, workloads=tuple(workloads), objective=objective)


def plan(rows: list[list[list[int]]]) -> PlacementPlan:
    """Return a plan of these slots by layer and GPU."""
    return PlacementPlan(
        layer_numbers=tuple(range(len(rows))), slots_LGJ=np.asarray(rows, np.int16)
    )


@pytest.mark.parametrize("plans", [(FIRST, SECOND), (SECOND, FIRST)])
def test_a_layer_may_give_way_where_another_makes_up_for_it(
    plans: tuple[list[list[int]], ...],
) -> None:
    """By hand: 7 + 4 in either workload beats 6 + 6, though 7 > 6 in each layer.

    Layer 0 takes (6, 6) in the workloads by the first way, (7, 4) by the second;
    layer 1 takes (6, 6) and (4, 7). One of each would be (10, 13).
    """
    uneven, even = [6, 0, 1, 1], [3, 3, 1, 1]
    problem = joint([[uneven, even], [even, uneven]])
    portfolio = Portfolio(problem)
    for rows in plans:
        portfolio.offer(plan([rows, rows]), ("start",) * 2)
    assert portfolio.plan().slots_LGJ.tolist() == [SECOND, SECOND]
    assert portfolio.value == Fraction(11, 8)


@pytest.mark.parametrize("plans", [(FIRST, SECOND), (SECOND, FIRST)])
def test_of_equally_bad_plans_the_one_that_is_better_elsewhere_is_kept(
    plans: tuple[list[list[int]], ...],
) -> None:
    """By hand: 7 of 8 in the worst workload either way, then 6 and 4, or 5 and 5."""
    problem = joint([[[6, 1, 1, 0]], [[5, 1, 0, 2]], [[4, 0, 1, 3]]])
    portfolio = Portfolio(problem)
    for rows in plans:
        portfolio.offer(plan([rows]), ("start",))
    assert portfolio.value == Fraction(7, 8)
    assert portfolio.plan().slots_LGJ.tolist() == [SECOND]


def test_a_layer_that_does_not_decide_is_still_the_best_that_was_seen() -> None:
    """By hand: layer 1 has 8 of 8 pairs on a GPU, layer 0 has 5 or 4 of them."""
    uneven, hot = [4, 1, 0, 3], [8, 0, 0, 0]
    problem = joint([[uneven, hot], [uneven, hot]], layers="worst_layer")
    portfolio = Portfolio(problem)
    for rows in (FIRST, SECOND):
        portfolio.offer(plan([rows, FIRST]), ("start",) * 2)
    assert portfolio.value == 1
    assert portfolio.plan().slots_LGJ.tolist() == [SECOND, FIRST]


@pytest.mark.parametrize("tables", [1, 2])
def test_an_offer_that_is_no_better_changes_nothing(tables: int) -> None:
    """Law: of equal layers the first stays, under the name of who made it."""
    problem = joint([[[3, 3, 3, 3]]] * tables)
    portfolio = Portfolio(problem)
    for rows, name in ((SECOND, "first"), (FIRST, "second"), (SECOND, "third")):
        portfolio.offer(plan([rows]), (name,))
    assert portfolio.plan().slots_LGJ.tolist() == [SECOND]
    assert [choice.origin for choice in portfolio.choices] == ["first"]


WAYS = [FIRST, SECOND, [[0, 3], [1, 2]]]
LOADS = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any)


@given(data=st.data())
@pytest.mark.parametrize("combine", ["worst", "mean"])
@pytest.mark.parametrize("layers", ["sequential", "worst_layer"])
def test_no_offer_and_no_exchange_of_a_layer_is_better(
    combine: str, layers: str, data: st.DataObject
) -> None:
    """Law: the objective is that of the evaluator, and none that was seen beats it."""
    table = st.lists(LOADS, min_size=3, max_size=3)
    tables = data.draw(st.lists(table, min_size=2, max_size=3))
    problem = joint(tables, combine, layers)
    ways = st.lists(st.sampled_from(WAYS), min_size=3, max_size=3)
    offers = [plan(rows) for rows in data.draw(st.lists(ways, min_size=1, max_size=4))]
    portfolio = Portfolio(problem)
    for offer in offers:
        portfolio.offer(offer, ("start",) * 3)
    best = portfolio.plan()
    assert portfolio.value == evaluate_planning(problem, best).value
    others = list(offers)
    for offer in offers:
        for layer in range(3):
            slots_LGJ = best.slots_LGJ.copy()
            slots_LGJ[layer] = offer.slots_LGJ[layer]
            others.append(replace(best, slots_LGJ=slots_LGJ))
    assert all(
        portfolio.value <= evaluate_planning(problem, other).value for other in others
    )
