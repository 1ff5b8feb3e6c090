"""What transfers cost at least, per message: over a class of links, at a domain's port.

All rates are for messages of one byte, or for tokens, by what the objective looks at.
"""

from typing import NamedTuple

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.instance import PlacementInstance, scope_of


class Rate(NamedTuple):
    """What a transfer costs at least in the mean over all links of a class.

    ``near`` within a domain, ``far`` between domains.
    """

    link_class: str
    near: float
    far: float


class Ports(NamedTuple):
    """What a transfer costs at least at the port of the domain it enters or leaves.

    ``inward`` and ``outward`` are the link classes that say so; ``rate`` holds for
    both and for every domain.
    """

    inward: str
    outward: str
    rate: float


class _Entries(NamedTuple):
    """Shares of links by pair of GPUs of one EP set, and the classes to look at."""

    pair_Y: IntArray
    link_Y: IntArray
    share_Y: FloatArray
    rate_A: FloatArray
    classes: dict[str, list[int]]


def class_rates(instance: PlacementInstance) -> list[Rate]:
    """Return the rate of every class of links that the objective looks at."""
    entries, near_P, far_P = _entries(instance), *_kinds(instance)
    rates = []
    for name, members in entries.classes.items():
        inside = np.isin(entries.link_Y, members)
        unit = 1.0 / entries.rate_A[members].sum()
        crossed_P = unit * _crossed(entries, inside, near_P.size)
        near = _least(crossed_P, near_P)
        far = _least(crossed_P, far_P) if far_P.any() else near
        rates.append(Rate(name, near, far))
    return rates


def port_rates(instance: PlacementInstance) -> Ports | None:
    """Return the domains' ports that bind; None if there is one domain, or no port."""
    return _ports(instance, instance.layout.domain_G)


def gpu_port_rates(instance: PlacementInstance) -> Ports | None:
    """Return what binds of the ports that transfers of other domains share by GPU."""
    return _ports(instance, np.arange(instance.layout.gpu_count))


def _ports(instance: PlacementInstance, end_G: IntArray) -> Ports | None:
    """Return the ports of the ends, GPUs or domains, that transfers go to."""
    entries, gpus = _entries(instance), end_G.size
    _, far_P = _kinds(instance)
    if not far_P.any():
        return None
    pair_P = np.arange(gpus * gpus)
    best = [
        max(
            (_port(entries, members, far_P, end_P), name)
            for name, members in entries.classes.items()
        )
        for end_P in (end_G[pair_P % gpus], end_G[pair_P // gpus])
    ]
    rate = min(best[0][0], best[1][0])
    return Ports(best[0][1], best[1][1], rate) if rate > 0 else None


def message(instance: PlacementInstance, leg: int) -> float:
    """Return the bytes of a message of a leg; 1 where tokens count."""
    timed = instance.objective.name == "link_time"
    return float(instance.message_bytes[leg]) if timed else 1.0


def _port(
    entries: _Entries, members: list[int], far_P: BoolArray, end_P: IntArray
) -> float:
    """Return what a transfer takes at least of a class's links at any end."""
    inside = np.isin(entries.link_Y, members) & far_P[entries.pair_Y]
    links, ends = entries.rate_A.size, int(end_P.max()) + 1
    used = np.unique(end_P[entries.pair_Y[inside]] * links + entries.link_Y[inside])
    rate_N = np.bincount(used // links, entries.rate_A[used % links], minlength=ends)
    least_N = np.full(ends, np.inf)
    crossed_P = _crossed(entries, inside, far_P.size)
    np.minimum.at(least_N, end_P[far_P], crossed_P[far_P])
    met_N = np.isfinite(least_N)
    if (rate_N[met_N] <= 0).any():
        return 0.0
    return float((least_N[met_N] / rate_N[met_N]).min())


def _entries(instance: PlacementInstance) -> _Entries:
    links, gpus = instance.topology.links, instance.layout.gpu_count
    first_P, link_Y, numerator_Y = instance.routes.incidence()
    timed = instance.objective.name == "link_time"
    scope_A = scope_of(links, instance.objective.link_classes)
    classes: dict[str, list[int]] = {}
    for link in links:
        if not link.members and (timed or scope_A[link.index]):
            classes.setdefault(link.link_class, []).append(link.index)
    rates = [float(each.bytes_per_s if timed else each.token_divisor) for each in links]
    return _Entries(
        pair_Y=np.repeat(np.arange(gpus * gpus), np.diff(first_P)),
        link_Y=link_Y,
        share_Y=numerator_Y.astype(np.float64) / float(instance.routes.q),
        rate_A=np.asarray(rates),
        classes=classes,
    )


def _kinds(instance: PlacementInstance) -> tuple[BoolArray, BoolArray]:
    """Return which pairs of an EP set lie in one domain, and which do not."""
    layout = instance.layout
    same_set = layout.set_G[:, None] == layout.set_G[None, :]
    same = layout.domain_G[:, None] == layout.domain_G[None, :]
    near_GG = same_set & same & ~np.eye(layout.gpu_count, dtype=np.bool_)
    return near_GG.ravel(), (same_set & ~same).ravel()


def _crossed(entries: _Entries, inside_Y: BoolArray, pairs: int) -> FloatArray:
    share_Y, pair_Y = entries.share_Y[inside_Y], entries.pair_Y[inside_Y]
    return np.bincount(pair_Y, weights=share_Y, minlength=pairs).astype(np.float64)


def _least(cost_P: FloatArray, chosen_P: BoolArray) -> float:
    """Return the least cost of some pairs; 0 if there are none."""
    return float(cost_P[chosen_P].min()) if chosen_P.any() else 0.0
