"""No strategy gets a plan past its caps."""

import pytest

import planner
from planner.errors import LimitError
from planner.options import SolveOptions


def test_a_plan_that_breaks_a_cap_is_no_result() -> None:
    """Law: a baseline above the cap is refused with the layer, not written."""
    options = SolveOptions(
        time_limit=1, strategy="round_robin", traffic="copies", imbalance_cap="1.02"
    )
    with pytest.raises(LimitError, match="layer 1 exceeds them by"):
        planner.solve("toy-2x2", options=options)
