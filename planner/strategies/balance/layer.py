"""One layer from start to proof, by the number of slots of a GPU."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner import clock
from planner.arrays import FloatArray, IdArray, IntArray
from planner.strategies.balance.bound import LayerBound, mean_bound
from planner.strategies.balance.count import count_bound
from planner.strategies.balance.packing import packed_slots
from planner.strategies.balance.pairing import (
    anneal_counts,
    greedy_counts,
    paired_slots,
)
from planner.strategies.balance.problem import BalanceLayer, counted_layer
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
LEVEL_STEPS = 10
"""… or this part of what was open."""
FIRST_SOLVES = (6, 16)
"""Relaxations that a proof by cases may take at first; with few by either rule before
many by either."""
THOROUGH_SOLVES = (((12, 50), (24, 100)), ((100,), (400,)), ((400,), (1600,)))
"""… then on the way to the best value, and at it: more where the time allows."""
HALVINGS = 3
NEAR = 0.01
"""So near the bound annealing gives more, at first, than relaxations do."""
FIRST_ROUNDS, EARLY_ROUNDS = 2, 4
"""Rounds of annealing before the first relaxation, and before anything thorough."""
PROVEN = 1e-9
PAIR_MOVES, SWAP_MOVES = 6_000_000.0, 8_000_000.0
"""Rates of counted work: proposals per second in a layer of 256 experts or GPUs."""
USUAL = 256


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
    """How much to work on a layer, and what for.

    Attributes
    ----------
    rounds
        Rounds of annealing at most.
    goal
        Relative gap that is good enough.
    """

    rounds: int = 24
    goal: float = 0.0
    seed: int = 0


def solve_layer(
    layer: BalanceLayer, seconds: float, effort: Effort | None = None
) -> LayerSolution:
    """Place one layer and bound it, with all the effort that the time allows."""
    return search_of(layer, effort or Effort()).work(seconds, thorough=True)


def search_of(layer: BalanceLayer, effort: Effort) -> "LayerSearch":
    """Return the search for one slot, two slots, or more."""
    if layer.total == 0 or layer.slots_per_gpu == 1:
        return LayerSearch(layer, effort)
    if layer.slots_per_gpu == 2:
        return _Pairs(layer, effort)
    return _Swaps(layer, effort)


def compile_searches() -> None:
    """Solve two toys, which compiles what is not cached yet."""
    for slots in (2, 3):
        toy = counted_layer(np.arange(1, 5, dtype=np.int64), 2, slots)
        solve_layer(toy, 60.0, Effort(rounds=1))


class LayerSearch:
    """The best placement and the best bound so far; work can be taken up again.

    With one slot per GPU there is nothing to search: every new copy to the expert of
    greatest size makes the largest one least.
    """

    def __init__(self, layer: BalanceLayer, effort: Effort) -> None:
        self.layer, self.effort = layer, effort
        self.deadline = 0.0
        self.unit = max(1.0, layer.total) / layer.gpus
        self.size_ER: FloatArray = np.ascontiguousarray(layer.most_ER / self.unit)
        self.bound = max(
            (mean_bound(layer), count_bound(layer)), key=lambda each: each.value
        )
        self.greedy_E: IntArray = greedy_counts(self.size_ER, layer.slots)
        self.value, self.round, self.rounds = np.inf, 0, effort.rounds
        self.offer(self._start(self.greedy_E))

    def work(self, seconds: float, *, thorough: bool) -> LayerSolution:
        """Work on for so long at most: first what pays most, then thoroughly."""
        self.deadline = clock.now() + seconds
        self.advance(thorough)
        return LayerSolution(
            slots_GJ=self.slots_GJ,
            value=self.value * self.unit,
            bound=self.bound,
            finished=self.left > 0 or self.at_goal,
        )

    def advance(self, thorough: bool) -> None:
        """Do the work, as long as time is left."""

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
        return self.deadline - clock.now()

    @property
    def at_goal(self) -> bool:
        """Whether value and bound are as close as is wanted."""
        return 1 - self.least / self.value <= max(PROVEN, self.effort.goal)

    @property
    def pending(self) -> bool:
        """Whether there is something to reach and time for it."""
        return not self.at_goal and self.left > 0

    def more_rounds(self, upto: int) -> bool:
        """Whether another round of annealing may help."""
        close = self.value <= self.least * (1 + max(CLOSE, self.effort.goal))
        return not close and self.round < min(upto, self.rounds) and self.left > 0

    def offer(self, slots_GJ: IdArray) -> bool:
        """Keep a placement if it is the best; tell whether it is."""
        copies_E = np.bincount(slots_GJ.ravel(), minlength=self.layer.experts)
        size_E = self.size_ER[np.arange(self.layer.experts), copies_E - 1]
        value = float(size_E[slots_GJ].sum(axis=1).max())
        if value >= self.value * (1 - 1e-12):
            return False
        self.value, self.slots_GJ, self.copies_E = value, slots_GJ, copies_E
        return True


class _Swaps(LayerSearch):
    """Three and more slots: the mean is close, swaps get there."""

    def __init__(self, layer: BalanceLayer, effort: Effort) -> None:
        super().__init__(layer, effort)
        self.rounds = -(-effort.rounds // SWAP_ROUND)
        self._task = Task(self.size_ER[None], np.ones(1), True)

    def advance(self, thorough: bool) -> None:
        """Anneal, every other round anew, so that one bad valley is not the end."""
        while self.more_rounds(self.rounds if thorough else EARLY_ROUNDS):
            above, hot = SWAP_ROUNDS[self.round % len(SWAP_ROUNDS)]
            again = self.round % 2 == 1
            _, found_GJ = anneal_slots(
                self._task,
                self.slots_GJ if again else self._start(self.greedy_E),
                level=self.least * (1 + above),
                heat=(hot, hot * COOLING),
                proposals=SWAP_PROPOSALS * self.layer.slots,
                seed=self.effort.seed + self.round,
            )
            clock.spend(SWAP_PROPOSALS * self.layer.slots / SWAP_MOVES)
            self.offer(found_GJ)
            self.round += 1


class _Pairs(LayerSearch):
    """Two slots: anneal the numbers of copies, prove by the relaxation."""

    def __init__(self, layer: BalanceLayer, effort: Effort) -> None:
        super().__init__(layer, effort)
        self.offer(paired_slots(self.size_ER, self.greedy_E))
        self._bracketed = self._split = False

    def advance(self, thorough: bool) -> None:
        """Find, bound without cases, find more, prove by few cases, then by more."""
        # Its solver ends with this piece of work: the next may run elsewhere.
        prover = Prover(self.layer, self.deadline)
        self._anneal(FIRST_ROUNDS)
        proves = thorough or self.value > self.least * (1 + NEAR)
        if proves and self.pending and not self._bracketed:
            self._bracket(prover)
            self._bracketed = self.left > 0
        self._anneal(EARLY_ROUNDS)
        if proves and self.pending and not self._split:
            self._split = True
            self._excluded(prover, 1.0, FIRST_SOLVES)
        if thorough:
            self._anneal(self.rounds)
            for on_the_way, at_last in THOROUGH_SOLVES:
                while self.pending and self._prove(prover, on_the_way, at_last):
                    pass
                if prover.hopeless:
                    break

    def _anneal(self, upto: int) -> None:
        while self.more_rounds(upto):
            above, hot = PAIR_ROUNDS[self.round % len(PAIR_ROUNDS)]
            again = self.round % 2 == 1
            _, copies_E = anneal_counts(
                self.size_ER,
                self.copies_E if again else self.greedy_E,
                self.least * (1 + above),
                (hot, hot * COOLING),
                PAIR_PROPOSALS * self.layer.slots,
                self.effort.seed + self.round,
            )
            proposals = PAIR_PROPOSALS * self.layer.slots
            clock.spend(proposals * self.layer.experts / USUAL / PAIR_MOVES)
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
        if self._take(self._level(high), prover.root(self._level(high))):
            return
        width = max(LEVELS * high, (high - low) / LEVEL_STEPS)
        while high - low > width and self.left > 0:
            middle = (low + high) / 2
            level = self._level(middle)
            if self._take(level, prover.root(level)):
                low = middle
            else:
                high = middle

    def _excluded(self, prover: Prover, share: float, budgets: tuple[int, ...]) -> bool:
        """Try to exclude, by cases, a level between the bound (0) and the value (1)."""
        level = self._level(self.least + share * (self.value - self.least))
        return any(
            self._take(level, prover.split(level, solves, by_size=by_size))
            for solves in budgets
            for by_size in (False, True)
            if self.pending
        )

    def _prove(
        self, prover: Prover, on_the_way: tuple[int, ...], at_last: tuple[int, ...]
    ) -> bool:
        """Halve the way to the best value; at last try the value itself.

        Returns whether a better placement turned up, which makes another try worth.
        """
        value, share = self.value, 0.5
        for _ in range(HALVINGS):
            if not self._excluded(prover, share, on_the_way):
                share /= 2
            if not self.pending or self.value < value:
                return self.value < value
        self._excluded(prover, 1.0, at_last)
        return self.value < value
