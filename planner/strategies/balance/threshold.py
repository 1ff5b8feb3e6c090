"""Two slots per GPU: the level below which no numbers of copies fit, with proof.

The relaxation is solved in floats; its multipliers are rounded to rationals and only
what :func:`~planner.strategies.balance.proof.proves` confirms is claimed.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner import clock
from planner.arrays import FloatArray, IntArray
from planner.formulation.session import LinearSession
from planner.formulation.threshold import Choices, ThresholdModel, threshold_model
from planner.strategies.balance.bound import LayerBound, ratio_text
from planner.strategies.balance.problem import BalanceLayer
from planner.strategies.balance.proof import (
    Farkas,
    Proof,
    Ranges,
    Split,
    all_ranges,
    proves,
    tightened,
    to_json,
    usable,
)

ROUNDING = 2**20
"""Multipliers are rounded to this denominator; those of the rows add up to 1."""
CLEAR = 1e-6
"""The relaxation's value from which it is worth trying to prove."""
WHOLE = 1e-6
MOST_OPEN = 20
"""With more undecided experts than this, few cases prove nothing."""
CANDIDATES = 4
"""Experts tried at a split by size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Relaxed:
    """The outcome of one relaxation.

    Exactly one is set: a ``proof``, or how many copies the relaxation gives every
    expert (``mean_E``), how undecided it is (``variance_E``), and the multipliers'
    value ``v`` (the more the closer to a proof).
    """

    proof: Farkas | None = None
    mean_E: FloatArray | None = None
    variance_E: FloatArray | None = None
    v: float = 1.0


class _Level:
    """The relaxation at one level, solved within any ranges of copies."""

    def __init__(self, layer: BalanceLayer, level: Fraction) -> None:
        self._layer, self.level = layer, level
        self._built: tuple[Choices, ThresholdModel, LinearSession] | None = None

    def relax(self, ranges: Ranges, seconds: float) -> Relaxed:
        """Solve the relaxation; prove if it shows that nothing fits."""
        nothing = Farkas(rows={}, copies=Fraction(0))
        if proves(self._layer, self.level, nothing, ranges):
            return Relaxed(proof=nothing)
        choices, built, session = self._session()
        allowed = tightened(self._layer, self.level, ranges)
        expert_Q = choices.expert_Q[built.kept_Q]
        copies_Q = choices.copies_Q[built.kept_Q]
        closed_Q = (copies_Q < allowed.low_E[expert_Q]) | (
            copies_Q > allowed.high_E[expert_Q]
        )
        vertex = session.solve(closed_Q, seconds)
        if vertex is None:
            return self._too_few(ranges)
        if vertex.objective > CLEAR:
            proof = self._rounded(choices, built, vertex.dual_C)
            if proves(self._layer, self.level, proof, ranges):
                return Relaxed(proof=proof)
        mean_E: FloatArray = np.zeros(self._layer.experts)
        square_E: FloatArray = np.zeros(self._layer.experts)
        np.add.at(mean_E, expert_Q, vertex.value_C * copies_Q)
        np.add.at(square_E, expert_Q, vertex.value_C * copies_Q**2)
        return Relaxed(
            mean_E=mean_E, variance_E=square_E - mean_E**2, v=vertex.objective
        )

    def _session(self) -> tuple[Choices, ThresholdModel, LinearSession]:
        if self._built is None:
            layer = self._layer
            choices = _choices(layer, self.level)
            built = threshold_model(
                choices,
                level=float(self.level),
                experts=layer.experts,
                slots=layer.slots,
            )
            families = built.model.families
            session = LinearSession(
                built.model,
                built.model.variables["q"],
                np.concatenate([families["guard"], families["all"]]),
            )
            self._built = choices, built, session
        return self._built

    def _too_few(self, ranges: Ranges) -> Relaxed:
        """The copies cannot add up to P, or the solver ran out of time."""
        for sign in (1, -1):
            proof = Farkas(rows={}, copies=Fraction(sign))
            if proves(self._layer, self.level, proof, ranges):
                return Relaxed(proof=proof)
        return Relaxed()

    def _rounded(
        self, choices: Choices, built: ThresholdModel, dual_C: FloatArray
    ) -> Farkas:
        """Return the multipliers as rationals, s exact from the size behind it."""
        whole_R = np.rint(-dual_C[:-1] * ROUNDING).astype(np.int64)
        rows: dict[Fraction, Fraction] = {}
        for row in np.flatnonzero((whole_R > 0) & (built.guard_R >= 0)).tolist():
            choice = built.guard_R[row]
            size = self._layer.size(
                int(choices.expert_Q[choice]), int(choices.copies_Q[choice])
            )
            rows[self.level - size] = Fraction(int(whole_R[row]), ROUNDING)
        per_slot = Fraction(round(float(dual_C[-1]) * ROUNDING), ROUNDING)
        return Farkas(rows=rows, copies=per_slot)


def _choices(layer: BalanceLayer, level: Fraction) -> Choices:
    expert_Q, at_Q = np.nonzero(usable(layer, level, all_ranges(layer)))
    return Choices(
        expert_Q=expert_Q,
        copies_Q=at_Q + 1,
        size_Q=layer.least_ER[expert_Q, at_Q] / layer.divisor_R[at_Q],
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What was found out about a level.

    A ``proof`` that it cannot be kept, or numbers of copies that may keep it, or
    neither where the limit came first.
    """

    proof: Proof | None = None
    copies_E: IntArray | None = None


