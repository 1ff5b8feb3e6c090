"""What one transfer between two GPUs adds to every link that can bind."""

from typing import NamedTuple

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.evaluator.objective import link_tokens
from planner.instance import PlacementInstance, scope_of


class Wires(NamedTuple):
    """CSR over GPU pairs s·G + d: places, and what a transfer adds there.

    Places are links of which none is always below another. ``cost_2X`` turns a load
    into the objective's unit, for dispatch and combine.
    """

    first_P: IntArray
    place_Y: IntArray
    share_Y: FloatArray
    cost_2X: FloatArray


def wires_of(instance: PlacementInstance) -> Wires:
    """Return the wires of a link objective.

    Raises
    ------
    ValueError
        If the cluster is too large to write all its routes out.
    """
    links, gpus = instance.topology.links, instance.layout.gpu_count
    first_P, link_Y, numerator_Y = instance.routes.incidence()
    pair_Y = np.repeat(np.arange(gpus * gpus), np.diff(first_P))
    share_Y = numerator_Y.astype(np.float64) / float(instance.routes.q)
    cost_2A = _costs(instance)
    order = np.lexsort((pair_Y, link_Y))
    pair_Y, link_Y, share_Y = pair_Y[order], link_Y[order], share_Y[order]
    ends = np.searchsorted(link_Y, np.arange(len(links) + 1))
    kept: dict[bytes, int] = {}
    for link in np.flatnonzero((np.diff(ends) > 0) & (cost_2A > 0).any(axis=0)):
        inside = slice(ends[link], ends[link + 1])
        unit = share_Y[ends[link]]
        share_Y[inside] /= unit
        cost_2A[:, link] *= unit
        # Links on one cable see one flow: only the costliest can bind.
        flow = pair_Y[inside].tobytes() + np.round(share_Y[inside], 12).tobytes()
        held = kept.setdefault(flow, int(link))
        if (cost_2A[:, link] >= cost_2A[:, held]).all():
            kept[flow] = int(link)
    places = np.sort(np.asarray(list(kept.values()), dtype=np.int64))
    chosen = np.isin(link_Y, places)
    pair_Y, link_Y, share_Y = pair_Y[chosen], link_Y[chosen], share_Y[chosen]
    order = np.argsort(pair_Y, kind="stable")
    return Wires(
        first_P=np.searchsorted(pair_Y[order], np.arange(gpus * gpus + 1)),
        place_Y=np.searchsorted(places, link_Y[order]),
        share_Y=share_Y[order],
        cost_2X=np.ascontiguousarray(cost_2A[:, places]),
    )


def _costs(instance: PlacementInstance) -> FloatArray:
    """Return the objective's unit per transfer on every link, by leg, [2, A]."""
    links = instance.topology.links
    if instance.objective.name == "link_time":
        seconds_A = 1.0 / np.asarray([float(link.bytes_per_s) for link in links])
        return np.outer(instance.message_bytes, seconds_A)
    ones = np.ones(len(links), dtype=np.int64)
    tokens_A, over = link_tokens(ones, instance.topology)
    # A group's tokens are its members' after division by cables; equal cables only
    # scale its load, others are judged in the end.
    counts_A = [max(1, len(link.members)) for link in links]
    per_A = tokens_A.astype(np.float64) / over / np.asarray(counts_A)
    inside_A = scope_of(links, instance.objective.link_classes)
    return np.tile(np.where(inside_A, per_A, 0.0), (2, 1))
