"""Three and more slots per GPU: swaps, and whole patterns where the mean is far."""

from fractions import Fraction

import numpy as np

from planner import clock
from planner.strategies.balance.layer import (
    COOLING,
    EARLY_ROUNDS,
    LEVEL_STEPS,
    Effort,
    ProvingSearch,
)
from planner.strategies.balance.packing import parted
from planner.strategies.balance.patterns import PatternProver, patterns_bound
from planner.strategies.balance.problem import BalanceLayer
from planner.strategies.balance.swaps import Task, anneal_slots

SWAP_ROUNDS = ((5e-5, 1e-5), (2e-4, 1e-5), (0.0, 1e-4))
"""Level above the bound and first temperature of the rounds, again and again."""
SWAP_PROPOSALS = 700
"""Moves of a round for every slot."""
SWAP_ROUND = 3
"""A round of swaps counts for so many: a few are enough."""
SWAP_MOVES = 8_000_000.0
"""Rate of counted work: proposals per second in a layer of 256 GPUs."""
NEAR = (0.003, 0.001, 0.001)
"""So near the bound patterns are not asked, at first and again: where annealing gets to
the mean they prove nothing."""
FAR = 0.01
"""Farther from the mean a plan by patterns pays even where they prove no more."""
SHARES = (0.0, 0.4, 0.7)
"""Levels at which a plan is looked for: from the least open one to the best plan's."""
AFTER_ROUNDS = 6
"""Rounds of annealing from what patterns give."""


class Several(ProvingSearch):
    """Anneal slots; where the mean is not near, exclude levels by whole patterns."""

    def __init__(self, layer: BalanceLayer, effort: Effort) -> None:
        super().__init__(layer, effort)
        self.rounds = -(-effort.rounds // SWAP_ROUND)
        self._task = Task(self.size_ER[None], np.ones(1), True)
        self._prover = PatternProver(layer)
        self._bracketed = False
        self._counts_E = self.greedy_E

    def advance(self, thorough: bool) -> None:
        """Anneal; bound; plan by the patterns of the least level that is open."""
        self._prover.deadline = self.deadline
        self._anneal(self.rounds if thorough else EARLY_ROUNDS)
        for near in NEAR:
            if self._bracketed or not self.pending or self._gap <= near:
                break
            value, level = self.value, self._bound()
            if self._prover.copies_E is not None:
                self._counts_E = self._prover.copies_E
                self._anneal_more()
            if level is not None and self._gap > near:
                self._lay_out(level)
                self._anneal_more()
            self._bracketed = self.value == value and self.left > 0

    @property
    def _gap(self) -> float:
        return self.value / self.least - 1

    def _bound(self) -> float | None:
        """Raise the bound; return a level to plan for, None if annealing does."""
        first = self.least + (self.value - self.least) / LEVEL_STEPS
        if self._excluded(self.level(first)):
            return self.bracket(self._excluded)
        far = self._gap > FAR or self.bound.method == "patterns"
        return first if far else None

    def _excluded(self, level: Fraction) -> bool:
        proof = self._prover.prove(level)
        if proof is not None and level > self.bound.value:
            self.bound = patterns_bound(level, proof)
        return proof is not None

    def _lay_out(self, level: float) -> None:
        """Look for a plan made of whole patterns, at a level and further up."""
        for share in SHARES:
            at = self.level(level + share * (self.value - level))
            if not self.pending or self._excluded(at):
                continue
            found_GJ = self._prover.place(at)
            if found_GJ is None:
                continue
            copies_E = np.bincount(found_GJ.ravel(), minlength=self.layer.experts)
            size_E = self.size_ER[np.arange(self.layer.experts), copies_E - 1]
            slots_GJ = parted(found_GJ, size_E)
            if slots_GJ is not None:
                self.offer(slots_GJ)
                return

    def _anneal_more(self) -> None:
        self.rounds = max(self.rounds, self.round + AFTER_ROUNDS)
        self._anneal(self.round + AFTER_ROUNDS)

    def _anneal(self, upto: int) -> None:
        """Anneal, every other round anew, so that one bad valley is not the end."""
        while self.more_rounds(upto):
            above, hot = SWAP_ROUNDS[self.round % len(SWAP_ROUNDS)]
            again = self.round % 2 == 1
            _, found_GJ = anneal_slots(
                self._task,
                self.slots_GJ if again else self._start(self._counts_E),
                level=self.least * (1 + above),
                heat=(hot, hot * COOLING),
                proposals=SWAP_PROPOSALS * self.layer.slots,
                seed=self.effort.seed + self.round,
            )
            clock.spend(SWAP_PROPOSALS * self.layer.slots / SWAP_MOVES)
            self.offer(found_GJ)
            self.round += 1
