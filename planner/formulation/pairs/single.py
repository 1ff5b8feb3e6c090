"""One copy of every expert: the load of a link is linear in x alone.

All pairs of an expert go to the GPU that holds it, under every selection:

    Σ_{e,r} x[e,r] · Σ_{s, d of rank r} D[e,s] · share_a(s,d) <= t_leg   for all links
    Σ_r x[e,r] = 1,  Σ_e x[e,r] = J,  caps likewise

Axes: E experts, R EP ranks, G GPUs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.formulation.cut.prices import certificate_of
from planner.formulation.cut.problem import LayerProblem
from planner.formulation.cut.variables import Scale, scale_of
from planner.formulation.linear_model import LinearModel, ModelBuilder
from planner.formulation.pairs.rows import served_cost


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleColumns:
    """x and the t of each leg."""

    placed_ER: IntArray
    peak: IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class SingleModel:
    """An encoded layer of which every expert has one copy."""

    problem: LayerProblem
    model: LinearModel
    columns: SingleColumns
    scale: Scale


def encode_single(problem: LayerProblem) -> SingleModel:
    """Return the model of a layer whose legs are rows over pairs."""
    builder, scale = ModelBuilder(), scale_of(problem)
    demand_EG = problem.amount_EG / scale.flow_unit
    placed = builder.variables(
        "placed", (problem.experts, problem.ranks), upper=1.0, integer=True
    )
    rows = builder.rows("coverage", placed.shape[:1], lower=1.0, upper=1.0)
    builder.add(rows[:, None], placed)
    slots = float(problem.slots_per_gpu)
    rows = builder.rows("slots", placed.shape[1:], lower=slots, upper=slots)
    builder.add(rows[None, :], placed)
    unit = scale.flow_unit / scale.time_unit
    peaks = []
    for number, leg in enumerate(problem.legs):
        cost = served_cost(leg, problem, demand_EG) * unit
        most = float(cost.max(axis=2).sum(axis=1).max(initial=0.0))
        peak = builder.variables(f"peak_{number}", (1,), upper=most, cost=leg.weight)
        rows = builder.rows(f"links_joint_{number}", (len(cost),), upper=0.0)
        builder.add(rows, peak, -1.0)
        builder.add(rows[:, None, None], placed[None], cost)
        peaks.append(peak)
    _caps(builder, problem, demand_EG, placed, scale)
    columns = SingleColumns(placed_ER=placed, peak=np.concatenate(peaks))
    return SingleModel(
        problem=problem, model=builder.build(), columns=columns, scale=scale
    )


def _caps(
    builder: ModelBuilder,
    problem: LayerProblem,
    demand_EG: FloatArray,
    placed: IntArray,
    scale: Scale,
) -> None:
    """Rule 26: what the experts of a GPU or domain serve keeps its cap."""
    limits = [cap.limit / scale.flow_unit for cap in problem.caps]
    rows = builder.rows("caps", (len(limits),), upper=limits)
    served_EG = _served(problem, demand_EG)
    for row, cap in zip(rows, problem.caps, strict=True):
        load_ER = np.zeros((problem.experts, problem.ranks))
        for gpu in cap.gpus:
            load_ER[:, problem.rank_G[gpu]] += served_EG[:, gpu]
        builder.add(row, placed, load_ER)


def _served(problem: LayerProblem, demand_EG: FloatArray) -> FloatArray:
    """Return the pairs that a GPU serves of every expert that it holds."""
    set_G = problem.hierarchy.block_KG[-1]
    same_GG = (set_G[:, None] == set_G[None, :]).astype(np.float64)
    return np.asarray(demand_EG @ same_GG)


def single_prices(encoded: SingleModel, duals_R: FloatArray) -> Mapping[str, Any]:
    """Return the certificate of kind ``prices`` of an LP's multipliers.

    The checker lets pairs go to any copy. So a pair of e from s is sold for what its
    dearest server costs, which makes every server of it earn; a common charge on all
    slots and as much for covering every expert then undo that, for every slot is
    filled.
    """
    problem, scale, families = encoded.problem, encoded.scale, encoded.model.families
    per_pair = scale.time_unit / scale.flow_unit
    gpus = problem.gpu_count
    cost_X = np.zeros(gpus * gpus)
    for number, leg in enumerate(problem.legs):
        price_R = np.maximum(-duals_R[families[f"links_joint_{number}"]], 0.0)
        np.add.at(cost_X, leg.pair_Y, price_R[leg.row_Y] * leg.value_Y)
    cost_GG = cost_X.reshape(gpus, gpus)
    for cap, row in zip(problem.caps, families["caps"].tolist(), strict=True):
        cost_GG[:, list(cap.gpus)] += max(-float(duals_R[row]), 0.0) * per_pair
    set_G = problem.hierarchy.block_KG[-1]
    dearest_G = np.where(set_G[:, None] == set_G[None, :], cost_GG, 0.0).max(axis=1)
    earned_E = (problem.amount_EG * dearest_G).sum(axis=1)
    worth_E = duals_R[families["coverage"]] * scale.time_unit
    charge = max(0.0, float((earned_E - worth_E).max()))
    return certificate_of(
        encoded,
        duals_R,
        pair_EG=np.repeat(dearest_G[None, :], problem.experts, axis=0),
        slot_R=charge - duals_R[families["slots"]] * scale.time_unit,
        cover_E=worth_E + charge - earned_E,
    )
