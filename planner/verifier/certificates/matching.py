"""One expert per GPU: no matching of experts to GPUs is cheaper (kind ``matching``).

Where every expert of an EP set has one GPU of each *unit* (the set, or each of its
domains), what an expert on a GPU costs a leg depends on both alone, and a leg takes
at least its costliest pair. Plans whose costliest dispatch is in an interval are
refuted by some experts and more GPUs than leave room for them, none of which they may
take (König). Plans that leave an expert out of a domain cost what ``away`` says.
"""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.verifier.certificates.away import least_away
from planner.verifier.certificates.base import CHECKERS, Certificate, Evidence
from planner.verifier.certificates.places import Unit, tolls_of
from planner.workload.parts import TokenPart

Costs = list[list[Fraction]]
"""Seconds by expert and place."""


class _Pairs(NamedTuple):
    """What every (expert, place) of a unit adds to each leg at least."""

    dispatch: Costs
    combine: Costs


@CHECKERS.register("matching")
def matching(certificate: Certificate, evidence: Evidence) -> Fraction:
    """Return ``level`` if all steps are refuted, or less if a domain may do without."""
    units = _units(evidence)
    if not units:
        return Fraction(0)
    level, demand_ES = Fraction(certificate["level"]), _demand(evidence)
    pairs = [
        _Pairs(*(_costs(evidence, unit, demand_ES, leg) for leg in (0, 1)))
        for unit in units
    ]
    if not _refuted(certificate["refuted"], pairs, level):
        return Fraction(0)
    if len(units) == 1:
        return level
    return min(level, least_away(evidence, demand_ES, units))


def _units(evidence: Evidence) -> list[Unit]:
    """Return the units, by place their GPUs; none where this kind proves nothing."""
    layout, experts = evidence.layout, evidence.experts
    domains: list[int] = layout.domain_G.tolist()
    if not (
        evidence.traffic in ("copies", "dedup_gpu")
        and evidence.objective == "link_time"
        and evidence.slots_per_gpu == 1
        and isinstance(evidence.part, TokenPart)
        and (evidence.endpoint == "local_nic" or len(set(domains)) == 1)
    ):
        return []
    if layout.ep == experts:
        firsts = range(0, layout.gpu_count, experts)
        return [[[first + rank for first in firsts] for rank in range(experts)]]
    members: dict[int, Unit] = {}
    for gpu, domain in enumerate(domains):
        members.setdefault(domain, []).append([gpu])
    even = all(len(unit) == experts for unit in members.values())
    if layout.sets > 1 or evidence.selection != "nearest" or not even:
        return []
    return list(members.values())


def _demand(evidence: Evidence) -> IntArray:
    """Return the tokens of every expert by the GPU that they leave."""
    assert isinstance(evidence.part, TokenPart)
    chosen_TK = np.sort(evidence.part.experts_LTK[evidence.layer], axis=1)
    once_TK = chosen_TK >= 0
    once_TK[:, 1:] &= chosen_TK[:, 1:] != chosen_TK[:, :-1]
    demand_ES = np.zeros((evidence.experts, evidence.layout.gpu_count), dtype=np.int64)
    for chosen_T, once_T in zip(chosen_TK.T, once_TK.T, strict=True):
        place = chosen_T[once_T].astype(np.int64), evidence.part.source_T[once_T]
        np.add.at(demand_ES, place, 1)
    return demand_ES


def _costs(evidence: Evidence, unit: Unit, demand_ES: IntArray, leg: int) -> Costs:
    """Return the seconds that an expert on a place takes of a leg, the least there is.

    A link carries what the homes send to the expert, or what a GPU's tokens send to
    all other experts of the unit.
    """
    costs = [[Fraction(0)] * len(unit) for _ in range(evidence.experts)]
    sent_S = demand_ES.sum(axis=0)
    for place, gpus in enumerate(unit):
        for gpu, tolls in zip(gpus, tolls_of(evidence, unit, place, leg), strict=True):
            most: dict[Fraction, ExactArray] = {}
            there_E = (sent_S[gpu] - demand_ES[:, gpu]).astype(object)
            for toll in tolls:
                drawn_E = demand_ES[:, toll.homes].astype(object) @ toll.shares
                found_E = np.maximum(drawn_E, there_E * toll.own)
                most[toll.rate] = np.maximum(most.get(toll.rate, found_E), found_E)
            for rate, most_E in most.items():
                unit_seconds = evidence.message[leg] / (rate * evidence.routes.q)
                for row, numerator in zip(costs, most_E.tolist(), strict=True):
                    row[place] = max(row[place], numerator * unit_seconds)
    return costs


def _refuted(claims: Sequence[Any], pairs: Sequence[_Pairs], level: Fraction) -> bool:
    """Whether no plan is below ``level``: every costliest dispatch is refuted.

    The costliest dispatch is one of the steps. From the first step that is open to
    ``upto`` (None: the last) a pair may be used only if its dispatch is at most
    ``upto`` and its combine keeps the sum below the level.
    """
    steps = sorted({cost for unit in pairs for row in unit.dispatch for cost in row})
    begin = 0
    for claim in claims:
        if begin == len(steps):
            break
        most = steps[-1] if claim["upto"] is None else Fraction(claim["upto"])
        unit = pairs[_index(claim["unit"], len(pairs))]
        size = len(unit.dispatch)
        experts = {_index(expert, size) for expert in claim["experts"]}
        places = {_index(place, size) for place in claim["places"]}
        open_pairs = (
            unit.dispatch[e][p] <= most and unit.combine[e][p] + steps[begin] < level
            for e in experts
            for p in places
        )
        if len(experts) + len(places) <= size or any(open_pairs):
            return False
        begin = max(begin, bisect_right(steps, most))
    return begin == len(steps)


def _index(value: Any, size: int) -> int:
    number = int(value)
    if not 0 <= number < size:
        raise ValueError(f"{number} is not from 0 to {size - 1}")
    return number
