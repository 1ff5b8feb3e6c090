"""Every link as a row over pairs of GPUs: exact on any graph."""

from collections.abc import Sequence

import numpy as np

from planner.arrays import FloatArray
from planner.formulation.cut.hierarchy import Hierarchy
from planner.formulation.cut.ports import LegRows, Timed, timed_legs
from planner.formulation.cut.problem import LayerProblem
from planner.instance import PlacementInstance


def pair_legs(instance: PlacementInstance, hierarchy: Hierarchy) -> tuple[LegRows, ...]:
    """Return the legs of an instance with all their links as rows over pairs."""
    return tuple(_over_pairs(timed, hierarchy) for timed in timed_legs(instance))


def _over_pairs(timed: Timed, hierarchy: Hierarchy) -> LegRows:
    rows = timed.rows
    nothing = np.zeros((0, hierarchy.levels, hierarchy.gpu_count))
    sizes = [row.pair_X.size for row in rows.values()]
    return LegRows(
        out_RHG=nothing,
        in_RHG=nothing,
        row_Y=np.repeat(np.arange(len(sizes)), sizes),
        pair_Y=np.concatenate([row.pair_X for row in rows.values()]),
        value_Y=np.concatenate(
            [float(row.factor) * row.value_X.astype(float) for row in rows.values()]
        ),
        weight=float(timed.weight),
        names={
            name: tuple(of_leg[key].link for key in rows)
            for name, of_leg in timed.legs.items()
        },
    )


def entry_count(legs: Sequence[LegRows]) -> int:
    """Return how many (link, pair) entries there are."""
    return sum(leg.row_Y.size for leg in legs)


def served_cost(
    leg: LegRows, problem: LayerProblem, demand_EG: FloatArray
) -> FloatArray:
    """Return the load of every row where rank r serves all of expert e [rows, E, R]."""
    count = int(leg.row_Y.max(initial=-1)) + 1
    source_Y, target_Y = np.divmod(leg.pair_Y, problem.gpu_count)
    share = np.zeros((count * problem.ranks, problem.gpu_count))
    at_Y = leg.row_Y * problem.ranks + problem.rank_G[target_Y]
    np.add.at(share, (at_Y, source_Y), leg.value_Y)
    cost = share @ demand_EG.T
    return cost.reshape(count, problem.ranks, -1).transpose(0, 2, 1)
