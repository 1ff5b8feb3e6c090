"""A coarser model of a layer: level-k blocks instead of GPUs, as a fast bound.

What happens inside a block costs nothing, and rows that tell its GPUs apart are
averaged: a relaxation with as many times fewer columns as a block has GPUs. Axes: R
rows, H levels, G GPUs, B blocks.
"""

from dataclasses import replace

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.formulation.cut.hierarchy import Hierarchy
from planner.formulation.cut.ports import LegRows, Ports
from planner.formulation.cut.problem import LayerProblem


def folded(problem: LayerProblem, level: int) -> LayerProblem:
    """Return the relaxation whose units are the blocks of ``level``.

    x[e, B] says that some GPU of the block holds e. Caps, rows of ``nearest`` and
    links that need both ends are left out; EP sets may hold different experts.
    """
    block_G = problem.hierarchy.block_KG[level]
    count = problem.hierarchy.count(level)
    first_B = np.unique(block_G, return_index=True)[1]
    demand_EB = np.zeros((problem.experts, count), dtype=problem.demand_EG.dtype)
    np.add.at(demand_EB.T, block_G, problem.demand_EG.T)
    return replace(
        problem,
        ports=Ports(
            hierarchy=Hierarchy(block_KG=problem.hierarchy.block_KG[level:, first_B]),
            legs=tuple(_folded_leg(leg, level, block_G) for leg in problem.legs),
        ),
        demand_EG=demand_EB,
        size_G=np.bincount(block_G, weights=problem.size_G).astype(np.int64),
        rank_G=np.arange(count),
        caps=(),
        nearest=False,
        cell_level=None,
    )


def row_weights(problem: LayerProblem, level: int) -> tuple[FloatArray, ...]:
    """Return, by leg, how much of each link's row is in each folded row [R', R].

    Weights of a folded row add up to 1: prices of folded rows become prices of links.
    """
    block_G = problem.hierarchy.block_KG[level]
    return tuple(_fold_rows(leg, level, block_G)[1] for leg in problem.legs)


def _folded_leg(leg: LegRows, level: int, block_G: IntArray) -> LegRows:
    least, _ = _fold_rows(leg, level, block_G)
    half = least.shape[1] // 2
    none = np.zeros(0, dtype=np.int64)
    return LegRows(
        out_RHG=least[:, :half],
        in_RHG=least[:, half:],
        row_Y=none,
        pair_Y=none,
        value_Y=np.zeros(0),
        weight=leg.weight,
    )


def _fold_rows(
    leg: LegRows, level: int, block_G: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Average rows, then take the least coefficient of each block: flows are >= 0."""
    inner = np.concatenate([leg.out_RHG[:, :level], leg.in_RHG[:, :level]], axis=1)
    usable_R = (inner >= 0).all(axis=(1, 2))
    both = np.concatenate([leg.out_RHG[:, level:], leg.in_RHG[:, level:]], axis=1)
    weight_RR = _averaged(both, np.flatnonzero(usable_R), block_G)
    mean = np.tensordot(weight_RR, both, axes=1)
    least = _by_block(mean, block_G, np.minimum)
    loaded = np.flatnonzero((least != 0).any(axis=(1, 2)))
    least, first = np.unique(least[loaded], axis=0, return_index=True)
    return least, weight_RR[loaded[first]]


def _averaged(rows: FloatArray, usable: IntArray, block_G: IntArray) -> FloatArray:
    """Return weights [R', R] that average rows which tell GPUs of a block apart.

    Rows that touch the same blocks form a group; a row weighs the less the larger
    its coefficients, so that ports of one block average to equal coefficients.
    """
    even_R = np.asarray([_even(rows[at], block_G) for at in usable], dtype=np.bool_)
    groups: dict[bytes | int, list[int]] = {at: [at] for at in usable[even_R].tolist()}
    for at in usable[~even_R].tolist():
        largest = _by_block(np.abs(rows[at]), block_G, np.maximum)
        groups.setdefault((largest > 0).tobytes(), []).append(at)
    weight_RR = np.zeros((len(groups), len(rows)))
    for weight_R, members in zip(weight_RR, groups.values(), strict=True):
        size = np.abs(rows[members]).max(axis=(1, 2), initial=0.0)
        weight_R[members] = 1.0 / np.where(size > 0, size, 1.0)
        weight_R[members] /= weight_R[members].sum()
    return weight_RR


def _even(row: FloatArray, block_G: IntArray) -> BoolArray:
    """Whether a row's coefficients are equal inside every block."""
    first_B = np.unique(block_G, return_index=True)[1]
    equal: BoolArray = (row == row[:, first_B][:, block_G]).all()
    return equal


def _by_block(values: FloatArray, block_G: IntArray, reduce: np.ufunc) -> FloatArray:
    """Reduce the last axis over the GPUs of each block."""
    order = np.argsort(block_G, kind="stable")
    starts = np.searchsorted(block_G[order], np.arange(int(block_G.max()) + 1))
    reduced: FloatArray = reduce.reduceat(values[..., order], starts, axis=-1)
    return reduced
