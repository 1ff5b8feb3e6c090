"""From solver values to slots and integer split weights.

Axes: E experts, R EP ranks, G GPUs, J slots of a GPU, H levels, S DP ranks.
"""

from collections.abc import Callable, Mapping

import numpy as np

from planner.arrays import BoolArray, FloatArray, IdArray, IntArray
from planner.errors import SolverError
from planner.formulation.cut.encode import CutModel, Encoded
from planner.formulation.cut.problem import LayerProblem
from planner.plan import SplitWeights

WEIGHT_SUM = 2**31
"""Weights of one expert and rank add up to this (rule 19 allows no more)."""
_NOTHING = 1e-9
"""Shares below this are solver noise: an eighth of one weight unit is 6e-11."""


def placement_of(cut: Encoded, values_V: FloatArray) -> IdArray:
    """Return the slots [R, J] of an integral solution, experts ascending.

    Raises
    ------
    SolverError
        If a placement variable is not integral.
    """
    placed_ER = values_V[cut.columns.placed_ER]
    whole_ER = np.rint(placed_ER)
    if np.abs(placed_ER - whole_ER).max() > 1e-5:
        raise SolverError("the solver returned a fractional placement as integral")
    return slots_of(whole_ER > 0.5)


def slots_of(held_ER: BoolArray) -> IdArray:
    """Return slots [R, J] from who holds what; ranks hold equally many."""
    _, expert = np.nonzero(held_ER.T)
    return expert.astype(np.int16).reshape(held_ER.shape[1], -1)


def held_of(slots_RJ: IdArray, experts: int) -> FloatArray:
    """Return x[e, r] as 0.0 and 1.0 from slots without duplicates."""
    held_ER = np.zeros((experts, slots_RJ.shape[0]))
    ranks = np.repeat(np.arange(slots_RJ.shape[0]), slots_RJ.shape[1])
    held_ER[slots_RJ.ravel(), ranks] = 1.0
    return held_ER


def rounded_placement(wanted_ER: FloatArray, slots: int) -> IdArray:
    """Return ``slots`` experts per rank near a fractional x: all experts, then copies.

    Experts take their largest x first; free slots then go to the largest x left.
    """
    held_ER = np.zeros(wanted_ER.shape, dtype=np.bool_)
    free_R = np.full(wanted_ER.shape[1], slots)
    for expert in np.argsort(-wanted_ER.max(axis=1), kind="stable"):
        best = int(np.argmax(np.where(free_R > 0, wanted_ER[expert], -1.0)))
        held_ER[expert, best] = True
        free_R[best] -= 1
    for place in np.argsort(-wanted_ER.ravel(), kind="stable"):
        expert, rank = divmod(int(place), wanted_ER.shape[1])
        if free_R[rank] > 0 and not held_ER[expert, rank]:
            held_ER[expert, rank] = True
            free_R[rank] -= 1
    return slots_of(held_ER)


def split_of(
    problem: LayerProblem,
    flows_of: Callable[[int], FloatArray],
    slots_RJ: IdArray,
    rank_of_G: IntArray,
) -> Mapping[int, SplitWeights]:
    """Return the split weights that the flows ask for, of experts with copies.

    Parameters
    ----------
    flows_of
        The flows of an expert [G source, G server].
    rank_of_G
        DP rank of each GPU; the GPUs of a rank share one split.
    """
    weights: dict[int, SplitWeights] = {}
    copies_E = np.bincount(slots_RJ.ravel(), minlength=problem.experts)
    for expert in np.flatnonzero(copies_E > 1).tolist():
        holders = np.flatnonzero((slots_RJ == expert).any(axis=1))
        flow_GG = flows_of(expert)
        by_rank_SR = np.zeros((int(rank_of_G.max()) + 1, problem.ranks))
        np.add.at(
            by_rank_SR,
            (rank_of_G[:, None], problem.rank_G[None, :]),
            flow_GG,
        )
        weights[expert] = _weights(by_rank_SR[:, holders])
    return weights


