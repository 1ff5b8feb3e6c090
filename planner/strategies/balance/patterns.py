"""Three and more slots per GPU: levels below which nothing fits, by whole patterns.

The relaxation over the patterns met so far gives weights; the heaviest patterns by
these weights are the next columns. Weights of any stage, rounded to integers, prove
what :func:`~planner.strategies.balance.proof.proves` confirms.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner import clock
from planner.arrays import FloatArray, IdArray, IntArray
from planner.formulation.mathopt import solve_whole
from planner.formulation.patterns import (
    CellChoices,
    PatternModel,
    counted,
    pattern_model,
)
from planner.formulation.session import GrowingSession
from planner.strategies.balance.bound import LayerBound, ratio_text
from planner.strategies.balance.problem import BalanceLayer
from planner.strategies.balance.proof import all_ranges, proves, to_json, usable
from planner.strategies.balance.weighing import Weights, cells, most_weight

GRID = 16_384
"""Cells of a level: a copy's size is read as up to this part of the level less."""
ROUNDING = 2**20
"""Weights are rounded to this part of what a GPU holds."""
CLEAR = 1e-6
"""Share of the GPUs that must be lacking before it is worth trying to prove."""
WHOLE = 1e-6
"""So close to a whole number the relaxation's copies are one."""
MOST_ROUNDS = 60
"""Rounds of new patterns at a level."""
FULL = ((), (0, 1))
"""Seeds of the full patterns that a plan may take besides those met, by attempt."""
MOST_SECONDS = 2.0
"""Seconds that a plan made of patterns may take to find."""
ENTRIES = 5e8
"""Rate of counted work: entries of the tables of heaviest patterns per second."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cells:
    """The choices at one level, by the classes of cells that occur."""

    choices: CellChoices
    cell_C: IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class _Relaxed:
    """GPUs needed with the patterns met so far, and what a copy is worth in them.

    ``mean_E`` are the copies that experts get.
    """

    gpus: float
    weight_C: FloatArray
    mean_E: FloatArray


class PatternProver:
    """Asks of levels of one layer whether they can be kept, until ``deadline``.

    Patterns are cells, not sizes: those of one level serve the next. ``copies_E`` are
    numbers of copies near those that the last level left open asks for.
    """

    def __init__(self, layer: BalanceLayer, deadline: float = np.inf) -> None:
        self._layer, self.deadline = layer, deadline
        self._pattern_AJ = np.zeros((0, layer.slots_per_gpu), dtype=np.int64)
        self.copies_E: IntArray | None = None
        self.solved = 0

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.deadline - clock.now()

    def prove(self, level: Fraction) -> Weights | None:
        """Return weights that show that no placement stays within the level."""
        layer = self._layer
        nothing = Weights(grid=1, steps={0: 0})
        if proves(layer, level, nothing):
            return nothing
        at = _cells(layer, level)
        if at.cell_C[0] * layer.slots_per_gpu > GRID:
            # Not even the least copies fit together.
            return Weights(grid=GRID, steps={int(at.cell_C[0]): 0})
        self._add(_first_patterns(at.cell_C, layer.slots_per_gpu))
        relaxation = _Relaxation(layer, at, self._pattern_AJ)
        for _ in range(MOST_ROUNDS):
            relaxed = relaxation.solve(self.left)
            self.solved += 1
            if relaxed is None:
                break
            if relaxed.gpus <= layer.gpus * (1 + CLEAR):
                self.copies_E = _whole(relaxed.mean_E, layer.slots)
                break
            found_AJ, most = _heavy(at.cell_C, relaxed.weight_C, layer.slots_per_gpu)
            if _least(at, relaxed.weight_C) > layer.gpus * most * (1 + CLEAR):
                weights = _rounded(at.cell_C, relaxed.weight_C)
                return weights if proves(layer, level, weights) else None
            new_AJ = self._add(found_AJ)
            if not len(new_AJ):
                break
            relaxation.grow(new_AJ)
        return None

    def place(self, level: Fraction) -> IdArray | None:
        """Return slots made of the patterns met, within about the level, if any.

        For levels that :meth:`prove` has left open. An expert may be on a GPU twice.
        If these patterns do not do, more that leave little room are taken besides.
        """
        at = _cells(self._layer, level)
        pattern_AJ = self._pattern_AJ
        for seeds in FULL:
            full = [_full(at.cell_C, pattern_AJ.shape[1], seed) for seed in seeds]
            pattern_AJ = np.unique(np.concatenate([pattern_AJ, *full]), axis=0)
            found_GJ = self._assembled(at, pattern_AJ)
            if found_GJ is not None:
                return found_GJ
        return None

    def _assembled(self, at: _Cells, pattern_AJ: IntArray) -> IdArray | None:
        if self.left <= 0:
            return None
        built, class_AJ = _model(self._layer, at, pattern_AJ, whole=True)
        q_Q, x_A = (built.model.variables[name] for name in ("q", "x"))
        self.solved += 1
        found_V = solve_whole(built.model, min(MOST_SECONDS, self.left))
        if found_V is None:
            return None
        taken_Q = built.kept_Q[found_V[q_Q] > 0.5]
        return _slots(
            np.repeat(class_AJ, np.rint(found_V[x_A]).astype(np.int64), axis=0),
            at.choices.copies_Q[taken_Q],
            at.choices.class_Q[taken_Q],
        )

    def _add(self, pattern_AJ: IntArray) -> IntArray:
        """Keep patterns, each in descending order; return those that are new."""
        before = len(self._pattern_AJ)
        together = np.concatenate([self._pattern_AJ, pattern_AJ])
        _, first = np.unique(together, axis=0, return_index=True)
        new_AJ: IntArray = together[np.sort(first[first >= before])]
        self._pattern_AJ = np.concatenate([self._pattern_AJ, new_AJ])
        return new_AJ


class _Relaxation:
    """The relaxation at one level, solved again with more patterns."""

    def __init__(self, layer: BalanceLayer, at: _Cells, pattern_AJ: IntArray) -> None:
        self._at, self._experts = at, layer.experts
        built, _ = _model(layer, at, pattern_AJ, whole=False)
        families = built.model.families
        self._chain_C = families["chain"]
        rows = np.concatenate([families["all"], self._chain_C])
        self._kept_Q = built.kept_Q
        columns = built.model.variables["q"]
        self._session = GrowingSession(built.model, columns, rows)

    def solve(self, seconds: float) -> _Relaxed | None:
        """Solve with the patterns so far, None where the time is over."""
        if seconds <= 0:
            return None
        vertex = self._session.solve(min(3600.0, seconds))
        if vertex is None:
            return None
        # A copy costs its expert the same whatever its size.
        weight_C = np.maximum.accumulate(vertex.dual_C[1:]) - vertex.dual_C[0]
        choices = self._at.choices
        mean_E: FloatArray = np.zeros(self._experts)
        given_Q = vertex.value_C * choices.copies_Q[self._kept_Q]
        np.add.at(mean_E, choices.expert_Q[self._kept_Q], given_Q)
        return _Relaxed(gpus=vertex.objective, weight_C=weight_C, mean_E=mean_E)

    def grow(self, pattern_AJ: IntArray) -> None:
        """Add patterns, all of cells that occur."""
        class_AJ = np.searchsorted(self._at.cell_C, pattern_AJ)
        column_B, class_B, count_B = counted(class_AJ, self._at.cell_C.size)
        row_B = self._chain_C[class_B]
        self._session.grow(column_B, row_B, count_B.astype(np.float64), 1.0)


def _model(
    layer: BalanceLayer, at: _Cells, pattern_AJ: IntArray, *, whole: bool
) -> tuple[PatternModel, IntArray]:
    class_AJ = np.searchsorted(at.cell_C, pattern_AJ, side="right") - 1
    class_AJ = np.unique(class_AJ[class_AJ[:, -1] >= 0], axis=0)
    built = pattern_model(
        at.choices,
        class_AJ,
        classes=at.cell_C.size,
        experts=layer.experts,
        gpus=layer.gpus,
        whole=whole,
    )
    return built, class_AJ


def _cells(layer: BalanceLayer, level: Fraction) -> _Cells:
    cell_ER = cells(layer, level, GRID)
    expert_Q, at_Q = np.nonzero(usable(layer, level, all_ranges(layer)))
    cell_C, class_Q = np.unique(cell_ER[expert_Q, at_Q], return_inverse=True)
    choices = CellChoices(expert_Q=expert_Q, copies_Q=at_Q + 1, class_Q=class_Q)
    return _Cells(choices=choices, cell_C=cell_C)


def _first_patterns(cell_C: IntArray, slots: int) -> IntArray:
    """Return, for every cell, it and the largest that fit beside it."""
    rest_C = (GRID - cell_C) // (slots - 1)
    fits_C = rest_C >= cell_C[0]
    beside_C = cell_C[np.searchsorted(cell_C, rest_C[fits_C], side="right") - 1]
    pattern_AJ = np.column_stack([cell_C[fits_C], *[beside_C] * (slots - 1)])
    return -np.sort(-pattern_AJ, axis=1)


def _heavy(
    cell_C: IntArray, weight_C: FloatArray, slots: int
) -> tuple[IntArray, float]:
    """Return for every weight the heaviest pattern with it, and the heaviest's weight.

    Only patterns heavier than one GPU's worth are missing in the relaxation.
    """
    first_S = np.flatnonzero(np.diff(weight_C, prepend=-np.inf) > 0)
    cell_S, weight_S = cell_C[first_S], weight_C[first_S]
    best_JC, step_JC = most_weight(cell_S, weight_S, GRID, slots - 1)
    clock.spend(cell_S.size * best_JC.size / ENTRIES)
    fits_S = cell_S + (slots - 1) * cell_S[0] <= GRID
    step_A = np.flatnonzero(fits_S)
    left_A = GRID - cell_S[step_A]
    total_A = weight_S[step_A] + best_JC[slots - 1, left_A]
    cells_JA = [cell_S[step_A]]
    for count in range(slots - 1, 0, -1):
        next_A = cell_S[step_JC[count, left_A]]
        cells_JA.append(next_A)
        left_A = left_A - next_A
    pattern_AJ = -np.sort(-np.column_stack(cells_JA), axis=1)
    return pattern_AJ, float(total_A.max())


def _full(cell_C: IntArray, slots: int, seed: int) -> IntArray:
    """Return patterns that leave little room: heavy by their cells, blurred."""
    blur_C = np.random.default_rng(seed).normal(1.0, 0.1, cell_C.size)
    return _heavy(cell_C, np.maximum.accumulate(cell_C * blur_C), slots)[0]


def _whole(mean_E: FloatArray, slots: int) -> IntArray:
    """Return whole numbers of sum P: the greatest parts are rounded up."""
    copies_E = np.floor(mean_E + WHOLE).astype(np.int64)
    more = max(0, slots - int(copies_E.sum()))
    copies_E[np.argsort(copies_E - mean_E, kind="stable")[:more]] += 1
    return copies_E


def _least(at: _Cells, weight_C: FloatArray) -> float:
    """Return what all copies weigh at least."""
    choices = at.choices
    weight_Q = weight_C[choices.class_Q] * choices.copies_Q
    starts_E = np.flatnonzero(np.diff(choices.expert_Q, prepend=-1))
    return float(np.minimum.reduceat(weight_Q, starts_E).sum())


def _slots(class_GJ: IntArray, copies_E: IntArray, class_E: IntArray) -> IdArray:
    """Return experts for the slots of patterns: the greatest copies in the greatest.

    Slots of one class are filled GPU by GPU, so that copies of an expert part.
    """
    gpus, slots = class_GJ.shape
    expert_E = np.argsort(-class_E, kind="stable")
    expert_P = np.repeat(expert_E, copies_E[expert_E])
    gpu_P, slot_P = np.indices((gpus, slots)).reshape(2, -1)
    order_P = np.lexsort((gpu_P, slot_P, -class_GJ.ravel()))
    slots_GJ = np.empty(gpus * slots, dtype=np.int16)
    slots_GJ[order_P] = expert_P
    return slots_GJ.reshape(gpus, slots)


def _rounded(cell_C: IntArray, weight_C: FloatArray) -> Weights:
    whole_C = np.rint(weight_C * ROUNDING).astype(np.int64)
    first_S = np.flatnonzero(np.diff(whole_C, prepend=whole_C[0] - 1))
    steps = dict(zip(cell_C[first_S].tolist(), whole_C[first_S].tolist(), strict=True))
    return Weights(grid=GRID, steps=steps)


def patterns_bound(level: Fraction, proof: Weights) -> LayerBound:
    """Return the bound that a proof gives: every placement exceeds ``level``."""
    return LayerBound(
        value=level,
        method="patterns",
        certificate={"kind": "patterns", "level": ratio_text(level), **to_json(proof)},
    )
