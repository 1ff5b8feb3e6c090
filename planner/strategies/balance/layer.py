"""One layer's best placement and bound so far, whatever finds them."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner import clock
from planner.arrays import FloatArray, IdArray, IntArray
from planner.strategies.balance.bound import LayerBound, just_below, mean_bound
from planner.strategies.balance.count import count_bound
from planner.strategies.balance.packing import packed_slots
from planner.strategies.balance.pairing import greedy_counts
from planner.strategies.balance.problem import BalanceLayer

CLOSE = 1e-4
"""Relative gap at which a search stops looking for better placements."""
COOLING = 1e-4
LEVELS = 2e-4
"""Relative width at which the level of a relaxation is known well enough."""
LEVEL_STEPS = 10
"""… or this part of what was open."""
EARLY_ROUNDS = 4
"""Rounds of annealing before anything thorough."""
PROVEN = 1e-9


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


class ProvingSearch(LayerSearch):
    """A search that asks of levels whether they can be excluded."""

    def level(self, value: float) -> Fraction:
        """Return the level just below a load in means."""
        return just_below(Fraction(value * self.unit))

    def bracket(self, excluded: Callable[[Fraction], bool]) -> float:
        """Find the highest level that is excluded; return one that is not.

        ``excluded`` keeps what it proves.
        """
        low, high = self.least, self.value
        if excluded(self.level(high)):
            return high
        width = max(LEVELS * high, (high - low) / LEVEL_STEPS)
        while high - low > width and self.left > 0:
            middle = (low + high) / 2
            if excluded(self.level(middle)):
                low = middle
            else:
                high = middle
        return high
