"""Deduplicated traffic, one copy per expert: a bound from Gram matrices.

A *group* n is what a token visits at most once (a domain, or a GPU). Let x[e] say
that expert e is in group n and X[e, f] = x[e]·x[f]. If c experts of a token are in n,
c >= 1, the visit is the sum over them of 1/c, and for whole k >= 1

    1/c >= (2k + 1 − c) / (k·(k + 1)),        as (c − k)·(c − k − 1) >= 0,

so a visit is at least Σ_e (α·x[e] − β·Σ_f X[e, f]) over the experts of the token,
for any mixture (α, β) of such lines. Times the price of a visit, which is at least 0
and whose sum is at most the objective, this is linear in x and X. With M = [1 xᵀ; x X],
whose square is positive semidefinite, M·u = 0 for u = (−slots, 1, …, 1) and, under a
cap, M·q <= 0 for q = (−limit, pairs of each expert): for every factor V, row y of any
sign and z >= 0

    ⟨D, M⟩ >= 0        with D = V·Vᵀ + y·uᵀ + u·yᵀ − z·qᵀ − q·zᵀ.

Sharing a group is transitive, so with Y = Σ_n X

    Y[e, f] + Y[f, g] − Y[e, g] <= 1        for distinct e, f, g.

What is left after subtracting ⟨D, M⟩, and adding such rows at prices >= 0, is at least
its value where X[e, f] is 0 or (x[e] + x[f]) / 2, whichever is less, and where every
expert is in the group in which it costs least. Nothing offered can make this more than
the objective.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor, lcm
from typing import Any

import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.verifier.certificates.base import CHECKERS, Certificate, Evidence
from planner.verifier.certificates.prices import link_prices, route_costs
from planner.witness.transfers import relays
from planner.workload.parts import TokenPart

_LEGS = ("dispatch", "combine")
_WORD = 2.0**62


@CHECKERS.register("gram")
def gram(certificate: Certificate, evidence: Evidence) -> Fraction:
    """Deduplicated traffic, link objectives, one EP set, one copy of each expert."""
    part = evidence.part
    fits = (
        evidence.traffic in ("dedup_domain", "dedup_gpu")
        and evidence.objective in ("link_time", "link_tokens")
        and isinstance(part, TokenPart)
        and evidence.layout.sets == 1
        and evidence.slot_count == evidence.experts
    )
    unit = Fraction(certificate["unit"])
    if not fits or unit <= 0:
        return Fraction(0)
    groups = _groups(evidence)
    visit_SN = _visit_prices(certificate, evidence, groups, unit)
    lines = _lines(certificate["guide"], evidence)
    # Twice the pair costs, so that halves stay whole.
    held_NE = 2 * _times(visit_SN.T, lines.alone_SE)
    flat_SX = lines.pair_SEE.reshape(len(lines.pair_SEE), -1)
    shape = (len(groups), evidence.experts, evidence.experts)
    pair_NEE = -_times(visit_SN.T, flat_SX).reshape(shape)
    pair_NEE = pair_NEE + pair_NEE.transpose(0, 2, 1)
    row_EE, limit = _triangles(certificate["triangles"], evidence.experts)
    records = certificate["groups"]
    if len(records) != len(groups):
        raise ValueError(f"{len(records)} groups, not {len(groups)}")
    gains, value = [], -2 * limit
    for members, record, held_E, pair_EE in zip(
        groups, records, held_NE, pair_NEE, strict=True
    ):
        dual_MM = _dual(record, evidence, members)
        left_EE = pair_EE + row_EE - dual_MM[1:, 1:]
        np.fill_diagonal(left_EE, 0)
        gain_E = held_E - 2 * dual_MM[0, 1:] - np.diagonal(dual_MM)[1:]
        gains.append(gain_E + np.minimum(left_EE, 0).sum(axis=1))
        value -= int(dual_MM[0, 0])
    value += int(np.stack(gains).min(axis=0).sum())
    return Fraction(value, 2 * lines.denominator) * unit


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lines:
    """Intercepts and slopes of all tokens by source, over ``denominator``."""

    alone_SE: IntArray
    pair_SEE: IntArray
    denominator: int


def _groups(evidence: Evidence) -> list[tuple[int, ...]]:
    """GPUs of what a token visits at most once."""
    layout = evidence.layout
    cells: dict[int, list[int]] = {}
    for gpu, domain in enumerate(layout.domain_G.tolist()):
        cells.setdefault(domain, []).append(gpu)
    if evidence.traffic == "dedup_domain" and len(cells) > 1:
        return [tuple(members) for members in cells.values()]
    return [(gpu,) for gpu in range(layout.gpu_count)]


def _visit_prices(
    certificate: Certificate,
    evidence: Evidence,
    groups: list[tuple[int, ...]],
    unit: Fraction,
) -> ExactArray:
    """Price of a visit [S, N] in units, rounded down; 0 in the token's own group.

    Only what every visit causes is priced: the transfer to the relay or GPU, and on
    from the relay where transfers are forwarded one by one.
    """
    layout = evidence.layout
    relay_GN = relays(layout)
    forwarded = (
        evidence.endpoint == "dest_forward" or evidence.traffic == "dedup_domain"
    )
    visit_SN = np.zeros((layout.gpu_count, len(groups)), dtype=object)
    for leg, name in enumerate(_LEGS):
        price_A, over = link_prices(certificate["links"].get(name, {}), leg, evidence)
        route_GG = route_costs(price_A, evidence)
        route_GG = route_GG.T if leg else route_GG
        scale = unit * over * evidence.routes.q
        for number, members in enumerate(groups):
            target = members[0]
            domain = int(layout.domain_G[target])
            for source in range(layout.gpu_count):
                if source in members:
                    continue
                stop = target
                if forwarded and int(layout.domain_G[source]) != domain:
                    stop = int(relay_GN[source, domain])
                cost = int(route_GG[source, stop])
                if evidence.traffic == "dedup_gpu" and stop != target:
                    cost += int(route_GG[stop, target])
                visit_SN[source, number] += Fraction(cost) / scale
    whole = [[floor(price) for price in row] for row in visit_SN.tolist()]
    return np.asarray(whole, dtype=object)


def _lines(guide: Mapping[str, Any], evidence: Evidence) -> _Lines:
    """Choose a mixture of two lines per (token, expert) at the guide, and add up.

    With c the sum of the guide over the token's experts and k the nearest whole
    number, the line of k has the share (c − k + soft) / (2 · soft), within 0 and 1;
    that of k − 1 the rest.
    """
    part = evidence.part
    assert isinstance(part, TokenPart)
    resolution, soft = int(guide["resolution"]), int(guide["soft"])
    if resolution <= 0 or soft <= 0:
        raise ValueError("resolution and soft must be > 0")
    guide_EE = _lower_rows(guide["rows"], evidence.experts)
    np.fill_diagonal(guide_EE, resolution)
    experts_TK = _distinct(part.experts_LTK[evidence.layer].astype(np.int64))
    choices = experts_TK.shape[1]
    knots = np.arange(choices + 2)
    whole = [int(k * (k + 1)) for k in knots]
    common = lcm(*whole[1:])
    most = part.token_count * choices**2 * 2 * soft * common * (2 * choices + 3)
    if most >= _WORD or resolution >= 2**31:
        raise ValueError("soft is too large")
    step_k = np.asarray([0, *(common // each for each in whole[1:])], dtype=np.int64)
    gpus, experts = evidence.layout.gpu_count, evidence.experts
    alone_SE = np.zeros((gpus, experts), dtype=np.int64)
    pair_SEE = np.zeros((gpus, experts, experts), dtype=np.int64)
    for at in range(choices):
        token_T = np.flatnonzero(experts_TK[:, at] >= 0)
        own_T, others_TK = experts_TK[token_T, at], experts_TK[token_T]
        source_T = part.source_T[token_T]
        expected_TK = guide_EE[own_T[:, None], others_TK]
        expected_T = np.where(others_TK >= 0, expected_TK, 0).sum(axis=1)
        # Any k >= 1 is valid; beyond the choices of a token there is nothing to gain.
        knot_T = (2 * expected_T + resolution) // (2 * resolution)
        knot_T = np.clip(knot_T, 1, choices + 1)
        upper_T = np.clip(expected_T - knot_T * resolution + soft, 0, 2 * soft)
        upper_T = np.where(knot_T == 1, 2 * soft, upper_T)
        lower_T = 2 * soft - upper_T
        slope_T = upper_T * step_k[knot_T] + lower_T * step_k[knot_T - 1]
        start_T = upper_T * step_k[knot_T] * (2 * knot_T + 1)
        start_T += lower_T * step_k[knot_T - 1] * (2 * knot_T - 1)
        np.add.at(alone_SE, (source_T, own_T), start_T - slope_T)
        for other in range(choices):
            if other == at:
                continue
            met_T = others_TK[:, other] >= 0
            place = (source_T[met_T], own_T[met_T], others_TK[met_T, other])
            np.add.at(pair_SEE, place, slope_T[met_T])
    return _Lines(alone_SE=alone_SE, pair_SEE=pair_SEE, denominator=2 * soft * common)


def _dual(
    record: Mapping[str, Any], evidence: Evidence, members: tuple[int, ...]
) -> ExactArray:
    """D of the module's docstring, in whole numbers."""
    size = evidence.experts + 1
    factor_MR = _whole_rows(record["factor"], size)
    weight = int(record["weight"])
    if weight < 0:
        raise ValueError("the weight of a factor must be >= 0")
    slots = evidence.slots_per_gpu * len(members)
    u_M = np.asarray([-slots, *[1] * evidence.experts], dtype=object)
    row_M = _whole_row(record["row"], size).astype(object) * int(record["row_weight"])
    dual_MM = _times(factor_MR, factor_MR.T).astype(object) * weight
    dual_MM = dual_MM + np.outer(row_M, u_M) + np.outer(u_M, row_M)
    if "cap" not in record:
        return np.asarray(dual_MM)
    limit, pairs_E = _limit(evidence, members)
    q_M = np.asarray([-limit, *pairs_E.tolist()], dtype=object)
    cap_M = _whole_row(record["cap"], size).astype(object) * int(record["cap_weight"])
    if min(cap_M) < 0:
        raise ValueError("multipliers of a cap must be >= 0")
    return np.asarray(dual_MM - np.outer(cap_M, q_M) - np.outer(q_M, cap_M))


