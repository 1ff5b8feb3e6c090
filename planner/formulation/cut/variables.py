"""Decision variables of the cut formulation; nothing else creates variables.

Flows are in units of ``flow_unit`` pairs, t in ``time_unit`` of the objective, so
that the solver sees numbers near 1. Axes: E experts, R EP ranks, G GPUs, H levels,
B blocks of a level, Y pairs of GPUs.
"""

from dataclasses import dataclass

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.formulation.cut.ports import LegRows
from planner.formulation.cut.problem import LayerProblem
from planner.formulation.linear_model import ModelBuilder

ROOM = 2.0
"""Flows get boxes that never bind: what a box would pay, no price could show."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale:
    """Pairs per unit of flow, and objective per unit of t."""

    flow_unit: float
    time_unit: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Amounts:
    """Demand in flow units, and the most that each variable could be.

    Attributes
    ----------
    demand_EG
        D[e, g].
    around_HEG
        Demand for e in g's block of level k beyond its block of level k − 1.
    """

    demand_EG: FloatArray
    around_HEG: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Variables:
    """Columns of every family; lists by level start at level 1.

    ==============  =======================================================
    placed_ER       x: rank r holds a copy of e (binary)
    out_HEG         from GPU g for expert e, served at level k
    into_HEG        served by GPU g for expert e, from level k
    held_EB         copies of e in a block (one array per level)
    arrived_EB      into, summed over a block (one array per level)
    total_out_HG    out, summed over experts
    total_into_HG   into, summed over experts
    transfer_Y      transfers of a pair over all experts, where a row needs it
    peak            t of each leg; pairs of the fullest GPU for gpu_tokens
    ==============  =======================================================
    """

    placed_ER: IntArray
    out_HEG: IntArray
    into_HEG: IntArray
    held_EB: tuple[IntArray, ...]
    arrived_EB: tuple[IntArray, ...]
    total_out_HG: IntArray
    total_into_HG: IntArray
    transfer_Y: IntArray
    pairs_Y: IntArray
    peak: IntArray


def scale_of(problem: LayerProblem) -> Scale:
    """One flow unit is an expert's mean demand; the largest row coefficient is 1."""
    flow_unit = max(float(problem.pairs) / problem.experts, 1e-300)
    largest = max(
        (
            float(np.abs(part).max(initial=0.0))
            for leg in problem.legs
            for part in (leg.out_RHG, leg.in_RHG, leg.value_Y)
        ),
        default=1.0,
    )
    return Scale(flow_unit=flow_unit, time_unit=flow_unit * (largest or 1.0))


def amounts_of(problem: LayerProblem, scale: Scale) -> Amounts:
    """Return the parameters D and the demand around each GPU, in flow units."""
    hierarchy = problem.hierarchy
    demand_EG = problem.amount_EG / scale.flow_unit
    inside_KEG = []
    for level in range(hierarchy.levels + 1):
        inside_EB = block_sum(demand_EG, hierarchy.block_KG[level])
        inside_KEG.append(inside_EB[:, hierarchy.block_KG[level]])
    around = np.diff(np.stack(inside_KEG), axis=0)
    around[np.broadcast_to(hierarchy.alone_HG[:, None, :], around.shape)] = 0.0
    return Amounts(demand_EG=demand_EG, around_HEG=np.maximum(around, 0.0))


def block_sum(value_EG: FloatArray, block_G: IntArray) -> FloatArray:
    """Sum over the GPUs of each block, [E, B]."""
    total = np.zeros((value_EG.shape[0], int(block_G.max()) + 1))
    np.add.at(total.T, block_G, value_EG.T)
    return total


def create_variables(
    builder: ModelBuilder, problem: LayerProblem, amounts: Amounts, scale: Scale
) -> Variables:
    """Add every family, each with a finite upper bound."""
    hierarchy, demand_EG = problem.hierarchy, amounts.demand_EG
    levels, gpus, experts = hierarchy.levels, problem.gpu_count, problem.experts
    there_HEG = np.where(hierarchy.alone_HG[:, None, :], 0.0, demand_EG[None])
    placed = builder.variables(
        "placed", (experts, problem.ranks), upper=1.0, integer=True
    )
    out = builder.variables("out", (levels, experts, gpus), upper=ROOM * there_HEG)
    into = builder.variables(
        "into", (levels, experts, gpus), upper=ROOM * amounts.around_HEG
    )
    held, arrived = [], []
    for level in range(1, levels + 1):
        block_G = hierarchy.block_KG[level]
        shape = (experts, hierarchy.count(level))
        size_B = np.bincount(block_G).astype(np.float64)
        held.append(builder.variables(f"held_{level}", shape, upper=ROOM * size_B))
        inside = block_sum(demand_EG, block_G)
        arrived.append(
            builder.variables(f"arrived_{level}", shape, upper=ROOM * inside)
        )
    total_out = builder.variables(
        "total_out", (levels, gpus), upper=ROOM * there_HEG.sum(axis=1)
    )
    total_into = builder.variables(
        "total_into", (levels, gpus), upper=ROOM * amounts.around_HEG.sum(axis=1)
    )
    pairs_Y = _pairs_needed(problem)
    most_Y = demand_EG.sum(axis=0)[pairs_Y // gpus]
    transfer = builder.variables("transfer", pairs_Y.shape, upper=ROOM * most_Y)
    return Variables(
        placed_ER=placed,
        out_HEG=out,
        into_HEG=into,
        held_EB=tuple(held),
        arrived_EB=tuple(arrived),
        total_out_HG=total_out,
        total_into_HG=total_into,
        transfer_Y=transfer,
        pairs_Y=pairs_Y,
        peak=_create_peaks(builder, problem, amounts, scale),
    )


def _create_peaks(
    builder: ModelBuilder, problem: LayerProblem, amounts: Amounts, scale: Scale
) -> IntArray:
    if not problem.legs:
        unit = scale.flow_unit / scale.time_unit
        everything = float(amounts.demand_EG.sum())
        return builder.variables("peak", (1,), upper=everything, cost=unit)
    total = float(amounts.demand_EG.sum()) * scale.flow_unit / scale.time_unit
    most = [total * _largest_load(leg) for leg in problem.legs]
    weights = [leg.weight for leg in problem.legs]
    return builder.variables("peak", (len(most),), upper=most, cost=weights)


def _largest_load(leg: LegRows) -> float:
    """More than any row makes of one flow: its largest coefficients together."""
    parts = [
        float(np.abs(part).max(initial=0.0))
        for part in (leg.out_RHG, leg.in_RHG, leg.value_Y)
    ]
    return sum(parts)


def _pairs_needed(problem: LayerProblem) -> IntArray:
    """Pairs of every level that a row with both ends touches."""
    rows = [leg.pair_Y for leg in problem.legs]
    if not rows or not any(part.size for part in rows):
        return np.zeros(0, dtype=np.int64)
    touched = np.unique(np.concatenate(rows))
    level_Y = problem.hierarchy.level_GG.ravel()
    return np.flatnonzero(np.isin(level_Y, np.unique(level_Y[touched])))
