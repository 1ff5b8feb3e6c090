"""A layer's lower bound with what proves it; the bounds that hold for any split.

Valid for a free split of every expert over its copies, hence for every selection.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBound:
    """No placement's busiest GPU carries less than ``value``.

    Attributes
    ----------
    method
        ``mean``, ``count``, ``covering``, ``exact`` or ``nest``.
    certificate
        Plain JSON from which the bound can be checked, rationals as "p/q"; None
        where it rests on a search that has to be repeated.
    branching
        Whether the proof needed one.
    """

    value: Fraction
    method: str
    certificate: Mapping[str, Any] | None
    branching: bool = False


def ratio_text(value: Fraction) -> str:
    """Return "p/q"."""
    return f"{value.numerator}/{value.denominator}"


def mean_bound(load_E: tuple[int, ...], gpus: int) -> LayerBound:
    """Return the mean load of a GPU."""
    value = Fraction(sum(load_E), gpus)
    return LayerBound(value=value, method="mean", certificate={"kind": "mean_pairs"})


def count_bound(load_E: tuple[int, ...], slots: int) -> LayerBound:
    """Return the least t with Σ_e max(1, ⌈w_e/t⌉) ≤ slots.

    An expert whose copies carry at most t has at least w_e/t of them.
    """
    copies_E = copies_by_count(load_E, slots)
    value = max(
        Fraction(load, copies) for load, copies in zip(load_E, copies_E, strict=True)
    )
    certificate = {"kind": "count", "level": ratio_text(value)}
    return LayerBound(value=value, method="count", certificate=certificate)


def copies_by_count(load_E: tuple[int, ...], slots: int) -> tuple[int, ...]:
    """Return numbers of copies, ``slots`` in all, whose largest load/copies is least.

    A copy goes to the expert of greatest load per copy again and again.
    """
    copies_E = [1] * len(load_E)
    queue = [(-Fraction(load), expert) for expert, load in enumerate(load_E)]
    heapq.heapify(queue)
    for _ in range(slots - len(load_E)):
        _, expert = queue[0]
        copies_E[expert] += 1
        share = Fraction(load_E[expert], copies_E[expert])
        heapq.heapreplace(queue, (-share, expert))
    return tuple(copies_E)