def expert_flows(cut: CutModel, values_V: FloatArray, expert: int) -> FloatArray:
    """Return flows of one expert [G source, G server], own service included."""
    problem, columns = cut.problem, cut.columns
    hierarchy = problem.hierarchy
    out_HG = np.maximum(values_V[columns.out_HEG[:, expert]], 0.0)
    into_HG = np.maximum(values_V[columns.into_HEG[:, expert]], 0.0)
    demand_G = problem.amount_EG[expert] / cut.scale.flow_unit
    flow_GG = np.diag(np.maximum(demand_G - out_HG.sum(axis=0), 0.0))
    for level in range(1, hierarchy.levels + 1):
        block_G, child_G = hierarchy.block_KG[level], hierarchy.block_KG[level - 1]
        for block in np.unique(block_G[out_HG[level - 1] > _NOTHING]).tolist():
            members = np.flatnonzero(block_G == block)
            flow_GG[np.ix_(members, members)] += transported(
                out_HG[level - 1, members],
                into_HG[level - 1, members],
                child_G[members],
            )
    return flow_GG


def transported(out: FloatArray, into: FloatArray, child: IntArray) -> FloatArray:
    """Return flows with these margins that stay in no child block, [n, n].

    Starts from the proportional flow and swaps the forbidden amounts away: taking
    δ from (c, c) and from (i, j), i ≠ c ≠ j, and giving it to (c, j) and (i, c)
    keeps the margins. The transport rows (T1, T2) say that there is enough to take.
    """
    _, group = np.unique(child, return_inverse=True)
    count = int(group.max()) + 1
    out_c = np.bincount(group, weights=out, minlength=count)
    into_c = np.bincount(group, weights=into, minlength=count)
    if into_c.sum() <= 0 or out_c.sum() <= 0:
        return np.zeros((len(out), len(into)))
    flow = np.outer(out_c, into_c / into_c.sum())
    for c in range(count):
        rest = flow.copy()
        rest[c, :] = rest[:, c] = 0.0
        if rest.sum() > 0:
            moved = rest * min(1.0, flow[c, c] / rest.sum())
            flow -= moved
            flow[c, :] += moved.sum(axis=0)
            flow[:, c] += moved.sum(axis=1)
        # Moved away; what cannot be moved is solver noise in the margins.
        flow[c, c] = 0.0
    source = np.divide(out, out_c[group], out=np.zeros_like(out), where=out > 0)
    target = np.divide(into, into_c[group], out=np.zeros_like(into), where=into > 0)
    spread: FloatArray = source[:, None] * flow[np.ix_(group, group)] * target[None, :]
    return spread


def _weights(flow_SM: FloatArray) -> SplitWeights:
    """Integer weights by DP rank; ``*`` for the ranks that split like the sum."""
    common = whole_shares(flow_SM.sum(axis=0))
    weights: dict[str, tuple[int, ...]] = {"*": common}
    for rank, flow_M in enumerate(flow_SM):
        if flow_M.sum() > _NOTHING:
            own = whole_shares(flow_M)
            if own != common:
                weights[str(rank)] = own
    return weights


def whole_shares(flow_M: FloatArray) -> tuple[int, ...]:
    """Round shares to integers of sum 2³¹ by largest remainder; equal if no flow."""
    total = flow_M.sum()
    if total <= _NOTHING:
        return (1,) * len(flow_M)
    share_M = np.where(flow_M < _NOTHING * total, 0.0, flow_M)
    share_M = share_M / share_M.sum() * WEIGHT_SUM
    whole_M = np.floor(share_M).astype(np.int64)
    short = WEIGHT_SUM - int(whole_M.sum())
    order = np.argsort(whole_M - share_M, kind="stable")
    whole_M[order[:short]] += 1
    return tuple(whole_M.tolist())
