"""Attention groups on GPUs that are not all alike."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.formulation.attention import Attention, Group, form_groups


def attention(
    domain_G: list[int],
    free_G: list[int],
    *,
    size: int,
    count: int,
    profile_G: list[int] | None = None,
    far_G: list[float] | None = None,
    near: dict[tuple[int, int], float] | None = None,
) -> Attention:
    """Return what is wanted; GPUs are alike in all that is not given."""
    gpus = len(domain_G)
    near_GG = np.ones((gpus, gpus)) - np.eye(gpus)
    for (one, other), seconds in (near or {}).items():
        near_GG[one, other] = near_GG[other, one] = seconds
    members = [np.flatnonzero(np.equal(domain_G, n)) for n in sorted(set(domain_G))]
    return Attention(
        size=size,
        count=count,
        domain_G=np.asarray(domain_G),
        free_G=np.asarray(free_G),
        profile_G=np.asarray(profile_G or [0] * gpus),
        far_G=np.asarray(far_G or [0.0] * gpus, dtype=np.float64),
        near_NMM=tuple(near_GG[np.ix_(each, each)] for each in members),
    )


def test_groups_take_the_gpus_that_have_the_memory() -> None:
    """Every other GPU lacks 5 bytes: runs of two would all lack them."""
    given = attention([0] * 8, [10, -5] * 4, size=2, count=2)
    assert form_groups(given) == ((0, 2), (4, 6))


def test_where_memory_is_missing_it_is_the_least_that_can_be() -> None:
    """Three GPUs have enough, four are needed: one that lacks 2, not 7."""
    given = attention([0] * 5, [1, -7, 1, -2, 1], size=2, count=2)
    groups = form_groups(given)
    assert groups is not None
    assert sorted(gpu for group in groups for gpu in group) == [0, 2, 3, 4]


def test_every_gpu_of_a_group_reaches_the_others_fast() -> None:
    """Only 0–2 and 1–3 are joined by wide links."""
    near = dict.fromkeys(combinations(range(4), 2), 4.0) | {(0, 2): 1.0, (1, 3): 1.0}
    given = attention([0] * 4, [1] * 4, size=2, count=2, near=near)
    assert form_groups(given) == ((0, 2), (1, 3))


def test_groups_are_of_gpus_of_one_make() -> None:
    """Two makes in turn: no group waits for the slower one."""
    given = attention([0] * 4, [1] * 4, size=2, count=2, profile_G=[0, 1, 0, 1])
    assert form_groups(given) == ((0, 2), (1, 3))


def test_groups_use_the_fast_ways_into_the_fabric() -> None:
    """One GPU of each domain has a way that takes ten times as long."""
    far_G = [10.0, 1.0, 1.0, 1.0, 1.0, 10.0]
    given = attention([0] * 3 + [1] * 3, [1] * 6, size=2, count=2, far_G=far_G)
    assert form_groups(given) == ((1, 2), (3, 4))


def test_equal_gpus_attend_in_all_domains() -> None:
    """Two groups, two domains: experts of neither domain get all from afar."""
    given = attention([0] * 4 + [1] * 4, [1] * 8, size=2, count=2, far_G=[1.0] * 8)
    assert form_groups(given) == ((0, 1), (4, 5))


def test_unequal_memory_is_not_left_idle() -> None:
    """Memory left is 1, 3, 1, 3: alike beside alike leaves none unused."""
    given = attention([0] * 4, [1, 3, 1, 3], size=2, count=2)
    assert form_groups(given) == ((0, 2), (1, 3))


def test_more_groups_than_fit_are_refused() -> None:
    """Two domains of three GPUs hold two groups of two."""
    assert form_groups(attention([0] * 3 + [1] * 3, [1] * 6, size=2, count=3)) is None


def test_a_large_domain_of_unlike_gpus_is_cut_by_memory() -> None:
    """Too many kinds to write out: groups of GPUs with about as much left."""
    free = [(7 * gpu) % 72 for gpu in range(72)]
    groups = form_groups(attention([0] * 72, free, size=8, count=9))
    assert groups is not None
    spans = [
        max(free[g] for g in group) - min(free[g] for g in group) for group in groups
    ]
    assert spans == [7] * 9


def every_choice(wanted: Attention) -> Iterator[tuple[Group, ...]]:
    """Return all sets of disjoint groups, each inside a domain."""
    domain_of = wanted.domain_G.tolist()
    possible = [
        group
        for group in combinations(range(len(domain_of)), wanted.size)
        if len({domain_of[gpu] for gpu in group}) == 1
    ]
    for groups in combinations(possible, wanted.count):
        if len({gpu for group in groups for gpu in group}) == sum(map(len, groups)):
            yield groups


def worth(wanted: Attention, groups: tuple[Group, ...]) -> tuple[float, ...]:
    """Return what is compared, in its order, by the words of its definition."""
    domain_of, free = wanted.domain_G.tolist(), wanted.free_G.tolist()
    gpus, count, size = len(domain_of), wanted.count, wanted.size
    far = wanted.far_G.tolist()
    ranks = range(max(domain_of) + 1)
    inside = {n: [g for g in range(gpus) if domain_of[g] == n] for n in ranks}
    home = {n: sum(domain_of[group[0]] == n for group in groups) for n in ranks}
    attending = [gpu for group in groups for gpu in group]
    out = [
        far[gpu] * (1 - len(inside[domain_of[gpu]]) / gpus) / (count * size)
        for gpu in attending
    ]
    into = [
        max(far[gpu] for gpu in inside[n]) / gpus * (1 - home[n] / count)
        for n in (ranks if len(ranks) > 1 else ())
    ]
    near = [
        wanted.near_NMM[domain_of[a]][
            inside[domain_of[a]].index(a), inside[domain_of[a]].index(b)
        ]
        for group in groups
        for a, b in combinations(group, 2)
    ]
    lacking = [max(0, -free[gpu]) for gpu in attending]
    idle = sum(
        free[gpu] - min(free[each] for each in group)
        for group in groups
        for gpu in group
    )
    mixed = sum(len({int(wanted.profile_G[g]) for g in group}) > 1 for group in groups)
    return (
        max(lacking),
        max([*out, *into]),
        max(near, default=0.0),
        -min(free[gpu] for gpu in attending),
        max(home[n] * size / len(inside[n]) for n in ranks),
        mixed,
        idle,
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_choice_of_groups_is_better(data: st.DataObject) -> None:
    """Brute force over all choices on a few unlike GPUs, compared in order."""
    sizes = data.draw(st.sampled_from([(4,), (6,), (3, 3), (2, 4), (2, 2, 2)]))
    size = data.draw(st.integers(1, 2 if len(sizes) > 1 else 3))
    domain_G = [n for n, members in enumerate(sizes) for _ in range(members)]
    gpus = len(domain_G)
    few = st.lists(st.integers(-1, 2), min_size=gpus, max_size=gpus)
    pairs = {
        pair: float(data.draw(st.integers(1, 2)))
        for pair in combinations(range(gpus), 2)
    }
    wanted = attention(
        domain_G,
        data.draw(few),
        size=size,
        count=data.draw(st.integers(1, sum(each // size for each in sizes))),
        profile_G=data.draw(few),
        far_G=[float(each + 2) for each in data.draw(few)],
        near=pairs if data.draw(st.booleans()) else None,
    )
    groups = form_groups(wanted)
    assert groups is not None
    found = worth(wanted, groups)
    best = min(worth(wanted, each) for each in every_choice(wanted))
    assert found == pytest.approx(best, abs=1e-12)
