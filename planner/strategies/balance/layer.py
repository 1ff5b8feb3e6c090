"""One layer from start to proof, by the number of slots of a GPU."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner.arrays import FloatArray, IdArray, IntArray
from planner.strategies.balance.bound import LayerBound, mean_bound
from planner.strategies.balance.count import count_bound
from planner.strategies.balance.packing import packed_slots
from planner.strategies.balance.pairing import (
    anneal_counts,
    greedy_counts,
    paired_slots,
)
from planner.strategies.balance.problem import BalanceLayer
from planner.strategies.balance.swaps import Task, anneal_slots
from planner.strategies.balance.threshold import (
    Prover,
    Verdict,
    just_below,
    threshold_bound,
)

CLOSE = 1e-4
"""Relative gap at which a search stops looking for better placements."""
PAIR_ROUNDS = ((0.003, 1e-4), (0.0015, 1e-4), (0.003, 1e-3), (0.0, 1e-5))
"""Level above the bound and first temperature of the rounds, again and again."""
PAIR_PROPOSALS = 1_000
"""Moves of a round for every slot."""
SWAP_ROUNDS = ((5e-5, 1e-5), (2e-4, 1e-5), (0.0, 1e-4))
SWAP_PROPOSALS = 700
SWAP_ROUND = 3
"""A round of swaps counts for so many: a few are enough."""
COOLING = 1e-4
LEVELS = 2e-4
"""Relative width at which the level of the relaxation is known well enough."""
SPLIT_SOLVES = (16, 50, 50, 50, 80)
"""Relaxations that the proofs by cases may take, one after the other."""
EARLY_ROUNDS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerSolution:
    """Slots, the greatest load they are planned to make, and the bound."""

    slots_GJ: IdArray
    value: float
    bound: LayerBound
    finished: bool

    @property
    def gap(self) -> float:
        """(value − bound) / value."""
        return 1 - float(self.bound.value) / self.value if self.value else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to work on a layer, and what for.

    Attributes
    ----------
    rounds
        Rounds of annealing at most, if ``seconds`` allow.
    goal
        Relative gap that is good enough.
    """

    seconds: float
    rounds: int = 24
    goal: float = 0.0
    seed: int = 0


def solve_layer(layer: BalanceLayer, effort: Effort) -> LayerSolution:
    """Place one layer and bound it: one slot, two slots, or more."""
    if layer.total == 0:
        return _Search(layer, effort).solution(finished=True)
    if layer.slots_per_gpu == 1:
        return _Search(layer, effort).solution(finished=True)
    if layer.slots_per_gpu == 2:
        return _Pairs(layer, effort).run()
    return _Swaps(layer, effort).run()


class _Search:
    """The best placement and the best bound so far."""

    def __init__(self, layer: BalanceLayer, effort: Effort) -> None:
        self.layer, self.effort = layer, effort
        self.deadline = time.perf_counter() + effort.seconds
        self.unit = max(1.0, layer.total) / layer.gpus
        self.size_ER: FloatArray = np.ascontiguousarray(layer.most_ER / self.unit)
        self.bound = max(
            (mean_bound(layer), count_bound(layer)), key=lambda each: each.value
        )
        self.copies_E: IntArray = greedy_counts(self.size_ER, layer.slots)
        self.value = np.inf
        self.offer(self._start(self.copies_E))
        self.round, self.rounds = 0, effort.rounds

    def _start(self, copies_E: IntArray) -> IdArray:
        size_E = self.size_ER[np.arange(self.layer.experts), copies_E - 1]
        slots_GJ: IdArray = packed_slots(
            size_E, copies_E, self.layer.gpus, self.layer.slots_per_gpu
        )
        return slots_GJ

    @property
    def least(self) -> float:
        """The bound in means."""
        return float(self.bound.value) / self.unit

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.deadline - time.perf_counter()

    @property
    def open(self) -> bool:
        """Whether another round may help and there is time for it."""
        close = self.value <= self.least * (1 + max(CLOSE, self.effort.goal))
        return not close and self.round < self.rounds and self.left > 0

    def offer(self, slots_GJ: IdArray) -> bool:
        """Keep a placement if it is the best; tell whether it is."""
        copies_E = np.bincount(slots_GJ.ravel(), minlength=self.layer.experts)
        size_E = self.size_ER[np.arange(self.layer.experts), copies_E - 1]
        value = float(size_E[slots_GJ].sum(axis=1).max())
        if value >= self.value * (1 - 1e-12):
            return False
        self.value, self.slots_GJ, self.copies_E = value, slots_GJ, copies_E
        return True

    def solution(self, *, finished: bool) -> LayerSolution:
        """Return what was found."""
        return LayerSolution(
            slots_GJ=self.slots_GJ,
            value=self.value * self.unit,
            bound=self.bound,
            finished=finished,
        )