class Prover:
    """Asks of levels of one layer whether they can be kept, until ``deadline``.

    ``hopeless``: the last relaxation left so much undecided that cases are of no use.
    """

    def __init__(self, layer: BalanceLayer, deadline: float = np.inf) -> None:
        self._layer, self.deadline = layer, deadline
        self._budget, self._by_size = 0, False
        self._last: _Level | None = None
        self.solved = 0
        self.hopeless = False

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.deadline - clock.now()

    def root(self, level: Fraction) -> Verdict:
        """Try to prove without cases."""
        relaxed = self._relax(self._at(level), all_ranges(self._layer))
        return Verdict(proof=relaxed.proof, copies_E=_whole(relaxed))

    def split(self, level: Fraction, most_solves: int, *, by_size: bool) -> Verdict:
        """Prove by cases, depth first.

        Two rules, since neither is better everywhere: ``by_size`` tries the largest
        undecided copies and takes the one whose cases are closest to proven (who
        gets a copy more decides); else the most undecided expert (which small ones
        fill the gaps decides).
        """
        self._budget, self._by_size = self.solved + most_solves, by_size
        ranges = all_ranges(self._layer)
        at = self._at(level)
        root = self._relax(at, ranges)
        undecided = 0 if root.variance_E is None else _open(root).size
        self.hopeless = undecided > MOST_OPEN
        if self.hopeless:
            return Verdict()
        return self._prove(at, ranges, root)

    def _at(self, level: Fraction) -> _Level:
        if self._last is None or self._last.level != level:
            self._last = _Level(self._layer, level)
        return self._last

    def _relax(self, level: _Level, ranges: Ranges) -> Relaxed:
        self.solved += 1
        return level.relax(ranges, min(3600.0, max(0.01, self.left)))

    def _prove(self, level: _Level, ranges: Ranges, relaxed: Relaxed) -> Verdict:
        if relaxed.proof is not None:
            return Verdict(proof=relaxed.proof)
        copies_E = _whole(relaxed)
        if copies_E is not None:
            return Verdict(copies_E=copies_E)
        spent = self.solved >= self._budget or self.left <= 0
        if spent or relaxed.variance_E is None or not _open(relaxed).size:
            return Verdict()
        expert, at_most_, cases = self._best_split(level, ranges, relaxed)
        proofs: list[Proof] = []
        for case, outcome in zip(ranges.split(expert, at_most_), cases, strict=True):
            verdict = self._prove(level, case, outcome)
            if verdict.proof is None:
                return verdict
            proofs.append(verdict.proof)
        split = Split(expert=expert, at_most=at_most_, low=proofs[0], high=proofs[1])
        return Verdict(proof=split)

    def _best_split(
        self, level: _Level, ranges: Ranges, relaxed: Relaxed
    ) -> tuple[int, int, tuple[Relaxed, Relaxed]]:
        assert relaxed.mean_E is not None
        best: tuple[int, int, tuple[Relaxed, Relaxed]] | None = None
        best_score = (-1, 0.0)
        for expert in self._undecided(relaxed):
            at = int(np.floor(relaxed.mean_E[expert] + WHOLE))
            low, high = (self._relax(level, case) for case in ranges.split(expert, at))
            score = (
                (low.proof is not None) + (high.proof is not None),
                min(low.v, high.v) + 0.1 * max(low.v, high.v),
            )
            if best is None or score > best_score:
                best, best_score = (expert, at, (low, high)), score
            if score[0] == 2:
                break
        assert best is not None
        return best

    def _undecided(self, relaxed: Relaxed) -> list[int]:
        """Return the experts to try, by the rule in force."""
        assert relaxed.mean_E is not None
        open_E = _open(relaxed)
        if not self._by_size:
            return [int(open_E[0])]
        open_E = open_E[: 3 * CANDIDATES]
        size_E = self._layer.most_ER[open_E, 0] / relaxed.mean_E[open_E]
        by_size = open_E[np.argsort(-size_E, kind="stable")]
        return [int(expert) for expert in by_size[:CANDIDATES]]


def _open(relaxed: Relaxed) -> IntArray:
    """Return the experts that the relaxation leaves undecided, the most so first."""
    assert relaxed.variance_E is not None
    order_E = np.argsort(-relaxed.variance_E, kind="stable")
    return order_E[relaxed.variance_E[order_E] > WHOLE]


def _whole(relaxed: Relaxed) -> IntArray | None:
    if relaxed.mean_E is None or relaxed.variance_E is None or relaxed.v > CLEAR:
        return None
    if relaxed.variance_E.max() > WHOLE:
        return None
    return np.rint(relaxed.mean_E).astype(np.int64)


def threshold_bound(level: Fraction, proof: Proof) -> LayerBound:
    """Return the bound that a proof gives: every placement exceeds ``level``."""
    return LayerBound(
        value=level,
        method="threshold",
        certificate={
            "kind": "threshold",
            "level": ratio_text(level),
            **to_json(proof),
        },
        branching=isinstance(proof, Split),
    )
