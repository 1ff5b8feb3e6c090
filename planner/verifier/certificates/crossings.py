"""Which links of a class transfers cross, looked up once per class."""

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from planner.topology.paths import Routes
from planner.verifier.certificates.base import Evidence


@dataclass(slots=True)
class Port:
    """Links that some transfer over a domain's border uses, and the least of them.

    ``share`` is the least sum of shares, over Q, of any such transfer.
    """

    links: set[int] = field(default_factory=set)
    share: int | None = None


@dataclass(slots=True)
class Crossings:
    """What transfers between different GPUs of an EP set cross of a class of links.

    ``least`` is the least sum of shares, over Q, within a domain (False) and between
    domains (True); ``inward`` and ``outward`` are the ports of every domain,
    ``into_gpu`` and ``out_of_gpu`` what transfers between domains use at every GPU.
    """

    least: dict[bool, int] = field(default_factory=dict)
    inward: dict[int, Port] = field(default_factory=dict)
    outward: dict[int, Port] = field(default_factory=dict)
    into_gpu: dict[int, Port] = field(default_factory=dict)
    out_of_gpu: dict[int, Port] = field(default_factory=dict)


_KNOWN: WeakKeyDictionary[Routes, dict[tuple[object, ...], Crossings]] = (
    WeakKeyDictionary()
)


def crossings(evidence: Evidence, name: str) -> Crossings:
    """Return what crosses the links of class ``name`` that the objective looks at."""
    timed = evidence.objective == "link_time"
    members = {
        link.index
        for link in evidence.topology.links
        if link.link_class == name
        and not link.members
        and (timed or link.name in evidence.scope)
    }
    known = _KNOWN.setdefault(evidence.routes, {})
    key = (name, evidence.layout.ep, frozenset(members))
    if key not in known:
        known[key] = _crossings(evidence, members)
    return known[key]


def _crossings(evidence: Evidence, members: set[int]) -> Crossings:
    layout = evidence.layout
    first_P, link_Y, numerator_Y = evidence.routes.incidence()
    domain_of = layout.domain_G.tolist()
    found = Crossings()
    for source in range(layout.gpu_count):
        start = source // layout.ep * layout.ep
        for target in range(start, start + layout.ep):
            if source == target:
                continue
            pair = source * layout.gpu_count + target
            inside = slice(int(first_P[pair]), int(first_P[pair + 1]))
            links = link_Y[inside].tolist()
            shares = zip(links, numerator_Y[inside].tolist(), strict=True)
            crossed = {link: int(share) for link, share in shares if link in members}
            leaves, enters = domain_of[source], domain_of[target]
            total = sum(crossed.values())
            least = found.least.get(leaves != enters, total)
            found.least[leaves != enters] = min(least, total)
            if leaves != enters:
                _note(found.inward.setdefault(enters, Port()), crossed)
                _note(found.outward.setdefault(leaves, Port()), crossed)
                _note(found.into_gpu.setdefault(target, Port()), crossed)
                _note(found.out_of_gpu.setdefault(source, Port()), crossed)
    return found


def _note(port: Port, crossed: dict[int, int]) -> None:
    """Add a transfer by its links of the class and their shares."""
    total = sum(crossed.values())
    port.links |= crossed.keys()
    port.share = total if port.share is None else min(port.share, total)
