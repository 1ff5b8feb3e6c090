"""Two slots per GPU, no load above a level: which numbers of copies fit?

An item of size z is one copy. P = 2G items fit in pairs of at most ``level`` only if
for every s < level/2 the items of at least level − s are no more than those of at
most s; so with q[e, r] = 1 where expert e has r copies (size[e, r] each):

    for every s:  Σ_{size ≥ level−s} r·q[e, r] − Σ_{size ≤ s} r·q[e, r]  ≤  v
    Σ_r q[e, r] = 1,   Σ r·q[e, r] = P,   minimize v;    v ≤ 0 is necessary.

Rows are chained (their left sides are a running sum over the items by key), so every
q stands in three rows. Axes: Q choices (e, r), R rows.
"""

from dataclasses import dataclass

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.formulation.linear_model import LinearModel, ModelBuilder

TIE = 1e-12
"""Sizes that fill the level up to this share of it are read as filling it exactly."""


SPLIT_COPIES = 12
"""Numbers of copies up to this are columns of their own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Choices:
    """Numbers of copies that experts may have, and the size of each copy.

    Sorted by expert, then by copies.
    """

    expert_Q: IntArray
    copies_Q: IntArray
    size_Q: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class ThresholdModel:
    """The relaxation at one level.

    Attributes
    ----------
    kept_Q
        Choices that are columns; the others lie between two of them.
    guard_R
        The choice whose size z defines each row: s = level − z; -1 where a row has
        no large item.
    """

    model: LinearModel
    kept_Q: IntArray
    guard_R: IntArray


def threshold_model(
    choices: Choices, *, level: float, experts: int, slots: int
) -> ThresholdModel:
    """Return the linear relaxation; its least v is above 0 only if nothing fits.

    Parameters
    ----------
    choices
        None larger than ``level``; at least one for every expert.
    experts, slots
        E and P.
    """
    large_Q = choices.size_Q > level / 2
    row_Q, guard_R = _rows(choices, large_Q, level)
    kept_Q = _extremes(choices, large_Q, row_Q)
    expert_Q, copies_Q = choices.expert_Q[kept_Q], choices.copies_Q[kept_Q]
    signed_Q = np.where(large_Q[kept_Q], -copies_Q, copies_Q).astype(np.float64)
    build, rows = ModelBuilder(), guard_R.size
    q_Q = build.variables("q", (kept_Q.size,), upper=1.0)
    ahead_R = build.variables("ahead", (rows,), lower=-np.inf)
    v = build.variables("v", (1,), lower=-slots, cost=1.0)
    one_E = build.rows("one", (experts,), lower=1.0, upper=1.0)
    build.add(one_E[expert_Q], q_Q)
    all_1 = build.rows("all", (1,), lower=slots, upper=slots)
    build.add(np.broadcast_to(all_1, q_Q.shape), q_Q, copies_Q)
    chain_R = build.rows("chain", (rows,), lower=0.0, upper=0.0)
    build.add(chain_R, ahead_R)
    build.add(chain_R[1:], ahead_R[:-1], -1.0)
    build.add(chain_R[row_Q[kept_Q]], q_Q, signed_Q)
    guard = build.rows("guard", (rows,), upper=0.0)
    build.add(guard, ahead_R)
    build.add(guard, np.broadcast_to(v, (rows,)), -1.0)
    return ThresholdModel(model=build.build(), kept_Q=kept_Q, guard_R=guard_R)


def _rows(
    choices: Choices, large_Q: BoolArray, level: float
) -> tuple[IntArray, IntArray]:
    """Return the row at which every choice enters, and each row's guard.

    Choices by key (s at which they start to count; small before large at a tie). A
    row ends where a small choice follows a large one: between, large ones only add
    up, so the last of them makes the tightest row.
    """
    partner_Q = level * (1 + TIE) - choices.size_Q
    key_Q = np.where(large_Q, partner_Q, choices.size_Q)
    order = np.lexsort((large_Q, key_Q))
    large = large_Q[order]
    turn = np.zeros(order.size, dtype=np.int64)
    turn[1:] = large[:-1] & ~large[1:]
    row_Q = np.empty(order.size, dtype=np.int64)
    row_Q[order] = np.cumsum(turn)
    guard_R = np.full(int(row_Q.max()) + 1, -1, dtype=np.int64)
    guard_R[row_Q[order[large]]] = order[large]
    return row_Q, guard_R


def _extremes(choices: Choices, large_Q: BoolArray, row_Q: IntArray) -> IntArray:
    """Return the choices that are not between two alike ones of their expert.

    Choices of one expert that enter at the same row differ in r alone, and every
    coefficient is linear in r: mixing the first and the last gives those between.
    Few copies are all kept, so that a range of them can be cut off anywhere.
    """
    alike = (
        (choices.expert_Q[1:] == choices.expert_Q[:-1])
        & (row_Q[1:] == row_Q[:-1])
        & (large_Q[1:] == large_Q[:-1])
    )
    between = np.zeros(row_Q.size, dtype=np.bool_)
    between[1:-1] = alike[1:] & alike[:-1]
    return np.flatnonzero(~between | (choices.copies_Q <= SPLIT_COPIES))