def _triangles(record: Mapping[str, Any], experts: int) -> tuple[ExactArray, int]:
    """Prices of triangle rows put on ordered pairs, and half their sum.

    A row is given in halves: its price is twice the number times the weight.
    """
    weight = int(record["weight"])
    row_EE = np.zeros((experts, experts), dtype=object)
    total = 0
    for text in record["rows"]:
        middle, one, other, price = _whole_row(text, 4).tolist()
        corners = {middle, one, other}
        if len(corners) < 3 or min(corners) < 0 or price * weight < 0:
            raise ValueError("a triangle needs three experts and a price >= 0")
        total += price * weight
        pairs = ((one, middle, 1), (middle, other, 1), (one, other, -1))
        for left, right, sign in pairs:
            row_EE[left, right] += sign * price * weight
            row_EE[right, left] += sign * price * weight
    return row_EE, total


def _limit(evidence: Evidence, members: tuple[int, ...]) -> tuple[int, IntArray]:
    """Pairs that the group may compute under the caps, and those of each expert."""
    pairs_E = evidence.pairs_EG.sum(axis=1)
    pairs, gpus = int(pairs_E.sum()), evidence.layout.gpu_count
    mean = Fraction(pairs, gpus)
    limit = pairs
    if evidence.cap_gpu is not None:
        limit = min(limit, floor(evidence.cap_gpu * mean) * len(members))
    domain_G = evidence.layout.domain_G
    inside = np.flatnonzero(domain_G == domain_G[members[0]]).tolist()
    if evidence.cap_domain is not None and tuple(inside) == members:
        limit = min(limit, floor(evidence.cap_domain * mean * len(members)))
    return limit, pairs_E


