"""A layer's lower bound with what proves it, and the bound by the mean."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from planner.strategies.balance.problem import BalanceLayer

JUST_BELOW = Fraction(1, 2 * 10**9)
"""A level this much below a load counts as the load (status tolerance 1e-9)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBound:
    """No placement's busiest GPU carries less than ``value``.

    Attributes
    ----------
    method
        ``mean``, ``count``, ``threshold``, ``patterns``, ``covering`` or
        ``partition``.
    certificate
        Plain JSON from which the bound can be checked; rationals are "p/q". None
        where the proof is a search that would have to be repeated.
    branching
        Whether the proof splits cases (each case has its own multipliers).
    """

    value: Fraction
    method: str
    certificate: Mapping[str, Any] | None
    branching: bool = False


def mean_bound(layer: BalanceLayer) -> LayerBound:
    """Return the mean load of a GPU."""
    return LayerBound(
        value=Fraction(layer.total, layer.gpus),
        method="mean",
        certificate={"kind": "mean_pairs"},
    )


def just_below(load: Fraction) -> Fraction:
    """Return a rational of few digits slightly below a load."""
    bits = max(0, 34 - int(load).bit_length())
    step = Fraction(1, 2**bits)
    return Fraction((load * (1 - JUST_BELOW)) // step) * step


def ratio_text(value: Fraction) -> str:
    """Return "p/q"."""
    return f"{value.numerator}/{value.denominator}"


def of_one_set(bound: LayerBound, sets: int) -> LayerBound:
    """Return the bound of one of so many EP sets that share the loads alike."""
    if sets == 1:
        return bound
    certificate = bound.certificate
    return replace(
        bound,
        value=bound.value / sets,
        certificate=None if certificate is None else _divided(certificate, sets),
    )


def _divided(body: Mapping[str, Any], sets: int) -> dict[str, Any]:
    """Divide what is a load: levels, the sizes that rows name, cases' rows."""

    def part(text: str) -> str:
        return ratio_text(Fraction(text) / sets)

    divided = dict(body)
    if "level" in body:
        divided["level"] = part(body["level"])
    if "rows" in body:
        divided["rows"] = {part(size): y for size, y in body["rows"].items()}
    for case in {"low", "high"} & body.keys():
        divided[case] = _divided(body[case], sets)
    return divided
