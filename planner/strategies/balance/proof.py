"""Proofs that no placement of two slots per GPU stays within a level, checked exactly.

``Farkas``: multipliers y_s ≥ 0 (0 ≤ s < level/2) and λ with

    Σ_e min_r [ r·(Σ_s y_s·([size ≥ level−s] − [size ≤ s]) − λ) ] + λ·P  >  0,

r running over the copies that expert e may have: at least ``low`` and as many as bring
the size to the level, at most ``high`` and what the others leave of the P slots. Every
fitting placement makes the sum ≤ 0. ``Split``: one expert has either at most k copies
or more, and both cases are proven. Only integers are compared here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any, TypeAlias

import numpy as np

from planner.arrays import BoolArray, ExactArray, IntArray
from planner.strategies.balance.bound import ratio_text
from planner.strategies.balance.problem import BalanceLayer
from planner.strategies.balance.weighing import Weights, outweighs

INT64_BITS = 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Farkas:
    """Multipliers by s, and that of the number of copies."""

    rows: Mapping[Fraction, Fraction]
    copies: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Two cases: ``expert`` has at most ``at_most`` copies, or more."""

    expert: int
    at_most: int
    low: "Proof"
    high: "Proof"


Proof: TypeAlias = Farkas | Weights | Split


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranges:
    """Copies that each expert may have: from ``low_E`` to ``high_E``."""

    low_E: IntArray
    high_E: IntArray

    def split(self, expert: int, at_most: int) -> tuple["Ranges", "Ranges"]:
        """Return the two cases of a :class:`Split`."""
        low_E, high_E = self.low_E.copy(), self.high_E.copy()
        high_E[expert] = min(int(high_E[expert]), at_most)
        low_E[expert] = max(int(low_E[expert]), at_most + 1)
        return (
            Ranges(low_E=self.low_E, high_E=high_E),
            Ranges(low_E=low_E, high_E=self.high_E),
        )


def all_ranges(layer: BalanceLayer) -> Ranges:
    """Return 1 … R for every expert."""
    ones_E = np.ones(layer.experts, dtype=np.int64)
    return Ranges(low_E=ones_E, high_E=ones_E * layer.most_copies)


def tightened(layer: BalanceLayer, level: Fraction, ranges: Ranges) -> Ranges:
    """Return the ranges without what the level and the number of slots exclude.

    No expert has fewer copies than bring its size to the level (the least such
    number, so sizes need not fall with r), nor more than the others leave.
    """
    fits_ER = at_most(layer, level)
    numbers_R = np.arange(1, layer.most_copies + 1)
    open_ER = fits_ER & (numbers_R >= ranges.low_E[:, None])
    low_E = np.where(
        open_ER.any(axis=1), 1 + np.argmax(open_ER, axis=1), layer.most_copies + 1
    )
    spare = layer.slots - int(low_E.sum())
    return Ranges(low_E=low_E, high_E=np.minimum(ranges.high_E, low_E + spare))


def usable(layer: BalanceLayer, level: Fraction, ranges: Ranges) -> BoolArray:
    """Return which numbers of copies a placement within the level may have [E, R]."""
    allowed = tightened(layer, level, ranges)
    numbers_R = np.arange(1, layer.most_copies + 1)
    usable_ER: BoolArray = (
        at_most(layer, level)
        & (numbers_R >= allowed.low_E[:, None])
        & (numbers_R <= allowed.high_E[:, None])
    )
    return usable_ER


def at_most(layer: BalanceLayer, limit: Fraction) -> BoolArray:
    """Return which sizes are at most ``limit``, exactly [E, R]."""
    left_ER, right_R = _products(layer, limit.numerator, limit.denominator)
    return np.asarray(left_ER <= right_R[None, :], dtype=np.bool_)


def at_least(layer: BalanceLayer, limit: Fraction) -> BoolArray:
    """Return which sizes are at least ``limit``, exactly [E, R]."""
    left_ER, right_R = _products(layer, limit.numerator, limit.denominator)
    return np.asarray(left_ER >= right_R[None, :], dtype=np.bool_)


