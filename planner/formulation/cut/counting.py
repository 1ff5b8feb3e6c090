"""A bound by counting copies: the hottest experts need more of them than there are.

If every t were at most T, one copy of e on GPU g could serve at most s_g(T) = own
demand + what the ports of g take in time T. Then e needs at least as many copies as
it takes of the largest s_g to reach its demand, and all experts together at most P.
The LP does not see this: it spreads a copy over many GPUs. Axes: E experts, G GPUs,
H levels, L legs.
"""

import numpy as np

from planner.arrays import FloatArray
from planner.formulation.cut.problem import LayerProblem
from planner.formulation.cut.variables import Scale, amounts_of

_STEPS = 60


def counting_bound(problem: LayerProblem) -> float:
    """Return a lower bound of the layer's objective (seconds or tokens)."""
    scale = Scale(flow_unit=1.0, time_unit=1.0)
    amounts = amounts_of(problem, scale)
    if not problem.legs:
        whole_EG = amounts.demand_EG.sum(axis=1)[:, None] * np.ones(problem.gpu_count)
        alone = _Counting(problem, np.zeros_like(whole_EG), whole_EG[None])
        return alone.least(np.ones((1, problem.gpu_count)))
    counting = _Counting(problem, amounts.demand_EG, amounts.around_HEG)
    total = 0.0
    for leg in problem.legs:
        plus = np.logical_and(
            (leg.out_RHG >= 0).all(axis=(1, 2), keepdims=True),
            (leg.in_RHG >= 0).all(axis=(1, 2), keepdims=True),
        )
        strongest_HG = np.where(plus, leg.in_RHG, 0.0).max(axis=0, initial=0.0)
        total += leg.weight * counting.least(strongest_HG)
    return total


class _Counting:
    """Copies that the experts of a layer need within a time."""

    def __init__(
        self, problem: LayerProblem, own_EG: FloatArray, around_HEG: FloatArray
    ) -> None:
        self._own_EG, self._around_HEG = own_EG, around_HEG
        self._set_G = problem.hierarchy.block_KG[-1]
        self._slots = problem.slots_per_gpu * problem.ranks
        self._demand_EG = problem.amount_EG

    def least(self, cost_HG: FloatArray) -> float:
        """Largest T found at which the copies do not suffice; cost per pair."""
        with np.errstate(divide="ignore"):
            rate_HG = np.where(cost_HG > 0, 1.0 / cost_HG, np.inf)
        low, high = 0.0, float((self._around_HEG.max(axis=1) * cost_HG).max())
        if high <= 0 or self._needed(low, rate_HG) <= self._slots:
            return 0.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            if self._needed(middle, rate_HG) > self._slots:
                low = middle
            else:
                high = middle
        return low

    def _needed(self, time: float, rate_HG: FloatArray) -> int:
        finite = np.isfinite(rate_HG)
        taken_HG = np.where(finite, time * np.where(finite, rate_HG, 0.0), np.inf)
        served_EG = self._own_EG + np.minimum(
            self._around_HEG, taken_HG[:, None, :]
        ).sum(axis=0)
        needed_E = np.ones(len(served_EG), dtype=np.int64)
        for number in range(int(self._set_G.max()) + 1):
            inside = self._set_G == number
            best_first = -np.sort(-served_EG[:, inside], axis=1)
            # Rounding must not ask for a copy too many.
            wanted_E = self._demand_EG[:, inside].sum(axis=1) * (1 - 1e-12)
            enough = np.cumsum(best_first, axis=1) < wanted_E[:, None]
            needed_E = np.maximum(needed_E, 1 + enough.sum(axis=1))
        return int(needed_E.sum())
