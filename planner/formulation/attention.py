"""Which GPUs form the attention groups of a cluster whose GPUs are not all alike.

A group is ``size`` GPUs of one scale-up domain, ``count`` groups are wanted. GPUs of a
domain that nothing tells apart make a *class*, groups that take as many of each class
are of one *kind*, and an integer program chooses how many of each kind there are:

    Σ_k y[k] = count,      Σ_k use[k, c]·y[k] <= GPUs of class c      for every class

What makes one choice better than another is compared in this order (`Kinds`): bytes
missing, the busiest way into the fabric, the slowest exchange in a group, the least
memory left, the share of a domain's GPUs that attend, groups of unlike GPUs, memory
left that the fullest GPU of a group keeps the others from using. Each of the first
five is a largest value, so bisection on it asks only which kinds may be used.
Axes: G GPUs, N domains, C classes, U kinds.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import comb

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.formulation.linear_model import ModelBuilder
from planner.formulation.mathopt import solve_integer

MOST_KINDS = 20_000
"""Of one domain; where there are more, only runs by memory left are kinds."""
SECONDS = 20.0
Group = tuple[int, ...]
Use = tuple[tuple[int, int], ...]
"""Classes and how many GPUs of each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attention:
    """What is wanted, and what tells GPUs apart.

    Attributes
    ----------
    domain_G
        Scale-up domain, numbered from 0.
    free_G
        Bytes left on a GPU that attends; negative if it has too few.
    profile_G
        Number of the GPU's make: unlike GPUs wait for the slowest.
    far_G
        Seconds that a byte takes through the GPU's way into the fabric, out and in.
    near_NMM
        By domain, seconds that a byte takes between two of its GPUs (EP order),
        either way.
    """

    size: int
    count: int
    domain_G: IntArray
    free_G: IntArray
    profile_G: IntArray
    far_G: FloatArray
    near_NMM: tuple[FloatArray, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Kinds:
    """All kinds of groups.

    ``missing_U`` to ``idle_U`` are what they cost; ``members_C`` are GPUs.
    """

    members_C: tuple[Group, ...]
    use_UC: tuple[Use, ...]
    domain_U: IntArray
    missing_U: FloatArray
    far_U: FloatArray
    near_U: FloatArray
    free_U: FloatArray
    mixed_U: FloatArray
    idle_U: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Allowed:
    """Kinds that may be used, and groups that a domain must and may have."""

    kind_U: BoolArray
    least_N: IntArray
    most_N: IntArray


def form_groups(given: Attention) -> tuple[Group, ...] | None:
    """Return the best groups by first GPU; None if so many do not fit."""
    kinds = _kinds(given)
    most_N = np.bincount(given.domain_G) // given.size
    allowed = Allowed(
        kind_U=np.ones(kinds.domain_U.size, dtype=np.bool_),
        least_N=np.zeros_like(most_N),
        most_N=most_N,
    )
    if most_N.sum() < given.count:
        return None
    for stage in (_missing, _far, _near, _free, _spread):
        allowed = _least(given, kinds, allowed, stage(given, kinds, allowed))
    # Unlike groups first; what lies idle adds up to less than one of them.
    idle = kinds.idle_U / (1.0 + kinds.idle_U.max() * given.count)
    number_U = _packed(given, kinds, allowed, kinds.mixed_U + idle)
    return None if number_U is None else _made(kinds, number_U)


Stage = tuple[FloatArray, Callable[[float], Allowed]]
"""Values that the largest may have, and what is allowed under one of them."""


def _missing(given: Attention, kinds: Kinds, allowed: Allowed) -> Stage:
    return _among(kinds.missing_U, allowed)


def _near(given: Attention, kinds: Kinds, allowed: Allowed) -> Stage:
    return _among(kinds.near_U, allowed)


def _free(given: Attention, kinds: Kinds, allowed: Allowed) -> Stage:
    return _among(-kinds.free_U, allowed)


def _among(cost_U: FloatArray, allowed: Allowed) -> Stage:
    def under(value: float) -> Allowed:
        return replace(allowed, kind_U=allowed.kind_U & (cost_U <= value))

    return np.unique(cost_U[allowed.kind_U]), under


def _far(given: Attention, kinds: Kinds, allowed: Allowed) -> Stage:
    """A GPU that attends sends out what its domain has not; others are sent the rest.

    Of T tokens a group's GPU has T/(count·size), of which 1 − |domain|/G leave; every
    GPU is sent T/G, of which the groups of its domain send n/count.
    """
    size_N = np.bincount(given.domain_G)
    gpus = given.domain_G.size
    out_U = kinds.far_U * (1 - size_N / gpus)[kinds.domain_U]
    out_U = out_U / (given.count * given.size)
    into_N = np.zeros(size_N.size)
    np.maximum.at(into_N, given.domain_G, given.far_G / gpus)
    share_K = 1 - np.arange(allowed.most_N.max() + 1) / given.count
    into_NK = into_N[:, None] * share_K if size_N.size > 1 else np.zeros((1, 1))
    values = np.unique(np.concatenate([out_U[allowed.kind_U], into_NK.ravel()]))

    def under(value: float) -> Allowed:
        return Allowed(
            kind_U=allowed.kind_U & (out_U <= value),
            least_N=np.maximum(allowed.least_N, (into_NK > value).sum(axis=1)),
            most_N=allowed.most_N,
        )

    return values, under


def _spread(given: Attention, kinds: Kinds, allowed: Allowed) -> Stage:
    size_N = np.bincount(given.domain_G)
    count_K = np.arange(allowed.most_N.max() + 1)
    share_NK = count_K * given.size / size_N[:, None]

    def under(value: float) -> Allowed:
        most_N = (share_NK <= value).sum(axis=1) - 1
        return replace(allowed, most_N=np.minimum(allowed.most_N, most_N))

    return np.unique(share_NK[share_NK <= 1]), under


def _least(given: Attention, kinds: Kinds, allowed: Allowed, stage: Stage) -> Allowed:
    """Return what is allowed under the least value that leaves a choice."""
    values, under = stage
    low, high = 0, values.size - 1
    while low < high:
        middle = (low + high) // 2
        if _packed(given, kinds, under(values[middle]), None) is None:
            low = middle + 1
        else:
            high = middle
    return under(values[low])


def _packed(
    given: Attention, kinds: Kinds, allowed: Allowed, cost_U: FloatArray | None
) -> IntArray | None:
    """Return how many groups of each kind there are, None if they do not fit."""
    chosen = np.flatnonzero(allowed.kind_U)
    if not chosen.size or (allowed.least_N > allowed.most_N).any():
        return None
    builder = ModelBuilder()
    cost = 0.0 if cost_U is None else cost_U[chosen]
    y_U = builder.variables(
        "groups", chosen.shape, upper=given.count, cost=cost, integer=True
    )
    builder.add(builder.rows("count", (1,), lower=given.count, upper=given.count), y_U)
    row_N = builder.rows(
        "domain",
        allowed.most_N.shape,
        lower=allowed.least_N,
        upper=allowed.most_N,
    )
    builder.add(row_N[kinds.domain_U[chosen]], y_U)
    have_C = [len(members) for members in kinds.members_C]
    row_C = builder.rows("class", (len(have_C),), upper=have_C)
    uses = [
        (class_, column, used)
        for column, kind in enumerate(chosen.tolist())
        for class_, used in kinds.use_UC[kind]
    ]
    class_X, column_X, used_X = np.asarray(uses, dtype=np.int64).T
    builder.add(row_C[class_X], y_U[column_X], used_X)
    outcome = solve_integer(builder.build(), SECONDS)
    if not outcome.solutions:
        return None
    number_U = np.zeros(kinds.domain_U.size, dtype=np.int64)
    number_U[chosen] = np.rint(outcome.solutions[0][y_U]).astype(np.int64)
    return number_U


def _made(kinds: Kinds, number_U: IntArray) -> tuple[Group, ...]:
    """Give every group its GPUs, those of a class in EP order."""
    left_C = [list(members) for members in kinds.members_C]
    groups = []
    for kind in np.flatnonzero(number_U).tolist():
        for _ in range(int(number_U[kind])):
            taken = []
            for class_, used in kinds.use_UC[kind]:
                taken += left_C[class_][:used]
                del left_C[class_][:used]
            groups.append(tuple(sorted(taken)))
    return tuple(sorted(groups))


def _kinds(given: Attention) -> Kinds:
    members_C: list[Group] = []
    use_UC: list[Use] = []
    rows: list[tuple[float, ...]] = []
    for domain, near_MM in enumerate(given.near_NMM):
        inside = np.flatnonzero(given.domain_G == domain).tolist()
        classes = _classes(given, inside, near_MM)
        kinds: Iterable[Use] = _multisets([len(each) for each in classes], given.size)
        if not _few(classes, given.size):
            classes = _runs(given, inside)
            kinds = (((at, given.size),) for at in range(len(classes)))
        for kind in kinds:
            gpus = [gpu for at, used in kind for gpu in classes[at][:used]]
            use_UC.append(tuple((len(members_C) + at, used) for at, used in kind))
            places = [inside.index(gpu) for gpu in gpus]
            near = float(near_MM[np.ix_(places, places)].max())
            rows.append((float(domain), near, *_costs(given, gpus)))
        members_C += classes
    domain_U, near_U, *costs = np.asarray(rows).reshape(len(rows), 7).T
    missing_U, far_U, free_U, mixed_U, idle_U = costs
    return Kinds(
        members_C=tuple(members_C),
        use_UC=tuple(use_UC),
        domain_U=domain_U.astype(np.int64),
        missing_U=missing_U,
        far_U=far_U,
        near_U=near_U,
        free_U=free_U,
        mixed_U=mixed_U,
        idle_U=idle_U,
    )


def _costs(given: Attention, gpus: Sequence[int]) -> tuple[float, ...]:
    free = given.free_G[gpus]
    return (
        float(max(0, -free.min())),
        float(given.far_G[gpus].max()),
        float(free.min()),
        float(np.unique(given.profile_G[gpus]).size > 1),
        float((free - free.min()).sum()),
    )


def _classes(
    given: Attention, inside: Sequence[int], near_MM: FloatArray
) -> list[Group]:
    """GPUs of a domain that may stand for each other; else every one is a class."""
    found: dict[tuple[object, ...], list[int]] = {}
    for place, gpu in enumerate(inside):
        row = tuple(np.sort(np.delete(near_MM[place], place)).tolist())
        what = given.free_G[gpu], given.profile_G[gpu], given.far_G[gpu], row
        found.setdefault(what, []).append(place)
    same = all(
        len({near_MM[a, b] for a in one for b in other if a != b}) <= 1
        for one in found.values()
        for other in found.values()
    )
    if not same:
        return [(gpu,) for gpu in inside]
    return [tuple(inside[place] for place in places) for places in found.values()]


def _few(classes: Sequence[Group], size: int) -> bool:
    """Whether the kinds of a domain are few enough to write out."""
    alone = all(len(members) == 1 for members in classes)
    count = len(classes)
    kinds = comb(count, size) if alone else comb(count + size - 1, size)
    return kinds <= MOST_KINDS


def _runs(given: Attention, inside: Sequence[int]) -> list[Group]:
    """Groups of GPUs with about as much memory left, those with most first."""
    order = sorted(inside, key=lambda gpu: -int(given.free_G[gpu]))
    size = given.size
    whole = len(order) // size * size
    return [tuple(order[at : at + size]) for at in range(0, whole, size)]


def _multisets(have: Sequence[int], size: int, first: int = 0) -> Iterator[Use]:
    """Return every way to take ``size`` things of classes that have so many each."""
    if size == 0:
        yield ()
        return
    if sum(have[first:]) < size:
        return
    for used in range(min(have[first], size), -1, -1):
        rest = _multisets(have, size - used, first + 1)
        yield from (((first, used), *each) if used else each for each in rest)
