"""Where a transfer adds load: the incidence of GPU pairs and the places that bind.

A *place* is a link in one leg. Places that cannot bind before another are left out,
exactly: the maximum over what is kept is the maximum over all links.
"""

from typing import NamedTuple

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.evaluator.objective import scope_of
from planner.instance import PlacementInstance


class Incidence(NamedTuple):
    """Entries by GPU pair: place and share; cost and leg of every place."""

    indptr_P: IntArray
    place_Y: IntArray
    share_Y: FloatArray
    cost_X: FloatArray
    leg_X: IntArray


def incidence_of(instance: PlacementInstance) -> Incidence:
    """Return the places that one dispatch transfer and its answer load, by GPU pair.

    The answer takes the mirrored pair's links; its places follow those of dispatch.
    """
    gpus, links = instance.layout.gpu_count, instance.topology.links
    count = len(links)
    pair_Z, link_Z, share_Z = _entries(instance)
    mirrored = pair_Z % gpus * gpus + pair_Z // gpus
    kept = _without_dominated(
        np.concatenate([pair_Z, mirrored]),
        np.concatenate([link_Z, link_Z + count]),
        np.concatenate([share_Z, share_Z]),
        _costs(instance).reshape(-1),
    )
    return _by_pair(*kept, gpus=gpus, links=count)


def _entries(instance: PlacementInstance) -> tuple[IntArray, IntArray, FloatArray]:
    """Pair, link and share of every link that a pair's transfer loads.

    Shares of ``link_tokens`` are per cable (rule 10), so groups add up their
    members' here instead of taking what the routes add up.
    """
    gpus, links = instance.layout.gpu_count, instance.topology.links
    indptr, link, numerator = instance.routes.incidence()
    pair = np.repeat(np.arange(gpus * gpus), np.diff(indptr))
    is_edge = np.asarray([not each.members for each in links])[link]
    pair, link, numerator = pair[is_edge], link[is_edge], numerator[is_edge]
    divisor_A = np.asarray([each.token_divisor for each in links], dtype=np.float64)
    by_tokens = instance.objective.name == "link_tokens"
    share = numerator.astype(np.float64) / (divisor_A[link] if by_tokens else 1.0)
    pieces = [(pair, link, share)]
    for group in links:
        for member in group.members:
            at = np.flatnonzero(link == member)
            pieces.append((pair[at], np.full(at.size, group.index), share[at]))
    pair_Z, link_Z, share_Z = (
        np.concatenate([piece[column] for piece in pieces]) for column in range(3)
    )
    return pair_Z, link_Z, share_Z


def _without_dominated(
    pair_Z: IntArray, place_Z: IntArray, share_Z: FloatArray, cost_X: FloatArray
) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """Keep the costliest of the places of a leg that always carry the same load.

    A port, its cable and the cable's far end all see one flow: only the slowest can
    bind. Where both legs load the same flows at proportional cost, as on symmetric
    fabrics, dispatch decides combine too: its costs are scaled and the other leg is
    dropped. Both steps leave the objective exactly as it is.
    """
    order = np.lexsort((pair_Z, place_Z))
    pair_Z, place_Z, share_Z = pair_Z[order], place_Z[order], share_Z[order]
    ends = np.searchsorted(place_Z, np.arange(cost_X.size + 1))
    kept: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
    for place in range(cost_X.size):
        inside = slice(ends[place], ends[place + 1])
        if ends[place] == ends[place + 1] or cost_X[place] <= 0:
            continue
        flow = pair_Z[inside].tobytes() + share_Z[inside].tobytes()
        leg = kept[int(place >= cost_X.size // 2)]
        if flow not in leg or cost_X[place] > cost_X[leg[flow]]:
            leg[flow] = place
    places = [*kept[0].values(), *kept[1].values()]
    if kept[0].keys() == kept[1].keys() and kept[0]:
        ratios = [cost_X[kept[1][flow]] / cost_X[at] for flow, at in kept[0].items()]
        if max(ratios) <= min(ratios) * (1 + 1e-12):
            cost_X = cost_X * (1 + ratios[0])
            places = list(kept[0].values())
    keep = np.isin(place_Z, places)
    return pair_Z[keep], place_Z[keep], share_Z[keep], cost_X


def _by_pair(
    pair_Z: IntArray,
    place_Z: IntArray,
    share_Z: FloatArray,
    cost_X: FloatArray,
    *,
    gpus: int,
    links: int,
) -> Incidence:
    """Number the places that are left and order the entries by GPU pair."""
    used = np.unique(place_Z)
    order = np.argsort(pair_Z, kind="stable")
    indptr_P = np.searchsorted(pair_Z[order], np.arange(gpus * gpus + 1))
    return Incidence(
        indptr_P=indptr_P.astype(np.int64),
        place_Y=np.searchsorted(used, place_Z[order]).astype(np.int64),
        share_Y=share_Z[order],
        cost_X=cost_X[used],
        leg_X=(used // links).astype(np.int64),
    )


def _costs(instance: PlacementInstance) -> FloatArray:
    """Return the objective's unit per numerator of load, [2, A]."""
    links, q = instance.topology.links, float(instance.routes.q)
    name = instance.objective.name
    if name == "gpu_tokens":
        return np.zeros((2, len(links)))
    if name == "link_tokens":
        scope_A = scope_of(links, instance.objective.link_classes).astype(np.float64)
        return np.stack([scope_A, scope_A]) / q
    seconds_A = 1.0 / np.asarray([float(each.bytes_per_s) for each in links])
    return np.outer(np.asarray(instance.message_bytes), seconds_A) / q
