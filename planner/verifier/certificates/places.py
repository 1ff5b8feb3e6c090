"""What the links near a GPU carry for the one expert it holds (kind ``matching``)."""

from fractions import Fraction
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from planner.arrays import ExactArray
from planner.topology.paths import Routes
from planner.verifier.certificates.base import Evidence

Unit = list[list[int]]
"""By place its GPUs: one of each EP set."""


class Toll(NamedTuple):
    """What a link takes of a GPU's transfers, over Q; all of them integers.

    ``shares`` of a token of the expert from each of ``homes``, ``own`` of a token of
    the GPU that goes to any other place: the least of them, 0 where one goes past.
    """

    rate: Fraction
    homes: list[int]
    shares: ExactArray
    own: int


_KNOWN: WeakKeyDictionary[Routes, dict[tuple[int, ...], list[list[Toll]]]] = (
    WeakKeyDictionary()
)


def tolls_of(evidence: Evidence, unit: Unit, place: int, leg: int) -> list[list[Toll]]:
    """Return for each GPU of a place the tolls of the links near it, in one leg."""
    known = _KNOWN.setdefault(evidence.routes, {})
    # What decides which GPUs are in one unit, and which of them this is.
    key = (evidence.experts, evidence.layout.ep, unit[place][0], leg)
    if key not in known:
        known[key] = [
            _tolls(evidence, [gpus[number] for gpus in unit], gpu, leg)
            for number, gpu in enumerate(unit[place])
        ]
    return known[key]


def _tolls(evidence: Evidence, members: list[int], gpu: int, leg: int) -> list[Toll]:
    """Look up what the GPU exchanges with the others of its unit."""
    others = [other for other in members if other != gpu]
    drawn: dict[int, dict[int, int]] = {}
    left: dict[int, list[int]] = {}
    for other in others:
        there, back = (other, gpu), (gpu, other)
        drawn_by, left_by = (back, there) if leg else (there, back)
        for link, share in _shares(evidence.routes, drawn_by):
            drawn.setdefault(link, {})[other] = share
        for link, share in _shares(evidence.routes, left_by):
            left.setdefault(link, []).append(share)
    found = []
    for link in sorted(drawn.keys() | left.keys()):
        shares, own = drawn.get(link, {}), left.get(link, [])
        found.append(
            Toll(
                rate=evidence.topology.links[link].bytes_per_s,
                homes=list(shares),
                shares=np.asarray(list(shares.values()), dtype=object),
                own=min(own) if len(own) == len(others) else 0,
            )
        )
    return found


def _shares(routes: Routes, pair: tuple[int, int]) -> list[tuple[int, int]]:
    links, numerators = routes.pair(*pair)
    return list(zip(links.tolist(), (int(each) for each in numerators), strict=True))
