"""All legs of chained traffic at once, where every expert has a GPU of its own.

An expert's GPU takes from other domains, and sends to them, what its expert receives
and sends, less what it exchanges with the nodes that share its domain: at most d - 1.
For x[p, q] = 1 where nodes p and q share a domain, shares α of the ports of a leg, at
most 1 together, and prices ν of a seat and τ of a triangle, all >= 0,

    Σ legs >= Σ α·(total - Σ W·x) + Σ_p ν_p·(Σ_q x[p, q] - (d - 1))
              + Σ τ·(x[u, v] + x[v, w] - x[u, w] - 1),

which is linear in every x, so the worse of x = 0 and x = 1 holds for all placements.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.verifier.certificates.base import Certificate, Evidence
from planner.verifier.certificates.crossings import Port, crossings
from planner.verifier.certificates.walks import applies, members_of, sides_of, widest_of

PORTS = ("into", "out", "back_into", "back_out")
"""Ports of a layer: heads and tails of its dispatch, then of its combine."""


def chained(claimed: Certificate, layers: Sequence[Evidence], mode: str) -> Fraction:
    """Return the bound of the whole objective that the multipliers prove."""
    first, unit = layers[0], int(claimed["unit"])
    if not (applies(first) and first.single and first.traffic == "direct"):
        return Fraction(0)
    if first.layout.ep != first.layout.gpu_count or mode == "pipelined":
        return Fraction(0)
    shares = [
        {name: _prices(given.get(name, ()), first.experts) for name in PORTS}
        for given in claimed["layers"]
    ]
    if len(shares) != len(layers) or _whole(shares, mode) > unit:
        return Fraction(0)
    nodes = len(layers) * first.experts
    gain_NN = np.zeros((nodes, nodes), dtype=object)
    total = 0
    for layer, (given, evidence) in enumerate(zip(shares, layers, strict=True)):
        total += _added(gain_NN, layer, given, evidence)
    seat_N = np.concatenate([_prices(row, first.experts) for row in claimed["seats"]])
    if seat_N.size != nodes:
        raise ValueError(f"a seat price for each of {nodes} experts is needed")
    total -= (widest_of(first) - 1) * int(seat_N.sum())
    total -= _cornered(gain_NN, claimed["triangles"])
    spare_NN = gain_NN + gain_NN.T - seat_N[:, None] - seat_N[None, :]
    total -= int(np.maximum(0, np.triu(spare_NN, 1)).sum())
    return max(Fraction(0), total * _port(first, claimed["ports"]) / unit)


def _prices(given: Sequence[Any], size: int) -> ExactArray:
    """Return whole prices, those below 0 as 0; none given: all 0."""
    if len(given) not in (0, size):
        raise ValueError(f"{len(given)} prices where {size} are needed")
    prices = [max(0, int(price)) for price in given] or [0] * size
    return np.asarray(prices, dtype=object)


def _whole(shares: Sequence[dict[str, ExactArray]], mode: str) -> int:
    """Return the weight that the heaviest leg, or all layers together, are given."""
    legs = [
        [int(sum(given[name].sum() for name in names)) for given in shares]
        for names in (PORTS[:2], PORTS[2:])
    ]
    each = [max(pair) for pair in zip(*legs, strict=True)]
    return sum(each) if mode == "worst_layer" else max(each)


def _added(
    gain_NN: ExactArray, layer: int, share: dict[str, ExactArray], evidence: Evidence
) -> int:
    """Add what a layer's ports lose to neighbours; return what they carry in all."""
    timed, experts, total = evidence.objective == "link_time", evidence.experts, 0
    own = slice(layer * experts, (layer + 1) * experts)
    before = slice(own.start - experts, own.start)
    for leg, (into, out) in enumerate((PORTS[:2], PORTS[2:])):
        each = evidence.message[leg] if timed else 1
        for kind, weight_UV, _, _ in sides_of(evidence, leg):
            weighed_UV = weight_UV.astype(object) * each
            entering_V, leaving_U = weighed_UV.sum(axis=0), weighed_UV.sum(axis=1)
            if kind == "out":
                total += int(share[into] @ _abroad(weighed_UV, evidence))
            elif kind == "home":
                total += int(share[out] @ _abroad(weighed_UV.T, evidence))
            else:
                tails = before if kind == "between" else own
                total += int(share[into] @ entering_V + share[out] @ leaving_U)
                per_UV = share[out][:, None] + share[into][None, :]
                gain_NN[tails, own] += weighed_UV * per_UV
    return total


def _abroad(weight_HV: ExactArray, evidence: Evidence) -> ExactArray:
    """Return what experts exchange with homes but those of their best domain."""
    domain_H: IntArray = evidence.layout.domain_G[: len(weight_HV)]
    shape = (int(domain_H.max()) + 1, weight_HV.shape[1])
    by_domain = np.zeros(shape, dtype=object)
    np.add.at(by_domain, domain_H, weight_HV)
    abroad_V: ExactArray = weight_HV.sum(axis=0) - by_domain.max(axis=0)
    return abroad_V


def _cornered(gain_NN: ExactArray, triangles: Sequence[str]) -> int:
    """Charge the triangles "u v w price" to their pairs; return the prices' sum."""
    total = 0
    for row in triangles:
        u, v, w, price = (int(number) for number in row.split())
        if price < 0 or len({u, v, w}) < 3 or not min(u, v, w) >= 0:
            raise ValueError(f"triangle {row!r} has a price below 0 or no three nodes")
        gain_NN[u, v] -= price
        gain_NN[v, w] -= price
        gain_NN[u, w] += price
        total += price
    return total


def _port(evidence: Evidence, names: Sequence[str]) -> Fraction:
    """Return the least that a transfer takes of the links of the GPU it ends at."""
    found = []
    for name, inward in zip(names, (True, False), strict=True):
        rate = members_of(evidence, str(name))
        crossed = crossings(evidence, str(name))
        ports: dict[int, Port] = crossed.into_gpu if inward else crossed.out_of_gpu
        for port in ports.values():
            whole = sum((rate[link] for link in port.links), Fraction(0))
            if not whole:
                return Fraction(0)
            found.append(Fraction(port.share or 0, evidence.routes.q) / whole)
    return min(found, default=Fraction(0))
