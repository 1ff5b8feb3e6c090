"""One layer under a free split (``weighted``): placement, weights, bound.

Which way it goes is decided by the numbers of experts, GPUs and slots alone:

- one slot per GPU: copies one after the other to the greatest load per copy;
- E ≤ (J-1)·G + 1: the mean, exactly (:mod:`~planner.strategies.balance.weighted.fill`);
- up to 16 experts: the best partition into blocks, by dynamic programming;
- else a search over partitions, and the bound by covering multipliers.

Axes: E experts, G GPUs, J slots of a GPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner import clock
from planner.arrays import IdArray
from planner.strategies.balance.bound import LayerBound, mean_bound, ratio_text
from planner.strategies.balance.count import count_bound, fewest_copies
from planner.strategies.balance.layer import Effort
from planner.strategies.balance.problem import counted_layer
from planner.strategies.balance.weighted.covering import covering_bound
from planner.strategies.balance.weighted.exact import MOST_EXPERTS, best_blocks
from planner.strategies.balance.weighted.fill import (
    Block,
    Weights,
    filled,
    mean_is_reached,
)
from planner.strategies.balance.weighted.search import (
    block_value,
    packed_blocks,
    searched_blocks,
)

PROPOSALS = 500_000
"""Moves at each level of a search: about 0.1 s."""
FIRST_TURNS, TURNS = 4, 16
"""Searches at first, and in all."""
CLOSE = Fraction(1, 1000)
"""A relative gap that is good enough at first."""
CLOSER = Fraction(1, 5000)
"""One that is good enough thoroughly: about what levels are told apart by."""
CHECKED_EXPERTS = 12
"""Most experts whose partitions the checker of certificates goes through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedLayer:
    """A layer's placement with its evidence.

    Attributes
    ----------
    slots_GJ
        No GPU holds an expert twice; all slots are used.
    weights
        Integer weights of experts with several copies, in copy order (rule 19);
        copies of the others share evenly.
    finished
        False where the time ended the work.
    """

    slots_GJ: IdArray
    weights: Weights
    bound: LayerBound
    finished: bool


class WeightedSearch:
    """The best partition into blocks and the best bound so far.

    Parameters
    ----------
    load_E
        (token, expert) pairs of each expert.

    Raises
    ------
    ValueError
        If P < E, or J > E (two copies of an expert would share a GPU).
    """

    def __init__(
        self, load_E: Sequence[int], gpus: int, slots_per_gpu: int, effort: Effort
    ) -> None:
        self._load_E = tuple(int(load) for load in load_E)
        if not slots_per_gpu <= len(self._load_E) <= gpus * slots_per_gpu:
            raise ValueError("needs J ≤ E ≤ G·J")
        self._gpus, self._slots, self._effort = gpus, slots_per_gpu, effort
        problem = counted_layer(np.asarray(self._load_E), gpus, slots_per_gpu)
        bounds = (mean_bound(problem), count_bound(problem))
        self.bound = max(bounds, key=lambda each: each.value)
        self._turn, self._timed_out = 0, False
        self._bounded_at: tuple[Fraction, bool] | None = None
        self.closed = True
        """Whether there is nothing left to search."""
        if slots_per_gpu == 1:
            copies_E, _ = fewest_copies(problem)
            self._best = [
                Block(experts=(expert,), gpus=copies)
                for expert, copies in enumerate(copies_E.tolist())
            ]
        elif mean_is_reached(len(self._load_E), gpus, slots_per_gpu):
            self._best = [Block(experts=tuple(range(len(self._load_E))), gpus=gpus)]
        elif len(self._load_E) <= MOST_EXPERTS:
            self._best = best_blocks(self._load_E, gpus, slots_per_gpu)
            self.bound = self._exact_bound()
        else:
            self._best = packed_blocks(self._load_E, gpus, slots_per_gpu)
            self.closed = False

    @property
    def value(self) -> Fraction:
        """The busiest GPU's load, before shares are rounded to weights."""
        return block_value(self._best, self._load_E)

    @property
    def gap(self) -> Fraction:
        """(value - bound) / value."""
        return 1 - self.bound.value / self.value if self.value else Fraction(0)

    def work(self, seconds: float, *, thorough: bool) -> WeightedLayer:
        """Search for so long at most, or until bound and value are close."""
        if not self.closed:
            self._search(clock.now() + seconds, thorough=thorough)
        slots_GJ, weights = filled(self._best, self._load_E, self._slots)
        return WeightedLayer(
            slots_GJ=slots_GJ,
            weights=weights,
            bound=self.bound,
            finished=self.closed or not self._timed_out,
        )

    def _exact_bound(self) -> LayerBound:
        """Return the value of the best partition as a bound."""
        value = self.value
        if self.bound.value == value:
            return self.bound
        checked = len(self._load_E) <= CHECKED_EXPERTS
        certificate = {"kind": "partition", "level": ratio_text(value)}
        return LayerBound(
            value=value,
            method="partition",
            certificate=certificate if checked else None,
            branching=not checked,
        )

    def _search(self, deadline: float, *, thorough: bool) -> None:
        """Search and bound in turn until they are close, or time is up.

        The bound is looked for again only where a better plan makes that worth while.
        """
        turns = TURNS if thorough else FIRST_TURNS
        close = max(CLOSER if thorough else CLOSE, Fraction(self._effort.goal))
        start = packed_blocks(self._load_E, self._gpus, self._slots)
        while self._turn < turns and self.gap > close:
            self._timed_out = clock.now() >= deadline
            if self._timed_out:
                return
            found = searched_blocks(
                start,
                self._load_E,
                floor=self.bound.value,
                ceiling=self.value,
                proposals=PROPOSALS,
                seed=self._effort.seed + self._turn,
                deadline=deadline,
            )
            self._turn += 1
            if block_value(found, self._load_E) < self.value:
                self._best = found
            if self.gap > close and self._bounded_at != (self.value, thorough):
                self._raise_bound(close, deadline)
                self._bounded_at = self.value, thorough
        self.closed = thorough or self.gap <= CLOSER

    def _raise_bound(self, close: Fraction, deadline: float) -> None:
        proven = covering_bound(
            self._load_E,
            self._gpus,
            self._slots,
            value=self.value,
            floor=self.bound.value,
            precision=close / 2,
            deadline=deadline,
        )
        self.bound = proven or self.bound
