"""What enters or leaves the domain of one node at least (kind ``walks``).

The anchor sits in some domain. Say k nodes of its kind sit there, itself included, and
the fewest of the others that room leaves. For any m of 64, m/64 of what enters and the
rest of what leaves is at most the greater of both, and it is a sum over the nodes of
the domain less what they send each other; every node is spared at most what the
greatest of its possible neighbours would send it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from planner.arrays import IntArray
from planner.verifier.certificates.base import Certificate, Evidence
from planner.verifier.certificates.rooms import Leg, room

WHOLE = 64


def seat(
    claimed: Certificate, evidence: Evidence, weight: Mapping[str, IntArray]
) -> Fraction:
    """Return the transfers that the anchor's domain exchanges in its busier way."""
    kind, both = _space(evidence)
    anchor, mixes = int(claimed["anchor"]), [int(mix) for mix in claimed["mixes"]]
    if anchor < 0 or any(not 0 <= mix <= WHOLE for mix in mixes):
        raise ValueError("anchor and mixes must be >= 0, mixes at most 64")
    if claimed["side"] == "within":
        return _within(anchor, mixes, kind, evidence, weight)
    table_UV = weight["between"] if claimed["side"] == "head" else weight["between"].T
    return _between(anchor, mixes, (kind, both), table_UV.tolist())


def tried(claimed: Certificate, evidence: Evidence, legs: Sequence[Leg]) -> Fraction:
    """Return what the anchor's domain costs with the best of all sets beside it."""
    kind, both = _space(evidence)
    turned = [_turned(leg) for leg in legs] if claimed["side"] == "tail" else legs
    return Fraction(room(int(claimed["anchor"]), turned, kind, both))


def seen_from(evidence: Evidence, weight: Mapping[str, IntArray], message: int) -> Leg:
    """Return a leg as its layer's experts see it, homes saving what they can."""
    experts = evidence.experts
    none_UU = np.zeros((experts, experts), dtype=np.int64)
    if "between" in weight:
        return Leg(
            message=message,
            enters_U=none_UU[0],
            leaves_U=none_UU[0],
            inside_UU=none_UU,
            table_VU=weight["between"],
        )
    inside_UU = weight.get("within", none_UU)
    enters, leaves = _ends(evidence, weight, inside_UU.tolist())
    return Leg(
        message=message,
        enters_U=np.asarray(enters, dtype=np.int64),
        leaves_U=np.asarray(leaves, dtype=np.int64),
        inside_UU=inside_UU,
    )


def _turned(leg: Leg) -> Leg:
    """Return the leg as the layer before sees it."""
    if leg.table_VU is None:
        raise ValueError("a leg between layers is needed for a tail")
    return replace(leg, table_VU=leg.table_VU.T)


def _space(evidence: Evidence) -> tuple[int, int]:
    """Return how many nodes of a kind, and of two kinds, fit in a domain."""
    widest = _widest(evidence)
    if evidence.single:
        return widest, widest
    return widest * evidence.slots_per_gpu, 2 * widest * evidence.slots_per_gpu


def _between(
    anchor: int, mixes: list[int], room: tuple[int, int], table_UV: list[list[int]]
) -> Fraction:
    """Bound by how many heads k share the anchor's domain; tails are its columns' rows.

    k heads cost at least what enters the anchor and the k - 1 others that get least;
    a tail costs what leaves it, less what it sends to the anchor and to the k - 1
    others it sends most, and only so many tails fit.
    """
    others = [v for v in range(len(table_UV[0])) if v != anchor]
    enters = [sum(row[v] for row in table_UV) for v in range(len(table_UV[0]))]
    most = min(room[0], len(enters))
    if len(mixes) != most:
        raise ValueError("one mix per number of heads is needed")
    rest = sorted(enters[v] for v in others)
    values = []
    for k, mix in enumerate(mixes, 1):
        tails = sorted(
            min(
                0,
                (WHOLE - mix) * sum(row)
                - WHOLE * (row[anchor] + _top([row[v] for v in others], k - 1)),
            )
            for row in table_UV
        )
        heads = mix * (enters[anchor] + sum(rest[: k - 1]))
        values.append(heads + sum(tails[: max(0, min(room[0], room[1] - k))]))
    return Fraction(min(values), WHOLE)


def _within(
    anchor: int,
    mixes: list[int],
    kind: int,
    evidence: Evidence,
    weight: Mapping[str, IntArray],
) -> Fraction:
    """Bound by how many experts k of the layer share the anchor's domain.

    Two of them spare what they send each other; among the k - 1 others each spares
    half of what it exchanges with the k - 2 it exchanges most with.
    """
    experts = evidence.experts
    table = weight.get("within", np.zeros((experts, experts), dtype=np.int64)).tolist()
    enters, leaves = _ends(evidence, weight, table)
    others = [v for v in range(experts) if v != anchor]
    if len(mixes) != min(kind, experts):
        raise ValueError("one mix per number of experts is needed")
    values = []
    for k, mix in enumerate(mixes, 1):
        cost = [
            mix * come + (WHOLE - mix) * go
            for come, go in zip(enters, leaves, strict=True)
        ]
        beside = sorted(
            2 * cost[v]
            - 2 * WHOLE * (table[v][anchor] + table[anchor][v])
            - WHOLE
            * _top([table[v][u] + table[u][v] for u in others if u != v], max(0, k - 2))
            for v in others
        )
        values.append(2 * cost[anchor] + sum(beside[: k - 1]))
    return Fraction(min(values), 2 * WHOLE)


def _ends(
    evidence: Evidence, weight: Mapping[str, IntArray], table: list[list[int]]
) -> tuple[list[int], list[int]]:
    """Return what enters and leaves every expert of a layer."""
    experts = evidence.experts
    enters = [sum(row[v] for row in table) for v in range(experts)]
    leaves = [sum(row) for row in table]
    for name, far in (("out", enters), ("home", leaves)):
        if name in weight:
            by_home = weight[name] if name == "out" else weight[name].T
            for v in range(experts):
                far[v] += _from_elsewhere(by_home[:, v].tolist(), evidence)
    return enters, leaves


def _from_elsewhere(by_home: list[int], evidence: Evidence) -> int:
    """What a node exchanges with homes, less the most that one domain's homes have."""
    mine: dict[int, int] = {}
    for home, count in enumerate(by_home):
        domain = int(evidence.layout.domain_G[home])
        mine[domain] = mine.get(domain, 0) + count
    return int(np.sum(by_home, dtype=np.int64)) - max(mine.values())


def _top(values: list[int], count: int) -> int:
    return int(np.sum(sorted(values, reverse=True)[:count], dtype=np.int64))


def _widest(evidence: Evidence) -> int:
    domains: list[int] = evidence.layout.domain_G.tolist()
    return max(domains.count(domain) for domain in set(domains))