def _products(layer: BalanceLayer, p: int, q: int) -> tuple[ExactArray, ExactArray]:
    """Return count·q and divisor·p, as Python integers where 64 bits may not do."""
    most = max(int(layer.least_ER.max()) * q, int(layer.divisor_R.max()) * abs(p))
    if most.bit_length() < INT64_BITS:
        return layer.least_ER * q, layer.divisor_R * p
    return layer.least_ER.astype(object) * q, layer.divisor_R.astype(object) * p


def proves(
    layer: BalanceLayer, level: Fraction, proof: Proof, ranges: Ranges | None = None
) -> bool:
    """Tell whether ``proof`` shows that no placement stays within ``level``."""
    ranges = all_ranges(layer) if ranges is None else ranges
    if isinstance(proof, Farkas):
        return _farkas_proves(layer, level, proof, ranges)
    if isinstance(proof, Weights):
        return _weights_prove(layer, level, proof, ranges)
    low, high = ranges.split(proof.expert, proof.at_most)
    return proves(layer, level, proof.low, low) and proves(
        layer, level, proof.high, high
    )


def _farkas_proves(
    layer: BalanceLayer, level: Fraction, proof: Farkas, ranges: Ranges
) -> bool:
    if layer.slots_per_gpu != 2:
        return False
    if any(y < 0 or s < 0 or 2 * s >= level for s, y in proof.rows.items()):
        return False
    usable_ER = usable(layer, level, ranges)
    if not usable_ER.any(axis=1).all():
        return True
    cost_ER, per_slot = _costs(layer, level, proof)
    never = int(abs(cost_ER).max()) + 1
    least = int(np.where(usable_ER, cost_ER, never).min(axis=1).sum())
    return least + per_slot * layer.slots > 0


def _weights_prove(
    layer: BalanceLayer, level: Fraction, proof: Weights, ranges: Ranges
) -> bool:
    usable_ER = usable(layer, level, ranges)
    if not usable_ER.any(axis=1).all():
        return True
    return outweighs(layer, level, proof, usable_ER)


def _costs(
    layer: BalanceLayer, level: Fraction, proof: Farkas
) -> tuple[ExactArray, int]:
    """Return r·(Σ_s y_s·(…) − λ) and λ, both times a common denominator."""
    scale = lcm(proof.copies.denominator, *(y.denominator for y in proof.rows.values()))
    per_slot = int(proof.copies * scale)
    whole = {s: int(y * scale) for s, y in proof.rows.items()}
    most = (sum(whole.values()) + abs(per_slot) + 1) * layer.slots * layer.slots
    kind = np.int64 if most.bit_length() < INT64_BITS else object
    price_ER = np.full(layer.least_ER.shape, -per_slot, dtype=kind)
    for s, y in whole.items():
        price_ER += y * at_least(layer, level - s).astype(kind)
        price_ER -= y * at_most(layer, s).astype(kind)
    numbers_R = np.arange(1, layer.most_copies + 1).astype(kind)
    return price_ER * numbers_R, per_slot


def to_json(proof: Proof) -> dict[str, Any]:
    """Return a proof as plain JSON, the body of its certificate."""
    if isinstance(proof, Weights):
        steps = {str(cell): weight for cell, weight in sorted(proof.steps.items())}
        return {"grid": proof.grid, "steps": steps}
    if isinstance(proof, Farkas):
        rows = {ratio_text(s): ratio_text(y) for s, y in sorted(proof.rows.items())}
        return {"rows": rows, "copies": ratio_text(proof.copies)}
    return {
        "expert": proof.expert,
        "at_most": proof.at_most,
        "low": to_json(proof.low),
        "high": to_json(proof.high),
    }


def from_json(body: Mapping[str, Any]) -> Proof:
    """Return the proof that :func:`to_json` wrote."""
    if "expert" in body:
        return Split(
            expert=int(body["expert"]),
            at_most=int(body["at_most"]),
            low=from_json(body["low"]),
            high=from_json(body["high"]),
        )
    if "steps" in body:
        steps = {int(cell): int(weight) for cell, weight in body["steps"].items()}
        return Weights(grid=int(body["grid"]), steps=steps)
    rows = {Fraction(s): Fraction(y) for s, y in body["rows"].items()}
    return Farkas(rows=rows, copies=Fraction(body["copies"]))
