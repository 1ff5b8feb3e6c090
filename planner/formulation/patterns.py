"""Any number of slots per GPU, no load above a level: how many GPUs do copies need?

Sizes are rounded down to cells of level/N. A *pattern* is a set of J cells that add up
to at most N: what a GPU may hold, a copy of a smaller cell taking the place of a larger
one. With q[e, r] = 1 where expert e has r copies and x[p] GPUs of pattern p:

    for every class k of cells:  Σ_{class ≥ k} r·q[e, r]  ≤  Σ_p #{cells of p ≥ k}·x[p]
    Σ_r q[e, r] = 1,   Σ r·q[e, r] = P,   minimize Σ x;    Σ x ≤ G is necessary.

Rows are chained (their left sides are a running sum from the greatest class), so every
q and x stands in few rows. Only patterns met so far are columns; the multipliers tell
which are missing. Axes: Q choices (e, r), A patterns, C classes.
"""

from dataclasses import dataclass

import numpy as np

from planner.arrays import IntArray
from planner.formulation.linear_model import LinearModel, ModelBuilder


@dataclass(frozen=True, kw_only=True, eq=False)
class CellChoices:
    """Numbers of copies that experts may have, and the class of each copy's cell."""

    expert_Q: IntArray
    copies_Q: IntArray
    class_Q: IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class PatternModel:
    """The relaxation over the patterns met so far.

    Rows ``chain`` (multiplier: what a copy of the class is worth, in GPUs), ``one``
    and ``all``; columns ``q`` and ``x``.
    """

    model: LinearModel
    kept_Q: IntArray


def pattern_model(
    choices: CellChoices,
    pattern_AJ: IntArray,
    *,
    classes: int,
    experts: int,
    gpus: int,
    whole: bool = False,
) -> PatternModel:
    """Return the linear relaxation; its least value is above G only if nothing fits.

    ``whole``: in integers, G GPUs at most, nothing to minimize. A solution is a plan
    within the level but for what cells cut off, and for two copies on one GPU.

    Parameters
    ----------
    choices
        Sorted by expert, then by copies; at least one for every expert.
    pattern_AJ
        Classes of each pattern's cells. A copy that none has room for costs as much
        as all GPUs, so that there is always a solution.
    experts, gpus
        E and G.
    """
    kept_Q = _extremes(choices)
    expert_Q, copies_Q = choices.expert_Q[kept_Q], choices.copies_Q[kept_Q]
    slots = gpus * pattern_AJ.shape[1]
    build = ModelBuilder()
    most_q, most = (1, gpus) if whole else (np.inf, np.inf)
    q_Q = build.variables("q", (kept_Q.size,), upper=most_q, integer=whole)
    x_A = build.variables(
        "x", (len(pattern_AJ),), upper=most, cost=not whole, integer=whole
    )
    over_C = build.variables(
        "over", (classes,), upper=slots if whole else np.inf, integer=whole
    )
    beyond = build.variables(
        "beyond", (1,), upper=0.0 if whole else np.inf, cost=gpus, integer=whole
    )
    if whole:
        gpus_1 = build.rows("gpus", (1,), upper=gpus)
        build.add(np.broadcast_to(gpus_1, x_A.shape), x_A)
    one_E = build.rows("one", (experts,), lower=1.0, upper=1.0)
    build.add(one_E[expert_Q], q_Q)
    all_1 = build.rows("all", (1,), lower=slots, upper=slots)
    build.add(np.broadcast_to(all_1, q_Q.shape), q_Q, copies_Q)
    chain_C = build.rows("chain", (classes,), lower=0.0, upper=0.0)
    build.add(chain_C[choices.class_Q[kept_Q]], q_Q, -copies_Q)
    build.add(chain_C, over_C, -1.0)
    build.add(chain_C[:-1], over_C[1:])
    build.add(chain_C[-1:], beyond)
    pattern_B, class_B, count_B = counted(pattern_AJ, classes)
    build.add(chain_C[class_B], x_A[pattern_B], count_B)
    return PatternModel(model=build.build(), kept_Q=kept_Q)


def counted(pattern_AJ: IntArray, classes: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return every pattern's distinct classes and how often it has each."""
    number_AJ = np.arange(len(pattern_AJ))[:, None] * classes + pattern_AJ
    number_B, count_B = np.unique(number_AJ, return_counts=True)
    return number_B // classes, number_B % classes, count_B


def _extremes(choices: CellChoices) -> IntArray:
    """Return the choices that are not between two of their expert's class.

    They differ in r alone, in which every coefficient is linear.
    """
    alike = (choices.expert_Q[1:] == choices.expert_Q[:-1]) & (
        choices.class_Q[1:] == choices.class_Q[:-1]
    )
    between = np.zeros(choices.expert_Q.size, dtype=np.bool_)
    between[1:-1] = alike[1:] & alike[:-1]
    return np.flatnonzero(~between)
