"""When a layer is one level of single ports, and back: slots, split, certificate.

That is so where every GPU is alone in its scale-up domain, and also inside one domain
whose GPUs have a port each, as long as every row of the layer concerns one GPU and one
direction. Axes: E experts, G GPUs (the domains N of ``one_level``), S DP ranks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.formulation.cut.decode import whole_shares
from planner.formulation.cut.encode import encode
from planner.formulation.cut.one_level import OneLevel, Prices
from planner.formulation.cut.ports import LegRows
from planner.formulation.cut.prices import prices_of
from planner.formulation.cut.problem import LayerProblem
from planner.plan import SplitWeights


def obstacle(problem: LayerProblem) -> str | None:
    """Say why a layer is not one level of single ports; None if it is."""
    if problem.caps:
        return "imbalance caps"
    if problem.ranks != problem.gpu_count:
        return "several EP sets"
    if problem.nearest:
        return "selection nearest"
    if problem.hierarchy.levels != 1:
        return "domains of several GPUs, or switches between groups of domains"
    if len(problem.legs) != 1:
        return "an objective without links, or legs that load links differently"
    leg = problem.legs[0]
    entries = np.concatenate([leg.out_RHG, leg.in_RHG], axis=2)[:, 0]
    if leg.row_Y.size or ((entries != 0).sum(axis=1) > 1).any():
        return "a link that several GPUs share, or one that both directions share"
    if (entries < 0).any() or (entries.max(axis=0, initial=0.0) <= 0).any():
        return "a GPU without a port of its own in each direction"
    return None


def one_level_of(problem: LayerProblem) -> OneLevel:
    """Return the layer; its objective is the layer's (rule 23).

    Raises
    ------
    ValueError
        If there is an :func:`obstacle`.
    """
    reason = obstacle(problem)
    if reason is not None:
        raise ValueError(reason)
    leg = problem.legs[0]
    slots = np.full(problem.gpu_count, problem.slots_per_gpu, dtype=np.int64)
    return OneLevel(
        demand_EN=problem.amount_EG,
        slots_N=slots,
        up_N=1.0 / (leg.weight * leg.out_RHG[:, 0].max(axis=0)),
        down_N=1.0 / (leg.weight * leg.in_RHG[:, 0].max(axis=0)),
    )


def certificate_of(problem: LayerProblem, prices: Prices) -> Mapping[str, Any] | None:
    """Return what the verifier proves the bound again with (kind ``prices``).

    A pair is sold for its price of leaving and what serving it elsewhere is worth.
    """
    cut, leg = encode(problem), problem.legs[0]
    families, scale = cut.model.families, cut.scale
    duals_R = np.zeros(cut.model.row_lower_R.size)
    sold_EG = prices.out_N[None, :] + prices.sold_E[:, None]
    duals_R[families["own_service"]] = sold_EG * scale.flow_unit / scale.time_unit
    duals_R[families["slots"]] = -prices.slot_N / scale.time_unit
    duals_R[families["coverage"]] = prices.cover_E / scale.time_unit
    duals_R[families["links_0"]] = -leg.weight * _shares(leg, prices)
    return prices_of(cut, duals_R)


def _shares(leg: LegRows, prices: Prices) -> FloatArray:
    """Return each row's share of the objective: that of its port, if it is the port."""
    share_R = np.zeros(len(leg.out_RHG))
    sides = ((leg.out_RHG, prices.out_N), (leg.in_RHG, prices.in_N))
    for side_RHG, price_G in sides:
        cost_RG = side_RHG[:, 0]
        row_G, gpus = cost_RG.argmax(axis=0), np.arange(cost_RG.shape[1])
        share_R[row_G] = price_G / (leg.weight * cost_RG[row_G, gpus])
    return share_R


def split_weights(
    problem: OneLevel, placed_EN: BoolArray, from_EN: FloatArray, rank_N: IntArray
) -> Mapping[int, SplitWeights]:
    """Return integer weights of experts with several copies (rule 19).

    Domains without a copy share alike, in proportion to what the copies serve; one
    with a copy serves itself. ``rank_N`` is the DP rank of each: a rank of several
    GPUs shares as they do together.
    """
    weights: dict[int, SplitWeights] = {}
    for expert in np.flatnonzero(placed_EN.sum(axis=1) > 1).tolist():
        held_N = placed_EN[expert]
        common = whole_shares(from_EN[expert, held_N])
        of_expert = {"*": common}
        share_M = np.asarray(common) / sum(common)
        flow_NM = problem.demand_EN[expert][:, None] * np.where(
            held_N[:, None], np.eye(held_N.size)[:, held_N], share_M
        )
        flow_SM = np.zeros((int(rank_N.max()) + 1, share_M.size))
        np.add.at(flow_SM, rank_N, flow_NM)
        for rank in np.unique(rank_N[held_N]).tolist():
            of_expert[str(rank)] = whole_shares(flow_SM[rank])
        weights[expert] = of_expert
    return weights
