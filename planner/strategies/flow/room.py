"""A bound of chained traffic: every set that can share a node's domain is looked at.

What the anchor's domain costs is least for some set of its own kind and some set of
partners that fit; where such sets are few enough they are all tried, so nothing is
lost to fractions (``seat.py`` bounds the same by closed forms), and both legs of a
layer are seen with one set of its experts.
"""

from functools import cache
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.strategies.flow.seat import Room

MOST_SETS = 50_000
"""Sets of one kind that are looked at; with more there is no such bound."""
MIXES = 4


class Table(NamedTuple):
    """One leg seen from the experts U of a layer; ``weight`` is bytes per message.

    ``entering_U`` and ``leaving_U`` count transfers, ``inside_UU`` those from one to
    another; ``partners_VU`` those from the other side, if it is neither homes nor the
    layer itself. What partners send elsewhere leaves with them.
    """

    weight: int
    entering_U: IntArray
    leaving_U: IntArray
    inside_UU: IntArray
    partners_VU: IntArray | None = None


class Kept(NamedTuple):
    """An anchor and what its domain costs at least, in weighted transfers."""

    anchor: int
    value: int


def applies(size: int, partners: int, room: Room) -> bool:
    """Whether all sets can be looked at."""
    return all(
        sum(comb(count, most) for most in range(min(room.kind, count) + 1)) <= MOST_SETS
        for count in (size, partners)
    )


def kept(tables: list[Table], room: Room) -> Kept:
    """Return the anchor whose domain costs most at least; one table has partners."""
    sets_BU = _sets(tables[0].entering_U.size, room.kind)[1:]
    alone_B = np.zeros(len(sets_BU))
    paired = None
    for table in tables:
        if table.partners_VU is None:
            alone_B += table.weight * _within(table, sets_BU)
        else:
            paired = _Paired(table, sets_BU, room)
    floor_B = alone_B if paired is None else alone_B + paired.floor_B
    # The sets come by size: the first ones are single.
    single = range(tables[0].entering_U.size)
    value_U = [_exact(at, alone_B, paired) for at in single]
    best = Kept(0, -1)
    for anchor in np.argsort(-np.asarray(value_U), kind="stable").tolist():
        least = value_U[anchor]
        if least <= best.value:
            break
        around = np.flatnonzero(sets_BU[:, anchor] > 0)
        around = around[np.argsort(floor_B[around], kind="stable")]
        for at in around.tolist():
            if floor_B[at] >= least:
                break
            least = min(least, _exact(at, alone_B, paired))
        if least > best.value:
            best = Kept(anchor, round(least))
    return best


def _exact(at: int, alone_B: FloatArray, paired: "_Paired | None") -> float:
    return float(alone_B[at]) + (0.0 if paired is None else paired.exact(at))


def _within(table: Table, sets_BU: FloatArray) -> FloatArray:
    """Return what enters or leaves a domain of each set, whichever is more."""
    inside_B = ((sets_BU @ table.inside_UU) * sets_BU).sum(axis=1)
    busier_B: FloatArray = np.maximum(
        sets_BU @ table.entering_U - inside_B, sets_BU @ table.leaving_U - inside_B
    )
    return busier_B


class _Paired:
    """What a leg costs with each set of experts, its best partners beside it."""

    def __init__(self, table: Table, sets_BU: FloatArray, room: Room) -> None:
        assert table.partners_VU is not None
        sent_VU = table.partners_VU
        self._weight = float(table.weight)
        self._entering_B = sets_BU @ table.entering_U
        self._leaving_V = sent_VU.sum(axis=1).astype(np.float64)
        self._saved_BV = sets_BU @ sent_VU.T
        self._size_B = sets_BU.sum(axis=1).astype(np.int64)
        self._partners_AV = _sets(len(sent_VU), room.kind)
        self._leaving_A = self._partners_AV @ self._leaving_V
        size_A = self._partners_AV.sum(axis=1)
        fit = [min(room.kind, room.both - size) for size in range(room.kind + 1)]
        self._fit_K = np.asarray([min(most, len(sent_VU)) for most in fit])
        self._ends_K = np.searchsorted(size_A, self._fit_K, side="right")
        self.floor_B = self._floors()

    def _floors(self) -> FloatArray:
        """Return lower bounds: the best mix of what enters and what leaves."""
        floor_B = np.zeros(self._entering_B.size)
        for mix in np.linspace(0.0, 1.0, MIXES + 1):
            gain_BV = np.minimum(0, (1 - mix) * self._leaving_V - self._saved_BV)
            total_BV = np.cumsum(np.sort(gain_BV, axis=1), axis=1)
            fit_B = self._fit_K[self._size_B]
            last_B = total_BV[np.arange(fit_B.size), np.maximum(0, fit_B - 1)]
            least_B = mix * self._entering_B + np.where(fit_B > 0, last_B, 0.0)
            floor_B = np.maximum(floor_B, least_B)
        return self._weight * floor_B

    def exact(self, at: int) -> float:
        """Return the least of all sets of partners that fit."""
        end = self._ends_K[self._size_B[at]]
        saved_A = self._partners_AV[:end] @ self._saved_BV[at]
        busier_A = np.maximum(self._entering_B[at], self._leaving_A[:end]) - saved_A
        return self._weight * float(busier_A.min())


@cache
def _sets(count: int, most: int) -> FloatArray:
    """Return all sets of at most ``most`` of ``count``, by size, as rows of 0 and 1."""
    rows = [
        chosen
        for size in range(min(most, count) + 1)
        for chosen in combinations(range(count), size)
    ]
    sets_BU = np.zeros((len(rows), count))
    for at, chosen in enumerate(rows):
        sets_BU[at, list(chosen)] = 1.0
    return sets_BU
