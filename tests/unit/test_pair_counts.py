"""Sparse counts behave as the arrays they stand for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planner.pair_counts import PairCounts

matrices = st.integers(1, 6).flatmap(
    lambda gpus: arrays(np.int64, (gpus, gpus), elements=st.integers(0, 3))
)


@given(matrices, st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_sparse_counts_are_the_matrix(matrix: np.ndarray, groups: list[int]) -> None:
    """Law: there and back, mirrored, summed, and summed across groups."""
    counts = PairCounts.of_matrix(matrix)
    group_G = np.asarray(groups[: len(matrix)])
    apart = group_G[:, None] != group_G[None, :]
    assert (counts.matrix() == matrix).all()
    assert (counts.transposed().matrix() == matrix.T).all()
    assert counts.total == matrix.sum()
    assert counts.between(group_G) == matrix[apart].sum()


@given(matrices)
def test_keys_and_parts_add_up(matrix: np.ndarray) -> None:
    """Law: counting keys one by one, or summing pieces, gives the matrix."""
    source, target = np.nonzero(matrix)
    count = matrix[source, target]
    keys = np.repeat(source * len(matrix) + target, count)
    assert (PairCounts.of_keys(len(matrix), keys).matrix() == matrix).all()
    twice = PairCounts.summed(
        len(matrix),
        np.concatenate([source, source]),
        np.concatenate([target, target]),
        np.concatenate([count, count]),
    )
    assert (twice.matrix() == 2 * matrix).all()


def test_many_gpus_count_as_few_do() -> None:
    """Law: above 2,048 GPUs keys are sorted instead of put in an array."""
    few = PairCounts.of_keys(10, [93, 7, 93])
    many = PairCounts.of_keys(3000, [9 * 3000 + 3, 7, 9 * 3000 + 3])
    for found in (few, many):
        assert found.source_n.tolist() == [0, 9]
        assert found.target_n.tolist() == [7, 3]
        assert found.count_n.tolist() == [1, 2]
