"""EP groups, slots and attention groups follow from the options (design §5)."""

import pytest

from planner.errors import UsageError
from planner.options import SolveOptions
from planner.pipeline.groups import choose_layout, parse_layout, slots_per_gpu
from planner.topology.schema import load_topology
from tests.instances import cluster

FOUR_BY_TWO = load_topology(cluster([2, 2, 2, 2]))


@pytest.mark.parametrize(
    ("experts", "options", "ep"),
    [
        (8, SolveOptions(), 8),
        (64, SolveOptions(), 8),
        # Fewer experts than GPUs: the largest aligned divisor of 8 that is ≤ 6.
        (6, SolveOptions(), 4),
        (7, SolveOptions(redundant="1"), 8),
        (64, SolveOptions(layout="ep=2"), 2),
    ],
)
def test_ep_is_all_gpus_or_the_largest_aligned_divisor(
    experts: int, options: SolveOptions, ep: int
) -> None:
    """Rule 16 and design §5."""
    assert choose_layout(FOUR_BY_TWO, experts, options).ep == ep


def test_attention_groups_are_consecutive_gpus_of_one_domain() -> None:
    """tp = 2 on domains of two: four DP ranks."""
    layout = choose_layout(FOUR_BY_TWO, 8, SolveOptions(layout="tp=2,dp=4"))
    assert layout.attention_groups == ((0, 1), (2, 3), (4, 5), (6, 7))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ep=3", "does not divide the 8 GPUs"),
        ("tp=4", "does not divide the scale-up domain"),
        ("tp=2,dp=9", "make dp=4 at most"),
        ("pp=2", "only pp=1"),
        ("tp=0", "whole number > 0"),
        ("zp=2", "is not one of"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(text: str, message: str) -> None:
    """One clear message, exit code 2."""
    with pytest.raises(UsageError, match=message):
        choose_layout(FOUR_BY_TWO, 8, SolveOptions(layout=text))


def test_auto_layout_names_nothing() -> None:
    """``auto`` leaves every degree to the defaults."""
    assert parse_layout("auto") == {}


@pytest.mark.parametrize(
    ("experts", "options", "slots"),
    [
        (64, SolveOptions(), 8),
        (60, SolveOptions(), 8),
        (64, SolveOptions(redundant="16"), 10),
        (8, SolveOptions(policy="one_expert_per_gpu"), 1),
    ],
)
def test_slots_hold_every_expert(
    experts: int, options: SolveOptions, slots: int
) -> None:
    """``auto``: the fewest; R: exactly E + R."""
    assert slots_per_gpu(experts, 8, options) == slots


def test_slots_that_do_not_divide_name_the_nearest_that_do() -> None:
    """64 + 3 over 8 GPUs: 0 or 8 redundant experts would."""
    with pytest.raises(UsageError, match="use 0 or 8"):
        slots_per_gpu(64, 8, SolveOptions(redundant="3"))


def test_one_expert_per_gpu_altogether_has_no_copies_and_one_set() -> None:
    """Law: one slot, whatever the layers; redundant experts are refused."""
    options = SolveOptions(policy="one_expert_per_gpu_total")
    assert slots_per_gpu(4, 8, options) == 1
    assert choose_layout(FOUR_BY_TWO, 2, options).ep == 8
    with pytest.raises(UsageError, match="use --redundant 0"):
        slots_per_gpu(
            4, 8, SolveOptions(policy="one_expert_per_gpu_total", redundant="8")
        )
