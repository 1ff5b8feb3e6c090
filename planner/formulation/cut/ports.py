"""The rows of an instance: what each link makes of flows, per leg.

Built once per instance and shared by all its layers. A *row* says Σ coefficient ·
flow <= t in the unit of the objective (seconds or tokens). Axes: R rows, H levels,
G GPUs, Y entries of rows that need both ends.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.formulation.cut.entries import (
    Row,
    Rows,
    common_ratio,
    leg_rows,
    route_lengths,
)
from planner.formulation.cut.hierarchy import (
    Hierarchy,
    full_hierarchy,
    plain_hierarchy,
)
from planner.formulation.cut.shares import Potentials, potentials
from planner.instance import PlacementInstance


@dataclass(frozen=True, kw_only=True, eq=False)
class LegRows:
    """Rows under one t.

    Attributes
    ----------
    out_RHG, in_RHG
        Coefficients of what leaves, or enters, GPU g in pairs of level k.
    row_Y, pair_Y, value_Y
        Rows (0, 1, … of their own) of links that need both ends: coefficient of
        the transfers of pair s·G + d.
    weight
        Weight of this t in the objective.
    names
        By leg that this t stands for (``dispatch``, ``combine``): the link of every
        row, those of ``out_RHG`` before those of ``row_Y``; empty where rows are
        not of single links.
    """

    out_RHG: FloatArray
    in_RHG: FloatArray
    row_Y: IntArray
    pair_Y: IntArray
    value_Y: FloatArray
    weight: float
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ports:
    """All rows of an instance.

    Attributes
    ----------
    legs
        One entry if both legs have the same rows up to a factor, else two; none
        for ``gpu_tokens``.
    relaxed
        Links that may bind and whose load the model can under-estimate: it depends
        on who sends to whom, which the model knows only summed over experts.
    """

    hierarchy: Hierarchy
    legs: tuple[LegRows, ...]
    relaxed: tuple[str, ...] = ()


_NO_PAIRS = np.zeros(0, dtype=np.int64)
_NO_VALUES = np.zeros(0)


def ports_of(instance: PlacementInstance) -> Ports:
    """Return the rows of the instance's objective.

    The hierarchy is the plain one (GPUs, domains, EP sets). Where that leaves a
    link that needs both ends, finer groupings are tried and the useful ones kept.
    """
    plain = plain_hierarchy(instance.layout)
    if instance.objective.name == "gpu_tokens":
        return Ports(hierarchy=plain, legs=())
    timed = timed_legs(instance)
    hierarchy = _chosen_hierarchy(instance, plain, [each.rows for each in timed])
    encoded = [_encoded(each, hierarchy) for each in timed]
    return Ports(
        hierarchy=hierarchy,
        legs=tuple(leg for leg, _ in encoded),
        relaxed=tuple(dict.fromkeys(name for _, names in encoded for name in names)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Legs under one t; the rows of the first are those of all, up to a factor."""

    legs: Mapping[str, Rows]
    weight: Fraction

    @property
    def rows(self) -> Rows:
        """The rows that are encoded."""
        return next(iter(self.legs.values()))


def timed_legs(instance: PlacementInstance) -> list[Timed]:
    """Return the rows of both legs: under one t where one leg decides both."""
    dispatch = leg_rows(instance, combine=False)
    combine = leg_rows(instance, combine=True)
    ratio = common_ratio(dispatch, combine)
    if ratio is not None:
        # t_combine = ratio · t_dispatch for every flow: one t is enough.
        both = {"dispatch": dispatch, "combine": combine}
        return [Timed(legs=both, weight=1 + ratio)]
    return [
        Timed(legs={"dispatch": dispatch}, weight=Fraction(1)),
        Timed(legs={"combine": combine}, weight=Fraction(1)),
    ]


def _chosen_hierarchy(
    instance: PlacementInstance, plain: Hierarchy, legs: list[Rows]
) -> Hierarchy:
    rows = [row for leg in legs for row in leg.values()]
    split = _split_count(rows, plain)
    if split == len(rows):
        return plain
    chosen = full_hierarchy(instance.layout, route_lengths(instance))
    best = _split_count(rows, chosen)
    if best == split:
        return plain
    for level in range(chosen.levels - 1, plain.levels - 1, -1):
        simpler = chosen.without(level)
        if _split_count(rows, simpler) == best:
            chosen = simpler
    return chosen


def _split_count(rows: Iterable[Row], hierarchy: Hierarchy) -> int:
    gpus = hierarchy.gpu_count
    return sum(potentials(row.dense(gpus), hierarchy) is not None for row in rows)


def _encoded(timed: Timed, hierarchy: Hierarchy) -> tuple[LegRows, list[str]]:
    """Return the rows as floats, and the links that need both ends and may bind."""
    gpus = hierarchy.gpu_count
    split: list[tuple[Row, Potentials]] = []
    joint: list[Row] = []
    key_of: dict[str, bytes] = {}
    for key, row in timed.rows.items():
        key_of[row.link] = key
        found = potentials(row.dense(gpus), hierarchy)
        if found is None:
            joint.append(row)
        else:
            split.append((row, found))
    shape = (len(split), hierarchy.levels, gpus)
    out_RHG, in_RHG = np.zeros(shape), np.zeros(shape)
    for at, (row, found) in enumerate(split):
        out_RHG[at] = float(row.factor) * found.out_HG.astype(np.float64)
        in_RHG[at] = float(row.factor) * found.in_HG.astype(np.float64)
    binding = [row for row in joint if _may_bind(row, hierarchy, out_RHG, in_RHG)]
    kept = [key_of[row.link] for row in [row for row, _ in split] + binding]
    leg = LegRows(
        out_RHG=out_RHG,
        in_RHG=in_RHG,
        row_Y=np.repeat(
            np.arange(len(binding)),
            np.asarray([row.pair_X.size for row in binding], dtype=np.int64),
        ),
        pair_Y=np.concatenate([_NO_PAIRS, *(row.pair_X for row in binding)]),
        value_Y=np.concatenate(
            [
                _NO_VALUES,
                *(float(row.factor) * row.value_X.astype(float) for row in binding),
            ]
        ),
        weight=float(timed.weight),
        names={
            name: tuple(rows[key].link for key in kept)
            for name, rows in timed.legs.items()
        },
    )
    return leg, [row.link for row in binding]


def _may_bind(
    row: Row, hierarchy: Hierarchy, out_RHG: FloatArray, in_RHG: FloatArray
) -> bool:
    """Whether a link can exceed t although the split rows keep it.

    What leaves g at level k is at most t over the largest coefficient that a row
    of non-negative coefficients gives it; the same for what enters.
    """
    plus = np.logical_and(
        (out_RHG >= 0).all(axis=(1, 2), keepdims=True),
        (in_RHG >= 0).all(axis=(1, 2), keepdims=True),
    )
    share_GG = row.dense(hierarchy.gpu_count).astype(np.float64) * float(row.factor)
    for side, axis in ((out_RHG, 1), (in_RHG, 0)):
        strongest_HG = np.where(plus, side, 0.0).max(axis=0, initial=0.0)
        total = 0.0
        for level in range(1, hierarchy.levels + 1):
            at_level = np.where(hierarchy.level_GG == level, share_GG, 0.0)
            most_G = at_level.max(axis=axis)
            used = most_G > 0
            with np.errstate(divide="ignore"):
                total += float(np.sum(most_G[used] / strongest_HG[level - 1][used]))
        if total <= 1 + 1e-12:
            return False
    return True
