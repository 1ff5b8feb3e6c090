"""Copies and a free split: one flow for every expert, source and serving GPU.

    Σ_d f[e,s,d] = D[e,s],  f[e,s,d] <= D[e,s]·x[e,r(d)]
    Σ_{s,d} share_a(s,d) · Σ_e f[e,s,d] <= t_leg                    for every link a

Pairs lie within an EP set. Axes: E experts, R EP ranks, G GPUs, Y pairs of GPUs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.formulation.cut.prices import certificate_of
from planner.formulation.cut.problem import LayerProblem
from planner.formulation.cut.variables import ROOM, Scale, scale_of
from planner.formulation.linear_model import LinearModel, ModelBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowColumns:
    """Columns: x, flows of every pair of GPUs in ``pairs_Y`` (s·G + d), the t."""

    placed_ER: IntArray
    flow_EY: IntArray
    pairs_Y: IntArray
    peak: IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowModel:
    """An encoded layer whose experts may have copies."""

    problem: LayerProblem
    model: LinearModel
    columns: FlowColumns
    scale: Scale


def pairs_of(problem: LayerProblem) -> IntArray:
    """Return the pairs within EP sets, a GPU with itself included."""
    set_G = problem.hierarchy.block_KG[-1]
    return np.flatnonzero(set_G[:, None] == set_G[None, :])


def encode_flows(problem: LayerProblem) -> FlowModel:
    """Return the model of a layer whose legs are rows over pairs."""
    builder, scale, pairs_Y = ModelBuilder(), scale_of(problem), pairs_of(problem)
    demand_EG = problem.amount_EG / scale.flow_unit
    source_Y, target_Y = np.divmod(pairs_Y, problem.gpu_count)
    asked_EY = demand_EG[:, source_Y]
    placed = builder.variables(
        "placed", (problem.experts, problem.ranks), upper=1.0, integer=True
    )
    flow = builder.variables("flow", asked_EY.shape, upper=ROOM * asked_EY)
    rows = builder.rows("coverage", placed.shape[:1], lower=1.0)
    builder.add(rows[:, None], placed)
    slots = float(problem.slots_per_gpu)
    rows = builder.rows("slots", placed.shape[1:], lower=slots, upper=slots)
    builder.add(rows[None, :], placed)
    rows = builder.rows("demand", demand_EG.shape, lower=demand_EG, upper=demand_EG)
    builder.add(rows[:, source_Y], flow)
    rows = builder.rows("service", flow.shape, upper=0.0)
    builder.add(rows, flow)
    builder.add(rows, placed[:, problem.rank_G[target_Y]], -asked_EY)
    columns = FlowColumns(
        placed_ER=placed,
        flow_EY=flow,
        pairs_Y=pairs_Y,
        peak=_links(builder, problem, scale, flow, pairs_Y),
    )
    _caps(builder, problem, scale, columns)
    if problem.nearest:
        _nearest(builder, problem, demand_EG, columns)
    return FlowModel(
        problem=problem, model=builder.build(), columns=columns, scale=scale
    )


def _links(
    builder: ModelBuilder,
    problem: LayerProblem,
    scale: Scale,
    flow: IntArray,
    pairs_Y: IntArray,
) -> IntArray:
    """Every link carries at most the t of its leg; returns the columns of t."""
    unit = scale.flow_unit / scale.time_unit
    whole = float(problem.pairs) / scale.flow_unit * unit
    moved = builder.variables("moved", pairs_Y.shape, upper=ROOM * whole / unit)
    rows = builder.rows("totals", pairs_Y.shape, lower=0.0, upper=0.0)
    builder.add(rows, moved, -1.0)
    builder.add(rows[None, :], flow)
    peaks = []
    for number, leg in enumerate(problem.legs):
        most = whole * float(leg.value_Y.max(initial=0.0))
        peak = builder.variables(f"peak_{number}", (1,), upper=most, cost=leg.weight)
        count = int(leg.row_Y.max(initial=-1)) + 1
        rows = builder.rows(f"links_joint_{number}", (count,), upper=0.0)
        builder.add(rows, peak, -1.0)
        place_Y = np.searchsorted(pairs_Y, leg.pair_Y)
        builder.add(rows[leg.row_Y], moved[place_Y], leg.value_Y * unit)
        peaks.append(peak)
    return np.concatenate(peaks)


def _caps(
    builder: ModelBuilder, problem: LayerProblem, scale: Scale, columns: FlowColumns
) -> None:
    """Rule 26: what a GPU or domain serves keeps its cap."""
    limits = [cap.limit / scale.flow_unit for cap in problem.caps]
    rows = builder.rows("caps", (len(limits),), upper=limits)
    target_Y = columns.pairs_Y % problem.gpu_count
    for row, cap in zip(rows, problem.caps, strict=True):
        inside_Y = np.isin(target_Y, cap.gpus)
        builder.add(row, columns.flow_EY[:, inside_Y])


def _nearest(
    builder: ModelBuilder,
    problem: LayerProblem,
    demand_EG: FloatArray,
    columns: FlowColumns,
) -> None:
    """``nearest``: a GPU that holds e serves itself, and so does a domain (rule 17)."""
    source_Y, target_Y = np.divmod(columns.pairs_Y, problem.gpu_count)
    placed_EG = columns.placed_ER[:, problem.rank_G]
    own_Y = np.flatnonzero(source_Y == target_Y)
    own = builder.rows("own", placed_EG.shape, lower=0.0, upper=0.0)
    builder.add(own[:, source_Y[own_Y]], columns.flow_EY[:, own_Y])
    builder.add(own, placed_EG, -demand_EG)
    level = problem.cell_level
    if level is None or level == problem.hierarchy.levels:
        return
    cell_G = problem.hierarchy.block_KG[level]
    shape = (problem.experts, problem.hierarchy.count(level))
    local = builder.variables("local", shape, upper=1.0)
    some = builder.rows("local_some", shape, upper=0.0)
    builder.add(some, local)
    held = np.zeros((problem.gpu_count, shape[1]))
    held[np.arange(problem.gpu_count), cell_G] = 1.0
    builder.add(some[:, None, :], placed_EG[:, :, None], -held[None])
    every = builder.rows("local_every", demand_EG.shape, lower=0.0)
    builder.add(every, local[:, cell_G])
    builder.add(every, placed_EG, -1.0)
    leave = builder.rows(
        "local_leave", demand_EG.shape, lower=demand_EG, upper=demand_EG
    )
    far_Y = np.flatnonzero(cell_G[source_Y] != cell_G[target_Y])
    builder.add(leave[:, source_Y[far_Y]], columns.flow_EY[:, far_Y])
    builder.add(leave, local[:, cell_G], demand_EG)


def expert_flows(encoded: FlowModel, values_V: FloatArray, expert: int) -> FloatArray:
    """Return the flows of one expert [G source, G server]."""
    gpus = encoded.problem.gpu_count
    flow_GG = np.zeros(gpus * gpus)
    flow_Y = values_V[encoded.columns.flow_EY[expert]]
    flow_GG[encoded.columns.pairs_Y] = np.maximum(flow_Y, 0.0)
    return flow_GG.reshape(gpus, gpus)


def flow_prices(encoded: FlowModel, duals_R: FloatArray) -> Mapping[str, Any]:
    """Return the certificate of kind ``prices`` of an LP's multipliers."""
    families, scale = encoded.model.families, encoded.scale
    return certificate_of(
        encoded,
        duals_R,
        pair_EG=duals_R[families["demand"]] * (scale.time_unit / scale.flow_unit),
        slot_R=-duals_R[families["slots"]] * scale.time_unit,
        cover_E=np.maximum(duals_R[families["coverage"]], 0.0) * scale.time_unit,
    )
