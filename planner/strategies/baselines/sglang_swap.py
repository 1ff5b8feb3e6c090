"""``sglang_swap``: the swaps of SGLang's topology-aware balancer.

From contiguous experts, swaps first lower Σ pairs(source, expert) · cost(source, its
GPU), then even out GPUs; no GPU ever computes more than the fullest did at the start.
Reference: sgl-project/sglang, pull request 37923 (``topology_aware``), whose user
writes the cost matrix by hand; here the topology gives it.
"""

from itertools import pairwise

import numpy as np

from planner.arrays import BoolArray, FloatArray, IdArray, IntArray
from planner.evaluator.joint import planning_tokens
from planner.instance import PlacementInstance
from planner.strategies.baselines.base import BASELINES, AbsentBaselineError
from planner.traffic.base import TRAFFIC
from planner.workload.parts import CountsPart, TokenPart

SWAPS_PER_SLOT = 5
"""Swaps in all for each slot of a GPU; the first half of them may lower the cost."""
DEARER = 1 + 5e-4
"""What evening out GPUs may cost, against the cost before it."""
_LESS = 1e-12


@BASELINES.register("sglang_swap")
def sglang_swap(instance: PlacementInstance) -> IdArray:
    """Swap experts until the routes of their tokens are cheap (see the module)."""
    _need_what_sglang_needs(instance)
    cost_GG = rank_costs(instance)
    layers = [
        swapped_layer(pairs_SE, cost_GG, instance.slots_per_gpu)
        for pairs_SE in _traffic(instance)
    ]
    return np.stack(layers).astype(np.int16)


def _need_what_sglang_needs(instance: PlacementInstance) -> None:
    """Refuse what its server refuses."""
    if instance.single or instance.slot_count != instance.model.experts:
        raise AbsentBaselineError("SGLang's swaps place no redundant experts")
    if instance.layout.sets > 1:
        raise AbsentBaselineError("SGLang's swaps know one EP set, on all GPUs")
    for view in instance.views:
        if isinstance(view.planning, CountsPart):
            raise AbsentBaselineError("SGLang's swaps need the source of every token")
        if TRAFFIC.get(view.traffic).chained:
            raise AbsentBaselineError("SGLang's swaps need tokens that leave from home")


def rank_costs(instance: PlacementInstance) -> FloatArray:
    """Return the seconds of a gigabyte on each route's slowest link [G, G].

    Raises
    ------
    AbsentBaselineError
        If some GPUs have no path, or routes are too many to write out.
    """
    try:
        indptr, link_Y, numerator_Y = instance.routes.incidence()
    except ValueError as error:
        raise AbsentBaselineError(f"no cost of every pair of GPUs: {error}") from None
    gpus = instance.topology.gpu_count
    reach_GG = instance.routes.reachable_GG | np.eye(gpus, dtype=np.bool_)
    if not reach_GG.all():
        source, target = np.argwhere(~reach_GG)[0]
        start, end = (instance.topology.gpus[int(at)].id for at in (source, target))
        raise AbsentBaselineError(f"no path from {start} to {end}")
    links = instance.topology.links
    slow_A = np.asarray([1e9 / float(link.bytes_per_s) for link in links])
    seconds_Y = numerator_Y.astype(np.float64) / float(instance.routes.q)
    seconds_Y *= slow_A[link_Y]
    rows = [
        float(seconds_Y[start:end].max(initial=0.0))
        for start, end in pairwise(indptr.tolist())
    ]
    return np.asarray(rows).reshape(gpus, gpus)


def _traffic(instance: PlacementInstance) -> FloatArray:
    """Return (token, expert) pairs by layer, source GPU and expert [L, S, E].

    Of several workloads the weighted mean of pairs per token.
    """
    if len(instance.views) == 1:
        return _pairs(instance)
    mean_LSE = sum(
        _pairs(view) * float(workload.weight / tokens)
        for view, workload, tokens in zip(
            instance.views, instance.workloads, planning_tokens(instance), strict=True
        )
        if tokens
    )
    return np.asarray(mean_LSE)


def _pairs(view: PlacementInstance) -> FloatArray:
    part = view.planning
    assert isinstance(part, TokenPart)
    experts, gpus = view.model.experts, view.layout.gpu_count
    counts = [
        np.bincount(
            (part.source_T[:, None] * experts + ids_TK)[ids_TK >= 0],
            minlength=gpus * experts,
        ).reshape(gpus, experts)
        for ids_TK in part.experts_LTK.astype(np.int64)
    ]
    return np.stack(counts).astype(np.float64)


