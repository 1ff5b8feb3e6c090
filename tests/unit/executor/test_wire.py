"""Wires: rows arrive where they are sent, and are counted when they move."""

from typing import Any

import numpy as np
import pytest

from planner.errors import ReplayMismatch

torch = pytest.importorskip("torch")

from planner.executor.stepping import finish  # noqa: E402
from planner.executor.wire.buffers import Buffers  # noqa: E402
from planner.executor.wire.local import LocalWire  # noqa: E402

pytestmark = pytest.mark.torch
FROM = [0, 0, 0, 2]
TO = [1, 0, 1, 1]


def sent(wire: Any) -> Any:
    """Four rows between three ranks: 1, 2, 3 from rank 0 and 4 from rank 2."""
    columns = (torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.arange(4))
    return finish(wire.send(columns, torch.tensor(FROM), torch.tensor(TO)))


def test_rows_arrive_by_rank_in_the_order_of_their_senders() -> None:
    """Law: what arrives is what was sent there, with where it is from."""
    shipment = sent(LocalWire(3))
    assert shipment.columns[0].flatten().tolist() == [2, 1, 3, 4]
    assert shipment.columns[1].tolist() == [1, 0, 2, 3]
    assert shipment.rank_N.tolist() == [0, 1, 1, 1]
    assert shipment.from_N.tolist() == [0, 0, 0, 2]


def test_only_rows_that_change_ranks_are_counted() -> None:
    """Law: a row that stays on its rank is no transfer."""
    wire = LocalWire(3)
    sent(wire)
    assert wire.dispatch_GG.tolist() == [[0, 2, 0], [0, 0, 0], [0, 1, 0]]
    assert not wire.combine_GG.any()


def test_answers_return_to_the_rows_they_answer() -> None:
    """Law: combine is the way back, row by row."""
    wire = LocalWire(3)
    shipment = sent(wire)
    (back,) = finish(shipment.back((10 * shipment.columns[0],)))
    assert back.flatten().tolist() == [10, 20, 30, 40]
    assert (wire.combine_GG == wire.dispatch_GG.T).all()


@pytest.mark.parametrize("answers", [3, 5])
def test_a_lost_or_doubled_answer_is_noticed(answers: int) -> None:
    """Law: every message is answered exactly once."""
    wire = LocalWire(3)
    shipment = sent(wire)
    with pytest.raises(ReplayMismatch, match="exactly once"):
        finish(shipment.back((torch.zeros(answers, 1),)))
    assert np.array_equal(wire.combine_GG, np.zeros((3, 3)))


def test_rows_gathered_elsewhere_are_combine_transfers() -> None:
    """Law: results that meet at a third rank are counted on their own leg."""
    wire = LocalWire(3)
    rows = (torch.tensor([[5.0], [6.0]]),)
    shipment = finish(wire.gather(rows, torch.tensor([1, 2]), torch.tensor([0, 2])))
    assert shipment.columns[0].flatten().tolist() == [5, 6]
    assert wire.combine_GG.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert not wire.dispatch_GG.any()


def test_gradients_take_the_way_back() -> None:
    """Law: the gradient of a row that travelled is that of where it arrived."""
    wire = LocalWire(3)
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]], requires_grad=True)
    shipment = finish(wire.send((x,), torch.tensor(FROM), torch.tensor(TO)))
    (back,) = finish(shipment.back((shipment.columns[0] ** 2,)))
    (back.flatten() * torch.tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [2, 40, 600, 8000]


def test_buffers_hold_rows_from_leaving_until_their_answers_are_home() -> None:
    """Law: by hand, 3 rows cross: 100 B each out, 10 B each back, at both ends."""
    buffers = Buffers(3, (100, 10))
    wire = LocalWire(3, buffers)
    shipment = sent(wire)
    assert buffers.peak_G.tolist() == [200, 300, 100]
    finish(shipment.back((shipment.columns[0],)))
    assert buffers.peak_G.tolist() == [220, 330, 110]
    again = sent(wire)
    again.free()
    assert buffers.peak_G.tolist() == [220, 330, 110]
    two = [sent(wire), sent(wire)]
    assert len(two) == 2
    assert buffers.peak_G.tolist() == [400, 600, 200]


def test_gathered_rows_hold_buffers_while_they_travel() -> None:
    """Law: a row of the combine leg lies in two buffers, and none afterwards."""
    buffers = Buffers(3, (100, 10))
    wire = LocalWire(3, buffers)
    for _ in range(2):
        rows = (torch.tensor([[5.0], [6.0]]),)
        finish(wire.gather(rows, torch.tensor([1, 2]), torch.tensor([0, 2])))
    assert buffers.peak_G.tolist() == [10, 10, 0]