class _Swaps(_Search):
    """Three and more slots: the mean is close, swaps get there."""

    def run(self) -> LayerSolution:
        task = Task(self.size_ER[None], np.ones(1), True)
        self.rounds = -(-self.effort.rounds // SWAP_ROUND)
        while self.open:
            above, hot = SWAP_ROUNDS[self.round % len(SWAP_ROUNDS)]
            # Every other pass starts anew, so that one bad valley is not the end.
            start = self._start(greedy_counts(self.size_ER, self.layer.slots))
            _, found = anneal_slots(
                task,
                self.slots_GJ if self.round % 2 else start,
                level=self.least * (1 + above),
                heat=(hot, hot * COOLING),
                proposals=SWAP_PROPOSALS * self.layer.slots,
                seed=self.effort.seed + self.round,
            )
            self.offer(found)
            self.round += 1
        return self.solution(finished=self.left > 0)


class _Pairs(_Search):
    """Two slots: anneal the numbers of copies, prove by the relaxation."""

    def run(self) -> LayerSolution:
        self.offer(paired_slots(self.size_ER, self.copies_E))
        prover = Prover(self.layer, self.deadline)
        self._anneal(2)
        if self._above_goal:
            self._bracket(prover)
        self._anneal(EARLY_ROUNDS)
        if self._above_goal:
            self._prove(prover, SPLIT_SOLVES[:1])
        if self._above_goal:
            self._anneal(self.effort.rounds)
        while self._above_goal and self._prove(prover, SPLIT_SOLVES):
            pass
        return self.solution(finished=self.left > 0)

    @property
    def _above_goal(self) -> bool:
        gap = 1 - self.least / self.value
        return gap > max(1e-9, self.effort.goal) and self.left > 0

    def _anneal(self, rounds: int) -> None:
        last = self.round + rounds
        while self.open and self.round < last:
            above, hot = PAIR_ROUNDS[self.round % len(PAIR_ROUNDS)]
            _, copies_E = anneal_counts(
                self.size_ER,
                self.copies_E
                if self.round % 2
                else greedy_counts(self.size_ER, self.layer.slots),
                self.least * (1 + above),
                (hot, hot * COOLING),
                PAIR_PROPOSALS * self.layer.slots,
                self.effort.seed + self.round,
            )
            self.offer(paired_slots(self.size_ER, copies_E))
            self.round += 1

    def _level(self, value: float) -> Fraction:
        return just_below(Fraction(value * self.unit))

    def _take(self, level: Fraction, verdict: Verdict) -> bool:
        """Keep what a verdict proves or finds; tell whether it proves."""
        if verdict.copies_E is not None:
            self.offer(paired_slots(self.size_ER, verdict.copies_E))
        if verdict.proof is None:
            return False
        if level > self.bound.value:
            self.bound = threshold_bound(level, verdict.proof)
        return True

    def _bracket(self, prover: Prover) -> None:
        """Find the highest level that the relaxation excludes without cases."""
        low, high = self.least, self.value
        level = self._level(high)
        if self._take(level, prover.root(level)):
            return
        while high - low > LEVELS * high and self.left > 0:
            middle = (low + high) / 2
            level = self._level(middle)
            if self._take(level, prover.root(level)):
                low = middle
            else:
                high = middle

    def _prove(self, prover: Prover, budgets: Sequence[int]) -> bool:
        """Prove the best value, or as near to it as few cases can.

        The first and the last attempt are at the value itself, the others halve the
        way to it. Returns whether a better placement turned up, which makes another
        try worth.
        """
        least, value = self.least, self.value
        proven, failed = 0.0, 1.0
        for attempt, budget in enumerate(budgets):
            whole = attempt == 0 or attempt == len(budgets) - 1
            share = 1.0 if whole else (proven + failed) / 2
            level = self._level(least + share * (value - least))
            done = any(
                self._take(level, prover.split(level, budget, by_size=by_size))
                for by_size in (True, False)
            )
            if self.value < value * (1 - 1e-9):
                return True
            if done and whole:
                return False
            proven, failed = (share, failed) if done else (proven, share)
        return False
