"""The description of a router: what is refused, and how it says so."""

from typing import Any

import pytest

from planner.errors import ModelError
from planner.executor.gating.gate import Gate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts": 0}, "experts: 0 must be an integer >= 1"),
        ({"top_k": True}, "top_k: True must be an integer >= 1"),
        ({"top_k": 9}, "top_k: 9 must not exceed the 8 experts of the groups kept"),
        ({"groups": 3}, "groups: 3 must divide the 8 experts"),
        ({"groups": 4, "kept_groups": 5}, "kept_groups: 5 must not exceed the 4"),
        ({"groups": 4, "top_k": 3}, "top_k: 3 must not exceed the 2 experts"),
        ({"scores": "tanh"}, "scores: 'tanh' must be one of softmax, sigmoid"),
        ({"group_score": "sum"}, "group_score: 'sum' must be one of best, best_two"),
        ({"scale": 0.0}, "scale: 0.0 must be finite and > 0"),
        ({"scale": float("nan")}, "scale: nan must be finite and > 0"),
        (
            {"groups": 8, "kept_groups": 8, "group_score": "best_two"},
            "group_score: 'best_two' needs groups of at least two experts",
        ),
    ],
)
def test_an_impossible_gate_is_refused(change: dict[str, Any], message: str) -> None:
    """Law: what cannot route is refused where it is described, by name and value."""
    with pytest.raises(ModelError) as caught:
        Gate(**{"experts": 8, "top_k": 2, **change})
    assert str(caught.value).startswith(message)


def test_a_group_holds_its_share_of_the_experts() -> None:
    """Law: groups are equal runs of ids."""
    assert Gate(experts=160, top_k=6, groups=8, kept_groups=3).group_size == 20
