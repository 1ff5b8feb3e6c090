"""Traffic ``direct``: what travels in a layer, less the most that can sit together.

The links of a class share what crosses them, so the busiest takes at least the
whole over the sum of their rates. What crosses is at least the cheapest way of all
transfers whose ends are on different GPUs, and of those in different domains. With
one copy of each expert a node meets a limited number of the other side's nodes on
its GPU or in its domain; weak duality of that transport bounds what meets.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from planner.arrays import IntArray
from planner.verifier.certificates.base import CHECKERS, Certificate, Evidence
from planner.workload.parts import TokenPart

Limit = tuple[int, int]
"""How many columns a row meets at most, and how many rows a column."""


@CHECKERS.register("walks")
def walks(certificate: Certificate, evidence: Evidence) -> Fraction:
    """Return the sum of what both legs prove."""
    if (
        evidence.traffic != "direct"
        or evidence.objective not in ("link_time", "link_tokens")
        or evidence.slot_count != evidence.experts
        or not isinstance(evidence.part, TokenPart)
    ):
        return Fraction(0)
    bound = Fraction(0)
    for leg, claimed in enumerate(certificate["legs"]):
        sides = _sides(evidence, evidence.part, leg)
        near, far = _rates(evidence, str(claimed["class"]), leg)
        apart = abroad = 0
        for number, (weight_UV, gpu, domain) in enumerate(sides):
            apart += _apart(weight_UV, gpu, claimed["gpu"][number])
            abroad += _apart(weight_UV, domain, claimed["domain"][number])
        least = min(near, far)
        bound += least * apart + (far - least) * abroad
    return bound


def _apart(weight_UV: IntArray, limit: Limit, claimed: Certificate) -> int:
    """Return what is sure to travel between nodes that do not meet."""
    row_U = [max(0, int(value)) for value in claimed["rows"]]
    column_V = [max(0, int(value)) for value in claimed["columns"]]
    met = limit[0] * sum(row_U) + limit[1] * sum(column_V)
    for row, weights in zip(row_U, weight_UV.tolist(), strict=True):
        for column, weight in zip(column_V, weights, strict=True):
            met += max(0, weight - row - column)
    return max(0, int(weight_UV.sum()) - met)


def _sides(
    evidence: Evidence, part: TokenPart, leg: int
) -> list[tuple[IntArray, Limit, Limit]]:
    """Return transfers between two kinds of nodes, with who may meet how many."""
    slots, layer, ep = evidence.slots_per_gpu, evidence.layer, evidence.layout.ep
    widest = _widest(evidence)
    wide = slots * widest
    chosen_TK = part.experts_LTK[layer].astype(np.int64)
    home_T = part.source_T % ep
    experts = evidence.experts
    if leg == 0 and layer == 0:
        weight_UV = _count(home_T, chosen_TK, (ep, experts))
        return [(weight_UV, (slots, 1), (wide, widest))]
    if leg == 0:
        before_T = part.experts_LTK[layer - 1][:, 0].astype(np.int64)
        weight_UV = _count(before_T, chosen_TK, (experts, experts))
        return [(weight_UV, (slots, slots), (wide, wide))]
    # Results that meet where they are made do not travel: the diagonal is nothing.
    merged_VU = _count(chosen_TK[:, 0], chosen_TK[:, 1:], (experts, experts))
    np.fill_diagonal(merged_VU, 0)
    sides = [(merged_VU.T.copy(), (slots - 1, slots - 1), (wide - 1, wide - 1))]
    if layer == len(part.experts_LTK) - 1:
        homeward = _count(chosen_TK[:, 0], home_T[:, None], (experts, ep))
        sides.append((homeward, (1, slots), (widest, wide)))
    return sides


def _count(tail_T: IntArray, head_TK: IntArray, shape: tuple[int, int]) -> IntArray:
    """Count (tail, head); tokens without one or the other are left out."""
    weight_UV = np.zeros(shape, dtype=np.int64)
    for head_T in head_TK.T:
        known = (tail_T >= 0) & (head_T >= 0)
        np.add.at(weight_UV, (tail_T[known], head_T[known]), 1)
    return weight_UV


def _widest(evidence: Evidence) -> int:
    """Most GPUs of one EP set in one domain."""
    layout, most = evidence.layout, 0
    for first in range(0, layout.gpu_count, layout.ep):
        domains: Sequence[int] = layout.domain_G[first : first + layout.ep].tolist()
        most = max(most, *(domains.count(domain) for domain in set(domains)))
    return most


def _rates(evidence: Evidence, name: str, leg: int) -> tuple[Fraction, Fraction]:
    """Cheapest way in and between domains, over the rates of a class of links."""
    layout, routes, links = evidence.layout, evidence.routes, evidence.topology.links
    timed = evidence.objective == "link_time"
    members = [
        link
        for link in links
        if link.link_class == name
        and not link.members
        and (timed or link.name in evidence.scope)
    ]
    if not members:
        return Fraction(0), Fraction(0)
    if timed:
        whole = sum((link.bytes_per_s for link in members), Fraction(0))
        unit = Fraction(evidence.message[leg]) / whole
    else:
        unit = Fraction(1, sum(link.token_divisor for link in members))
    known = {link.index for link in members}
    least: dict[bool, int] = {}
    indptr, link_X, numerator_X = routes.incidence()
    for source in range(layout.gpu_count):
        first = source // layout.ep * layout.ep
        for target in range(first, first + layout.ep):
            if source == target:
                continue
            pair = source * layout.gpu_count + target
            inside = range(int(indptr[pair]), int(indptr[pair + 1]))
            crossed = sum(
                int(numerator_X[at]) for at in inside if int(link_X[at]) in known
            )
            far = bool(layout.domain_G[source] != layout.domain_G[target])
            least[far] = min(least.get(far, crossed), crossed)
    near = least.get(False, 0)
    away = least.get(True, near)
    return unit * Fraction(near, routes.q), unit * Fraction(away, routes.q)
