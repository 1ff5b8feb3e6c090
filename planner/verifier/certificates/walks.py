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
from planner.verifier.certificates.crossings import crossings
from planner.verifier.certificates.seats import seat, seen_from, tried
from planner.workload.parts import TokenPart

Limit = tuple[int, int]
"""How many columns a row meets at most, and how many rows a column."""


@CHECKERS.register("walks")
def walks(certificate: Certificate, evidence: Evidence) -> Fraction:
    """Return the sum of what both legs prove, or what is proven of both together."""
    if not applies(evidence):
        return Fraction(0)
    alone = sum((_leg(certificate, evidence, leg) for leg in (0, 1)), Fraction(0))
    if "together" not in certificate:
        return alone
    return max(alone, _together(certificate["together"], evidence))


def starts(
    ports: Sequence[str],
    certificates: Sequence[Certificate],
    layers: Sequence[Evidence],
) -> list[Fraction]:
    """Return by how much each layer's bound rises if some domain begins with it.

    More domains hold experts than the first layer has: in one of them the earliest
    layer's experts meet nobody of the layer before, and all that goes to them enters.
    Some layer but the first has at least this rise; empty if nothing follows.
    """
    first = layers[0]
    if not (first.single and first.traffic == "direct" and applies(first)):
        return []
    held = -(-len(layers) * first.experts // widest_of(first))
    if held <= first.experts or first.layout.ep != first.layout.gpu_count:
        return []
    rises = []
    for certificate, evidence in zip(certificates[1:], layers[1:], strict=True):
        weight_UV = sides_of(evidence, 0)[0][1]
        whole = int(weight_UV.sum(axis=0).min()) * _port(evidence, ports, 0)
        raised = whole + _leg(certificate, evidence, 1)
        rises.append(max(Fraction(0), raised - walks(certificate, evidence)))
    return rises


def lifted(
    layers: Sequence[Fraction], rises: Sequence[Fraction], mode: str
) -> Fraction:
    """Return the bound of the whole, some layer but the first having its rise."""
    if mode == "worst_layer":
        if not rises:
            return max(layers)
        raised = [one + rise for one, rise in zip(layers[1:], rises, strict=True)]
        return max(max(layers), min(raised, default=Fraction(0)))
    return sum(layers, Fraction(0)) + min(rises, default=Fraction(0))


def applies(evidence: Evidence) -> bool:
    """One copy of each expert, and traffic that is a sum over pairs of nodes."""
    return (
        evidence.traffic in ("direct", "copies")
        and evidence.endpoint == "local_nic"
        and evidence.objective in ("link_time", "link_tokens")
        and evidence.slot_count == evidence.experts
        and isinstance(evidence.part, TokenPart)
    )


def _part(evidence: Evidence) -> TokenPart:
    assert isinstance(evidence.part, TokenPart)
    return evidence.part


def _leg(certificate: Certificate, evidence: Evidence, leg: int) -> Fraction:
    """Return what a leg's own proof, of either sort, says."""
    claimed = certificate["legs"][leg]
    sides = sides_of(evidence, leg)
    if "side" in claimed:
        if evidence.layout.ep != evidence.layout.gpu_count:
            return Fraction(0)
        weight = {side[0]: side[1] for side in sides}
        if "mixes" in claimed:
            least = seat(claimed, evidence, weight)
        else:
            seen = seen_from(evidence, weight, 1)
            least = tried(claimed, evidence, [seen])
        return max(Fraction(0), least) * _port(evidence, claimed["ports"], leg)
    near, far = _rates(evidence, str(claimed["class"]), leg)
    apart = abroad = 0
    for number, (_, weight_UV, gpu, domain) in enumerate(sides):
        apart += _apart(weight_UV, gpu, claimed["gpu"][number])
        abroad += _apart(weight_UV, domain, claimed["domain"][number])
    least = min(near, far)
    return least * apart + (far - least) * abroad


def _together(claimed: Certificate, evidence: Evidence) -> Fraction:
    """Return what both legs take of the ports of one expert's domain."""
    if evidence.layout.ep != evidence.layout.gpu_count:
        return Fraction(0)
    timed, seen = evidence.objective == "link_time", []
    for leg in (0, 1):
        sides = sides_of(evidence, leg)
        each = evidence.message[leg] if timed else 1
        seen.append(seen_from(evidence, {side[0]: side[1] for side in sides}, each))
    least = tried({**claimed, "side": "head"}, evidence, seen)
    return least * _port(evidence, claimed["ports"], None)


def _apart(weight_UV: IntArray, limit: Limit, claimed: Certificate) -> int:
    """Return what is sure to travel between nodes that do not meet."""
    row_U = [max(0, int(value)) for value in claimed["rows"]]
    column_V = [max(0, int(value)) for value in claimed["columns"]]
    met = limit[0] * sum(row_U) + limit[1] * sum(column_V)
    for row, weights in zip(row_U, weight_UV.tolist(), strict=True):
        for column, weight in zip(column_V, weights, strict=True):
            met += max(0, weight - row - column)
    return max(0, int(weight_UV.sum()) - met)


def sides_of(evidence: Evidence, leg: int) -> list[tuple[str, IntArray, Limit, Limit]]:
    """Return transfers between two kinds of nodes, with who may meet how many."""
    part = _part(evidence)
    slots, layer, ep = evidence.slots_per_gpu, evidence.layer, evidence.layout.ep
    widest, experts = widest_of(evidence), evidence.experts
    wide = slots * widest
    chosen_TK = part.experts_LTK[layer].astype(np.int64)
    home_T = part.source_T % ep
    chained = evidence.traffic == "direct"
    if leg == 0 and (layer == 0 or not chained):
        weight_UV = _count(home_T, chosen_TK, (ep, experts))
        return [("out", weight_UV, (slots, 1), (wide, widest))]
    if leg == 0:
        before_T = part.experts_LTK[layer - 1][:, 0].astype(np.int64)
        weight_UV = _count(before_T, chosen_TK, (experts, experts))
        # With one expert per GPU altogether, two layers never share a GPU.
        gpu, domain = (0, widest - 1) if evidence.single else (slots, wide)
        return [("between", weight_UV, (gpu, gpu), (domain, domain))]
    if not chained:
        weight_UV = _count(home_T, chosen_TK, (ep, experts)).T.copy()
        return [("home", weight_UV, (1, slots), (widest, wide))]
    # Results that meet where they are made do not travel: the diagonal is nothing.
    merged_VU = _count(chosen_TK[:, 0], chosen_TK[:, 1:], (experts, experts))
    np.fill_diagonal(merged_VU, 0)
    inside = merged_VU.T.copy()
    sides = [("within", inside, (slots - 1, slots - 1), (wide - 1, wide - 1))]
    if layer == len(part.experts_LTK) - 1:
        homeward = _count(chosen_TK[:, 0], home_T[:, None], (experts, ep))
        sides.append(("home", homeward, (1, slots), (widest, wide)))
    return sides


def _count(tail_T: IntArray, head_TK: IntArray, shape: tuple[int, int]) -> IntArray:
    """Count (tail, head); tokens without one or the other are left out."""
    weight_UV = np.zeros(shape, dtype=np.int64)
    for head_T in head_TK.T:
        known = (tail_T >= 0) & (head_T >= 0)
        np.add.at(weight_UV, (tail_T[known], head_T[known]), 1)
    return weight_UV


def widest_of(evidence: Evidence) -> int:
    """Most GPUs of one EP set in one domain."""
    layout, most = evidence.layout, 0
    for first in range(0, layout.gpu_count, layout.ep):
        domains: Sequence[int] = layout.domain_G[first : first + layout.ep].tolist()
        most = max(most, *(domains.count(domain) for domain in set(domains)))
    return most


def members_of(evidence: Evidence, name: str) -> dict[int, Fraction]:
    """Rate of every link of a class that the objective looks at."""
    timed = evidence.objective == "link_time"
    return {
        link.index: link.bytes_per_s if timed else Fraction(link.token_divisor)
        for link in evidence.topology.links
        if link.link_class == name
        and not link.members
        and (timed or link.name in evidence.scope)
    }


def _unit(evidence: Evidence, leg: int | None) -> Fraction:
    """Return what a message of a leg weighs; one byte or token without a leg."""
    timed = evidence.objective == "link_time"
    return Fraction(evidence.message[leg] if timed and leg is not None else 1)


def _rates(evidence: Evidence, name: str, leg: int) -> tuple[Fraction, Fraction]:
    """Cheapest way in and between domains, over the rates of a class of links."""
    rate = members_of(evidence, name)
    if not rate:
        return Fraction(0), Fraction(0)
    crossed = crossings(evidence, name)
    unit = _unit(evidence, leg) / (sum(rate.values(), Fraction(0)) * evidence.routes.q)
    near = crossed.least.get(False, 0)
    return unit * near, unit * crossed.least.get(True, near)


def _port(evidence: Evidence, names: Sequence[str], leg: int | None) -> Fraction:
    """Least that a transfer takes of the links of a domain that it enters or leaves."""
    found = []
    for name, inward in zip(names, (True, False), strict=True):
        rate, crossed = members_of(evidence, str(name)), crossings(evidence, str(name))
        for port in (crossed.inward if inward else crossed.outward).values():
            whole = sum((rate[link] for link in port.links), Fraction(0))
            if not whole:
                return Fraction(0)
            found.append(Fraction(port.share or 0, evidence.routes.q) / whole)
    return min(found, default=Fraction(0)) * _unit(evidence, leg)
