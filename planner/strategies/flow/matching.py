"""How many transfers two sides can save by sitting together, bounded from above."""

from typing import NamedTuple

import numpy as np
from ortools.graph.python import min_cost_flow

from planner.arrays import IntArray


class Together(NamedTuple):
    """Multipliers that bound what is saved where sides sit together.

    No placement saves more than ``rows · Σ row_U + columns · Σ column_V +
    Σ max(0, W − row_U − column_V)``, which is ``saved``.
    """

    row_U: IntArray
    column_V: IntArray
    saved: int


def together(weight_UV: IntArray, rows: int, columns: int) -> Together:
    """Bound Σ W over pairs that meet: a row meets ``rows`` columns at most, and so on.

    The bound is that of the transport problem with one unit per pair; multipliers
    are the potentials of its optimum, and hold whatever they are.
    """
    nothing = Together(
        np.zeros(len(weight_UV), dtype=np.int64),
        np.zeros(weight_UV.shape[1], dtype=np.int64),
        int(weight_UV.sum()),
    )
    if min(rows, columns) == 0:
        most = int(weight_UV.max(initial=0))
        return Together(nothing.row_U + most, nothing.column_V, 0)
    chosen_UV = _transport(weight_UV, rows, columns)
    if chosen_UV is None:
        return nothing
    found = _saved(weight_UV, *_potentials(weight_UV, chosen_UV), rows, columns)
    return min(found, nothing, key=lambda each: each.saved)


def _transport(weight_UV: IntArray, rows: int, columns: int) -> IntArray | None:
    """Return which pairs meet in the best transport, int64 0 or 1; None if none."""
    high, wide = weight_UV.shape
    solver = min_cost_flow.SimpleMinCostFlow()
    row, column = np.divmod(np.arange(high * wide), wide)
    arcs = solver.add_arcs_with_capacity_and_unit_cost(
        row, high + column, np.ones(row.size, dtype=np.int64), -weight_UV.ravel()
    )
    moved = min(high * min(rows, wide), wide * min(columns, high))
    source, sink = high + wide, high + wide + 1
    for node in range(high):
        solver.add_arc_with_capacity_and_unit_cost(source, node, rows, 0)
    for node in range(wide):
        solver.add_arc_with_capacity_and_unit_cost(high + node, sink, columns, 0)
    solver.set_node_supply(source, moved)
    solver.set_node_supply(sink, -moved)
    if solver.solve_max_flow_with_min_cost() != solver.OPTIMAL:
        return None
    flow: IntArray = np.asarray(solver.flows(arcs), dtype=np.int64)
    return flow.reshape(high, wide)


def _potentials(weight_UV: IntArray, chosen_UV: IntArray) -> tuple[IntArray, IntArray]:
    """Return multipliers with W ≥ row + column where chosen, ≤ elsewhere.

    Bellman–Ford on those inequalities alone; both are made ≥ 0 by what is free.
    """
    high, wide = weight_UV.shape
    row_U = weight_UV.max(axis=1, initial=0)
    column_V = np.zeros(wide, dtype=np.int64)
    far = np.int64(2**60)
    for _ in range(high + wide):
        # Not chosen: column ≥ W − row. Chosen: row ≤ W − column.
        need_V = np.where(chosen_UV == 0, weight_UV - row_U[:, None], -far).max(axis=0)
        raised_V = np.maximum(column_V, need_V)
        room_U = np.where(chosen_UV == 1, weight_UV - raised_V, far).min(axis=1)
        lowered_U = np.minimum(row_U, room_U)
        if (lowered_U == row_U).all() and (raised_V == column_V).all():
            break
        row_U, column_V = lowered_U, raised_V
    shift = min(int(column_V.min()), max(0, -int(row_U.min())))
    return row_U + shift, column_V - shift


def _saved(
    weight_UV: IntArray, row_U: IntArray, column_V: IntArray, rows: int, columns: int
) -> Together:
    row_U, column_V = np.maximum(row_U, 0), np.maximum(column_V, 0)
    over = np.maximum(0, weight_UV - row_U[:, None] - column_V[None, :])
    saved = rows * int(row_U.sum()) + columns * int(column_V.sum()) + int(over.sum())
    return Together(row_U, column_V, saved)
