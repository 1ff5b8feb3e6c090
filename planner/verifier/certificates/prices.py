"""Prices of links, slots and pairs: a Lagrangian bound of ``copies`` in closed form.

Sell every pair of expert e from GPU s at v[e, s]. Serving it on GPU g costs

    c[s, g] = Σ over legs and links of price · seconds on the link (or its tokens)
              + the price of g under ``gpu_tokens`` + the prices of caps around g,

and prices of a leg's links add up to at most 1, so Σ c · pairs minus what the caps
allow is at most the objective. A rank r of the EP set that holds e (price ν[r] of a
slot; x <= 1) earns at most Σ_s D[e, s] · max(0, v[e, s] − c[s, g]) + κ[e] − ν[r] with
κ[e] the price of covering e. Every rank fills exactly J slots. Hence, for every v and
ν of any sign and every κ, prices >= 0,

    objective >= Σ_e (Σ_s D·v + κ − Σ_r max(0, Σ_s D·max(0, v − c) + κ − ν[r]))
                 − J · Σ_r ν[r] − Σ caps price · limit.

A split that is free is the loosest of all selections, so this bounds each of them.

Under ``nearest`` a GPU that holds e serves itself (its own term is v − c, also where
that is negative), and a domain with a copy serves itself: with Z[e, C] = 1 if C holds
e, what leaves C is D·(1 − Z), max x <= Z <= Σ x. Prices ψ[e, s] (any sign) of the
first and β, α >= 0 of the others add Σ D·ψ to the value, make far pairs sell at v + ψ,
add α − β to what a rank earns, and leave Z: Σ_C min(0, α − Σ (β + D·ψ)).
"""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.layout import ParallelLayout
from planner.verifier.certificates.base import CHECKERS, Certificate, Evidence
from planner.witness.transfers import first_stop

_LEGS = ("dispatch", "combine")


@CHECKERS.register("prices")
def prices(certificate: Certificate, evidence: Evidence) -> Fraction:
    """``copies``: the bound of the module docstring, in whole numbers of ``unit``."""
    if evidence.traffic != "copies":
        return Fraction(0)
    unit = Fraction(certificate["unit"])
    layout, denominator = evidence.layout, evidence.denominator
    slot_R = _whole(certificate["slots"], (layout.ep,))
    cover_E = _whole(certificate["cover"], (evidence.experts,))
    pair_EG = _whole(certificate["pairs"], (evidence.experts, layout.gpu_count))
    if unit <= 0 or min(cover_E) < 0:
        return Fraction(0)
    cap_G, cap_cost = _caps(certificate, evidence)
    # Rounded down: a smaller cost earns more and lowers the bound.
    cost_GG = _costs(certificate, evidence, unit) + cap_G[None, :]
    value = -evidence.slots_per_gpu * int(slot_R.sum()) * denominator
    demand_EG = evidence.pairs_EG.astype(object)
    nearest = evidence.selection == "nearest"
    local = _Local(certificate, evidence) if nearest else None
    for expert in range(evidence.experts):
        price_G, demand_G = pair_EG[expert], demand_EG[expert]
        cover = int(cover_E[expert]) * denominator
        gain_R = np.full(layout.ep, cover, dtype=object) - slot_R * denominator
        value += int((demand_G * price_G).sum()) + cover
        price_GG = np.repeat(price_G[:, None], layout.gpu_count, axis=1)
        if local is not None:
            price_GG = price_GG + np.where(
                local.far_GG, local.price_EG[expert][:, None], 0
            )
            extra, earned_R = local.worth(expert, demand_G, denominator)
            value, gain_R = value + extra, gain_R + earned_R
        for first in range(0, layout.gpu_count, layout.ep):
            block = slice(first, first + layout.ep)
            over = price_GG[block, block] - cost_GG[block, block]
            sold = np.maximum(over, 0)
            if nearest:
                np.fill_diagonal(sold, np.diagonal(over))
            gain_R = gain_R + (demand_G[block, None] * sold).sum(axis=0)
        value -= int(np.maximum(gain_R, 0).sum())
    return (Fraction(value, denominator) - cap_cost) * unit


class _Local:
    """What selection ``nearest`` adds: domains that hold an expert serve themselves."""

    def __init__(self, certificate: Certificate, evidence: Evidence) -> None:
        layout = evidence.layout
        self.far_GG = layout.domain_G[:, None] != layout.domain_G[None, :]
        self._cells = _cells(layout)
        self._rank_G = np.arange(layout.gpu_count) % layout.ep
        shape = (evidence.experts, layout.gpu_count)
        given = certificate.get("local")
        if given is None:
            nothing = np.zeros(shape, dtype=object)
            self.price_EG = self._every_EG = nothing
            self._some_EC = np.zeros((shape[0], len(self._cells)), dtype=object)
            return
        self.price_EG = _whole(given["far"], shape)
        self._every_EG = _whole(given["every"], shape)
        self._some_EC = _whole(given["some"], (shape[0], len(self._cells)))
        if self._every_EG.min() < 0 or self._some_EC.min() < 0:
            raise ValueError("prices of local service must be >= 0")

    def worth(
        self, expert: int, demand_G: ExactArray, denominator: int
    ) -> tuple[int, ExactArray]:
        """Return what is added to the value, and to what each rank earns."""
        price_G, every_G = self.price_EG[expert], self._every_EG[expert]
        value = int((demand_G * price_G).sum())
        earned_R = np.zeros(int(self._rank_G.max()) + 1, dtype=object)
        for cell, members in enumerate(self._cells):
            some = int(self._some_EC[expert, cell])
            paid = int((every_G[members] * denominator).sum())
            paid += int((demand_G[members] * price_G[members]).sum())
            value += min(0, some * denominator - paid)
            for gpu in members.tolist():
                earned_R[self._rank_G[gpu]] += (some - every_G[gpu]) * denominator
        return value, earned_R


