"""One copy per expert: wherever it sits, its tokens must come in by that GPU's ports.

With as many slots as experts every expert has one copy. On a GPU g of domain C it
draws all its tokens from outside C through what every transfer into g from another
domain passes, and sends the results back the same way:

    layer >= max_e min_C far[e, C] · Σ_leg τ[C, leg],

τ being the objective's unit per transfer on the slowest link of that way, the least
of the GPUs of C. Where tokens are forwarded inside the target's domain, the relay on
rail ρ takes in those of rail ρ, and far[e, C] is that of the busiest rail.
"""

from fractions import Fraction
from functools import lru_cache

import numpy as np

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.topology.graph import ClusterTopology, Link
from planner.topology.paths import Routes
from planner.verifier.certificates.base import CHECKERS, Certificate, Evidence
from planner.workload.parts import TokenPart

MODES = ("copies", "dedup_gpu", "dedup_domain")
Demand = tuple[IntArray, IntArray]
"""Expert and source GPU of every pair, in any order."""
Kind = tuple[IntArray, int, Fraction]
"""Domains, their size, and what a transfer costs there at least, both legs."""


@CHECKERS.register("one_copy")
def one_copy(certificate: Certificate, evidence: Evidence) -> Fraction:
    """Return the bound above; 0 where an expert may have several copies."""
    part = evidence.part
    if evidence.slot_count != evidence.experts or evidence.layout.sets != 1:
        return Fraction(0)
    if evidence.traffic not in MODES or evidence.objective == "gpu_tokens":
        return Fraction(0)
    if not isinstance(part, TokenPart):
        return Fraction(0)
    demand = _demand(evidence, part, merged=evidence.traffic != "copies")
    relayed = evidence.traffic == "dedup_domain" or evidence.endpoint == "dest_forward"
    least: list[list[Fraction]] = [[] for _ in range(evidence.experts)]
    for domains, size, unit in _alike(evidence):
        far_E = _least_far(evidence, demand, domains, size if relayed else 1)
        for expert, far in enumerate(far_E.tolist()):
            least[expert].append(far * unit)
    return max(min(costs) for costs in least)


def _demand(evidence: Evidence, part: TokenPart, *, merged: bool) -> Demand:
    """Return the pairs of the layer; ``merged``: an expert once per token."""
    token_x, place_x = np.nonzero(part.experts_LTK[evidence.layer] >= 0)
    expert_x = part.experts_LTK[evidence.layer][token_x, place_x].astype(np.int64)
    if merged:
        key_x = np.unique(token_x * evidence.experts + expert_x)
        token_x, expert_x = key_x // evidence.experts, key_x % evidence.experts
    return expert_x, part.source_T[token_x]


def _alike(evidence: Evidence) -> tuple[Kind, ...]:
    """Domains of one size whose ways in and out cost the same, and that cost."""
    return _kinds(
        evidence.topology,
        evidence.routes,
        evidence.layout,
        evidence.message if evidence.objective == "link_time" else None,
        evidence.scope,
    )


@lru_cache(maxsize=1)
def _kinds(
    topology: ClusterTopology,
    routes: Routes,
    layout: ParallelLayout,
    message: tuple[int, int] | None,
    scope: frozenset[str],
) -> tuple[Kind, ...]:
    """The same for all layers of a plan, so it is worked out once."""
    cost_G = [Fraction(0)] * layout.gpu_count
    for leg, leaving in enumerate((False, True)):
        shares = routes.least_shares(layout.domain_G, leaving=leaving)
        for gpu, by_link in enumerate(shares):
            units = []
            for index, share in by_link.items():
                link = topology.links[index]
                size = None if message is None else message[leg]
                units.append(Fraction(share, routes.q) * _unit(link, size, scope))
            cost_G[gpu] += max(units, default=Fraction(0))
    members: dict[int, list[int]] = {}
    for gpu, domain in enumerate(layout.domain_G.tolist()):
        members.setdefault(domain, []).append(gpu)
    kinds: dict[tuple[int, Fraction], list[int]] = {}
    for domain, gpus in members.items():
        cheapest = min(cost_G[gpu] for gpu in gpus)
        kinds.setdefault((len(gpus), cheapest), []).append(domain)
    return tuple(
        (np.asarray(domains), size, unit) for (size, unit), domains in kinds.items()
    )


def _unit(link: Link, size: int | None, scope: frozenset[str]) -> Fraction:
    """What one transfer on a link adds to the objective; bytes or a token of it."""
    if size is not None:
        return size / link.bytes_per_s
    if link.members or link.name not in scope:
        return Fraction(0)
    return Fraction(1, link.token_divisor)


def _least_far(
    evidence: Evidence, demand: Demand, domains: IntArray, rails: int
) -> IntArray:
    """Least pairs [E] that enter one of ``domains`` from outside, on the busiest rail.

    A source uses the rail of its place in its own domain, modulo ``rails``.
    """
    layout, experts = evidence.layout, evidence.experts
    expert_x, source_x = demand
    place_N = np.full(int(layout.domain_G.max()) + 1, -1, dtype=np.int64)
    place_N[domains] = np.arange(domains.size)
    seen: dict[int, int] = {}
    rail_G = np.zeros(layout.gpu_count, dtype=np.int64)
    for gpu, domain in enumerate(layout.domain_G.tolist()):
        rail_G[gpu] = seen.get(domain, 0) % rails
        seen[domain] = seen.get(domain, 0) + 1
    total_ER = np.zeros((experts, rails), dtype=np.int64)
    np.add.at(total_ER, (expert_x, rail_G[source_x]), 1)
    own_ENR = np.zeros((experts, domains.size, rails), dtype=np.int64)
    at_x = place_N[layout.domain_G[source_x]]
    here = at_x >= 0
    place = (expert_x[here], at_x[here], rail_G[source_x[here]])
    np.add.at(own_ENR, place, 1)
    far_EN: IntArray = (total_ER[:, None, :] - own_ENR).max(axis=2)
    least_E: IntArray = far_EN.min(axis=1)
    return least_E
