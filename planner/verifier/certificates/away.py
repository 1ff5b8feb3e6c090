"""What a layer takes at least if some domain lacks an expert (kind ``matching``).

N domains of E GPUs hold one expert each and ``nearest`` serves. Let domain D lack
expert e, and m copies of e sit elsewhere. The n tokens of D that choose e enter at
most m GPUs outside D. A domain with k copies of e lacks k - 1 others at least, so with
e in D at least 1 + max(0, m - (N - 1)) pairs of a domain and an expert are missing,
whose tokens all enter GPUs of other domains.
"""

from collections.abc import Sequence
from fractions import Fraction
from weakref import WeakKeyDictionary

from planner.arrays import IntArray
from planner.topology.paths import Routes
from planner.verifier.certificates.base import Evidence
from planner.verifier.certificates.places import Unit

_Rates = list[Fraction]
"""Bytes per second that far tokens bring to a GPU, or take from it, at most."""

_KNOWN: WeakKeyDictionary[Routes, tuple[_Rates, _Rates]] = WeakKeyDictionary()


def least_away(
    evidence: Evidence, demand_ES: IntArray, units: Sequence[Unit]
) -> Fraction:
    """Return the least seconds of both legs; 0 where far transfers may be free."""
    domains = [[gpus[0] for gpus in unit] for unit in units]
    if evidence.routes not in _KNOWN:
        _KNOWN[evidence.routes] = _rates(evidence, 0), _rates(evidence, 1)
    rates = _KNOWN[evidence.routes]
    if not all(all(each) for each in rates):
        return Fraction(0)
    chosen = [demand_ES[:, gpus].sum(axis=1).tolist() for gpus in domains]
    pairs = sorted(count for counts in chosen for count in counts)
    values = []
    for gpus, counts in zip(domains, chosen, strict=True):
        outside = sorted(set(range(evidence.layout.gpu_count)) - set(gpus))
        fastest = [sorted((each[g] for g in outside), reverse=True) for each in rates]
        for copies in range(1, len(outside) + 1):
            missing = sum(pairs[: 1 + max(0, copies - (len(units) - 1))])
            seconds = Fraction(0)
            for size, fast, every in zip(evidence.message, fastest, rates, strict=True):
                served = Fraction(min(counts)) / sum(fast[:copies], Fraction(0))
                lost = Fraction(missing) / sum(every, Fraction(0))
                seconds += size * max(served, lost)
            values.append(seconds)
    return min(values, default=Fraction(0))


def _rates(evidence: Evidence, leg: int) -> _Rates:
    """Return by GPU the rate at which far tokens reach it at most.

    Dispatch enters the GPU that serves, combine leaves it. If every such transfer
    loads the links of a class by x in all, n of them keep some link of it at least
    n·x over their rates busy; the class that allows least is taken. 0: no class.
    """
    domains: list[int] = evidence.layout.domain_G.tolist()
    found = []
    for gpu, domain in enumerate(domains):
        far = [other for other, its in enumerate(domains) if its != domain]
        used: dict[str, set[int]] = {}
        crossed: dict[str, list[int]] = {}
        for other in far:
            loads: dict[str, int] = {}
            ends = (gpu, other) if leg else (other, gpu)
            for link, share in zip(*evidence.routes.pair(*ends), strict=True):
                name = evidence.topology.links[int(link)].link_class
                used.setdefault(name, set()).add(int(link))
                loads[name] = loads.get(name, 0) + int(share)
            for name, load in loads.items():
                crossed.setdefault(name, []).append(load)
        rates = [
            _sum_of_rates(evidence, used[name]) * evidence.routes.q / min(loads_n)
            for name, loads_n in crossed.items()
            if len(loads_n) == len(far)
        ]
        found.append(min(rates, default=Fraction(0)))
    return found


def _sum_of_rates(evidence: Evidence, used: set[int]) -> Fraction:
    links = evidence.topology.links
    return sum((links[link].bytes_per_s for link in used), Fraction(0))