def swapped_layer(
    pairs_SE: FloatArray, cost_GG: FloatArray, slots_per_gpu: int
) -> IntArray:
    """Return the experts of every GPU [G, J], ascending, after the swaps."""
    gpus, experts = pairs_SE.shape
    state = _Swaps(pairs_SE.sum(axis=0), pairs_SE.T @ cost_GG, slots_per_gpu)
    most = max(1, SWAPS_PER_SLOT * slots_per_gpu)
    done = 0
    while done < max(1, most // 2) and state.lower_cost():
        done += 1
    limit = state.cost * DEARER
    while done < most and state.even_out(limit):
        done += 1
    start_E = np.arange(experts) // slots_per_gpu
    end_E = state.gpu_E if state.no_dearer else start_E
    return np.argsort(end_E, kind="stable").reshape(gpus, slots_per_gpu)


class _Swaps:
    """Experts on GPUs, and the best legal swap of two of them."""

    def __init__(
        self, load_E: FloatArray, cost_EG: FloatArray, slots_per_gpu: int
    ) -> None:
        self._load_E, self._cost_EG = load_E, cost_EG
        self._expert_E = np.arange(load_E.size)
        self.gpu_E = self._expert_E // slots_per_gpu
        self._load_G = np.bincount(self.gpu_E, weights=load_E)
        self._most = float(self._load_G.max())
        self.start_cost = self.cost

    @property
    def cost(self) -> float:
        """Σ over experts of what their pairs cost where they are."""
        return float(self._cost_EG[self._expert_E, self.gpu_E].sum())

    @property
    def no_dearer(self) -> bool:
        """Whether the cost is at most that of the start."""
        return self.cost <= self.start_cost * (1 + _LESS)

    def lower_cost(self) -> bool:
        """Do the legal swap that saves most; False if none saves anything."""
        _, legal_EE, _ = self._legal()
        change_EE = np.where(legal_EE, self._change(), np.inf)
        best = int(np.argmin(change_EE))
        if not change_EE.flat[best] < -_LESS * self.start_cost:
            return False
        self._swap(best)
        return True

    def even_out(self, limit: float) -> bool:
        """Do the swap after which the fullest GPU, then Σ load², is least.

        The cost may not rise above ``limit``; False if no swap lowers either.
        """
        first_EE, legal_EE, second_EE = self._legal()
        legal_EE &= self.cost + self._change() <= limit + _LESS * self.start_cost
        gpu_E, load_G = self.gpu_E, self._load_G
        squares_EE = first_EE**2 + second_EE**2
        square_E = load_G[gpu_E] ** 2
        squares_EE += (load_G**2).sum() - square_E[:, None] - square_E
        most_EE = np.maximum(np.maximum(first_EE, second_EE), self._others())
        old_most, old_squares = load_G.max(), (load_G**2).sum()
        tied_EE = np.abs(most_EE - old_most) <= _LESS * old_most
        fewer_EE = squares_EE < old_squares * (1 - _LESS)
        legal_EE &= (most_EE < old_most * (1 - _LESS)) | (tied_EE & fewer_EE)
        if not legal_EE.any():
            return False
        least = most_EE[legal_EE].min()
        legal_EE &= most_EE <= least * (1 + _LESS)
        self._swap(int(np.argmin(np.where(legal_EE, squares_EE, np.inf))))
        return True

    def _legal(self) -> tuple[FloatArray, BoolArray, FloatArray]:
        """Loads of both GPUs after each swap, and which swaps may be done."""
        gpu_E, load_E = self.gpu_E, self._load_E
        moved_EE = load_E[None, :] - load_E[:, None]
        first_EE = self._load_G[gpu_E][:, None] + moved_EE
        second_EE = self._load_G[gpu_E][None, :] - moved_EE
        legal_EE = np.triu(gpu_E[:, None] != gpu_E[None, :])
        most = self._most * (1 + _LESS)
        legal_EE &= (first_EE <= most) & (second_EE <= most)
        return first_EE, legal_EE, second_EE

    def _change(self) -> FloatArray:
        """What each swap adds to the cost [E, E]."""
        there_EE = self._cost_EG[:, self.gpu_E]
        here_E = np.diagonal(there_EE)
        change_EE: FloatArray = there_EE + there_EE.T - here_E[:, None] - here_E
        return change_EE

    def _others(self) -> FloatArray:
        """Load of the fullest GPU besides the two of each swap [E, E]."""
        order = np.argsort(-self._load_G, kind="stable")[:3]
        load = [*self._load_G[order].tolist(), 0.0, 0.0][:3]
        at_first = self.gpu_E == order[0]
        at_second = self.gpu_E == order[1] if order.size > 1 else at_first
        one_EE = at_first[:, None] | at_first
        both_EE = one_EE & (at_second[:, None] | at_second)
        most_EE: FloatArray = np.where(one_EE, load[1], load[0])
        return np.where(both_EE, load[2], most_EE)

    def _swap(self, flat: int) -> None:
        one, two = divmod(flat, self.gpu_E.size)
        gpu_one, gpu_two = int(self.gpu_E[one]), int(self.gpu_E[two])
        moved = self._load_E[two] - self._load_E[one]
        self._load_G[gpu_one] += moved
        self._load_G[gpu_two] -= moved
        self.gpu_E[one], self.gpu_E[two] = gpu_two, gpu_one
