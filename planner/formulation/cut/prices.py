"""From the row multipliers of a cut LP to prices that anyone can check.

The certificate says what a second on each link, a slot, a pair within a cap and a
pair of each (expert, source GPU) are worth; ``docs/certificates.md`` proves the
bound that any such prices give. Prices are whole numbers of a common ``unit``.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from planner.arrays import FloatArray
from planner.formulation.cut.encode import CutModel, Encoded
from planner.formulation.cut.ports import LegRows

_LINK_PARTS = 2**56
"""Prices of links are whole multiples of 1/2^56."""
_ROUNDED_UP = 1 + 1e-13
"""So that prices of a leg never exceed 1 together."""
_PAIR_PARTS = 2**44
"""A pair's largest price is about this many units."""


def prices_of(cut: CutModel, duals_R: FloatArray) -> Mapping[str, Any] | None:
    """Return the certificate of kind ``prices``; None where rows are not links."""
    problem, families = cut.problem, cut.model.families
    if any(not leg.names for leg in problem.legs):
        return None
    per_pair = cut.scale.time_unit / cut.scale.flow_unit
    pair_EG = duals_R[families["own_service"]] * per_pair
    if "own_demand" in families:
        pair_EG = pair_EG + duals_R[families["own_demand"]] * per_pair
    # The model counts what leaves a GPU's load; the certificate what it serves.
    pair_EG = pair_EG + _load_prices(cut, duals_R) * per_pair
    return certificate_of(
        cut,
        duals_R,
        pair_EG=pair_EG,
        slot_R=-duals_R[families["slots"]] * cut.scale.time_unit,
        cover_E=np.maximum(duals_R[families["coverage"]], 0.0) * cut.scale.time_unit,
    )


def certificate_of(
    cut: Encoded,
    duals_R: FloatArray,
    *,
    pair_EG: FloatArray,
    slot_R: FloatArray,
    cover_E: FloatArray,
) -> dict[str, Any]:
    """Return prices in whole units; those of links, caps, ``local`` are read off."""
    problem, families = cut.problem, cut.model.families
    per_pair = cut.scale.time_unit / cut.scale.flow_unit
    cap_C = np.maximum(-duals_R[families["caps"]], 0.0) * per_pair
    largest = float(np.abs(pair_EG).max(initial=0.0)) or 1.0
    unit = Fraction(largest) / _PAIR_PARTS
    certificate: dict[str, Any] = {
        "kind": "prices",
        "unit": f"{unit.numerator}/{unit.denominator}",
        "links": _link_prices(cut, duals_R),
        "gpus": _gpu_prices(cut, duals_R),
        "pairs": whole(pair_EG, unit),
        "slots": whole(slot_R, unit),
        "cover": whole(cover_E, unit),
        "caps": [
            {"gpus": list(cap.gpus), "price": price}
            for cap, price in zip(problem.caps, whole(cap_C, unit), strict=True)
            if price
        ],
    }
    if "local" in cut.model.variables:
        certificate["local"] = {
            "far": whole(duals_R[families["local_leave"]] * per_pair, unit),
            "some": whole(
                np.maximum(-duals_R[families["local_some"]], 0) * cut.scale.time_unit,
                unit,
            ),
            "every": whole(
                np.maximum(duals_R[families["local_every"]], 0) * cut.scale.time_unit,
                unit,
            ),
        }
    return certificate


def whole(values: FloatArray, unit: Fraction) -> Any:
    """Return values as whole numbers of a unit, nearest."""
    return np.rint(values / float(unit)).astype(np.int64).tolist()


def _link_prices(cut: Encoded, duals_R: FloatArray) -> dict[str, dict[str, str]]:
    """By leg and link: its share of the leg's weight, as ``n/2^56``."""
    prices: dict[str, dict[str, str]] = {}
    for number, leg in enumerate(cut.problem.legs):
        given = cut.model.families
        families = (f"links_{number}", f"links_joint_{number}")
        rows = np.concatenate([given[name] for name in families if name in given])
        prices |= link_shares(leg, np.maximum(-duals_R[rows], 0.0))
    return prices


def link_shares(leg: LegRows, part_R: FloatArray) -> dict[str, dict[str, str]]:
    """Return each link's share of a leg's weight by the multipliers of its rows."""
    total = (max(float(part_R.sum()), leg.weight) or 1.0) * _ROUNDED_UP
    shares = np.floor(part_R / total * _LINK_PARTS).astype(np.int64).tolist()
    return {
        name: {
            link: f"{share}/{_LINK_PARTS}"
            for link, share in zip(links, shares, strict=False)
            if share
        }
        for name, links in leg.names.items()
    }


def _load_prices(cut: CutModel, duals_R: FloatArray) -> FloatArray:
    """Price of a pair computed on each GPU: of the fullest GPU and of caps [G]."""
    families = cut.model.families
    price_G = np.zeros(cut.problem.gpu_count)
    if not cut.problem.legs:
        price_G += np.maximum(-duals_R[families["gpu_load"]], 0.0)
    for cap, row in zip(cut.problem.caps, families["caps"].tolist(), strict=True):
        price_G[list(cap.gpus)] += max(-float(duals_R[row]), 0.0)
    return price_G


def _gpu_prices(cut: Encoded, duals_R: FloatArray) -> list[str]:
    """Under ``gpu_tokens``: every GPU's share of the objective, as ``n/2^56``."""
    if cut.problem.legs:
        return []
    parts = np.maximum(-duals_R[cut.model.families["gpu_load"]], 0.0)
    total = max(float(parts.sum()), 1.0) * _ROUNDED_UP
    shares = np.floor(parts / total * _LINK_PARTS).astype(np.int64)
    return [f"{share}/{_LINK_PARTS}" for share in shares.tolist()]
