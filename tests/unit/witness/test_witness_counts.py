"""Counts tables: expected pairs as exact rationals, by hand and by law."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import ManifestError
from planner.layout import ParallelLayout
from planner.witness.counts import expected_pairs, transfers_of_pairs


def layout(domains, ep=None, groups=None) -> ParallelLayout:
    """One DP rank per GPU unless ``groups`` says otherwise."""
    return ParallelLayout(
        domain_G=np.asarray(domains, dtype=np.int64),
        ep=ep or len(domains),
        attention_groups=groups or tuple((gpu,) for gpu in range(len(domains))),
    )


def pairs(slots, tokens, cluster, selection="nearest", split=None):
    """Expected pairs as fractions."""
    exact, denominator = expected_pairs(
        np.asarray(slots, dtype=np.int16),
        split or {},
        selection,
        np.asarray(tokens),
        cluster,
    )
    return [[Fraction(int(n), denominator) for n in row] for row in exact]


def test_even_halves_what_every_home_holds() -> None:
    """Three tokens of expert 0 over two homes, two copies: 3/2 · 1/2 each."""
    assert pairs([[0], [0]], [3], layout([0, 1]), "even") == [
        [Fraction(3, 4)] * 2,
        [Fraction(3, 4)] * 2,
    ]


def test_weighted_follows_the_weights_of_each_dp_rank() -> None:
    """DP rank 0 has 1:3, the others equal weights."""
    split = {0: {"0": (1, 3)}}
    assert pairs([[0], [0]], [4], layout([0, 1]), "weighted", split) == [
        [Fraction(1, 2), Fraction(3, 2)],
        [1, 1],
    ]


def test_nearest_sends_everything_to_one_copy() -> None:
    """Copies of expert 1 on GPUs 0 and 2; GPU 1 is near 0, GPU 3 near 2."""
    found = pairs([[1], [0], [1], [0]], [0, 8], layout([0, 0, 1, 1]))
    assert found == [[2, 0, 0, 0], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 2, 0]]


def test_a_dp_rank_shares_its_tokens_over_its_gpus() -> None:
    """One group of two GPUs, one of two: each GPU leaves with a quarter."""
    found = pairs(
        [[0], [1], [2], [3]],
        [4, 0, 0, 0],
        layout([0, 0, 1, 1], groups=((0, 1), (2, 3))),
    )
    assert [row[0] for row in found] == [1, 1, 1, 1]


def test_a_set_serves_its_own_gpus() -> None:
    """Two EP sets: nothing crosses."""
    found = pairs([[0], [1]], [4, 4], layout([0, 0, 1, 1], ep=2))
    assert found == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_what_stays_on_its_gpu_is_no_transfer() -> None:
    """The diagonal of pairs is load, not traffic."""
    exact, _ = expected_pairs(
        np.asarray([[0], [0]]), {}, "even", np.asarray([2]), layout([0, 1])
    )
    transfers = transfers_of_pairs(exact).matrix()
    assert transfers.trace() == 0
    assert transfers[0, 1] == exact[0, 1] != 0


def test_an_uncovered_expert_and_an_unknown_selection_are_refused() -> None:
    """No copy, no service."""
    with pytest.raises(ManifestError, match="no copy"):
        pairs([[0], [0]], [1, 1], layout([0, 1]))
    with pytest.raises(ManifestError, match="nearest, even or weighted"):
        pairs([[0], [0]], [1], layout([0, 1]), "random")


@given(
    st.sampled_from(["nearest", "even", "weighted"]),
    st.lists(st.integers(0, 10**12), min_size=3, max_size=3),
    st.integers(0, 5),
)
def test_no_pair_is_lost(selection, tokens, shift) -> None:
    """Law: served pairs add up to the table, and every home sends its share."""
    slots = np.roll([[0, 1], [1, 2], [2, 0], [0, 1]], shift, axis=0)
    split = {0: {"*": (1, 2, 4), "1": (0, 5, 0)}}
    found = pairs(slots, tokens, layout([0, 0, 1, 1]), selection, split)
    assert sum(map(sum, found)) == sum(tokens)
    assert {sum(row) for row in found} == {Fraction(sum(tokens), 4)}
