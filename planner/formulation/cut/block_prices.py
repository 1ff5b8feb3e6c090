"""From the row multipliers of a folded LP to prices that anyone can check.

As :mod:`planner.formulation.cut.prices`, for a layer whose units are blocks of GPUs;
``docs/certificates.md`` proves the bound that any such prices give.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from planner.arrays import FloatArray
from planner.formulation.cut.encode import Encoded
from planner.formulation.cut.fold import row_weights
from planner.formulation.cut.prices import link_shares, whole
from planner.formulation.cut.problem import LayerProblem

_MOST = 2**61
"""All demand at the largest price stays below this many units: sums fit in int64."""
_PAIR_PARTS = 2**44


def block_prices_of(
    problem: LayerProblem, cut: Encoded, duals_R: FloatArray, level: int
) -> Mapping[str, Any] | None:
    """Return the certificate of kind ``block_prices``; None where rows are not links.

    Parameters
    ----------
    problem
        The layer as it is.
    cut
        The model of ``folded(problem, level)``.
    """
    if not problem.legs or any(not leg.names for leg in problem.legs):
        return None
    families, scale = cut.model.families, cut.scale
    per_pair = scale.time_unit / scale.flow_unit
    pair_EB = duals_R[families["own_service"]] * per_pair
    if "own_demand" in families:
        pair_EB = pair_EB + duals_R[families["own_demand"]] * per_pair
    slot_B = np.maximum(-duals_R[families["slots"]], 0.0) * scale.time_unit
    cover_E = np.maximum(duals_R[families["coverage"]], 0.0) * scale.time_unit
    largest = float(np.abs(pair_EB).max(initial=0.0)) or 1.0
    demand = max(1, int(problem.demand_EG.sum()))
    unit = Fraction(largest) / max(1, min(_PAIR_PARTS, _MOST // demand))
    links: dict[str, dict[str, str]] = {}
    weights = row_weights(problem, level)
    for number, (leg, weight_RR) in enumerate(zip(problem.legs, weights, strict=True)):
        parts = np.maximum(-duals_R[families[f"links_{number}"]], 0.0)
        links |= link_shares(leg, parts @ weight_RR)
    return {
        "kind": "block_prices",
        "unit": f"{unit.numerator}/{unit.denominator}",
        "links": links,
        "blocks": problem.hierarchy.block_KG[level].tolist(),
        "pairs": whole(pair_EB, unit),
        "slots": whole(slot_B, unit),
        "cover": whole(cover_E, unit),
    }
