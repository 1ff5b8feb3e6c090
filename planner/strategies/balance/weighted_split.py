"""The best split over given copies, exactly, and its integer weights (rule 19).

Axes: E experts, G GPUs, J slots of a GPU.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from ortools.graph.python import max_flow

from planner.arrays import IdArray
from planner.errors import SolverError
from planner.strategies.balance.weighted_fill import (
    WEIGHT_SUM,
    Weights,
    exact_weights,
)

INT64_LIMIT = 2**62


def least_split(slots_GJ: IdArray, load_E: Sequence[int]) -> tuple[Fraction, Weights]:
    """Return the least busiest load over all splits, and integer weights for it.

    The load is that of free shares; weights that cannot have them exactly are
    rounded, by less than 2⁻³¹ of an expert's load per copy.

    It is max over sets X of experts of W(X) / (GPUs that hold one of X). Newton's
    method: at a level t, a minimum cut names the set X that exceeds t by most; its
    own ratio is the next level. Ratios are compared as integers.

    Raises
    ------
    SolverError
        If the loads are too large for 64-bit flows.
    """
    gpus = slots_GJ.shape[0]
    if sum(load_E) * gpus >= INT64_LIMIT:
        raise SolverError("loads are too large to be split exactly")
    level = Fraction(sum(load_E), gpus)
    while True:
        flows, crowded = _routed(slots_GJ, load_E, level)
        if not crowded:
            return level, _weights(flows, slots_GJ, load_E)
        holders = np.isin(slots_GJ, crowded).any(axis=1)
        level = Fraction(sum(load_E[e] for e in crowded), int(holders.sum()))


def _routed(
    slots_GJ: IdArray, load_E: Sequence[int], level: Fraction
) -> tuple[list[int], list[int]]:
    """Return flows of all slots (times the level's denominator) and a crowded set.

    The set is empty if the level suffices.
    """
    experts, (gpus, slots) = len(load_E), slots_GJ.shape
    unit, source, sink = level.denominator, len(load_E) + gpus, len(load_E) + gpus + 1
    holder = np.repeat(np.arange(gpus), slots)[slots_GJ.ravel() >= 0]
    expert = slots_GJ.ravel()[slots_GJ.ravel() >= 0].astype(np.int64)
    load = np.asarray(load_E, dtype=np.int64) * unit
    network = max_flow.SimpleMaxFlow()
    network.add_arcs_with_capacity(expert, experts + holder, load[expert])
    network.add_arcs_with_capacity(
        np.full(experts, source), np.arange(experts), load
    )
    network.add_arcs_with_capacity(
        experts + np.arange(gpus), np.full(gpus, sink), np.full(gpus, level.numerator)
    )
    if network.solve(source, sink) != network.OPTIMAL:
        raise SolverError("the flow over the copies failed")
    flows = network.flows(np.arange(expert.size)).tolist()
    if network.optimal_flow() == int(load.sum()):
        return flows, []
    side = network.get_source_side_min_cut()
    return flows, [node for node in side if node < experts]


def _weights(flows: list[int], slots_GJ: IdArray, load_E: Sequence[int]) -> Weights:
    parts: dict[int, list[int]] = {}
    held = [int(expert) for expert in slots_GJ.ravel() if expert >= 0]
    for expert, flow in zip(held, flows, strict=True):
        parts.setdefault(expert, []).append(flow)
    several = {
        expert: amounts
        for expert, amounts in parts.items()
        if len(amounts) > 1 and load_E[expert]
    }
    weights = exact_weights(several)
    if weights is not None:
        return weights
    return {expert: _rounded(amounts) for expert, amounts in several.items()}


def _rounded(parts: Sequence[int]) -> tuple[int, ...]:
    """Round proportions to integers of the largest sum, by largest remainder."""
    whole = sum(parts)
    weights = [part * WEIGHT_SUM // whole for part in parts]
    order = sorted(range(len(parts)), key=lambda i: -(parts[i] * WEIGHT_SUM % whole))
    for place in order[: WEIGHT_SUM - sum(weights)]:
        weights[place] += 1
    return tuple(weights)


def induced_load(
    slots_GJ: IdArray, load_E: Sequence[int], weights: Weights
) -> Fraction:
    """Return the busiest GPU's load under integer weights (missing: equal ones)."""
    load_G = [Fraction(0)] * slots_GJ.shape[0]
    for expert, load in enumerate(load_E):
        holders = [int(gpu) for gpu, _ in np.argwhere(slots_GJ == expert)]
        given = weights.get(expert, (1,) * len(holders))
        for gpu, weight in zip(holders, given, strict=True):
            load_G[gpu] += Fraction(load * weight, sum(given))
    return max(load_G)
