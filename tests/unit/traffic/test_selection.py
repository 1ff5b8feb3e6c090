"""Which copy serves a token: every case of rules 16-19, computed by hand."""

import numpy as np
import pytest

from planner.errors import ManifestError
from planner.layout import ParallelLayout
from planner.traffic.selection import chosen_targets, copy_table, nearest_GE
from planner.workload.parts import TokenPart


def layout_of(domains: list[int], ep: int | None = None) -> ParallelLayout:
    return ParallelLayout(
        domain_G=np.asarray(domains),
        ep=ep or len(domains),
        attention_groups=tuple((gpu,) for gpu in range(len(domains))),
    )


def part_of(experts_TK: list[list[int]], source_T: list[int]) -> TokenPart:
    source = np.asarray(source_T)
    ordinal = [source_T[:i].count(s) for i, s in enumerate(source_T)]
    return TokenPart(
        experts_LTK=np.asarray([experts_TK], dtype=np.int16),
        source_T=source,
        rank_T=source,
        ordinal_T=np.asarray(ordinal),
        row_T=np.arange(source.size),
    )


def slots(rows: list[list[int]]) -> np.ndarray:
    return np.asarray(rows, dtype=np.int16)


def test_copies_are_ordered_by_slot() -> None:
    """EP rank first, then position; padding slots hold nothing."""
    table = copy_table(slots([[2, 0], [0, -1], [1, 2]]), 3)
    assert table.count_E.tolist() == [2, 1, 2]
    assert table.rank_EM.tolist() == [[0, 1], [2, -1], [0, 2]]


def test_nearest_takes_its_own_copy_then_its_domains_first_copy() -> None:
    """Expert 0 on GPUs 1 and 2 (domains 0 and 1)."""
    near = nearest_GE(slots([[1], [0], [0], [2]]), 3, layout_of([0, 0, 1, 1]))
    assert near[:, 0].tolist() == [1, 1, 2, 2]


def test_nearest_deals_far_copies_by_position_among_those_that_reach_the_case() -> None:
    """GPUs 0, 1 have no copy in their domain: copy (k + e) mod m."""
    near = nearest_GE(slots([[1], [2], [0], [0]]), 3, layout_of([0, 0, 1, 1]))
    assert near[:2, 0].tolist() == [2, 3]


def test_nearest_deals_local_copies_when_all_are_local() -> None:
    """All copies in g's domain is the last case, not the first copy (rule 17)."""
    table = slots([[0, 1], [0, 2], [1, 2], [3, 4]])
    near = nearest_GE(table, 5, layout_of([0, 0, 0, 0]))
    assert near[:, 0].tolist() == [0, 1, 0, 1]
    # Expert 1 (copies 0, 2): GPUs 1 and 3 are k = 0, 1; copy (k + 1) mod 2.
    assert near[:, 1].tolist() == [0, 2, 2, 0]


def test_nearest_stays_inside_the_set_of_its_source() -> None:
    """Two EP sets of two GPUs hold the same slots; k starts again in each."""
    near = nearest_GE(slots([[0], [1]]), 2, layout_of([0, 0, 1, 1], ep=2))
    assert near.tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]


def test_even_hashes_the_ordinal() -> None:
    """Copy ((i · 2654435769) mod 2³²) mod m, by plain Python integers."""
    part = part_of([[0]] * 6, [0] * 6)
    chosen = chosen_targets(
        part,
        0,
        slots([[0], [0], [0]]),
        {},
        selection="even",
        layout=layout_of([0, 1, 2]),
        experts=1,
    )
    expected = [((i * 2654435769) % 2**32) % 3 for i in range(6)]
    assert chosen[:, 0].tolist() == expected


def test_weighted_takes_the_first_copy_whose_share_covers_u() -> None:
    """A rank's own weights come before ``*``."""
    part = part_of([[0]] * 8, [0, 0, 0, 0, 1, 1, 1, 1])
    chosen = chosen_targets(
        part,
        0,
        slots([[0], [0]]),
        {0: {"*": (1, 0), "1": (1, 3)}},
        selection="weighted",
        layout=layout_of([0, 1]),
        experts=1,
    )
    u = [((i + 1) * 2654435769) % 2**32 for i in range(4)]
    expected = [0] * 4 + [0 if value * 4 < 2**32 else 1 for value in u]
    assert chosen[:, 0].tolist() == expected


def test_null_choices_go_nowhere() -> None:
    """-1 in the trace stays -1."""
    part = part_of([[-1, 0]], [0])
    chosen = chosen_targets(
        part, 0, slots([[0]]), {}, selection="nearest", layout=layout_of([0]), experts=1
    )
    assert chosen.tolist() == [[-1, 0]]


@pytest.mark.parametrize(
    "weights",
    [(1,), (1, 1, 1), (0, 0), (-1, 2), (2**31, 1)],
    ids=["short", "long", "zero sum", "negative", "too large"],
)
def test_bad_weights_are_refused(weights: tuple[int, ...]) -> None:
    """One weight per copy, none negative, sum within 1..2³¹."""
    with pytest.raises(ManifestError, match="weight"):
        chosen_targets(
            part_of([[0]], [0]),
            0,
            slots([[0], [0]]),
            {0: {"*": weights}},
            selection="weighted",
            layout=layout_of([0, 1]),
            experts=1,
        )
