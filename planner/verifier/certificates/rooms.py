"""What the domain of one node costs at least, all sets that fit tried (``walks``).

The anchor sits in some domain with some others of its layer and some partners of the
layer before (or after). A leg takes at least what enters that domain, and what leaves
it; the least over all sets holds wherever the anchor is. Sets whose floor, a mix of
what enters and leaves, is above the least found are skipped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np

from planner.arrays import IntArray

LIMIT = 50_000
_QUARTERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """A leg and what a message of it weighs.

    ``table_VU`` are transfers from partners to the anchor's kind (or back); without
    them ``enters_U``, ``leaves_U`` and, from one to another, ``inside_UU`` are given.
    """

    message: int
    enters_U: IntArray
    leaves_U: IntArray
    inside_UU: IntArray
    table_VU: IntArray | None = None


def room(anchor: int, legs: Sequence[Leg], kind: int, both: int) -> int:
    """Return the least weighted transfers of the legs in the anchor's domain.

    At most ``kind`` nodes of a kind and ``both`` of the two kinds fit.
    """
    count = legs[0].enters_U.size
    if not 0 <= anchor < count:
        raise ValueError("anchor must be a node of the leg")
    least: int | None = None
    for size in range(1, min(kind, count) + 1):
        sets_BU = _sets(count, kind)[size]
        sets_BU = sets_BU[sets_BU[:, anchor] == 1]
        fit = min(kind, both - size)
        sure_B = np.zeros(len(sets_BU), dtype=np.int64)
        tables: list[tuple[Leg, IntArray]] = []
        for leg in legs:
            if leg.table_VU is None:
                sure_B += leg.message * _busier(leg, sets_BU)
            else:
                tables.append((leg, _floor(leg, leg.table_VU, sets_BU, fit)))
        floor_B = sure_B + sum((floor for _, floor in tables), np.zeros_like(sure_B))
        for at in np.argsort(floor_B, kind="stable").tolist():
            if least is not None and floor_B[at] >= least:
                break
            found = int(sure_B[at]) + sum(
                _tried(leg, sets_BU[at], kind, fit) for leg, _ in tables
            )
            least = found if least is None else min(least, found)
    return least or 0


def _busier(leg: Leg, sets_BU: IntArray) -> IntArray:
    within_B = ((sets_BU @ leg.inside_UU) * sets_BU).sum(axis=1)
    more_B = np.maximum(sets_BU @ leg.enters_U, sets_BU @ leg.leaves_U)
    busier_B: IntArray = more_B - within_B
    return busier_B


def _floor(leg: Leg, table_VU: IntArray, sets_BU: IntArray, fit: int) -> IntArray:
    """Return what no partners can undercut, rounded down."""
    sent_BV, leaves_V = sets_BU @ table_VU.T, table_VU.sum(axis=1)
    enters_B = sets_BU @ table_VU.sum(axis=0)
    floor_B = np.zeros(len(sets_BU), dtype=np.int64)
    for mix in range(_QUARTERS + 1):
        worth_BV = (_QUARTERS - mix) * leaves_V[None] - _QUARTERS * sent_BV
        worth_BV = np.sort(np.minimum(worth_BV, 0), axis=1)[:, : max(0, fit)]
        floor_B = np.maximum(floor_B, mix * enters_B + worth_BV.sum(axis=1))
    weighted_B: IntArray = leg.message * floor_B // _QUARTERS
    return weighted_B


def _tried(leg: Leg, chosen_U: IntArray, kind: int, fit: int) -> int:
    """Return the least over all sets of partners that fit."""
    table_VU = leg.table_VU
    assert table_VU is not None
    sent_V, leaves_V = table_VU @ chosen_U, table_VU.sum(axis=1)
    enters, best = int(sent_V.sum()), []
    for size in range(min(fit, len(table_VU)) + 1):
        partners_AV = _sets(len(table_VU), kind)[size]
        leaves_A = partners_AV @ leaves_V
        best.append(int((np.maximum(leaves_A, enters) - partners_AV @ sent_V).min()))
    return leg.message * min(best)


@lru_cache(maxsize=8)
def _sets(count: int, most: int) -> Mapping[int, IntArray]:
    """Return all sets of one size as rows of 0 and 1, by size."""
    sizes = range(min(most, count) + 1)
    if sum(comb(count, size) for size in sizes) > LIMIT:
        raise ValueError(f"more than {LIMIT} sets would have to be tried")
    found = {}
    for size in sizes:
        rows = list(combinations(range(count), size))
        table = np.zeros((len(rows), count), dtype=np.int64)
        for at, chosen in enumerate(rows):
            table[at, list(chosen)] = 1
        found[size] = table
    return found