def _cells(layout: ParallelLayout) -> list[IntArray]:
    """GPUs of each domain within an EP set, in order of their first GPU."""
    cells: dict[tuple[int, int], list[int]] = {}
    for gpu, domain in enumerate(layout.domain_G.tolist()):
        cells.setdefault((gpu // layout.ep, domain), []).append(gpu)
    return [np.asarray(members) for members in cells.values()]


def _whole(values: object, shape: tuple[int, ...]) -> ExactArray:
    array = np.asarray(values, dtype=np.int64)
    if array.shape != shape:
        raise ValueError(f"shape {array.shape}, not {shape}")
    return array.astype(object)


def _caps(certificate: Certificate, evidence: Evidence) -> tuple[ExactArray, Fraction]:
    """Price of a pair on each GPU from the caps around it, and what all allow."""
    pairs = sum((sum(loads, Fraction(0)) for loads in evidence.load_SE), Fraction(0))
    mean = pairs / evidence.layout.gpu_count
    price_G = np.zeros(evidence.layout.gpu_count, dtype=object)
    allowed = Fraction(0)
    domains = {
        tuple(np.flatnonzero(evidence.layout.domain_G == domain).tolist())
        for domain in set(evidence.layout.domain_G.tolist())
    }
    for entry in certificate["caps"]:
        gpus, price = tuple(entry["gpus"]), int(entry["price"])
        cap = evidence.cap_domain if gpus in domains else None
        if len(gpus) == 1 and evidence.cap_gpu is not None:
            cap = min(evidence.cap_gpu, cap or evidence.cap_gpu)
        if cap is None or price < 0:
            raise ValueError(f"no cap is in force on GPUs {gpus}")
        price_G[list(gpus)] += price
        allowed += price * cap * mean * len(gpus)
    return price_G, allowed


def _costs(certificate: Certificate, evidence: Evidence, unit: Fraction) -> ExactArray:
    """c[s, g] without caps in units, rounded down."""
    gpus = evidence.layout.gpu_count
    if evidence.objective == "gpu_tokens":
        shares = [Fraction(share) for share in certificate["gpus"]]
        if len(shares) != gpus or min(shares) < 0 or sum(shares) > 1:
            raise ValueError("GPU prices must be >= 0 and add up to at most 1")
        row = np.asarray([int(share / unit) for share in shares], dtype=object)
        return np.repeat(row[None, :], gpus, axis=0)
    total = np.zeros((gpus, gpus), dtype=object)
    for number, leg in enumerate(_LEGS):
        price_A, over = link_prices(certificate["links"].get(leg, {}), number, evidence)
        route_GG = route_costs(price_A, evidence)
        if leg == "combine":
            route_GG = route_GG.T
        scaled = through_relays(route_GG, evidence)
        scale = unit * over * evidence.routes.q
        total += scaled * scale.denominator // scale.numerator
    return total


def link_prices(
    shares: Mapping[str, str], leg: int, evidence: Evidence
) -> tuple[ExactArray, int]:
    """Objective per transfer on each link times its price: whole numbers over one."""
    price = {name: Fraction(share) for name, share in shares.items()}
    links = evidence.topology.links
    if set(price) - {link.name for link in links}:
        raise ValueError("a price names no link")
    if any(share < 0 for share in price.values()) or sum(price.values()) > 1:
        raise ValueError("link prices must be >= 0 and add up to at most 1")
    value_A = [Fraction(0)] * len(links)
    for link in links:
        share = price.get(link.name, Fraction(0))
        if not share:
            continue
        if evidence.objective == "link_time":
            value_A[link.index] += share * evidence.message[leg] / link.bytes_per_s
        elif link.name in evidence.scope:
            for edge in link.members or (link.index,):
                value_A[edge] += share / links[edge].token_divisor
    over = int(np.lcm.reduce([value.denominator for value in value_A], dtype=object))
    whole = [int(value * over) for value in value_A]
    return np.asarray(whole, dtype=object), over


def route_costs(price_A: ExactArray, evidence: Evidence) -> ExactArray:
    """Price of one transfer by ordered pair of GPUs, times Q."""
    gpus = evidence.layout.gpu_count
    indptr, links_X, value_X = evidence.routes.incidence()
    priced_X = price_A[links_X] * value_X.astype(object)
    running = np.concatenate([[0], np.cumsum(priced_X)]).astype(object)
    cost: ExactArray = (running[indptr[1:]] - running[indptr[:-1]]).reshape(gpus, gpus)
    return cost


def through_relays(route_GG: ExactArray, evidence: Evidence) -> ExactArray:
    """Price of a pair (source, serving GPU), by way of its relay if forwarded.

    ``route_GG[s, d]`` is what the leg pays between the two, whichever way it runs.
    """
    if evidence.endpoint == "local_nic":
        return route_GG
    layout = evidence.layout
    gpus = np.arange(layout.gpu_count)
    source, target = np.indices((gpus.size, gpus.size))
    stop: IntArray = first_stop(layout, source, target, evidence.endpoint)
    onward = route_GG[stop, gpus[None, :]]
    onward = np.where(stop == gpus[None, :], 0, onward)
    result: ExactArray = route_GG[gpus[:, None], stop] + onward
    return result
