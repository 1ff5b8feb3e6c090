"""The relaxation over patterns by hand: five heavy copies, seven light, three slots."""

import numpy as np
import pytest

from planner.formulation.linear_model import LinearModel
from planner.formulation.mathopt import solve_linear, solve_whole
from planner.formulation.patterns import CellChoices, counted, pattern_model
from planner.formulation.session import GrowingSession

HEAVY, LIGHT = 5, 7
ALONE = np.asarray([[0, 0, 0], [1, 0, 0]])
"""No GPU holds two heavy copies (class 1)."""
PAIR = np.asarray([[1, 1, 0]])


def crowd(pattern_AJ: np.ndarray, *, whole: bool = False) -> LinearModel:
    """Return the model of one copy each on four GPUs."""
    experts = HEAVY + LIGHT
    choices = CellChoices(
        expert_Q=np.arange(experts),
        copies_Q=np.ones(experts, dtype=np.int64),
        class_Q=np.repeat([1, 0], [HEAVY, LIGHT]),
    )
    return pattern_model(
        choices, pattern_AJ, classes=2, experts=experts, gpus=4, whole=whole
    ).model


def test_gpus_needed_by_hand() -> None:
    """Each heavy copy a GPU: 5. With pairs the twelve copies need their 12/3."""
    alone = solve_linear(crowd(ALONE), 60.0, simplex=True)
    assert alone.bound == pytest.approx(5)
    both = np.concatenate([ALONE, PAIR])
    assert solve_linear(crowd(both), 60.0).bound == pytest.approx(4)


def test_new_columns_are_as_good_as_known_ones() -> None:
    """A session that gains the pair says what a model with it says."""
    model = crowd(ALONE)
    session = GrowingSession(model, model.variables["q"], model.families["chain"])
    first = session.solve(60.0)
    assert first is not None
    assert first.objective == pytest.approx(5)
    # What the first answer is worth to a copy of each class: the pair is missing.
    assert first.dual_C[PAIR].sum() > 1
    column_B, class_B, count_B = counted(PAIR, 2)
    session.grow(
        column_B, model.families["chain"][class_B], count_B.astype(np.float64), 1.0
    )
    then = session.solve(60.0)
    assert then is not None
    assert then.objective == pytest.approx(4)
    assert first.value_C == pytest.approx(np.ones(HEAVY + LIGHT))


def test_whole_numbers_of_patterns_by_hand() -> None:
    """Four GPUs do only with a pair; then three of them hold one heavy copy more."""
    assert solve_whole(crowd(ALONE, whole=True), 60.0) is None
    model = crowd(np.concatenate([ALONE, PAIR]), whole=True)
    found_V = solve_whole(model, 60.0)
    assert found_V is not None
    x_A = found_V[model.variables["x"]]
    assert x_A.sum() == 4
    assert x_A[1] + 2 * x_A[2] >= HEAVY


def test_a_copy_without_room_costs_all_gpus() -> None:
    """Only light patterns: a heavy copy costs four, besides the GPUs of light ones."""
    outcome = solve_linear(crowd(ALONE[:1]), 60.0)
    assert outcome.bound > 4 * HEAVY


def test_copies_of_one_class_are_columns_at_the_ends_only() -> None:
    """1, 2, 3 copies of one class: two lies between; of another class it does not."""
    for middle, kept in ((0, [0, 2]), (1, [0, 1, 2])):
        choices = CellChoices(
            expert_Q=np.zeros(3, dtype=np.int64),
            copies_Q=np.asarray([1, 2, 3]),
            class_Q=np.asarray([0, middle, 0]),
        )
        built = pattern_model(
            choices, np.asarray([[0, 0]]), classes=2, experts=1, gpus=1
        )
        assert built.kept_Q.tolist() == kept