def _distinct(experts_TK: IntArray) -> IntArray:
    """A token that names an expert twice has it once."""
    result = experts_TK.copy()
    for later in range(1, result.shape[1]):
        again_T = (experts_TK[:, :later] == experts_TK[:, later, None]).any(axis=1)
        result[again_T, later] = -1
    return result


def _times(left: ExactArray, right: ExactArray) -> ExactArray:
    """Matrix product of whole numbers, in words where a bound allows it."""
    sizes = np.abs(left.astype(np.float64)) @ np.abs(right.astype(np.float64))
    if sizes.max(initial=0.0) < _WORD:
        return np.asarray(left.astype(np.int64) @ right.astype(np.int64))
    return np.asarray(left.astype(object) @ right.astype(object))


def _whole_row(text: str, size: int) -> IntArray:
    words = [int(word) for word in text.split()]
    if len(words) != size or any(abs(word) >= _WORD for word in words):
        raise ValueError(f"needs {size} whole numbers of at most 62 bits")
    return np.asarray(words, dtype=np.int64)


def _whole_rows(texts: list[str], size: int) -> IntArray:
    if len(texts) != size:
        raise ValueError(f"{len(texts)} rows, not {size}")
    width = len(texts[0].split())
    return np.stack([_whole_row(text, width) for text in texts])


def _lower_rows(texts: list[str], size: int) -> IntArray:
    """Read the lower triangle of a symmetric matrix of numbers >= 0."""
    if len(texts) != size:
        raise ValueError(f"{len(texts)} rows, not {size}")
    square = np.zeros((size, size), dtype=np.int64)
    for at, text in enumerate(texts):
        square[at, : at + 1] = _whole_row(text, at + 1)
        square[: at + 1, at] = square[at, : at + 1]
    if not 0 <= square.min() <= square.max() < 2**31:
        raise ValueError("the guide must hold numbers from 0")
    return square
