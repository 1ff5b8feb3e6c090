"""What ranks may not differ in, by table."""

from dataclasses import replace

import pytest

from planner.errors import ManifestError, UsageError, WorldError
from planner.executor.world.cards import Card, End, judge, named

CARD = Card(rank=0, size=3, job="j", claim="a" * 64, gpus=3, host="n", pid=7)


def cards(**changes: dict[int, object]) -> dict[int, Card]:
    """Return three cards; a change names a field and its value by rank."""
    found = {rank: replace(CARD, rank=rank) for rank in range(3)}
    for field, values in changes.items():
        for rank, value in values.items():
            found[rank] = replace(found[rank], **{field: value})
    return found


def test_ranks_that_agree_may_run() -> None:
    """Law: nothing to say."""
    assert judge(cards()) is None


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"claim": {1: "b" * 64}}, 3, "rank 1 of 3 would run another manifest"),
        ({"claim": {1: "b", 2: "b"}}, 3, "ranks 1 and 2 of 3 would run"),
        ({"claim": {0: "b"}}, 3, "ranks 1 and 2 of 3 would run"),
        ({"gpus": {0: 4, 1: 4, 2: 4}}, 3, "the plan has 4 GPUs, the world 3 ranks"),
        ({"claim": {2: "b"}, "gpus": {2: 4}}, 3, "rank 2 of 3 would run another"),
        ({"size": {2: 4}}, 3, "world of 3 ranks, rank 2 in one of 4"),
        ({"fault": {1: "no GPU"}}, 2, r"rank 1 \(process 7 on n\): no GPU"),
    ],
)
def test_ranks_that_differ_are_named(
    changes: dict[str, dict[int, object]], code: int, says: str
) -> None:
    """Law: the message names the ranks that differ from rank 0."""
    end = judge(cards(**changes))
    assert end is not None
    assert end.code == code
    with pytest.raises((ManifestError, UsageError), match=says):
        raise end.error()


def test_an_end_keeps_the_code_of_the_rank_that_failed() -> None:
    """Law: the whole run has the exit code of its cause."""
    error = End(message="rank 2 failed: x", code=6).error()
    assert isinstance(error, WorldError)
    assert error.exit_code == 6
    assert End(message="lost").error().exit_code == 5


def test_ranks_in_words() -> None:
    """Law: sorted, as one would say them."""
    assert named([3]) == "rank 3"
    assert named([2, 1]) == "ranks 1 and 2"
    assert named([4, 2, 1]) == "ranks 1, 2 and 4"
