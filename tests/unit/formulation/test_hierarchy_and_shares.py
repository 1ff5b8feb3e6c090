"""Nested blocks of GPUs, and link shares that split over them."""

import numpy as np
import pytest

from planner.formulation.cut.hierarchy import (
    Hierarchy,
    full_hierarchy,
    plain_hierarchy,
)
from planner.formulation.cut.shares import potentials
from planner.layout import ParallelLayout


def layout(domains: list[int], ep: int | None = None) -> ParallelLayout:
    gpus = len(domains)
    return ParallelLayout(
        domain_G=np.asarray(domains),
        ep=ep or gpus,
        attention_groups=tuple((gpu,) for gpu in range(gpus)),
    )


def test_the_plain_levels_are_gpus_domains_and_sets() -> None:
    """Law: a pair belongs to the smallest level at which it shares a block."""
    hierarchy = plain_hierarchy(layout([0, 0, 1, 1]))
    assert hierarchy.block_KG.tolist() == [[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert hierarchy.level_GG.tolist() == [
        [0, 1, 2, 2],
        [1, 0, 2, 2],
        [2, 2, 0, 1],
        [2, 2, 1, 0],
    ]


@pytest.mark.parametrize(
    ("domains", "levels"), [([0, 0, 0, 0], 1), ([0, 1, 2, 3], 1), ([0], 1)]
)
def test_levels_that_say_nothing_are_dropped(domains: list[int], levels: int) -> None:
    """Law: one domain, or GPUs alone, leave one level; there is always one."""
    assert plain_hierarchy(layout(domains)).levels == levels


def test_sets_do_not_talk_to_each_other() -> None:
    """Law: a pair in different EP sets has no level, even inside one domain."""
    hierarchy = plain_hierarchy(layout([0, 0, 0, 0], ep=2))
    assert hierarchy.level_GG[0].tolist() == [0, 1, -1, -1]


def test_distances_suggest_blocks_between_domains_and_sets() -> None:
    """Law: domains at distance 4 form pods where others are at distance 6."""
    gpus = layout([0, 0, 1, 1, 2, 2, 3, 3])
    pod = np.repeat([0, 1], 4)
    distance = np.where(pod[:, None] == pod[None, :], 4, 6)
    hierarchy = full_hierarchy(gpus, distance)
    assert hierarchy.block_KG.tolist() == [
        list(range(8)),
        [0, 0, 1, 1, 2, 2, 3, 3],
        [0, 0, 0, 0, 1, 1, 1, 1],
        [0] * 8,
    ]
    assert hierarchy.without(2).levels == 2
    assert hierarchy.level_of(gpus.domain_G) == 1
    assert hierarchy.level_of(np.arange(8) % 2) is None


@pytest.mark.parametrize(
    "domains", [[0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 2, 2, 2], [0, 0, 0, 1, 1, 2]]
)
def test_shares_made_of_potentials_split_again(domains: list[int]) -> None:
    """Law: share = α(s) + γ(d) at each level is found, whatever α and γ are."""
    hierarchy = plain_hierarchy(layout(domains))
    rng = np.random.default_rng(len(domains))
    gpus, levels = len(domains), hierarchy.levels
    out_HG, in_HG = rng.integers(0, 9, size=(2, levels, gpus))
    level_GG = hierarchy.level_GG
    share = np.where(
        level_GG > 0,
        np.take_along_axis(out_HG.T[:, None, :], level_GG[:, :, None] - 1, 2)[..., 0]
        + np.take_along_axis(in_HG.T[None, :, :], level_GG[:, :, None] - 1, 2)[..., 0],
        0,
    )
    found = potentials(share, hierarchy)
    assert found is not None
    source, target = np.nonzero(level_GG > 0)
    at = level_GG[source, target] - 1
    rebuilt = found.out_HG[at, source] + found.in_HG[at, target]
    assert (rebuilt == share[source, target]).all()


def test_a_port_splits_into_its_own_gpu_only() -> None:
    """Law: the NIC into GPU 4 has γ = 1 there at level 2 and no α."""
    hierarchy = plain_hierarchy(layout([0, 0, 1, 1, 2, 2]))
    share = np.zeros((6, 6), dtype=np.int64)
    share[:4, 4] = 1
    found = potentials(share, hierarchy)
    assert found is not None
    assert not found.out_HG.any()
    assert np.argwhere(found.in_HG).tolist() == [[1, 4]]


def test_a_link_that_needs_both_ends_does_not_split() -> None:
    """Law: what only same-rail pairs use depends on both ends."""
    hierarchy = plain_hierarchy(layout([0, 0, 1, 1, 2, 2]))
    rail = np.arange(6) % 2
    share = np.where(hierarchy.level_GG == 2, rail[:, None] == rail[None, :], 0)
    assert potentials(share.astype(np.int64), hierarchy) is None


def test_big_integers_stay_exact() -> None:
    """Law: numerators beyond 64 bits split like small ones."""
    hierarchy = Hierarchy(block_KG=np.asarray([[0, 1, 2], [0, 0, 0]]))
    share = np.full((3, 3), 2**70 + 1, dtype=object)
    found = potentials(share, hierarchy)
    assert found is not None
    assert found.in_HG.tolist() == [[2**70 + 1] * 3]
