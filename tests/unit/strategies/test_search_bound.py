"""The search attaches a bound where every expert has one copy, and only there."""

from fractions import Fraction

import pytest

from planner.pipeline.certifying import certified_layers
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.judging import judged_layer
from tests.instances import instance


@pytest.mark.parametrize("strategy", ["search", "auto"])
@pytest.mark.parametrize("traffic", ["dedup_domain", "dedup_gpu"])
def test_a_plan_without_copies_comes_with_a_certified_bound(
    strategy: str, traffic: str
) -> None:
    """Law: 0 < certified <= value in every layer, and claimed <= certified."""
    problem = instance(
        [2, 2, 2], experts=12, slots=2, traffic=traffic, layers=2, top_k=3
    )
    result = STRATEGIES.get(strategy)(problem, Limits(seconds=4))
    bound = result.bound
    assert bound is not None and bound.method == "gram"
    certified = certified_layers(problem, bound)
    assert certified is not None
    for layer, proven in enumerate(certified):
        slots_GJ = result.plan.slots_LGJ[layer]
        value, _ = judged_layer(problem, layer, slots_GJ, {})
        assert 0 < Fraction(bound.layers[layer].value) <= proven <= value


def test_a_plan_with_copies_claims_no_bound() -> None:
    """Law: with redundant slots nothing is claimed for deduplicated traffic."""
    problem = instance([2, 2], experts=6, slots=2, traffic="dedup_domain")
    assert problem.slot_count > problem.model.experts
    assert STRATEGIES.get("search")(problem, Limits(seconds=1)).bound is None
