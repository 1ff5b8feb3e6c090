"""Constraint families of the cut formulation, named as in docs/formulation.md.

Axes: E experts, R EP ranks, G GPUs, H levels, B blocks of a level, R rows of a leg.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planner.formulation.cut.problem import LayerProblem
from planner.formulation.cut.variables import Amounts, Scale, Variables
from planner.formulation.linear_model import ModelBuilder


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """What every family needs."""

    builder: ModelBuilder
    problem: LayerProblem
    amounts: Amounts
    scale: Scale
    columns: Variables


def coverage(parts: Parts) -> None:
    """Every expert has a copy: Σ_r x[e, r] >= 1."""
    placed = parts.columns.placed_ER
    rows = parts.builder.rows("coverage", placed.shape[:1], lower=1.0)
    parts.builder.add(rows[:, None], placed)


def slots(parts: Parts) -> None:
    """Every rank holds its slots' number of distinct experts: Σ_e x[e, r] = J.

    A folded rank of n GPUs: at most n·J.
    """
    placed, problem = parts.columns.placed_ER, parts.problem
    size_R = np.zeros(problem.ranks)
    size_R[problem.rank_G] = problem.size_G
    most = problem.slots_per_gpu * size_R
    least = np.where(size_R == 1, most, 0.0)
    rows = parts.builder.rows("slots", most.shape, lower=least, upper=most)
    parts.builder.add(rows[None, :], placed)


def held(parts: Parts) -> None:
    """Copies in a block are those of its children: X_k[e, B] = Σ X_{k−1}[e, c]."""
    columns, hierarchy = parts.columns, parts.problem.hierarchy
    below = columns.placed_ER[:, parts.problem.rank_G]
    for level, above in enumerate(columns.held_EB, start=1):
        name = f"held_{level}"
        rows = parts.builder.rows(name, above.shape, lower=0.0, upper=0.0)
        parts.builder.add(rows, above, -1.0)
        parts.builder.add(rows[:, hierarchy.parent(level - 1)], below)
        below = above


def arrived(parts: Parts) -> None:
    """What a block's GPUs serve from level k: S_k[e, B] = Σ_{g in B} in_k[e, g]."""
    columns, hierarchy = parts.columns, parts.problem.hierarchy
    for level, total in enumerate(columns.arrived_EB, start=1):
        name = f"arrived_{level}"
        rows = parts.builder.rows(name, total.shape, lower=0.0, upper=0.0)
        parts.builder.add(rows, total, -1.0)
        block_G = hierarchy.block_KG[level]
        parts.builder.add(rows[:, block_G], columns.into_HEG[level - 1])


def own_service(parts: Parts) -> None:
    """N1: own service p = D − Σ_k out_k lies between 0 and D·x.

    Under ``nearest`` a GPU with a copy uses it: p = D·x.
    """
    demand_EG, columns = parts.amounts.demand_EG, parts.columns
    shape = demand_EG.shape
    exact = parts.problem.nearest
    rows = parts.builder.rows(
        "own_service", shape, lower=demand_EG, upper=demand_EG if exact else np.inf
    )
    parts.builder.add(rows[None], columns.out_HEG)
    parts.builder.add(rows, columns.placed_ER[:, parts.problem.rank_G], demand_EG)
    if not exact:
        total = parts.builder.rows("own_demand", shape, upper=demand_EG)
        parts.builder.add(total[None], columns.out_HEG)


def service(parts: Parts) -> None:
    """N1: only a copy serves: in_k[e, g] <= (demand of e around g at level k)·x."""
    columns = parts.columns
    rows = parts.builder.rows("service", columns.into_HEG.shape, upper=0.0)
    parts.builder.add(rows, columns.into_HEG)
    placed = columns.placed_ER[:, parts.problem.rank_G]
    parts.builder.add(rows, placed[None], -parts.amounts.around_HEG)


def balance(parts: Parts) -> None:
    """N2, N3: in every level-k block, what leaves at level k arrives at level k."""
    columns, hierarchy = parts.columns, parts.problem.hierarchy
    for level, total in enumerate(columns.arrived_EB, start=1):
        name = f"balance_{level}"
        rows = parts.builder.rows(name, total.shape, lower=0.0, upper=0.0)
        parts.builder.add(rows, total, -1.0)
        block_G = hierarchy.block_KG[level]
        parts.builder.add(rows[:, block_G], columns.out_HEG[level - 1])


def transport(parts: Parts) -> None:
    """T1, T2: no child block serves itself at its parent's level.

    Σ_{g in c} (out_k + in_k) <= Σ_{g in B} in_k for every child c of B: with it a
    transport with the diagonal blocks forbidden exists (Gale–Hoffman).
    """
    columns, hierarchy = parts.columns, parts.problem.hierarchy
    experts = parts.problem.experts
    for level, total in enumerate(columns.arrived_EB, start=1):
        child_G = hierarchy.block_KG[level - 1]
        shape = (experts, hierarchy.count(level - 1))
        rows = parts.builder.rows(f"transport_{level}", shape, upper=0.0)
        parts.builder.add(rows, total[:, hierarchy.parent(level - 1)], -1.0)
        parts.builder.add(rows[:, child_G], columns.out_HEG[level - 1])
        parts.builder.add(rows[:, child_G], columns.into_HEG[level - 1])


def reach(parts: Parts) -> None:
    """V2: out_k[e, g] <= D·(copies around g at level k)."""
    columns, hierarchy = parts.columns, parts.problem.hierarchy
    demand_EG = parts.amounts.demand_EG
    rows = parts.builder.rows("reach", columns.out_HEG.shape, upper=0.0)
    parts.builder.add(rows, columns.out_HEG)
    inner = columns.placed_ER[:, parts.problem.rank_G]
    for level, outer in enumerate(columns.held_EB, start=1):
        outside = outer[:, hierarchy.block_KG[level]]
        # Where the block holds nothing new the two sums are equal and out is 0.
        there = np.where(hierarchy.alone_HG[level - 1], 0.0, demand_EG)
        parts.builder.add(rows[level - 1], outside, -there)
        parts.builder.add(rows[level - 1], inner, there)
        inner = outside


