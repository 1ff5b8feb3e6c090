"""A standing world: functions go to ranks, results and errors come back."""

from collections.abc import Iterator

import numpy as np
import pytest

from planner.errors import TraceError, VerificationError, WorldError

torch = pytest.importorskip("torch")

from planner.executor.world.nursery import Nursery  # noqa: E402
from planner.executor.world.standing import StandingWorld  # noqa: E402
from tests.unit.executor.world import jobs  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def three(nursery: Nursery) -> Iterator[StandingWorld]:
    """Return a world of three ranks."""
    with StandingWorld(3, nursery=nursery) as world:
        yield world


def test_every_rank_knows_its_place(three: StandingWorld) -> None:
    """Law: results come back in the order of the ranks."""
    assert three.run(jobs.who) == [(0, 3), (1, 3), (2, 3)]


def test_rows_arrive_where_they_are_sent(three: StandingWorld) -> None:
    """Law: an uneven exchange turns the table of rows round."""
    rows_RS = [[[1], [], [2, 3]], [[], [], []], [[4, 5], [6], []]]
    arrived = three.run_each(jobs.turned, [(rows_S,) for rows_S in rows_RS])
    assert arrived == [[1, 4, 5], [6], [2, 3]]


def test_some_ranks_form_a_group_of_their_own(three: StandingWorld) -> None:
    """Law: a subgroup counts its members only; the others need not call."""
    assert three.run(jobs.sum_within, [2, 0]) == [2, None, 2]


def test_a_world_of_one_works(nursery: Nursery) -> None:
    """Law: one rank is a world too."""
    with StandingWorld(1, nursery=nursery) as world:
        assert world.run(jobs.sum_of, 5) == [5]


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("planner", TraceError, "column x: 3 must be known"),
        ("findings", VerificationError, "first; second"),
        ("bug", WorldError, "rank 1 failed: ValueError: of rank its own"),
        ("exit", WorldError, r"rank 1 ended without a result \(exit code 7\)"),
        ("kill", WorldError, r"rank 1 was killed by signal 9 \(SIGKILL\)"),
    ],
)
def test_one_error_explains_all_and_the_world_comes_back(
    three: StandingWorld, how: str, kind: type[Exception], says: str
) -> None:
    """Law: the failing rank's own error is raised; the next call has fresh ranks."""
    with pytest.raises(kind, match=f"^{says}$"):
        three.run(jobs.fail, 1, how)
    assert three.run(jobs.sum_of, 2) == [6, 6, 6]


def test_tensors_and_arrays_travel_by_value(three: StandingWorld) -> None:
    """Law: what comes back outlives the ranks, and is nobody else's memory."""
    given = {"tensor": torch.arange(3.0), "array": np.arange(4)}
    found = three.run(jobs.doubled, given)[2]
    assert found["tensor"].tolist() == [0, 2, 4]
    assert not found["tensor"].is_shared()
    assert found["array"].tolist() == [0, 2, 4, 6]


def test_a_result_that_cannot_travel_is_said_so(three: StandingWorld) -> None:
    """Law: a rank always answers."""
    with pytest.raises(WorldError, match="its result cannot travel"):
        three.run(jobs.no_result)
