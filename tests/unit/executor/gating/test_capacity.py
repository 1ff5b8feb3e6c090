"""Capacity of experts: by hand, against a loop, and laws."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import UsageError
from planner.executor.gating import capacity as module
from planner.executor.gating.capacity import (
    Dropped,
    beyond,
    capacity,
    checked_factor,
    limited,
)


def kept_by_hand(ids: list[list[int]], room: int) -> list[list[int]]:
    """Fill experts choice by choice and token by token."""
    taken: dict[int, int] = {}
    kept = [[-1] * len(row) for row in ids]
    for choice in range(len(ids[0]) if ids else 0):
        for token, row in enumerate(ids):
            expert = row[choice]
            if expert >= 0 and taken.get(expert, 0) < room:
                taken[expert] = taken.get(expert, 0) + 1
                kept[token][choice] = expert
    return kept


def test_capacity_is_the_mean_load_times_the_factor_rounded_up() -> None:
    """Law: 10 choices over 4 experts are 2.5; 1.2 times that is exactly 3."""
    assert [capacity(f, 10, 4) for f in (1.0, 1.2, 1.21, 2.0)] == [3, 3, 4, 5]


def test_first_choices_come_before_second_ones() -> None:
    """Law: a later token's first choice goes before an earlier token's second."""
    ids = np.array([[1, 0], [2, 0], [0, 3], [0, 1]])
    late = beyond(ids, experts=4, factor=1.0)
    assert late.tolist() == [[False, True], [False, True], [False] * 2, [False] * 2]


def test_nulls_take_no_room_and_are_not_counted() -> None:
    """Law: 4 choices of 2 experts leave room for 2 each, whatever lies between."""
    ids = np.array([[0, -1], [-1, -1], [0, -1], [0, 1]], dtype=np.int16)
    assert beyond(ids, experts=2, factor=1.0).tolist() == [
        [False, False], [False, False], [False, False], [True, False],
    ]  # fmt: skip


def test_dropped_choices_are_counted_by_pair_and_token() -> None:
    """Law: a token is lost if it wanted something and nothing is left of it."""
    wanted = np.array([[[0, 1], [0, 1], [-1, -1]], [[2, -1], [3, 1], [1, 2]]])
    kept = np.array([[[0, 1], [-1, -1], [-1, -1]], [[2, -1], [3, -1], [1, 2]]])
    assert Dropped.between(wanted, kept) == Dropped(
        pairs=3, all_pairs=9, tokens_touched=2, tokens_lost=1, all_tokens=5
    )


def test_batches_are_filled_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a new batch finds all experts empty; layers are filled apart."""
    monkeypatch.setattr(module, "BATCH_TOKENS", 2)
    ids = np.array([[[0], [0], [0], [1], [0]]] * 2, dtype=np.int16)
    found = limited(ids, experts=2, factor=1.0)
    assert found.tolist() == [[[0], [-1], [0], [1], [0]]] * 2
    assert ids.min() == 0


@st.composite
def choices(draw: st.DrawFn) -> tuple[Any, int]:
    """Distinct experts per token, with nulls."""
    experts, tokens = draw(st.integers(1, 6)), draw(st.integers(0, 20))
    top_k = draw(st.integers(1, experts))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    ids = rng.random((tokens, experts)).argsort(axis=1)[:, :top_k]
    ids[rng.random(ids.shape) < 0.1] = -1
    return ids, experts


@settings(max_examples=200, deadline=None)
@given(choices(), st.sampled_from([0.25, 0.5, 1.0, 1.25, 2.0, 100.0]))
def test_no_expert_is_above_its_capacity_and_nothing_is_lost_without_need(
    drawn: tuple[Any, int], factor: float
) -> None:
    """Law: loads are min(wanted, capacity); what is kept is what a loop keeps."""
    ids, experts = drawn
    late = beyond(ids, experts, factor)
    room = capacity(factor, int((ids >= 0).sum()), experts)
    wanted = np.bincount(ids[ids >= 0], minlength=experts)
    kept = np.where(late, -1, ids)
    load = np.bincount(kept[kept >= 0], minlength=experts)
    assert load.tolist() == np.minimum(wanted, room).tolist()
    assert kept.tolist() == kept_by_hand(ids.tolist(), room)
    counted = Dropped.between(ids[None], kept[None])
    assert counted.pairs + int((kept >= 0).sum()) == counted.all_pairs
    assert counted.tokens_lost <= counted.tokens_touched <= counted.all_tokens
    if factor >= experts:
        assert counted.pairs == 0


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_is_no_limit_is_refused(factor: float) -> None:
    """Law: a factor is finite and above 0."""
    with pytest.raises(UsageError, match="--capacity-factor"):
        checked_factor(factor)
