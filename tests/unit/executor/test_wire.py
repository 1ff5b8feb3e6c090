"""The wire: rows arrive where they are sent, and are counted when they move."""

from typing import Any

import numpy as np
import pytest

from planner.errors import ReplayMismatch

torch = pytest.importorskip("torch")

from planner.executor.wire import ANY_RANK, Messages, Wire  # noqa: E402

pytestmark = pytest.mark.torch


def outbox(values: list[float], targets: list[int]) -> Messages:
    """Messages of one value each."""
    to = torch.tensor(targets, dtype=torch.int64)
    return Messages(
        payload_NH=torch.tensor(values).reshape(-1, 1),
        slots_NM=to[:, None],
        gates_NM=None,
        final_N=torch.full_like(to, ANY_RANK),
        next_N=to,
        sender_N=to - to - 1,
        row_N=to - to - 1,
    )


def sent(wire: Wire) -> tuple[list[Any], list[Any]]:
    outboxes = [outbox([1.0, 2.0, 3.0], [1, 0, 1]), outbox([], []), outbox([4.0], [1])]
    return outboxes, wire.send(outboxes)


def test_rows_arrive_in_the_order_of_their_senders() -> None:
    """Law: an inbox holds exactly the rows sent to it, with where they are from."""
    wire = Wire(3)
    _, inboxes = sent(wire)
    assert [box.payload_NH.flatten().tolist() for box in inboxes] == [
        [2],
        [1, 3, 4],
        [],
    ]
    assert inboxes[1].sender_N.tolist() == [0, 0, 2]
    assert inboxes[1].row_N.tolist() == [0, 2, 0]


def test_only_rows_that_change_ranks_are_counted() -> None:
    """Law: a row that stays on its rank is no transfer."""
    wire = Wire(3)
    sent(wire)
    assert wire.dispatch_GG.tolist() == [[0, 2, 0], [0, 0, 0], [0, 1, 0]]
    assert not wire.combine_GG.any()


def test_answers_return_to_the_rows_they_answer() -> None:
    """Law: combine is the way back, row by row."""
    wire = Wire(3)
    outboxes, inboxes = sent(wire)
    answers = [10 * box.payload_NH for box in inboxes]
    back = wire.answer(inboxes, answers, [box.count for box in outboxes])
    for box, rows in zip(outboxes, back, strict=True):
        assert torch.equal(rows, 10 * box.payload_NH)
    assert (wire.combine_GG == wire.dispatch_GG.T).all()


def test_a_lost_answer_is_noticed() -> None:
    """Law: every message is answered exactly once."""
    wire = Wire(3)
    outboxes, inboxes = sent(wire)
    inboxes[1] = inboxes[1].take(torch.tensor([0, 1]))
    answers = [box.payload_NH for box in inboxes]
    with pytest.raises(ReplayMismatch, match="exactly once"):
        wire.answer(inboxes, answers, [box.count for box in outboxes])


def test_an_answer_given_twice_is_noticed() -> None:
    """Law: a second answer cannot stand in for a lost one."""
    wire = Wire(3)
    outboxes, inboxes = sent(wire)
    inboxes[1] = inboxes[1].take(torch.tensor([0, 1, 1]))
    answers = [box.payload_NH for box in inboxes]
    with pytest.raises(ReplayMismatch, match="exactly once"):
        wire.answer(inboxes, answers, [box.count for box in outboxes])
    assert np.array_equal(wire.combine_GG, np.zeros((3, 3)))