def nearest_domain(parts: Parts) -> None:
    """``nearest``: a domain with a copy serves itself (rule 17).

    Z[e, C] = 1 if some GPU of domain C holds e; what leaves C is D·(1 − Z).
    """
    problem, columns = parts.problem, parts.columns
    level, builder = problem.cell_level, parts.builder
    if not problem.nearest or level is None or level == problem.hierarchy.levels:
        return
    demand_EG, cell_G = parts.amounts.demand_EG, problem.hierarchy.block_KG[level]
    copies = columns.held_EB[level - 1]
    local = builder.variables("local", copies.shape, upper=1.0)
    some = builder.rows("local_some", copies.shape, upper=0.0)
    builder.add(some, local)
    builder.add(some, copies, -1.0)
    every = builder.rows("local_every", demand_EG.shape, lower=0.0)
    builder.add(every, local[:, cell_G])
    builder.add(every, columns.placed_ER[:, problem.rank_G], -1.0)
    leave = builder.rows(
        "local_leave", demand_EG.shape, lower=demand_EG, upper=demand_EG
    )
    builder.add(leave[None], columns.out_HEG[level:])
    builder.add(leave, local[:, cell_G], demand_EG)


def totals(parts: Parts) -> None:
    """Flows summed over experts, which is all that links see."""
    columns = parts.columns
    for name, total, flow in (
        ("total_out", columns.total_out_HG, columns.out_HEG),
        ("total_into", columns.total_into_HG, columns.into_HEG),
    ):
        rows = parts.builder.rows(name, total.shape, lower=0.0, upper=0.0)
        parts.builder.add(rows, total, -1.0)
        parts.builder.add(rows[:, None, :], flow)


def transfers(parts: Parts) -> None:
    """Transfers of pairs, summed over experts, have the totals as margins."""
    columns, problem = parts.columns, parts.problem
    if not columns.pairs_Y.size:
        return
    source, target = np.divmod(columns.pairs_Y, problem.gpu_count)
    level_Y = problem.hierarchy.level_GG[source, target]
    for level in np.unique(level_Y).tolist():
        at = level_Y == level
        for name, end, total in (
            ("out", source, columns.total_out_HG),
            ("into", target, columns.total_into_HG),
        ):
            label = f"transfer_{name}_{level}"
            shape = (problem.gpu_count,)
            rows = parts.builder.rows(label, shape, lower=0.0, upper=0.0)
            parts.builder.add(rows, total[level - 1], -1.0)
            parts.builder.add(rows[end[at]], columns.transfer_Y[at])


def links(parts: Parts) -> None:
    """Every link of a leg carries at most t."""
    columns, builder = parts.columns, parts.builder
    unit = parts.scale.flow_unit / parts.scale.time_unit
    for leg, rows_of in enumerate(parts.problem.legs):
        count = rows_of.out_RHG.shape[0]
        rows = builder.rows(f"links_{leg}", (count,), upper=0.0)
        builder.add(rows, columns.peak[leg], -1.0)
        at = rows[:, None, None]
        builder.add(at, columns.total_out_HG[None], rows_of.out_RHG * unit)
        builder.add(at, columns.total_into_HG[None], rows_of.in_RHG * unit)
        joint = int(rows_of.row_Y.max(initial=-1)) + 1
        both = builder.rows(f"links_joint_{leg}", (joint,), upper=0.0)
        builder.add(both, columns.peak[leg], -1.0)
        place = np.searchsorted(columns.pairs_Y, rows_of.pair_Y)
        if joint:
            column_Y = columns.transfer_Y[place]
            builder.add(both[rows_of.row_Y], column_Y, rows_of.value_Y * unit)


def gpu_load(parts: Parts) -> None:
    """``gpu_tokens``: own service and arrivals are at most t per GPU."""
    if parts.problem.legs:
        return
    own_G = parts.amounts.demand_EG.sum(axis=0)
    rows = parts.builder.rows("gpu_load", own_G.shape, upper=-own_G)
    size_G = parts.problem.size_G.astype(np.float64)
    parts.builder.add(rows, parts.columns.peak, -size_G)
    parts.builder.add(rows[None], parts.columns.total_out_HG, -1.0)
    parts.builder.add(rows[None], parts.columns.total_into_HG)


def caps(parts: Parts) -> None:
    """Rule 26: own service and arrivals of a GPU or domain keep their cap."""
    own_G = parts.amounts.demand_EG.sum(axis=0)
    limits = parts.problem.caps
    upper = [
        cap.limit / parts.scale.flow_unit - own_G[list(cap.gpus)].sum()
        for cap in limits
    ]
    rows = parts.builder.rows("caps", (len(limits),), upper=upper)
    for row, cap in zip(rows, limits, strict=True):
        members = list(cap.gpus)
        parts.builder.add(row, parts.columns.total_out_HG[:, members], -1.0)
        parts.builder.add(row, parts.columns.total_into_HG[:, members])


FAMILIES: tuple[Callable[[Parts], None], ...] = (
    coverage,
    slots,
    held,
    arrived,
    own_service,
    service,
    balance,
    transport,
    reach,
    nearest_domain,
    totals,
    transfers,
    links,
    gpu_load,
    caps,
)
LIGHT_FAMILIES = tuple(
    family for family in FAMILIES if family not in (transport, reach)
)
"""A relaxation that the barrier solves in a third of the time."""
