"""One layer's solve: the best slots seen, as judged, and the best bound proven."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import numpy as np

from planner import clock
from planner.arrays import FloatArray, IdArray, IntArray
from planner.errors import InfeasibleError, SolverError
from planner.formulation.cut.block_prices import block_prices_of
from planner.formulation.cut.constraints import FAMILIES, LIGHT_FAMILIES
from planner.formulation.cut.counting import counting_bound
from planner.formulation.cut.decode import (
    held_of,
    placement_of,
    rounded_placement,
    split_of,
)
from planner.formulation.cut.encode import Encoded, encode
from planner.formulation.cut.encoding import CUTS, Encoding
from planner.formulation.cut.fold import folded
from planner.formulation.cut.problem import LayerProblem
from planner.formulation.mathopt import (
    BARRIER_COLUMNS,
    Outcome,
    solve_integer,
    solve_linear,
)
from planner.plan import SplitWeights

Judge = Callable[[IdArray, Mapping[int, SplitWeights]], tuple[Fraction, Fraction]]
"""Objective of slots and a split, and by how much they exceed the caps."""

ROUNDING = 2e-10
"""Bounds are lowered by this, relative: the model's numbers are doubles."""
CLOSED = 1 + 4 * ROUNDING
"""A value within this factor of a bound leaves nothing to gain."""
MOST_COLUMNS = 400_000
"""Models beyond this are bounded by their folded LP and by counting only."""
FOLD_LEVEL = 1
"""Level of the blocks that are a folded model's units."""
_DISAGREEMENT = 1e-6
"""A bound above a judged value by more than this means that the model is wrong."""


@dataclass(kw_only=True, eq=False)
class Standing:
    """What is known about a layer so far; can be sent to another process.

    Attributes
    ----------
    slots_RJ
        The best slots seen, with their ``split``; None before the first.
    value, excess
        Their objective, and by how much they exceed the caps.
    branched
        Whether ``bound``, which ``method`` proved, needed branching.
    finished
        Whether branch and bound has ended.
    trouble
        Why a solver gave up, if one did.
    """

    bound: float = 0.0
    method: str = "count"
    certificate: Mapping[str, Any] | None = None
    branched: bool = False
    finished: bool = False
    trouble: str | None = None
    value: Fraction = Fraction(0)
    excess: Fraction = Fraction(0)
    slots_RJ: IdArray | None = None
    split: Mapping[int, SplitWeights] = field(default_factory=dict)


_STANDING = tuple(each.name for each in fields(Standing))


