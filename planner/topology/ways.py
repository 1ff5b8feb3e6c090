"""How long a byte takes through a GPU's ways: into the fabric, to its neighbours."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import numpy as np

from planner.arrays import FloatArray
from planner.topology.graph import ClusterTopology
from planner.topology.nics import Endpoints
from planner.topology.sections import SCALE_UP, Hop, Section, section, shortest_shares


def fabric_seconds(topology: ClusterTopology) -> FloatArray:
    """Return seconds per byte into the fabric and back, by GPU (rule 5).

    Each way is as slow as its slowest link; others on the link are not counted. 0
    where there is no fabric, and for GPUs that the graph does not hold.
    """
    ends, graph = Endpoints(topology), topology.graph
    sides = ((True, ends.fabric.out), (False, ends.fabric.back))
    times = np.zeros(topology.gpu_count)
    for index, gpu in enumerate(topology.gpus):
        if gpu.id not in graph:
            continue
        for leaving, hops in sides:
            slowest = [Fraction(0)]
            for port in ends.ports(gpu.id, leaving=leaving):
                slowest.append(port.share * _shared(topology, hops[port.node]))
                slowest += [
                    port.share * share / topology.links[link].bytes_per_s
                    for link, share in port.access
                ]
            times[index] += float(max(slowest))
    return times


def scale_up_seconds(topology: ClusterTopology) -> tuple[FloatArray, ...]:
    """Return by domain the seconds per byte between its GPUs, the slower direction."""
    inside = section(topology, SCALE_UP)
    found = []
    for members in topology.domains:
        ids = [topology.gpus[gpu].id for gpu in members]
        near_MM = np.zeros((len(ids), len(ids)))
        # GPUs that the graph does not hold are as near as can be.
        known = [at for at, gpu in enumerate(ids) if gpu in topology.graph]
        for one, other in combinations(known, 2):
            seconds = max(
                _between(topology, inside, ids[one], ids[other]),
                _between(topology, inside, ids[other], ids[one]),
            )
            near_MM[one, other] = near_MM[other, one] = float(seconds)
        found.append(near_MM)
    return tuple(found)


def _between(
    topology: ClusterTopology, inside: Section, source: str, target: str
) -> Fraction:
    out, back = inside.out.get(source, []), inside.back.get(target, [])
    if any(node == target for node, _, _ in out) or not out or not back:
        shares = shortest_shares(inside, source, target) or ()
        times = [share / topology.links[link].bytes_per_s for link, share in shares]
        return max(times, default=Fraction(0))
    return max(_shared(topology, out), _shared(topology, back))


def _shared(topology: ClusterTopology, hops: Sequence[Hop]) -> Fraction:
    """Return seconds per byte over parallel links, shared by nominal bandwidth."""
    total = sum((weight for _, _, weight in hops), Fraction(0))
    return max(
        weight / total / topology.links[link].bytes_per_s for _, link, weight in hops
    )
