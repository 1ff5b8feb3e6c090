"""Two slots per GPU: numbers of copies annealed, levels excluded by the relaxation."""

from fractions import Fraction

from planner import clock
from planner.strategies.balance.layer import (
    COOLING,
    EARLY_ROUNDS,
    Effort,
    ProvingSearch,
)
from planner.strategies.balance.pairing import anneal_counts, paired_slots
from planner.strategies.balance.problem import BalanceLayer
from planner.strategies.balance.threshold import Prover, Verdict, threshold_bound

PAIR_ROUNDS = ((0.003, 1e-4), (0.0015, 1e-4), (0.003, 1e-3), (0.0, 1e-5))
"""Level above the bound and first temperature of the rounds, again and again."""
PAIR_PROPOSALS = 1_000
"""Moves of a round for every slot."""
FIRST_SOLVES = (6, 16)
"""Relaxations that a proof by cases may take at first; with few by either rule before
many by either."""
THOROUGH_SOLVES = (((12, 50), (24, 100)), ((100,), (400,)), ((400,), (1600,)))
"""… then on the way to the best value, and at it: more where the time allows."""
HALVINGS = 3
NEAR = 0.01
"""So near the bound annealing gives more, at first, than relaxations do."""
FIRST_ROUNDS = 2
"""Rounds of annealing before the first relaxation."""
PAIR_MOVES = 6_000_000.0
"""Rate of counted work: proposals per second in a layer of 256 experts."""
USUAL = 256


class Pairs(ProvingSearch):
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
            self.bracket(lambda level: self._take(level, prover.root(level)))
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

    def _take(self, level: Fraction, verdict: Verdict) -> bool:
        """Keep what a verdict proves or finds; tell whether it proves."""
        if verdict.copies_E is not None:
            self.offer(paired_slots(self.size_ER, verdict.copies_E))
        if verdict.proof is None:
            return False
        if level > self.bound.value:
            self.bound = threshold_bound(level, verdict.proof)
        return True

    def _excluded(self, prover: Prover, share: float, budgets: tuple[int, ...]) -> bool:
        """Try to exclude, by cases, a level between the bound (0) and the value (1)."""
        level = self.level(self.least + share * (self.value - self.least))
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