class LayerSolve(Standing):
    """One layer's standing; the methods do one piece of work each.

    Parameters
    ----------
    problem
        The layer; ``name`` is how errors call it.
    judge
        The evaluator under the plan's own selection.
    rank_of_G
        DP rank of each GPU where a split may be chosen, else None.
    encoding
        The formulation.
    """

    def __init__(
        self,
        problem: LayerProblem,
        judge: Judge,
        *,
        name: str,
        rank_of_G: IntArray | None,
        encoding: Encoding[Any] = CUTS,
    ) -> None:
        super().__init__()
        self.problem, self._encoding = problem, encoding
        self._judge, self._name, self._rank_of_G = judge, name, rank_of_G

    def standing(self) -> Standing:
        """Return what is known, without what it takes to find out more."""
        return Standing(**{name: getattr(self, name) for name in _STANDING})

    def take(self, standing: Standing) -> None:
        """Go on from what is known elsewhere."""
        for name in _STANDING:
            setattr(self, name, getattr(standing, name))

    @property
    def open(self) -> bool:
        """Whether a better plan or bound may still exist."""
        kept = self.slots_RJ is not None and self.excess == 0
        closed = kept and float(self.value) <= self.bound * CLOSED
        return not (self.finished or closed)

    def offer(self, slots_RJ: IdArray, split: Mapping[int, SplitWeights]) -> None:
        """Judge slots and keep them if they are the best: caps first, then value."""
        value, excess = self._judge(slots_RJ, split)
        if self.slots_RJ is None or (excess, value) < (self.excess, self.value):
            self.value, self.excess = value, excess
            self.slots_RJ, self.split = slots_RJ, split

    def offer_best_split(self, slots_RJ: IdArray, seconds: float) -> None:
        """Judge slots with equal weights and with the split the model prefers."""
        self.offer(slots_RJ, {})
        if self._rank_of_G is not None and not self.huge:
            cut = self._cut()
            values_V = self._completed(cut, slots_RJ, seconds)
            if values_V is not None:
                flows_of = partial(self._encoding.flows, cut, values_V)
                ranks_G = self._rank_of_G
                split = split_of(self.problem, flows_of, slots_RJ, ranks_G)
                self.offer(slots_RJ, split)

    @property
    def large(self) -> bool:
        """Whether the LP takes seconds: then a folded one comes first."""
        return self._columns > BARRIER_COLUMNS

    @property
    def huge(self) -> bool:
        """Whether the full model is not even written down."""
        return self._columns > MOST_COLUMNS

    @property
    def _columns(self) -> int:
        return self._encoding.columns(self.problem)

    @cached_property
    def _small(self) -> Encoded:
        return self._encoded(self.problem)

    def _encoded(self, problem: LayerProblem) -> Encoded:
        encoded: Encoded = self._encoding.encode(problem)
        return encoded

    def _cut(self) -> Encoded:
        """The full model; a large one is not kept, for there are many layers."""
        return self._encoded(self.problem) if self.large else self._small

    def start(self, seconds: float) -> None:
        """Improve the split of the best slots; bound a large layer coarsely."""
        begun = clock.now()
        self.bound = counting_bound(self.problem) * (1 - ROUNDING)
        if self.large and self.problem.hierarchy.levels > 1:
            families = LIGHT_FAMILIES if self.huge else FAMILIES
            share = seconds if self.huge else seconds / 2
            self._relax(encode(folded(self.problem, FOLD_LEVEL), families), share)
        if self.slots_RJ is None:
            shape = (self.problem.experts, self.problem.ranks)
            slots = self.problem.slots_per_gpu
            self.offer(rounded_placement(np.zeros(shape), slots), {})
        if self.slots_RJ is not None:
            left = seconds - (clock.now() - begun)
            self.offer_best_split(self.slots_RJ, left)

    def relax(self, seconds: float) -> None:
        """Bound the layer by its LP and round the solution.

        Raises
        ------
        InfeasibleError
            If even fractional placements break a cap.
        """
        if self.huge:
            return
        begun, cut = clock.now(), self._cut()
        outcome = self._relax(cut, seconds)
        if outcome is not None and outcome.solutions:
            placed_ER = outcome.solutions[0][cut.columns.placed_ER]
            rounded = rounded_placement(placed_ER, self.problem.slots_per_gpu)
            left = seconds - (clock.now() - begun)
            self.offer_best_split(rounded, left)

    def _relax(self, cut: Encoded, seconds: float) -> Outcome | None:
        begun, model = clock.now(), cut.model.relaxed()
        outcome = self._tried(lambda: solve_linear(model, seconds))
        if outcome is None:
            if not cut.problem.nearest:
                return None
            # HiGHS' barrier fails on the equalities of nearest (OR-Tools 9.15).
            left = seconds - (clock.now() - begun)
            problem = replace(cut.problem, nearest=False)
            by_cuts = problem.size_G.max() > 1
            again = encode(problem) if by_cuts else self._encoded(problem)
            return self._relax(again, left)
        if outcome.reason == "infeasible":
            raise self._infeasible()
        if outcome.duals_R is not None:
            proven = cut.model.dual_bound(outcome.duals_R) * cut.scale.time_unit
            whole = bool(cut.problem.size_G.max() == 1)
            name = self._encoding.name if whole else CUTS.name
            self._raise_bound(proven * (1 - ROUNDING), f"{name}-lp")
            if whole:
                self.certificate = self._encoding.prices(cut, outcome.duals_R)
            else:
                self.certificate = block_prices_of(
                    self.problem, cut, outcome.duals_R, FOLD_LEVEL
                )
        return outcome

    def _raise_bound(self, value: float, method: str) -> None:
        if value > self.bound:
            self.bound, self.method = value, method

    def branch(self, seconds: float, gap: float, seed: int) -> None:
        """Search by branch and bound from the best slots.

        Raises
        ------
        InfeasibleError
            If no placement keeps the caps.
        """
        begun, cut = clock.now(), self._cut()
        hints: tuple[FloatArray, ...] = ()
        if self.slots_RJ is not None:
            known_V = self._completed(cut, self.slots_RJ, seconds / 3)
            hints = () if known_V is None else (known_V,)
        left = max(0.1, seconds - (clock.now() - begun))
        outcome = self._tried(
            lambda: solve_integer(cut.model, left, gap=gap, seed=seed, hints=hints)
        )
        if outcome is None:
            return
        if outcome.reason == "infeasible":
            raise self._infeasible()
        self.finished = outcome.reason == "optimal"
        claimed = outcome.bound * cut.scale.time_unit * (1 - ROUNDING)
        if np.isfinite(claimed) and claimed > self.bound * (1 + ROUNDING):
            self._raise_bound(claimed, f"{self._encoding.name}-milp")
            self.branched = True
        for values_V in outcome.solutions:
            self.offer_best_split(placement_of(cut, values_V), seconds / 3)

    def settle(self) -> None:
        """Hold the bound against the judged value, which no valid bound exceeds.

        Raises
        ------
        SolverError
            If they disagree by more than rounding.
        """
        value = float(self.value)
        if self.excess == 0 and self.bound > value * (1 + _DISAGREEMENT):
            text = f"{self._name}: bound {self.bound!r} above a plan's {value!r}"
            raise SolverError(f"{text}: the model and the evaluator disagree")
        if self.excess == 0:
            self.bound = min(self.bound, value)

    def _completed(
        self, cut: Encoded, slots_RJ: IdArray, seconds: float
    ) -> FloatArray | None:
        """Return the best values of all variables under these slots, if found."""
        columns = cut.columns.placed_ER
        held_ER = held_of(slots_RJ, self.problem.experts)
        fixed = cut.model.with_fixed(columns.ravel(), held_ER.ravel())
        outcome = self._tried(lambda: solve_linear(fixed, seconds, simplex=True))
        return outcome.solutions[0] if outcome and outcome.solutions else None

    def _tried(self, solve: Callable[[], Outcome]) -> Outcome | None:
        """Solve; a solver that gives up numerically is noted, not fatal.

        HiGHS and SCIP sometimes do; plans and bounds found otherwise still stand.
        """
        try:
            return solve()
        except SolverError as error:
            self.trouble = f"{self._name}: {error}"
            return None

    def _infeasible(self) -> InfeasibleError:
        return InfeasibleError(
            f"{self._name}: no placement keeps the imbalance caps even when copies "
            "may share tokens freely; raise --imbalance-cap or "
            "--domain-imbalance-cap, or add slots with --redundant"
        )
