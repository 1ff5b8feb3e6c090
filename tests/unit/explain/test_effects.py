"""Whether links can gain, and what binds: on clusters where the answer is known."""

import numpy as np
import pytest

from planner.evaluator import evaluate
from planner.explain import link_effects, what_binds, why_links_cannot_gain
from planner.strategies.baselines.base import published_plan
from tests.instances import instance


def applying(problem: object) -> set[str]:
    return {e.name for e in link_effects(problem) if e.applies}  # type: ignore[arg-type]


def test_counts_on_equal_ports_leave_only_balance() -> None:
    """Uniform homes, copies, one equal NIC per GPU, no shared link, no copies."""
    problem = instance(
        [2, 2], experts=4, slots=1, top_k=1, traffic="copies", counts=[[9, 5, 3, 1]]
    )
    assert applying(problem) == set()
    reason = why_links_cannot_gain(problem)
    assert reason is not None
    assert "only balance" in reason


@pytest.mark.parametrize(
    ("changes", "effect"),
    [
        ({"traffic": "dedup_domain", "counts": None}, "dedup"),
        ({"slots": 2}, "near copies"),
        ({"nic": [50.0, 25.0]}, "unequal or shared links"),
    ],
)
def test_each_effect_is_named_where_it_applies(
    changes: dict[str, object], effect: str
) -> None:
    """One change at a time from the case where nothing applies."""
    given: dict[str, object] = {
        "experts": 4,
        "slots": 1,
        "top_k": 1,
        "traffic": "copies",
        "counts": [[9, 5, 3, 1]],
    }
    problem = instance([2, 2], **(given | changes))  # type: ignore[arg-type]
    assert effect in applying(problem)
    assert why_links_cannot_gain(problem) is None


def test_homes_that_follow_experts_are_noticed() -> None:
    """Tokens of host 0 choose experts 0 and 1, of host 1 the others."""
    problem = instance([2, 2], experts=4, slots=1, top_k=1, traffic="copies")
    part = problem.planning
    own = np.where(part.source_T < 2, 0, 2)  # type: ignore[union-attr]
    part.experts_LTK[0, :, 0] = own  # type: ignore[union-attr]
    assert "homes correlated with experts" in applying(problem)


def test_the_slow_network_card_binds() -> None:
    """Every leg of every layer ends on the NICs of 1 GB/s."""
    problem = instance(
        [1, 1], experts=4, slots=2, layers=3, traffic="copies", nic=[1.0, 1.0]
    )
    plan = published_plan(problem, "contiguous")
    binds = what_binds(evaluate(problem, plan, problem.planning))
    assert sum(count for _, count in binds) == 6
    assert all(name.startswith("ib:") for name, _ in binds)
