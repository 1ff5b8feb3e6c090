"""Round multipliers to the whole numbers of a ``gram`` certificate.

What is rounded stays valid whatever it is rounded to: the dual matrix is given as a
factor, whose square is positive semidefinite, and rows of either sign. Whole numbers
are in fine units of ``unit`` / (4 · soft · lcm of the lines' denominators).
"""

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, lcm, log2
from typing import Any

import numpy as np

from planner.arrays import ExactArray, FloatArray
from planner.formulation.gram.problem import Nets
from planner.formulation.gram.solve import SOFT, Multipliers, Relaxation, across
from planner.formulation.gram.triangles import on_pairs

RESOLUTION = 1000
"""Whole numbers of the guide per 1."""
SHARE_PARTS = 2**20
PRICE_BITS = 20
FACTOR_PEAK = 999
ROW_PEAK = 99_999
TRIANGLE_PEAK = 999
_SMALL = 1e-6
_LOWERED = 1 - 1e-6
_LEGS = ("dispatch", "combine")


def certificate_of(
    nets: Nets, multipliers: Multipliers
) -> tuple[float, dict[str, Any]] | None:
    """Return the bound that the rounded multipliers prove, and the certificate.

    The bound is lowered by 1e-6, more than doubles can err. None if nothing is proven.
    """
    relaxation = Relaxation(nets)
    links, price_A = _rounded_shares(nets, multipliers)
    visit_SN = relaxation.visit_prices(price_A)
    if visit_SN.max() <= 0 or multipliers.value <= 0:
        return None
    bits = PRICE_BITS - ceil(log2(visit_SN.max()))
    unit = Fraction(2) ** -bits
    soft = round(SOFT * RESOLUTION)
    knots = range(1, nets.experts_TK.shape[1] + 2)
    fine = float(unit) / (4 * soft * lcm(*(k * (k + 1) for k in knots)))
    guide_EE = np.rint(np.clip(multipliers.guide_EE, 0, 1) * RESOLUTION)
    np.fill_diagonal(guide_EE, RESOLUTION)
    groups, dual_NMM = _rounded_groups(relaxation, multipliers, fine)
    floored_SN = np.floor(visit_SN / float(unit)) * float(unit)
    relaxation.choose_lines(guide_EE / RESOLUTION)
    triangles, pair_EE, limit = _rounded_triangles(multipliers.triangle_FEE, fine)
    value = relaxation.bound_at(floored_SN, dual_NMM, pair_EE) - limit
    guide = {
        "resolution": RESOLUTION,
        "soft": soft,
        "rows": [_text(row[: at + 1]) for at, row in enumerate(guide_EE)],
    }
    return value * _LOWERED, {
        "kind": "gram",
        "unit": str(unit),
        "links": links,
        "guide": guide,
        "groups": groups,
        "triangles": triangles,
    }


def _rounded_shares(
    nets: Nets, multipliers: Multipliers
) -> tuple[dict[str, dict[str, str]], tuple[FloatArray, FloatArray]]:
    """Round shares of links down, so that they add up to at most 1."""
    links: dict[str, dict[str, str]] = {}
    prices = []
    for leg, names, share_A in zip(
        _LEGS, nets.visits.names, multipliers.price_A, strict=True
    ):
        parts_A = np.floor(share_A * SHARE_PARTS).astype(np.int64)
        links[leg] = {
            name: str(Fraction(parts, SHARE_PARTS))
            for name, parts in zip(names, parts_A.tolist(), strict=True)
            if parts > 0
        }
        prices.append(parts_A / SHARE_PARTS)
    return links, (prices[0], prices[1])


def _rounded_groups(
    relaxation: Relaxation, multipliers: Multipliers, fine: float
) -> tuple[list[dict[str, Any]], FloatArray]:
    """Return the records of all groups and the dual matrices they stand for."""
    cone_NMM, u_NM = multipliers.cone_NMM / fine, relaxation.u_NM
    value_NM, vector_NMM = np.linalg.eigh(across(cone_NMM, u_NM))
    row_NM = _row_part(cone_NMM, u_NM)
    records, duals = [], []
    for number in range(relaxation.count):
        value_M, u_M = value_NM[number], u_NM[number]
        used = value_M > _SMALL * max(value_M.max(), 1.0)
        factor_MR = vector_NMM[number][:, used] * np.sqrt(value_M[used])
        peak = float(np.abs(factor_MR).max(initial=0.0))
        weight = max(1, ceil((peak / FACTOR_PEAK) ** 2))
        whole_MR = np.rint(factor_MR / np.sqrt(weight))
        row_weight, whole_M = _rounded_row(row_NM[number])
        record = {
            "weight": weight,
            "factor": [_text(row) for row in whole_MR],
            "row_weight": row_weight,
            "row": _text(whole_M),
        }
        dual_MM = weight * (whole_MR @ whole_MR.T)
        dual_MM += row_weight * (np.outer(whole_M, u_M) + np.outer(u_M, whole_M))
        if relaxation.nets.limit_N is not None:
            norm = relaxation.q_norm_N[number]
            cap_M = multipliers.cap_NM[number] / (2 * norm * fine)
            cap_weight, whole_M = _rounded_row(cap_M)
            record |= {"cap_weight": cap_weight, "cap": _text(whole_M)}
            q_M = relaxation.q_NM[number] * norm
            dual_MM -= cap_weight * (np.outer(whole_M, q_M) + np.outer(q_M, whole_M))
        records.append(record)
        duals.append(dual_MM * fine)
    return records, np.stack(duals)


def _rounded_triangles(
    price_FEE: FloatArray, fine: float
) -> tuple[dict[str, Any], FloatArray, float]:
    """Return the record, what it puts on pairs, and the sum of its right sides."""
    half_FEE = price_FEE / (2 * fine)
    weight = max(1, ceil(float(half_FEE.max(initial=0.0)) / TRIANGLE_PEAK))
    whole_FEE = np.rint(half_FEE / weight).astype(np.int64)
    rows_R = np.stack(np.nonzero(whole_FEE))
    whole_R = whole_FEE[tuple(rows_R)]
    rows = [*rows_R, whole_R]
    texts = [" ".join(map(str, row)) for row in np.stack(rows).T.tolist()]
    record = {"weight": weight, "rows": texts}
    price_R = whole_R * (2 * weight * fine)
    pair_EE = on_pairs(rows_R, price_R, len(price_FEE))
    return record, pair_EE, float(price_R.sum())


def _row_part(matrix_NMM: FloatArray, u_NM: FloatArray) -> FloatArray:
    """Return y of matrix = across + u·yᵀ + y·uᵀ."""
    size_N = (u_NM**2).sum(axis=1, keepdims=True)
    once_NM = np.einsum("nij,nj->ni", matrix_NMM, u_NM) / size_N
    twice_N = (once_NM * u_NM).sum(axis=1, keepdims=True)
    return np.asarray(once_NM - u_NM * twice_N / (2 * size_N))


def _rounded_row(row_M: FloatArray) -> tuple[int, FloatArray]:
    peak = float(np.abs(row_M).max(initial=0.0))
    weight = max(1, ceil(peak / ROW_PEAK))
    return weight, np.rint(row_M / weight)


def _text(values: FloatArray) -> str:
    whole: ExactArray = np.asarray(values, dtype=np.int64)
    return " ".join(map(str, whole.tolist()))


def rank_of(certificate: Mapping[str, Any]) -> int:
    """Return the largest rank of a group's factor."""
    return max(len(group["factor"][0].split()) for group in certificate["groups"])
